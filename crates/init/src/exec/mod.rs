//! Exec sessions.

pub mod channel;
pub mod input;
pub mod open_sessions;
pub mod output;
pub mod session;
pub mod tree;
