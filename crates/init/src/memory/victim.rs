//! Chooses the process to end if memory runs out: the kernel's own choice, but one process only.

use litegix_sys::process::{open_pidfd, signal_pidfd};
use std::fs;
use std::os::fd::AsFd;

/// Kills the process with the kernel's highest score among these, and returns its id; none if all are protected or
/// gone.
pub fn kill(processes: &[i32]) -> Option<i32> {
    let scores = processes.iter().filter_map(|pid| {
        // Held, so that the signal can't meet a later process with the same number.
        let process = open_pidfd(*pid).ok()?;
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score")).ok()?;
        let score: u64 = text.trim().parse().ok()?;
        (score > 0).then_some((score, *pid, process))
    });
    let (_, pid, process) = scores.max_by_key(|(score, ..)| *score)?;
    signal_pidfd(process.as_fd(), libc::SIGKILL).ok()?;
    Some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    fn start(adjustment: u32) -> Child {
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                "echo \"$0\" > /proc/self/oom_score_adj; echo up; read line",
            ])
            .arg(adjustment.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut up = [0; 3];
        let output = child.stdout.as_mut().expect("output");
        output.read_exact(&mut up).expect("read");
        child
    }

    #[test]
    fn one_process_is_killed_the_one_that_the_kernel_would_kill() {
        let [mut first, mut likeliest, mut last] = [start(200), start(600), start(200)];
        let pids = [&first, &likeliest, &last].map(|child| child.id().cast_signed());
        assert_eq!(kill(&[]), None);
        assert_eq!(kill(&pids), Some(pids[1]));
        assert_eq!(likeliest.wait().expect("wait").code(), None);
        for other in [&mut first, &mut last] {
            assert_eq!(other.try_wait().expect("wait"), None);
            other.kill().expect("kill");
            other.wait().expect("wait");
        }
    }
}
