//! The guest's wall clock. The host measures how far it is off and says how to correct it: only the host can know how old
//! a time is that it has sent.

use litegix_sys::machine;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// While a task runs, differences up to this are made up by a change of speed (which takes the kernel two seconds a
/// millisecond): programs must not see time run backwards for so little.
const LARGEST_SLEW_NS: u64 = 5_000_000;

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
        1..=LARGEST_SLEW_NS if task_runs => Correction::Slew,
        _ => Correction::Step,
    }
}

/// Adds the nanoseconds to the clock.
pub fn adjust(adjust_ns: i64, task_runs: bool) -> io::Result<()> {
    match correction(adjust_ns, task_runs) {
        Correction::Nothing => Ok(()),
        Correction::Slew => machine::slew_clock(adjust_ns),
        Correction::Step => {
            // What is left of an earlier slew was for the clock as it was.
            machine::slew_clock(0)?;
            machine::step_clock(adjust_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
