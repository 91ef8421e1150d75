//! The supervisor gives up its rights once its VM's processes run and all its files are open, before it reads the first byte
//! of the guest's. From then on:
//!
//! - Its file system is the VM's directory, read-only. All that it writes goes through descriptors that are open by now.
//! - It is alone in a network, an IPC, a UTS and a cgroup namespace. Sockets that it has stay in the host's network.
//! - It has two capabilities. `CAP_KILL` ends a VMM of another user, also by the parent-death signal. `CAP_DAC_OVERRIDE`
//!   connects to the VM user's vsock socket, whose mode lets its owner alone; no other file can be reached with it.
//! - A list of system calls. Any other fails with `EPERM` rather than ending the process: an unforeseen call must not cost the
//!   record of the task's end. No process can be started, no memory made executable, and only the VM's processes get a signal.

use litegix_sys::rights;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{chdir, pivot_root};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use thiserror::Error;

/// Bits of the capability sets; linux/capability.h.
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_KILL: u64 = 1 << 5;
/// Many times as large as any file that it writes.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, Error)]
#[error("the VM's supervisor can't {step}: {source}")]
pub struct RightsError {
    step: &'static str,
    source: io::Error,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, RightsError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, RightsError> {
        self.map_err(|source| RightsError {
            step,
            source: source.into(),
        })
    }
}

/// For the whole process, for ever. `children` are the processes that it may signal. The VM's directory is the root from then on.
pub fn give_up(directory: &Path, children: &[u32]) -> Result<(), RightsError> {
    let filter = filter(children)
        .map_err(io::Error::other)
        .step("make its filter of system calls")?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).step("make its namespaces")?;
    narrow_root(directory).step("leave the host's file system")?;
    setrlimit(Resource::RLIMIT_FSIZE, MAX_FILE_BYTES, MAX_FILE_BYTES).step("limit its files")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).step("turn its core dumps off")?;
    let kept = CAP_DAC_OVERRIDE | CAP_KILL;
    rights::limit_bounding_set(0).step("empty its bounding set")?;
    rights::clear_ambient_set().step("empty its ambient set")?;
    rights::set_capabilities(kept).step("drop its capabilities")?;
    // Sets no_new_privs too.
    apply_filter_all_threads(&filter)
        .map_err(io::Error::other)
        .step("filter its system calls")
}

