//! Pseudo-terminals.

use super::{c_path, check};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a new terminal by the path of a devpts multiplexer.
pub fn open(multiplexer: &Path) -> io::Result<Terminal> {
    let path = c_path(multiplexer)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: a NUL-terminated string, one int, and descriptors that are ours on success.
    unsafe {
        let master = OwnedFd::from_raw_fd(check(libc::open(path.as_ptr(), flags))?);
        let unlocked: libc::c_int = 0;
        check(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlocked,
        ))?;
        let slave = check(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        ))?;
        Ok(Terminal {
            master,
            slave: OwnedFd::from_raw_fd(slave),
        })
    }
}

pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: reads one winsize.
    check(unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSWINSZ,
            &raw const size,
        )
    })
    .map(drop)
}

/// Makes the terminal the controlling one of this session.
pub fn control(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// The number of a pseudo-terminal among those of its file system.
pub fn index(terminal: impl AsFd) -> io::Result<u32> {
    // SAFETY: stat is plain data for which zero is a value; fstat writes one.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        check(libc::fstat(terminal.as_fd().as_raw_fd(), &raw mut found))?;
        Ok(libc::minor(found.st_rdev))
    }
}

/// Makes this process's group the terminal's foreground one. To be called with SIGTTOU blocked.
pub fn put_in_foreground(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::tcsetpgrp(terminal.as_fd().as_raw_fd(), libc::getpgrp()) }).map(drop)
}

/// The end-of-file character, where the terminal is in canonical mode and so gives it a meaning.
pub fn end_of_file_character(terminal: impl AsFd) -> Option<u8> {
    // SAFETY: termios is plain data for which zero is a value; tcgetattr writes one.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(terminal.as_fd().as_raw_fd(), &raw mut settings) != 0 {
            return None;
        }
        (settings.c_lflag & libc::ICANON != 0).then_some(settings.c_cc[libc::VEOF])
    }
}
