//! The messages of an exec session, to and from the host.

use bytes::Bytes;
use litegix_protocol::guest::{ExecStarted, ExitStatus, TerminalSize};
use tokio::sync::mpsc;

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
