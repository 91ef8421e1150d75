//! The supervisor of one VM: `litegix-shim CONFIG.json`, started detached by the driver, which may die and come back. It
//! is the parent of the hypervisor and its helpers, owns the write ends of the task's logs, and keeps the exit record.
//! `litegix-shim unlz4` decompresses kernels for the driver, since Node has no LZ4; see unlz4.rs.
//! `litegix-shim confine` runs a program without rights on the host; see confine/mod.rs.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod clock;
mod config;
mod confine;
mod control;
mod dial;
mod log;
mod logs;
mod tuning;
mod unlz4;
mod vm;

use config::Config;
use control::{Control, Shared};
use litegix_protocol::shim::ExitRecord;
use litegix_protocol::shim::shim_server::ShimServer;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use vm::record::RecordFile;
use vm::supervise;

const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Time for the last answers to leave.
const FAREWELL: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((command, rest)) = arguments.split_first() {
        if command == "unlz4" {
            return unlz4::run(rest);
        }
        if command == "confine" {
            return confine::run(rest);
        }
    }
    let [path] = arguments.as_slice() else {
        eprintln!("usage: litegix-shim CONFIG.json");
        return ExitCode::from(64);
    };
    if path == "--version" {
        println!("litegix-shim {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let config = match config::read(Path::new(path)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("litegix-shim: {}: {error}", Path::new(path).display());
            return ExitCode::from(65);
        }
    };
    // Drives are only for the process that they are meant for.
    litegix_sys::process::close_from_on_exec(3);
    log::open(&config.log_file);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log::line(&format!("runtime: {error}"));
            return ExitCode::from(70);
        }
    };
    // A record's file and its directory are made durable together; see vm/record.rs.
    let record = std::env::set_current_dir(&config.directory)
        .and_then(|()| RecordFile::open(&config.exit_record));
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            log::line(&format!("{}: {error}", config.exit_record.display()));
            return ExitCode::from(73);
        }
    };
    match runtime.block_on(serve(&config, &record)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(&format!(
                "control socket {}: {error}",
                config.control_socket.display()
            ));
            let end = ExitRecord {
                error: format!("the VM's supervisor can't serve its socket: {error}"),
                ..ExitRecord::default()
            };
            if let Err(error) = record.write(&end) {
                log::line(&format!("{}: {error}", config.exit_record.display()));
            }
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &Config, record: &RecordFile) -> io::Result<()> {
    let shared = Arc::new(Shared::new(config.id.clone()));
    // The supervisor must outlive the driver, so it ignores the signals of the driver's terminal.
    for kind in [SignalKind::hangup(), SignalKind::interrupt()] {
        drop(signal(kind)?);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let killed = Arc::clone(&shared);
    tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            killed.kill.notify_one();
        }
    });
    // Only a dead supervisor of the same VM can have left it.
    let _ = fs::remove_file(&config.control_socket);
    let listener = UnixListener::bind(&config.control_socket)?;
    let (end, ended) = oneshot::channel::<()>();
    let service =
        ShimServer::new(Control(Arc::clone(&shared))).max_decoding_message_size(MAX_REQUEST_BYTES);
    let server = tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                let _ = ended.await;
            }),
    );
    supervise::run(config, &shared, record).await;
    let _ = end.send(());
    // The driver removes the VM's sockets, with its directory.
    let _ = timeout(FAREWELL, server).await;
    Ok(())
}
