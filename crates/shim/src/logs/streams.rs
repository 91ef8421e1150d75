//! The task's two log streams, from the VM's start until the record is written.

use crate::config::Config;
use crate::dial::Guest;
use crate::logs::forward::Stream;
use crate::logs::sink::{Sink, SinkError};
use litegix_protocol::guest::LogStream;
use std::fs::File;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Logs {
    forwards: Vec<JoinHandle<Stream>>,
    cut: watch::Sender<bool>,
}

/// The files of the logs, which the supervisor may open at its start only.
pub struct LogFiles {
    sinks: [Sink; 2],
    offsets: Option<Arc<File>>,
}

impl LogFiles {
    pub fn open(config: &Config) -> Result<Self, SinkError> {
        let open = |path| Sink::open(path, &config.log_root);
        let mut path = config.state_file.clone().into_os_string();
        path.push(".offsets");
        Ok(Self {
            sinks: [open(&config.stdout_path)?, open(&config.stderr_path)?],
            offsets: File::create(path).ok().map(Arc::new),
        })
    }
}

impl Logs {
    pub fn start(guest: &Guest, files: LogFiles) -> Self {
        let LogFiles { sinks, offsets } = files;
        let (cut, _) = watch::channel(false);
        let forwards = [LogStream::Stdout, LogStream::Stderr]
            .into_iter()
            .zip(sinks)
            .map(|(kind, sink)| {
                let stream = Stream {
                    kind,
                    guest: guest.clone(),
                    sink,
                    offsets: offsets.clone(),
                };
                tokio::spawn(stream.run(cut.subscribe()))
            })
            .collect();
        Self { forwards, cut }
    }

    /// Waits for both streams' ends, or cuts them off when `patience` ends, whose result it then returns. Returns the
    /// streams in either case: dropping them closes their FIFOs.
    pub async fn finish<T>(self, patience: impl Future<Output = T>) -> (Vec<Stream>, Option<T>) {
        let Self { forwards, cut } = self;
        let mut collect = pin!(async {
            let mut streams = Vec::new();
            for forward in forwards {
                streams.extend(forward.await.ok());
            }
            streams
        });
        tokio::select! {
            streams = &mut collect => (streams, None),
            outcome = patience => {
                cut.send_replace(true);
                (collect.await, Some(outcome))
            }
        }
    }

    pub async fn stop(self) {
        self.finish(ready(())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the log sees its end when the sinks are dropped, which must come after the record.
    #[tokio::test(flavor = "current_thread")]
    async fn streams_that_are_cut_off_keep_their_sinks() {
        let config = crate::config::parse(
            r#"{"version": 1, "id": "a", "directory": "/dev/null", "control_socket": "/dev/null/c", "vsock_socket": "/dev/null/v",
                "guest_port": 10, "stdout_path": "/dev/null", "stderr_path": "/dev/null",
                "log_root": "/", "exit_record": "/dev/null/r", "state_file": "/dev/null/s", "log_file": "/dev/null",
                "cgroup_procs": [], "ports": [], "processes": [{"name": "vmm", "argv": ["x"], "output": "/dev/null", "ready_path": null,
                "namespaces": [], "taps": [], "own_taps": [], "binds": [], "cgroup_procs": []}]}"#,
        )
        .expect("config");
        // No guest answers there.
        let guest = Guest {
            socket: config.vsock_socket.clone(),
            port: 10,
        };
        let logs = Logs::start(&guest, LogFiles::open(&config).expect("files"));
        let (streams, cut) = logs.finish(ready("cut")).await;
        assert_eq!(cut, Some("cut"));
        assert_eq!(streams.len(), 2);
    }
}
