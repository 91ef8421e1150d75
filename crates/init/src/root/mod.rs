//! The task's root and what is mounted there.

pub mod devices;
pub mod mounts;
pub mod rooted;
pub mod tear_down;
