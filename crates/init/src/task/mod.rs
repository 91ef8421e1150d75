//! The task's life, from its configuration to the machine's end.

pub mod agent;
pub mod configure;
pub mod error;
pub mod peers;
pub mod shutdown;
pub mod stdio;
pub mod validate;
