//! Resource use of the task, of its processes one by one, and of init itself. A guest runs for months, so a leak of
//! init's would show in these figures.

use crate::memory::cgroup::TaskGroup;
use litegix_protocol::guest::{ProcessFigures, StatsResponse};
use litegix_sys::proc_stat::Stat;
use std::fs;

/// More would take too long for an answer that the host requests every second.
const MAX_PROCESSES: usize = 32;
/// A clock tick of /proc/PID/stat, on every Linux of this architecture.
const US_A_TICK: u64 = 10_000;
const PAGE_BYTES: u64 = 4096;

pub fn of(group: &TaskGroup) -> StatsResponse {
    let figures = group.figures();
    let own = own_figures();
    StatsResponse {
        cpu_usage_us: figures.cpu_usage_us,
        cpu_user_us: figures.cpu_user_us,
        cpu_system_us: figures.cpu_system_us,
        memory_current_bytes: figures.memory_current,
        memory_peak_bytes: figures.memory_peak,
        memory_anon_bytes: figures.memory_anon,
        memory_file_bytes: figures.memory_file,
        memory_kernel_bytes: figures.memory_kernel,
        memory_swap_bytes: figures.memory_swap,
        pids: figures.pids,
        init_resident_bytes: own.resident_bytes,
        init_descriptors: own.descriptors,
        init_children: own.children,
        oom_kills: group.oom_kills(),
        processes: process_figures(&group.processes()),
    }
}

#[derive(Debug, Default, PartialEq)]
struct OwnFigures {
    resident_bytes: u64,
    descriptors: u32,
    /// Including ended ones that have not been reaped.
    children: u32,
}

fn own_figures() -> OwnFigures {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let entries = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let children: usize = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default())
        .map(|children| children.split_ascii_whitespace().count())
        .sum();
    OwnFigures {
        resident_bytes: resident_bytes(&status).unwrap_or(0),
        // The directory's own descriptor is among them.
        descriptors: u32::try_from(entries.saturating_sub(1)).unwrap_or(u32::MAX),
        children: u32::try_from(children).unwrap_or(u32::MAX),
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Figures of the first processes among those given, without those that have ended.
fn process_figures(pids: &[i32]) -> Vec<ProcessFigures> {
    pids.iter()
        .take(MAX_PROCESSES)
        .filter_map(|pid| process(*pid))
        .collect()
}

fn process(pid: i32) -> Option<ProcessFigures> {
    let stat = Stat::of(u32::try_from(pid).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(ProcessFigures {
        pid: innermost_pid(&status)?,
        cpu_user_us: stat.user_time.saturating_mul(US_A_TICK),
        cpu_system_us: stat.system_time.saturating_mul(US_A_TICK),
        resident_bytes: stat.resident_pages.saturating_mul(PAGE_BYTES),
    })
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
    fn the_figures_of_this_process_are_plausible() {
        let figures = own_figures();
        assert!(figures.resident_bytes > 1 << 16);
        assert!(figures.descriptors >= 3);
        assert_eq!(
            resident_bytes("VmSize:\t 9 kB\nVmRSS:\t  12 kB\n"),
            Some(12_288)
        );
        assert_eq!(resident_bytes(""), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = std::process::id();
        let [figures] = process_figures(&[own.cast_signed(), i32::MAX])
            .try_into()
            .expect("one");
        assert!(figures.resident_bytes > 1 << 16);
        assert_eq!(innermost_pid("Name:\tx\nNSpid:\t412\t7\n"), Some(7));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = (resident_bytes(&text), innermost_pid(&text));
        }
    }
}
