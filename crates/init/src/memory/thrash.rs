//! A task that has filled its memory with data leaves the kernel only the pages of running programs to reclaim. Those
//! are read back from the image at once, reclaimed again, and so on. The kernel sees progress and kills nobody, for
//! minutes, while nothing in the task moves. Unless the task has `oom_watch` off, init notices this, and ends the process that
//! the kernel would end. The kernel can't do it: with its limit lowered below the memory that can't be reclaimed, it
//! does not stop at one victim if that one is slow to go.

use crate::console;
use crate::memory::cgroup::{Memory, TaskGroup};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const INTERVAL: Duration = Duration::from_secs(1);
/// A machine can be short of memory before its group meets the limit, e.g. after it gave memory back to the host.
const SELDOM: Duration = Duration::from_secs(30);
/// Time for the killed process to go, on a host with little CPU for its guest.
const VICTIM_DEADLINE: Duration = Duration::from_secs(30);
const VICTIM_PAUSE: Duration = Duration::from_millis(50);
/// This many samples in a row.
const STRIKES: u32 = 3;
/// All file pages must come back this many times a second.
const TURNOVERS: u64 = 4;
/// Reading through a file makes its pages come back, too. Programs whose own pages are missing also fault: more than
/// once a second for each of this many pages of files. As measured on an emulated machine: 5 and 37 faults for 16 pages
/// by two tasks that thrash, 0.2 by one that reads through a large file at 200 MB/s.
const PAGES_A_FAULT: u64 = 16;
/// A few pages that come and go do not matter.
const MIN_BYTES: u64 = 128 << 10;
const PAGE_BYTES: u64 = 4096;

/// Watches until it is dropped.
pub async fn watch(group: TaskGroup) {
    let mut before: Option<(Memory, Instant)> = None;
    let mut strikes = 0;
    loop {
        // Init seldom samples a task with room left: each sample wakes the machine up, and the figures are dear. If
        // waiting fails, it samples each time.
        let _ = timeout(SELDOM, group.memory_event()).await;
        sleep(INTERVAL).await;
        let Some(now) = group.memory() else {
            return;
        };
        let at = Instant::now();
        let thrashes = before
            .is_some_and(|(before, since)| thrashing(&before, &now, at.duration_since(since)));
        before = Some((now, at));
        strikes = if thrashes { strikes + 1 } else { 0 };
        if strikes == STRIKES {
            strikes = 0;
            let of = group.clone();
            // On a thread: a task may have hundreds of processes to look at.
            let killed = tokio::task::spawn_blocking(move || of.kill_for_memory()).await;
            let Ok(Some(victim)) = killed else {
                continue;
            };
            console::info(&format!(
                "out of memory: killed process {victim} of the task"
            ));
            // Its memory is in use until then, which must not count against another process.
            let gone = Instant::now() + VICTIM_DEADLINE;
            while group.processes().contains(&victim) && Instant::now() < gone {
                sleep(VICTIM_PAUSE).await;
            }
        }
    }
}

fn thrashing(before: &Memory, now: &Memory, elapsed: Duration) -> bool {
    let full = now.current >= now.limit - now.limit / 32;
    // If files have a fair share, the kernel can reclaim pages that no process needs at once.
    let squeezed = now.file <= now.limit / 16;
    let refaulted = now.file_refaults.saturating_sub(before.file_refaults) * PAGE_BYTES;
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let allowed = TURNOVERS * now.file.max(MIN_BYTES);
    let faults = now.major_faults.saturating_sub(before.major_faults);
    let faulting =
        faults * PAGES_A_FAULT * PAGE_BYTES * 1000 > now.file.saturating_mul(milliseconds);
    full && squeezed && faulting && refaulted > allowed.saturating_mul(milliseconds) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn memory(current_mib: u64, file_kib: u64, file_refaults: u64, major_faults: u64) -> Memory {
        Memory {
            limit: 100 << 20,
            current: current_mib << 20,
            file: file_kib << 10,
            file_refaults,
            major_faults,
        }
    }

    #[test]
    fn only_a_full_group_whose_programs_all_come_back_thrashes() {
        // As measured: two tasks that have filled memory; one whose programs are 1.2 MiB.
        let before = memory(100, 256, 10_000, 100);
        assert!(thrashing(&before, &memory(100, 256, 19_000, 250), SECOND));
        assert!(thrashing(&before, &memory(100, 1200, 15_200, 200), SECOND));
        assert!(!thrashing(
            &before,
            &memory(100, 256, 19_000, 250),
            SECOND * 60
        ));
        assert!(!thrashing(&before, &memory(90, 256, 19_000, 250), SECOND));
        assert!(!thrashing(&before, &memory(100, 256, 10_050, 250), SECOND));
        // Reading through files larger than the rest of memory, and larger than all of it.
        assert!(!thrashing(&before, &memory(100, 2900, 58_000, 110), SECOND));
        assert!(!thrashing(
            &before,
            &memory(100, 90 << 10, 15_000, 110),
            SECOND
        ));
    }
}
