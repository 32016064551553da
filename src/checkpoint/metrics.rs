//! Per-day totals, the same whether they come from the cache or from a database.

use std::time::Duration;

use super::time::{Moment, millis};

/// A day has no leap seconds here, as in Unix time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A day in UTC, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date(i64);

impl Date {
    /// The day that a moment lies in.
    pub(crate) fn of(moment: Moment) -> Self {
        Self(moment.0.div_euclid(millis(DAY).cast_signed()))
    }

    /// When it begins.
    pub(crate) fn begins(self) -> Moment {
        Moment(self.0.saturating_mul(millis(DAY).cast_signed()))
    }

    /// As RFC 3339 writes it, such as `2026-03-01`.
    pub(crate) fn text(self) -> String {
        self.begins().rfc3339().split('T').next().unwrap_or_default().to_owned()
    }
}

/// The tasks that were started on one day, as they stand now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Totals {
    pub(crate) date: Date,
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Seconds from start to end, of those that ended; `None` while none has.
    pub(crate) avg_duration: Option<f64>,
    /// Tokens that were last in their contexts.
    pub(crate) tokens: u64,
}

impl Totals {
    fn none(date: Date) -> Self {
        Self { date, total: 0, completed: 0, failed: 0, cancelled: 0, avg_duration: None, tokens: 0 }
    }
}

/// The first of so many days of which the last is today; at least one.
pub(crate) fn first_of(days: u16, now: Moment) -> Date {
    Date(Date::of(now).0.saturating_sub(i64::from(days.max(1)) - 1))
}

/// A row for every day from `first` to today, the days on which nothing was started among them.
pub(crate) fn every_day(first: Date, found: &[Totals], now: Moment) -> Vec<Totals> {
    let row = |date| found.iter().find(|totals| totals.date == date).copied();
    (first.0..=Date::of(now).0).map(Date).map(|date| row(date).unwrap_or(Totals::none(date))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01T09:30:00Z
    const NOW: Moment = Moment(1_772_357_400_000);

    #[test]
    fn a_day_is_one_in_utc() {
        let today = Date::of(NOW);
        assert_eq!(
            (today.text(), today.begins().rfc3339()),
            ("2026-03-01".into(), "2026-03-01T00:00:00.000Z".into())
        );
        assert_eq!(Date::of(today.begins()), today);
        assert_eq!(Date::of(Moment(today.begins().0 - 1)).text(), "2026-02-28");
        assert_eq!(Date::of(Moment(-1)).text(), "1969-12-31");
    }

    #[test]
    fn days_end_with_today_and_none_is_left_out() {
        let first = first_of(3, NOW);
        let busy = Totals { total: 2, completed: 1, ..Totals::none(first_of(2, NOW)) };
        let rows = every_day(first, &[busy], NOW);
        let dates: Vec<String> = rows.iter().map(|row| row.date.text()).collect();
        assert_eq!(dates, ["2026-02-27", "2026-02-28", "2026-03-01"]);
        assert_eq!(rows.iter().map(|row| row.total).collect::<Vec<_>>(), [0, 2, 0]);
        assert_eq!(first_of(1, NOW), Date::of(NOW));
        assert_eq!(first_of(0, NOW), Date::of(NOW));
    }
}
