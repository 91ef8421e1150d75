//! One VM from its first process to its last: start, logs, the task's end, the record, clean-up.

use crate::clock;
use crate::config::Config;
use crate::control::Shared;
use crate::dial::Guest;
use crate::log;
use crate::logs::forward::Stream;
use crate::logs::sink::SinkError;
use crate::logs::streams::{LogFiles, Logs};
use crate::vm::children::{self, ProcessError, Running};
use crate::vm::ports::{HeldPorts, PortError};
use crate::vm::record::RecordFile;
use crate::vm::rights::{self, RightsError};
use crate::vm::state;
use litegix_protocol::guest::guest_client::GuestClient;
use litegix_protocol::guest::{ExitStatus, ShutdownRequest, WaitRequest};
use litegix_protocol::shim::{ExitRecord, PortInUse, TaskExit, VmmExit};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::sleep;

/// From the task's end until its last log byte is written, in case a FIFO's reader is stuck.
const LOG_DEADLINE: Duration = Duration::from_secs(30);
/// From the VMM's unexpected end until the logs are given up.
const LAST_BYTES_GRACE: Duration = Duration::from_millis(100);
/// From a helper's end until it counts as the VM's end. On a busy host a VMM takes time to end, and a helper may be
/// gone before it.
const HELPER_GRACE: Duration = Duration::from_secs(2);
/// For the guest to end its exec sessions (5 s), to unmount (3 s) and to restart, which ends the hypervisor.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the driver to fetch the record of a VM that never ran.
const FAILED_START_GRACE: Duration = Duration::from_secs(10);
const WAIT_PAUSE: Duration = Duration::from_millis(50);
const MAX_ANSWER: usize = 64 << 10;
/// More than any guest can have had; it goes into a sentence for the user.
const MAX_OOM_KILLS: u64 = 1_000_000;

/// The end of the VM's life, as seen from here.
enum Ending {
    Task(ExitStatus),
    Vmm(Option<std::process::ExitStatus>),
    /// The helper with this index among those started before the VMM. A VM without its vsock device would run on,
    /// without logs and without an end that anyone could learn of.
    Helper(usize, Option<std::process::ExitStatus>),
    Killed,
}

/// The reason that a VM never came to life.
#[derive(Debug, Error)]
enum StartError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("no hypervisor is configured")]
    NoVmm,
    #[error("can't write {}: {source}", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error("the VM's supervisor can't join its cgroup by {}: {source}", path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Rights(#[from] RightsError),
}

impl StartError {
    /// In docs/errors.md. Empty: the driver's own for a VM that did not start.
    fn code(&self) -> &'static str {
        match self {
            Self::Sink(_) => "log_fifo",
            Self::Cgroup { .. } | Self::Rights(_) => "supervisor_rights",
            _ => "",
        }
    }
}

