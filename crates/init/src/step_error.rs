//! A step in preparing the machine or the task's root that failed on this machine.

use crate::plan::reason;
use std::fmt;
use std::io;

#[derive(Debug)]
pub struct StepError {
    /// The step, or the path that it was about.
    pub step: String,
    pub source: io::Error,
}

impl fmt::Display for StepError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {}",
            self.step.escape_debug(),
            reason(&self.source)
        )
    }
}

pub fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> StepError {
    let step = step.into();
    move |source| StepError { step, source }
}
