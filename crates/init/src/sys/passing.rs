//! Descriptors over a unix socket (SCM_RIGHTS), one message with a fixed number of them.

use super::{check, check_long};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The two ends of a connection that keeps messages apart, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors; on success both are ours.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Room for the control message with so many descriptors, aligned as its header.
#[repr(C, align(8))]
struct Control<const COUNT: usize> {
    header: libc::cmsghdr,
    fds: [RawFd; COUNT],
}

/// Never waits: `WouldBlock` where the socket has no room.
pub fn send<const COUNT: usize>(
    socket: impl AsFd,
    descriptors: [BorrowedFd<'_>; COUNT],
) -> io::Result<()> {
    // On Linux the header is as large as its own alignment asks for, so the descriptors follow on it.
    let length = size_of::<libc::cmsghdr>() + COUNT * size_of::<RawFd>();
    // SAFETY: plain data, for which zero is a value.
    let mut control: Control<COUNT> = unsafe { std::mem::zeroed() };
    control.header.cmsg_len = length;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    control.fds = descriptors.map(|fd| fd.as_raw_fd());
    let byte = [0_u8];
    let mut content = libc::iovec {
        iov_base: byte.as_ptr().cast_mut().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: plain data, for which zero is a value; every pointer is to something that outlives the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut content;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = length;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        check_long(libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) as _)?;
    }
    Ok(())
}

/// Waits for a message. None: the other side has closed. What is no message of so many descriptors is an error.
pub fn receive<const COUNT: usize>(socket: impl AsFd) -> io::Result<Option<[OwnedFd; COUNT]>> {
    let mut control = MaybeUninit::<Control<COUNT>>::zeroed();
    let mut byte = [0_u8];
    let mut content = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: plain data, for which zero is a value; every pointer is to something that outlives the call, and the kernel
    // writes no more of the control message than its length.
    let (count, control) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut content;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control<COUNT>>();
        let count = libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        );
        (check_long(count as _)?, control.assume_init())
    };
    if count == 0 {
        return Ok(None);
    }
    let wanted = size_of::<libc::cmsghdr>() + COUNT * size_of::<RawFd>();
    let header = control.header;
    if (header.cmsg_level, header.cmsg_type, header.cmsg_len)
        != (libc::SOL_SOCKET, libc::SCM_RIGHTS, wanted)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has just made each of these descriptors for us.
    Ok(Some(
        control.fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_arrive_in_their_order_and_the_end_is_told() {
        let (here, there) = pair().expect("pair");
        let (from, to) = super::super::files::pipe().expect("pipe");
        send(&here, [to.as_fd(), from.as_fd()]).expect("send");
        drop((to, from));
        let [to, from] = receive(&there).expect("receive").expect("a message");
        File::from(to).write_all(b"through").expect("write");
        let mut text = String::new();
        File::from(from).read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
        drop(here);
        assert!(receive::<2>(&there).expect("receive").is_none());
    }

    #[test]
    fn a_message_without_them_is_an_error() {
        let (here, there) = pair().expect("pair");
        let byte = [0_u8];
        // SAFETY: the pointer is valid for the length.
        unsafe { libc::send(here.as_raw_fd(), byte.as_ptr().cast(), 1, 0) };
        assert!(receive::<2>(&there).is_err());
    }
}
