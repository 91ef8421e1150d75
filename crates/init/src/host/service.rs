//! The contract of `guest.proto`, on top of the agent. Texts of statuses are short: Nomad shows about 120 bytes.

use crate::console;
use crate::exec::channel::{Answer, Host};
use crate::exec::open_sessions;
use crate::exec::session::Session;
use crate::host::generation;
use crate::host::statuses::{status_of, status_of_life};
use crate::logs::stream::Logs;
use crate::machine::clock;
use crate::machine::steps;
use crate::memory::stats;
use crate::task::agent::Agent;
use crate::task::shutdown;
use crate::wire::frames::Frames;
use litegix_protocol::guest::guest_server::Guest;
use litegix_protocol::guest::{
    ClockRequest, ClockResponse, ConfigureRequest, ConfigureResponse, ExecStart, HelloRequest,
    HelloResponse, SetPeersRequest, SetPeersResponse, ShutdownRequest, ShutdownResponse,
    SignalRequest, SignalResponse, StartRequest, StartResponse, StatsRequest, StatsResponse,
    WaitRequest, WaitResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Request, Response, Status};

const MAX_SESSIONS: usize = 256;
/// Time for the answer to a shutdown to leave the machine.
const ANSWER_GRACE: Duration = Duration::from_millis(50);
const HIGHEST_SIGNAL: i32 = 64;

#[derive(Clone)]
pub struct Service {
    agent: Arc<Agent>,
    sessions: Arc<Semaphore>,
}

impl Service {
    pub fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
        }
    }

    pub fn logs(&self) -> &Logs {
        &self.agent.logs
    }

    /// The machine's end is to wait for a session of the host's.
    pub fn session_opened(&self) -> open_sessions::Open {
        self.agent.sessions.open()
    }

    /// Starts a program in the task's world; gives the stream of its session's answers.
    pub async fn exec_session(
        &self,
        start: ExecStart,
        frames: Frames,
    ) -> Result<mpsc::Receiver<Answer>, Status> {
        if start.argv.is_empty() {
            return Err(Status::invalid_argument("argv is empty"));
        }
        if start.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Status::invalid_argument("an argument contains a NUL byte"));
        }
        let not_running = || Status::failed_precondition("task is not running");
        let main = self.agent.running().ok_or_else(not_running)?;
        let mut plan = self.agent.plan(Some(main)).ok_or_else(not_running)?;
        let permit = Arc::clone(&self.sessions)
            .try_acquire_owned()
            .map_err(|_| {
                Status::resource_exhausted(format!("{MAX_SESSIONS} sessions run already"))
            })?;
        plan.argv.clone_from(&start.argv);
        plan.terminal = start.terminal;
        let reaper = Arc::clone(&self.agent.reaper);
        let spawner = Arc::clone(&self.agent.spawner);
        // In a task of its own: a call cancelled while the program starts still has to end the program.
        let starting = tokio::spawn(async move {
            let session = Session::start(&spawner, &plan, main, &start)
                .await
                .map_err(status_of)?;
            Ok::<_, Status>(session.run(reaper, Host::new(frames), permit))
        });
        starting
            .await
            .map_err(|_| Status::internal("the start was interrupted"))?
    }
}

/// As `uname -r` prints it.
fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[tonic::async_trait]
impl Guest for Service {
    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        steps::done("hello");
        let request = request.into_inner();
        let generation = generation::agree(request.generation_min..=request.generation_max)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        if !request.entropy.is_empty() {
            console::warn_on_error(
                "adding entropy",
                litegix_sys::machine::add_entropy(&request.entropy),
            );
        }
        Ok(Response::new(HelloResponse {
            generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel_release(),
            state: self.agent.state().into(),
            uptime_ns: steps::uptime_ns(),
        }))
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        steps::done("configure asked");
        // In a task of its own, as a start is: a half-done configuration would be done twice.
        let agent = Arc::clone(&self.agent);
        tokio::spawn(async move { agent.configure(request.into_inner()).await })
            .await
            .map_err(|_| Status::internal("the configuration was interrupted"))?
            .map_err(status_of_life)?;
        steps::done("configured");
        Ok(Response::new(ConfigureResponse {}))
    }

    async fn start(
        &self,
        _request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        steps::done("start asked");
        // In a task of its own: a host that goes away meanwhile must not leave a start half done.
        let agent = Arc::clone(&self.agent);
        let pid = tokio::spawn(async move { agent.start().await })
            .await
            .map_err(|_| Status::internal("the start was interrupted"))?
            .map_err(status_of_life)?;
        steps::done("task");
        Ok(Response::new(StartResponse {
            pid: pid.unsigned_abs(),
            boot_steps: steps::all(),
        }))
    }

    async fn set_peers(
        &self,
        request: Request<SetPeersRequest>,
    ) -> Result<Response<SetPeersResponse>, Status> {
        self.agent
            .set_peers(&request.into_inner().peers)
            .await
            .map_err(status_of_life)?;
        Ok(Response::new(SetPeersResponse {}))
    }

    async fn wait(&self, _request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let status = self.agent.ended().await;
        Ok(Response::new(WaitResponse { status }))
    }

    async fn signal(
        &self,
        request: Request<SignalRequest>,
    ) -> Result<Response<SignalResponse>, Status> {
        let request = request.into_inner();
        // 0 only asks whether the process is there.
        if !(0..=HIGHEST_SIGNAL).contains(&request.signal) {
            return Err(Status::invalid_argument(format!(
                "{} is not a signal",
                request.signal
            )));
        }
        self.agent
            .signal(request.signal, request.all)
            .map_err(status_of)?;
        Ok(Response::new(SignalResponse {}))
    }

    async fn stats(
        &self,
        _request: Request<StatsRequest>,
    ) -> Result<Response<StatsResponse>, Status> {
        let group = self
            .agent
            .group()
            .ok_or_else(|| Status::failed_precondition("not configured"))?;
        Ok(Response::new(stats::of(&group)))
    }

    async fn clock(
        &self,
        request: Request<ClockRequest>,
    ) -> Result<Response<ClockResponse>, Status> {
        let follows_host = clock::follows_host();
        if !follows_host {
            let task_runs = self.agent.running().is_some();
            clock::adjust(request.into_inner().adjust_ns, task_runs)
                .map_err(|error| Status::internal(format!("adjusting the clock: {error}")))?;
        }
        Ok(Response::new(ClockResponse {
            unix_ns: clock::now_unix_ns(),
            follows_host,
        }))
    }

    async fn shutdown(
        &self,
        _request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        shutdown::end_machine(Arc::clone(&self.agent), ANSWER_GRACE);
        Ok(Response::new(ShutdownResponse {}))
    }
}
