//! The task's output on its way to the host.

pub mod buffer;
pub mod fill;
pub mod ring;
pub mod stream;
