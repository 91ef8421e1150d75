//! The task's use of the machine, and its limits.

pub mod cgroup;
pub mod stats;
pub mod thrash;
pub mod victim;
