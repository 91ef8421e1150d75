//! The end of an exec session whose host has gone.

use crate::channel::Answers;
use crate::reaper::Reaper;
use crate::tree::Tree;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;

const PAUSE: Duration = Duration::from_millis(50);
const KILL_ROUNDS: usize = 20;

/// The host hung up: its connection ended, or it sent nonsense.
pub async fn host_gone(feeder: tokio::task::JoinHandle<Result<(), Status>>, answers: &Answers) {
    let broken = async {
        match feeder.await {
            Ok(Err(_)) => {}
            _ => pending().await,
        }
    };
    tokio::select! {
        () = broken => {}
        () = answers.closed() => {}
    }
}

/// Ends the whole tree: hang-up first; after the grace what is left is killed. Without a grace all is killed.
pub async fn end_tree(reaper: &Reaper, leader: i32, grace: Option<Duration>) {
    let mut tree = Tree::of(leader, reaper);
    if let Some(grace) = grace {
        tree.signal(libc::SIGHUP);
        // A job that was stopped, with Ctrl-Z, would hear of it only when it goes on.
        tree.signal(libc::SIGCONT);
        let deadline = Instant::now() + grace;
        while !tree.is_gone() && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
    }
    for _ in 0..KILL_ROUNDS {
        if tree.is_gone() {
            return;
        }
        // What it has started meanwhile dies too.
        tree.look_again();
        tree.signal(libc::SIGKILL);
        sleep(PAUSE).await;
    }
}
