//! A step in preparing the machine or the task's root that failed on this machine.

use std::io;
use thiserror::Error;

#[derive(Debug, Error)]
#[error("{}: {}", step.escape_debug(), reason(source))]
pub struct StepError {
    /// The step, or the path that it concerns.
    pub step: String,
    pub source: io::Error,
}

pub fn failed<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> StepError {
    let step = step.into();
    move |source| StepError {
        step,
        source: source.into(),
    }
}

/// An error's text as C programs print it: without Rust's "(os error N)".
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}
