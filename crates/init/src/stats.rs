//! What the task uses, and init itself, as the host is told.

use crate::cgroup::TaskGroup;
use crate::{own_figures, task_processes};
use litegix_protocol::guest::StatsResponse;

pub fn of(group: &TaskGroup) -> StatsResponse {
    let figures = group.figures();
    let own = own_figures::read();
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
        processes: task_processes::figures(&group.processes()),
    }
}
