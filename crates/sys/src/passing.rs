//! Descriptors over a unix socket (SCM_RIGHTS), one message with a fixed number of them.

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The two ends of a connection that keeps messages apart, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    Ok(socketpair(AddressFamily::Unix, kind, None, flags)?)
}

/// Never waits: fails with `WouldBlock` if the socket has no room.
pub fn send<const COUNT: usize>(
    socket: impl AsFd,
    descriptors: [BorrowedFd<'_>; COUNT],
) -> io::Result<()> {
    let descriptors = descriptors.map(|fd| fd.as_raw_fd());
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Waits for a message. None: the other side has closed. A message with another number of descriptors is an error.
pub fn receive<const COUNT: usize>(socket: impl AsFd) -> io::Result<Option<[OwnedFd; COUNT]>> {
    let mut byte = [0];
    let mut content = [IoSliceMut::new(&mut byte)];
    let mut control = cmsg_space!([RawFd; COUNT]);
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut content,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just made each of these descriptors for us.
            descriptors.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let descriptors = descriptors
        .try_into()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some(descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_arrive_in_their_order_and_the_end_is_told() {
        let (here, there) = pair().expect("pair");
        let (from, to) = crate::descriptors::pipe().expect("pipe");
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
        nix::sys::socket::send(here.as_raw_fd(), &[0], MsgFlags::empty()).expect("send");
        assert!(receive::<2>(&there).is_err());
    }
}
