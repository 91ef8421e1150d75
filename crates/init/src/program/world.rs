//! Sets up the new namespaces of the task's first process, before any program of the image runs.

use crate::machine::step_error::reason;
use crate::program::plan::{Failure, Setup};
use crate::root::rooted::{Root, bind, remount_read_only};
use nix::mount::{MsFlags, mount};
use nix::unistd::chroot;
use std::fs;
use std::io;
use std::path::Path;

const HIDDEN: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

pub fn set_up(root: &Path, setup: &Setup) -> Result<(), Failure> {
    move_into(root).map_err(|error| Failure::internal("the task's root", &error))?;
    for (name, value) in &setup.sysctls {
        set_sysctl(name, value)?;
    }
    if !setup.unmasked {
        restrict();
    }
    Ok(())
}

/// The root of an initramfs cannot be pivoted away from. Moving a mount over it and changing the root has the same
/// effect, as in every initramfs.
fn move_into(path: &Path) -> io::Result<()> {
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none)?;
    let root = Root::open(path)?;
    root.mount("/proc", "proc", HIDDEN, "")?;
    // Not every kernel has message queues.
    let _ = root.mount("/dev/mqueue", "mqueue", HIDDEN, "");
    std::env::set_current_dir(path)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    std::env::set_current_dir("/")
}

/// Here and not earlier: these settings of System V and POSIX message queues and memory belong to the task's namespace.
fn set_sysctl(name: &str, value: &str) -> Result<(), Failure> {
    fs::write(Path::new("/proc/sys").join(name), value).map_err(|error| {
        Failure::invalid(format!(
            "sysctl \"{}\" = \"{}\": {}",
            name.escape_debug(),
            value.escape_debug(),
            reason(&error)
        ))
    })
}

/// Converts sysctl(8)'s spelling to a path below /proc/sys: the first separator decides which of `.` and `/` separates.
pub fn sysctl_path(name: &str) -> Option<String> {
    let dotted = name.find(['.', '/']).map(|at| &name[at..=at]) == Some(".");
    let path: String = name
        .chars()
        .map(|character| match character {
            '.' if dotted => '/',
            '/' if dotted => '.',
            other => other,
        })
        .collect();
    let plain = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    (plain && !path.contains('\0')).then_some(path)
}

/// The paths that docker hides or makes read-only. The VM is the boundary; this only gives images their usual view.
/// Paths that the kernel lacks need no hiding.
fn restrict() {
    for path in MASKED.map(Path::new) {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let _ = if found.is_dir() {
            let flags = HIDDEN | MsFlags::MS_RDONLY;
            mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=0k"))
                .map_err(io::Error::from)
        } else {
            bind(Path::new("/dev/null"), path, MsFlags::empty())
        };
    }
    for path in READ_ONLY.map(Path::new) {
        if bind(path, path, MsFlags::MS_REC).is_ok() {
            let _ = remount_read_only(path, HIDDEN);
        }
    }
}

/// The task's terminal, by its number in /dev/pts, also as /dev/console, like docker.
pub fn show_console(terminal: u64) -> io::Result<()> {
    let console = Path::new("/dev/console");
    // A privileged task has the guest's own there already.
    let _ = fs::File::options()
        .create_new(true)
        .write(true)
        .open(console);
    let terminal = format!("/dev/pts/{terminal}");
    bind(Path::new(&terminal), console, MsFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sysctls_have_both_spellings() {
        let path = |name: &str| sysctl_path(name);
        assert_eq!(
            path("net.core.somaxconn"),
            Some("net/core/somaxconn".into())
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.forwarding"),
            Some("net/ipv4/conf/eth0.1/forwarding".into())
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding"),
            Some("net/ipv4/conf/eth0.1/forwarding".into())
        );
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "/etc/passwd",
            "a/../b",
            "a.//.b",
            "a/",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_elsewhere(name in "[a-z./\0]{0,12}") {
            if let Some(path) = sysctl_path(&name) {
                let found = Path::new("/proc/sys").join(&path);
                prop_assert!(found.starts_with("/proc/sys") && found != Path::new("/proc/sys"));
                prop_assert!(!found.components().any(|part| part == std::path::Component::ParentDir));
            }
        }
    }
}
