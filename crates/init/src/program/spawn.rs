//! Starts programs in the task's world through the zygote and the second stage, and reports with certainty if they run.

use crate::program::plan::{Failure, FailureKind, Plan, Report};
use crate::program::reaper::{End, Reaper};
use crate::program::zygote::DESCRIPTORS;
use litegix_sys::{descriptors, passing};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout_at};

/// From the request to execve; generous, since a host with many VMs gives each little CPU.
const DEADLINE: Duration = Duration::from_secs(60);
/// More than a failure's text with the longest program name.
const MAX_REPORT: usize = 64 << 10;

pub struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

pub struct Started {
    pub pid: i32,
    pub end: oneshot::Receiver<End>,
}

pub struct Spawner {
    reaper: Arc<Reaper>,
    /// A task with every right may kill everything in init's control group: then the next program gets a new zygote.
    zygote: Mutex<Option<Zygote>>,
}

struct Zygote {
    socket: AsyncFd<File>,
    end: oneshot::Receiver<End>,
}

impl Spawner {
    pub fn new(reaper: Arc<Reaper>) -> Self {
        Self {
            reaper,
            zygote: Mutex::default(),
        }
    }

    /// Starts the zygote ahead of the first program.
    pub async fn prepare(&self) -> io::Result<()> {
        let mut zygote = self.zygote.lock().await;
        if zygote.is_none() {
            *zygote = Some(Zygote::start(&self.reaper)?);
        }
        Ok(())
    }

    pub async fn start(&self, plan: &Plan, streams: Streams) -> Result<Started, Failure> {
        let deadline = Instant::now() + DEADLINE;
        let _start = self.reaper.start();
        let mut reports = timeout_at(deadline, self.launch(plan, streams))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| Failure::internal("starting the second stage", &error))?;
        let mut text = Vec::new();
        let read = timeout_at(deadline, read_reports(&mut reports, &mut text)).await;
        let Reports {
            stage,
            process,
            mut failure,
        } = parse_reports(&text);
        let mut stage_end = stage.map(|stage| self.reaper.claim(stage));
        if read.is_err() {
            // Something hangs in the kernel, so everything started so far is killed.
            if let Some(stage) = stage {
                let _ = self.reaper.signal(stage, libc::SIGKILL);
            }
            let message = format!("the program did not start within {DEADLINE:?}");
            failure = Some(Failure::new(FailureKind::Internal, message));
        }
        match (process, failure) {
            (Some(pid), None) => Ok(Started {
                pid,
                end: self.reaper.claim(pid),
            }),
            (pid, failure) => {
                if let Some(pid) = pid {
                    let end = self.reaper.claim(pid);
                    let _ = self.reaper.signal(pid, libc::SIGKILL);
                    drop(end);
                }
                Err(failure.unwrap_or_else(|| {
                    let how = stage_end
                        .as_mut()
                        .and_then(|end| end.try_recv().ok())
                        .map_or(-1, |end| end.exit_code);
                    Failure::new(
                        FailureKind::Internal,
                        format!("the second stage ended early (exit code {how})"),
                    )
                }))
            }
        }
    }

    /// Asks the zygote; returns the pipe on which the second stage reports.
    async fn launch(&self, plan: &Plan, streams: Streams) -> io::Result<pipe::Receiver> {
        let plan = write_plan(plan)?;
        let (reports, report) = descriptors::pipe()?;
        descriptors::set_nonblocking(&reports)?;
        let descriptors = [
            plan.as_fd(),
            report.as_fd(),
            streams.stdin.as_fd(),
            streams.stdout.as_fd(),
            streams.stderr.as_fd(),
        ];
        let mut zygote = self.zygote.lock().await;
        if let Some(there) = zygote.as_mut()
            && there.lives()
            && there.ask(descriptors).await.is_ok()
        {
            return pipe::Receiver::from_owned_fd(reports);
        }
        let new = Zygote::start(&self.reaper)?;
        let asked = new.ask(descriptors).await;
        *zygote = Some(new);
        asked?;
        pipe::Receiver::from_owned_fd(reports)
    }
}

impl Zygote {
    fn start(reaper: &Reaper) -> io::Result<Self> {
        let _start = reaper.start();
        let (socket, its) = passing::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("zygote")
            .env_clear()
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok(Self {
            socket: descriptors::watch(socket)?,
            end: reaper.claim(pid),
        })
    }

    fn lives(&mut self) -> bool {
        matches!(
            self.end.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// An error means that it is gone.
    async fn ask(&self, descriptors: [BorrowedFd<'_>; DESCRIPTORS]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| passing::send(socket.get_ref(), descriptors)) {
                Ok(result) => return result,
                Err(_) => continue,
            }
        }
    }
}

/// In memory, so that writing needs no reader.
fn write_plan(plan: &Plan) -> io::Result<File> {
    let mut file = File::from(memfd_create("plan", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    file.rewind()?;
    Ok(file)
}

/// Reads to the end, which comes when the program's process has executed the program or given up.
async fn read_reports(reports: &mut pipe::Receiver, text: &mut Vec<u8>) {
    use tokio::io::AsyncReadExt;
    let _ = reports.take(MAX_REPORT as u64).read_to_end(text).await;
}

#[derive(Default)]
struct Reports {
    stage: Option<i32>,
    process: Option<i32>,
    failure: Option<Failure>,
}

fn parse_reports(text: &[u8]) -> Reports {
    let mut reports = Reports::default();
    for line in text.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Report::Stage(id)) => reports.stage = Some(id),
            Ok(Report::Process(id)) => reports.process = Some(id),
            Ok(Report::Failed(why)) => reports.failure = Some(why),
            Err(_) => {}
        }
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_in_any_order() {
        let line = |report: &Report| serde_json::to_string(report).expect("report") + "\n";
        let stage = line(&Report::Stage(6));
        let process = line(&Report::Process(7));
        let failed = line(&Report::Failed(Failure::new(FailureKind::Invalid, "no")));
        for text in [
            format!("{stage}{process}{failed}"),
            format!("{failed}{process}{stage}"),
        ] {
            let reports = parse_reports(text.as_bytes());
            assert_eq!((reports.stage, reports.process), (Some(6), Some(7)));
            assert_eq!(
                reports.failure.map(|it| it.kind),
                Some(FailureKind::Invalid)
            );
        }
        assert!(parse_reports(b"").process.is_none());
    }
}
