//! The generation of `guest.proto` that a host and this init use. A VM outlives upgrades of the driver, so either may
//! be the older one.

use std::ops::RangeInclusive;
use thiserror::Error;

const OWN: RangeInclusive<u32> = 1..=1;

#[derive(Debug, Error, PartialEq)]
#[error(
    "the guest speaks generations {} to {} of its protocol, the driver {} to {}",
    OWN.start(), OWN.end(), host.start(), host.end()
)]
pub struct NoCommonGeneration {
    host: RangeInclusive<u32>,
}

/// The highest that both speak.
pub fn agree(host: RangeInclusive<u32>) -> Result<u32, NoCommonGeneration> {
    highest_of_both(&host, &OWN).ok_or(NoCommonGeneration { host })
}

fn highest_of_both(one: &RangeInclusive<u32>, other: &RangeInclusive<u32>) -> Option<u32> {
    let highest = *one.end().min(other.end());
    (one.contains(&highest) && other.contains(&highest)).then_some(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_that_both_speak() {
        let cases = [
            (1..=1, 1..=1, Some(1)),
            (1..=3, 1..=2, Some(2)),
            (2..=5, 1..=9, Some(5)),
            (2..=3, 1..=1, None),
            (1..=1, 2..=3, None),
        ];
        for (host, guest, agreed) in cases {
            assert_eq!(highest_of_both(&host, &guest), agreed, "{host:?} {guest:?}");
        }
    }

    #[test]
    fn a_host_of_another_age_is_told_what_both_speak() {
        assert_eq!(agree(1..=4), Ok(1));
        let refusal = agree(2..=4).expect_err("refused").to_string();
        assert!(refusal.contains("2 to 4") && refusal.contains("1 to 1"));
    }
}
