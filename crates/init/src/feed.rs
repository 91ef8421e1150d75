//! What the host says in an exec session, on its way to the program.

use crate::exec::Requests;
use crate::input::Input;
use crate::sys::tty;
use litegix_protocol::guest::TerminalSize;
use litegix_protocol::guest::exec_request::Request as Message;
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
async fn next_message(requests: &mut impl Requests, room: bool) -> Result<Option<Message>, Status> {
    if room {
        return requests.message().await;
    }
    requests.gone().await;
    Err(Status::cancelled("the host has gone"))
}

/// Carries the host's messages to the program until the session is over. An error means that the host is gone.
pub async fn feed(
    mut input: Input,
    mut requests: impl Requests,
    terminal: Option<Arc<OwnedFd>>,
    mut over: oneshot::Receiver<()>,
) -> Result<(), Status> {
    let mut told = 0;
    loop {
        let taken = input.taken();
        if taken - told >= WORTH_TELLING || (input.idle() && taken > told) {
            told = taken;
            requests.taken(taken).await;
        }
        let message = tokio::select! {
            message = next_message(&mut requests, input.has_room()) => message?,
            () = input.write_some(), if !input.idle() => continue,
            _ = &mut over => return Ok(()),
        };
        let Some(message) = message else { break };
        match message {
            Message::Stdin(bytes) => input.push(bytes),
            Message::StdinEnd(_) => input.finish(),
            Message::Resize(size) => {
                if let Some(terminal) = &terminal {
                    resize(terminal, Some(size));
                }
            }
            Message::Start(_) => {
                return Err(Status::invalid_argument("a session starts only once"));
            }
        }
    }
    input.finish();
    while !input.idle() {
        tokio::select! {
            () = input.write_some() => {}
            _ = &mut over => break,
        }
    }
    // A terminal must stay open for its output.
    Ok(())
}
