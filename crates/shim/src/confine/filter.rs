//! Lists of the system calls that a program needs. Any other ends it (SIGSYS).

use super::fault::{Context, Fault};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;

/// QEMU's vsock device: a static program with a few threads, which moves bytes between unix sockets and memory that QEMU
/// shares with it. Measured with strace over starts, sessions, bulk data and ends. Beside those calls there are ones that
/// a C library may use in their place.
const VSOCK: &[i64] = &[
    // The program itself, its memory and threads.
    libc::SYS_execve,
    libc::SYS_arch_prctl,
    libc::SYS_brk,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Files: the library asks for its own maps and program, which are not there.
    libc::SYS_access,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets and events.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

pub fn compile(name: &OsStr) -> Result<BpfProgram, Fault> {
    let what = || format!("make the filter {}", name.display());
    let calls = match name.to_str() {
        Some("vsock") => VSOCK,
        _ => return Err(io::Error::from(io::ErrorKind::NotFound)).context(what),
    };
    let mut rules: BTreeMap<_, _> = calls.iter().map(|&call| (call, Vec::new())).collect();
    let unix_only = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        libc::AF_UNIX as u64,
    )
    .and_then(|is_unix| SeccompRule::new(vec![is_unix]))
    .map_err(io::Error::other)
    .context(what)?;
    rules.insert(libc::SYS_socket, vec![unix_only]);
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
