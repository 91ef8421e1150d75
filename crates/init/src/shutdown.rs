//! The end of the VM: what runs is killed, disks are unmounted clean, the machine restarts, which ends the VMM.

use crate::agent::Agent;
use crate::cgroup::TaskGroup;
use crate::sys::machine;
use crate::{configure, log};
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// For everything together.
const DEADLINE: Duration = Duration::from_secs(3);
const KILL_DEADLINE: Duration = Duration::from_secs(1);

/// To be called once, off the runtime's thread: it blocks, and does not come back.
pub fn shut_down(group: Option<&TaskGroup>) -> ! {
    // A disk that hangs must not keep the VM: this thread ends it whatever the other does.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(DEADLINE);
        restart();
    });
    if let Some(group) = group {
        log::warn_on_error("killing the task", group.kill());
        let deadline = Instant::now() + KILL_DEADLINE;
        while group.populated() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
    configure::tear_down();
    machine::sync();
    restart();
}

/// Ends the machine by the first means that works.
pub fn restart() -> ! {
    let _ = machine::restart();
    loop {
        let _ = fs::write("/proc/sysrq-trigger", "b");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the machine after the grace, off the runtime's thread, which goes on reaping meanwhile: the task's namespace
/// ends only once its processes have been reaped.
pub fn end_machine(agent: Arc<Agent>, grace: Duration) {
    let ending = thread::Builder::new().spawn(move || {
        thread::sleep(grace);
        shut_down(agent.group().as_ref());
    });
    if ending.is_err() {
        restart();
    }
}
