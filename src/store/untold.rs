//! Tasks of which a database has not heard the latest yet.

use rusqlite::params;

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::audit::{ClockOffset, Untold};
use crate::checkpoint::id::CheckpointKey;
use crate::checkpoint::time::Moment;

/// How many of them are read at most, the latest ones.
const UNTOLD_MAX: i64 = 1000;

impl Tx<'_> {
    /// Tasks with a checkpoint that the database lacks, by its clock, the latest change first.
    pub(crate) fn untold(&self, database: &str) -> Result<Vec<Untold>, StoreError> {
        let trail = self.known_trail(database)?;
        let (after, offset) = trail.map_or((CheckpointKey(0), None), |trail| (trail.after, trail.offset));
        let offset = offset.unwrap_or(ClockOffset(0)).0;
        let there = |moment: Moment| Moment(moment.0.saturating_add(offset));
        let sql = format!(
            "SELECT {}, is_import = 0 AND NOT EXISTS
                 (SELECT 1 FROM checkpoints f WHERE f.task = tasks.key AND f.key <= ?1) AS is_new
             FROM tasks WHERE key IN (SELECT task FROM checkpoints WHERE key > ?1)
             ORDER BY updated_at_ms DESC, key DESC LIMIT ?2",
            rows::TASK
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query(params![after.0, UNTOLD_MAX])?;
        let mut untold = Vec::new();
        while let Some(row) = found.next()? {
            let mut task = rows::task(row)?;
            task.started_at = there(task.started_at);
            task.updated_at = there(task.updated_at);
            task.ended_at = task.ended_at.map(there);
            untold.push(Untold { task, is_new: row.get("is_new")? });
        }
        Ok(untold)
    }
}
