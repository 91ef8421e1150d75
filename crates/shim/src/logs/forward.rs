//! Carries one of the task's log streams from the guest to the host. A byte is acknowledged only once it is written,
//! and the offset counts written bytes. So after any break the next connection goes on at the right byte.

use crate::dial::Guest;
use crate::log;
use crate::logs::frames::{FrameError, Frames, Next};
use crate::logs::sink::Sink;
use crate::tuning::{ACKNOWLEDGE_BYTES, ACKNOWLEDGE_DELAY};
use litegix_protocol::frame;
use litegix_protocol::guest::{FrameKind, LogStream, LogsAcknowledge, LogsOpen};
use prost::Message;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout};

/// The pause after a connection broke.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Stream {
    pub kind: LogStream,
    pub guest: Guest,
    pub sink: Sink,
    /// The offset is noted here for people who look into a VM's directory; the VM never outlives this process.
    pub offsets: Option<Arc<File>>,
}

/// The reason that a connection ended before the stream's end.
#[derive(Debug, Error)]
enum ForwardError {
    #[error("the stream broke off: {0}")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A full disk, say: the task waits, as it would for a full pipe.
    #[error("can't write the log: {0}")]
    Write(io::Error),
    #[error("can't splice the log: {0}")]
    Splice(io::Error),
}

impl Stream {
    fn name(&self) -> &'static str {
        match self.kind {
            LogStream::Stderr => "stderr",
            _ => "stdout",
        }
    }

    /// Runs until the stream's end has been written, or until it is cut off.
    pub async fn run(mut self, mut cut: watch::Receiver<bool>) -> Self {
        tokio::select! {
            () = self.carry() => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
        self
    }

    async fn carry(&mut self) {
        let mut offset = 0;
        let mut logged = false;
        loop {
            match self.connection(&mut offset).await {
                Ok(()) => return,
                Err(error) => {
                    // Once is enough: while a guest misbehaves this would come twenty times a second.
                    if !logged {
                        log::line(&format!("{} at {offset}: {error}", self.name()));
                        logged = true;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(&mut self, offset: &mut u64) -> Result<(), ForwardError> {
        let open = LogsOpen {
            stream: self.kind.into(),
            from: *offset,
        };
        let mut guest = Connection::new(self.guest.open_bulk().await, *offset);
        guest.send(FrameKind::Logs, &open).await?;
        loop {
            // Bytes that have arrived are taken without waiting. A guest that sends tiny pieces must not keep this
            // thread from its other work.
            consume_budget().await;
            if self.splice_large(&mut guest, offset).await? {
                continue;
            }
            let piece = match guest.next(*offset).await? {
                Next::Piece(piece) => piece,
                Next::End => return Ok(()),
            };
            if piece.is_empty() {
                continue;
            }
            let written = self.sink.write_all(piece, |count| *offset += count as u64);
            written.await.map_err(ForwardError::Write)?;
            self.note(*offset);
        }
    }

    /// Splices the rest of a large frame from the connection into the FIFO. False if nothing can be spliced.
    async fn splice_large(
        &self,
        guest: &mut Connection,
        offset: &mut u64,
    ) -> Result<bool, ForwardError> {
        let Some(most) = guest.frames.spliceable().filter(|_| self.sink.is_fifo()) else {
            return Ok(false);
        };
        guest.acknowledge_if_much(*offset).await?;
        match self.sink.splice_from(&guest.stream, most).await {
            Ok(0) => Err(ForwardError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                guest.frames.spliced(count);
                *offset += count as u64;
                self.note(*offset);
                Ok(true)
            }
            Err(error) => Err(ForwardError::Splice(error)),
        }
    }

    fn note(&self, offset: u64) {
        if let Some(file) = &self.offsets {
            let place = if self.kind == LogStream::Stderr { 8 } else { 0 };
            let _ = file.write_all_at(&offset.to_le_bytes(), place);
        }
    }
}

/// A log's connection with the guest.
struct Connection {
    stream: UnixStream,
    frames: Frames,
    acknowledged: u64,
}

impl Connection {
    fn new(stream: UnixStream, acknowledged: u64) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            acknowledged,
        }
    }

    async fn send(&mut self, kind: FrameKind, message: &impl Message) -> io::Result<()> {
        let payload = message.encode_to_vec();
        let mut bytes = frame::header(kind, payload.len()).to_vec();
        bytes.extend(payload);
        self.stream.write_all(&bytes).await
    }

    /// `written` is the offset up to which everything given before has been written.
    async fn next(&mut self, written: u64) -> Result<Next<'_>, ForwardError> {
        self.acknowledge_if_much(written).await?;
        while !self.frames.has_next() {
            let room = self.frames.room();
            let length = if written == self.acknowledged {
                self.stream.read(room).await?
            } else {
                match timeout(ACKNOWLEDGE_DELAY, self.stream.read(room)).await {
                    Ok(result) => result?,
                    Err(_) => {
                        self.acknowledge(written).await?;
                        continue;
                    }
                }
            };
            if length == 0 {
                return Err(ForwardError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            self.frames.filled(length);
        }
        Ok(self.frames.next()?)
    }

    async fn acknowledge_if_much(&mut self, written: u64) -> io::Result<()> {
        if written - self.acknowledged >= ACKNOWLEDGE_BYTES {
            self.acknowledge(written).await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, offset: u64) -> io::Result<()> {
        self.acknowledged = offset;
        self.send(FrameKind::Acknowledge, &LogsAcknowledge { offset })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries the log of a guest that answers with these bytes.
    async fn carry(wire: Vec<u8>) {
        let path = std::env::temp_dir().join(format!("litegix-forward-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).expect("bind");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let _ = stream.write_all(b"OK 1\n").await;
            let _ = stream.write_all(&wire).await;
            std::future::pending::<()>().await;
        };
        let (cut, _) = watch::channel(false);
        let stream = Stream {
            kind: LogStream::Stdout,
            guest: Guest {
                socket: path.clone(),
                port: 10,
            },
            sink: Sink::open("/dev/null".as_ref(), "/".as_ref()).expect("sink"),
            offsets: None,
        };
        tokio::select! {
            () = serve => {}
            _ = tokio::spawn(stream.run(cut.subscribe())) => {}
        }
        let _ = std::fs::remove_file(path);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_log_in_tiny_pieces_leaves_the_others_their_turn() {
        const PIECES: usize = 20_000;
        let mut wire = Vec::new();
        for _ in 0..PIECES {
            wire.extend(frame::header(FrameKind::Data, 1));
            wire.push(b'a');
        }
        wire.extend(frame::header(FrameKind::End, 0));
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = others => {}
            () = carry(wire) => {}
        }
        assert!(turns > PIECES / 200, "{turns} turns");
    }
}
