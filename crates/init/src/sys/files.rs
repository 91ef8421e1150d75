//! Mounts, nodes, pipes, and paths resolved inside a foreign root.

use super::{c_path, c_string, check, check_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use libc::{
    MNT_DETACH, MS_BIND, MS_MOVE, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC,
    MS_RELATIME, MS_REMOUNT, MS_STRICTATIME,
};

/// mount(2). An empty source, type or data is passed as "none" or NULL.
pub fn mount(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let source = c_path(source)?;
    let target = c_path(target)?;
    let kind = c_string(kind.as_bytes())?;
    let data = c_string(data.as_bytes())?;
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Makes a bind mount, or one place of a mounted file system, read-only. Its other flags become `flags`.
pub fn remount_read_only(path: &Path, flags: u64) -> io::Result<()> {
    let flags = flags | MS_REMOUNT | MS_BIND | MS_RDONLY;
    mount(Path::new("none"), path, "none", flags, "")
}

pub fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// openat2(2) with RESOLVE_IN_ROOT: `path`, its `..` and its symlinks never leave `root`.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: libc::c_int,
    mode: u32,
) -> io::Result<OwnedFd> {
    // The type has private padding for the future, hence the zeroed start.
    // SAFETY: open_how is plain integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Flags and mode are non-negative.
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let path = c_path(path)?;
    // SAFETY: the pointers are valid for the call and the size is that of the structure.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })?;
    // SAFETY: the kernel just gave us this descriptor; file descriptors fit in an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

pub fn make_directory_at(parent: BorrowedFd<'_>, name: &Path, mode: u32) -> io::Result<()> {
    let name = c_path(name)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

pub fn read_link_at(parent: BorrowedFd<'_>, name: &Path) -> io::Result<Vec<u8>> {
    let name = c_path(name)?;
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: the buffer is valid for its length.
    let length = unsafe {
        libc::readlinkat(
            parent.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(length);
    Ok(buffer)
}

pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// A device node whose type and exact permissions `mode` gives, whatever the umask.
pub fn make_device(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let name = c_path(path)?;
    // SAFETY: a NUL-terminated string that outlives the calls.
    unsafe {
        check(libc::mknod(name.as_ptr(), mode, device))?;
        check(libc::chmod(name.as_ptr(), mode & 0o7777))?;
    }
    Ok(())
}

/// A pipe, both ends close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors; on success both are ours.
    unsafe {
        check(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// A pipe for bulk data: with the usual 64 KiB the two sides would take turns for every message. No error where the
/// kernel refuses the size.
pub fn large_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    const LARGE: libc::c_int = 256 << 10;
    let (read, write) = pipe()?;
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, LARGE) };
    Ok((read, write))
}

/// An anonymous file in memory.
pub fn memory_file(name: &str) -> io::Result<File> {
    let name = c_string(name.as_bytes())?;
    // SAFETY: a NUL-terminated string; on success the descriptor is ours.
    unsafe {
        let fd = check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is involved.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

/// The descriptor for use in the runtime, never blocking.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<File>> {
    watch_for(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Appends what is there once something is, at most as much as the buffer has room for; 0 is the end.
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

/// As `watch`; nobody is woken for anything else.
pub fn watch_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<File>> {
    set_nonblocking(&fd)?;
    // SAFETY: a File keeps its one descriptor open until it is dropped, and nobody exchanges the File inside.
    unsafe { AsyncFd::register_with_interest(File::from(fd), interest) }.map_err(Into::into)
}

/// Gives the descriptor's file to a user; a group of `None` stays as it is.
pub fn change_owner(fd: impl AsFd, user: u32, group: Option<u32>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe {
        libc::fchown(
            fd.as_fd().as_raw_fd(),
            user,
            group.unwrap_or(libc::gid_t::MAX),
        )
    })
    .map(drop)
}

pub fn is_pipe(fd: impl AsFd) -> io::Result<bool> {
    // SAFETY: stat is plain data for which zero is a value; fstat writes one.
    let mode = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_fd().as_raw_fd(), &raw mut found))?;
        found.st_mode
    };
    Ok(mode & libc::S_IFMT == libc::S_IFIFO)
}

/// Reads once, behind what the buffer holds, at most as much as it has room for without growing.
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

/// Whether the other side of the connection has gone, whatever there still is to read.
pub fn hung_up(fd: impl AsFd) -> bool {
    let mut asked = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one structure, valid for the call, which does not wait.
    let count = unsafe { libc::poll(&raw mut asked, 1, 0) };
    count > 0
}

/// Lets whoever waits for the socket sleep until so many bytes can be read. Kernels before 6.1 wake at the first byte of
/// vsock all the same.
pub fn wake_at(fd: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the pointer is valid for the length.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Bytes that a read would give now.
pub fn bytes_waiting(fd: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Makes the descriptor standard input (0), output (1) or error (2), which pass to programs.
pub fn become_standard_stream(fd: OwnedFd, number: usize) -> io::Result<()> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: no memory is involved; a new process has no other owner for its standard streams.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// The null device, to read from.
pub fn null_input() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(Into::into)
}

/// Makes 0, 1 and 2 refer to /dev/null. A kernel without a console starts init with none of them open.
pub fn null_standard_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let raw = null.as_raw_fd();
    for target in 0..3 {
        if raw != target {
            // SAFETY: no memory is involved.
            check(unsafe { libc::dup2(raw, target) })?;
        }
    }
    if raw < 3 {
        // The file itself became a standard stream and has to stay open.
        std::mem::forget(null);
        for target in 0..3 {
            // SAFETY: no memory is involved.
            check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) })?;
        }
    }
    Ok(())
}
