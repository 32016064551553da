//! Pure: keeps all processes that share a cache within Slack's rate limits.
//!
//! Beside `store` and `delivery` because both need it: a slot is reserved in the transaction that claims an entry,
//! and the limits themselves are Slack's. A limit is a token bucket, kept as the moment at which it would be empty
//! again ("theoretical arrival time"), so that one number a bucket is all there is to store.

use std::time::Duration;

use crate::checkpoint::outbox::{Credential, EntryKind, Link};
use crate::checkpoint::time::Moment;

/// How often something may be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// The time between two calls in the long run.
    pub(crate) interval: Duration,
    /// How many may come at once after a pause.
    pub(crate) burst: u32,
}

/// One message per second and channel by any route, with short bursts
/// (<https://docs.slack.dev/apis/web-api/rate-limits>); burst sizes are not published.
pub(crate) const POSTS: Limit = Limit { interval: Duration::from_secs(1), burst: 3 };

/// `chat.update` is tier 3, at least 50 a minute for a workspace; 40 leave room for other callers of the app.
pub(crate) const EDITS: Limit = Limit { interval: Duration::from_millis(1500), burst: 5 };

/// Longest time that a stored moment may lie ahead: more means that the clock was set back. A `Retry-After` is obeyed
/// for an hour and a moment at most, so that it is always believed.
const HORIZON: Duration = Duration::from_secs(2 * 3600);
/// The same for turns: a caller takes one at a time, and waits for it for its deadline at most.
const TURNS_HORIZON: Duration = Duration::from_secs(600);
/// The same for a pause after something did not answer, which is little more than a minute at most.
const REST_HORIZON: Duration = Duration::from_secs(120);

/// The stored state of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bucket {
    /// When the bucket would be full again if nobody took from it.
    pub(crate) full_at: Moment,
    /// Nobody may call before, as Slack said with `Retry-After`.
    pub(crate) hold_until: Moment,
}

/// Takes the next free slot.
///
/// # Errors
/// The moment of the next free slot when it lies after `latest`; nothing is taken then.
pub(crate) fn reserve(
    bucket: Bucket,
    limit: Limit,
    now: Moment,
    latest: Moment,
) -> Result<(Moment, Bucket), Moment> {
    let full_at = within(TURNS_HORIZON, bucket.full_at, now);
    let hold_until = believable(bucket.hold_until, now);
    let depth = limit.interval * limit.burst.saturating_sub(1);
    let start_at = now.max(full_at.minus(depth)).max(hold_until);
    if start_at > latest {
        return Err(start_at);
    }
    Ok((start_at, Bucket { full_at: full_at.max(start_at).plus(limit.interval), hold_until }))
}

/// A stored moment, or now if a clock that has since been set back wrote it.
pub(crate) fn believable(moment: Moment, now: Moment) -> Moment {
    within(HORIZON, moment, now)
}

/// The same for the end of a pause after something did not answer.
pub(crate) fn believable_rest(until: Moment, now: Moment) -> Moment {
    within(REST_HORIZON, until, now)
}

fn within(horizon: Duration, moment: Moment, now: Moment) -> Moment {
    if moment > now.plus(horizon) { now } else { moment }
}

/// The limit on what an entry of this kind does.
pub(crate) fn limit(kind: EntryKind) -> Limit {
    match kind {
        EntryKind::Post | EntryKind::Note | EntryKind::File => POSTS,
        EntryKind::Card | EntryKind::Question => EDITS,
    }
}

/// The name of the bucket that paces an entry: posts are counted by channel, edits by workspace. A webhook posts to
/// the one channel it is bound to, whatever its tasks say.
pub(crate) fn bucket(credential: &Credential, kind: EntryKind, channel: &str) -> String {
    match kind {
        EntryKind::Post | EntryKind::Note | EntryKind::File if credential.is_webhook() => {
            format!("{}|post", credential.as_str())
        }
        EntryKind::Post | EntryKind::Note | EntryKind::File => {
            format!("{}|post|{channel}", credential.as_str())
        }
        EntryKind::Card | EntryKind::Question => format!("{}|edit", credential.as_str()),
    }
}

/// The name of the hold that a `Retry-After` on this kind of call sets for everyone.
pub(crate) fn method_hold(credential: &Credential, kind: EntryKind) -> String {
    let method = match kind {
        EntryKind::Post | EntryKind::Note => "post",
        EntryKind::Card | EntryKind::Question => "edit",
        EntryKind::File => "file",
    };
    format!("{}|{method}|hold", credential.as_str())
}

