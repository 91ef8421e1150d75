//! A socket of the kernel's routing netlink: requests go out, acknowledgements come back.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Larger than any acknowledgement: those quote the request.
const ANSWER_BYTES: usize = 16 << 10;

pub struct RouteSocket {
    fd: OwnedFd,
}

impl RouteSocket {
    pub fn open() -> io::Result<Self> {
        // SAFETY: no memory is involved; on success the descriptor is ours.
        let fd = unsafe {
            OwnedFd::from_raw_fd(check(libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            ))?)
        };
        Ok(Self { fd })
    }

    /// Sends one message that asks for an acknowledgement, and gives the kernel's answer, which it writes within the call.
    pub fn exchange(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        // SAFETY: the pointer is valid for the length.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = vec![0_u8; ANSWER_BYTES];
        // SAFETY: the buffer is valid for its length.
        let length = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                answer.as_mut_ptr().cast(),
                answer.len(),
                0,
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        answer.truncate(length);
        Ok(answer)
    }
}
