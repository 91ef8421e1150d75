//! The first steps of PID 1, before the host can reach it: the kernel's file systems, modules, control groups,
//! loopback.

use crate::console;
use crate::machine::clock;
use crate::machine::layers;
use crate::machine::modules::Modules;
use crate::machine::restart::restart;
use crate::machine::steps;
use crate::memory::cgroup;
use crate::network;
use litegix_sys::process;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::LazyLock;
use std::thread;
use tokio::sync::watch;

/// As Docker allows a container. The kernel would give 1,024, which 256 sessions exceed. The task's own limit is in
/// `limits`.
const MAX_DESCRIPTORS: u64 = 524_288;

/// /dev first: without it even the standard streams are missing.
pub fn standard_streams() {
    let _ = fs::create_dir_all("/dev");
    let _ = mount(
        Some("devtmpfs"),
        "/dev",
        Some("devtmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=0755"),
    );
    let _ = null_standard_streams();
}

/// Makes 0, 1 and 2 refer to /dev/null. A kernel without a console starts init with none of them open.
fn null_standard_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    if null.as_raw_fd() < 3 {
        // The file itself became a standard stream and has to stay open, also in the programs that init executes.
        let _ = null.into_raw_fd();
        fcntl(io::stdin(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        fcntl(io::stdout(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        fcntl(io::stderr(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

pub fn prepare() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    process::ignore_terminal_signals();
    mount_kernel_file_systems();
    // Otherwise the kernel drops most of init's messages in its first seconds.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    console::warn_on_error(
        "oom_score_adj",
        fs::write("/proc/self/oom_score_adj", "-1000"),
    );
    console::warn_on_error("Ctrl-Alt-Del", set_cad_enabled(false));
    console::warn_on_error(
        "descriptors",
        setrlimit(Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS, MAX_DESCRIPTORS),
    );
    // The kernel counts them by user, whatever its rights, and the task's root is the same user as init: it could leave
    // none for init's own connections and pipes. Their memory counts as the task's, and runs out before this does.
    console::warn_on_error(
        "epoll watches",
        fs::write("/proc/sys/fs/epoll/max_user_watches", i64::MAX.to_string()),
    );
    steps::done("kernel file systems");
}

/// Does the rest, up to the task's root, on a thread of its own; meanwhile the host connects and configures the task.
/// The transport to the host comes first. A listener should exist before it, so that a waiting host finds it at once.
pub fn finish_in_background(mut modules: Modules) {
    let finish = move || {
        modules.load_for_layers();
        layers::mount_in_background();
        modules.load_rest();
        clock::find_host_clock();
        cgroup::prepare();
        console::warn_on_error("loopback", network::bring_loopback_up());
        // As docker sets them in a container's network.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        // Many idle VMs share a processor. The kernel must not wake twice a second to look for fragments, nor once a
        // second to fold counters.
        let _ = fs::write("/proc/sys/vm/compaction_proactiveness", "0");
        let _ = fs::write("/proc/sys/vm/stat_interval", "10");
        steps::done("cgroups, loopback");
        FINISHED.send_replace(true);
    };
    if let Err(error) = thread::Builder::new().spawn(finish) {
        // Nothing would ever work, so let the host see the end.
        console::warn(&format!("starting a thread: {error}"));
        restart();
    }
}

static FINISHED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Waits for the work in the background.
pub async fn finished() {
    // It cannot fail: the sender lives for ever.
    let _ = FINISHED.subscribe().wait_for(|finished| *finished).await;
}

fn mount_kernel_file_systems() {
    let hidden = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let no_programs = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let no_devices = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mounts = [
        ("proc", "/proc", hidden, ""),
        ("sysfs", "/sys", hidden, ""),
        (
            "devpts",
            "/dev/pts",
            no_programs,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("tmpfs", "/dev/shm", no_devices, "mode=1777"),
        ("tmpfs", "/run", no_devices, "mode=0755"),
        ("cgroup2", "/sys/fs/cgroup", hidden, "nsdelegate"),
    ];
    for (kind, target, flags, data) in mounts {
        let _ = fs::create_dir_all(target);
        match mount(Some(kind), target, Some(kind), flags, Some(data)) {
            Err(error) if error != Errno::EBUSY => {
                console::warn(&format!("mounting {kind} on {target}: {error}"));
            }
            _ => {}
        }
    }
}
