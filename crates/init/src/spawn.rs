//! Starts a program in the task's world through the second stage, and knows for certain whether it runs.

use crate::plan::{Failure, FailureKind, Plan, Report};
use crate::reaper::{End, Reaper};
use crate::sys::files;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// From the second stage's start to execve; generous, since a host with many VMs gives each little CPU.
const DEADLINE: Duration = Duration::from_secs(60);
/// More than a failure's text with the longest program name.
const LONGEST_REPORT: usize = 64 << 10;

pub struct Streams {
    pub stdin: Stdio,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

pub struct Started {
    pub pid: i32,
    pub end: oneshot::Receiver<End>,
}

pub async fn start(reaper: &Reaper, plan: &Plan, streams: Streams) -> Result<Started, Failure> {
    let (stage, mut reports) = launch(plan, streams)
        .map_err(|error| Failure::internal("starting the second stage", &error))?;
    let mut stage_end = reaper.claim(stage);
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, read_reports(&mut reports, &mut text)).await;
    let (pid, mut failure) = parse_reports(&text);
    if read.is_err() {
        // Something hangs in the kernel; whatever has been started so far is killed.
        let _ = reaper.signal(stage, libc::SIGKILL);
        let message = format!("the program did not start within {DEADLINE:?}");
        failure = Some(Failure::new(FailureKind::Internal, message));
    }
    match (pid, failure) {
        (Some(pid), None) => Ok(Started {
            pid,
            end: reaper.claim(pid),
        }),
        (pid, failure) => {
            if let Some(pid) = pid {
                let end = reaper.claim(pid);
                let _ = reaper.signal(pid, libc::SIGKILL);
                drop(end);
            }
            Err(failure.unwrap_or_else(|| {
                let how = stage_end.try_recv().map_or(-1, |end| end.exit_code);
                Failure::new(
                    FailureKind::Internal,
                    format!("the second stage ended early (exit code {how})"),
                )
            }))
        }
    }
}

fn launch(plan: &Plan, streams: Streams) -> io::Result<(i32, pipe::Receiver)> {
    let plan_file = write_plan(plan)?;
    let (reports, report) = files::pipe()?;
    // This thread is the only one that starts programs, so no other can inherit these two in between.
    files::set_inheritable(&plan_file, true)?;
    files::set_inheritable(&report, true)?;
    let child = Command::new("/proc/self/exe")
        .arg("stage2")
        .arg(plan_file.as_raw_fd().to_string())
        .arg(report.as_raw_fd().to_string())
        .env_clear()
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .spawn()?;
    files::set_nonblocking(&reports)?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok((pid, pipe::Receiver::from_owned_fd(reports)?))
}

/// In memory, so that no reader is needed while it is written.
fn write_plan(plan: &Plan) -> io::Result<File> {
    let mut file = files::memory_file("plan")?;
    file.write_all(&serde_json::to_vec(plan)?)?;
    file.rewind()?;
    Ok(file)
}

/// Reads to the end, which comes when the program's process has executed the program or given up.
async fn read_reports(reports: &mut pipe::Receiver, text: &mut Vec<u8>) {
    use tokio::io::AsyncReadExt;
    let _ = reports.take(LONGEST_REPORT as u64).read_to_end(text).await;
}

fn parse_reports(text: &[u8]) -> (Option<i32>, Option<Failure>) {
    let mut pid = None;
    let mut failure = None;
    for line in text.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Report::Process(id)) => pid = Some(id),
            Ok(Report::Failed(why)) => failure = Some(why),
            Err(_) => {}
        }
    }
    (pid, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_in_any_order() {
        let line = |report: &Report| serde_json::to_string(report).expect("report") + "\n";
        let process = line(&Report::Process(7));
        let failed = line(&Report::Failed(Failure::new(FailureKind::Invalid, "no")));
        for text in [format!("{process}{failed}"), format!("{failed}{process}")] {
            let (pid, failure) = parse_reports(text.as_bytes());
            assert_eq!(pid, Some(7));
            assert_eq!(failure.map(|it| it.kind), Some(FailureKind::Invalid));
        }
        assert!(parse_reports(b"").0.is_none());
    }
}
