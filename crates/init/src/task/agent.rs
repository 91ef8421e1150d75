//! The task's life in init: booted, configured, running, exited. The state has one place, so that any connection finds
//! the same.

use crate::console;
use crate::exec::open_sessions::Sessions;
use crate::logs::pump::pump;
use crate::logs::stream::Logs;
use crate::machine::clock;
use crate::machine::layers;
use crate::memory::cgroup::TaskGroup;
use crate::memory::thrash;
use crate::program::plan::{Failure, FailureKind, Limit, Plan, Setup};
use crate::program::reaper::{End, Reaper};
use crate::program::spawn::{Spawner, Started};
use crate::program::world;
use crate::task::configure;
use crate::task::error::LifeError;
use crate::task::peers;
use crate::task::stdio::{self, MainStreams};
use litegix_protocol::guest::{ConfigureRequest, ExitStatus, Peer, ResourceLimit, State, Sysctl};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

pub struct Agent {
    pub reaper: Arc<Reaper>,
    pub spawner: Arc<Spawner>,
    pub logs: Arc<Logs>,
    pub sessions: Arc<Sessions>,
    life: Mutex<Life>,
    /// Held while configuring or starting, so that two such calls never run at once.
    changing: tokio::sync::Mutex<()>,
    exit: watch::Sender<Option<ExitStatus>>,
}

#[derive(Default)]
struct Life {
    configured: Option<(ConfigureRequest, TaskGroup)>,
    /// The task's /etc/hosts, once configured.
    hosts: Option<Arc<File>>,
    main: Option<Main>,
    /// True once a caller has asked for the task's death by SIGKILL.
    kill_sent: bool,
}

#[derive(Clone, Copy)]
struct Main {
    pid: i32,
    running: bool,
}

