//! The processes of an exec session: its first program, whatever that started, and who shares their terminal session.
//! Held by pidfds, so that a signal never meets a process that was given an id again.

use crate::sys::process;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A fork bomb shall not cost init its descriptors; what is beyond dies in the next round, or with its parents.
const MOST_MEMBERS: usize = 4096;

#[derive(Default)]
pub struct Tree {
    members: Vec<(i32, OwnedFd)>,
}

struct Seen {
    pid: i32,
    parent: i32,
    session: i32,
    descriptor: OwnedFd,
}

impl Tree {
    /// Everything below the leader as it is now, and the leader. Once it has been reaped, somebody else may have its id;
    /// its session's id stays taken while anyone is in it.
    pub fn of(leader: i32, leader_is_there: bool) -> Self {
        let mut tree = Self::default();
        let others = processes()
            .into_iter()
            .filter(|it| leader_is_there || (it.pid != leader && it.parent != leader))
            .collect();
        tree.grow(&HashSet::from([leader]), others);
        tree
    }

    /// Adds what the members have started since.
    pub fn look_again(&mut self) {
        let roots = self.members.iter().map(|(pid, _)| *pid).collect();
        self.grow(&roots, processes());
    }

    fn grow(&mut self, roots: &HashSet<i32>, mut others: Vec<Seen>) {
        let mut inside = roots.clone();
        // Children may be listed before their parents.
        loop {
            let (found, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|it| {
                inside.contains(&it.pid)
                    || inside.contains(&it.parent)
                    || inside.contains(&it.session)
            });
            others = rest;
            if found.is_empty() {
                return;
            }
            for Seen {
                pid, descriptor, ..
            } in found
            {
                inside.insert(pid);
                let held = self.members.iter().any(|(member, _)| *member == pid);
                if !held && self.members.len() < MOST_MEMBERS {
                    self.members.push((pid, descriptor));
                }
            }
        }
    }

    pub fn signal(&self, signal: i32) {
        for (_, descriptor) in &self.members {
            // It may have ended, which is what is wanted.
            let _ = process::signal_pidfd(descriptor.as_fd(), signal);
        }
    }

    /// Forgets who has ended; says whether nobody is left.
    pub fn is_gone(&mut self) -> bool {
        self.members
            .retain(|(_, descriptor)| process::signal_pidfd(descriptor.as_fd(), 0).is_ok());
        self.members.is_empty()
    }
}

fn processes() -> Vec<Seen> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid > 2)
        .filter_map(|pid| see(pid).ok().flatten())
        .collect()
}

/// The descriptor first: whoever has the id afterwards is who is held. Kernel threads are children of process 2.
fn see(pid: i32) -> io::Result<Option<Seen>> {
    let descriptor = process::open_pidfd(pid)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(parse(&stat)
        .filter(|(parent, _)| *parent != 2)
        .map(|(parent, session)| Seen {
            pid,
            parent,
            session,
            descriptor,
        }))
}

/// Parent and session. The program's name, field 2, stands in parentheses and may contain anything.
fn parse(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn parent_and_session_are_found_behind_any_name() {
        assert_eq!(parse("7 (a) b) S 3 4 5 6"), Some((3, 5)));
        assert_eq!(parse("7 (a) S 3"), None);
    }

    #[test]
    fn grandchildren_in_sessions_of_their_own_belong_to_it() {
        // The shell in the middle stays, so that the tree holds together.
        let script = "setsid sh -c 'sleep 60; :' & sleep 60; :";
        let mut child = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .expect("sh");
        let leader = i32::try_from(child.id()).expect("pid");
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut tree = Tree::of(leader, true);
        while tree.members.len() < 4 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            tree.look_again();
        }
        assert!(tree.members.len() >= 4, "{}", tree.members.len());
        assert!(!tree.is_gone());
        tree.signal(libc::SIGKILL);
        child.wait().expect("wait");
        while !tree.is_gone() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Zombies whom nobody reaps here still take signals; what counts is that they do not run.
        assert!(!std::path::Path::new(&format!("/proc/{leader}")).exists());
    }

    proptest! {
        #[test]
        fn any_stat_is_read(text in ".{0,100}") {
            let _ = parse(&text);
        }
    }
}
