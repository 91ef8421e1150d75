//! The task's log streams, from the guest to Nomad's reader.

pub mod forward;
pub mod frames;
pub mod sink;
pub mod streams;
