//! The standard streams of the task's main process: pipes, or one terminal.

use crate::spawn::Streams;
use crate::sys::{files, tty};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

pub struct MainStreams {
    /// The program's ends.
    pub streams: Streams,
    pub from_stdout: pipe::Receiver,
    pub from_stderr: pipe::Receiver,
    /// To be held while the process lives: an input that stays open, or the terminal, which would end for good when the
    /// program closes it for a moment.
    pub hold: Option<OwnedFd>,
}

pub fn open(root: &Path, terminal: bool, open_stdin: bool) -> io::Result<MainStreams> {
    if terminal {
        return terminal_streams(root);
    }
    let (from_stdout, stdout) = files::large_pipe()?;
    let (from_stderr, stderr) = files::large_pipe()?;
    let (stdin, hold) = if open_stdin {
        let (stdin, to_stdin) = files::large_pipe()?;
        (stdin, Some(to_stdin))
    } else {
        (files::null_input()?, None)
    };
    Ok(MainStreams {
        streams: Streams {
            stdin,
            stdout,
            stderr,
        },
        from_stdout: receiver(from_stdout)?,
        from_stderr: receiver(from_stderr)?,
        hold,
    })
}

fn terminal_streams(root: &Path) -> io::Result<MainStreams> {
    let terminal = tty::open(&root.join("dev/pts/ptmx"))?;
    let (from_stdout, to_stdout) = files::large_pipe()?;
    // Never written to: everything that a terminal shows is stdout.
    let (from_stderr, _) = files::large_pipe()?;
    files::set_nonblocking(&to_stdout)?;
    let to_stdout = pipe::Sender::from_owned_fd(to_stdout)?;
    let master = files::watch(terminal.master)?;
    tokio::spawn(relay(master, to_stdout));
    let slave = terminal.slave;
    Ok(MainStreams {
        streams: Streams {
            stdin: slave.try_clone()?,
            stdout: slave.try_clone()?,
            stderr: slave.try_clone()?,
        },
        from_stdout: receiver(from_stdout)?,
        from_stderr: receiver(from_stderr)?,
        hold: Some(slave),
    })
}

/// Bytes that the terminal's output is read in.
const CHUNK: usize = 64 << 10;

/// Ends with the last of those that have the terminal open.
async fn relay(master: tokio::io::unix::AsyncFd<std::fs::File>, mut out: pipe::Sender) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(mut ready) = master.readable().await {
        match ready.try_io(|master| master.get_ref().read(&mut chunk)) {
            Ok(Ok(length)) if length > 0 => {
                if out.write_all(&chunk[..length]).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) => return,
            Err(_) => {}
        }
    }
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    files::set_nonblocking(&fd)?;
    pipe::Receiver::from_owned_fd(fd)
}
