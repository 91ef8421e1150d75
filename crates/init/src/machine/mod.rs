//! The machine itself, before and beside the task.

pub mod clock;
pub mod early;
pub mod layers;
pub mod modules;
pub mod probe;
pub mod restart;
pub mod step_error;
pub mod steps;