/// The directory, read-only and without what is mounted in it, becomes the root; nothing else stays mounted.
fn narrow_root(directory: &Path) -> nix::Result<()> {
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?;
    let read_only = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(none, directory, none, read_only, none)?;
    chdir(directory)?;
    // The old root comes to lie on the new one (pivot_root(2), NOTES).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

/// Allowed with any arguments: descriptors that it has, memory, time, its own end. Measured with strace over the end-to-end
/// tests; beside those calls, ones that a C library may use in their place.
const CALLS: &[i64] = &[
    // Connections and the logs.
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_splice,
    libc::SYS_write,
    libc::SYS_writev,
    // Files: the record, the VMM's output.
    libc::SYS_copy_file_range,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_sendfile,
    libc::SYS_statx,
    // Waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // The VM's processes.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Itself.
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// Requests of fcntl(2) and ioctl(2) that change or report nothing but the descriptor itself.
const FCNTL: [i32; 5] = [
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
];
const IOCTL: [i32; 2] = [libc::FIONBIO as i32, libc::FIONREAD as i32];

type Conditions = Result<Vec<SeccompCondition>, BackendError>;

/// Allows the calls above, and others with some arguments. `children` are the processes that it may kill.
fn filter(children: &[u32]) -> Result<BpfProgram, BackendError> {
    let own = std::process::id();
    let conditional: [(i64, Vec<Conditions>); 8] = [
        (libc::SYS_socket, vec![all([is(0, libc::AF_UNIX)])]),
        // By paths alone: a descriptor of a directory may be of the host's file system.
        (libc::SYS_openat, vec![all([is(0, libc::AT_FDCWD)])]),
        // Root could make the kernel send a descriptor's signals to any process: F_SETOWN, FIOSETOWN.
        (libc::SYS_fcntl, FCNTL.map(|it| all([is(1, it)])).into()),
        (libc::SYS_ioctl, IOCTL.map(|it| all([is(1, it)])).into()),
        (libc::SYS_mmap, vec![all([not_executable()])]),
        (libc::SYS_mprotect, vec![all([not_executable()])]),
        (
            libc::SYS_kill,
            children
                .iter()
                .map(|child| all([is_pid(0, *child), is(1, libc::SIGKILL)]))
                .collect(),
        ),
        // abort(3).
        (libc::SYS_tgkill, vec![all([is_pid(0, own)])]),
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    for (call, alternatives) in conditional {
        let alternatives = alternatives.into_iter().map(|it| SeccompRule::new(it?));
        rules.insert(call, alternatives.collect::<Result<_, _>>()?);
    }
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let target = TargetArch::x86_64;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, target)?.try_into()
}

fn all<const COUNT: usize>(
    conditions: [Result<SeccompCondition, BackendError>; COUNT],
) -> Conditions {
    conditions.into_iter().collect()
}

fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    is_pid(argument, value.cast_unsigned())
}

fn is_pid(argument: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    let size = SeccompCmpArgLen::Dword;
    SeccompCondition::new(argument, size, SeccompCmpOp::Eq, value.into())
}

/// The memory's protection is the third argument of mmap(2) and mprotect(2).
fn not_executable() -> Result<SeccompCondition, BackendError> {
    let bits = SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into());
    SeccompCondition::new(2, SeccompCmpArgLen::Dword, bits, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_sys::process;
    use std::fs::{self, File};
    use std::io::Write;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    const DIRECTORY: &str = "LITEGIX_RIGHTS_TEST";

    /// Runs `a_process_without_rights` in a process of its own, which keeps nothing but its descriptors.
    #[test]
    fn what_is_given_up_is_gone_and_the_rest_works() {
        let name = format!("litegix-rights-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("directory");
        let listener = UnixListener::bind(directory.join("v.sock")).expect("socket");
        let child = Command::new(std::env::current_exe().expect("test"))
            .args(["--exact", "vm::rights::tests::a_process_without_rights"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &directory)
            .output()
            .expect("test process");
        let output = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(
            child.status.success(),
            "{output}{}",
            String::from_utf8_lossy(&child.stderr)
        );
        if output.contains("skipped") {
            return eprintln!("skipped: namespaces need root");
        }
        assert_eq!(
            fs::read_to_string(directory.join("open")).expect("file"),
            "written"
        );
        assert!(!directory.join("new").exists());
        listener.set_nonblocking(true).expect("socket");
        listener.accept().expect("its connection");
        fs::remove_dir_all(directory).expect("clean-up");
    }

    fn is_denied<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    #[ignore = "the other test runs it"]
    fn a_process_without_rights() {
        let directory = std::env::var_os(DIRECTORY).expect("directory");
        let directory = Path::new(&directory);
        let mut open = File::create(directory.join("open")).expect("file");
        // It holds none of this process's pipes: the parent reads them to their end.
        let mut sleep = Command::new("sleep");
        let sleep = sleep.arg("20").stdout(Stdio::null()).stderr(Stdio::null());
        let mut own = sleep.spawn().expect("sleep");
        if let Err(error) = give_up(directory, &[own.id()]) {
            own.kill().expect("kill");
            own.wait().expect("the child's end");
            assert_eq!(error.source.raw_os_error(), Some(libc::EPERM), "{error}");
            return println!("skipped");
        }
        open.write_all(b"written").expect("an open file");
        UnixStream::connect("/v.sock").expect("the guest's socket");
        assert!(Path::new("/open").exists());
        assert!(!Path::new("/proc").exists() && !Path::new("/etc").exists());
        let created = File::create("/new").map_err(|error| error.kind());
        assert_eq!(created.err(), Some(io::ErrorKind::ReadOnlyFilesystem));
        assert!(is_denied(Command::new("/open").spawn()));
        assert!(is_denied(std::thread::Builder::new().spawn(|| ())));
        assert!(is_denied(TcpListener::bind("127.0.0.1:0")));
        assert!(is_denied(UdpSocket::bind("127.0.0.1:0")));
        assert!(is_denied(fs::remove_file("/v.sock")));
        let signal = |pid: u32, signal| process::kill(pid.cast_signed(), signal);
        let parent = std::os::unix::process::parent_id();
        assert!(is_denied(signal(parent, libc::SIGKILL)));
        assert!(is_denied(signal(own.id(), libc::SIGSTOP)));
        signal(own.id(), libc::SIGKILL).expect("kill");
        own.wait().expect("the child's end");
    }
}
