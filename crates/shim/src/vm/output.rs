//! Output of a child: kept in a file of bounded size, the newest last, with the very last of it in memory for errors.

use crate::log;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Two files of this size at most.
const MAX_FILE_BYTES: u64 = 512 << 10;
const TAIL_BYTES: usize = 1024;
/// The max length of a child's last output in an error's text.
const MAX_QUOTE: usize = 400;

/// The newest output and, in a second file, the output before it. Both are open from the start: later the supervisor may open or
/// rename none.
pub struct Rotating {
    path: PathBuf,
    file: File,
    old: File,
    size: u64,
}

impl Rotating {
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut old = path.to_owned().into_os_string();
        old.push(".1");
        let mut options = File::options();
        options.create(true).read(true);
        let file = options.append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
            old: options.append(false).write(true).open(old)?,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > MAX_FILE_BYTES {
            self.old.set_len(0)?;
            self.old.rewind()?;
            self.file.rewind()?;
            io::copy(&mut self.file, &mut self.old)?;
            self.file.set_len(0)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// The last bytes that a child printed.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }

    /// "; last output: ..." or nothing, safe to print.
    pub fn quote(&self) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(tail.make_contiguous());
        let text = text.trim();
        let surplus = text.chars().count().saturating_sub(MAX_QUOTE);
        let text: String = text.chars().skip(surplus).collect();
        if text.is_empty() {
            return String::new();
        }
        let text = text.replace("\r\n", "\n").replace(['\n', '\r'], " | ");
        format!("; last output: {}", text.escape_debug())
    }
}

/// Carries a child's output to its file until the child's last descriptor is closed.
pub async fn keep(pipe: tokio::net::unix::pipe::Receiver, mut file: Option<Rotating>, tail: Tail) {
    let mut chunk = vec![0; 16 << 10];
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        match pipe.try_read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                tail.push(&chunk[..length]);
                // A full disk costs the log, never the VM, which must not block on its output.
                if let Some(open) = &mut file
                    && let Err(error) = open.write(&chunk[..length])
                {
                    log::line(&format!(
                        "{}: {error}; its output is dropped from here",
                        open.path.display()
                    ));
                    file = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_stays_within_two_files() {
        let path = std::env::temp_dir().join(format!("litegix-output-{}", std::process::id()));
        let old = path.with_extension("1");
        let mut file = Rotating::open(&path).expect("file");
        let line = [b'x'; 100_000];
        for _ in 0..30 {
            file.write(&line).expect("write");
        }
        file.write(b"last").expect("write");
        let rotated = format!("{}.1", path.display());
        let total =
            fs::metadata(&path).expect("new").len() + fs::metadata(&rotated).expect("old").len();
        assert!(total <= 2 * MAX_FILE_BYTES, "{total}");
        assert!(fs::read(&path).expect("new").ends_with(b"last"));
        for file in [path, old, rotated.into()] {
            let _ = fs::remove_file(file);
        }
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        let tail = Tail::default();
        assert_eq!(tail.quote(), "");
        tail.push(&[b'a'; 5000]);
        tail.push(b"\nworse\x1b[31m\r\n");
        let quote = tail.quote();
        assert!(
            quote.len() < 500 && quote.ends_with("| worse\\u{1b}[31m"),
            "{quote}"
        );
    }
}