impl Agent {
    pub fn new(reaper: Arc<Reaper>) -> Self {
        Self {
            spawner: Arc::new(Spawner::new(Arc::clone(&reaper))),
            reaper,
            logs: Arc::default(),
            sessions: Arc::default(),
            life: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            exit: watch::Sender::new(None),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        let life = self.life();
        match (&life.configured, &life.main) {
            (_, Some(main)) if main.running => State::Running,
            (_, Some(_)) => State::Exited,
            (Some(_), None) => State::Configured,
            (None, None) => State::Booted,
        }
    }

    pub fn group(&self) -> Option<TaskGroup> {
        self.life()
            .configured
            .as_ref()
            .map(|(_, group)| group.clone())
    }

    /// The task's main process, while it runs.
    pub fn running(&self) -> Option<i32> {
        self.life()
            .main
            .filter(|main| main.running)
            .map(|main| main.pid)
    }

    pub async fn configure(&self, request: ConfigureRequest) -> Result<(), LifeError> {
        let _changing = self.changing.lock().await;
        if let Some((earlier, _)) = &self.life().configured {
            return if *earlier == request {
                Ok(())
            } else {
                Err(LifeError::State("configured before, differently"))
            };
        }
        let group = configure::configure(&request).await?;
        let hosts = peers::open(&configure::etc_hosts()).map_err(LifeError::Peers)?;
        let mut life = self.life();
        life.hosts = Some(Arc::new(hosts));
        life.configured = Some((request, group));
        Ok(())
    }

    /// Writes the names of the group's other tasks into the task's /etc/hosts.
    pub async fn set_peers(&self, peers: &[Peer]) -> Result<(), LifeError> {
        let _changing = self.changing.lock().await;
        let hosts = self.life().hosts.clone();
        let hosts = hosts.ok_or(LifeError::State("not configured"))?;
        peers::set(&hosts, peers).map_err(LifeError::Peers)
    }

    /// The plan for a program in the task's world.
    pub fn plan(&self, enter: Option<i32>) -> Option<Plan> {
        let life = self.life();
        let (request, group) = life.configured.as_ref()?;
        let process = request.process.clone()?;
        let limit = |limit: ResourceLimit| Limit {
            name: limit.name,
            soft: limit.soft,
            hard: limit.hard,
        };
        let sysctl =
            |sysctl: &Sysctl| Some((world::sysctl_path(&sysctl.name)?, sysctl.value.clone()));
        let setup = match enter {
            Some(_) => Setup::default(),
            None => Setup {
                unmasked: request.unmasked,
                sysctls: request.sysctls.iter().filter_map(sysctl).collect(),
                init: request.init,
            },
        };
        Some(Plan {
            root: Path::new(layers::ROOT).to_owned(),
            cgroup_processes: group.processes_file(),
            enter,
            setup,
            argv: process.argv,
            env: process.env,
            user: process.user,
            additional_groups: process.additional_groups,
            work_dir: process.work_dir,
            hostname: request.hostname.clone(),
            terminal: process.terminal,
            capabilities: process.capabilities,
            limits: process.limits.into_iter().map(limit).collect(),
            oom_score_adjustment: process.oom_score_adjustment,
            no_new_privileges: process.no_new_privileges,
        })
    }

    /// Starts the task; returns its main process. A failed start leaves the state as it was.
    pub async fn start(self: &Arc<Self>) -> Result<i32, LifeError> {
        let _changing = self.changing.lock().await;
        if self.life().main.is_some() {
            return Err(LifeError::State("started before"));
        }
        let plan = self.plan(None).ok_or(LifeError::State("not configured"))?;
        let group = self.group().ok_or(LifeError::State("not configured"))?;
        let broken = |error: io::Error| {
            LifeError::Start(Failure::internal("making the task's streams", &error))
        };
        let MainStreams {
            streams,
            from_stdout,
            from_stderr,
            hold,
        } = stdio::open(Path::new(layers::ROOT), plan.terminal, self.open_stdin())
            .map_err(broken)?;
        let started_at_unix_ns = clock::now_unix_ns();
        let Started { pid, end } = self.spawner.start(&plan, streams).await?;
        self.life().main = Some(Main { pid, running: true });
        let agent = Arc::clone(self);
        let watch = self
            .watches_memory()
            .then(|| tokio::spawn(thrash::watch(group.clone())));
        tokio::spawn(async move {
            let (over, is_over) = watch::channel(false);
            let ended = async {
                let end = end.await.unwrap_or(End {
                    exit_code: 255,
                    signal: 0,
                });
                if let Some(main) = agent.life().main.as_mut() {
                    main.running = false;
                }
                drop(hold);
                over.send_replace(true);
                if let Some(watch) = watch {
                    watch.abort();
                }
                let oom_kills = group.oom_kills();
                ExitStatus {
                    oom_kills,
                    exit_code: end.exit_code,
                    signal: end.signal,
                    oom_killed: oom_kills > 0 && agent.killed_by_kernel(end),
                    started_at_unix_ns,
                    finished_at_unix_ns: clock::now_unix_ns(),
                }
            };
            // The end of the namespace's first process has ended all others: no writer is left.
            let (status, (), ()) = tokio::join!(
                ended,
                pump(&agent.logs.stdout, &from_stdout, is_over.clone()),
                pump(&agent.logs.stderr, &from_stderr, is_over.clone()),
            );
            console::info(&format!("the task ended: exit code {}", status.exit_code));
            agent.exit.send_replace(Some(status));
        });
        Ok(pid)
    }

    fn open_stdin(&self) -> bool {
        let life = self.life();
        let process = life
            .configured
            .as_ref()
            .and_then(|(request, _)| request.process.as_ref());
        process.is_some_and(|process| process.open_stdin)
    }

    fn watches_memory(&self) -> bool {
        let life = self.life();
        life.configured
            .as_ref()
            .is_some_and(|(request, _)| request.oom_watch)
    }

    /// True if a SIGKILL ended the main process that this agent did not send. The task itself can't send it one: it is
    /// the first process of its namespace.
    fn killed_by_kernel(&self, end: End) -> bool {
        let life = self.life();
        let reaped_for = life
            .configured
            .as_ref()
            .is_some_and(|(request, _)| request.init);
        let killed =
            end.signal == libc::SIGKILL || (reaped_for && end.exit_code == 128 + libc::SIGKILL);
        killed && !life.kill_sent
    }

    /// The task's end, once all its output is in the buffers. Any number of callers may wait.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.subscribe();
        let status = exit.wait_for(Option::is_some).await.ok()?;
        *status
    }

    pub fn signal(&self, signal: i32, all: bool) -> Result<(), Failure> {
        let gone = || Failure::new(FailureKind::NotRunning, "task is not running");
        let main = self.running().ok_or_else(gone)?;
        if signal == libc::SIGKILL {
            self.life().kill_sent = true;
        }
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::ESRCH) => gone(),
            _ => Failure::internal("kill", &error),
        };
        if !all {
            return self.reaper.signal(main, signal).map_err(failed);
        }
        let group = self.group().ok_or_else(gone)?;
        if signal == libc::SIGKILL {
            return group.kill().map_err(failed);
        }
        for pid in group.processes() {
            // It may have ended since it was listed.
            let _ = litegix_sys::process::kill(pid, signal);
        }
        Ok(())
    }
}
