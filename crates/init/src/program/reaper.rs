//! The only place that waits for children. A status without a claim is kept while something is being started. A child
//! that ends before its starter knows its id is therefore not lost. Signals go only to children not reaped yet, so an
//! id is never used twice. The task's programs can make children of init too, with any free id (CLONE_PARENT); their
//! ends are ignored.

use litegix_sys::process;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    pub exit_code: i32,
    pub signal: i32,
}

#[derive(Default)]
pub struct Reaper {
    children: Mutex<Children>,
}

#[derive(Default)]
struct Children {
    awaited: HashMap<i32, oneshot::Sender<End>>,
    /// Since the beginning of the first of the starts.
    unclaimed: HashMap<i32, End>,
    /// Starts under way.
    starts: usize,
}

/// A start under way: hold it until all its processes have been claimed.
pub struct Start<'a>(&'a Reaper);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        let mut children = self.0.children();
        children.starts -= 1;
        if children.starts == 0 {
            children.unclaimed = HashMap::new();
        }
    }
}

impl Reaper {
    fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start(&self) -> Start<'_> {
        self.children().starts += 1;
        Start(self)
    }

    /// Reaps every child that has ended.
    pub fn collect(&self) {
        let mut children = self.children();
        while let Some((pid, status)) = process::reap_any() {
            let (exit_code, signal) = process::decode_status(status);
            children.record(pid, End { exit_code, signal });
        }
    }

    /// The end of a child of this process.
    pub fn claim(&self, pid: i32) -> oneshot::Receiver<End> {
        let (sender, receiver) = oneshot::channel();
        let mut children = self.children();
        match children.unclaimed.remove(&pid) {
            // The receiver is in our hands.
            Some(end) if !process::is_child(pid) => drop(sender.send(end)),
            // None, or the status of an earlier child with the same id.
            _ => drop(children.awaited.insert(pid, sender)),
        }
        receiver
    }

    /// Signals a claimed child, unless it has been reaped.
    pub fn signal(&self, pid: i32, signal: i32) -> io::Result<()> {
        let children = self.children();
        if !children.awaited.contains_key(&pid) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        process::kill(pid, signal)
    }
}

impl Children {
    fn record(&mut self, pid: i32, end: End) {
        match self.awaited.remove(&pid) {
            // The receiver may be gone, and then needs no answer.
            Some(sender) => drop(sender.send(end)),
            None if self.starts > 0 => drop(self.unclaimed.insert(pid, end)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: End = End {
        exit_code: 3,
        signal: 0,
    };

    #[test]
    fn an_end_before_the_claim_is_kept() {
        let reaper = Reaper::default();
        let _start = reaper.start();
        reaper.children().record(7, END);
        assert_eq!(reaper.claim(7).try_recv(), Ok(END));
        assert!(reaper.children().unclaimed.is_empty());
    }

    #[test]
    fn the_end_of_a_child_that_nobody_started_is_not_the_next_ones() {
        let reaper = Reaper::default();
        reaper.children().record(7, END);
        let first = reaper.start();
        let second = reaper.start();
        reaper.children().record(8, END);
        drop(first);
        assert_eq!(reaper.children().unclaimed.len(), 1);
        drop(second);
        let _start = reaper.start();
        for pid in [7, 8] {
            assert!(reaper.claim(pid).try_recv().is_err());
        }
    }

    #[test]
    fn the_end_of_an_earlier_child_is_not_that_of_one_that_runs() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let pid = i32::try_from(child.id()).expect("pid");
        let reaper = Reaper::default();
        let _start = reaper.start();
        reaper.children().record(pid, END);
        let mut end = reaper.claim(pid);
        assert!(end.try_recv().is_err());
        child.kill().expect("kill");
        child.wait().expect("wait");
        reaper.children().record(pid, END);
        assert_eq!(end.try_recv(), Ok(END));
    }

    #[test]
    fn a_claim_is_answered_once_and_then_signals_are_refused() {
        let reaper = Reaper::default();
        let mut waiting = reaper.claim(8);
        assert!(waiting.try_recv().is_err());
        let end = End {
            exit_code: 137,
            signal: 9,
        };
        reaper.children().record(8, end);
        assert_eq!(waiting.try_recv(), Ok(end));
        assert!(reaper.signal(8, 0).is_err());
    }
}
