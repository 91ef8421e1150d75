//! The file that lists, as long as the VM lives, its processes, with enough of each to recognise it again.

use crate::config::Config;
use crate::vm::children::Running;
use litegix_sys::proc_stat::Stat;
use serde::Serialize;
use std::fs;
use std::io;

#[derive(Serialize)]
struct State<'a> {
    shim_pid: u32,
    shim_start_time: u64,
    vmm_pid: u32,
    vmm_start_time: u64,
    processes: Vec<StateProcess<'a>>,
}

#[derive(Serialize)]
struct StateProcess<'a> {
    name: &'a str,
    pid: u32,
    start_time: u64,
}

pub fn write(config: &Config, vmm: &Running, helpers: &[Running]) -> io::Result<()> {
    let shim_pid = std::process::id();
    let state = State {
        shim_pid,
        shim_start_time: Stat::of(shim_pid).map_or(0, |stat| stat.start_time),
        vmm_pid: vmm.pid,
        vmm_start_time: vmm.start_time,
        processes: helpers
            .iter()
            .chain([vmm])
            .map(|process| StateProcess {
                name: &process.name,
                pid: process.pid,
                start_time: process.start_time,
            })
            .collect(),
    };
    // A reader sees the whole file or none.
    let mut temporary = config.state_file.clone().into_os_string();
    temporary.push(".new");
    fs::write(&temporary, serde_json::to_vec(&state)?)?;
    fs::rename(temporary, &config.state_file)
}
