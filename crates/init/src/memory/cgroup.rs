//! Control groups (version 2): one for init, one for the task; the task's figures and its out-of-memory count.

use crate::console;
use crate::memory::victim;
use litegix_sys::descriptors;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;

const ROOT: &str = "/sys/fs/cgroup";
const TASKS: &str = "/sys/fs/cgroup/nomad";
const AGENT: &str = "/sys/fs/cgroup/agent";

/// Kept from the task, so that a task out of memory meets its own limit and never the whole machine's. There the kernel
/// might pick init's helpers. The first is taken from all memory, the second from the memory left once the machine is up.
const RESERVE_BYTES: u64 = 32 << 20;
const RESERVE_AVAILABLE_BYTES: u64 = 16 << 20;
const RESERVE_PROCESSES: u64 = 256;

/// The task's limit by the kernel's figures; none on a machine too small to give anything away.
fn memory_limit(meminfo: &str) -> Option<u64> {
    let total = field(meminfo, "MemTotal:")? * 1024;
    let available = field(meminfo, "MemAvailable:")? * 1024;
    let limit =
        (total.checked_sub(RESERVE_BYTES)?).min(available.checked_sub(RESERVE_AVAILABLE_BYTES)?);
    (limit >= RESERVE_AVAILABLE_BYTES).then_some(limit)
}

/// The kernel's own limits, less a reserve for init and its helpers: a task that forks without end must not keep an
/// exec session from starting a second stage.
fn max_processes(pid_max: u64, threads_max: u64) -> u64 {
    let all = pid_max.min(threads_max);
    all - (all / 8).min(RESERVE_PROCESSES)
}

/// Enables every controller for children, one at a time: a kernel that refuses one shall not lose the others.
fn enable_controllers(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_ascii_whitespace() {
        console::warn_on_error(
            controller,
            fs::write(
                group.join("cgroup.subtree_control"),
                format!("+{controller}"),
            ),
        );
    }
}

pub fn prepare() {
    enable_controllers(Path::new(ROOT));
    for group in [AGENT, TASKS] {
        console::warn_on_error(group, fs::create_dir_all(group));
    }
    enable_controllers(Path::new(TASKS));
    console::warn_on_error(AGENT, fs::write(format!("{AGENT}/cgroup.procs"), "0"));
    let _ = fs::write(format!("{AGENT}/memory.min"), (16 << 20).to_string());
    let _ = fs::write(format!("{AGENT}/cpu.weight"), "1000");
}

