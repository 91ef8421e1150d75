//! Bulk streams (guest.proto, FrameKind): exec sessions and logs with nothing between the bytes and the socket. Each
//! connection is one session or one log, so that one slow reader holds up nobody.

use crate::buffer::{LogBuffer, Piece};
use crate::exec::Requests;
use crate::log;
use crate::service::Service;
use crate::sys::files;
use bytes::Bytes;
use litegix_protocol::frame::{self, HEADER_BYTES, LARGEST_OPENING, LARGEST_PAYLOAD, PORT};
use litegix_protocol::guest::exec_request::Request as Message;
use litegix_protocol::guest::exec_response::Response as Answer;
use litegix_protocol::guest::{
    ExecStart, ExecStdinEnd, FrameKind, LogsAcknowledge, LogsOpen, Refusal, StdinTaken,
    TerminalSize,
};
use prost::Message as _;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};
use tonic::{Code, Status};

const LARGEST_FRAME: usize = HEADER_BYTES + LARGEST_PAYLOAD;
/// After a piece of less than this, more is gathered for so long: a task that writes line by line would cost a frame each.
const SMALL_PIECE: usize = 16 << 10;
const LOG_LINGER: Duration = Duration::from_millis(5);
/// Between two looks at a connection that can't be read because the program does not take its input.
const HANG_UP_CHECK: Duration = Duration::from_millis(500);
/// Before listening again when that failed.
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

/// Never ends.
pub async fn serve(service: Service) {
    loop {
        let error = listen(&service).await;
        log::warn(&format!("bulk streams: {error}"));
        sleep(LISTEN_PAUSE).await;
    }
}

async fn listen(service: &Service) -> io::Error {
    let listener = match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, PORT)) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => return error,
        };
        // A task may have a socket of this kind too. What it says to its own machine's init is not for it to say.
        if peer.cid() != VMADDR_CID_HOST {
            continue;
        }
        let service = service.clone();
        tokio::spawn(async move {
            match files::watch(OwnedFd::from(stream)) {
                Ok(socket) => converse(&service, &Arc::new(Socket::new(socket))).await,
                Err(error) => log::warn(&format!("a bulk stream: {error}")),
            }
        });
    }
}

