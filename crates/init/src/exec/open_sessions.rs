//! The open connections of exec sessions. The machine waits for them before its end: bytes that the host has not read
//! yet are lost with the machine.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Default)]
pub struct Sessions {
    count: Mutex<usize>,
    closed: Condvar,
}

/// Held until the host has closed the connection, which it does once it has read everything.
pub struct Open(Arc<Sessions>);

impl Sessions {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(self: &Arc<Self>) -> Open {
        *self.count() += 1;
        Open(Arc::clone(self))
    }

    /// Waits until none is open, at most for the given time; returns true if none is. Blocks its thread.
    pub fn wait(&self, longest: Duration) -> bool {
        let waited = self
            .closed
            .wait_timeout_while(self.count(), longest, |count| *count > 0);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn all_are_waited_for_but_not_for_ever() {
        let sessions = Arc::new(Sessions::default());
        assert!(sessions.wait(Duration::ZERO));
        let [first, second] = [sessions.open(), sessions.open()];
        drop(first);
        assert!(!sessions.wait(Duration::from_millis(10)));
        let closing = thread::spawn(|| drop(second));
        assert!(sessions.wait(Duration::from_secs(10)));
        closing.join().expect("closing");
    }
}
