//! The standard streams of the task's main process: pipes, or one terminal.

use crate::program::spawn::Streams;
use crate::program::terminals;
use litegix_sys::descriptors;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub struct MainStreams {
    /// The program's ends.
    pub streams: Streams,
    pub from_stdout: AsyncFd<File>,
    pub from_stderr: AsyncFd<File>,
    /// Held while the process lives: an input that stays open, or the terminal, which would end for good if the program
    /// closed it for a moment.
    pub hold: Option<OwnedFd>,
}

pub fn open(root: &Path, terminal: bool, open_stdin: bool) -> io::Result<MainStreams> {
    if terminal {
        return terminal_streams(root);
    }
    let (from_stdout, stdout) = descriptors::large_pipe()?;
    let (from_stderr, stderr) = descriptors::large_pipe()?;
    let (stdin, hold) = if open_stdin {
        let (stdin, to_stdin) = descriptors::large_pipe()?;
        (stdin, Some(to_stdin))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    Ok(MainStreams {
        streams: Streams {
            stdin,
            stdout,
            stderr,
        },
        from_stdout: readable(from_stdout)?,
        from_stderr: readable(from_stderr)?,
        hold,
    })
}

fn terminal_streams(root: &Path) -> io::Result<MainStreams> {
    let terminal = terminals::open(root)?;
    // Never written to: everything that a terminal shows is stdout.
    let (from_stderr, _) = descriptors::pipe()?;
    let slave = terminal.slave;
    Ok(MainStreams {
        streams: Streams {
            stdin: slave.try_clone()?,
            stdout: slave.try_clone()?,
            stderr: slave.try_clone()?,
        },
        from_stdout: readable(terminal.master)?,
        from_stderr: readable(from_stderr)?,
        hold: Some(slave),
    })
}

fn readable(fd: OwnedFd) -> io::Result<AsyncFd<File>> {
    descriptors::watch_for(fd, Interest::READABLE)
}
