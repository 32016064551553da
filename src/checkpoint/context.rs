//! How full an agent's context is, and when people must hear of it.

use serde::{Deserialize, Serialize};

/// The context limit assumed until somebody says another, in tokens.
pub(crate) const DEFAULT_LIMIT: u64 = 200_000;

/// How far below a threshold the context must fall before crossing it counts again, in points.
const REARM_POINTS: f64 = 10.0;

/// Where the context stands against the two thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    #[default]
    Calm,
    /// At or above the warning threshold.
    Warn,
    /// At or above the alert threshold.
    Alert,
}

/// The two thresholds, in percent of the context limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) warn: u8,
    pub(crate) alert: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { warn: 70, alert: 85 }
    }
}

/// The share of the limit that is used, in percent with one decimal; may exceed 100.
pub(crate) fn percent(tokens: u64, limit: u64) -> f64 {
    if limit == 0 {
        return 0.0;
    }
    // Rounded down, so that 69.96 % is not shown as the 70.0 % that it has not reached.
    let tenths = u128::from(tokens) * 1000 / u128::from(limit);
    tenths as f64 / 10.0
}

/// The level that this many tokens stand at; thresholds are inclusive.
pub(crate) fn level(tokens: u64, limit: u64, thresholds: Thresholds) -> Level {
    let reached =
        |threshold: u8| u128::from(tokens) * 100 >= u128::from(threshold) * u128::from(limit.max(1));
    if reached(thresholds.alert) {
        Level::Alert
    } else if reached(thresholds.warn) {
        Level::Warn
    } else {
        Level::Calm
    }
}

/// What to remember after a checkpoint, and whether it crossed a threshold upwards.
///
/// `armed` is what was remembered before: the highest level already told. It falls again only when the context is
/// ten points below a threshold, so that a value that swings around 70 % is told once.
pub(crate) fn cross(armed: Level, tokens: u64, limit: u64, thresholds: Thresholds) -> (Level, bool) {
    let now = level(tokens, limit, thresholds);
    if now > armed {
        return (now, true);
    }
    let percent = tokens as f64 * 100.0 / limit.max(1) as f64;
    let well_below = |threshold: u8| percent <= f64::from(threshold) - REARM_POINTS;
    let rearmed = if well_below(thresholds.warn) {
        Level::Calm
    } else if armed == Level::Alert && well_below(thresholds.alert) {
        Level::Warn
    } else {
        armed
    };
    (rearmed.max(now), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds percentages one after another and says at which of them a threshold was crossed.
    fn crossings(percents: &[u64]) -> Vec<u64> {
        let mut armed = Level::Calm;
        let mut told = Vec::new();
        for &percent in percents {
            let (next, crossed) = cross(armed, percent, 100, Thresholds::default());
            armed = next;
            if crossed {
                told.push(percent);
            }
        }
        told
    }

    #[test]
    fn thresholds_are_inclusive() {
        let at = |tokens| level(tokens, 200_000, Thresholds::default());
        assert_eq!(
            [at(139_999), at(140_000), at(169_999), at(170_000), at(400_000)],
            [Level::Calm, Level::Warn, Level::Warn, Level::Alert, Level::Alert]
        );
    }

    #[test]
    fn each_crossing_is_told_once() {
        assert_eq!(crossings(&[69, 70, 75, 84, 85, 90, 99]), [70, 85]);
        assert_eq!(crossings(&[90, 91]), [90]);
        assert_eq!(crossings(&[70, 69, 70, 65, 71]), [70], "a swing around the threshold is no new crossing");
        assert_eq!(crossings(&[70, 60, 70]), [70, 70], "ten points below re-arms");
        assert_eq!(crossings(&[86, 75, 86]), [86, 86], "ten points below the alert re-arms the alert");
        assert_eq!(crossings(&[86, 76, 86]), [86]);
        assert_eq!(crossings(&[86, 20, 72, 86]), [86, 72, 86], "as after compaction");
    }

    #[test]
    fn percent_never_rounds_up_to_a_threshold() {
        assert_eq!(percent(139_999, 200_000), 69.9);
        assert_eq!(percent(0, 200_000), 0.0);
        assert_eq!(percent(u64::MAX, 1), u64::MAX as f64 * 100.0);
        assert_eq!(percent(5, 0), 0.0);
    }
}
