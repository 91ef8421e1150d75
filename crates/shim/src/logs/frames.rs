//! The frames of a log (guest.proto, FrameKind) as they come from the guest, in whatever pieces. Each is bounded before
//! any of it is kept, and its bytes are passed on before it is complete.

use crate::tuning::{MIN_SPLICE_BYTES, READ_BYTES};
use litegix_protocol::frame::{self, HEADER_BYTES, MAX_LOG_PAYLOAD, MAX_PAYLOAD};
use litegix_protocol::guest::{FrameKind, Refusal};
use prost::Message;
use thiserror::Error;

pub enum Next<'a> {
    /// The bytes that follow; none if only a frame's header has come so far.
    Piece(&'a [u8]),
    End,
}

/// A refusal, or a frame that no honest guest sends.
#[derive(Debug, Error)]
pub enum FrameError {
    #[error("the guest refuses: {0}")]
    Refused(String),
    #[error("the guest sent a {kind:?} of {length} bytes for its log")]
    Unexpected { kind: FrameKind, length: usize },
}

/// The bytes from the guest between the socket and the log.
pub struct Frames {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes still to come of the frame that has begun.
    left: usize,
    /// The current or latest frame is a large one.
    large: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            left: 0,
            large: false,
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

    pub fn has_next(&self) -> bool {
        if self.left > 0 {
            return !self.here().is_empty();
        }
        match self.head() {
            // A refusal is taken whole, unless it is longer than allowed.
            Some((FrameKind::Refused, length)) if length <= MAX_PAYLOAD => {
                self.here().len() >= HEADER_BYTES + length
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Room to read into; never empty while `has_next` is false.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let header_only = self.large && self.left == 0 && self.end < HEADER_BYTES;
        let end = if header_only {
            HEADER_BYTES
        } else {
            READ_BYTES
        };
        &mut self.buffer[self.end..end]
    }

    /// The number of the next bytes that belong to a large frame, none of which has been read.
    pub fn spliceable(&self) -> Option<usize> {
        (self.large && self.left > 0 && self.here().is_empty()).then_some(self.left)
    }

    /// Notes that this many of them were moved.
    pub fn spliced(&mut self, length: usize) {
        self.left -= length;
    }

    pub fn filled(&mut self, length: usize) {
        self.end += length;
    }

    /// Call it only if `has_next` is true.
    pub fn next(&mut self) -> Result<Next<'_>, FrameError> {
        if self.left == 0 {
            let (kind, length) = self.head().unwrap_or_default();
            match kind {
                // An empty one would cost work for nothing.
                FrameKind::Data if (1..=MAX_LOG_PAYLOAD).contains(&length) => {
                    self.left = length;
                    self.large = length >= MIN_SPLICE_BYTES;
                }
                FrameKind::End if length == 0 => return Ok(Next::End),
                FrameKind::Refused if length <= MAX_PAYLOAD => {
                    let payload = &self.here()[HEADER_BYTES..HEADER_BYTES + length];
                    return Err(FrameError::Refused(match Refusal::decode(payload) {
                        Ok(refusal) => refusal.message,
                        Err(error) => error.to_string(),
                    }));
                }
                _ => return Err(FrameError::Unexpected { kind, length }),
            }
            self.start += HEADER_BYTES;
        }
        let start = self.start;
        let length = self.left.min(self.end - start);
        self.start += length;
        self.left -= length;
        Ok(Next::Piece(&self.buffer[start..start + length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_protocol::guest::{HelloResponse, WaitResponse};
    use proptest::prelude::*;

    /// Reads frames that arrive in pieces; returns the log's bytes, and how it ended or was refused.
    fn read(mut wire: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<bool>) {
        let mut frames = Frames::default();
        let mut cuts = cuts.iter().cycle();
        let mut log = Vec::new();
        loop {
            while frames.has_next() {
                match frames.next() {
                    Ok(Next::Piece(piece)) => log.extend(piece),
                    Ok(Next::End) => return (log, Some(true)),
                    Err(_) => return (log, Some(false)),
                }
            }
            let cut = cuts.next().map_or(1, |cut| *cut).min(wire.len());
            if cut == 0 {
                return (log, None);
            }
            if let Some(most) = frames.spliceable() {
                let (moved, rest) = wire.split_at(cut.min(most));
                log.extend(moved);
                frames.spliced(moved.len());
                wire = rest;
                continue;
            }
            let room = frames.room();
            assert!(!room.is_empty());
            let cut = cut.min(room.len());
            room[..cut].copy_from_slice(&wire[..cut]);
            wire = &wire[cut..];
            frames.filled(cut);
        }
    }

    #[test]
    fn an_empty_piece_is_refused() {
        let mut wire = frame::header(FrameKind::Data, 1).to_vec();
        wire.extend(b"a");
        wire.extend(frame::header(FrameKind::Data, 0));
        wire.extend(frame::header(FrameKind::End, 0));
        assert_eq!(read(&wire, &[100]), (b"a".to_vec(), Some(false)));
    }

    proptest! {
        #[test]
        fn a_log_arrives_whole_whatever_the_cuts(
            sizes in prop::collection::vec(prop_oneof![1..40_usize, 60_000..MAX_LOG_PAYLOAD + 1], 0..6),
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

        /// A guest's message is decoded or refused, and holds no more than the guest sent.
        #[test]
        fn any_message_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = WaitResponse::decode(bytes.as_slice());
            let _ = HelloResponse::decode(bytes.as_slice());
            let _ = Refusal::decode(bytes.as_slice());
        }
    }
}
