//! What was heard already: Slack says many things twice, and several processes may hear the same.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{StoreError, Tx};
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::outbox::Credential;
use crate::checkpoint::time::Moment;
use crate::pace;

/// How long an id is remembered; Slack repeats itself for a day at most.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many old ones go with each new one.
const FORGET: i64 = 4;

impl Tx<'_> {
    /// Notes that this was heard; false if it was before.
    pub(crate) fn hear(&self, id: &str, now: Moment) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "INSERT INTO seen (id, at_ms) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING",
            params![id, now.0],
        )?;
        self.connection.execute(
            "DELETE FROM seen WHERE key IN (SELECT key FROM seen ORDER BY key LIMIT ?2) AND at_ms < ?1",
            params![now.minus(MEMORY).0, FORGET],
        )?;
        Ok(changed > 0)
    }

    /// Whether this was heard before.
    pub(crate) fn was_heard(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM seen WHERE id = ?1)";
        Ok(self.connection.query_row(sql, [id], |row| row.get(0))?)
    }

    /// How far an agent has read its task's thread.
    pub(crate) fn looked_until(&self, task: TaskKey) -> Result<Option<String>, StoreError> {
        let sql = "SELECT ts FROM looks WHERE task = ?1";
        Ok(self.connection.query_row(sql, [task.0], |row| row.get(0)).optional()?)
    }

    /// Notes how far an agent has read its task's thread.
    pub(crate) fn look_until(&self, task: TaskKey, ts: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO looks (task, ts) VALUES (?1, ?2) ON CONFLICT (task) DO UPDATE SET ts = ?2";
        self.connection.execute(sql, params![task.0, ts])?;
        Ok(())
    }

    /// Takes a turn to call a method that looks for answers. The inner error is the moment of the next turn.
    pub(crate) fn look_turn(
        &self,
        credential: &Credential,
        method: &str,
        now: Moment,
    ) -> Result<Result<(), Moment>, StoreError> {
        let name = pace::look(credential, method);
        match pace::reserve(self.pace(&name)?, pace::LOOKS, now, now) {
            Ok((_, next)) => self.spend(&name, next).map(Ok),
            Err(at) => Ok(Err(at)),
        }
    }

    /// Keeps everyone from calling that method until then, as Slack asked.
    pub(crate) fn hold_looks(
        &self,
        credential: &Credential,
        method: &str,
        until: Moment,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.hold(&pace::look(credential, method), until, now)
    }
}
