//! Connections to the guest through the hypervisor's unix socket, as Firecracker's vsock does it: "CONNECT port\n" in
//! one write, answered by "OK n\n". An end without an answer means that the guest does not listen yet.

use hyper_util::rt::TokioIo;
use litegix_protocol::frame;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

const MAX_ANSWER: usize = 64;
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(1);
/// For HTTP/2's own greeting.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(30);

#[derive(Clone)]
pub struct Guest {
    pub socket: PathBuf,
    pub port: u32,
}

impl Guest {
    /// A connection of its own; tries until it succeeds. The caller gives up when the VM has ended.
    pub async fn connect(&self) -> Channel {
        loop {
            match self.try_connect().await {
                Ok(channel) => return channel,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// A bulk stream of its own, likewise.
    pub async fn open_bulk(&self) -> UnixStream {
        loop {
            match dial(&self.socket, frame::PORT).await {
                Ok(stream) => return stream,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn try_connect(&self) -> Result<Channel, tonic::transport::Error> {
        let guest = self.clone();
        Endpoint::from_static("http://guest")
            .connect_timeout(CONNECT_DEADLINE)
            .connect_with_connector(tower::service_fn(move |_| {
                let guest = guest.clone();
                async move { dial(&guest.socket, guest.port).await.map(TokioIo::new) }
            }))
            .await
    }
}

async fn dial(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let attempt = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream
            .write_all(format!("CONNECT {port}\n").as_bytes())
            .await?;
        let mut answer = Vec::with_capacity(MAX_ANSWER);
        // Byte by byte: the bytes behind the line belong to the connection.
        while !answer.ends_with(b"\n") {
            if answer.len() >= MAX_ANSWER {
                return Err(io::Error::other("too long an answer to CONNECT"));
            }
            answer.push(stream.read_u8().await?);
        }
        if accepted(&answer) {
            Ok(stream)
        } else {
            Err(io::Error::other("not the answer OK to CONNECT"))
        }
    };
    timeout(ATTEMPT_DEADLINE, attempt)
        .await
        .map_err(io::Error::other)?
}

/// "OK " and a decimal number and a newline.
fn accepted(answer: &[u8]) -> bool {
    answer
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"))
        .is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_exact_answer_is_accepted() {
        assert!(accepted(b"OK 1073741824\n"));
        for bad in ["OK \n", "OK 1", "ok 1\n", "OK 1 \n", "OK -1\n", "\n", ""] {
            assert!(!accepted(bad.as_bytes()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(answer in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = accepted(&answer);
        }

        #[test]
        fn every_port_is_accepted(port in any::<u32>()) {
            let line = format!("OK {port}\n");
            prop_assert!(accepted(line.as_bytes()));
        }
    }
}
