//! A step that failed, and the kernel's reason.

use std::io;
use thiserror::Error;

#[derive(Debug, Error)]
#[error("can't {what}: {source}")]
pub struct Fault {
    what: String,
    source: io::Error,
}

pub trait Context<T> {
    /// `what` follows "can't".
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|source| Fault {
            what: what(),
            source: source.into(),
        })
    }
}
