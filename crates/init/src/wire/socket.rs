//! The socket of a bulk stream: frames (guest.proto, FrameKind) are written whole, bytes read as they come.

use litegix_protocol::frame::{self, HEADER_BYTES};
use litegix_protocol::guest::FrameKind;
use litegix_sys::descriptors;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

pub struct Socket {
    /// Watched for reading only: vsock reports room for writing with every packet that arrives.
    fd: AsyncFd<File>,
    /// Its holder writes a whole frame. It watches the socket for room once there was none.
    turn: Mutex<Option<AsyncFd<File>>>,
}

impl Socket {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: descriptors::watch_for(fd, Interest::READABLE)?,
            turn: Mutex::default(),
        })
    }

    /// Waits for room to write; at first only begins to watch for it, so that the caller tries once more.
    async fn room(&self, watched: &mut Option<AsyncFd<File>>) -> io::Result<()> {
        match watched {
            Some(watched) => watched.writable().await?.clear_ready(),
            None => {
                let copy = self.fd.get_ref().try_clone()?;
                *watched = Some(descriptors::watch_for(copy.into(), Interest::WRITABLE)?);
            }
        }
        Ok(())
    }

    /// Reads to the connection's end, and discards the bytes.
    pub async fn drain(&self) {
        let mut rest = Vec::with_capacity(4096);
        while matches!(self.receive(&mut rest).await, Ok(length) if length > 0) {
            rest.clear();
        }
    }

    /// Appends the bytes that are there, at most as many as the buffer has room for; 0 is the connection's end.
    pub async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        descriptors::receive(&self.fd, buffer).await
    }

    /// This many bytes wake its reader, fewer do not.
    pub fn wake_at(&self, bytes: usize) -> io::Result<()> {
        descriptors::wake_at(self.fd.get_ref(), bytes)
    }

    /// True if the host has closed its end, even if there is still something to read.
    pub fn hung_up(&self) -> bool {
        let closed = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut asked = [PollFd::new(self.fd.get_ref().as_fd(), closed)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// The content of a frame. Each attempt to write asks it for its bytes, so that none are borrowed in between.
pub trait Payload {
    fn length(&self) -> usize;

    /// Calls `write` with the bytes from `skip` on, in two parts, and returns its result.
    fn write(
        &self,
        skip: usize,
        write: impl FnOnce([&[u8]; 2]) -> io::Result<usize>,
    ) -> io::Result<usize>;
}

impl<T: AsRef<[u8]>> Payload for T {
    fn length(&self) -> usize {
        self.as_ref().len()
    }

    fn write(
        &self,
        skip: usize,
        write: impl FnOnce([&[u8]; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        write([&self.as_ref()[skip..], &[]])
    }
}

/// The payload is at most the limit of the kind of frame. Must not be dropped before its end, but with the connection.
pub async fn send(socket: &Socket, kind: FrameKind, payload: &impl Payload) -> io::Result<()> {
    let mut watched = socket.turn.lock().await;
    let head = frame::header(kind, payload.length());
    let whole = HEADER_BYTES + payload.length();
    let mut sent = 0;
    while sent < whole {
        let attempt = payload.write(sent.saturating_sub(HEADER_BYTES), |[first, second]| {
            let head = IoSlice::new(&head[sent.min(HEADER_BYTES)..]);
            let slices = [head, IoSlice::new(first), IoSlice::new(second)];
            socket.fd.get_ref().write_vectored(&slices)
        });
        match attempt {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // Only a full window cuts a write, so asking once more would be useless.
        if sent < whole {
            socket.room(&mut watched).await?;
        }
    }
    Ok(())
}
