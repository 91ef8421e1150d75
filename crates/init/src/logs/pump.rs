//! Pumps the task's output from its pipe or terminal into the log, as far as there is room.

use crate::logs::buffer::LogBuffer;
use crate::tuning::{FLOOD_BYTES, FLOOD_PAUSE, MIN_READ_BYTES};
use litegix_sys::scheduling;
use std::cell::Cell;
use std::fs::File;
use std::future::pending;
use std::io::{self, Read};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::timeout;

/// A pipe holds all that was written to it before its writers ended; a terminal's bytes come by the kernel's own hands, which
/// may take a moment.
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// Carries the source's bytes into the log to their end, and ends the log. `over` becomes true once all writers have
/// ended: the bytes that are there then are the last ones. Even so the source may not reach its end, since a task can
/// keep a descriptor of it on its way through a socket.
pub async fn pump(log: &LogBuffer, source: &AsyncFd<File>, mut over: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = read_on(log, source) => {}
        () = ended(&mut over) => read_rest(log, source).await,
    }
    log.finish();
}

async fn ended(over: &mut watch::Receiver<bool>) {
    if over.wait_for(|over| *over).await.is_err() {
        pending().await
    }
}

/// Can be dropped at any await without losing a byte.
async fn read_on(log: &LogBuffer, source: &AsyncFd<File>) {
    let mut flood = None;
    loop {
        let soon = match &flood {
            Some(_) => timeout(FLOOD_PAUSE, read(log, source)).await.ok(),
            None => None,
        };
        let count = match soon {
            Some(count) => count,
            None => {
                flood = None;
                read(log, source).await
            }
        };
        match count {
            // A terminal says EIO when its last user has gone.
            Ok(0) | Err(_) => return,
            Ok(count) if count >= FLOOD_BYTES => {
                flood.get_or_insert_with(Flood::begin);
            }
            Ok(_) => flood = None,
        }
    }
}

async fn read_rest(log: &LogBuffer, source: &AsyncFd<File>) {
    loop {
        log.room(MIN_READ_BYTES).await;
        match timeout(LAST_PAUSE, read(log, source)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return,
        }
    }
}

/// Reads once there are bytes to read, and room for them.
async fn read(log: &LogBuffer, source: &AsyncFd<File>) -> io::Result<usize> {
    loop {
        log.room(MIN_READ_BYTES).await;
        let mut ready = source.readable().await?;
        match ready.try_io(|source| log.append(|room| source.get_ref().read_vectored(room))) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_) => {}
        }
    }
}

thread_local! {
    /// The number of this thread's streams in flood.
    static FLOODS: Cell<usize> = const { Cell::new(0) };
}

/// While one is held, a program that wakes this thread keeps the processor until its time is over or it has to wait.
struct Flood(());

impl Flood {
    fn begin() -> Self {
        Self::count(|floods| floods + 1);
        Self(())
    }

    fn count(change: impl FnOnce(usize) -> usize) {
        let before = FLOODS.get();
        let now = change(before);
        FLOODS.set(now);
        if (before == 0) != (now == 0) {
            // Without it everything works as well, but slower.
            let _ = scheduling::set_batch(now > 0);
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        Self::count(|floods| floods - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use litegix_sys::descriptors;
    use std::io::Write;
    use std::pin::pin;
    use tokio::io::Interest;

    fn pipe() -> (AsyncFd<File>, File) {
        let (from, to) = descriptors::large_pipe().expect("pipe");
        let from = descriptors::watch_for(from, Interest::READABLE).expect("watch");
        (from, File::from(to))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_written_is_all_once_its_writers_have_ended() {
        let (from, mut to) = pipe();
        let log = LogBuffer::default();
        let session = log.open(0).expect("open");
        let over = watch::Sender::new(false);
        let mut pump = pin!(pump(&log, &from, over.subscribe()));
        to.write_all(b"first").expect("write");
        tokio::select! {
            () = &mut pump => panic!("the pipe is open"),
            () = log.coalesce(session, 0, 5) => {}
        }
        to.write_all(&[0; 200_000]).expect("write");
        over.send_replace(true);
        // The pipe stays open.
        let ended = timeout(Duration::from_secs(10), pump).await;
        ended.expect("the log's end");
        assert!(log.open(200_005).is_ok());
        assert!(log.open(200_006).is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_task_that_floods_is_left_the_processor_until_it_pauses() {
        let (from, mut to) = pipe();
        let log = LogBuffer::default();
        let session = log.open(0).expect("open");
        let over = watch::Sender::new(false);
        let mut written = 0;
        let mut write = |count: usize| {
            to.write_all(&vec![0; count]).expect("write");
            written += count;
            written
        };
        {
            let mut pump = pin!(pump(&log, &from, over.subscribe()));
            for (count, batch) in [
                (1, false),
                (FLOOD_BYTES, true),
                (1, false),
                (FLOOD_BYTES, true),
            ] {
                let upto = write(count);
                tokio::select! {
                    () = &mut pump => panic!("the pipe is open"),
                    () = log.coalesce(session, 0, upto) => {}
                }
                assert_eq!(scheduling::is_batch(), batch, "after {count}");
            }
            let paused = async {
                while scheduling::is_batch() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = &mut pump => panic!("the pipe is open"),
                paused = timeout(Duration::from_secs(10), paused) => paused.expect("paused"),
            }
            let upto = write(FLOOD_BYTES);
            tokio::select! {
                () = &mut pump => panic!("the pipe is open"),
                () = log.coalesce(session, 0, upto) => {}
            }
            assert!(scheduling::is_batch());
        }
        assert!(!scheduling::is_batch());
    }
}
