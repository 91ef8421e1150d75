//! One exec session: a program in the task's world, its streams, and the rules by which it ends.

use crate::exec::channel::{Answer, Answers, Host};
use crate::exec::input::{self, Input, resize};
use crate::exec::output::Output;
use crate::exec::tree::Tree;
use crate::program::plan::{Failure, Plan};
use crate::program::reaper::{End, Reaper};
use crate::program::spawn::{Spawner, Streams};
use crate::program::terminals;
use litegix_protocol::guest::{ExecStart, ExecStarted, ExitStatus};
use litegix_sys::descriptors;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Max messages on their way to the host; each holds 64 KiB.
const QUEUE: usize = 4;
/// From the hang-up to the kill, if the host goes away.
const HANG_UP_GRACE: Duration = Duration::from_secs(10);

pub struct Session {
    pid: i32,
    end: oneshot::Receiver<End>,
    started_at_unix_ns: i64,
    start_took: Duration,
    input: Input,
    outputs: Vec<Output>,
    /// The size of a terminal follows the host's.
    terminal: Option<Arc<OwnedFd>>,
    /// For the case that the host goes away; none kills at once.
    grace: Option<Duration>,
}

impl Session {
    /// Starts the program; `main` is the task's first process.
    pub async fn start(
        spawner: &Spawner,
        plan: &Plan,
        main: i32,
        start: &ExecStart,
    ) -> Result<Self, Failure> {
        let grace = (!start.kill_at_once).then_some(HANG_UP_GRACE);
        let asked = Instant::now();
        let broken = |error: io::Error| Failure::internal("making the session's streams", &error);
        if plan.terminal {
            let root = format!("/proc/{main}/root");
            let terminal = terminals::open(root.as_ref()).map_err(broken)?;
            resize(&terminal.master, start.size);
            let slave = terminal.slave;
            let streams = Streams {
                stdin: slave.try_clone().map_err(broken)?,
                stdout: slave.try_clone().map_err(broken)?,
                stderr: slave,
            };
            let started = spawner.start(plan, streams).await?;
            let master = Arc::new(terminal.master);
            let copy = master.try_clone().map_err(broken)?;
            Ok(Self {
                pid: started.pid,
                end: started.end,
                started_at_unix_ns: crate::machine::clock::now_unix_ns(),
                start_took: asked.elapsed(),
                input: Input::terminal(copy).map_err(broken)?,
                outputs: vec![
                    Output::terminal(master.try_clone().map_err(broken)?).map_err(broken)?,
                ],
                terminal: Some(master),
                grace,
            })
        } else {
            let (stdin, to_stdin) = descriptors::large_pipe().map_err(broken)?;
            let (from_stdout, stdout) = descriptors::large_pipe().map_err(broken)?;
            let (from_stderr, stderr) = descriptors::pipe().map_err(broken)?;
            let streams = Streams {
                stdin,
                stdout,
                stderr,
            };
            let started = spawner.start(plan, streams).await?;
            Ok(Self {
                pid: started.pid,
                end: started.end,
                started_at_unix_ns: crate::machine::clock::now_unix_ns(),
                start_took: asked.elapsed(),
                input: Input::pipe(to_stdin).map_err(broken)?,
                outputs: vec![
                    Output::pipe(from_stdout, Answer::Stdout).map_err(broken)?,
                    Output::pipe(from_stderr, Answer::Stderr).map_err(broken)?,
                ],
                terminal: None,
                grace,
            })
        }
    }

