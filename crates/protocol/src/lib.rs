//! The contracts between host, guest and supervisor as generated Rust types. Only the frames of bulk streams are
//! written by hand.

pub mod frame;

/// The service of the guest's PID 1.
pub mod guest {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    tonic::include_proto!("litegix.guest.v1");
}

/// The service of the per-VM supervisor.
pub mod shim {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    tonic::include_proto!("litegix.shim.v1");
}
