//! The host's end of one log stream: a FIFO that Nomad's logmon reads, a plain file, or /dev/null. Open for the
//! supervisor's whole life, so that logmon sees one writer from the first byte to the end.

use litegix_sys::descriptors;
use nix::fcntl::{SpliceFFlags, splice};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

pub enum Sink {
    /// Waits for its reader, who may be stopped: then only this stream waits.
    Fifo(AsyncFd<File>),
    Plain(File),
}

impl Sink {
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        // For reading and writing: so opening a FIFO never waits for a reader, and writing never fails without one.
        let file = File::options()
            .read(true)
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        if file.metadata()?.file_type().is_fifo() {
            descriptors::widen_pipe(&file);
            Ok(Self::Fifo(descriptors::watch(file.into())?))
        } else {
            Ok(Self::Plain(file))
        }
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
                Self::Plain(file) => file.write(bytes),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

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
            let sink = Sink::open(&path).expect("sink");
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
