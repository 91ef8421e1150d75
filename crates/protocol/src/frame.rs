//! The frames of bulk streams, as `guest.proto` has them (FrameKind): one byte of kind, three of length, the payload.

use crate::guest::FrameKind;

/// The guest's vsock port of bulk streams.
pub const PORT: u32 = 11;
pub const HEADER_BYTES: usize = 4;
/// With its header at most the size of a vsock packet: a byte more would cost a second packet.
pub const MAX_PAYLOAD: usize = (64 << 10) - HEADER_BYTES;
/// A log is passed on before its frame is complete: a few full packets.
pub const MAX_LOG_PAYLOAD: usize = (256 << 10) - HEADER_BYTES;
/// A host's first frame holds a command line.
pub const MAX_OPENING: usize = 4 << 20;

/// The length is at most `MAX_OPENING`.
pub fn header(kind: FrameKind, length: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(length <= MAX_OPENING);
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    [kind as u8, high, middle, low]
}

/// The kind, which may be an unknown one, and the payload's length, for the caller to bound.
pub fn parse(header: [u8; HEADER_BYTES]) -> (FrameKind, usize) {
    let [kind, high, middle, low] = header;
    let kind = FrameKind::try_from(i32::from(kind)).unwrap_or(FrameKind::Unspecified);
    (kind, u32::from_be_bytes([0, high, middle, low]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for length in [0, 1, 255, 256, MAX_PAYLOAD, MAX_OPENING] {
            assert_eq!(
                parse(header(FrameKind::Stdout, length)),
                (FrameKind::Stdout, length)
            );
        }
        assert_eq!(
            parse([99, 0xff, 0xff, 0xff]),
            (FrameKind::Unspecified, 0x00ff_ffff)
        );
    }
}
