//! Why a task cannot be configured.

use crate::machine::step_error::StepError;
use std::fmt;

#[derive(Debug)]
pub enum ConfigureError {
    /// The request asks for something impossible.
    Invalid(String),
    Step(StepError),
}

impl fmt::Display for ConfigureError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(message) => out.write_str(message),
            Self::Step(error) => error.fmt(out),
        }
    }
}

impl From<StepError> for ConfigureError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}
