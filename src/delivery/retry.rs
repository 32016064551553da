//! Pure: when to try again.

use std::time::Duration;

use crate::checkpoint::time::Moment;

/// The first wait of a back-off.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two attempts of one message.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest wait that a network failure imposes on everyone.
const LONGEST_SHARED: Duration = Duration::from_secs(30);
/// What Slack's own SDK for Python waits when a 429 names no time.
const UNNAMED: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is believed.
const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// When to try a message again that failed for the `attempts`th time (0 is the first).
///
/// `jitter` is a random number from 0 to 1: it spreads callers that failed together over half the wait.
pub(crate) fn again_at(attempts: u32, jitter: f64, now: Moment) -> Moment {
    now.plus(backoff(attempts, LONGEST).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0))
}

/// Until when everybody leaves a network alone that failed for the `failures`th time in a row (0 is the first).
pub(crate) fn network_rest(failures: u32, now: Moment) -> Moment {
    now.plus(backoff(failures, LONGEST_SHARED))
}

/// Until when Slack's `Retry-After` holds everybody back; up to a second more, so that they do not return together.
pub(crate) fn limited_until(retry_after: Option<Duration>, jitter: f64, now: Moment) -> Moment {
    let wait = retry_after.unwrap_or(UNNAMED).min(LONGEST_AFTER);
    now.plus(wait).plus(Duration::from_secs(1).mul_f64(jitter.clamp(0.0, 1.0)))
}

fn backoff(failures: u32, longest: Duration) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures.min(20))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_minute() {
        let waits = |jitter: f64| (0..9).map(move |n| again_at(n, jitter, Moment(0)).0).collect::<Vec<_>>();
        assert_eq!(waits(0.5), [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(waits(0.0)[0], 750);
        assert_eq!(waits(1.0)[0], 1250);
        assert_eq!(again_at(u32::MAX, 0.5, Moment(0)), Moment(60_000));
    }

    #[test]
    fn a_network_is_left_alone_for_at_most_half_a_minute() {
        let rests: Vec<i64> = (0..7).map(|n| network_rest(n, Moment(0)).0).collect();
        assert_eq!(rests, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn obeys_retry_after_and_never_comes_early() {
        let seconds = Duration::from_secs;
        for (after, jitter, until) in [
            (Some(seconds(7)), 0.0, 7000),
            (Some(seconds(7)), 1.0, 8000),
            (None, 0.0, 1000),
            (Some(seconds(1_000_000)), 0.0, 3_600_000),
        ] {
            assert_eq!(limited_until(after, jitter, Moment(0)), Moment(until));
        }
    }
}
