//! Keeps the guest's wall clock at the host's: at the start, every some seconds, and whenever somebody sets the host's.
//! The guest may be any time away, so that only its answers count: its time lies within the round trip, and the shortest
//! of some round trips says it best.

use crate::clock_watch::ClockWatch;
use crate::control::{Measured, Shared};
use crate::dial::Guest;
use crate::log;
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
/// A guest that is long in answering has little of a processor, and more to do with it: one part of so many of the time,
/// whatever the longest pause is. What it tells is off by more than a slewed clock gets away.
const MOST_SHARE: u32 = 20;
/// No difference worth a closer look.
const SMALL: Duration = Duration::from_millis(1);
/// Round trips of one look: a few, unless one is so short that no better is asked for, and more where all are long, but not
/// for long: what a guest without a processor needs least is to be asked.
const LEAST_SAMPLES: usize = 4;
const FEW_SAMPLES: usize = 8;
const MOST_SAMPLES: usize = 32;
const LONGEST_LOOK: Duration = Duration::from_millis(100);
const SHORT_ROUND_TRIP: Duration = Duration::from_micros(500);
const LONG_ROUND_TRIP: Duration = Duration::from_millis(4);
const LARGEST_ANSWER: usize = 4 << 10;
/// For one answer: longer than what a guest that is worth the asking needs. Without it one that is silent once, or that stood
/// still for hours, would never be asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

type Client = GuestClient<Channel>;

/// Runs as long as it is let.
pub async fn keep(guest: Guest, shared: Arc<Shared>) {
    let watch = ClockWatch::new()
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
    watch: Option<&ClockWatch>,
    shared: &Shared,
) -> Result<std::convert::Infallible, Status> {
    let mut pause = EARLY_PAUSE;
    loop {
        let began = Instant::now();
        let measured = look(client).await?;
        let took = began.elapsed();
        if let Some(adjust_ns) = correction(measured) {
            ask(client, adjust_ns).await?;
        }
        shared.clock.send_replace(Some(measured));
        pause = next_pause(pause, measured, took);
        tokio::select! {
            () = sleep(pause) => {}
            () = changed(watch) => pause = SHORTEST_PAUSE,
            () = shared.clock_wanted.notified() => {}
        }
    }
}

/// A difference that may be that of the measurement is none.
fn next_pause(before: Duration, measured: Measured, took: Duration) -> Duration {
    let small = SMALL
        .as_nanos()
        .max(measured.uncertainty_ns.unsigned_abs().into());
    let wanted = if u128::from(measured.offset_ns.unsigned_abs()) > small {
        before.min(SHORTEST_PAUSE)
    } else {
        before * 2
    };
    wanted.min(LONGEST_PAUSE).max(took * MOST_SHARE)
}

async fn changed(watch: Option<&ClockWatch>) {
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
    let began = Instant::now();
    let mut best: Option<Measured> = None;
    let mut shortest = Duration::MAX;
    for count in 1..=MOST_SAMPLES {
        let sent_unix_ns = now_unix_ns();
        let sent = Instant::now();
        let guest_unix_ns = ask(client, 0).await?;
        let round_trip = sent.elapsed();
        let sample = measured(sent_unix_ns, guest_unix_ns, round_trip);
        if round_trip < shortest {
            shortest = round_trip;
            best = Some(sample);
        }
        if shortest <= SHORT_ROUND_TRIP
            || (count >= FEW_SAMPLES && shortest <= LONG_ROUND_TRIP)
            || (count >= LEAST_SAMPLES && began.elapsed() >= LONGEST_LOOK)
        {
            break;
        }
    }
    best.ok_or_else(|| Status::internal("no sample"))
}

/// Moves the guest's clock by so much; gives what it shows then.
async fn ask(client: &mut Client, adjust_ns: i64) -> Result<i64, Status> {
    let answer = timeout(ANSWER_DEADLINE, client.clock(ClockRequest { adjust_ns }))
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no answer within {ANSWER_DEADLINE:?}")))?;
    Ok(answer?.into_inner().unix_ns)
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

    #[test]
    fn a_slow_guest_is_left_alone_and_one_that_differs_looked_at_again() {
        let seconds = Duration::from_secs;
        let sample = |offset_ms: i64, uncertainty_ms: i64| Measured {
            offset_ns: offset_ms * 1_000_000,
            uncertainty_ns: uncertainty_ms * 1_000_000,
        };
        let quick = Duration::from_millis(2);
        assert_eq!(next_pause(seconds(4), sample(0, 0), quick), seconds(8));
        assert_eq!(next_pause(seconds(16), sample(0, 0), quick), seconds(16));
        assert_eq!(next_pause(seconds(16), sample(5, 1), quick), SHORTEST_PAUSE);
        assert_eq!(next_pause(EARLY_PAUSE, sample(5, 1), quick), EARLY_PAUSE);
        // Within what round trips of 20 ms can tell.
        let slow = Duration::from_millis(100);
        assert_eq!(
            next_pause(EARLY_PAUSE, sample(9, 10), slow),
            slow * MOST_SHARE
        );
        assert_eq!(
            next_pause(EARLY_PAUSE, sample(90, 10), slow),
            slow * MOST_SHARE
        );
        assert_eq!(
            next_pause(seconds(16), sample(0, 500), seconds(4)),
            seconds(80)
        );
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
