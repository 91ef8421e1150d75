//! What the host says in an exec session, on its way to the program.

use crate::channel::Message;
use crate::frames::Frames;
use crate::input::Input;
use crate::sys::tty;
use litegix_protocol::guest::TerminalSize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
use tonic::Status;

/// Bytes of input taken, of which the host hears at once.
const WORTH_TELLING: u64 = 32 << 10;

/// 0 x 0 is what clients without a terminal say; it means nothing.
pub fn resize(terminal: &OwnedFd, size: Option<TerminalSize>) {
    let Some(size) = size else { return };
    let (Ok(rows), Ok(columns)) = (u16::try_from(size.rows), u16::try_from(size.columns)) else {
        return;
    };
    if rows > 0 && columns > 0 {
        let _ = tty::set_size(terminal, rows, columns);
    }
}

/// Only while there is room: a program that does not read holds up the host's sending.
async fn next_message(frames: &mut Frames, room: bool) -> Result<Message, Status> {
    if room {
        return frames.message().await;
    }
    frames.gone().await;
    Err(Status::cancelled("the host has gone"))
}

/// Carries the host's messages to the program until the session is over. An error means that the host is gone.
pub async fn feed(
    mut input: Input,
    mut frames: Frames,
    terminal: Option<Arc<OwnedFd>>,
    mut over: oneshot::Receiver<()>,
) -> Result<(), Status> {
    let mut told = 0;
    loop {
        let taken = input.taken();
        if taken - told >= WORTH_TELLING || (input.idle() && taken > told) {
            told = taken;
            frames.taken(taken).await;
        }
        let message = tokio::select! {
            message = next_message(&mut frames, input.has_room()) => message?,
            () = input.write_some(), if !input.idle() => continue,
            _ = &mut over => return Ok(()),
        };
        match message {
            Message::Stdin(bytes) => input.push(bytes),
            Message::StdinEnd => input.finish(),
            Message::Resize(size) => {
                if let Some(terminal) = &terminal {
                    resize(terminal, Some(size));
                }
            }
        }
    }
}
