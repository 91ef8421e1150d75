//! Descriptors of pipes, sockets and terminals, mostly for use in tokio's runtime.

use crate::check;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A pipe, both ends close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// Takes a descriptor that the program was started with, by its number. It is close-on-exec from now on. Fails if there is
/// none. Each number must be taken once only.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call before makes sure that the descriptor is open, and nobody else in this program owns it.
    unsafe {
        check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// A pipe for bulk data.
pub fn large_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    widen_pipe(&write);
    Ok((read, write))
}

/// With the usual 64 KiB reader and writer would take turns for every message. If the kernel refuses the size, the pipe
/// stays as it is.
pub fn widen_pipe(pipe: impl AsFd) {
    const WIDE: libc::c_int = 256 << 10;
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(WIDE));
}

pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The descriptor for use in the runtime, never blocking.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<File>> {
    watch_for(fd, Interest::READABLE | Interest::WRITABLE)
}

/// As `watch`, with events of this interest only.
pub fn watch_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<File>> {
    set_nonblocking(&fd)?;
    // SAFETY: a File keeps its one descriptor open until it is dropped, and nobody exchanges the File inside.
    unsafe { AsyncFd::register_with_interest(File::from(fd), interest) }.map_err(Into::into)
}

/// Waits for something to read and appends it, at most as much as the buffer has room for; 0 is the end.
pub async fn receive(file: &AsyncFd<File>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let mut ready = file.readable().await?;
        match ready.try_io(|file| read_more(file.get_ref(), buffer)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_) => {}
        }
    }
}

/// Reads once and appends, at most as much as the buffer has room for without growing.
pub fn read_more(fd: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let held = buffer.len();
    let room = buffer.spare_capacity_mut();
    // SAFETY: the memory is valid for the length; only what the kernel has written becomes part of the buffer.
    unsafe {
        let count = libc::read(fd.as_fd().as_raw_fd(), room.as_mut_ptr().cast(), room.len());
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        buffer.set_len(held + count);
        Ok(count)
    }
}

/// The number of bytes that a read would return now.
pub fn bytes_waiting(fd: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Lets the socket's reader sleep until this many bytes can be read. Kernels before 6.1 wake it at the first byte of
/// vsock all the same.
pub fn wake_at(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the pointer is valid for the length.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    })
    .map(drop)
}
