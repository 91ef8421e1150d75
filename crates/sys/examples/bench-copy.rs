//! The program of `make bench-exec`, in the guest and on the host alike. Without arguments: a bare copy over vsock,
//! with nothing between the program and the socket. Each connection to the port begins with one byte ('s': send, 'r':
//! receive) and a little-endian count of bytes. `send COUNT` writes that many bytes to its output, and then to its
//! standard error the microseconds that took. `count` prints "ready", and then the number of bytes of its input.
//! `discard` takes its input, a pipe, without copying any of it. With a further argument, `wide`, the input is a pipe
//! that must hold a megabyte, as a task's does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

const PORT: u32 = 9999;
const CHUNK: usize = 64 << 10;
const PIPE: libc::c_int = 1 << 20;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn listen() -> io::Result<OwnedFd> {
    // SAFETY: zero is a value of this plain structure; the pointer is valid for the length; the descriptor is ours.
    unsafe {
        let fd = check(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0))?;
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = libc::VMADDR_CID_ANY;
        address.svm_port = PORT;
        let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        check(libc::bind(fd, (&raw const address).cast(), length))?;
        check(libc::listen(fd, 8))?;
        Ok(socket)
    }
}

fn serve(mut connection: File) -> io::Result<()> {
    let mut head = [0; 9];
    connection.read_exact(&mut head)?;
    let mut left = u64::from_le_bytes(head[1..].try_into().unwrap_or_default());
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let most = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let count = if head[0] == b's' {
            connection.write(&chunk[..most])?
        } else {
            connection.read(&mut chunk[..most])?
        };
        if count == 0 {
            return Ok(());
        }
        left -= count as u64;
    }
    if head[0] != b's' {
        connection.write_all(b".")?;
    }
    // The host closes first: vsock may drop bytes still on their way.
    let _ = connection.read(&mut head);
    Ok(())
}

fn copy_over_vsock() -> io::Result<()> {
    let socket = listen()?;
    println!("listening");
    loop {
        // SAFETY: no address is asked for; the descriptor is ours.
        let connection = unsafe {
            let fd = libc::accept(
                socket.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
            File::from_raw_fd(check(fd)?)
        };
        if let Err(error) = serve(connection) {
            println!("{error}");
        }
    }
}

/// A descriptor as a file, without the standard library's buffers.
fn unbuffered(fd: i32) -> File {
    // SAFETY: open, and nothing else uses it.
    unsafe { File::from_raw_fd(fd) }
}

fn send(mut left: usize) -> io::Result<()> {
    let chunk = vec![b'.'; CHUNK];
    let mut output = unbuffered(1);
    let started = Instant::now();
    while left > 0 {
        left -= output.write(&chunk[..left.min(CHUNK)])?;
    }
    eprintln!("{} us", started.elapsed().as_micros());
    Ok(())
}

fn widen_input() {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(0, libc::F_SETPIPE_SZ, PIPE) };
}

fn discard() -> io::Result<()> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    loop {
        // SAFETY: no offsets are given; both descriptors are open.
        let count = unsafe {
            let (null, length) = (std::ptr::null_mut(), PIPE as usize);
            libc::splice(0, null, nowhere.as_raw_fd(), null, length, 0)
        };
        match count {
            0 => return Ok(()),
            1.. => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

fn count() -> io::Result<()> {
    println!("ready");
    let mut chunk = vec![0; CHUNK];
    let mut input = unbuffered(0);
    let mut count = 0;
    loop {
        match input.read(&mut chunk)? {
            0 => break,
            length => count += length,
        }
    }
    println!("{count}");
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.get(1).is_some_and(|it| it == "wide") {
        widen_input();
    }
    match arguments.first().map(String::as_str) {
        Some("send") => send(arguments.get(1).and_then(|it| it.parse().ok()).unwrap_or(0)),
        Some("count") => count(),
        Some("discard") => discard(),
        _ => copy_over_vsock(),
    }
}
