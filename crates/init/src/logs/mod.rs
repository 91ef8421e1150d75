//! The task's output on its way to the host.

pub mod buffer;
pub mod pump;
pub mod ring;
pub mod stream;
