//! The task's log streams, from the guest to where Nomad reads them.

pub mod forward;
pub mod frames;
pub mod sink;
pub mod streams;
