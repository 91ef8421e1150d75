//! What the task uses of the machine, and what it may use at most.

pub mod cgroup;
pub mod stats;
pub mod thrash;
pub mod victim;
