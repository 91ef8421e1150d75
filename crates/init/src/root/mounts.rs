//! The file systems in a task's root beside the image: devices, /sys, shared memory, its own tmpfs mounts. Mounts
//! inside the task's namespaces (/proc, message queues) are in `world`.

use crate::machine::step_error::{StepError, failed};
use crate::root::devices;
use crate::root::rooted::{Root, bind, remount_read_only};
use litegix_protocol::guest::{ConfigureRequest, TmpfsMount};
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const HIDDEN: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
const ANYONE: u32 = 0o1777;

/// Mounts everything in an order in which no mount covers another by mistake.
pub fn mount(root: &Root, request: &ConfigureRequest) -> Result<(), StepError> {
    mount_kernel(root, request)?;
    if request.privileged {
        devices::copy(root, Path::new("/dev"), Path::new("/dev")).map_err(failed("/dev"))?;
    }
    for device in &request.devices {
        let step = format!("giving the task {} of its VM", device.path);
        devices::give(root, device).map_err(failed(step))?;
    }
    let mut own: Vec<&TmpfsMount> = request.tmpfs_mounts.iter().collect();
    own.sort_by_key(|mount| Path::new(&mount.path).components().count());
    for mount in own {
        mount_tmpfs(root, mount).map_err(failed(&mount.path))?;
    }
    Ok(())
}

fn mount_kernel(root: &Root, request: &ConfigureRequest) -> Result<(), StepError> {
    let devices = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let read_only = if request.privileged {
        MsFlags::empty()
    } else {
        MsFlags::MS_RDONLY
    };
    let terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    let shared = match request.shm_size_bytes {
        0 => SHARED_MEMORY_BYTES,
        size => size,
    };
    let shared = format!("mode=1777,size={shared}");
    root.directory(Path::new("/proc"))
        .map_err(failed("/proc"))?;
    let mounts = [
        ("/sys", "sysfs", HIDDEN | read_only, ""),
        ("/sys/fs/cgroup", "cgroup2", HIDDEN | read_only, ""),
        (
            "/dev",
            "tmpfs",
            MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
            "mode=755,size=65536k",
        ),
        ("/dev/pts", "devpts", devices, terminals),
        ("/dev/shm", "tmpfs", HIDDEN, &shared),
    ];
    for (path, kind, flags, data) in mounts {
        root.mount(path, kind, flags, data).map_err(failed(path))?;
    }
    devices::fill(root).map_err(failed("/dev"))
}

/// docker's defaults: nothing in it is a program, a device or privileged, and it has the mode of the covered directory.
fn mount_tmpfs(root: &Root, mount: &TmpfsMount) -> io::Result<()> {
    let path = Path::new(&mount.path);
    let covered = match root.find(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Ok(found) => fs::metadata(Root::reach(&found))?.mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => ANYONE,
        Err(error) => return Err(error),
    };
    let (flags, data) = tmpfs_options(mount, covered);
    root.mount(&mount.path, "tmpfs", flags, &data)
}

fn tmpfs_options(mount: &TmpfsMount, covered: u32) -> (MsFlags, String) {
    let mode = if mount.mode == 0 { covered } else { mount.mode };
    let mut flags = HIDDEN;
    let mut data = vec![format!("mode={mode:o}")];
    if mount.size_bytes > 0 {
        data.push(format!("size={}", mount.size_bytes));
    }
    for option in &mount.options {
        let (bit, on) = match option.as_str() {
            "ro" => (MsFlags::MS_RDONLY, true),
            "rw" => (MsFlags::MS_RDONLY, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "async" => (MsFlags::MS_SYNCHRONOUS, false),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "diratime" => (MsFlags::MS_NODIRATIME, false),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "norelatime" => (MsFlags::MS_RELATIME, false),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
            other => {
                // The kernel uses the last value of a setting.
                data.push(other.to_owned());
                continue;
            }
        };
        flags.set(bit, on);
    }
    (flags, data.join(","))
}

/// Makes the root read-only, except these directories: the mount, not the file system, so that shutting down can still
/// write to it.
pub fn protect(root: &Path, writable: &[String]) -> Result<(), StepError> {
    let inside = Root::open(root).map_err(failed("opening the root"))?;
    for path in writable {
        let found = inside.directory(Path::new(path)).map_err(failed(path))?;
        let reached = Root::reach(&found);
        bind(&reached, &reached, MsFlags::empty()).map_err(failed(path))?;
    }
    remount_read_only(root, MsFlags::empty()).map_err(failed("making the root read-only"))
}

/// True if a task may have a file system of its own on the path.
pub fn valid_target(path: &str) -> bool {
    let path = PathBuf::from(path);
    path.is_absolute() && path.components().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(mode: u32, size_bytes: u64, options: &[&str]) -> TmpfsMount {
        TmpfsMount {
            path: "/x".into(),
            size_bytes,
            mode,
            options: options.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    #[test]
    fn tmpfs_mounts_are_as_closed_as_dockers() {
        assert_eq!(
            tmpfs_options(&mount(0, 0, &[]), 0o755),
            (HIDDEN, "mode=755".to_owned())
        );
        assert_eq!(
            tmpfs_options(&mount(0o1700, 4096, &["ro"]), 0o755),
            (
                HIDDEN | MsFlags::MS_RDONLY,
                "mode=1700,size=4096".to_owned()
            )
        );
        assert_eq!(
            tmpfs_options(&mount(0, 0, &["exec", "size=1m", "uid=3"]), 0o1777),
            (
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                "mode=1777,size=1m,uid=3".to_owned()
            )
        );
    }

    #[test]
    fn the_root_itself_is_no_target() {
        assert!(valid_target("/a"));
        assert!(!valid_target("/"));
        assert!(!valid_target("a"));
    }
}
