//! The messages of an exec session, to and from the host.

use crate::wire::frames::Frames;
use crate::wire::socket::send;
use bytes::Bytes;
use litegix_protocol::guest::{ExecStarted, ExitStatus, FrameKind, StdinTaken, TerminalSize};
use prost::Message as _;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// The pause between two checks of a connection that can't be read because the program does not take its input.
const HANG_UP_CHECK: Duration = Duration::from_millis(500);

/// The session's messages to the host.
#[derive(Debug)]
pub enum Answer {
    /// The program runs.
    Started(ExecStarted),
    /// At most 64 KiB each. A terminal's are all `Stdout`.
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last one.
    Exited(ExitStatus),
}

pub type Answers = mpsc::Sender<Answer>;

/// A host's message in a session.
pub enum Message {
    Stdin(Bytes),
    /// No more input. In a terminal: the end-of-file character.
    StdinEnd,
    Resize(TerminalSize),
}

/// The host's end of a session. An error of its calls means that the host has gone, or sends nonsense.
pub struct Host(Frames);

impl Host {
    pub fn new(frames: Frames) -> Self {
        Self(frames)
    }

    /// Can be dropped at any await without losing a message.
    pub async fn message(&mut self) -> io::Result<Message> {
        match self.0.next().await?.ok_or(io::ErrorKind::UnexpectedEof)? {
            (FrameKind::Stdin, bytes) => Ok(Message::Stdin(bytes)),
            (FrameKind::StdinEnd, _) => Ok(Message::StdinEnd),
            (FrameKind::Resize, payload) => TerminalSize::decode(payload)
                .map(Message::Resize)
                .map_err(io::Error::other),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Acknowledges this many bytes of the standard input since the session's beginning.
    pub async fn acknowledge(&self, bytes: u64) {
        let taken = StdinTaken { bytes }.encode_to_vec();
        // A connection's end shows only when it is read.
        let _ = send(self.0.socket(), FrameKind::Taken, &taken).await;
    }

    /// Resolves when the host has gone while no caller reads its messages.
    pub async fn gone(&self) {
        while !self.0.socket().hung_up() {
            sleep(HANG_UP_CHECK).await;
        }
    }
}