pub async fn run(config: &Config, shared: &Arc<Shared>, file: &RecordFile) {
    let mut running = Vec::new();
    // A kill meanwhile takes effect right after: starting has its own, short deadlines.
    let (ports, log_files, mut vmm) = match start(config, shared, &mut running).await {
        Ok(started) => started,
        Err(error) => return fail(file, shared, running, &error).await,
    };
    log::line(&format!("VM {} runs, hypervisor {}", config.id, vmm.pid));

    let guest = Guest {
        socket: config.socket_in_root(),
        port: config.guest_port,
    };
    let logs = Logs::start(&guest, log_files);
    let clock = tokio::spawn(clock::keep(guest.clone(), Arc::clone(shared)));
    let ending = tokio::select! {
        status = task_end(&guest) => Ending::Task(status),
        status = vmm.ended() => Ending::Vmm(status),
        () = shared.kill.notified() => Ending::Killed,
        (index, status) = helper_end(&mut running) => Ending::Helper(index, status),
    };
    clock.abort();
    // Nomad may start the task again as soon as it knows of the end, with the same ports.
    drop(ports);
    match ending {
        Ending::Task(status) => {
            // The rest of the logs, unless the VM or the patience ends before.
            let (streams, vmm_status) = finish_logs(logs, &mut vmm, &mut running, shared).await;
            settle(file, shared, record_of(&status, vmm_status));
            // Only now, so that logmon reads the FIFOs' end after the record is written.
            drop(streams);
            shut_down(&guest, &mut vmm, shared).await;
        }
        Ending::Vmm(status) => {
            // The sockets still hold the guest's last bytes: people want a crash's last lines most.
            sleep(LAST_BYTES_GRACE).await;
            let error = format!("the VMM {}", vmm.early_end(status).await);
            settle(file, shared, record_without_task(status, error));
            logs.stop().await;
        }
        Ending::Helper(index, status) => {
            let helper = &mut running[index];
            let name = helper.name.clone();
            let error = format!("{name} {}", helper.early_end(status).await);
            let record = ExitRecord {
                helper: name,
                ..record_without_task(vmm.kill().await, error)
            };
            settle(file, shared, record);
            logs.stop().await;
        }
        Ending::Killed => {
            let status = vmm.kill().await;
            settle(
                file,
                shared,
                record_without_task(status, "killed".to_owned()),
            );
            logs.stop().await;
        }
    }
    let _ = vmm.kill().await;
    kill_all(running).await;
    shared.all_reaped.send_replace(true);
    log::line(&format!("VM {} has ended", config.id));
}

/// Makes the record durable, then publishes it.
fn settle(file: &RecordFile, shared: &Shared, record: ExitRecord) {
    if let Err(error) = file.write(&record) {
        log::line(&format!("the record of the end: {error}"));
    }
    if !record.error.is_empty() {
        log::line(&record.error);
    }
    shared.record.send_replace(Some(record));
}

/// The end of a VM that never came to life.
async fn fail(file: &RecordFile, shared: &Shared, running: Vec<Running>, error: &StartError) {
    kill_all(running).await;
    let record = ExitRecord {
        code: error.code().to_owned(),
        port_in_use: port_in_use(error),
        ..record_without_task(None, error.to_string())
    };
    settle(file, shared, record);
    shared.all_reaped.send_replace(true);
    tokio::select! {
        () = shared.fetched.notified() => {}
        () = shared.kill.notified() => {}
        () = sleep(FAILED_START_GRACE) => {}
    }
}

fn port_in_use(error: &StartError) -> Option<PortInUse> {
    let StartError::Port(error) = error else {
        return None;
    };
    error.is_taken().then(|| PortInUse {
        protocol: error.protocol.to_string(),
        address: error.address.ip().to_string(),
        port: error.address.port().into(),
    })
}

/// Starts everything, then gives up the supervisor's rights. `running` holds the VMM's helpers and, after a failure, all
/// processes to kill.
async fn start(
    config: &Config,
    shared: &Shared,
    running: &mut Vec<Running>,
) -> Result<(HeldPorts, LogFiles, Running), StartError> {
    for path in &config.cgroup_procs {
        // "0" is the writer itself. The VM's processes leave it for the VM's own before their programs run.
        fs::write(path, "0").map_err(|source| StartError::Cgroup {
            path: path.clone(),
            source,
        })?;
    }
    let ports = HeldPorts::hold(&config.ports)?;
    let log_files = LogFiles::open(config)?;
    for process in &config.processes {
        let mut started = Running::start(process)?;
        let ready = match &process.ready_path {
            Some(path) => started.ready(path).await,
            None => Ok(()),
        };
        running.push(started);
        ready?;
    }
    let vmm = running.pop().ok_or(StartError::NoVmm)?;
    shared.vmm_pid.send_replace(vmm.pid);
    if let Err(source) = state::write(config, &vmm, running) {
        running.push(vmm);
        let path = config.state_file.clone();
        return Err(StartError::State { path, source });
    }
    let children: Vec<u32> = running.iter().chain([&vmm]).map(|it| it.pid).collect();
    if let Err(error) = rights::give_up(&config.directory, &children) {
        running.push(vmm);
        return Err(error.into());
    }
    Ok((ports, log_files, vmm))
}

