//! The VM's processes and how it ended.

pub mod children;
pub mod isolation;
pub mod output;
pub mod record;
pub mod state;
pub mod supervise;
