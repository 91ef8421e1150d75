//! A task that writes faster than its bytes can be carried away. Woken by each of its writes, this thread would take the
//! processor from it, and each change of address space costs more than what was written: the pipe is better left to fill up.

use crate::sys::scheduling;
use std::cell::Cell;

thread_local! {
    /// How many streams of this thread are in flood.
    static FLOODS: Cell<usize> = const { Cell::new(0) };
}

/// While one is held, a program that wakes this thread keeps the processor until its time is over or it has to wait.
pub struct Flood(());

impl Flood {
    pub fn begin() -> Self {
        Self::count(|floods| floods + 1);
        Self(())
    }

    fn count(change: impl FnOnce(usize) -> usize) {
        let before = FLOODS.get();
        let now = change(before);
        FLOODS.set(now);
        if (before == 0) != (now == 0) {
            // Without it all goes on as well, and slower.
            let _ = scheduling::set_batch(now > 0);
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        Self::count(|floods| floods - 1);
    }
}
