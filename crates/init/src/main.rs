//! PID 1 of the microVM. Prepares the machine, serves `guest.proto` on AF_VSOCK, and never ends: its end is the kernel's
//! panic. The same program run as `zygote` forks the processes of the task's programs.
//!
//! There is no Rust `main`: the standard library's start-up needs open standard streams or a /dev/null. A kernel
//! without a console gives init none of these.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(
    test,
    allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod console;
mod exec;
mod host;
mod logs;
mod machine;
mod memory;
mod network;
mod program;
mod root;
mod task;
mod tuning;
mod wire;

use host::{bulk, service::Service};
use litegix_protocol::guest::guest_server::GuestServer;
use machine::{clock, early, modules::Modules, probe, restart::restart, steps};
use program::reaper::Reaper;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use task::{agent::Agent, shutdown};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt;
use tokio_vsock::{VsockListener, VsockStream};
use tonic::transport::Server;

/// The vsock port of the service.
const PORT: u32 = 10;
const MAX_MESSAGE_BYTES: usize = 4 << 20;
const WINDOW_BYTES: u32 = 1 << 20;
/// A whole chunk of bulk data in one frame: each frame is two writes, each write an exit to the hypervisor.
const MAX_FRAME_BYTES: u32 = 128 << 10;
const MAX_STREAMS: u32 = 512;
/// The pause before listening again after a failure.
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

#[cfg(not(test))]
litegix_sys::entry!(start);

fn start() -> i32 {
    if std::process::id() != 1 {
        if std::env::args_os().nth(1).is_some_and(|it| it == "zygote") {
            return program::zygote::run();
        }
        eprintln!(
            "litegix-init {} runs only as process 1 of a microVM",
            env!("CARGO_PKG_VERSION")
        );
        return 64;
    }
    run()
}

fn run() -> ! {
    std::panic::set_hook(Box::new(|what| {
        console::warn(&format!("bug: {what}"));
        restart();
    }));
    if probe::asked() {
        probe::answer();
        restart();
    }
    steps::done("init");
    litegix_sys::machine::keep_freed_memory();
    early::standard_streams();
    early::prepare();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(serve());
            console::warn_on_error("serving", result);
        }
        Err(error) => console::warn(&format!("runtime: {error}")),
    }
    restart();
}

async fn serve() -> io::Result<()> {
    let mut modules = Modules::listed();
    modules.load_before_transport();
    // Before the transport exists, so that a waiting host is answered, not refused.
    let mut listener = host::listen(PORT)
        .inspect_err(|error| console::warn(&format!("listening: {error}")))
        .ok();
    early::finish_in_background(modules);
    let reaper = Arc::new(Reaper::default());
    let mut ended_children = signal(SignalKind::child())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let agent = Arc::new(Agent::new(Arc::clone(&reaper)));
    let spawner = Arc::clone(&agent.spawner);
    tokio::spawn(async move {
        // In init's control group, which exists by then.
        early::finished().await;
        console::warn_on_error("starting the zygote", spawner.prepare().await);
    });
    tokio::spawn(async move {
        while ended_children.recv().await.is_some() {
            reaper.collect();
        }
    });
    let timed = Arc::clone(&agent);
    tokio::spawn(async move {
        early::finished().await;
        clock::follow_host(|| timed.running().is_some()).await;
    });
    let stopping = Arc::clone(&agent);
    tokio::spawn(async move {
        // Ctrl-Alt-Del, by which a hypervisor asks for an orderly end.
        if interrupts.recv().await.is_some() {
            shutdown::end_machine(stopping, Duration::ZERO);
        }
    });
    let service = Service::new(agent);
    tokio::spawn(bulk::serve(service.clone()));
    loop {
        let result = listen(service.clone(), listener.take()).await;
        console::warn_on_error("listening", result);
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

fn from_host(connection: &io::Result<VsockStream>) -> bool {
    let peer = connection.as_ref().map(VsockStream::peer_addr);
    matches!(peer, Ok(Ok(peer)) if host::is_host(peer))
}

async fn listen(
    service: Service,
    bound: Option<VsockListener>,
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = match bound {
        Some(listener) => listener,
        None => host::listen(PORT)?,
    };
    console::info(&format!("listening on vsock port {PORT}"));
    steps::done("listening");
    let guest = GuestServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(guest)
        .serve_with_incoming(listener.incoming().filter(from_host))
        .await?;
    Ok(())
}
