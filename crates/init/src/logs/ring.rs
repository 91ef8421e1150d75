//! The bytes of a log that the host may still ask for, in one piece of memory. The task's output is read into it and
//! sent from it, without a copy in between. Every byte has an offset, its place in the whole log.

use std::io::{self, IoSliceMut};

/// Max bytes held.
pub const CAPACITY: usize = 1 << 20;

#[derive(Default)]
pub struct Ring {
    /// Empty before the first byte. Then `CAPACITY` bytes, of which only used ones take memory.
    memory: Vec<u8>,
    /// The place of the first byte held.
    first: usize,
    held: usize,
    /// The offset of the first byte held.
    start: u64,
}

impl Ring {
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset of the byte that will come next.
    pub fn end(&self) -> u64 {
        self.start + self.held as u64
    }

    pub fn room(&self) -> usize {
        CAPACITY - self.held
    }

    /// `read` fills the slices in their order and returns the count of bytes; they are empty if the ring is full.
    pub fn append(
        &mut self,
        read: impl FnOnce(&mut [IoSliceMut<'_>; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.memory.is_empty() {
            self.memory = vec![0; CAPACITY];
        }
        if self.held == 0 {
            // The same pages again and again, as long as the host keeps up.
            self.first = 0;
        }
        let next = self.first + self.held;
        let mut room = if next < CAPACITY {
            let (below, above) = self.memory.split_at_mut(next);
            [above, &mut below[..self.first]]
        } else {
            let free = &mut self.memory[next - CAPACITY..self.first];
            [free, &mut []]
        }
        .map(IoSliceMut::new);
        let count = read(&mut room)?.min(self.room());
        self.held += count;
        Ok(count)
    }

    /// The bytes from the offset on, at most this many; None if they are no longer held, or not yet.
    pub fn part(&self, offset: u64, length: usize) -> Option<[&[u8]; 2]> {
        let skip = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let length = length.min(self.held.checked_sub(skip)?);
        let from = self.first + skip;
        Some(if from >= CAPACITY {
            [&self.memory[from - CAPACITY..][..length], &[]]
        } else if from + length <= CAPACITY {
            [&self.memory[from..][..length], &[]]
        } else {
            let rest = from + length - CAPACITY;
            [&self.memory[from..], &self.memory[..rest]]
        })
    }

    /// Frees the bytes below the offset.
    pub fn free(&mut self, offset: u64) {
        // At most the capacity.
        let count = offset.min(self.end()).saturating_sub(self.start) as usize;
        self.first = (self.first + count) % CAPACITY;
        self.held -= count;
        self.start += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn put(ring: &mut Ring, mut bytes: &[u8]) -> usize {
        ring.append(|room| bytes.read_vectored(room)).expect("fill")
    }

    #[test]
    fn what_is_freed_or_still_to_come_is_not_given() {
        let mut ring = Ring::default();
        assert_eq!(ring.part(0, 1), Some([&b""[..], b""]));
        assert_eq!(put(&mut ring, b"hello"), 5);
        ring.free(2);
        assert_eq!(ring.part(1, 1), None);
        assert_eq!(ring.part(2, 9), Some([&b"llo"[..], b""]));
        assert_eq!(ring.part(5, 9), Some([&b""[..], b""]));
        assert_eq!(ring.part(6, 1), None);
        // More than there ever was.
        ring.free(u64::MAX);
        assert_eq!((ring.start(), ring.end(), ring.room()), (5, 5, CAPACITY));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a plain vector of everything: after any puts and frees, each byte held is the byte of its offset.
        #[test]
        fn each_byte_is_at_its_offset(
            steps in prop::collection::vec((0..400_000_usize, 0..400_000_u64, any::<bool>()), 1..40),
        ) {
            let mut ring = Ring::default();
            let mut all: Vec<u8> = Vec::new();
            for (size, freed, drain) in steps {
                let bytes: Vec<u8> = (0..size).map(|index| ((all.len() + index) / 7) as u8).collect();
                let count = put(&mut ring, &bytes);
                prop_assert_eq!(count, size.min(CAPACITY - (ring.end() - ring.start()) as usize + count));
                all.extend(&bytes[..count]);
                prop_assert_eq!(ring.end(), all.len() as u64);
                let whole = ring.part(ring.start(), usize::MAX).expect("held").concat();
                prop_assert!(whole == all[ring.start() as usize..]);
                ring.free(if drain { ring.end() } else { ring.start() + freed });
            }
        }
    }
}
