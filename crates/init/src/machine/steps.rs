//! When init reached each step on its way from its first instruction to the task's start, for whoever asks the host where
//! the time went.

use crate::sys::machine;
use litegix_protocol::guest::BootStep;
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// A repeated call (Configure, Start) must not make it grow.
const MOST: usize = 32;

static STEPS: Mutex<Vec<(Cow<'static, str>, i64)>> = Mutex::new(Vec::new());

/// Notes that the step named is done.
pub fn done(name: impl Into<Cow<'static, str>>) {
    let uptime_ns = machine::uptime_ns();
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    if steps.len() < MOST {
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
