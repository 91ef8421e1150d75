//! The reasons that a call which changes the task's life fails.

use crate::machine::step_error::{StepError, reason};
use crate::program::plan::Failure;
use std::io;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigureError {
    /// The request asks for something impossible.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Step(#[from] StepError),
}

#[derive(Debug, Error)]
pub enum LifeError {
    /// Not possible in this state; the message names the state.
    #[error("{0}")]
    State(&'static str),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    #[error(transparent)]
    Start(#[from] Failure),
    #[error("/etc/hosts: {}", reason(.0))]
    Peers(io::Error),
}
