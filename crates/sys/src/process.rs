//! Processes: clones, signals, reaping. `nix` has most of these calls, but does not know real-time signals. Its `kill`
//! can't send them, its `waitpid` loses a process that one has ended, and its `SigSet::wait` loses one that arrives.

use crate::{check, check_long};
use nix::sched::CloneFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The side of `clone_sibling` that this is.
pub enum Side {
    Parent(i32),
    Child,
}

/// Forks with the given namespace flags. The child is a child of this process's parent, who can then wait for it. Only
/// a process with one thread may call it.
pub fn clone_sibling(namespaces: CloneFlags) -> io::Result<Side> {
    let flags = namespaces.bits() | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: no new stack and no shared memory: this is fork. With one thread there is no lock another could hold.
    let pid = check_long(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_int>(),
            std::ptr::null_mut::<libc::c_int>(),
            0_usize,
        )
    })?;
    // Process ids fit in an int.
    Ok(if pid == 0 {
        Side::Child
    } else {
        Side::Parent(pid as i32)
    })
}

pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: on success the descriptor is ours; descriptors fit in an int.
    unsafe {
        let fd = check_long(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
    }
}

pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: without siginfo no memory is involved.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// kill(2): a process, or with a negative id a process group.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// One child that has ended, if any: its id and raw wait status.
pub fn reap_any() -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: writes one int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid > 0 {
            return Some((pid, status));
        }
        if pid == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// True if it is a child of this process that has not been reaped.
pub fn is_child(pid: i32) -> bool {
    let Ok(pid) = libc::id_t::try_from(pid) else {
        return false;
    };
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo is plain data for which zero is a value; waitid writes one, and reaps nobody.
    unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid, &raw mut found, how) == 0
    }
}

/// (exit code, signal) of a raw wait status; 128 + signal if a signal ended the process.
pub fn decode_status(status: i32) -> (i32, i32) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, signal)
    } else {
        (libc::WEXITSTATUS(status), 0)
    }
}

/// Ignores signals that could only harm init; handlers for others are the runtime's.
pub fn ignore_terminal_signals() {
    for signal in [
        libc::SIGPIPE,
        libc::SIGHUP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGTERM,
    ] {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// All dispositions to their default, nothing blocked: ignored signals would otherwise pass to the program.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition; an error (KILL, STOP, the two that libc keeps) changes nothing. The set
    // is initialised before its use.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// fork(2). Only a process with one thread may call it.
pub fn fork() -> io::Result<Side> {
    // SAFETY: with one thread there is no lock another could hold.
    let pid = check(unsafe { libc::fork() })?;
    Ok(if pid == 0 {
        Side::Child
    } else {
        Side::Parent(pid)
    })
}

/// Blocks every signal, so that `next_signal` gets them.
pub fn block_signals() {
    // SAFETY: the set is initialised before its use.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Waits for a blocked signal. None: interrupted.
pub fn next_signal() -> Option<i32> {
    // SAFETY: the set is initialised before its use.
    let signal = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    (signal > 0).then_some(signal)
}

/// Closes everything from `first` up.
pub fn close_from(first: u32) {
    // SAFETY: no owner of these descriptors runs any more code in this process.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// Marks everything from `first` up close-on-exec.
pub fn close_from_on_exec(first: u32) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no memory is involved. Kernels before 5.11 refuse the flag; all our descriptors carry it anyway.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Ends this process at once, running no destructors.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}
