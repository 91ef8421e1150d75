//! Netlink messages as bytes: a header, a fixed part, attributes, each aligned to four.

use std::io;

const HEADER_BYTES: usize = 16;

pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `kind` and `flags` of the header; `fixed` is the structure that the kind begins with.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        // Sequence and port stay 0: there is one request at a time.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.align();
        message
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
        self
    }

    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.bytes.len() as u32).to_ne_bytes();
        self.bytes[..4].copy_from_slice(&length);
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads an acknowledgement: the error that it carries, or success.
pub fn read_acknowledgement(answer: &[u8]) -> io::Result<()> {
    let code = answer
        .get(HEADER_BYTES..HEADER_BYTES + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_acknowledgement_is_read() {
        let answer = |code: i32| [vec![0; HEADER_BYTES], code.to_ne_bytes().to_vec()].concat();
        assert!(read_acknowledgement(&answer(0)).is_ok());
        let error = read_acknowledgement(&answer(-libc::EEXIST)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        assert!(read_acknowledgement(&[0; 18]).is_err());
    }

    proptest! {
        #[test]
        fn lengths_and_alignment_hold(fixed in proptest::collection::vec(any::<u8>(), 0..40),
                                      value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = Message::new(20, 5, &fixed).attribute(1, &value).finish();
            prop_assert_eq!(bytes.len() % 4, 0);
            prop_assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
            let at = HEADER_BYTES + fixed.len().next_multiple_of(4);
            let length = u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
            prop_assert_eq!(usize::from(length), 4 + value.len());
        }
    }
}
