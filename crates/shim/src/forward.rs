//! Carries one of the task's log streams from the guest to the host. A byte is acknowledged only once it is written,
//! and the offset counts what is written: whatever breaks, the next connection goes on at the right byte.

use crate::dial::Guest;
use crate::log;
use crate::sink::Sink;
use litegix_protocol::frame::{self, HEADER_BYTES, LARGEST_LOG_PAYLOAD, LARGEST_PAYLOAD};
use litegix_protocol::guest::{FrameKind, LogStream, LogsAcknowledge, LogsOpen, Refusal};
use prost::Message;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// Two of the largest frames.
const BUFFER_BYTES: usize = 128 << 10;
/// The guest hears at once that so much is written, and of less when nothing more comes for a moment: each message costs it an
/// interrupt.
const WORTH_ACKNOWLEDGING: u64 = 256 << 10;
const ACKNOWLEDGE_PAUSE: Duration = Duration::from_millis(20);
/// After a connection broke.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Stream {
    pub kind: LogStream,
    pub guest: Guest,
    pub sink: Sink,
    /// Where the offset is noted, for whoever looks into a VM's directory; the VM never outlives this process.
    pub offsets: Option<Arc<File>>,
}

impl Stream {
    fn name(&self) -> &'static str {
        match self.kind {
            LogStream::Stderr => "stderr",
            _ => "stdout",
        }
    }

    /// Runs until the stream's end has been written. The caller gives up when the VM has ended.
    pub async fn run(mut self) -> Self {
        let mut offset = 0;
        let mut told = false;
        loop {
            match self.connection(&mut offset).await {
                Ok(()) => return self,
                Err(status) => {
                    // Once is enough: while a guest misbehaves this would come twenty times a second.
                    if !told {
                        log::line(&format!("{} at {offset}: {status}", self.name()));
                        told = true;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(&mut self, offset: &mut u64) -> Result<(), String> {
        let open = LogsOpen {
            stream: self.kind.into(),
            from: *offset,
        };
        let mut guest = Connection::new(self.guest.open_bulk().await, *offset);
        let broken = |error: io::Error| format!("the stream broke off: {error}");
        guest.send(FrameKind::Logs, &open).await.map_err(broken)?;
        loop {
            let piece = match guest.next(*offset).await.map_err(broken)? {
                Next::Piece(piece) => piece,
                Next::End => return Ok(()),
                Next::Wrong(what) => return Err(what),
            };
            let written = self.sink.write_all(piece, |count| *offset += count as u64);
            if let Err(error) = written.await {
                // A full disk: the task waits, as it would for a full pipe.
                return Err(format!("can't write the log: {error}"));
            }
            self.note(*offset);
        }
    }

    fn note(&self, offset: u64) {
        if let Some(file) = &self.offsets {
            let place = if self.kind == LogStream::Stderr { 8 } else { 0 };
            let _ = file.write_all_at(&offset.to_le_bytes(), place);
        }
    }
}

enum Next<'a> {
    /// The bytes that follow.
    Piece(&'a [u8]),
    End,
    /// What no honest guest sends, or its refusal.
    Wrong(String),
}

/// Frames of a log as they arrive; their bytes are passed on before a frame is complete.
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
    async fn next(&mut self, written: u64) -> io::Result<Next<'_>> {
        if written - self.acknowledged >= WORTH_ACKNOWLEDGING {
            self.acknowledge(written).await?;
        }
        while !self.frames.has_next() {
            let room = self.frames.room();
            let length = if written == self.acknowledged {
                self.stream.read(room).await?
            } else {
                match timeout(ACKNOWLEDGE_PAUSE, self.stream.read(room)).await {
                    Ok(result) => result?,
                    Err(_) => {
                        self.acknowledge(written).await?;
                        continue;
                    }
                }
            };
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.frames.filled(length);
        }
        Ok(self.frames.take())
    }

    async fn acknowledge(&mut self, offset: u64) -> io::Result<()> {
        self.acknowledged = offset;
        self.send(FrameKind::Acknowledge, &LogsAcknowledge { offset })
            .await
    }
}

/// The bytes from the guest between the socket and the log.
struct Frames {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Still to come of the frame that has begun.
    left: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            left: 0,
        }
    }
}

