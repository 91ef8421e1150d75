//! The only place that waits for children. A status that nobody claimed yet is kept, so a child that ends before its
//! starter knows its id is not lost; and signals go only to children not reaped yet, so an id is never used twice.

use crate::sys::process;
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
    unclaimed: HashMap<i32, End>,
}

impl Reaper {
    fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
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
            Some(end) => drop(sender.send(end)),
            None => drop(children.awaited.insert(pid, sender)),
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
            // Who no longer waits does not want to know.
            Some(sender) => drop(sender.send(end)),
            None => drop(self.unclaimed.insert(pid, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_claim_is_kept() {
        let reaper = Reaper::default();
        let end = End {
            exit_code: 3,
            signal: 0,
        };
        reaper.children().record(7, end);
        assert_eq!(reaper.claim(7).try_recv(), Ok(end));
        assert!(reaper.children().unclaimed.is_empty());
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
