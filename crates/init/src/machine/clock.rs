//! The guest's wall clock. If the hypervisor is KVM, init reads the host's clock itself (`ptp_kvm`) and follows it.
//! Otherwise the supervisor measures the difference over vsock, and sends the correction.

use crate::console;
use litegix_sys::machine;
use nix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// While a task runs, differences up to this are made up by a change of speed (which takes the kernel two seconds a
/// millisecond): programs must not see time run backwards for so little.
const MAX_SLEW_NS: u64 = 5_000_000;
/// The pause between two measurements of the host's clock. Each is one call of the hypervisor.
const PAUSE: Duration = Duration::from_secs(5);
/// Readings in one measurement: a guest may lose its processor in the middle of one.
const SAMPLES: usize = 3;
/// The kernel's name for the clock that `ptp_kvm` offers.
const KVM_CLOCK_NAME: &str = "KVM virtual PTP";
const PTP_CLOCKS: &str = "/sys/class/ptp";

/// None until init has looked for it, and if the hypervisor does not offer its time.
static HOST_CLOCK: OnceLock<HostClock> = OnceLock::new();
static FOLLOWS_HOST: AtomicBool = AtomicBool::new(false);

struct HostClock(File);

/// The lead of the guest's clock on the host's, and the uncertainty of that.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Difference {
    ahead_ns: i64,
    uncertainty_ns: i64,
}

impl HostClock {
    fn find() -> Option<Self> {
        let clocks = fs::read_dir(PTP_CLOCKS).ok()?.flatten();
        let ours = clocks.into_iter().find(|clock| {
            fs::read_to_string(clock.path().join("clock_name"))
                .is_ok_and(|name| name.trim() == KVM_CLOCK_NAME)
        })?;
        File::open(Path::new("/dev").join(ours.file_name()))
            .inspect_err(|error| console::warn(&format!("the host's clock: {error}")))
            .ok()
            .map(Self)
    }

    /// The reading that took the shortest time.
    fn look(&self) -> io::Result<Difference> {
        let mut best = self.read()?;
        for _ in 1..SAMPLES {
            let next = self.read()?;
            if next.uncertainty_ns < best.uncertainty_ns {
                best = next;
            }
        }
        Ok(best)
    }

    fn read(&self) -> io::Result<Difference> {
        let before_ns = now_unix_ns();
        let host_ns = read_clock(&self.0)?;
        Ok(difference(before_ns, host_ns, now_unix_ns()))
    }
}

/// A clock device's time in nanoseconds since the epoch.
fn read_clock(device: &File) -> io::Result<i64> {
    // FD_TO_CLOCKID of <linux/posix-timers.h>.
    const CLOCK_OF_DESCRIPTOR: nix::libc::clockid_t = 3;
    let clock = ClockId::from_raw((!device.as_raw_fd() << 3) | CLOCK_OF_DESCRIPTOR);
    let time = clock_gettime(clock)?;
    Ok(time
        .tv_sec()
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec()))
}

fn difference(before_ns: i64, host_ns: i64, after_ns: i64) -> Difference {
    let half_ns = after_ns.saturating_sub(before_ns) / 2;
    Difference {
        ahead_ns: before_ns.saturating_add(half_ns).saturating_sub(host_ns),
        // The clock may be set between the two readings.
        uncertainty_ns: half_ns.saturating_abs(),
    }
}

/// Looks for the host's clock, once the module that offers it is loaded, and steps the guest's clock to it.
pub fn find_host_clock() {
    let Some(clock) = HostClock::find() else {
        return;
    };
    let clock = HOST_CLOCK.get_or_init(|| clock);
    match follow(clock, false) {
        Ok(()) => console::info("the clock follows the host's by ptp_kvm"),
        Err(error) => console::warn(&format!("reading the host's clock: {error}")),
    }
}

/// Follows the host's clock for ever; returns at once if the hypervisor does not offer its time.
pub async fn follow_host(task_runs: impl Fn() -> bool) {
    let Some(clock) = HOST_CLOCK.get() else {
        return;
    };
    loop {
        sleep(PAUSE).await;
        // If the host stops offering its time (it has changed its clock source), the supervisor takes over.
        let _ = follow(clock, task_runs());
    }
}

/// True if the latest measurement of the host's clock succeeded.
pub fn follows_host() -> bool {
    FOLLOWS_HOST.load(Ordering::Relaxed)
}

fn follow(clock: &HostClock, task_runs: bool) -> io::Result<()> {
    let looked = clock.look();
    FOLLOWS_HOST.store(looked.is_ok(), Ordering::Relaxed);
    let Difference {
        ahead_ns,
        uncertainty_ns,
    } = looked?;
    if ahead_ns.saturating_abs() <= uncertainty_ns {
        return Ok(());
    }
    adjust(ahead_ns.saturating_neg(), task_runs)
}

pub fn now_unix_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[derive(Debug, PartialEq)]
enum Correction {
    Nothing,
    Slew,
    Step,
}

fn correction(adjust_ns: i64, task_runs: bool) -> Correction {
    match adjust_ns.unsigned_abs() {
        0 => Correction::Nothing,
        1..=MAX_SLEW_NS if task_runs => Correction::Slew,
        _ => Correction::Step,
    }
}

/// Adds the nanoseconds to the clock.
pub fn adjust(adjust_ns: i64, task_runs: bool) -> io::Result<()> {
    match correction(adjust_ns, task_runs) {
        Correction::Nothing => Ok(()),
        Correction::Slew => machine::slew_clock(adjust_ns),
        Correction::Step => {
            // The rest of an earlier slew was a correction of the old clock.
            machine::slew_clock(0)?;
            machine::step_clock(adjust_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_half_way_between_two_looks_at_the_own_clock() {
        let seen = |ahead_ns, uncertainty_ns| Difference {
            ahead_ns,
            uncertainty_ns,
        };
        assert_eq!(difference(1_000, 1_050, 1_200), seen(50, 100));
        assert_eq!(difference(1_000, 9_000, 1_200), seen(-7_900, 100));
        assert_eq!(difference(1_200, 1_100, 1_000), seen(0, 100));
        assert_eq!(
            difference(0, i64::MIN, i64::MAX),
            seen(i64::MAX, i64::MAX / 2)
        );
    }

    #[test]
    fn a_running_task_sees_small_differences_as_another_speed() {
        assert_eq!(correction(0, true), Correction::Nothing);
        assert_eq!(correction(5_000_000, true), Correction::Slew);
        assert_eq!(correction(-5_000_000, true), Correction::Slew);
        assert_eq!(correction(-5_000_001, true), Correction::Step);
        assert_eq!(correction(1, false), Correction::Step);
        assert_eq!(correction(i64::MIN, true), Correction::Step);
    }
}
