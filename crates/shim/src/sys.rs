//! The only module with `unsafe`: what children need between fork and exec, and FIFOs without blocking.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// The child dies with this process, and leads a session of its own. The kernel ties the first to the thread that forks,
/// so this program starts children on its main thread only. A child that changes its user is no longer tied: the driver
/// ends it by its cgroup.
pub fn tie_to_parent(command: &mut Command, other_pid_namespace: bool) {
    // A parent outside the child's process namespace is 0 to it.
    let parent = if other_pid_namespace {
        0
    } else {
        std::process::id()
    };
    let before_exec = move || {
        // SAFETY: system calls only, without memory.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 || libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            // Died between the fork and prctl: nobody would send the signal any more.
            if libc::getppid().unsigned_abs() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe.
    unsafe { command.pre_exec(before_exec) };
}

/// A file that is seen in the place of another.
pub struct Bind {
    pub source: CString,
    pub target: CString,
    pub read_only: bool,
}

/// The child joins the cgroups whose `cgroup.procs` are given and, if there are binds, a mount namespace of its own with them.
pub fn isolate(command: &mut Command, cgroup_procs: Vec<CString>, binds: Vec<Bind>) {
    let before_exec = move || {
        for path in &cgroup_procs {
            join_cgroup(path)?;
        }
        if binds.is_empty() {
            return Ok(());
        }
        // SAFETY: no memory is involved.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // What is mounted here must not show on the host.
        mount(None, c"/", libc::MS_SLAVE | libc::MS_REC)?;
        for bind in &binds {
            mount(Some(&bind.source), &bind.target, libc::MS_BIND)?;
            if bind.read_only {
                let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
                mount(
                    None,
                    &bind.target,
                    flags | libc::MS_NOSUID | libc::MS_NOEXEC,
                )?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe: system calls on memory that was allocated before the fork.
    unsafe { command.pre_exec(before_exec) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// "0" is the writer itself.
fn join_cgroup(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends with NUL; the descriptor is closed on each way.
    unsafe {
        let fd = check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        let written = libc::write(fd, c"0".as_ptr().cast(), 1);
        let error = io::Error::last_os_error();
        libc::close(fd);
        if written == 1 { Ok(()) } else { Err(error) }
    }
}

fn mount(source: Option<&CStr>, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the texts end with NUL; null is allowed for the others.
    check(unsafe {
        libc::mount(
            source,
            target.as_ptr(),
            std::ptr::null(),
            flags,
            std::ptr::null(),
        )
    })?;
    Ok(())
}

/// What `spawn` forks is the first process of a new process namespace, and its direct parent is this process. Threads must
/// not be made meanwhile; their namespace would be another than this thread's, which the kernel refuses.
pub fn in_new_pid_namespace<T>(spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = File::open("/proc/self/ns/pid")?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    let spawned = spawn();
    // SAFETY: the descriptor is open.
    check(unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWPID) })?;
    spawned
}

/// A pipe, both ends close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors; on success both are ours.
    unsafe {
        if libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// For bulk data: with the usual 64 KiB reader and writer would take turns. No error where the kernel refuses the size.
pub fn widen_pipe(fd: &impl AsRawFd) {
    const WIDE: libc::c_int = 256 << 10;
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, WIDE) };
}

/// Moves up to so many bytes from a socket into a pipe, as far as both can without waiting. Their pages are not copied.
pub fn splice(socket: &impl AsRawFd, pipe: &impl AsRawFd, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    let (from, to) = (socket.as_raw_fd(), pipe.as_raw_fd());
    // SAFETY: no offsets are given, so no memory is involved.
    let count = unsafe { libc::splice(from, none, to, none, most, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// What can be read from a socket without waiting.
pub fn bytes_waiting(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut count) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A FIFO's descriptor, already non-blocking, for use in the runtime.
pub fn watch(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File keeps its one descriptor open until it is dropped, and nobody exchanges the File inside.
    unsafe { AsyncFd::register(file) }.map_err(Into::into)
}

/// Tells when somebody sets the host's wall clock: a timer that is never due, and that such a change cancels.
pub struct ClockWatch(AsyncFd<File>);

impl ClockWatch {
    pub fn new() -> io::Result<Self> {
        /// In the year 2255; timers in the kernel's far future are refused.
        const NEVER_UNIX_S: libc::time_t = 9_000_000_000;
        let never = libc::timespec {
            tv_sec: NEVER_UNIX_S,
            tv_nsec: 0,
        };
        let once = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: never,
        };
        // SAFETY: the descriptor is ours on success; the kernel reads one itimerspec.
        let timer = unsafe {
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            let timer =
                OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_REALTIME, flags))?);
            check(libc::timerfd_settime(
                timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET,
                &raw const once,
                std::ptr::null_mut(),
            ))?;
            timer
        };
        watch(File::from(timer)).map(Self)
    }

    /// Resolves when the clock was set.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return std::future::pending().await;
            };
            let read = ready.try_io(|timer| timer.get_ref().read(&mut [0; 8]));
            if matches!(read, Ok(Err(error)) if error.raw_os_error() == Some(libc::ECANCELED)) {
                return;
            }
        }
    }
}
