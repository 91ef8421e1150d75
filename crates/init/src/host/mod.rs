//! The service and the bulk streams that the host calls.

pub mod bulk;
pub mod generation;
pub mod service;
pub mod statuses;
