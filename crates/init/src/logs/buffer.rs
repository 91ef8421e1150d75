//! One log stream of the task: a ring that one session of the host reads. Only acknowledged bytes are freed. A full
//! ring stops the reading of the task's pipe, which in the end blocks the task's write. Nothing is dropped.

use crate::logs::ring::Ring;
use crate::wire::socket::Payload;
use litegix_protocol::frame::MAX_LOG_PAYLOAD;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use tokio::sync::watch;

pub struct LogBuffer {
    log: Mutex<Log>,
    /// Counts changes, so that waiters look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    ring: Ring,
    ended: bool,
    /// The valid reading session; earlier ones are over.
    session: u64,
}

#[derive(Debug, PartialEq)]
pub enum Next {
    /// This many bytes follow; none only at the end.
    Bytes { length: usize, end: bool },
    /// They have been freed, by an acknowledgement that this session did not get.
    Lost,
    /// Another session took over.
    Replaced,
}

#[derive(Debug, Error, PartialEq)]
#[error("offset {from} is not held; {first} to {last} are")]
pub struct OutOfRange {
    pub from: u64,
    pub first: u64,
    pub last: u64,
}

impl Default for LogBuffer {
    fn default() -> Self {
        Self {
            log: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl LogBuffer {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until there is room for this many bytes.
    pub async fn room(&self, count: usize) {
        self.until(|log| (log.ring.room() >= count).then_some(()))
            .await;
    }

    /// `read` fills the slices in their order and returns the count of bytes.
    pub fn append(
        &self,
        read: impl FnOnce(&mut [io::IoSliceMut<'_>; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let count = self.log().ring.append(read)?;
        self.announce();
        Ok(count)
    }

    /// Nothing more will follow.
    pub fn finish(&self) {
        self.log().ended = true;
        self.announce();
    }

    /// Begins a reading session, which ends any earlier one.
    pub fn open(&self, from: u64) -> Result<u64, OutOfRange> {
        let session = {
            let mut log = self.log();
            let (first, last) = (log.ring.start(), log.ring.end());
            if from < first || from > last {
                return Err(OutOfRange { from, first, last });
            }
            log.session += 1;
            log.session
        };
        self.announce();
        Ok(session)
    }

    /// Frees everything below the offset.
    pub fn acknowledge(&self, offset: u64) {
        self.log().ring.free(offset);
        self.announce();
    }

    /// Waits until `look` returns something.
    async fn until<R>(&self, look: impl Fn(&Log) -> Option<R>) -> R {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(seen) = look(&self.log()) {
                return seen;
            }
            // The sender is ours.
            let _ = changes.changed().await;
        }
    }

    /// Waits until this many bytes follow the offset, or no more can follow in this session.
    pub async fn coalesce(&self, session: u64, offset: u64, count: usize) {
        self.until(|log| {
            let enough = log.ring.end() >= offset + count as u64;
            (enough || log.ended || log.session != session).then_some(())
        })
        .await;
    }

    /// Waits for bytes at the offset.
    pub async fn next(&self, session: u64, offset: u64) -> Next {
        self.until(|log| log.next(session, offset)).await
    }

    /// The bytes that `next` has found.
    pub fn chunk(&self, offset: u64, length: usize) -> Chunk<'_> {
        Chunk {
            buffer: self,
            offset,
            length,
        }
    }
}

impl Log {
    fn next(&self, session: u64, offset: u64) -> Option<Next> {
        if session != self.session {
            return Some(Next::Replaced);
        }
        let Some(parts) = self.ring.part(offset, MAX_LOG_PAYLOAD) else {
            return Some(Next::Lost);
        };
        let length = parts.map(<[u8]>::len).iter().sum();
        let end = self.ended && offset + length as u64 == self.ring.end();
        (end || length > 0).then_some(Next::Bytes { length, end })
    }
}

/// A part of a log, on its way out of the ring.
pub struct Chunk<'a> {
    buffer: &'a LogBuffer,
    offset: u64,
    length: usize,
}

impl Payload for Chunk<'_> {
    fn length(&self) -> usize {
        self.length
    }

    fn write(
        &self,
        skip: usize,
        write: impl FnOnce([&[u8]; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let log = self.buffer.log();
        let parts = log
            .ring
            .part(self.offset + skip as u64, self.length - skip)
            .ok_or_else(|| io::Error::other("acknowledged before it was sent"))?;
        write(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn put(buffer: &LogBuffer, mut bytes: &[u8]) -> usize {
        buffer
            .append(|room| bytes.read_vectored(room))
            .expect("append")
    }

    fn now(buffer: &LogBuffer, session: u64, offset: u64) -> Option<Next> {
        buffer.log().next(session, offset)
    }

    fn bytes(buffer: &LogBuffer, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut write = |parts: [&[u8]; 2]| {
            bytes = parts.concat();
            Ok(bytes.len())
        };
        buffer
            .chunk(offset, length)
            .write(0, &mut write)
            .expect("held");
        bytes
    }

    fn waits(future: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_pending()
    }

    #[test]
    fn only_acknowledged_bytes_are_freed() {
        let buffer = LogBuffer::default();
        put(&buffer, b"hello");
        let session = buffer.open(0).expect("open");
        let (length, end) = (5, false);
        assert_eq!(now(&buffer, session, 0), Some(Next::Bytes { length, end }));
        assert_eq!(bytes(&buffer, 0, 5), b"hello");
        assert_eq!(now(&buffer, session, 5), None);
        buffer.acknowledge(3);
        assert_eq!(now(&buffer, session, 0), Some(Next::Lost));
        let lost = buffer.chunk(0, 5).write(0, |_| Ok(5));
        assert!(lost.is_err());
        let (first, last) = (3, 5);
        for from in [2, 6] {
            assert_eq!(buffer.open(from), Err(OutOfRange { from, first, last }));
        }
        let session = buffer.open(3).expect("open");
        buffer.finish();
        let (length, end) = (2, true);
        assert_eq!(now(&buffer, session, 3), Some(Next::Bytes { length, end }));
        assert_eq!(bytes(&buffer, 3, 2), b"lo");
        let (length, end) = (0, true);
        assert_eq!(now(&buffer, session, 5), Some(Next::Bytes { length, end }));
    }

    #[test]
    fn coalescing_waits_for_enough_or_for_all_that_will_come() {
        let buffer = LogBuffer::default();
        let session = buffer.open(0).expect("open");
        put(&buffer, b"hello!");
        assert!(waits(buffer.coalesce(session, 3, 4)));
        put(&buffer, b"!");
        assert!(!waits(buffer.coalesce(session, 3, 4)));
        let other = LogBuffer::default();
        let session = other.open(0).expect("open");
        assert!(waits(other.coalesce(session, 0, 4)));
        other.finish();
        assert!(!waits(other.coalesce(session, 0, 4)));
    }

    #[test]
    fn a_new_session_ends_the_old_one() {
        let buffer = LogBuffer::default();
        let old = buffer.open(0).expect("open");
        let new = buffer.open(0).expect("open");
        assert_eq!(now(&buffer, old, 0), Some(Next::Replaced));
        assert_eq!(now(&buffer, new, 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The bytes and their order stay the same under all cuts, reconnections and acknowledgements.
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
                    Some(more) => prop_assert_eq!(put(&buffer, &more), more.len()),
                    None => buffer.finish(),
                }
                let mut over = false;
                while let Some(next) = now(&buffer, session, got.len() as u64) {
                    let Next::Bytes { length, end } = next else { panic!("{next:?}") };
                    prop_assert!(length <= MAX_LOG_PAYLOAD);
                    got.extend(bytes(&buffer, got.len() as u64, length));
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
