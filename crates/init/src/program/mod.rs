//! Programs of the task: starting one in the task's world, and waiting for its end.

pub mod limits;
pub mod lookup;
pub mod plan;
pub mod reaper;
pub mod spawn;
pub mod stage2;
pub mod terminals;
pub mod users;
pub mod world;
pub mod zygote;