/// A name that is one path component, of a kind that Nomad's conformance test accepts.
pub fn valid_name(name: &str) -> bool {
    name.len() <= 200
        && name.ends_with(".scope")
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[derive(Clone, Debug)]
pub struct TaskGroup {
    path: PathBuf,
    /// Processes that init has killed in the kernel's place.
    kills: Arc<AtomicU64>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Figures {
    pub cpu_usage_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    pub memory_current: u64,
    pub memory_peak: u64,
    pub memory_anon: u64,
    pub memory_file: u64,
    pub memory_kernel: u64,
    pub memory_swap: u64,
    pub pids: u64,
}

/// Figures that show whether a group is out of memory in all but name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub limit: u64,
    pub current: u64,
    pub file: u64,
    /// Pages of files that had been reclaimed and were needed again, since the group's beginning.
    pub file_refaults: u64,
    /// The number of times that a process had to wait for a page of its own (a program's or a mapped file's, unlike
    /// reading a file), since the group's beginning.
    pub major_faults: u64,
}

impl TaskGroup {
    /// `pids_limit` 0 leaves the number of processes to the kernel's limit.
    pub fn create(name: &str, pids_limit: u64) -> io::Result<Self> {
        let path = Path::new(TASKS).join(name);
        fs::create_dir_all(&path)?;
        let group = Self {
            path,
            kills: Arc::default(),
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        if let Some(limit) = memory_limit(&meminfo) {
            console::warn_on_error(
                "memory.max",
                fs::write(group.file("memory.max"), limit.to_string()),
            );
        }
        let number = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or(u64::MAX)
        };
        let bearable = max_processes(
            number("/proc/sys/kernel/pid_max"),
            number("/proc/sys/kernel/threads-max"),
        );
        let most = match pids_limit {
            0 => bearable,
            limit => limit.min(bearable),
        };
        console::warn_on_error(
            "pids.max",
            fs::write(group.file("pids.max"), most.to_string()),
        );
        Ok(group)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file that takes the id of a process that shall move into the group.
    pub fn processes_file(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    pub fn processes(&self) -> Vec<i32> {
        fs::read_to_string(self.processes_file())
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 1)
            .collect()
    }

    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.file("cgroup.kill"), "1")
    }

    pub fn populated(&self) -> bool {
        fs::read_to_string(self.file("cgroup.events"))
            .ok()
            .and_then(|text| field(&text, "populated"))
            == Some(1)
    }

    /// The number of the group's processes that the kernel, or init in its place, has killed because memory ran out.
    pub fn oom_kills(&self) -> u64 {
        let by_kernel = fs::read_to_string(self.file("memory.events"))
            .ok()
            .and_then(|text| field(&text, "oom_kill"))
            .unwrap_or(0);
        by_kernel + self.kills.load(Ordering::Relaxed)
    }

    /// Waits until the group meets its limit, or has another event of the kind. Events before the call don't count: a
    /// task that is short of memory meets the limit again and again.
    pub async fn memory_event(&self) -> io::Result<()> {
        let mut file = File::open(self.file("memory.events"))?;
        // The kernel reports events since the last read (kernfs_fop_poll).
        io::copy(&mut file, &mut io::sink())?;
        let events = descriptors::watch_for(file.into(), Interest::PRIORITY)?;
        events.ready(Interest::PRIORITY).await?.retain_ready();
        Ok(())
    }

    /// None if there is no limit, or no such group any more.
    pub fn memory(&self) -> Option<Memory> {
        let text = |name: &str| fs::read_to_string(self.file(name)).ok();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let details = text("memory.stat")?;
        Some(Memory {
            limit: number("memory.max")?,
            current: number("memory.current")?,
            file: field(&details, "file")?,
            file_refaults: field(&details, "workingset_refault_file")
                // Kernels before 5.9.
                .or_else(|| field(&details, "workingset_refault"))?,
            major_faults: field(&details, "pgmajfault")?,
        })
    }

    /// Ends the process that the kernel would end if memory ran out; it counts as killed by the kernel. None if no
    /// process is left that may be killed.
    pub fn kill_for_memory(&self) -> Option<i32> {
        let killed = victim::kill(&self.processes());
        if killed.is_some() {
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
        killed
    }

    pub fn figures(&self) -> Figures {
        let text = |name: &str| fs::read_to_string(self.file(name)).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse().unwrap_or(0);
        let cpu = text("cpu.stat");
        let memory = text("memory.stat");
        let of = |text: &str, key: &str| field(text, key).unwrap_or(0);
        let current = number("memory.current");
        Figures {
            cpu_usage_us: of(&cpu, "usage_usec"),
            cpu_user_us: of(&cpu, "user_usec"),
            cpu_system_us: of(&cpu, "system_usec"),
            memory_current: current,
            // Kernels before 5.19 do not keep a peak.
            memory_peak: number("memory.peak").max(current),
            memory_anon: of(&memory, "anon"),
            memory_file: of(&memory, "file"),
            // Kernels before 5.18 do not sum it up.
            memory_kernel: field(&memory, "kernel").unwrap_or_else(|| {
                of(&memory, "kernel_stack") + of(&memory, "slab") + of(&memory, "pagetables")
            }),
            memory_swap: number("memory.swap.current"),
            pids: number("pids.current"),
        }
    }
}

/// The number beside a key in a "key value" file.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_components() {
        assert!(valid_name("0a1b.web.scope"));
        for bad in ["", ".scope", "../x.scope", "a/b.scope", "web", "a b.scope"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_limit_leaves_room_for_the_machine() {
        let info = |total: u64, available: u64| {
            format!(
                "MemTotal: {} kB\nMemAvailable: {} kB\n",
                total << 10,
                available << 10
            )
        };
        assert_eq!(memory_limit(&info(157, 120)), Some(104 << 20));
        assert_eq!(memory_limit(&info(2000, 1990)), Some(1968 << 20));
        assert_eq!(memory_limit(&info(64, 20)), None);
        assert_eq!(memory_limit(""), None);
    }

    #[test]
    fn some_processes_are_kept_for_init() {
        assert_eq!(max_processes(32_768, 1024), 896);
        assert_eq!(max_processes(32_768, u64::MAX), 32_512);
    }

    #[test]
    fn fields_are_found_by_their_whole_key() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\nodd\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "odd"), None);
        assert_eq!(field(text, "missing"), None);
    }
}