/// The name of the hold that a `Retry-After` sets for everyone on what has to be read before an entry of this kind is
/// sent. Methods are limited one by one: what needs no reading goes on.
pub(crate) fn reading_hold(credential: &Credential, kind: EntryKind) -> String {
    let what = match kind {
        EntryKind::Post | EntryKind::Card | EntryKind::Question => "find",
        EntryKind::Note => "link",
        EntryKind::File => "upload",
    };
    format!("{}|{what}|hold", credential.as_str())
}

/// How often a method that looks for answers is called with one credential, by all processes together: both are tier 3,
/// at least 50 a minute.
pub(crate) const LOOKS: Limit = Limit { interval: Duration::from_millis(1300), burst: 5 };

/// The name of the bucket and the hold of a method that looks for answers.
pub(crate) fn look(credential: &Credential, method: &str) -> String {
    format!("{}|{method}", credential.as_str())
}

/// The name of the hold that an unreachable network sets for everyone who takes the same way.
pub(crate) fn network_hold(link: &Link) -> String {
    format!("{}|network", link.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_of_three_then_one_a_second() {
        let mut bucket = Bucket::default();
        let now = Moment(1_000_000);
        let mut starts = Vec::new();
        for _ in 0..6 {
            let (start, next) =
                reserve(bucket, POSTS, now, now.plus(Duration::from_secs(60))).expect("in time");
            starts.push(start.0 - now.0);
            bucket = next;
        }
        assert_eq!(starts, [0, 0, 0, 1000, 2000, 3000]);
        assert_eq!(reserve(bucket, POSTS, now, now), Err(Moment(1_004_000)));
    }

    #[test]
    fn a_hold_keeps_everyone_back() {
        let bucket = Bucket { full_at: Moment(0), hold_until: Moment(5000) };
        assert_eq!(reserve(bucket, POSTS, Moment(1000), Moment(4000)), Err(Moment(5000)));
        assert_eq!(
            reserve(bucket, POSTS, Moment(1000), Moment(9000)).map(|(start, _)| start),
            Ok(Moment(5000))
        );
    }

    #[test]
    fn the_longest_hold_there_is_keeps_everyone_back() {
        let until = Moment(0).plus(Duration::from_secs(3600 + 1));
        let bucket = Bucket { full_at: Moment(0), hold_until: until };
        assert_eq!(reserve(bucket, POSTS, Moment(0), Moment(0)), Err(until));
    }

    #[test]
    fn a_clock_set_back_holds_nobody_for_hours() {
        let ahead = Moment(0).plus(HORIZON * 3);
        let bucket = Bucket { full_at: ahead, hold_until: ahead };
        assert_eq!(reserve(bucket, POSTS, Moment(0), Moment(0)).map(|(start, _)| start), Ok(Moment(0)));
        // Less is enough where nothing waits for so long.
        let ahead = Moment(0).plus(Duration::from_secs(3600));
        let bucket = Bucket { full_at: ahead, hold_until: Moment(0) };
        assert_eq!(reserve(bucket, POSTS, Moment(0), Moment(0)).map(|(start, _)| start), Ok(Moment(0)));
        assert_eq!(believable_rest(ahead, Moment(0)), Moment(0));
        assert_eq!(believable(ahead, Moment(0)), ahead);
    }

    proptest! {
        /// Whatever the arrivals, no window of `n` seconds holds more than `n` + burst messages, and time never
        /// runs backwards.
        #[test]
        fn never_more_than_the_rate(gaps in proptest::collection::vec(0_i64..3000, 1..80)) {
            let (mut bucket, mut now, mut starts) = (Bucket::default(), Moment(0), Vec::new());
            for gap in gaps {
                now = Moment(now.0 + gap);
                if let Ok((start, next)) = reserve(bucket, POSTS, now, now.plus(Duration::from_secs(10))) {
                    prop_assert!(start >= now);
                    starts.push(start.0);
                    bucket = next;
                }
            }
            for (i, first) in starts.iter().enumerate() {
                for (j, last) in starts.iter().enumerate().skip(i) {
                    prop_assert!(last >= first);
                    let allowed = (last - first) / 1000 + i64::from(POSTS.burst);
                    prop_assert!((j - i + 1) as i64 <= allowed, "{} in {} ms", j - i + 1, last - first);
                }
            }
        }
    }
}
