//! What single processes of the task use, for whoever looks for the one that takes it all.

use litegix_protocol::guest::ProcessFigures;
use std::fs;

/// More would take too long for an answer that is asked for every second.
const MOST: usize = 32;
/// Of the times in /proc/PID/stat, on every Linux of this architecture.
const US_A_TICK: u64 = 10_000;
const PAGE_BYTES: u64 = 4096;

/// Of the first processes among those given that are still there.
pub fn figures(pids: &[i32]) -> Vec<ProcessFigures> {
    pids.iter().take(MOST).filter_map(|pid| of(*pid)).collect()
}

fn of(pid: i32) -> Option<ProcessFigures> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let (cpu_user_us, cpu_system_us, resident_bytes) = usage(&read("stat")?)?;
    Some(ProcessFigures {
        pid: innermost_pid(&read("status")?)?,
        cpu_user_us,
        cpu_system_us,
        resident_bytes,
    })
}

/// User and system time and resident memory. A program's name may hold anything, also what ends it here.
fn usage(stat: &str) -> Option<(u64, u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // The first one here is the third of proc(5).
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(8)?.parse().ok()?;
    Some((user * US_A_TICK, system * US_A_TICK, pages * PAGE_BYTES))
}

/// The id in the namespace that the process itself is in.
fn innermost_pid(status: &str) -> Option<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_is_found() {
        let own = std::process::id();
        let [figures] = figures(&[own.cast_signed(), i32::MAX])
            .try_into()
            .expect("one");
        assert!(figures.resident_bytes > 1 << 16);
        assert_eq!(innermost_pid("Name:\tx\nNSpid:\t412\t7\n"), Some(7));
    }

    #[test]
    fn a_name_can_not_forge_the_figures() {
        let stat = "7 (a) 1 2 3 4) R 1 7 7 0 -1 0 0 0 0 0 123 45 0 0 20 0 1 0 99 4096 12 0";
        assert_eq!(usage(stat), Some((1_230_000, 450_000, 12 * 4096)));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = (usage(&text), innermost_pid(&text));
        }
    }
}
