//! Keeps the guest's wall clock at the host's if the guest can't read the host's clock through its hypervisor: under
//! QEMU's emulation, and on hosts whose clock source is not the TSC. The supervisor measures the difference at the
//! start and regularly afterwards. The guest's time lies within the round trip of its answer, so the shortest round
//! trip gives it best.

use crate::control::{Measured, Shared};
use crate::dial::Guest;
use crate::log;
use litegix_protocol::guest::guest_client::GuestClient;
use litegix_protocol::guest::{ClockRequest, ClockResponse};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

/// The pause between two measurements. The kernel slews a host's clock by at most half a thousandth: less than 8 ms
/// meanwhile.
const PAUSE: Duration = Duration::from_secs(15);
/// The same for a guest that follows the host by itself: its hypervisor may stop offering the time.
const FOLLOWING_PAUSE: Duration = Duration::from_secs(60);
/// Round trips in one measurement.
const SAMPLES: usize = 4;
const MAX_ANSWER_BYTES: usize = 4 << 10;
/// The limit for one answer. Without it, a guest that is silent once would never be asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

type Client = GuestClient<Channel>;

/// Runs until it is aborted.
pub async fn keep(guest: Guest, shared: Arc<Shared>) {
    // The driver requests the first measurement once the guest is awake; enough others dial a booting guest.
    let _ = timeout(PAUSE, shared.clock_wanted.notified()).await;
    let mut told = false;
    loop {
        let channel = guest.connect().await;
        let mut client = GuestClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let Err(status) = keep_connected(&mut client, &shared).await;
        if !told {
            log::line(&format!("the guest's clock: {status}"));
            told = true;
        }
        sleep(PAUSE_AFTER_ERROR).await;
    }
}

async fn keep_connected(
    client: &mut Client,
    shared: &Shared,
) -> Result<std::convert::Infallible, Status> {
    loop {
        let (measured, follows_host) = look(client).await?;
        if !follows_host && let Some(adjust_ns) = correction(measured) {
            ask(client, adjust_ns).await?;
        }
        shared.clock.send_replace(Some(measured));
        let pause = if follows_host { FOLLOWING_PAUSE } else { PAUSE };
        let _ = timeout(pause, shared.clock_wanted.notified()).await;
    }
}

/// The correction of the guest's clock: none if the difference may be the measurement's own error.
fn correction(measured: Measured) -> Option<i64> {
    (measured.offset_ns.unsigned_abs() > measured.uncertainty_ns.unsigned_abs())
        .then(|| measured.offset_ns.saturating_neg())
}

/// The sample with the shortest round trip, and whether the guest follows the host by itself.
async fn look(client: &mut Client) -> Result<(Measured, bool), Status> {
    let (mut best, follows_host) = sample(client).await?;
    if !follows_host {
        for _ in 1..SAMPLES {
            let (next, _) = sample(client).await?;
            if next.uncertainty_ns < best.uncertainty_ns {
                best = next;
            }
        }
    }
    Ok((best, follows_host))
}

async fn sample(client: &mut Client) -> Result<(Measured, bool), Status> {
    let sent_unix_ns = now_unix_ns();
    let sent = Instant::now();
    let answer = ask(client, 0).await?;
    let sample = measured(sent_unix_ns, answer.unix_ns, sent.elapsed());
    Ok((sample, answer.follows_host))
}

/// Moves the guest's clock by this much.
async fn ask(client: &mut Client, adjust_ns: i64) -> Result<ClockResponse, Status> {
    let answer = timeout(ANSWER_DEADLINE, client.clock(ClockRequest { adjust_ns }))
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no answer within {ANSWER_DEADLINE:?}")))?;
    Ok(answer?.into_inner())
}

/// The guest may send any value.
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
