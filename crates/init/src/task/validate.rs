//! Checks if a task is possible at all, before anything is done for it.

use crate::memory::cgroup;
use crate::program::limits;
use crate::program::world;
use crate::root::mounts;
use crate::task::error::ConfigureError;
use litegix_protocol::guest::ConfigureRequest;
use std::path::{Component, Path};

const MAX_HOSTNAME: usize = 64;

fn invalid<T>(message: impl Into<String>) -> Result<T, ConfigureError> {
    Err(ConfigureError::Invalid(message.into()))
}

pub fn check(request: &ConfigureRequest) -> Result<(), ConfigureError> {
    if !cgroup::valid_name(&request.cgroup_name) {
        return invalid("cgroup_name must be one plain component ending in .scope");
    }
    if request.hostname.len() > MAX_HOSTNAME || request.hostname.contains(['\0', '\n']) {
        return invalid(format!(
            "the host name is longer than {MAX_HOSTNAME} bytes or not plain text"
        ));
    }
    let Some(process) = &request.process else {
        return invalid("process is missing");
    };
    if process.argv.is_empty() {
        return invalid("process.argv is empty");
    }
    if process
        .argv
        .iter()
        .chain(&process.env)
        .any(|text| text.contains('\0'))
    {
        return invalid("an argument or variable contains a NUL byte");
    }
    if let Some(mount) = request
        .tmpfs_mounts
        .iter()
        .find(|mount| !mounts::valid_target(&mount.path))
    {
        return invalid(format!(
            "a tmpfs cannot be on \"{}\"",
            mount.path.escape_debug()
        ));
    }
    if let Some(sysctl) = request
        .sysctls
        .iter()
        .find(|sysctl| world::sysctl_path(&sysctl.name).is_none())
    {
        return invalid(format!(
            "\"{}\" is not a sysctl",
            sysctl.name.escape_debug()
        ));
    }
    if let Some(limit) = process
        .limits
        .iter()
        .find(|limit| !limits::known(&limit.name))
    {
        return invalid(format!("\"{}\" is not a limit", limit.name.escape_debug()));
    }
    for device in &request.devices {
        let inside = Path::new(&device.path)
            .components()
            .all(|it| !matches!(it, Component::ParentDir));
        if !inside || !device.path.starts_with("/dev/") || !device.target.starts_with('/') {
            return invalid(format!(
                "\"{}\" is not a device",
                device.path.escape_debug()
            ));
        }
    }
    let work_dir = std::iter::once(&process.work_dir).filter(|path| !path.is_empty());
    for path in work_dir.chain(&request.directories) {
        if !path.starts_with('/') || path.contains('\0') {
            return invalid(format!(
                "\"{}\" is not an absolute path",
                path.escape_debug()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_protocol::guest::{Device, ProcessSpec};

    fn request() -> ConfigureRequest {
        ConfigureRequest {
            cgroup_name: "a.web.scope".into(),
            hostname: "web".into(),
            process: Some(ProcessSpec {
                argv: vec!["sh".into()],
                ..ProcessSpec::default()
            }),
            directories: vec!["/alloc".into()],
            ..ConfigureRequest::default()
        }
    }

    #[test]
    fn a_plain_request_is_accepted() {
        assert!(check(&request()).is_ok());
    }

    #[test]
    fn impossible_requests_are_refused() {
        fn device(path: &str) -> Device {
            Device {
                path: path.into(),
                target: "/dev/x".into(),
            }
        }
        let spoil: [fn(&mut ConfigureRequest); 8] = [
            |it| it.devices.push(device("/etc/passwd")),
            |it| it.devices.push(device("/dev/../etc/passwd")),
            |it| it.cgroup_name = "../x.scope".into(),
            |it| it.hostname = "x".repeat(65),
            |it| it.process = None,
            |it| {
                it.process
                    .as_mut()
                    .into_iter()
                    .for_each(|it| it.argv.clear())
            },
            |it| {
                it.process
                    .as_mut()
                    .into_iter()
                    .for_each(|it| it.work_dir = "x".into())
            },
            |it| it.directories.push("relative".into()),
        ];
        for spoil in spoil {
            let mut request = request();
            spoil(&mut request);
            assert!(matches!(check(&request), Err(ConfigureError::Invalid(_))));
        }
    }
}
