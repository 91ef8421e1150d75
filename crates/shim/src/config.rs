//! The configuration of this VM's supervisor, written by the driver that starts it. Both come from one build.

use serde::Deserialize;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use thiserror::Error;

const VERSION: u32 = 1;
/// sun_path holds 108 bytes with the NUL.
const MAX_SOCKET_PATH: usize = 107;
/// The last process is the hypervisor; the others are its helpers, started before it.
pub const VMM: &str = "vmm";
/// The supervisor itself has fewer.
const MIN_DESCRIPTOR: i32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub version: u32,
    pub id: String,
    /// The VM's own. Everything else of the supervisor's but the logs lies in it, and it is the supervisor's root in the end.
    pub directory: PathBuf,
    pub control_socket: PathBuf,
    /// The unix socket that leads to the guest's vsock.
    pub vsock_socket: PathBuf,
    pub guest_port: u32,
    /// FIFOs beneath `log_root`, or /dev/null.
    pub stdout_path: PathBuf,
    pub stderr_path: PathBuf,
    /// A directory that only the host's root can replace. No link is followed beneath it.
    pub log_root: PathBuf,
    pub exit_record: PathBuf,
    pub state_file: PathBuf,
    pub log_file: PathBuf,
    /// The published ports, TCP and UDP of each.
    pub ports: Vec<Port>,
    /// The `cgroup.procs` of each group that the supervisor runs in.
    pub cgroup_procs: Vec<PathBuf>,
    pub processes: Vec<Process>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub name: String,
    pub argv: Vec<String>,
    pub output: PathBuf,
    /// The next process starts once this exists.
    pub ready_path: Option<PathBuf>,
    /// The namespaces that it does not share with this supervisor. Binds give it a mount namespace too.
    pub namespaces: Vec<Namespace>,
    /// TAPs that it gets as open descriptors.
    pub taps: Vec<Tap>,
    /// TAPs that it finds in its own network namespace; `namespaces` has "net" then. The driver moves them elsewhere later.
    pub own_taps: Vec<OwnTap>,
    /// Files that it sees in other places than the host does.
    pub binds: Vec<BindMount>,
    /// Disks of the host that it sees in the places of files.
    #[serde(default)]
    pub drives: Vec<Drive>,
    /// The `cgroup.procs` of each group that it runs in.
    pub cgroup_procs: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub struct Tap {
    pub name: String,
    /// The file of the network namespace in which it is; none: the supervisor's.
    pub netns: Option<PathBuf>,
    /// The descriptor's number, from `MIN_DESCRIPTOR` up.
    pub descriptor: i32,
}

#[derive(Debug, Deserialize)]
pub struct OwnTap {
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: i32,
    /// The user and the group that may open it, beside root.
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug, Deserialize)]
pub struct Port {
    /// 0.0.0.0: all addresses of the host.
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Linux's name of it, as in /proc/PID/ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// The process is the first in it.
    Pid,
    /// It holds a loopback interface that is down, and none of the host's abstract unix sockets.
    Net,
    Ipc,
    Uts,
    Cgroup,
}

#[derive(Debug, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    /// A file that exists.
    pub target: PathBuf,
    pub read_only: bool,
}

