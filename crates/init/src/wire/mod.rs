//! Frames over a socket (guest.proto, FrameKind).

pub mod frames;
pub mod socket;