impl Frames {
    fn here(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn head(&self) -> Option<(FrameKind, usize)> {
        self.here().first_chunk().map(|head| frame::parse(*head))
    }

    fn has_next(&self) -> bool {
        if self.left > 0 {
            return !self.here().is_empty();
        }
        match self.head() {
            // A refusal is taken whole, but not one that is longer than it may be.
            Some((FrameKind::Refused, length)) if length <= LARGEST_PAYLOAD => {
                self.here().len() >= HEADER_BYTES + length
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Where more can be read to; never empty while `has_next` says no.
    fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    fn filled(&mut self, length: usize) {
        self.end += length;
    }

    /// Only where `has_next` said yes.
    fn take(&mut self) -> Next<'_> {
        if self.left == 0 {
            let (kind, length) = self.head().unwrap_or_default();
            match kind {
                FrameKind::Data if length <= LARGEST_LOG_PAYLOAD => self.left = length,
                FrameKind::End if length == 0 => return Next::End,
                FrameKind::Refused if length <= LARGEST_PAYLOAD => {
                    let payload = &self.here()[HEADER_BYTES..HEADER_BYTES + length];
                    return Next::Wrong(match Refusal::decode(payload) {
                        Ok(refusal) => format!("the guest refuses: {}", refusal.message),
                        Err(error) => format!("the guest refuses: {error}"),
                    });
                }
                _ => {
                    let what = format!("the guest sent a {kind:?} of {length} bytes for its log");
                    return Next::Wrong(what);
                }
            }
            self.start += HEADER_BYTES;
        }
        let start = self.start;
        let length = self.left.min(self.end - start);
        self.start += length;
        self.left -= length;
        Next::Piece(&self.buffer[start..start + length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_protocol::guest::{HelloResponse, WaitResponse};
    use proptest::prelude::*;

    /// What comes out of frames that arrive in pieces: the log's bytes, and how it went on.
    fn read(mut wire: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<bool>) {
        let mut frames = Frames::default();
        let mut cuts = cuts.iter().cycle();
        let mut log = Vec::new();
        loop {
            while frames.has_next() {
                match frames.take() {
                    Next::Piece(piece) => log.extend(piece),
                    Next::End => return (log, Some(true)),
                    Next::Wrong(_) => return (log, Some(false)),
                }
            }
            let room = frames.room();
            assert!(!room.is_empty());
            let cut = cuts
                .next()
                .map_or(1, |cut| *cut)
                .min(room.len())
                .min(wire.len());
            if cut == 0 {
                return (log, None);
            }
            room[..cut].copy_from_slice(&wire[..cut]);
            wire = &wire[cut..];
            frames.filled(cut);
        }
    }

    proptest! {
        #[test]
        fn a_log_arrives_whole_whatever_the_cuts(
            sizes in prop::collection::vec(prop_oneof![0..40_usize, 60_000..LARGEST_LOG_PAYLOAD + 1], 0..6),
            cuts in prop::collection::vec(1..200_000_usize, 1..8),
        ) {
            let mut wire = Vec::new();
            let mut log = Vec::new();
            for (index, size) in sizes.into_iter().enumerate() {
                wire.extend(frame::header(FrameKind::Data, size));
                wire.extend(vec![index as u8; size]);
                log.extend(vec![index as u8; size]);
            }
            wire.extend(frame::header(FrameKind::End, 0));
            prop_assert_eq!(read(&wire, &cuts), (log, Some(true)));
        }

        #[test]
        fn any_bytes_are_a_log_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..2_000),
            cuts in prop::collection::vec(1..300_usize, 1..8),
        ) {
            let (log, _) = read(&bytes, &cuts);
            prop_assert!(log.len() <= bytes.len());
        }

        /// What a guest sends is decoded or refused, and holds no more than was sent.
        #[test]
        fn any_message_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = WaitResponse::decode(bytes.as_slice());
            let _ = HelloResponse::decode(bytes.as_slice());
            let _ = Refusal::decode(bytes.as_slice());
        }
    }
}
