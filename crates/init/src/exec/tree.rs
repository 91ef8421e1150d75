//! The processes of an exec session: its first program, its descendants, and all processes of their terminal session.
//! The first is init's child, so only the reaper may signal it. The others are held by pidfds. Neither way can signal a
//! later process with the same id.

use crate::program::reaper::Reaper;
use litegix_sys::proc_stat::Stat;
use litegix_sys::process;
use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pause between two checks if all have ended.
const PAUSE: Duration = Duration::from_millis(50);
const KILL_ROUNDS: usize = 20;

/// A fork bomb must not use up init's descriptors. Further processes die in the next round, or with their parents.
const MAX_MEMBERS: usize = 4096;

pub struct Tree<'a> {
    reaper: &'a Reaper,
    leader: i32,
    /// Without the leader.
    members: Vec<(i32, OwnedFd)>,
}

#[derive(Clone, Copy)]
struct Seen {
    pid: i32,
    stat: Stat,
}

impl<'a> Tree<'a> {
    /// The leader, which the reaper knows, and everything below it at this moment.
    pub fn of(leader: i32, reaper: &'a Reaper) -> Self {
        let mut tree = Self {
            reaper,
            leader,
            members: Vec::new(),
        };
        tree.look_again();
        tree
    }

    fn leader_is_there(&self) -> bool {
        self.reaper.signal(self.leader, 0).is_ok()
    }

    /// Adds processes that have started since.
    pub fn look_again(&mut self) {
        let leader = self.leader;
        // Once the leader has been reaped, another process may get its id; its session's id stays taken as long as the
        // session has members.
        let leader_is_there = self.leader_is_there();
        let others = processes()
            .filter(|it| it.pid != leader && (leader_is_there || it.stat.parent != leader))
            .collect();
        self.grow(others);
    }

    fn grow(&mut self, mut others: Vec<Seen>) {
        let mut inside: HashSet<i32> = self.members.iter().map(|(pid, _)| *pid).collect();
        inside.insert(self.leader);
        // Children may be listed before their parents.
        loop {
            let (found, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|it| {
                inside.contains(&it.pid)
                    || inside.contains(&it.stat.parent)
                    || inside.contains(&it.stat.session)
            });
            others = rest;
            if found.is_empty() {
                return;
            }
            for seen in found {
                inside.insert(seen.pid);
                let held = self.members.iter().any(|(member, _)| *member == seen.pid);
                if !held && self.members.len() < MAX_MEMBERS {
                    self.members.extend(hold(seen).map(|it| (seen.pid, it)));
                }
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        let _ = self.reaper.signal(self.leader, signal);
        for (_, descriptor) in &self.members {
            // It may have ended, as it should.
            let _ = process::signal_pidfd(descriptor.as_fd(), signal);
        }
    }

    /// Ends all of it: first a hang-up, then, after the grace, a kill for the rest. Without a grace all are killed at
    /// once.
    pub async fn end(mut self, grace: Option<Duration>) {
        if let Some(grace) = grace {
            self.signal(libc::SIGHUP);
            // A stopped job (Ctrl-Z) would see the signal only when it continues.
            self.signal(libc::SIGCONT);
            let deadline = Instant::now() + grace;
            while !self.is_gone() && Instant::now() < deadline {
                sleep(PAUSE).await;
            }
        }
        for _ in 0..KILL_ROUNDS {
            if self.is_gone() {
                return;
            }
            // Processes that it has started meanwhile die too.
            self.look_again();
            self.signal(libc::SIGKILL);
            sleep(PAUSE).await;
        }
    }

    /// Forgets processes that have ended; returns true if none is left.
    pub fn is_gone(&mut self) -> bool {
        self.members
            .retain(|(_, descriptor)| process::signal_pidfd(descriptor.as_fd(), 0).is_ok());
        self.members.is_empty() && !self.leader_is_there()
    }
}

/// All but kernel threads, which are children of process 2.
fn processes() -> impl Iterator<Item = Seen> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid > 2)
        .filter_map(|pid| {
            Some(Seen {
                pid,
                stat: see(pid)?,
            })
        })
        .filter(|it| it.stat.parent != 2)
}

fn see(pid: i32) -> Option<Stat> {
    Stat::of(u32::try_from(pid).ok()?)
}

/// Only for those that belong to the session: a machine may run more processes than init may have descriptors. The
/// start time proves that the descriptor is of the same process.
fn hold(seen: Seen) -> Option<OwnedFd> {
    let descriptor = process::open_pidfd(seen.pid).ok()?;
    (see(seen.pid)?.start_time == seen.stat.start_time).then_some(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// A session's first program; the reaper learns of its end as in the machine.
    fn leader(script: &str, reaper: &Reaper) -> (Child, i32) {
        let child = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .expect("sh");
        let pid = i32::try_from(child.id()).expect("pid");
        drop(reaper.claim(pid));
        (child, pid)
    }

    fn grown<'a>(leader: i32, reaper: &'a Reaper, members: usize) -> Tree<'a> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut tree = Tree::of(leader, reaper);
        while tree.members.len() < members {
            assert!(Instant::now() < deadline, "{}", tree.members.len());
            std::thread::yield_now();
            tree.look_again();
        }
        tree
    }

    #[test]
    fn grandchildren_in_sessions_of_their_own_belong_to_it() {
        // The shell in the middle stays, so that the tree holds together.
        let script = "setsid sh -c 'sleep 60; :' & sleep 60; :";
        let reaper = Reaper::default();
        let (mut child, leader) = leader(script, &reaper);
        let mut tree = grown(leader, &reaper, 3);
        assert!(!tree.is_gone());
        tree.signal(libc::SIGKILL);
        // Unreaped zombies still take signals; the test is that they do not run.
        assert_eq!(child.wait().expect("wait").code(), None);
    }

    #[test]
    fn a_tree_is_found_among_more_processes_than_there_are_descriptors() {
        // The limit is a whole process's: this test runs itself again in one of its own.
        if std::env::var_os("FEW_DESCRIPTORS").is_none() {
            let name = "exec::tree::tests::a_tree_is_found_among_more_processes_than_there_are_descriptors";
            let outcome = Command::new("sh")
                .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
                .arg(std::env::current_exe().expect("this program"))
                .args(["--exact", name])
                .env("FEW_DESCRIPTORS", "1")
                .output()
                .expect("run");
            let text = String::from_utf8_lossy(&outcome.stdout);
            assert!(
                outcome.status.success() && text.contains("1 passed"),
                "{text}"
            );
            return;
        }
        let mut crowd: Vec<Child> = (0..100)
            .map(|_| Command::new("sleep").arg("60").spawn().expect("sleep"))
            .collect();
        let reaper = Reaper::default();
        let (mut child, leader) = leader("sleep 60 & sleep 60; :", &reaper);
        let tree = grown(leader, &reaper, 2);
        tree.signal(libc::SIGKILL);
        child.wait().expect("wait");
        for other in &mut crowd {
            other.kill().expect("kill");
            other.wait().expect("wait");
        }
    }

    #[test]
    fn a_leader_without_descriptor_is_signalled_and_waited_for() {
        let reaper = Reaper::default();
        let (mut child, leader) = leader("sleep 60; :", &reaper);
        let mut tree = Tree {
            reaper: &reaper,
            leader,
            members: Vec::new(),
        };
        assert!(!tree.is_gone());
        tree.signal(libc::SIGKILL);
        assert_eq!(child.wait().expect("wait").code(), None);
    }
}
