//! The VM's processes and its end.

pub mod children;
pub mod drives;
pub mod isolation;
pub mod output;
pub mod ports;
pub mod record;
pub mod rights;
pub mod set_id;
pub mod state;
pub mod supervise;
