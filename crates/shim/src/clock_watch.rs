//! Tells when somebody sets the host's wall clock: a timer that is never due, and that such a change cancels.

use litegix_sys::descriptors;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// In the year 2255; timers in the kernel's far future are refused.
const NEVER_UNIX_S: i64 = 9_000_000_000;

pub struct ClockWatch(AsyncFd<File>);

impl ClockWatch {
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?;
        timer.set(
            Expiration::OneShot(TimeSpec::new(NEVER_UNIX_S, 0)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
        )?;
        descriptors::watch(OwnedFd::from(timer)).map(Self)
    }

    /// Resolves when the clock was set.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return std::future::pending().await;
            };
            let read = ready.try_io(|timer| timer.get_ref().read(&mut [0; 8]));
            if matches!(read, Ok(Err(error)) if error.raw_os_error() == Some(libc::ECANCELED)) {
                return;
            }
        }
    }
}
