//! A second, small copy of init that only forks: each program of the task starts in a copy of it (see `stage2`). A
//! fresh copy of init for each, by execve, would cost tens of milliseconds of page faults in an emulated guest. A fork
//! of init itself would show init's memory to any process that may trace the program's process before its execve. It
//! would also run code between fork and execve while other threads hold locks. This process has one thread, no secret
//! and no part in the task's namespaces.

use crate::program::plan::{Failure, Report};
use crate::program::stage2::{self, tell};
use litegix_sys::process::{self, Side};
use litegix_sys::{passing, scheduling};
use nix::sched::CloneFlags;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// The plan, the pipe for the report, and the program's three standard streams.
pub const DESCRIPTORS: usize = 5;

/// Serves init on the connection that is this process's standard input, until init closes it.
pub fn run() -> i32 {
    // Init may carry a flood (`flood`) while it starts the zygote; the task's programs must not inherit its patience.
    let _ = scheduling::set_batch(false);
    loop {
        let [plan, report, input, output, error] = match passing::receive(io::stdin()) {
            Ok(Some(descriptors)) => descriptors,
            Ok(None) => return 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return 1,
        };
        let mut report = File::from(report);
        match process::clone_sibling(CloneFlags::empty()) {
            Ok(Side::Child) => process::exit_now(become_stage(
                File::from(plan),
                &mut report,
                [input, output, error],
            )),
            Ok(Side::Parent(pid)) => tell(&mut report, &Report::Stage(pid)),
            Err(error) => {
                let failure = Failure::internal("starting the second stage", &error);
                tell(&mut report, &Report::Failed(failure));
            }
        }
    }
}

/// The first of the streams replaces the connection with init, which the task must not get.
fn become_stage(plan: File, report: &mut File, streams: [OwnedFd; 3]) -> i32 {
    let [input, output, error] = streams;
    let replaced = dup2_stdin(input)
        .and_then(|()| dup2_stdout(output))
        .and_then(|()| dup2_stderr(error));
    if let Err(error) = replaced {
        let failure = Failure::internal("standard streams", &error.into());
        tell(report, &Report::Failed(failure));
        return 1;
    }
    stage2::run(plan, report)
}