async fn kill_all(running: Vec<Running>) {
    for mut process in running {
        process.kill().await;
    }
}

/// The rest of the logs, and the VMM's end if it ended. Dropping the streams closes their FIFOs.
async fn finish_logs(
    logs: Logs,
    vmm: &mut Running,
    helpers: &mut [Running],
    shared: &Shared,
) -> (Vec<Stream>, Option<VmmExit>) {
    let mut vmm_status = None;
    let patience = async {
        tokio::select! {
            status = vmm.ended() => {
                vmm_status = status.map(children::vmm_exit);
                "the VMM ended"
            }
            _ = helper_end(helpers) => "a helper of the VMM ended",
            () = shared.kill.notified() => {
                // For the step after the record.
                shared.kill.notify_one();
                "the VM is to be killed"
            }
            () = sleep(LOG_DEADLINE) => "a log's reader is stuck",
        }
    };
    let (streams, cut) = logs.finish(patience).await;
    if let Some(cut) = cut {
        log::line(&format!("the last log bytes are lost: {cut}"));
    }
    (streams, vmm_status)
}

/// The helper that has ended, and how. It waits a moment: a helper that ends along with the VMM did not end the VM, and
/// the last log bytes are still in the sockets.
async fn helper_end(helpers: &mut [Running]) -> (usize, Option<std::process::ExitStatus>) {
    let end = children::any_ended(helpers).await;
    sleep(HELPER_GRACE).await;
    end
}

/// Asks the guest until it reports the task's end.
async fn task_end(guest: &Guest) -> ExitStatus {
    loop {
        let channel = guest.connect().await;
        let mut client = GuestClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        if let Ok(answer) = client.wait(WaitRequest {}).await
            && let Some(status) = answer.into_inner().status
        {
            return status;
        }
        sleep(WAIT_PAUSE).await;
    }
}

/// The guest may send any value; the record holds only possible ones.
fn record_of(status: &ExitStatus, vmm: Option<VmmExit>) -> ExitRecord {
    ExitRecord {
        task: Some(TaskExit {
            exit_code: status.exit_code.clamp(0, 255),
            signal: status.signal.clamp(0, 64),
            oom_killed: status.oom_killed,
            oom_kills: status.oom_kills.min(MAX_OOM_KILLS),
            started_at_unix_ns: status.started_at_unix_ns.max(0),
            finished_at_unix_ns: status.finished_at_unix_ns.max(0),
        }),
        vmm,
        ..ExitRecord::default()
    }
}

fn record_without_task(vmm: Option<std::process::ExitStatus>, error: String) -> ExitRecord {
    ExitRecord {
        vmm: vmm.map(children::vmm_exit),
        error,
        ..ExitRecord::default()
    }
}

/// Lets the guest end itself, so that its disk is clean.
async fn shut_down(guest: &Guest, vmm: &mut Running, shared: &Shared) {
    let ask = async {
        let channel = guest.connect().await;
        let _ = GuestClient::new(channel).shutdown(ShutdownRequest {}).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = vmm.ended() => {}
        () = shared.kill.notified() => {}
        () = sleep(SHUTDOWN_DEADLINE) => log::line("the guest did not end itself and is killed"),
        () = ask => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_hold_only_what_can_be(exit_code: i32, signal: i32, started: i64) {
            let status = ExitStatus {
                exit_code,
                signal,
                started_at_unix_ns: started,
                ..ExitStatus::default()
            };
            let task = record_of(&status, None).task.expect("task");
            prop_assert!((0..=255).contains(&task.exit_code));
            prop_assert!((0..=64).contains(&task.signal));
            prop_assert!(task.started_at_unix_ns >= 0);
        }
    }
}