/// A file or a block device that the driver has opened.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// This program was started with it.
    pub descriptor: RawFd,
    /// For messages.
    pub path: PathBuf,
    /// See `HostFile` in src/system/host-file.ts.
    pub identity: String,
    /// A file that exists.
    pub target: PathBuf,
    pub read_only: bool,
    /// The process runs as this user. None: as root.
    pub user: Option<User>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl Config {
    /// The guest's socket once the VM's directory is the root.
    pub fn socket_in_root(&self) -> PathBuf {
        let below = self.vsock_socket.strip_prefix(&self.directory);
        Path::new("/").join(below.unwrap_or(&self.vsock_socket))
    }
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("can't be read: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("version {0} of the configuration, but only {VERSION} is known")]
    Version(u32),
    #[error("the last process must be \"{VMM}\"")]
    NoVmm,
    #[error("process \"{0}\" has no argv")]
    NoProgram(String),
    #[error("descriptor {0} is below {MIN_DESCRIPTOR}")]
    LowDescriptor(i32),
    #[error("process \"{0}\" has TAPs, but no network namespace for them")]
    NoNetwork(String),
    #[error("{} is longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have", .0.display())]
    LongSocketPath(PathBuf),
    #[error("{} does not lie in the VM's directory", .0.display())]
    Outside(PathBuf),
}

pub fn read(path: &Path) -> Result<Config, ConfigError> {
    parse(&fs::read_to_string(path)?)
}

pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let config: Config = serde_json::from_str(text)?;
    if config.version != VERSION {
        return Err(ConfigError::Version(config.version));
    }
    if config.processes.last().is_none_or(|last| last.name != VMM) {
        return Err(ConfigError::NoVmm);
    }
    if let Some(process) = config.processes.iter().find(|it| it.argv.is_empty()) {
        return Err(ConfigError::NoProgram(process.name.clone()));
    }
    if let Some(process) = config
        .processes
        .iter()
        .find(|it| !it.own_taps.is_empty() && !it.namespaces.contains(&Namespace::Net))
    {
        return Err(ConfigError::NoNetwork(process.name.clone()));
    }
    let mut taps = config.processes.iter().flat_map(|process| &process.taps);
    if let Some(tap) = taps.find(|tap| tap.descriptor < MIN_DESCRIPTOR) {
        return Err(ConfigError::LowDescriptor(tap.descriptor));
    }
    for socket in [&config.control_socket, &config.vsock_socket] {
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ConfigError::LongSocketPath(socket.clone()));
        }
    }
    let own = [
        &config.vsock_socket,
        &config.exit_record,
        &config.state_file,
    ];
    if let Some(path) = own
        .into_iter()
        .find(|path| !path.starts_with(&config.directory))
    {
        return Err(ConfigError::Outside(path.clone()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn plain() -> Value {
        json!({
            "version": 1, "id": "a1b2c3d4", "directory": "/v", "control_socket": "/v/shim.sock", "vsock_socket": "/v/v.sock",
            "guest_port": 10, "stdout_path": "/dev/null", "stderr_path": "/dev/null",
            "log_root": "/a", "exit_record": "/v/exit.json", "state_file": "/v/shim.json", "log_file": "/v/shim.log",
            "cgroup_procs": [], "ports": [{"address": "192.0.2.7", "port": 80}],
            "processes": [
                {"name": "vsock", "argv": ["a"], "output": "/v/a.log", "ready_path": "/v/vu.sock",
                    "namespaces": [], "taps": [], "own_taps": [], "binds": [], "cgroup_procs": []},
                {"name": "vmm", "argv": ["b", "c"], "output": "/v/b.log", "ready_path": null,
                    "namespaces": ["pid", "net"], "taps": [{"name": "lg0a010203", "netns": null, "descriptor": 100}], "own_taps": [], "binds": [], "cgroup_procs": []},
            ],
        })
    }

    #[test]
    fn a_plain_configuration_is_read() {
        let config = parse(&plain().to_string()).expect("config");
        assert_eq!(config.processes.len(), 2);
        assert_eq!(config.processes[1].ready_path, None);
        assert_eq!(config.socket_in_root(), Path::new("/v.sock"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let mut without_argv = plain()["processes"].clone();
        without_argv[1]["argv"] = json!([]);
        let mut other_namespace = plain()["processes"].clone();
        other_namespace[1]["namespaces"] = json!(["time"]);
        let mut low_descriptor = plain()["processes"].clone();
        low_descriptor[1]["taps"][0]["descriptor"] = json!(3);
        let mut tap_of_the_host = plain()["processes"].clone();
        tap_of_the_host[0]["own_taps"] =
            json!([{"name": "lg0a010203", "mac": [2, 0, 0, 0, 0, 1], "mtu": 1500, "owner": null}]);
        let spoil: [(&str, Value); 9] = [
            ("version", json!(2)),
            ("unknown", json!(true)),
            ("processes", json!([])),
            ("processes", without_argv),
            ("processes", other_namespace),
            ("processes", low_descriptor),
            ("processes", tap_of_the_host),
            ("control_socket", json!("x".repeat(108))),
            ("vsock_socket", json!("/w/v.sock")),
        ];
        for (key, value) in spoil {
            let mut config = plain();
            config[key] = value;
            assert!(parse(&config.to_string()).is_err(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
