//! The VM's end, durable on disk before any caller learns of it.

use litegix_protocol::shim::{ExitRecord, PortInUse, TaskExit, VmmExit};
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Many times as large as any record.
const RESERVED_BYTES: i64 = 16 << 10;

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

/// The record's file, open from the start: later the supervisor may write nothing that it has not opened. It is empty until the
/// VM's end. Half a record is not JSON, so no reader takes it for a whole one.
pub struct RecordFile(File);

impl RecordFile {
    /// It has room for any record from now on, where the file system can promise that.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let _ = fallocate(
            &file,
            FallocateFlags::FALLOC_FL_KEEP_SIZE,
            0,
            RESERVED_BYTES,
        );
        Ok(Self(file))
    }

    /// Writes the record and waits for the disk. The working directory must be the file's.
    pub fn write(&self, record: &ExitRecord) -> io::Result<()> {
        let text = serde_json::to_vec(&Record {
            task: record.task.as_ref().map(Task::from),
            vmm: record.vmm.as_ref().map(Vmm::from),
            error: &record.error,
            helper: &record.helper,
            code: &record.code,
            port_in_use: record.port_in_use.as_ref().map(Port::from),
        })?;
        self.0.write_all_at(&text, 0)?;
        self.0.set_len(text.len() as u64)?;
        self.0.sync_all()?;
        File::open(".")?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        let file = RecordFile::open(&path).expect("open");
        file.write(&record).expect("write");
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
