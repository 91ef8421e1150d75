//! What the host calls: the service, the bulk streams, and what they answer.

pub mod bulk;
pub mod generation;
pub mod service;
pub mod statuses;
