//! The service and the bulk streams that the host calls.

pub mod bulk;
pub mod generation;
pub mod service;
pub mod statuses;

use std::io;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// Listens for connections to a port of the machine's own.
pub fn listen(port: u32) -> io::Result<VsockListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))
}

/// A task may open a socket of this kind too, but must not command its own machine's init.
pub fn is_host(peer: VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}
