//! The end of the VM: processes are killed, sessions are drained, disks are unmounted clean, and the machine restarts,
//! which ends the VMM.

use crate::console;
use crate::machine::restart::restart;
use crate::memory::cgroup::TaskGroup;
use crate::root::tear_down::tear_down;
use crate::task::agent::Agent;
use nix::unistd::sync;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const KILL_DEADLINE: Duration = Duration::from_secs(1);
/// Time for the hosts of exec sessions to read the rest, the exit code last. The supervisor waits longer.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(5);
/// The limit for the disks.
const DEADLINE: Duration = Duration::from_secs(3);

/// Call it once, off the runtime's thread, which goes on serving sessions: it blocks, and does not return.
fn shut_down(agent: &Agent) -> ! {
    if let Some(group) = agent.group() {
        kill(&group);
    }
    if !agent.sessions.wait(SESSIONS_DEADLINE) {
        console::warn("an exec session was not read to its end");
    }
    // A hanging disk must not keep the VM: this thread ends it, whatever the other does.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(DEADLINE);
        restart();
    });
    tear_down();
    sync();
    restart();
}

fn kill(group: &TaskGroup) {
    console::warn_on_error("killing the task", group.kill());
    let deadline = Instant::now() + KILL_DEADLINE;
    while group.populated() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the machine after the grace, off the runtime's thread, which goes on reaping meanwhile: the task's namespace
/// ends only once its processes have been reaped.
pub fn end_machine(agent: Arc<Agent>, grace: Duration) {
    let ending = thread::Builder::new().spawn(move || {
        thread::sleep(grace);
        shut_down(&agent);
    });
    if ending.is_err() {
        restart();
    }
}
