//! One exec session: a program in the task's world, its streams, and the rules by which it ends.

use crate::feed::{feed, resize};
use crate::hang_up::{end_tree, host_gone};
use crate::input::Input;
use crate::output::Output;
use crate::plan::{Failure, Plan};
use crate::reaper::{End, Reaper};
use crate::spawn::{Spawner, Streams};
use crate::sys::files;
use crate::terminals;
use litegix_protocol::guest::exec_request::Request as Message;
use litegix_protocol::guest::exec_response::Response as Answer;
use litegix_protocol::guest::{ExecRequest, ExecResponse, ExecStart, ExecStarted, ExitStatus};
use std::future::{Future, pending};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Messages on their way to the host at most; each holds 64 KiB.
const QUEUE: usize = 4;
/// From the hang-up to the kill, when the host goes away.
const HANG_UP_GRACE: Duration = Duration::from_secs(10);

pub type Answers = mpsc::Sender<Result<ExecResponse, Status>>;

/// Where the host's messages come from. An error means that the host is gone.
pub trait Requests: Send + 'static {
    /// None: there will be no more, and the answers go on. Can be dropped at any await without losing a message.
    fn message(&mut self) -> impl Future<Output = Result<Option<Message>, Status>> + Send;

    /// Tells the host how much of the standard input has been taken, where it wants to know.
    fn taken(&self, bytes: u64) -> impl Future<Output = ()> + Send;

    /// Resolves when the host is gone though nobody asks for messages; never, where the answers show that.
    fn gone(&self) -> impl Future<Output = ()> + Send;
}

impl Requests for Streaming<ExecRequest> {
    async fn message(&mut self) -> Result<Option<Message>, Status> {
        match Streaming::message(self).await? {
            Some(ExecRequest { request: None }) => {
                Err(Status::invalid_argument("an empty message"))
            }
            Some(ExecRequest { request }) => Ok(request),
            None => Ok(None),
        }
    }

    /// HTTP/2 has windows of its own.
    async fn taken(&self, _bytes: u64) {}

    async fn gone(&self) {
        pending().await
    }
}

pub struct Session {
    pid: i32,
    end: oneshot::Receiver<End>,
    started_at_unix_ns: i64,
    start_took: Duration,
    input: Input,
    outputs: Vec<Output>,
    /// The size of a terminal follows the host's.
    terminal: Option<Arc<OwnedFd>>,
    /// When the host goes away: none kills at once.
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
                started_at_unix_ns: crate::clock::now_unix_ns(),
                start_took: asked.elapsed(),
                input: Input::terminal(copy).map_err(broken)?,
                outputs: vec![
                    Output::terminal(master.try_clone().map_err(broken)?).map_err(broken)?,
                ],
                terminal: Some(master),
                grace,
            })
        } else {
            let (stdin, to_stdin) = files::large_pipe().map_err(broken)?;
            let (from_stdout, stdout) = files::large_pipe().map_err(broken)?;
            let (from_stderr, stderr) = files::pipe().map_err(broken)?;
            let streams = Streams {
                stdin,
                stdout,
                stderr,
            };
            let started = spawner.start(plan, streams).await?;
            Ok(Self {
                pid: started.pid,
                end: started.end,
                started_at_unix_ns: crate::clock::now_unix_ns(),
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

    /// Runs the session to its end in tasks of its own; gives the stream of answers.
    pub fn run(
        self,
        reaper: Arc<Reaper>,
        requests: impl Requests,
        permit: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<Result<ExecResponse, Status>> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            self.drive(&reaper, requests, answers).await;
            drop(permit);
        });
        receiver
    }

    async fn drive(self, reaper: &Reaper, requests: impl Requests, answers: Answers) {
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
        let _ = answers.send(Ok(answer(Answer::Started(started)))).await;
        // Tells the outputs that the program has ended.
        let (ended, has_ended) = watch::channel(false);
        let pumps: Vec<_> = outputs
            .into_iter()
            .map(|output| tokio::spawn(output.pump(answers.clone(), has_ended.clone())))
            .collect();
        let (over, is_over) = oneshot::channel();
        let feeder = tokio::spawn(feed(input, requests, terminal, is_over));
        let finish = async {
            let end = end.await.ok();
            let finished_at_unix_ns = crate::clock::now_unix_ns();
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
            let _ = answers.send(Ok(answer(Answer::Exited(status)))).await;
        };
        tokio::pin!(finish);
        tokio::select! {
            () = &mut finish => {}
            () = host_gone(feeder, &answers) => {
                end_tree(reaper, pid, grace).await;
                finish.await;
            }
        }
        // Told, not aborted: it may be within a frame, which the end must not follow.
        drop(over);
    }
}

fn answer(response: Answer) -> ExecResponse {
    ExecResponse {
        response: Some(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::sync::{Notify, Semaphore};

    /// A host that sends some input, and does not read what it is told of it before its turn.
    struct SlowReader {
        input: Mutex<Option<Message>>,
        asked: Arc<Notify>,
        turn: Arc<Notify>,
        told: Arc<Notify>,
    }

    impl Requests for SlowReader {
        async fn message(&mut self) -> Result<Option<Message>, Status> {
            let input = self.input.lock().expect("lock").take();
            match input {
                Some(input) => Ok(Some(input)),
                None => pending().await,
            }
        }

        async fn taken(&self, _bytes: u64) {
            self.asked.notify_one();
            self.turn.notified().await;
            self.told.notify_one();
        }

        async fn gone(&self) {
            pending().await
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_frame_that_has_begun_is_sent_whole_though_the_session_ends() {
        let [asked, turn, told] = [(); 3].map(|()| Arc::new(Notify::new()));
        let requests = SlowReader {
            input: Mutex::new(Some(Message::Stdin(vec![0; 100].into()))),
            asked: Arc::clone(&asked),
            turn: Arc::clone(&turn),
            told: Arc::clone(&told),
        };
        let (_stdin, to_stdin) = files::pipe().expect("pipe");
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
        let mut answers = session.run(Arc::default(), requests, permit);
        asked.notified().await;
        let end = End {
            exit_code: 0,
            signal: 0,
        };
        ended.send(end).expect("a session");
        while answers.recv().await.is_some() {}
        let _over = permits.acquire().await.expect("the session's end");
        turn.notify_one();
        let told = tokio::time::timeout(Duration::from_secs(10), told.notified()).await;
        told.expect("the whole frame");
    }
}
