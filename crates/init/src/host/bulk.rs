//! Bulk streams (guest.proto, FrameKind): exec sessions and logs as bytes on a bare socket. Each connection is one
//! session or one log, so that a slow reader delays no other.

use crate::console;
use crate::exec::channel::Answer;
use crate::host::service::Service;
use crate::host::statuses::{no_message, status_of_log};
use crate::logs::stream;
use crate::wire::frames::Frames;
use crate::wire::socket::{Socket, send};
use bytes::Bytes;
use litegix_protocol::frame::PORT;
use litegix_protocol::guest::{ExecStart, FrameKind, LogsOpen, Refusal, StdinTaken};
use prost::Message as _;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::Status;

/// If the program has not started after this time, init sends a keep-alive. The host can then tell a guest that gets
/// little CPU on a busy host from one whose agent hangs. A quick start costs no further frame.
const KEEP_ALIVE_DELAY: Duration = Duration::from_millis(500);
/// The pause before listening again after a failure.
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

/// Never ends.
pub async fn serve(service: Service) {
    loop {
        let error = listen(&service).await;
        console::warn(&format!("bulk streams: {error}"));
        sleep(LISTEN_PAUSE).await;
    }
}

async fn listen(service: &Service) -> io::Error {
    let listener = match super::listen(PORT) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => return error,
        };
        if !super::is_host(peer) {
            continue;
        }
        let service = service.clone();
        tokio::spawn(async move {
            match Socket::new(OwnedFd::from(stream)) {
                Ok(socket) => converse(&service, &Arc::new(socket)).await,
                Err(error) => console::warn(&format!("a bulk stream: {error}")),
            }
        });
    }
}

async fn converse(service: &Service, socket: &Arc<Socket>) {
    let mut frames = Frames::new(Arc::clone(socket));
    let mut open = None;
    let outcome = match frames.next().await {
        Ok(Some((FrameKind::Exec, payload))) => {
            open = Some(service.session_opened());
            exec(service, payload, frames, socket).await
        }
        Ok(Some((FrameKind::Logs, payload))) => match LogsOpen::decode(payload) {
            Ok(open) => stream::serve(service.logs(), open, frames, socket)
                .await
                .map_err(status_of_log),
            Err(error) => Err(no_message(error)),
        },
        Ok(Some(_)) => Err(Status::invalid_argument(
            "the first frame must open a session or a log",
        )),
        Ok(None) | Err(_) => return,
    };
    if let Err(status) = outcome {
        let refusal = Refusal {
            code: status.code().into(),
            message: status.message().to_owned(),
        };
        let _ = send(socket, FrameKind::Refused, &refusal.encode_to_vec()).await;
    }
    // A hypervisor drops bytes that are on their way if this side closes first.
    socket.drain().await;
    drop(open);
}

async fn exec(
    service: &Service,
    payload: Bytes,
    frames: Frames,
    socket: &Socket,
) -> Result<(), Status> {
    let start = ExecStart::decode(payload).map_err(no_message)?;
    let mut answers = with_keep_alive(socket, service.exec_session(start, frames)).await?;
    while let Some(answer) = answers.recv().await {
        let sent = match answer {
            Answer::Started(started) => {
                send(socket, FrameKind::Started, &started.encode_to_vec()).await
            }
            Answer::Stdout(bytes) => send(socket, FrameKind::Stdout, &bytes).await,
            Answer::Stderr(bytes) => send(socket, FrameKind::Stderr, &bytes).await,
            Answer::Exited(status) => {
                send(socket, FrameKind::Exited, &status.encode_to_vec()).await
            }
        };
        if sent.is_err() {
            // The session sees that its answers have no taker any more.
            break;
        }
    }
    Ok(())
}

async fn with_keep_alive<T>(socket: &Socket, starting: impl Future<Output = T>) -> T {
    let mut starting = pin!(starting);
    if let Ok(started) = timeout(KEEP_ALIVE_DELAY, &mut starting).await {
        return started;
    }
    let nothing = StdinTaken { bytes: 0 }.encode_to_vec();
    // If the host has gone, sending the rest fails.
    let _ = send(socket, FrameKind::Taken, &nothing).await;
    starting.await
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::task::agent::Agent;
    use litegix_protocol::frame::{self, HEADER_BYTES};
    use std::io::Write;

    /// The other end of a connection with a guest whose agent has not been configured.
    pub fn connected() -> (Arc<Agent>, std::os::unix::net::UnixStream) {
        let agent = Arc::new(Agent::new(Arc::default()));
        let (host, guest) = std::os::unix::net::UnixStream::pair().expect("pair");
        let service = Service::new(Arc::clone(&agent));
        let socket = Arc::new(Socket::new(OwnedFd::from(guest)).expect("socket"));
        tokio::spawn(async move { converse(&service, &socket).await });
        (agent, host)
    }

    pub fn write(host: &mut impl Write, kind: FrameKind, message: &impl prost::Message) {
        let payload = message.encode_to_vec();
        host.write_all(&frame::header(kind, payload.len()))
            .expect("header");
        host.write_all(&payload).expect("payload");
    }

    pub fn read(host: &mut impl io::Read) -> (FrameKind, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        host.read_exact(&mut head).expect("header");
        let (kind, length) = frame::parse(head);
        let mut payload = vec![0; length];
        host.read_exact(&mut payload).expect("payload");
        (kind, payload)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_start_that_takes_long_is_told_of_and_no_other() {
        let (mut host, guest) = std::os::unix::net::UnixStream::pair().expect("pair");
        let socket = Socket::new(OwnedFd::from(guest)).expect("socket");
        with_keep_alive(&socket, std::future::ready(())).await;
        send(&socket, FrameKind::Started, b"").await.expect("send");
        let mut next = host.try_clone().expect("clone");
        assert_eq!(read(&mut next).0, FrameKind::Started);
        // It ends once the host has the message.
        let told = tokio::task::spawn_blocking(move || read(&mut host));
        let told = with_keep_alive(&socket, told).await.expect("told");
        assert_eq!(told, (FrameKind::Taken, vec![]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_machines_end_waits_for_a_session_until_the_host_has_closed_it() {
        let (agent, mut host) = connected();
        write(&mut host, FrameKind::Exec, &ExecStart::default());
        let read = tokio::task::spawn_blocking(move || (read(&mut host), host));
        let (_, host) = read.await.expect("answer");
        assert!(!agent.sessions.wait(Duration::ZERO));
        drop(host);
        let waiting = tokio::task::spawn_blocking(move || {
            let longest = Duration::from_secs(10);
            agent.sessions.wait(longest)
        });
        assert!(waiting.await.expect("waiting"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_can_not_be_opened_is_refused_in_words() {
        for (kind, message, words) in [
            (FrameKind::Exec, vec![], "argv is empty"),
            (
                FrameKind::Exec,
                ExecStart {
                    argv: vec!["x".to_owned()],
                    ..ExecStart::default()
                }
                .encode_to_vec(),
                "task is not running",
            ),
            (FrameKind::Logs, vec![], "no such stream"),
            (FrameKind::Stdin, vec![], "the first frame must open"),
        ] {
            let (_agent, mut host) = connected();
            host.write_all(&frame::header(kind, message.len()))
                .expect("header");
            host.write_all(&message).expect("payload");
            let answer = tokio::task::spawn_blocking(move || read(&mut host)).await;
            let (kind, payload) = answer.expect("answer");
            assert_eq!(kind, FrameKind::Refused);
            let refusal = Refusal::decode(payload.as_slice()).expect("refusal");
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }
}
