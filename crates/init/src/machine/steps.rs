//! The times at which init reached each step from its first instruction to the task's start.

use litegix_protocol::guest::BootStep;
use nix::time::{ClockId, clock_gettime};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// A repeated call (Configure, Start) must not make it grow.
const MAX_STEPS: usize = 32;

static STEPS: Mutex<Vec<(Cow<'static, str>, i64)>> = Mutex::new(Vec::new());

/// Nanoseconds since the kernel started.
pub fn uptime_ns() -> i64 {
    // It cannot fail for this clock.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Notes that the named step is done.
pub fn done(name: impl Into<Cow<'static, str>>) {
    let uptime_ns = uptime_ns();
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    if steps.len() < MAX_STEPS {
        steps.push((name.into(), uptime_ns));
    }
}

pub fn all() -> Vec<BootStep> {
    let steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    steps
        .iter()
        .map(|(name, uptime_ns)| BootStep {
            name: name.to_string(),
            uptime_ns: *uptime_ns,
        })
        .collect()
}
