//! Lists of the system calls that a program needs. Any other ends it (SIGSYS).

use super::fault::{Context, Fault};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::ffi::OsStr;
use std::io;

/// QEMU's vsock device: a static program of a few threads that moves bytes between unix sockets and memory that QEMU
/// shares with it. Measured with strace over starts, sessions, bulk data and ends; beside those calls, ones that a C
/// library may use in their place. None of them opens or makes a file but `open`, for what the library reads at the start.
const VSOCK: &[i64] = &[];

pub fn compile(name: &OsStr) -> Result<BpfProgram, Fault> {
    let what = || format!("make the filter {}", name.display());
    let calls = match name.to_str() {
        Some("vsock") => VSOCK,
        _ => return Err(io::Error::from(io::ErrorKind::NotFound)).context(what),
    };
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .and_then(BpfProgram::try_from)
    .map_err(io::Error::other)
    .context(what)
}

/// For this thread, and the program that it becomes.
pub fn apply(filter: &BpfProgram) -> Result<(), Fault> {
    seccompiler::apply_filter(filter)
        .map_err(io::Error::other)
        .context(|| "set the filter".to_owned())
}
