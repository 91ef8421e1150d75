//! The frames of a bulk stream (guest.proto, FrameKind) that come from the host.

use crate::tuning::MAX_AWAITED_BYTES;
use crate::wire::socket::Socket;
use bytes::Bytes;
use litegix_protocol::frame::{self, HEADER_BYTES, MAX_OPENING, MAX_PAYLOAD};
use litegix_protocol::guest::FrameKind;
use std::io;
use std::sync::Arc;

const MAX_FRAME: usize = HEADER_BYTES + MAX_PAYLOAD;
/// The host's frames.
pub struct Frames {
    socket: Arc<Socket>,
    buffer: Buffer,
    /// The number of bytes at which the socket wakes its reader.
    awaited: usize,
}

impl Frames {
    pub fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            buffer: Buffer::default(),
            awaited: 1,
        }
    }

    /// None at the connection's end. Can be dropped at any await without losing a byte.
    pub async fn next(&mut self) -> io::Result<Option<(FrameKind, Bytes)>> {
        loop {
            if let Some(frame) = self.buffer.pop()? {
                return Ok(Some(frame));
            }
            self.await_bytes(self.buffer.missing().clamp(1, MAX_AWAITED_BYTES));
            if self.socket.receive(&mut self.buffer.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Lower than before only after a read that returned bytes, so that another read follows before any sleep: bytes
    /// that are here already wake no reader.
    fn await_bytes(&mut self, bytes: usize) {
        if bytes != self.awaited && self.socket.wake_at(bytes).is_ok() {
            self.awaited = bytes;
        }
    }
}

/// Bytes on their way from the socket to frames.
struct Buffer {
    bytes: Vec<u8>,
    /// The next frame's beginning.
    start: usize,
    largest: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(HEADER_BYTES + 4096),
            start: 0,
            largest: MAX_OPENING,
        }
    }
}

impl Buffer {
    /// The next frame if it is whole; otherwise there is room to read the rest of it into.
    fn pop(&mut self) -> io::Result<Option<(FrameKind, Bytes)>> {
        let here = &self.bytes[self.start..];
        let Some(head) = here.first_chunk() else {
            self.make_room(HEADER_BYTES);
            return Ok(None);
        };
        let (kind, length) = frame::parse(*head);
        if length > self.largest {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let whole = HEADER_BYTES + length;
        if here.len() < whole {
            self.make_room(whole);
            return Ok(None);
        }
        self.largest = MAX_PAYLOAD;
        let payload = if self.start == 0 && here.len() == whole && whole > MAX_FRAME / 2 {
            // Bulk data: the buffer itself goes on.
            let bytes = std::mem::take(&mut self.bytes);
            return Ok(Some((kind, Bytes::from(bytes).slice(HEADER_BYTES..))));
        } else {
            Bytes::copy_from_slice(&here[HEADER_BYTES..whole])
        };
        self.start += whole;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        Ok(Some((kind, payload)))
    }

    /// Bytes missing of the frame that has begun; 0 if its length is not known.
    fn missing(&self) -> usize {
        let here = &self.bytes[self.start..];
        here.first_chunk().map_or(0, |head| {
            let (_, length) = frame::parse(*head);
            (HEADER_BYTES + length).saturating_sub(here.len())
        })
    }

    /// For a frame of that size, at the buffer's beginning. Bulk data comes frame after frame of the max size: with
    /// room for exactly one, each read ends where the frame does.
    fn make_room(&mut self, whole: usize) {
        self.bytes.drain(..self.start);
        self.start = 0;
        let wanted = whole.max(MAX_FRAME);
        self.bytes
            .reserve_exact(wanted.saturating_sub(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_there_is_room_for_it() {
        let mut buffer = Buffer::default();
        buffer.bytes.extend(frame::header(FrameKind::Exec, 1));
        buffer.bytes.push(b'x');
        assert!(buffer.pop().expect("first").is_some());
        buffer.bytes.extend([FrameKind::Stdin as u8, 1, 0, 0]);
        assert!(buffer.pop().is_err());
        assert!(buffer.bytes.capacity() <= 2 * MAX_FRAME);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The frames and their order stay the same under all cuts.
        #[test]
        fn frames_are_found_again(
            sizes in prop::collection::vec(prop_oneof![0..40_usize, 30_000..MAX_PAYLOAD + 1], 1..8),
            cuts in prop::collection::vec(1..100_000_usize, 1..8),
        ) {
            let payload = |index: usize, size: usize| vec![index as u8; size];
            let mut wire = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                wire.extend(frame::header(FrameKind::Stdin, *size));
                wire.extend(payload(index, *size));
            }
            let mut buffer = Buffer::default();
            let mut got = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            let mut rest = wire.as_slice();
            loop {
                if let Some((kind, bytes)) = buffer.pop().expect("frame") {
                    prop_assert_eq!(kind, FrameKind::Stdin);
                    got.push(bytes.to_vec());
                    continue;
                }
                let room = buffer.bytes.capacity() - buffer.bytes.len();
                prop_assert!(room > 0);
                if rest.is_empty() {
                    break;
                }
                let cut = cuts.next().unwrap_or(1).min(room).min(rest.len());
                buffer.bytes.extend_from_slice(&rest[..cut]);
                rest = &rest[cut..];
            }
            let all: Vec<_> = sizes.iter().enumerate().map(|(index, size)| payload(index, *size)).collect();
            prop_assert_eq!(got, all);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut buffer = Buffer::default();
            buffer.bytes.extend(bytes);
            while let Ok(Some(_)) = buffer.pop() {}
            prop_assert!(buffer.bytes.capacity() <= MAX_OPENING + 2 * MAX_FRAME);
        }
    }
}
