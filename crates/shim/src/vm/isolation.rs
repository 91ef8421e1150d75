//! Isolation of a supervisor's child before its program runs: cgroups, namespaces of its own, and in its mount namespace
//! the files that it may see elsewhere. The mounts lie in that namespace alone, so nothing of them is left on the host
//! when the child is gone, whatever ended it.

use crate::config::{Namespace, Process};
use crate::vm::set_id;
use litegix_sys::spawn::{self, Bind, Filter, Isolation, Mount, TapDescriptor};
use litegix_sys::tap::TapSpec;
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::process::{Child, Command};

/// Starts the process with its isolation around it. The process dies with this program, unless it changes its user. The
/// driver ends such a process by its cgroup.
pub fn spawn(command: &mut Command, process: &Process, mounts: Vec<Mount>) -> io::Result<Child> {
    let filter = if process.drives.iter().any(|drive| drive.user.is_some()) {
        set_id::refused()?
    } else {
        Filter::default()
    };
    let cgroup_procs = process
        .cgroup_procs
        .iter()
        .map(|path| c_path(path))
        .collect::<io::Result<Vec<_>>>()?;
    let binds = process
        .binds
        .iter()
        .map(|bind| {
            Ok(Bind {
                source: c_path(&bind.source)?,
                target: c_path(&bind.target)?,
                read_only: bind.read_only,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let taps = process
        .taps
        .iter()
        .map(|tap| {
            Ok(TapDescriptor {
                name: CString::new(tap.name.as_str()).map_err(io::Error::other)?,
                netns: tap.netns.as_deref().map(c_path).transpose()?,
                descriptor: tap.descriptor,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let own_taps = process
        .own_taps
        .iter()
        .map(|tap| {
            Ok(TapSpec {
                name: CString::new(tap.name.as_str()).map_err(io::Error::other)?,
                mac: tap.mac,
                mtu: tap.mtu,
                owner: tap.owner,
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let namespaces: CloneFlags = process
        .namespaces
        .iter()
        .map(|it| clone_flag(*it))
        .collect();
    let pid_namespace = namespaces.contains(CloneFlags::CLONE_NEWPID);
    let isolation = Isolation {
        cgroup_procs,
        taps,
        own_taps,
        namespaces: namespaces.difference(CloneFlags::CLONE_NEWPID),
        binds,
        mounts,
        filter,
    };
    spawn::tie_to_parent(command.as_std_mut(), pid_namespace);
    spawn::isolate(command.as_std_mut(), isolation);
    if pid_namespace {
        in_new_pid_namespace(|| command.spawn())
    } else {
        command.spawn()
    }
}

/// The child that `spawn` forks is the first process of a new process namespace, and its direct parent is this process.
/// Threads must not be made meanwhile; their namespace would be another than this thread's, which the kernel refuses.
fn in_new_pid_namespace<T>(spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = File::open("/proc/self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let spawned = spawn();
    setns(own, CloneFlags::CLONE_NEWPID)?;
    spawned
}

fn clone_flag(namespace: Namespace) -> CloneFlags {
    match namespace {
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Net => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        Namespace::Cgroup => CloneFlags::CLONE_NEWCGROUP,
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::vm::drives::{self, Drives};
    use serde_json::json;
    use std::fs::{self, Permissions};
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::process::Stdio;

    fn process(keys: serde_json::Value) -> Process {
        let mut process = json!({
            "name": "vmm", "argv": ["sh"], "output": "/dev/null", "ready_path": null,
            "namespaces": [], "taps": [], "own_taps": [], "binds": [], "cgroup_procs": [],
        });
        for (key, value) in keys.as_object().expect("object") {
            process[key] = value.clone();
        }
        let config = json!({
            "version": 1, "id": "a", "directory": "/", "control_socket": "/a", "vsock_socket": "/b", "guest_port": 1,
            "stdout_path": "/dev/null", "stderr_path": "/dev/null", "log_root": "/", "exit_record": "/c", "state_file": "/d",
            "log_file": "/e", "cgroup_procs": [], "ports": [], "processes": [process],
        });
        config::parse(&config.to_string())
            .expect("config")
            .processes
            .remove(0)
    }

    async fn output(process: &Process, script: &str) -> io::Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let output = spawn(&mut command, process, Vec::new())?
            .wait_with_output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn may_not(error: &io::Error) -> bool {
        eprintln!("skipped: namespaces need root ({error})");
        error.kind() == io::ErrorKind::PermissionDenied
    }

    #[tokio::test]
    async fn a_process_namespace_of_its_own_and_only_for_the_child() {
        let apart = process(json!({"namespaces": ["pid"]}));
        match output(&apart, "echo $$").await {
            Ok(pid) => assert_eq!(pid, "1\n"),
            Err(error) => return assert!(may_not(&error)),
        }
        let beside = process(json!({}));
        assert_ne!(output(&beside, "echo $$").await.expect("beside"), "1\n");
    }

    #[tokio::test]
    async fn the_child_alone_has_the_namespaces_that_are_named() {
        let names = ["net", "ipc", "uts", "cgroup"];
        let script = "cd /proc/self/ns && readlink net ipc uts cgroup && cat /proc/self/net/dev | tail -n +3";
        let apart = match output(&process(json!({"namespaces": names})), script).await {
            Ok(text) => text,
            Err(error) => return assert!(may_not(&error)),
        };
        for (name, theirs) in names.iter().zip(apart.lines()) {
            let own = fs::read_link(format!("/proc/self/ns/{name}")).expect("namespace");
            assert!(theirs.starts_with(name), "{theirs}");
            assert_ne!(own.to_string_lossy(), theirs);
        }
        let interfaces: Vec<_> = apart.lines().skip(names.len()).collect();
        assert_eq!(interfaces.len(), 1, "{interfaces:?}");
        assert!(interfaces[0].trim_start().starts_with("lo:"));
    }

    #[tokio::test]
    async fn a_tap_is_open_in_a_child_whose_network_has_none() {
        for netns in [json!(null), json!("/proc/thread-self/ns/net")] {
            let name = format!("lgx{}", std::process::id());
            let with_tap = process(json!({
                "namespaces": ["net"], "taps": [{"name": name, "netns": netns, "descriptor": 100}],
            }));
            let script =
                "grep ^iff: /proc/self/fdinfo/100; tail -n +3 /proc/self/net/dev | cut -d: -f1";
            match output(&with_tap, script).await {
                Ok(text) => {
                    let words: Vec<_> = text.split_whitespace().collect();
                    assert_eq!(words, ["iff:", &name, "lo"]);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return eprintln!("skipped: no /dev/net/tun");
                }
                Err(error) => return assert!(may_not(&error)),
            }
        }
    }

    #[tokio::test]
    async fn a_tap_is_made_in_the_childs_own_network() {
        let name = format!("lgo{}", std::process::id());
        let owner = process(json!({
            "namespaces": ["net"],
            "own_taps": [{"name": name, "mac": [2, 0, 10, 1, 2, 3], "mtu": 1400, "owner": [70001, 70002]}],
        }));
        let script = format!("ip -d -o link show {name}");
        match output(&owner, &script).await {
            Ok(text) => {
                for part in [
                    "<BROADCAST,MULTICAST>",
                    "mtu 1400",
                    "02:00:0a:01:02:03",
                    "vnet_hdr on",
                    "persist on",
                    "user 70001",
                    "group 70002",
                ] {
                    assert!(text.contains(part), "{part}: {text}");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: no /dev/net/tun");
            }
            Err(error) => assert!(may_not(&error)),
        }
        let host = fs::read_to_string("/proc/self/net/dev").expect("interfaces");
        assert!(!host.contains(&name));
    }

    #[tokio::test]
    async fn binds_are_seen_by_the_child_alone() {
        let directory =
            std::env::temp_dir().join(format!("litegix-isolation-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("directory");
        let (source, target) = (directory.join("source"), directory.join("target"));
        fs::write(&source, "shared").expect("source");
        fs::write(&target, "").expect("target");
        let bound =
            process(json!({"binds": [{"source": source, "target": target, "read_only": true}]}));
        let script = format!(
            "cat {0}; (echo spoilt >{0}) 2>/dev/null || echo -ro",
            target.display()
        );
        match output(&bound, &script).await {
            Ok(text) => assert_eq!(text, "shared-ro\n"),
            Err(error) => assert!(may_not(&error)),
        }
        assert_eq!(fs::read_to_string(&target).expect("target"), "");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&*target.to_string_lossy()));
        fs::remove_dir_all(&directory).expect("clean-up");
    }

    #[tokio::test]
    async fn a_drive_that_shows_another_owner_gets_no_set_id_bit() {
        let path = std::env::temp_dir().join(format!("litegix-set-id-{}", std::process::id()));
        fs::write(&path, "").expect("file");
        let drive = json!({
            "descriptor": 3, "path": "/d", "identity": "file 1:1", "target": "/t", "read_only": false,
            "user": {"uid": 70_001, "gid": 70_001},
        });
        let script = format!(
            "for mode in u+s g+s 6755 755; do chmod $mode {} 2>/dev/null && echo $mode; done",
            path.display()
        );
        match output(&process(json!({"drives": [drive]})), &script).await {
            Ok(text) => assert_eq!(text, "755\n"),
            Err(error) => assert!(may_not(&error)),
        }
        fs::remove_file(path).expect("clean-up");
    }

    #[tokio::test]
    async fn a_user_of_its_own_gets_the_drive_and_the_drive_keeps_its_owner() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: mounts need root");
        }
        for read_only in [false, true] {
            let directory =
                std::env::temp_dir().join(format!("litegix-drive-{}", std::process::id()));
            fs::create_dir_all(&directory).expect("directory");
            let (disk, target) = (directory.join("disk"), directory.join("target"));
            fs::write(&disk, [b'a'; 512]).expect("disk");
            fs::set_permissions(&disk, Permissions::from_mode(0o600)).expect("mode");
            chown(&disk, Some(65_534), Some(65_534)).expect("owner");
            fs::write(&target, "").expect("target");
            let file = File::open(&disk).expect("open");
            let facts = file.metadata().expect("facts");
            let drive = json!({
                "descriptor": file.into_raw_fd(), "path": disk, "target": target, "read_only": read_only,
                "identity": format!("file {}:{}", facts.dev(), facts.ino()),
                "user": {"uid": 70_001, "gid": 70_001},
            });
            let process = process(json!({"drives": [drive]}));
            let Drives { mounts, loops } = drives::prepare(&process.drives).expect("prepared");
            let mut command = Command::new("setpriv");
            let script = format!(
                "id -u; head -c 1 {0}; printf b 2>/dev/null 1<>{0} && echo written",
                target.display()
            );
            command
                .args(["--reuid", "70001", "--regid", "70001", "--clear-groups"])
                .args(["sh", "-c", &script])
                .stdout(Stdio::piped());
            let child = spawn(&mut command, &process, mounts).expect("spawn");
            let output = child.wait_with_output().await.expect("output");
            drop(loops);
            let written = if read_only { "" } else { "written\n" };
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(text, format!("70001\na{written}"));
            let expected = if read_only { b'a' } else { b'b' };
            assert_eq!(fs::read(&disk).expect("disk")[0], expected);
            let facts = fs::metadata(&disk).expect("facts");
            assert_eq!((facts.uid(), facts.mode() & 0o777), (65_534, 0o600));
            fs::remove_dir_all(&directory).expect("clean-up");
        }
    }

    #[tokio::test]
    async fn a_cgroup_that_is_not_there_fails_the_start() {
        let lost = process(json!({"cgroup_procs": ["/nowhere/cgroup.procs"]}));
        let error = output(&lost, "true").await.expect_err("no such cgroup");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
