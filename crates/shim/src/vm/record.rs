//! The VM's end, durable on disk before any caller learns of it.

use litegix_protocol::shim::{ExitRecord, PortInUse, TaskExit, VmmExit};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Record<'a> {
    task: Option<Task>,
    vmm: Option<Vmm>,
    error: &'a str,
    helper: &'a str,
    code: &'a str,
    port_in_use: Option<Port<'a>>,
}

#[derive(Serialize)]
struct Task {
    exit_code: i32,
    signal: i32,
    oom_killed: bool,
    oom_kills: u64,
    started_at_unix_ns: i64,
    finished_at_unix_ns: i64,
}

#[derive(Serialize)]
struct Vmm {
    exit_code: i32,
    signal: i32,
}

#[derive(Serialize)]
struct Port<'a> {
    protocol: &'a str,
    address: &'a str,
    port: u32,
}

impl From<&TaskExit> for Task {
    fn from(exit: &TaskExit) -> Self {
        Self {
            exit_code: exit.exit_code,
            signal: exit.signal,
            oom_killed: exit.oom_killed,
            oom_kills: exit.oom_kills,
            started_at_unix_ns: exit.started_at_unix_ns,
            finished_at_unix_ns: exit.finished_at_unix_ns,
        }
    }
}

impl From<&VmmExit> for Vmm {
    fn from(exit: &VmmExit) -> Self {
        Self {
            exit_code: exit.exit_code,
            signal: exit.signal,
        }
    }
}

impl<'a> From<&'a PortInUse> for Port<'a> {
    fn from(taken: &'a PortInUse) -> Self {
        Self {
            protocol: &taken.protocol,
            address: &taken.address,
            port: taken.port,
        }
    }
}

/// Writes the record and waits for the disk.
pub fn write(path: &Path, record: &ExitRecord) -> io::Result<()> {
    let text = serde_json::to_vec(&Record {
        task: record.task.as_ref().map(Task::from),
        vmm: record.vmm.as_ref().map(Vmm::from),
        error: &record.error,
        helper: &record.helper,
        code: &record.code,
        port_in_use: record.port_in_use.as_ref().map(Port::from),
    })?;
    replace(path, &text, true)
}

/// Puts a whole file in the place of another, so that a reader sees the old or the new, never a part.
pub fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durable && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_promised_keys() {
        let path = std::env::temp_dir().join(format!("litegix-record-{}", std::process::id()));
        let record = ExitRecord {
            task: Some(TaskExit {
                exit_code: 3,
                ..TaskExit::default()
            }),
            port_in_use: Some(PortInUse {
                protocol: "udp".to_owned(),
                address: "192.0.2.7".to_owned(),
                port: 53,
            }),
            ..ExitRecord::default()
        };
        write(&path, &record).expect("write");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(
            text,
            "{\"task\":{\"exit_code\":3,\"signal\":0,\"oom_killed\":false,\"oom_kills\":0,\"started_at_unix_ns\":0,\
             \"finished_at_unix_ns\":0},\"vmm\":null,\"error\":\"\",\"helper\":\"\",\"code\":\"\",\
             \"port_in_use\":{\"protocol\":\"udp\",\"address\":\"192.0.2.7\",\"port\":53}}"
        );
        let _ = fs::remove_file(path);
    }
}
