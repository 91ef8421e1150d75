//! Keeps the guest's wall clock at the host's: at the start, every some seconds, and whenever somebody sets the host's.
//! The guest may be any time away, so that only its answers count: its time lies within the round trip, and the shortest
//! of some round trips says it best.

use crate::control::{Measured, Shared};
use crate::dial::Guest;
use crate::{log, sys};
use litegix_protocol::guest::ClockRequest;
use litegix_protocol::guest::guest_client::GuestClient;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

/// Between two looks: the shorter after a difference, doubled as long as there is none. In the longer one a host's clock
/// that is being slewed by the kernel's most, half a thousandth, does not get 10 ms away.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
/// After the first look: a kernel that has just booted may still be finding out how fast its clock is.
const EARLY_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Before the first look, should nobody ask for one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// No difference worth a closer look.
const SMALL: Duration = Duration::from_millis(1);
/// Round trips of one look: a few, unless one is so short that no better is asked for, and more where all are long.
const FEW_SAMPLES: usize = 8;
const MOST_SAMPLES: usize = 32;
const SHORT_ROUND_TRIP: Duration = Duration::from_micros(500);
const LONG_ROUND_TRIP: Duration = Duration::from_millis(4);
const LARGEST_ANSWER: usize = 4 << 10;
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

type Client = GuestClient<Channel>;

/// Runs as long as it is let.
pub async fn keep(guest: Guest, shared: Arc<Shared>) {
    let watch = sys::ClockWatch::new()
        .inspect_err(|error| log::line(&format!("watching the host's clock: {error}")))
        .ok();
    // Whoever asks has found the guest awake: one that boots is dialled by enough others.
    let _ = timeout(FIRST_PAUSE, shared.clock_wanted.notified()).await;
    let mut told = false;
    loop {
        let channel = guest.connect().await;
        let mut client = GuestClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        let Err(status) = keep_connected(&mut client, watch.as_ref(), &shared).await;
        if !told {
            log::line(&format!("the guest's clock: {status}"));
            told = true;
        }
        sleep(PAUSE_AFTER_ERROR).await;
    }
}

async fn keep_connected(
    client: &mut Client,
    watch: Option<&sys::ClockWatch>,
    shared: &Shared,
) -> Result<std::convert::Infallible, Status> {
    let mut pause = EARLY_PAUSE;
    loop {
        let measured = look(client).await?;
        if let Some(adjust_ns) = correction(measured) {
            client.clock(ClockRequest { adjust_ns }).await?;
        }
        shared.clock.send_replace(Some(measured));
        pause = if measured.offset_ns.unsigned_abs() > SMALL.as_nanos() as u64 {
            pause.min(SHORTEST_PAUSE)
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = changed(watch) => pause = SHORTEST_PAUSE,
            () = shared.clock_wanted.notified() => {}
        }
    }
}

async fn changed(watch: Option<&sys::ClockWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// What is to be added to the guest's clock: nothing where the difference may be that of the measurement.
fn correction(measured: Measured) -> Option<i64> {
    (measured.offset_ns.unsigned_abs() > measured.uncertainty_ns.unsigned_abs())
        .then(|| measured.offset_ns.saturating_neg())
}

async fn look(client: &mut Client) -> Result<Measured, Status> {
    let mut best: Option<Measured> = None;
    let mut shortest = Duration::MAX;
    for count in 1..=MOST_SAMPLES {
        let sent_unix_ns = now_unix_ns();
        let sent = Instant::now();
        let answer = client.clock(ClockRequest { adjust_ns: 0 }).await?;
        let round_trip = sent.elapsed();
        let sample = measured(sent_unix_ns, answer.into_inner().unix_ns, round_trip);
        if round_trip < shortest {
            shortest = round_trip;
            best = Some(sample);
        }
        if shortest <= SHORT_ROUND_TRIP || (count >= FEW_SAMPLES && shortest <= LONG_ROUND_TRIP) {
            break;
        }
    }
    best.ok_or_else(|| Status::internal("no sample"))
}

/// The guest may say anything.
fn measured(sent_unix_ns: i64, guest_unix_ns: i64, round_trip: Duration) -> Measured {
    let half_ns = i64::try_from(round_trip.as_nanos() / 2).unwrap_or(i64::MAX);
    Measured {
        offset_ns: guest_unix_ns.saturating_sub(sent_unix_ns.saturating_add(half_ns)),
        uncertainty_ns: half_ns,
    }
}

fn now_unix_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_of_the_round_trip_is_taken_off() {
        let round_trip = Duration::from_nanos(200);
        let sample = measured(1_000, 1_400, round_trip);
        assert_eq!(sample.offset_ns, 300);
        assert_eq!(sample.uncertainty_ns, 100);
        assert_eq!(correction(sample), Some(-300));
    }

    #[test]
    fn a_difference_within_the_uncertainty_is_left_alone() {
        let sample = measured(1_000, 1_190, Duration::from_nanos(200));
        assert_eq!(correction(sample), None);
    }

    proptest! {
        #[test]
        fn the_true_difference_lies_within_the_uncertainty(
            difference in -1_000_000_i64..1_000_000, there in 0_u32..10_000, back in 0_u32..10_000,
        ) {
            let sent = 5_000_000;
            let seen = sent + i64::from(there) + difference;
            let round_trip = Duration::from_nanos(u64::from(there + back));
            let sample = measured(sent, seen, round_trip);
            prop_assert!((sample.offset_ns - difference).abs() <= sample.uncertainty_ns + 1);
        }

        #[test]
        fn any_answer_is_measured(sent: i64, guest: i64, nanos: u64) {
            let _ = correction(measured(sent, guest, Duration::from_nanos(nanos)));
        }
    }
}
