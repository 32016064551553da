//! Flushing: everything that waits becomes due, and is counted until it is gone.

use rusqlite::params;

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::{EntryKey, TaskKey};
use crate::checkpoint::outbox::{Credential, Delivery, Link};
use crate::checkpoint::time::Moment;
use crate::pace;

/// What `flush` found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flushable {
    /// Entries that this credential may send.
    pub(crate) ours: u64,
    /// Entries recorded for another workspace.
    pub(crate) foreign: u64,
    /// When it looked: what is recorded later is not its business.
    pub(crate) began: Moment,
}

impl Tx<'_> {
    /// Makes everything that waits due now, held-back states included; with `rejected`, what was refused as well.
    pub(crate) fn hurry(&self, link: &Link, rejected: bool, now: Moment) -> Result<Flushable, StoreError> {
        if rejected {
            self.revive(link.credential(), now)?;
        }
        self.connection
            .execute("UPDATE entries SET due_at_ms = ?1 WHERE state = 0 AND due_at_ms > ?1", [now.0])?;
        // What was recorded before a clock was set back waits as well.
        let newest: Option<i64> = self.connection.query_row(
            "SELECT max(max(e.created_at_ms, t.updated_at_ms)) FROM entries e JOIN tasks t ON t.key = e.task
             WHERE e.state < 2",
            [],
            |row| row.get(0),
        )?;
        // Slack's own Retry-After stays; only our caution about the network is put aside.
        self.connection.execute("DELETE FROM paces WHERE name = ?1", [pace::network_hold(link)])?;
        self.left(link.credential(), newest.map_or(now, |newest| now.max(Moment(newest))))
    }

    /// Makes the newest state of a task due now that the interval holds back, where the interval began after `since`:
    /// then it was the caller, who has nothing more to say, that began it.
    pub(crate) fn hurry_last(&self, task: TaskKey, since: Moment, now: Moment) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT key FROM entries
             WHERE task = ?1 AND kind = 0 AND state = 0 AND attempts = 0 AND due_at_ms > ?3
                 AND (SELECT coalesce(last_message_at_ms, ?2) >= ?2 FROM tasks WHERE key = ?1)",
        )?;
        let held: Vec<i64> = statement
            .query_map(params![task.0, since.0, now.0], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for entry in held {
            self.conclude(EntryKey(entry), Delivery::Queued, None, None)?;
            self.connection.execute("UPDATE entries SET due_at_ms = ?2 WHERE key = ?1", [entry, now.0])?;
        }
        Ok(())
    }

    /// What still waits that was recorded by the time a flush `began`, and the cards that follow from it. The card of a
    /// task that has gone on since is seen to by whoever sends what came later.
    pub(crate) fn left(&self, credential: &Credential, began: Moment) -> Result<Flushable, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT t.credential, count(*) FROM entries e JOIN tasks t ON t.key = e.task
             WHERE e.state < 2 AND (e.created_at_ms <= ?1 OR e.kind = 1 AND t.updated_at_ms <= ?1)
             GROUP BY t.credential",
        )?;
        let mut found = Flushable { ours: 0, foreign: 0, began };
        let counts = statement
            .query_map([began.0], |row| Ok((row.get::<_, Option<String>>(0)?, rows::count(row, 1)?)))?;
        for row in counts {
            let (recorded, count) = row?;
            if credential.may_send(recorded.map(Credential::stored).as_ref(), true) {
                found.ours += count;
            } else {
                found.foreign += count;
            }
        }
        Ok(found)
    }

    /// Sends tasks elsewhere that have no thread yet and of which Slack refused something.
    pub(crate) fn redirect(&self, credential: &Credential, channel: &str) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT t.key, t.credential FROM entries e JOIN tasks t ON t.key = e.task
             WHERE e.state = 2 AND t.thread_ts IS NULL",
        )?;
        let found: Vec<(i64, Option<String>)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        for (task, recorded) in found {
            if credential.may_send(recorded.map(Credential::stored).as_ref(), true) {
                self.connection.execute(
                    "UPDATE tasks SET channel = ?2, channel_is_default = 0, channel_id = NULL WHERE key = ?1",
                    params![task, channel],
                )?;
            }
        }
        Ok(())
    }

    fn revive(&self, credential: &Credential, now: Moment) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT e.key, t.credential FROM entries e JOIN tasks t ON t.key = e.task WHERE e.state = 2",
        )?;
        let found: Vec<(i64, Option<String>)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        for (entry, recorded) in found {
            if credential.may_send(recorded.map(Credential::stored).as_ref(), true) {
                self.conclude(EntryKey(entry), Delivery::Queued, None, None)?;
                self.connection.execute(
                    "UPDATE entries SET state = 0, due_at_ms = ?2, attempts = 0 WHERE key = ?1",
                    params![entry, now.0],
                )?;
            }
        }
        Ok(())
    }
}
