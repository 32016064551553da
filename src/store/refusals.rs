//! What a database refused for good, and why: it is set aside, and the rest goes on.

use rusqlite::{OptionalExtension, params};

use super::{StoreError, Tx};
use crate::checkpoint::id::CheckpointKey;
use crate::checkpoint::time::Moment;

impl Tx<'_> {
    /// The database refuses a checkpoint for good, and why.
    pub(crate) fn refuse_audit(
        &self,
        database: &str,
        checkpoint: CheckpointKey,
        reason: &str,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO audit_refusals (database, checkpoint, reason, created_at_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (database, checkpoint) DO UPDATE SET reason = ?3",
            params![database, checkpoint.0, reason, now.0],
        )?;
        Ok(())
    }

    /// What a database refused: checkpoints and why, the oldest first.
    pub(crate) fn audit_refusals(
        &self,
        database: &str,
        limit: u64,
    ) -> Result<Vec<(CheckpointKey, String)>, StoreError> {
        let sql =
            "SELECT checkpoint, reason FROM audit_refusals WHERE database = ?1 ORDER BY checkpoint LIMIT ?2";
        let mut statement = self.connection.prepare(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = statement
            .query_map(params![database, limit], |row| Ok((CheckpointKey(row.get(0)?), row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// Why a database refused a checkpoint, if it did.
    pub(crate) fn audit_refusal(
        &self,
        database: &str,
        checkpoint: CheckpointKey,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT reason FROM audit_refusals WHERE database = ?1 AND checkpoint = ?2";
        let found = self.connection.query_row(sql, params![database, checkpoint.0], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// A refused checkpoint is told after all, or is no longer there.
    pub(crate) fn forget_refusal(&self, database: &str, checkpoint: CheckpointKey) -> Result<(), StoreError> {
        let sql = "DELETE FROM audit_refusals WHERE database = ?1 AND checkpoint = ?2";
        self.connection.execute(sql, params![database, checkpoint.0])?;
        Ok(())
    }
}
