//! A log on its way to the host: in frames from the requested offset, freed as the host acknowledges.

use crate::logs::buffer::{LogBuffer, Next, OutOfRange};
use crate::tuning::{COALESCE_BYTES, LOG_COALESCE_DELAY};
use crate::wire::frames::Frames;
use crate::wire::socket::{Socket, send};
use litegix_protocol::guest::{FrameKind, LogStream, LogsAcknowledge, LogsOpen};
use prost::Message as _;
use std::sync::Arc;
use thiserror::Error;
use tokio::time::timeout;

/// The task's output, which outlives every connection.
#[derive(Default)]
pub struct Logs {
    pub stdout: Arc<LogBuffer>,
    pub stderr: Arc<LogBuffer>,
}

/// The reason that the host gets no log, or no more of it.
#[derive(Debug, Error, PartialEq)]
pub enum LogError {
    #[error("no such stream")]
    NoSuchStream,
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    #[error("another reader took over")]
    Replaced,
    #[error("acknowledged before it was sent")]
    Lost,
}

impl Logs {
    /// Begins a reading session, which ends an earlier one of the same stream.
    fn open(&self, open: LogsOpen) -> Result<(&LogBuffer, u64), LogError> {
        let buffer = match open.stream() {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
            LogStream::Unspecified => return Err(LogError::NoSuchStream),
        };
        let session = buffer.open(open.from)?;
        Ok((buffer, session))
    }
}

/// Until the host has gone, or has all that it wants.
pub async fn serve(
    logs: &Logs,
    open: LogsOpen,
    mut frames: Frames,
    socket: &Socket,
) -> Result<(), LogError> {
    let (buffer, session) = logs.open(open)?;
    let acknowledged = async {
        while let Ok(Some((FrameKind::Acknowledge, payload))) = frames.next().await {
            if let Ok(upto) = LogsAcknowledge::decode(payload) {
                buffer.acknowledge(upto.offset);
            }
        }
    };
    tokio::select! {
        () = acknowledged => Ok(()),
        outcome = send_log(buffer, session, open.from, socket) => outcome,
    }
}

async fn send_log(
    buffer: &LogBuffer,
    session: u64,
    mut next: u64,
    socket: &Socket,
) -> Result<(), LogError> {
    loop {
        let (length, end) = match buffer.next(session, next).await {
            Next::Replaced => return Err(LogError::Replaced),
            Next::Lost => return Err(LogError::Lost),
            Next::Bytes { length, end } => (length, end),
        };
        let bytes = buffer.chunk(next, length);
        if length > 0 && send(socket, FrameKind::Data, &bytes).await.is_err() {
            return Ok(());
        }
        next += length as u64;
        if end {
            let _ = send(socket, FrameKind::End, b"").await;
            // The host's last acknowledgement is still to come.
            return std::future::pending().await;
        }
        if length < COALESCE_BYTES {
            let _ = timeout(
                LOG_COALESCE_DELAY,
                buffer.coalesce(session, next, COALESCE_BYTES),
            )
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::bulk::tests::{connected, read, write};
    use crate::logs::pump::pump;
    use litegix_sys::descriptors;
    use std::fs::File;
    use std::io::Write;

    #[tokio::test(flavor = "current_thread")]
    async fn a_log_larger_than_the_buffer_goes_on_as_it_is_acknowledged() {
        let (agent, mut host) = connected();
        let (from, to) = descriptors::pipe().expect("pipe");
        let from = descriptors::watch_for(from, tokio::io::Interest::READABLE).expect("watch");
        let over = tokio::sync::watch::Sender::new(false);
        let all: Vec<u8> = (0..5_000_000_u32).map(|it| (it >> 8) as u8).collect();
        let wanted = all.clone();
        let writer = std::thread::spawn(move || File::from(to).write_all(&all).expect("write"));
        let reader = std::thread::spawn(move || {
            let from = 0;
            let stream = litegix_protocol::guest::LogStream::Stdout.into();
            write(&mut host, FrameKind::Logs, &LogsOpen { stream, from });
            let mut got = Vec::new();
            loop {
                match read(&mut host) {
                    (FrameKind::Data, bytes) => got.extend(bytes),
                    (kind, _) => {
                        assert_eq!(kind, FrameKind::End);
                        return got;
                    }
                }
                let offset = got.len() as u64;
                write(
                    &mut host,
                    FrameKind::Acknowledge,
                    &LogsAcknowledge { offset },
                );
            }
        });
        pump(&agent.logs.stdout, &from, over.subscribe()).await;
        writer.join().expect("writer");
        while !reader.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(reader.join().expect("reader") == wanted);
    }
}
