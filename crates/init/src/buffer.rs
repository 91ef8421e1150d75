//! One log stream of the task: a ring with absolute offsets. Only acknowledged bytes are freed; a full ring stops the
//! reading of the task's pipe, which in the end blocks the task's write. Nothing is dropped.

use bytes::{Buf, Bytes};
use litegix_protocol::frame::LARGEST_PAYLOAD;
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Bytes kept for the host at most.
pub const CAPACITY: usize = 1 << 20;
/// The largest piece in one frame.
pub const LARGEST_CHUNK: usize = LARGEST_PAYLOAD;
/// A read of at least this much is kept as it is; what is smaller is gathered.
const WORTH_KEEPING: usize = LARGEST_CHUNK / 2;

pub struct LogBuffer {
    ring: Mutex<Ring>,
    /// Counts changes, so that waiters look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    chunks: VecDeque<Bytes>,
    /// What follows on the chunks, and can still grow.
    open: Vec<u8>,
    /// Bytes held, in chunks and open.
    held: usize,
    /// Offset of the first byte held.
    start: u64,
    ended: bool,
    /// The reading session that counts; earlier ones are over.
    session: u64,
}

impl Ring {
    fn end(&self) -> u64 {
        self.start + self.held as u64
    }

    /// Takes the bytes over, or copies them and leaves the memory for the next read.
    fn push(&mut self, bytes: &mut Vec<u8>) {
        self.held += bytes.len();
        if bytes.len() >= WORTH_KEEPING || self.open.len() + bytes.len() > LARGEST_CHUNK {
            self.close();
        }
        if bytes.len() >= WORTH_KEEPING {
            self.chunks.push_back(std::mem::take(bytes).into());
        } else {
            self.open.append(bytes);
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.open).into());
        }
    }

    fn free(&mut self, mut count: usize) {
        self.start += count as u64;
        self.held -= count;
        if self.chunks.iter().map(Bytes::len).sum::<usize>() < count {
            self.close();
        }
        while let Some(first) = self.chunks.front_mut().filter(|_| count > 0) {
            let part = first.len().min(count);
            first.advance(part);
            count -= part;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Piece {
    Data {
        offset: u64,
        bytes: Bytes,
        end: bool,
    },
    /// Another session took over.
    Replaced,
}

#[derive(Debug, PartialEq)]
pub struct OutOfRange {
    pub first: u64,
    pub last: u64,
}

impl Default for LogBuffer {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl LogBuffer {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Reads the pipe to its end, as far as there is room.
    pub async fn fill(&self, pipe: &pipe::Receiver) {
        let mut chunk = Vec::new();
        loop {
            self.room().await;
            if pipe.readable().await.is_err() {
                break;
            }
            chunk.reserve_exact(LARGEST_CHUNK);
            match pipe.try_read_buf(&mut chunk) {
                Ok(0) => break,
                Ok(_) => self.push(&mut chunk),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        self.finish();
    }

    async fn room(&self) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if self.ring().held + LARGEST_CHUNK <= CAPACITY || changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn push(&self, bytes: &mut Vec<u8>) {
        self.ring().push(bytes);
        self.announce();
    }

    fn finish(&self) {
        self.ring().ended = true;
        self.announce();
    }

    /// Begins a reading session, which ends any earlier one.
    pub fn open(&self, from: u64) -> Result<u64, OutOfRange> {
        let session = {
            let mut ring = self.ring();
            if from < ring.start || from > ring.end() {
                return Err(OutOfRange {
                    first: ring.start,
                    last: ring.end(),
                });
            }
            ring.session += 1;
            ring.session
        };
        self.announce();
        Ok(session)
    }

    /// Frees everything below the offset.
    pub fn acknowledge(&self, offset: u64) {
        {
            let mut ring = self.ring();
            let offset = offset.min(ring.end());
            // The difference is at most the ring's capacity.
            let count = offset.saturating_sub(ring.start) as usize;
            ring.free(count);
        }
        self.announce();
    }

    /// Waits until so much follows on the offset, or nothing more will for this session.
    pub async fn gathered(&self, session: u64, offset: u64, count: usize) {
        let mut changes = self.changed.subscribe();
        let enough = |ring: &Ring| {
            ring.ended || ring.session != session || ring.end() >= offset + count as u64
        };
        loop {
            changes.borrow_and_update();
            if enough(&self.ring()) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The next piece from the offset on, once there is one.
    pub async fn next(&self, session: u64, offset: u64) -> Piece {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(piece) = self.ring().piece(session, offset) {
                return piece;
            }
            if changes.changed().await.is_err() {
                return Piece::Replaced;
            }
        }
    }
}

impl Ring {
    /// A piece from the position on, without a copy; empty where nothing is held.
    fn part(&mut self, mut skip: usize) -> Bytes {
        if skip >= self.held - self.open.len() {
            self.close();
        }
        for chunk in &self.chunks {
            if skip < chunk.len() {
                return chunk.slice(skip..chunk.len().min(skip + LARGEST_CHUNK));
            }
            skip -= chunk.len();
        }
        Bytes::new()
    }

    fn piece(&mut self, session: u64, offset: u64) -> Option<Piece> {
        if session != self.session {
            return Some(Piece::Replaced);
        }
        // Acknowledged by someone without having been sent in this session: go on with what is left.
        let offset = offset.max(self.start);
        let skip = (offset - self.start) as usize;
        let bytes = self.part(skip);
        let end = self.ended && offset + bytes.len() as u64 == self.end();
        (end || !bytes.is_empty()).then_some(Piece::Data { offset, bytes, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn now(buffer: &LogBuffer, session: u64, offset: u64) -> Option<Piece> {
        buffer.ring().piece(session, offset)
    }

    fn waits(future: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_pending()
    }

    #[test]
    fn only_acknowledged_bytes_are_freed() {
        let buffer = LogBuffer::default();
        buffer.push(&mut b"hello".to_vec());
        let session = buffer.open(0).expect("open");
        let whole = Piece::Data {
            offset: 0,
            bytes: Bytes::from_static(b"hello"),
            end: false,
        };
        assert_eq!(now(&buffer, session, 0), Some(whole));
        assert_eq!(now(&buffer, session, 5), None);
        buffer.acknowledge(3);
        assert_eq!(buffer.open(2), Err(OutOfRange { first: 3, last: 5 }));
        assert_eq!(buffer.open(6), Err(OutOfRange { first: 3, last: 5 }));
        let session = buffer.open(3).expect("open");
        buffer.finish();
        let rest = Piece::Data {
            offset: 3,
            bytes: Bytes::from_static(b"lo"),
            end: true,
        };
        assert_eq!(now(&buffer, session, 3), Some(rest));
        let nothing = Piece::Data {
            offset: 5,
            bytes: Bytes::new(),
            end: true,
        };
        assert_eq!(now(&buffer, session, 5), Some(nothing));
    }

    #[test]
    fn what_is_gathered_is_enough_or_all_that_will_come() {
        let buffer = LogBuffer::default();
        let session = buffer.open(0).expect("open");
        buffer.push(&mut b"hello!".to_vec());
        assert!(waits(buffer.gathered(session, 3, 4)));
        buffer.push(&mut b"!".to_vec());
        assert!(!waits(buffer.gathered(session, 3, 4)));
        let other = LogBuffer::default();
        let session = other.open(0).expect("open");
        assert!(waits(other.gathered(session, 0, 4)));
        other.finish();
        assert!(!waits(other.gathered(session, 0, 4)));
    }

    #[test]
    fn a_new_session_ends_the_old_one() {
        let buffer = LogBuffer::default();
        let old = buffer.open(0).expect("open");
        let new = buffer.open(0).expect("open");
        assert_eq!(now(&buffer, old, 0), Some(Piece::Replaced));
        assert_eq!(now(&buffer, new, 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the cuts, reconnections and acknowledgements: the same bytes in the same order.
        #[test]
        fn nothing_is_lost_or_doubled(
            writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200_000), 1..6),
            choices in prop::collection::vec(any::<u8>(), 64),
        ) {
            let all: Vec<u8> = writes.concat();
            let buffer = LogBuffer::default();
            let mut got: Vec<u8> = Vec::new();
            let mut session = buffer.open(0).expect("open");
            let mut choices = choices.into_iter().cycle();
            let mut writes = writes.into_iter();
            loop {
                match writes.next() {
                    Some(mut bytes) => buffer.push(&mut bytes),
                    None => buffer.finish(),
                }
                let mut over = false;
                while let Some(piece) = now(&buffer, session, got.len() as u64) {
                    let Piece::Data { offset, bytes, end } = piece else { panic!("replaced") };
                    prop_assert_eq!(offset, got.len() as u64);
                    prop_assert!(bytes.len() <= LARGEST_CHUNK);
                    got.extend(bytes);
                    match choices.next() {
                        Some(choice) if choice % 3 == 0 => buffer.acknowledge(got.len() as u64),
                        Some(choice) if choice % 3 == 1 => {
                            session = buffer.open(got.len() as u64).expect("open");
                        }
                        _ => {}
                    }
                    over = end;
                    if end { break; }
                }
                if over { break; }
            }
            prop_assert_eq!(got, all);
        }
    }
}
