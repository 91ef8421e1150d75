//! The host's input of an exec session, on its way to the program's pipe or terminal.

use crate::exec::channel::{Host, Message};
use crate::tuning::INPUT_ACKNOWLEDGE_BYTES;
use bytes::{Buf, Bytes};
use litegix_protocol::guest::TerminalSize;
use litegix_sys::{descriptors, tty};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// The limit of input on its way to the program; above it init does not read from the host.
const MAX_QUEUED_BYTES: usize = 256 << 10;

/// The input that the program reads.
pub struct Input {
    /// None once closed, by the host's wish or because the program no longer reads.
    descriptor: Option<AsyncFd<File>>,
    terminal: bool,
    queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    queued: usize,
    /// The host's bytes that have left the queue: written to the program, or discarded.
    taken: u64,
    ending: bool,
    /// True if the last byte given to a terminal left its line unfinished.
    within_line: bool,
}

impl Input {
    fn new(descriptor: OwnedFd, terminal: bool) -> io::Result<Self> {
        Ok(Self {
            descriptor: Some(descriptors::watch(descriptor)?),
            terminal,
            queue: VecDeque::new(),
            queued: 0,
            taken: 0,
            ending: false,
            within_line: false,
        })
    }

    pub fn pipe(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, false)
    }

    pub fn terminal(descriptor: OwnedFd) -> io::Result<Self> {
        Self::new(descriptor, true)
    }

    pub fn has_room(&self) -> bool {
        self.queued < MAX_QUEUED_BYTES
    }

    pub fn idle(&self) -> bool {
        self.descriptor.is_none() || (self.queue.is_empty() && !self.ending)
    }

    /// Bytes after the end, or for a program that has closed its input, are discarded.
    pub fn push(&mut self, bytes: Bytes) {
        if self.descriptor.is_some() && !self.ending {
            self.append(bytes);
        } else {
            self.taken += bytes.len() as u64;
        }
    }

    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The queue holds no empty item.
    fn append(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    pub fn finish(&mut self) {
        self.ending = true;
    }

    /// Writes as much as fits. Can be dropped at any await without losing a byte.
    pub async fn write_some(&mut self) {
        let Some(descriptor) = &self.descriptor else {
            return;
        };
        let Some(bytes) = self.queue.front_mut() else {
            self.end();
            return;
        };
        let Ok(mut ready) = descriptor.writable().await else {
            self.descriptor = None;
            return;
        };
        match ready.try_io(|descriptor| descriptor.get_ref().write(bytes)) {
            Ok(Ok(count)) => {
                self.within_line =
                    count > 0 && bytes[count - 1] != b'\n' && bytes[count - 1] != b'\r';
                bytes.advance(count);
                if bytes.is_empty() {
                    self.queue.pop_front();
                }
                self.queued -= count;
                self.taken += count as u64;
            }
            // EPIPE: the program has closed its input, as it may.
            Ok(Err(error)) if error.kind() != io::ErrorKind::Interrupted => {
                self.queue.clear();
                self.taken += self.queued as u64;
                self.queued = 0;
                self.descriptor = None;
            }
            _ => {}
        }
    }

    /// A pipe is closed. A terminal gets its end-of-file character, twice if the first only ends the line.
    fn end(&mut self) {
        if !self.ending {
            return;
        }
        if self.terminal {
            self.ending = false;
            let character = self.descriptor.as_ref().and_then(end_of_file_character);
            if let Some(character) = character {
                let times = if self.within_line { 2 } else { 1 };
                self.append(vec![character; times].into());
            }
            self.within_line = false;
        } else {
            self.descriptor = None;
        }
    }
}

/// The end-of-file character, if the terminal is in canonical mode, which gives it a meaning.
fn end_of_file_character(terminal: &AsyncFd<File>) -> Option<u8> {
    let settings = tcgetattr(terminal.get_ref()).ok()?;
    settings
        .local_flags
        .contains(LocalFlags::ICANON)
        .then_some(settings.control_chars[SpecialCharacterIndices::VEOF as usize])
}

/// Clients without a terminal send 0 x 0, which has no meaning.
pub fn resize(terminal: &OwnedFd, size: Option<TerminalSize>) {
    let Some(size) = size else { return };
    let (Ok(rows), Ok(columns)) = (u16::try_from(size.rows), u16::try_from(size.columns)) else {
        return;
    };
    if rows > 0 && columns > 0 {
        let _ = tty::set_size(terminal, rows, columns);
    }
}

/// Only while there is room: a program that does not read blocks the host's sending.
async fn next_message(host: &mut Host, room: bool) -> io::Result<Message> {
    if room {
        return host.message().await;
    }
    host.gone().await;
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Carries the host's messages to the program until the session is over. An error means that the host is gone.
pub async fn pump(
    mut input: Input,
    mut host: Host,
    terminal: Option<Arc<OwnedFd>>,
    mut over: oneshot::Receiver<()>,
) -> io::Result<()> {
    let mut acknowledged = 0;
    loop {
        let taken = input.taken();
        if taken - acknowledged >= INPUT_ACKNOWLEDGE_BYTES || (input.idle() && taken > acknowledged)
        {
            acknowledged = taken;
            host.acknowledge(taken).await;
        }
        let message = tokio::select! {
            message = next_message(&mut host, input.has_room()) => message?,
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
