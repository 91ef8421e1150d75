//! The output of an exec session's program, in messages for the host, and its end.

use crate::exec::channel::{Answer, Answers};
use crate::tuning::{COALESCE_BYTES, EXEC_COALESCE_DELAY};
use bytes::Bytes;
use litegix_protocol::frame::MAX_PAYLOAD as MAX_CHUNK;
use litegix_sys::descriptors;
use nix::sched::sched_yield;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// After the program's end another process may hold the pipe. Silence for QUIET, or MAX_TAIL in all, then counts as the
/// end.
const QUIET: Duration = Duration::from_millis(200);
const MAX_TAIL: Duration = Duration::from_secs(2);
/// The kernel's own threads flush a terminal's buffer, which may take a moment.
const TERMINAL_QUIET: Duration = Duration::from_millis(20);
/// More than a terminal holds. Unlike a pipe it does not report how much that is.
const TERMINAL_BUFFER: usize = 128 << 10;

/// The output that the program writes.
pub struct Output {
    descriptor: AsyncFd<File>,
    terminal: bool,
    wrap: fn(Bytes) -> Answer,
}

impl Output {
    pub fn pipe(descriptor: OwnedFd, wrap: fn(Bytes) -> Answer) -> io::Result<Self> {
        Ok(Self {
            descriptor: descriptors::watch(descriptor)?,
            terminal: false,
            wrap,
        })
    }

    pub fn terminal(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            descriptor: descriptors::watch(descriptor)?,
            terminal: true,
            wrap: Answer::Stdout,
        })
    }

    /// Sends everything until the end of the stream, or until no more output can belong to this session.
    pub async fn pump(self, answers: Answers, mut ended: watch::Receiver<bool>) {
        let mut last = Instant::now() - EXEC_COALESCE_DELAY;
        let mut bulk = false;
        loop {
            let mut chunk = Vec::with_capacity(MAX_CHUNK);
            tokio::select! {
                biased;
                // First, since a process that the program left behind may write without a pause. If the sender goes
                // away, that means the same as its message.
                _ = ended.changed() => break,
                read = descriptors::receive(&self.descriptor, &mut chunk) => match read {
                    Ok(length) if length > 0 => {
                        if length < COALESCE_BYTES {
                            // The program may be in the middle of its write.
                            let _ = sched_yield();
                            self.read_waiting(&mut chunk);
                        }
                        if chunk.len() < COALESCE_BYTES && !bulk {
                            // At once after a pause, for people who type; later in a burst.
                            sleep_until(last + EXEC_COALESCE_DELAY).await;
                            self.read_waiting(&mut chunk);
                        }
                        bulk = chunk.len() >= COALESCE_BYTES;
                        if !self.send(&answers, chunk).await {
                            return;
                        }
                        last = Instant::now();
                    }
                    // A terminal says EIO when its last user has gone.
                    _ => return,
                },
            }
        }
        self.drain(&answers).await;
    }

    /// After the program's end: all bytes that are there now, however long the host takes for them, and bytes that
    /// follow without a pause. Only bytes still to come have a time limit.
    async fn drain(&self, answers: &Answers) {
        let (mut owed, quiet) = if self.terminal {
            (TERMINAL_BUFFER, TERMINAL_QUIET)
        } else {
            let waiting = descriptors::bytes_waiting(self.descriptor.get_ref()).unwrap_or(0);
            (waiting, QUIET)
        };
        let deadline = Instant::now() + MAX_TAIL;
        let mut waited = Duration::ZERO;
        while waited < MAX_TAIL && (owed > 0 || Instant::now() < deadline) {
            let mut chunk = Vec::with_capacity(MAX_CHUNK);
            let asked = Instant::now();
            let read = timeout(quiet, descriptors::receive(&self.descriptor, &mut chunk)).await;
            waited += asked.elapsed();
            match read {
                Ok(Ok(length)) if length > 0 => {
                    self.read_waiting(&mut chunk);
                    owed = owed.saturating_sub(chunk.len());
                    if !self.send(answers, chunk).await {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Reads without waiting, as much as fits. An end or error shows again at the next read.
    fn read_waiting(&self, chunk: &mut Vec<u8>) {
        while matches!(descriptors::read_more(self.descriptor.get_ref(), chunk), Ok(length) if length > 0)
        {
        }
    }

    async fn send(&self, answers: &Answers, bytes: Vec<u8>) -> bool {
        answers.send((self.wrap)(bytes.into())).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_sys::tty;
    use std::io::Write;
    use std::thread;
    use tokio::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Runs an output whose program has ended; returns the bytes of its messages. `writer` runs as a process that the
    /// program left behind.
    async fn tail(output: Output, writer: impl FnOnce() + Send + 'static) -> usize {
        let (answers, mut receiver) = mpsc::channel(4);
        let (ended, has_ended) = watch::channel(false);
        let writer = thread::spawn(writer);
        let pump = tokio::spawn(output.pump(answers, has_ended));
        let mut count = 0;
        let receive = async {
            while let Some(message) = receiver.recv().await {
                if let Answer::Stdout(bytes) = message {
                    count += bytes.len();
                }
                // It runs until it has written something.
                ended.send_replace(true);
            }
        };
        timeout(PATIENCE, receive).await.expect("an end");
        pump.await.expect("pump");
        writer.join().expect("writer");
        count
    }

    fn pipe() -> (Output, File) {
        let (from, to) = descriptors::large_pipe().expect("pipe");
        let output = Output::pipe(from, Answer::Stdout).expect("output");
        (output, File::from(to))
    }

    /// Until no process reads any more.
    fn write_on(mut to: File, bytes: &[u8], pause: Duration) {
        while to.write_all(bytes).is_ok() {
            thread::sleep(pause);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_left_behind_and_dribbles_does_not_hold_the_session() {
        let (output, to) = pipe();
        tail(output, || write_on(to, &[0; 30], Duration::from_millis(50))).await;
        let terminal = tty::open("/dev/pts/ptmx".as_ref()).expect("terminal");
        let output = Output::terminal(terminal.master).expect("output");
        let to = File::from(terminal.slave);
        tail(output, || write_on(to, &[0; 30], Duration::from_millis(5))).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_left_behind_and_floods_does_not_hold_the_session() {
        let (output, to) = pipe();
        tail(output, || write_on(to, &[0; 65_536], Duration::ZERO)).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_written_before_the_end_comes_whole_though_the_host_is_slow() {
        let (output, mut to) = pipe();
        to.write_all(&[0; 256 << 10]).expect("write");
        let (answers, mut receiver) = mpsc::channel(1);
        let (ended, has_ended) = watch::channel(false);
        ended.send_replace(true);
        let pump = tokio::spawn(output.pump(answers, has_ended));
        let mut count = 0;
        while let Some(message) = receiver.recv().await {
            tokio::time::sleep(MAX_TAIL / 3).await;
            if let Answer::Stdout(bytes) = message {
                count += bytes.len();
            }
        }
        pump.await.expect("pump");
        assert_eq!(count, 256 << 10);
        drop(to);
    }
}
