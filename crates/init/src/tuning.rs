//! The constants of bulk data that a benchmark chose, each with the one that moves it: `output`, `input` and `logs` are
//! the parts of `make bench-exec`, `latency` is its `alloc exec true`. Limits that only bound memory stay beside their code.

use std::time::Duration;

/// `output`. A program that writes line by line would cost a message each: a session coalesces a burst for this long, or up to
/// `COALESCE_BYTES`.
pub const EXEC_COALESCE_DELAY: Duration = Duration::from_millis(4);
/// `logs`. The same for a task's log, which nobody waits for at a keyboard.
pub const LOG_COALESCE_DELAY: Duration = Duration::from_millis(5);
/// `output`, `logs`.
pub const COALESCE_BYTES: usize = 16 << 10;

/// `input`. A session acknowledges this much of the program's taken input at once, and less once all is taken.
pub const INPUT_ACKNOWLEDGE_BYTES: u64 = 32 << 10;
/// `input`: 6.1 -> 2.9 s of the guest's CPU time for 64 MB, 37,000 -> 9,400 wake-ups. A large frame comes in packets of 4
/// KiB, each of which would wake the reader. Less than the 64 KiB that the transport lets the host send unanswered, or
/// both would wait for each other.
pub const MAX_AWAITED_BYTES: usize = 32 << 10;

/// `logs`: 32.9 -> 41.7 MB/s with the ring that is read in such pieces. The pipe is read once there is room for so much.
pub const MIN_READ_BYTES: usize = 64 << 10;
/// `logs`, on one CPU. A task that has written this much by the time its pipe is read counts as writing as fast as it
/// can. If each of its writes woke init, init would take the CPU from it, and each change of address space costs more
/// than the write. Init leaves the pipe to fill up.
pub const FLOOD_BYTES: usize = 64 << 10;
/// `logs`. The flood is over after a pause of this length.
pub const FLOOD_PAUSE: Duration = Duration::from_millis(20);