async fn converse(service: &Service, socket: &Arc<Socket>) {
    let mut frames = Frames::new(Arc::clone(socket));
    let outcome = match frames.next().await {
        Ok(Some((FrameKind::Exec, payload))) => exec(service, payload, frames, socket).await,
        Ok(Some((FrameKind::Logs, payload))) => logs(service, payload, frames, socket).await,
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
    // What is on its way would be lost if this side closed first.
    let mut rest = Vec::with_capacity(4096);
    while matches!(receive(&socket.fd, &mut rest).await, Ok(length) if length > 0) {
        rest.clear();
    }
}

async fn exec(
    service: &Service,
    payload: Bytes,
    frames: Frames,
    socket: &Socket,
) -> Result<(), Status> {
    let start = ExecStart::decode(payload).map_err(no_message)?;
    let mut answers = service.exec_session(start, frames).await?;
    while let Some(answer) = answers.recv().await {
        let sent = match answer?.response {
            Some(Answer::Started(started)) => {
                send(socket, FrameKind::Started, &started.encode_to_vec()).await
            }
            Some(Answer::Stdout(bytes)) => send(socket, FrameKind::Stdout, &bytes).await,
            Some(Answer::Stderr(bytes)) => send(socket, FrameKind::Stderr, &bytes).await,
            Some(Answer::Exited(status)) => {
                send(socket, FrameKind::Exited, &status.encode_to_vec()).await
            }
            None => Ok(()),
        };
        if sent.is_err() {
            // The session sees that nobody takes its answers any more.
            break;
        }
    }
    Ok(())
}

async fn logs(
    service: &Service,
    payload: Bytes,
    mut frames: Frames,
    socket: &Socket,
) -> Result<(), Status> {
    let open = LogsOpen::decode(payload).map_err(no_message)?;
    let (buffer, session) = service.open_log(open)?;
    let acknowledged = async {
        while let Ok(Some((FrameKind::Acknowledge, payload))) = frames.next().await {
            if let Ok(upto) = LogsAcknowledge::decode(payload) {
                buffer.acknowledge(upto.offset);
            }
        }
    };
    tokio::select! {
        // The host has gone, or has all that it wants.
        () = acknowledged => Ok(()),
        outcome = send_log(&buffer, session, open.from, socket) => outcome,
    }
}

async fn send_log(
    buffer: &LogBuffer,
    session: u64,
    mut next: u64,
    socket: &Socket,
) -> Result<(), Status> {
    loop {
        let (offset, bytes, end) = match buffer.next(session, next).await {
            Piece::Replaced => return Err(Status::aborted("another reader took over")),
            Piece::Data { offset, bytes, end } => (offset, bytes, end),
        };
        if offset != next {
            return Err(Status::data_loss("acknowledged before it was sent"));
        }
        next += bytes.len() as u64;
        if !bytes.is_empty() && send(socket, FrameKind::Data, &bytes).await.is_err() {
            return Ok(());
        }
        if end {
            let _ = send(socket, FrameKind::End, &[]).await;
            // The host's last acknowledgement is still to come.
            return std::future::pending().await;
        }
        if bytes.len() < SMALL_PIECE {
            sleep(LOG_LINGER).await;
        }
    }
}

fn no_message(error: prost::DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

struct Socket {
    fd: AsyncFd<File>,
    /// Whoever holds it writes a whole frame.
    turn: Mutex<()>,
}

impl Socket {
    fn new(fd: AsyncFd<File>) -> Self {
        Self {
            fd,
            turn: Mutex::default(),
        }
    }
}

/// The payload is at most `LARGEST_PAYLOAD`. Must not be dropped before its end, but with the connection.
async fn send(socket: &Socket, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
    let _turn = socket.turn.lock().await;
    let head = frame::header(kind, payload.len());
    let mut sent = 0;
    while sent < HEADER_BYTES + payload.len() {
        let slices = [
            IoSlice::new(&head[sent.min(HEADER_BYTES)..]),
            IoSlice::new(&payload[sent.saturating_sub(HEADER_BYTES)..]),
        ];
        let mut ready = socket.fd.writable().await?;
        match ready.try_io(|socket| socket.get_ref().write_vectored(&slices)) {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Ok(count)) => sent += count,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Appends what is there, at most as much as the buffer has room for; 0 is the connection's end.
async fn receive(socket: &AsyncFd<File>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| files::read_more(socket.get_ref(), buffer)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_) => {}
        }
    }
}

/// The host's frames.
pub struct Frames {
    socket: Arc<Socket>,
    buffer: Buffer,
}

impl Frames {
    fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            buffer: Buffer::default(),
        }
    }

    /// None at the connection's end. Can be dropped at any await without losing a byte.
    async fn next(&mut self) -> io::Result<Option<(FrameKind, Bytes)>> {
        loop {
            if let Some(frame) = self.buffer.take()? {
                return Ok(Some(frame));
            }
            if receive(&self.socket.fd, &mut self.buffer.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Requests for Frames {
    async fn message(&mut self) -> Result<Option<Message>, Status> {
        let gone = || Status::cancelled("the host has gone");
        let frame = self.next().await.map_err(|_| gone())?.ok_or_else(gone)?;
        match frame {
            (FrameKind::Stdin, bytes) => Ok(Some(Message::Stdin(bytes))),
            (FrameKind::StdinEnd, _) => Ok(Some(Message::StdinEnd(ExecStdinEnd {}))),
            (FrameKind::Resize, payload) => TerminalSize::decode(payload)
                .map(|size| Some(Message::Resize(size)))
                .map_err(no_message),
            _ => Err(Status::new(Code::InvalidArgument, "no frame of a session")),
        }
    }

    async fn taken(&self, bytes: u64) {
        // A connection that has ended shows when it is read.
        let _ = send(
            &self.socket,
            FrameKind::Taken,
            &StdinTaken { bytes }.encode_to_vec(),
        )
        .await;
    }

    async fn gone(&self) {
        while !files::hung_up(self.socket.fd.get_ref()) {
            sleep(HANG_UP_CHECK).await;
        }
    }
}

/// Bytes on their way from the socket to frames.
struct Buffer {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    largest: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            bytes: Vec::with_capacity(HEADER_BYTES + 4096),
            start: 0,
            largest: LARGEST_OPENING,
        }
    }
}

impl Buffer {
    /// The next frame, if it is here whole; otherwise there is room to read the rest of it into.
    fn take(&mut self) -> io::Result<Option<(FrameKind, Bytes)>> {
        let here = &self.bytes[self.start..];
        let Some(head) = here.first_chunk() else {
            self.make_room(HEADER_BYTES);
            return Ok(None);
        };
        let (kind, length) = frame::parse(*head);
        if length > self.largest {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let whole = HEADER_BYTES + length;
        if here.len() < whole {
            self.make_room(whole);
            return Ok(None);
        }
        self.largest = LARGEST_PAYLOAD;
        let payload = if self.start == 0 && here.len() == whole && whole > LARGEST_FRAME / 2 {
            // Bulk data: the buffer itself goes on.
            let bytes = std::mem::take(&mut self.bytes);
            return Ok(Some((kind, Bytes::from(bytes).slice(HEADER_BYTES..))));
        } else {
            Bytes::copy_from_slice(&here[HEADER_BYTES..whole])
        };
        self.start += whole;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        Ok(Some((kind, payload)))
    }

    /// For a frame of that size, at the buffer's beginning. Bulk data comes frame after frame of the largest size: with room
    /// for exactly one each read ends where the frame does.
    fn make_room(&mut self, whole: usize) {
        self.bytes.drain(..self.start);
        self.start = 0;
        let wanted = whole.max(LARGEST_FRAME);
        self.bytes
            .reserve_exact(wanted.saturating_sub(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Agent;
    use proptest::prelude::*;

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_there_is_room_for_it() {
        let mut buffer = Buffer::default();
        buffer.bytes.extend(frame::header(FrameKind::Exec, 1));
        buffer.bytes.push(b'x');
        assert!(buffer.take().expect("first").is_some());
        buffer.bytes.extend([FrameKind::Stdin as u8, 1, 0, 0]);
        assert!(buffer.take().is_err());
        assert!(buffer.bytes.capacity() <= 2 * LARGEST_FRAME);
    }

    /// The other end of a connection with a guest whose agent has not been configured.
    fn connected() -> (Arc<Agent>, std::os::unix::net::UnixStream) {
        let agent = Arc::new(Agent::new(Arc::default()));
        let (host, guest) = std::os::unix::net::UnixStream::pair().expect("pair");
        let service = Service::new(Arc::clone(&agent));
        let socket = files::watch(OwnedFd::from(guest)).expect("watch");
        let socket = Arc::new(Socket::new(socket));
        tokio::spawn(async move { converse(&service, &socket).await });
        (agent, host)
    }

    fn write(host: &mut impl Write, kind: FrameKind, message: &impl prost::Message) {
        let payload = message.encode_to_vec();
        host.write_all(&frame::header(kind, payload.len()))
            .expect("header");
        host.write_all(&payload).expect("payload");
    }

    fn read(host: &mut impl io::Read) -> (FrameKind, Vec<u8>) {
        let mut head = [0; HEADER_BYTES];
        host.read_exact(&mut head).expect("header");
        let (kind, length) = frame::parse(head);
        let mut payload = vec![0; length];
        host.read_exact(&mut payload).expect("payload");
        (kind, payload)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_log_larger_than_the_buffer_goes_on_as_it_is_acknowledged() {
        let (agent, mut host) = connected();
        let (from, to) = files::pipe().expect("pipe");
        files::set_nonblocking(&from).expect("nonblocking");
        let from = tokio::net::unix::pipe::Receiver::from_owned_fd(from).expect("receiver");
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
        agent.logs.stdout.fill(&from).await;
        writer.join().expect("writer");
        while !reader.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(reader.join().expect("reader") == wanted);
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the cuts: the same frames in the same order.
        #[test]
        fn frames_are_found_again(
            sizes in prop::collection::vec(prop_oneof![0..40_usize, 30_000..LARGEST_PAYLOAD + 1], 1..8),
            cuts in prop::collection::vec(1..100_000_usize, 1..8),
        ) {
            let payload = |index: usize, size: usize| vec![index as u8; size];
            let mut wire = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                wire.extend(frame::header(FrameKind::Stdin, *size));
                wire.extend(payload(index, *size));
            }
            let mut buffer = Buffer::default();
            let mut got = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            let mut rest = wire.as_slice();
            loop {
                if let Some((kind, bytes)) = buffer.take().expect("frame") {
                    prop_assert_eq!(kind, FrameKind::Stdin);
                    got.push(bytes.to_vec());
                    continue;
                }
                let room = buffer.bytes.capacity() - buffer.bytes.len();
                prop_assert!(room > 0);
                if rest.is_empty() {
                    break;
                }
                let cut = cuts.next().unwrap_or(1).min(room).min(rest.len());
                buffer.bytes.extend_from_slice(&rest[..cut]);
                rest = &rest[cut..];
            }
            let all: Vec<_> = sizes.iter().enumerate().map(|(index, size)| payload(index, *size)).collect();
            prop_assert_eq!(got, all);
        }

        #[test]
        fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut buffer = Buffer::default();
            buffer.bytes.extend(bytes);
            while let Ok(Some(_)) = buffer.take() {}
            prop_assert!(buffer.bytes.capacity() <= LARGEST_OPENING + 2 * LARGEST_FRAME);
        }
    }
}
