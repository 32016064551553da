//! Moments in time as the core sees them: a number that somebody else read from a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub(crate) struct Moment(pub(crate) i64);

/// The beginning of the first year that has four digits and no sign.
const YEAR_0: i64 = -62_167_219_200_000;

impl Moment {
    /// For what has a time that nobody knows, as where another program wrote infinity.
    pub(crate) const UNKNOWN: Self = Self(i64::MIN);

    pub(crate) fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }

    /// This much later; stops at the end of time instead of overflowing.
    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(millis(by)))
    }

    /// This much earlier; stops at the beginning of time instead of overflowing.
    pub(crate) fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(millis(by)))
    }

    /// How long ago `earlier` was; zero when it lies ahead, as after a clock was set back.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As [`Self::rfc3339`] has it; `None` for [`Self::UNKNOWN`].
    pub(crate) fn told(self) -> Option<String> {
        self.is_known().then(|| self.rfc3339())
    }

    /// RFC 3339 in UTC with milliseconds, such as `2026-03-01T09:30:00.000Z`; the nearest moment that can be written
    /// so, which has a year of four digits.
    pub(crate) fn rfc3339(self) -> String {
        let at = jiff::Timestamp::from_millisecond(self.0.max(YEAR_0)).unwrap_or(jiff::Timestamp::MAX);
        format!("{at:.3}")
    }
}

/// A duration in whole milliseconds, as tables keep it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as people read it: `42s`, `3m 5s`, `2h 10m`.
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {seconds}s")
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_durations() {
        for (seconds, text) in [
            (0, "0s"),
            (42, "42s"),
            (60, "1m 0s"),
            (185, "3m 5s"),
            (3600, "1h 0m"),
            (7800, "2h 10m"),
            (93_600, "26h 0m"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn writes_rfc_3339_in_utc() {
        assert_eq!(Moment::UNKNOWN.told(), None);
        assert_eq!(Moment(0).told().as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(Moment(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Moment(1_772_357_400_120).rfc3339(), "2026-03-01T09:30:00.120Z");
        // As from an interval of thousands of years.
        assert_eq!(Moment(i64::MAX).rfc3339(), "9999-12-30T22:00:00.999Z");
        for early in [YEAR_0, YEAR_0 - 1, i64::MIN] {
            assert_eq!(Moment(early).rfc3339(), "0000-01-01T00:00:00.000Z");
        }
    }

    #[test]
    fn a_clock_set_back_gives_no_negative_age() {
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(Moment(i64::MAX).plus(Duration::MAX), Moment(i64::MAX));
    }
}
