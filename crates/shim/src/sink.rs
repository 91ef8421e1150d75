//! The host's end of one log stream: a FIFO that Nomad's logmon reads, a plain file, or /dev/null. Open for the
//! supervisor's whole life, so that logmon sees one writer from the first byte to the end.

use crate::sys;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::unix::AsyncFd;

pub enum Sink {
    /// Waits for its reader, who may be stopped: this stream then waits, nothing else.
    Fifo(AsyncFd<File>),
    Plain(File),
}

impl Sink {
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        // Reading and writing: opening a FIFO so never waits for a reader, and writing never fails for want of one.
        let file = File::options()
            .read(true)
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        if file.metadata()?.file_type().is_fifo() {
            sys::widen_pipe(&file);
            Ok(Self::Fifo(sys::watch(file)?))
        } else {
            Ok(Self::Plain(file))
        }
    }

    /// Writes every byte. Cancelled in between, it has told `written` how many.
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