    /// Runs the session to its end in tasks of its own; returns the stream of answers.
    pub fn run(
        self,
        reaper: Arc<Reaper>,
        host: Host,
        permit: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<Answer> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            self.drive(&reaper, host, answers).await;
            drop(permit);
        });
        receiver
    }

    async fn drive(self, reaper: &Reaper, host: Host, answers: Answers) {
        let Self {
            pid,
            end,
            started_at_unix_ns,
            start_took,
            input,
            outputs,
            terminal,
            grace,
        } = self;
        let started = ExecStarted {
            pid: pid.unsigned_abs(),
            start_us: u32::try_from(start_took.as_micros()).unwrap_or(u32::MAX),
        };
        let _ = answers.send(Answer::Started(started)).await;
        // Notifies the outputs that the program has ended.
        let (ended, has_ended) = watch::channel(false);
        let pumps: Vec<_> = outputs
            .into_iter()
            .map(|output| tokio::spawn(output.pump(answers.clone(), has_ended.clone())))
            .collect();
        let (over, is_over) = oneshot::channel();
        let from_host = tokio::spawn(input::pump(input, host, terminal, is_over));
        let finish = async {
            let end = end.await.ok();
            let finished_at_unix_ns = crate::machine::clock::now_unix_ns();
            let _ = ended.send(true);
            for pump in pumps {
                let _ = pump.await;
            }
            let end = end.unwrap_or(End {
                exit_code: 255,
                signal: 0,
            });
            let status = ExitStatus {
                exit_code: end.exit_code,
                signal: end.signal,
                oom_killed: false,
                oom_kills: 0,
                started_at_unix_ns,
                finished_at_unix_ns,
            };
            let _ = answers.send(Answer::Exited(status)).await;
        };
        tokio::pin!(finish);
        tokio::select! {
            () = &mut finish => {}
            () = host_gone(from_host, &answers) => {
                Tree::of(pid, reaper).end(grace).await;
                finish.await;
            }
        }
        // A message, not an abort: the task may be within a frame, which the end must not follow.
        drop(over);
    }
}

/// The host hung up: its connection ended, or it sent nonsense.
async fn host_gone(from_host: JoinHandle<io::Result<()>>, answers: &Answers) {
    let broken = async {
        match from_host.await {
            Ok(Err(_)) => {}
            _ => pending().await,
        }
    };
    tokio::select! {
        () = broken => {}
        () = answers.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frames::Frames;
    use crate::wire::socket::Socket;
    use litegix_protocol::frame::header;
    use litegix_protocol::guest::{FrameKind, StdinTaken};
    use prost::Message as _;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use tokio::sync::Semaphore;

    /// Fills the way to the peer; returns the number of bytes that took.
    fn fill(mut socket: &UnixStream) -> usize {
        socket.set_nonblocking(true).expect("mode");
        let mut count = 0;
        while let Ok(more) = socket.write(&[0; 4096]) {
            count += more;
        }
        count
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_frame_that_has_begun_is_sent_whole_though_the_session_ends() {
        let (mut host, guest) = UnixStream::pair().expect("pair");
        let filled = fill(&guest);
        let frames = Frames::new(Arc::new(Socket::new(guest.into()).expect("socket")));
        let (stdin, to_stdin) = descriptors::pipe().expect("pipe");
        let (ended, end) = oneshot::channel();
        let session = Session {
            pid: i32::MAX,
            end,
            started_at_unix_ns: 0,
            start_took: Duration::ZERO,
            input: Input::pipe(to_stdin).expect("input"),
            outputs: Vec::new(),
            terminal: None,
            grace: None,
        };
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().expect("permit");
        host.write_all(&header(FrameKind::Stdin, 100))
            .expect("header");
        host.write_all(&[0; 100]).expect("input");
        let mut answers = session.run(Arc::default(), Host::new(frames), permit);
        // Once the program has its input, the session reports that to the host, which does not read.
        while descriptors::bytes_waiting(&stdin).expect("pipe") < 100 {
            tokio::task::yield_now().await;
        }
        let end = End {
            exit_code: 0,
            signal: 0,
        };
        ended.send(end).expect("a session");
        while answers.recv().await.is_some() {}
        let _over = permits.acquire().await.expect("the session's end");
        let taken = StdinTaken { bytes: 100 }.encode_to_vec();
        let frame = [&header(FrameKind::Taken, taken.len())[..], &taken].concat();
        let whole = filled + frame.len();
        let reader = tokio::task::spawn_blocking(move || {
            let mut got = vec![0; whole];
            host.read_exact(&mut got).map(|()| got)
        });
        let got = tokio::time::timeout(Duration::from_secs(10), reader).await;
        let got = got
            .expect("in time")
            .expect("reader")
            .expect("the whole frame");
        assert_eq!(got[filled..], frame);
    }
}
