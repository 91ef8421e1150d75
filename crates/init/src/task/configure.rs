//! Completes the task's root: the files and file systems of a container, beside its image.

use crate::machine::early;
use crate::machine::layers::{self, ROOT};
use crate::machine::step_error::{StepError, failed};
use crate::memory::cgroup::TaskGroup;
use crate::network;
use crate::root::mounts;
use crate::root::rooted::Root;
use crate::root::tear_down::tear_down;
use crate::task::error::ConfigureError;
use crate::task::validate;
use litegix_protocol::guest::ConfigureRequest;
use nix::fcntl::OFlag;
use nix::unistd::sethostname;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Contents written by the host, below init's own tmpfs.
const WRITTEN: &str = "/run/litegix/etc";

/// The file behind the task's /etc/hosts.
pub fn etc_hosts() -> PathBuf {
    Path::new(WRITTEN).join("hosts")
}

/// Does all steps. After an error everything mounted is detached again, so that a corrected request may follow.
pub async fn configure(request: &ConfigureRequest) -> Result<TaskGroup, ConfigureError> {
    validate::check(request)?;
    let result = build(request).await;
    if result.is_err() {
        tear_down();
    }
    result
}

async fn build(request: &ConfigureRequest) -> Result<TaskGroup, ConfigureError> {
    early::finished().await;
    layers::mounted().await?;
    let root = Root::open(Path::new(ROOT)).map_err(failed("opening the root"))?;
    if !request.hostname.is_empty() {
        sethostname(&request.hostname).map_err(failed("setting the host name"))?;
    }
    mounts::mount(&root, request)?;
    write_network_files(&root, request)?;
    if let Some(wanted) = &request.network {
        network::set_up(wanted).map_err(failed("setting up the network"))?;
    }
    for path in &request.directories {
        open_directory(&root, path).map_err(failed(format!("making the directory \"{path}\"")))?;
    }
    let work_dir = request.process.iter().map(|process| &process.work_dir);
    for path in work_dir {
        root.directory(Path::new(path))
            .map_err(failed(format!("making the directory \"{path}\"")))?;
    }
    if request.read_only_root {
        mounts::protect(Path::new(ROOT), &request.directories)?;
    }
    let group = TaskGroup::create(&request.cgroup_name, request.pids_limit)
        .map_err(failed("making the control group"))?;
    Ok(group)
}

/// Makes a directory that every user may write to, unless the image has it already.
fn open_directory(root: &Root, path: &str) -> io::Result<()> {
    let path = Path::new(path);
    if root.find(path, OFlag::O_PATH).is_err() {
        let made = root.directory(path)?;
        fs::set_permissions(Root::reach(&made), fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

fn write_network_files(root: &Root, request: &ConfigureRequest) -> Result<(), StepError> {
    fs::create_dir_all(WRITTEN).map_err(failed(WRITTEN))?;
    let hostname = format!("{}\n", request.hostname);
    let contents = [
        ("hosts", &request.etc_hosts),
        ("resolv.conf", &request.etc_resolv_conf),
        ("hostname", &hostname),
    ];
    for (name, content) in contents {
        let source = Path::new(WRITTEN).join(name);
        let path = format!("/etc/{name}");
        fs::write(&source, content)
            .and_then(|()| root.bind_file(&source, &path, request.read_only_root))
            .map_err(failed(path))?;
    }
    Ok(())
}
