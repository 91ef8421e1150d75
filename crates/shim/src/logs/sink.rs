//! The host's end of one log stream: a FIFO that Nomad's logmon reads, or /dev/null. Open for the supervisor's whole life, so that
//! logmon sees one writer from the first byte to the end. Other tasks of the group may write the FIFO's directory, so they can put
//! anything in its place. Root of the host must not write there.

use litegix_sys::descriptors;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, SpliceFFlags, openat2, splice};
use std::fs::{File, FileType};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

pub enum Sink {
    /// Waits for its reader, who may be stopped: then only this stream waits.
    Fifo(AsyncFd<File>),
    Null(File),
}

/// The log is not opened.
#[derive(Debug, Error)]
#[error("can't open the task's log {}: {problem}", path.display())]
pub struct SinkError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, Error)]
enum Problem {
    #[error("it does not lie beneath the allocation's directory {}", .0.display())]
    Outside(PathBuf),
    #[error(
        "there is {0} where Nomad made a FIFO, and the supervisor writes to nothing else: another task of the group, or a \
         program with rights on the allocation's directory, replaced it"
    )]
    NotFifo(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

const NULL: &str = "/dev/null";

impl Sink {
    /// Opens exactly /dev/null, or a FIFO beneath `root` without following a link.
    pub fn open(path: &Path, root: &Path) -> Result<Self, SinkError> {
        let opened = if path == Path::new(NULL) {
            let null = File::options().write(true).open(path);
            null.map(Self::Null).map_err(Problem::from)
        } else {
            Self::open_fifo(path, root)
        };
        opened.map_err(|problem| SinkError {
            path: path.to_owned(),
            problem,
        })
    }

    fn open_fifo(path: &Path, root: &Path) -> Result<Self, Problem> {
        let Ok(below) = path.strip_prefix(root) else {
            return Err(Problem::Outside(root.to_owned()));
        };
        let root = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(root)?;
        // Opening a device for reading or writing may already do something.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let found = match openat2(&root, below, how) {
            Ok(found) => File::from(found),
            Err(Errno::ELOOP) => return Err(Problem::NotFifo("a symbolic link")),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let kind = found.metadata()?.file_type();
        if !kind.is_fifo() {
            return Err(Problem::NotFifo(name_of(kind)));
        }
        // For reading and writing: so opening a FIFO never waits for a reader, and writing never fails without one.
        let fifo = File::options()
            .read(true)
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
        descriptors::widen_pipe(&fifo);
        Ok(Self::Fifo(descriptors::watch(fifo.into())?))
    }

    /// True if `splice_from` works on it.
    pub fn is_fifo(&self) -> bool {
        matches!(self, Self::Fifo(_))
    }

    /// Moves at least one byte and at most the given number from the connection into the FIFO, without a copy; 0 is the
    /// connection's end. If cancelled, it has moved none.
    pub async fn splice_from(&self, from: &UnixStream, max: usize) -> io::Result<usize> {
        let Self::Fifo(fifo) = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        loop {
            from.readable().await?;
            let mut room = fifo.writable().await?;
            let moved = from.try_io(Interest::READABLE, || {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
                match splice(from, None, fifo.get_ref(), None, max, flags).map_err(io::Error::from)
                {
                    // The FIFO is what has no room.
                    Err(error)
                        if error.kind() == io::ErrorKind::WouldBlock
                            && descriptors::bytes_waiting(from)? > 0 =>
                    {
                        Ok(None)
                    }
                    result => result.map(Some),
                }
            });
            match moved {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => room.clear_ready(),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes every byte. If cancelled in between, it has reported to `written` how many.
    pub async fn write_all(
        &mut self,
        mut bytes: &[u8],
        mut written: impl FnMut(usize),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let result = match self {
                Self::Null(file) => file.write(bytes),
                Self::Fifo(fifo) => {
                    let mut ready = fifo.writable().await?;
                    match ready.try_io(|fifo| fifo.get_ref().write(bytes)) {
                        Ok(result) => result,
                        Err(_) => continue,
                    }
                }
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written(count);
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a plain file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    #[tokio::test]
    async fn only_a_fifo_beneath_the_root_is_opened() {
        let directory = std::env::temp_dir().join(format!("litegix-sinks-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let root = directory.join("root");
        fs::create_dir_all(root.join("logs")).expect("directories");
        let outside = directory.join("outside");
        fs::write(&outside, "").expect("outside");
        let fifo = root.join("logs/fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.expect("mkfifo").success());
        fs::write(root.join("file"), "").expect("file");
        symlink(&outside, root.join("link")).expect("link");
        // Even a link to the FIFO itself.
        symlink("logs/fifo", root.join("fifo")).expect("link");
        symlink("logs", root.join("linked")).expect("link");
        assert!(Sink::open(&fifo, &root).expect("fifo").is_fifo());
        assert!(!Sink::open(NULL.as_ref(), &root).expect("null").is_fifo());
        for (path, problem) in [
            (root.join("file"), "a plain file"),
            (root.join("logs"), "a directory"),
            (root.join("link"), "a symbolic link"),
            (root.join("fifo"), "a symbolic link"),
            (root.join("linked/fifo"), "a symbolic link"),
            (outside.clone(), "beneath"),
            (root.join("../outside"), "cross-device"),
            (root.join("none"), "No such file"),
            ("/dev/zero".into(), "beneath"),
        ] {
            let error = Sink::open(&path, &root).err().expect("refused").to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(fs::read_to_string(&outside).expect("outside"), "");
        fs::remove_dir_all(&directory).expect("clean-up");
    }

    /// More than socket and FIFO hold, so that each blocks for a while.
    #[tokio::test(flavor = "current_thread")]
    async fn what_is_moved_arrives_in_order_whoever_is_slow() {
        const BYTES: usize = 8 << 20;
        const PATIENCE: Duration = Duration::from_secs(20);
        for [sender_pause, reader_pause] in
            [[0, 0], [3, 0], [0, 3]].map(|it| it.map(Duration::from_millis))
        {
            let path = std::env::temp_dir().join(format!("litegix-sink-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.expect("mkfifo").success());
            let sink = Sink::open(&path, &std::env::temp_dir()).expect("sink");
            let (from, mut to) = UnixStream::pair().expect("pair");
            let wanted: Vec<u8> = (0..BYTES).map(|it| (it >> 10) as u8).collect();
            let sent = wanted.clone();
            tokio::spawn(async move {
                for chunk in sent.chunks(100_000) {
                    to.write_all(chunk).await.expect("send");
                    tokio::time::sleep(sender_pause).await;
                }
            });
            let mut reader = File::open(&path).expect("reader");
            let (done, read) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let mut got = vec![0; BYTES];
                for chunk in got.chunks_mut(70_000) {
                    reader.read_exact(chunk).expect("read");
                    std::thread::sleep(reader_pause);
                }
                let _ = done.send(got);
            });
            let moved = async {
                let mut left = BYTES;
                while left > 0 {
                    left -= sink.splice_from(&from, left).await.expect("move");
                }
                sink.splice_from(&from, 1).await.expect("end")
            };
            let both = async { (moved.await, read.await.expect("read")) };
            let (end, got) = timeout(PATIENCE, both).await.expect("in time");
            assert_eq!(end, 0);
            assert!(got == wanted);
            let _ = std::fs::remove_file(path);
        }
    }
}
