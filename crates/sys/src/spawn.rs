//! Steps of a child process between fork and exec.

use crate::mounts;
use crate::tap::{TapSpec, make_tap, open_tap};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{getppid, setsid, write};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The child dies with this process, and leads a session of its own. The kernel ties it to the thread that forks, so the
/// caller must start children on its main thread only. A child that changes its user is no longer tied.
pub fn tie_to_parent(command: &mut Command, other_pid_namespace: bool) {
    // A parent outside the child's process namespace is 0 to it.
    let parent = if other_pid_namespace {
        0
    } else {
        std::process::id()
    };
    let before_exec = move || {
        // SAFETY: no memory is involved.
        crate::check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        setsid()?;
        // Died between the fork and prctl: no signal would come any more.
        if getppid().as_raw().unsigned_abs() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe: system calls without memory.
    unsafe { command.pre_exec(before_exec) };
}

/// A file that a process sees in the place of another.
pub struct Bind {
    pub source: CString,
    pub target: CString,
    pub read_only: bool,
}

/// A TAP that a child's program gets as an open descriptor.
pub struct TapDescriptor {
    pub name: CString,
    /// The file of the network namespace in which it is; none: the parent's.
    pub netns: Option<CString>,
    /// The descriptor's number. It must be above those of the parent, whose copies the child still uses.
    pub descriptor: RawFd,
}

/// A mount without a place (mounts.rs), and the file that it covers for the process.
pub struct Mount {
    pub mount: OwnedFd,
    pub target: CString,
}

/// A seccomp(2) filter. An empty one allows everything.
#[derive(Default)]
pub struct Filter(pub Vec<libc::sock_filter>);

/// The surroundings of a child's program.
pub struct Isolation {
    /// The `cgroup.procs` of the groups that it joins.
    pub cgroup_procs: Vec<CString>,
    /// Open descriptors.
    pub taps: Vec<TapDescriptor>,
    /// Made in its own network namespace, which must be among `namespaces`.
    pub own_taps: Vec<TapSpec>,
    /// Namespaces of its own, but for a process namespace, which only the parent can make.
    pub namespaces: CloneFlags,
    /// If there are any of these two, the child has a mount namespace of its own with them.
    pub binds: Vec<Bind>,
    pub mounts: Vec<Mount>,
    /// The parent must have CAP_SYS_ADMIN for it.
    pub filter: Filter,
}

/// The child enters these surroundings before its program runs, the cgroups first: they are the root of its cgroup namespace.
pub fn isolate(command: &mut Command, isolation: Isolation) {
    let Isolation {
        cgroup_procs,
        taps,
        own_taps,
        namespaces,
        binds,
        mounts,
        filter,
    } = isolation;
    let before_exec = move || {
        for path in &cgroup_procs {
            join_cgroup(path)?;
        }
        for tap in &taps {
            pass_tap(tap)?;
        }
        if !namespaces.is_empty() {
            unshare(namespaces)?;
        }
        for tap in &own_taps {
            make_tap(tap)?;
        }
        if !binds.is_empty() || !mounts.is_empty() {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // These mounts must not show on the host.
            mount_at(None, c"/", MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
        }
        for bind in &binds {
            mount_at(Some(&bind.source), &bind.target, MsFlags::MS_BIND)?;
            if bind.read_only {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                let closed = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                mount_at(None, &bind.target, flags | closed)?;
            }
        }
        for Mount { mount, target } in &mounts {
            mounts::attach(mount.as_fd(), target)?;
        }
        set_filter(&filter)
    };
    // SAFETY: the closure is async-signal-safe: system calls on memory that was allocated before the fork. `nix` passes a C
    // string on as it is.
    unsafe { command.pre_exec(before_exec) };
}

fn set_filter(Filter(instructions): &Filter) -> io::Result<()> {
    if instructions.is_empty() {
        return Ok(());
    }
    let program = libc::sock_fprog {
        // The kernel takes 4096 at most.
        len: instructions.len() as libc::c_ushort,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads as many instructions as it is told, and changes none.
    crate::check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

fn pass_tap(tap: &TapDescriptor) -> io::Result<()> {
    let opened = match &tap.netns {
        None => open_tap(&tap.name)?,
        Some(path) => {
            let own = open_namespace(c"/proc/self/ns/net")?;
            setns(open_namespace(path)?, CloneFlags::CLONE_NEWNET)?;
            let opened = open_tap(&tap.name);
            setns(own, CloneFlags::CLONE_NEWNET)?;
            opened?
        }
    };
    // SAFETY: no memory is involved. The copy stays open when the program starts.
    crate::check(unsafe { libc::dup2(opened.as_raw_fd(), tap.descriptor) }).map(drop)
}

fn open_namespace(path: &CStr) -> io::Result<OwnedFd> {
    Ok(open(
        path,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// "0" is the writer itself.
fn join_cgroup(path: &CStr) -> io::Result<()> {
    let group = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&group, b"0")?;
    Ok(())
}

fn mount_at(source: Option<&CStr>, target: &CStr, flags: MsFlags) -> io::Result<()> {
    mount(source, target, None::<&CStr>, flags, None::<&CStr>)?;
    Ok(())
}
