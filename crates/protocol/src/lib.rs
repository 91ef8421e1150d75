//! The contracts between host, guest and shim as Rust types, generated; by hand only the frames of bulk streams.

pub mod frame;

/// What the guest's PID 1 serves.
pub mod guest {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    tonic::include_proto!("litegix.guest.v1");
}

/// What the per-VM supervisor serves.
pub mod shim {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    tonic::include_proto!("litegix.shim.v1");
}
