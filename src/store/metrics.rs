//! Per-day totals of the tasks in the cache.

use rusqlite::params;

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::metrics::{Date, Totals};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;

impl Tx<'_> {
    /// The days from `first` on, in order, on which a task was started.
    pub(crate) fn totals(&self, first: Date) -> Result<Vec<Totals>, StoreError> {
        // Not sum(), which fails where it overflows. A clock that was set back makes an end look earlier than its start.
        let sql = "SELECT min(started_at_ms), count(*),
                 count(*) FILTER (WHERE state = ?2), count(*) FILTER (WHERE state = ?3),
                 count(*) FILTER (WHERE state = ?4), avg(max(ended_at_ms - started_at_ms, 0)) / 1000.0,
                 CAST(total(json_extract(snapshot, '$.tokens')) AS INTEGER)
             FROM tasks WHERE started_at_ms >= ?1 GROUP BY started_at_ms / 86400000 ORDER BY 1";
        let [completed, failed, cancelled] =
            [TaskState::Completed, TaskState::Failed, TaskState::Cancelled].map(TaskState::name);
        let mut statement = self.connection.prepare(sql)?;
        let totals = statement
            .query_map(params![first.begins().0, completed, failed, cancelled], |row| {
                Ok(Totals {
                    date: Date::of(Moment(row.get(0)?)),
                    total: rows::count(row, 1)?,
                    completed: rows::count(row, 2)?,
                    failed: rows::count(row, 3)?,
                    cancelled: rows::count(row, 4)?,
                    avg_duration: row.get(5)?,
                    tokens: rows::count(row, 6)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(totals)
    }
}
