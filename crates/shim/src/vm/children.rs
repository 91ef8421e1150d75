//! The VM's processes: helpers first, the hypervisor last; all die with this one.

use crate::config::Process;
use crate::log;
use crate::vm::drives::{self, DriveError, Drives};
use crate::vm::isolation;
use crate::vm::output::{self, Rotating, Tail};
use litegix_protocol::shim::VmmExit;
use litegix_sys::descriptors;
use litegix_sys::proc_stat::Stat;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// The child's end is seen at once. This limit is for a hanging child: no busy host makes a socket so late.
const READY_DEADLINE: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(5);
/// Time to read a dead child's last output.
const OUTPUT_DEADLINE: Duration = Duration::from_millis(500);

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("can't start {}: {source}", program.escape_debug())]
    Start { program: String, source: io::Error },
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error("{name} ended early ({how}){last_words}")]
    EndedEarly {
        name: String,
        how: String,
        last_words: String,
    },
    #[error("{name} did not listen at {} within {READY_DEADLINE:?}{last_words}", path.display())]
    NotListening {
        name: String,
        path: PathBuf,
        last_words: String,
    },
}

pub struct Running {
    pub name: String,
    pub pid: u32,
    pub start_time: u64,
    child: Child,
    tail: Tail,
    output: JoinHandle<()>,
    /// Devices that last as long as this.
    _loops: Vec<File>,
}

impl Running {
    pub fn start(process: &Process) -> Result<Self, ProcessError> {
        let program = &process.argv[0];
        let failed = |source: io::Error| ProcessError::Start {
            program: program.clone(),
            source,
        };
        let Drives { mounts, loops } = drives::prepare(&process.drives)?;
        let (reader, writer) = descriptors::pipe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(&process.argv[1..])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer)
            .kill_on_drop(true);
        let child = isolation::spawn(&mut command, process, mounts).map_err(failed)?;
        let pid = child.id().unwrap_or(0);
        descriptors::set_nonblocking(&reader).map_err(failed)?;
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader).map_err(failed)?;
        let tail = Tail::default();
        // Without the file, the output is dropped but for its tail.
        let file = Rotating::open(&process.output)
            .map_err(|error| log::line(&format!("{}: {error}", process.output.display())))
            .ok();
        let output = tokio::spawn(output::keep(reader, file, tail.clone()));
        Ok(Self {
            name: process.name.clone(),
            pid,
            start_time: Stat::of(pid).map_or(0, |stat| stat.start_time),
            child,
            tail,
            output,
            _loops: loops,
        })
    }

    /// Waits until the process listens at the socket. If it ends before, the error has its last output.
    pub async fn ready(&mut self, path: &Path) -> Result<(), ProcessError> {
        let deadline = Instant::now() + READY_DEADLINE;
        while !listens(self.pid, path) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(ProcessError::EndedEarly {
                    name: self.name.clone(),
                    how: describe(status),
                    last_words: self.last_words().await,
                });
            }
            if Instant::now() >= deadline {
                return Err(ProcessError::NotListening {
                    name: self.name.clone(),
                    path: path.to_owned(),
                    last_words: self.tail.quote(),
                });
            }
            sleep(READY_PAUSE).await;
        }
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(&mut self) -> Option<ExitStatus> {
        if let Err(error) = self.child.start_kill() {
            log::line(&format!("killing {}: {error}", self.name));
        }
        self.ended().await
    }

    /// The child's end before the task's, worded to follow its name.
    pub async fn early_end(&mut self, status: Option<ExitStatus>) -> String {
        let how = status.map_or_else(|| "unknown status".to_owned(), describe);
        let words = self.last_words().await;
        format!("ended ({how}) before the task reported its end{words}")
    }

    /// Its last output, worded to follow a sentence. For a process that has ended.
    pub async fn last_words(&mut self) -> String {
        let _ = timeout(OUTPUT_DEADLINE, &mut self.output).await;
        self.tail.quote()
    }
}

/// Waits for the first to end; for ever if there are none.
pub async fn any_ended(running: &mut [Running]) -> (usize, Option<ExitStatus>) {
    let mut ends: Vec<_> = running
        .iter_mut()
        .map(|process| Box::pin(process.ended()))
        .collect();
    poll_fn(|context| {
        for (index, end) in ends.iter_mut().enumerate() {
            if let Poll::Ready(status) = end.as_mut().poll(context) {
                return Poll::Ready((index, status));
            }
        }
        Poll::Pending
    })
    .await
}

/// True if a process listens there in the child's network namespace. The socket's file alone proves less: it exists
/// before, and a connection is then refused.
fn listens(pid: u32, path: &Path) -> bool {
    fs::read_to_string(format!("/proc/{pid}/net/unix")).is_ok_and(|table| {
        table
            .lines()
            .any(|line| listening_path(line).is_some_and(|bound| Path::new(bound) == path))
    })
}

/// Reads a line of /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`, the inode padded to five places.
fn listening_path(line: &str) -> Option<&str> {
    let mut fields = line.splitn(7, ' ').skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let (_inode, path) = fields.nth(2)?.trim_start().split_once(' ')?;
    // include/linux/net.h, __SO_ACCEPTCON.
    (flags & 1 << 16 != 0).then_some(path)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

pub fn vmm_exit(status: ExitStatus) -> VmmExit {
    let signal = status.signal().unwrap_or(0);
    VmmExit {
        exit_code: status.code().unwrap_or(128 + signal),
        signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(program: &str, argument: &str) -> Running {
        Running::start(&Process {
            name: program.to_owned(),
            argv: vec![program.to_owned(), argument.to_owned()],
            output: "/dev/null".into(),
            ready_path: None,
            namespaces: Vec::new(),
            taps: Vec::new(),
            own_taps: Vec::new(),
            binds: Vec::new(),
            drives: Vec::new(),
            cgroup_procs: Vec::new(),
        })
        .expect("start")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_one_that_ended_is_found_among_those_that_run() {
        let mut running = [start("/bin/sleep", "600"), start("/bin/false", "")];
        let (index, status) = any_ended(&mut running).await;
        assert_eq!(index, 1);
        let words = running[index].early_end(status).await;
        assert_eq!(
            words,
            "ended (exit status 1) before the task reported its end"
        );
    }

    #[tokio::test]
    async fn a_socket_is_ready_when_somebody_listens() {
        let path = std::env::temp_dir().join(format!("a shim's {}", std::process::id()));
        let socket = tokio::net::UnixSocket::new_stream().expect("socket");
        socket.bind(&path).expect("bind");
        assert!(path.exists() && !listens(std::process::id(), &path));
        let listener = socket.listen(1).expect("listen");
        assert!(listens(std::process::id(), &path));
        drop(listener);
        assert!(!listens(std::process::id(), &path));
        fs::remove_file(path).expect("remove");
    }

    proptest! {
        #[test]
        fn any_line_of_sockets_is_read(text in ".{0,100}") {
            let _ = listening_path(&text);
        }
    }
}
