//! The constants of bulk data that a benchmark chose: part `logs` of `make bench-exec` moves all of them.

use std::time::Duration;

/// The supervisor reads at most this much of a connection at once.
pub const READ_BYTES: usize = 128 << 10;
/// 137 -> 147 and 106 -> 118 MB/s with two vCPUs. A frame of this size is worth moving without a copy. A pipe keeps
/// each piece that is moved so in pages of its own: small ones would fill it.
pub const MIN_SPLICE_BYTES: usize = 32 << 10;
/// The supervisor acknowledges this much at once, and less if no more comes for a moment: each message costs the guest
/// an interrupt.
pub const ACKNOWLEDGE_BYTES: u64 = 256 << 10;
pub const ACKNOWLEDGE_DELAY: Duration = Duration::from_millis(20);
