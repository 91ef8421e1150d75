//! The sharing of the processor between the calling thread and others.

use crate::check;
use std::io;

/// A batch thread that wakes up waits for its turn (SCHED_BATCH, sched(7)); any other takes the processor from the
/// running thread. Processes and threads that it begins are the same.
pub fn set_batch(batch: bool) -> io::Result<()> {
    let policy = if batch {
        libc::SCHED_BATCH
    } else {
        libc::SCHED_OTHER
    };
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is valid for the call. 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })?;
    Ok(())
}

pub fn is_batch() -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_BATCH }
}
