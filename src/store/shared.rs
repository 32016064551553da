//! Tasks that are known elsewhere: what this cache takes over from the audit trail's database, and what it waits for.

use rusqlite::{OptionalExtension, params};

use super::record::to_json;
use super::rows::{self, state};
use super::{StoreError, Tx};
use crate::checkpoint::audit::{AuditTask, SharedTask};
use crate::checkpoint::id::{CheckpointKey, EntryKey, TaskId, TaskKey};
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Checkpoint, Task};

impl Tx<'_> {
    /// Takes over what the database says of a task's thread: the one that is known there goes on. Says which thread of
    /// ours is given up for it, as its channel and `ts`.
    pub(crate) fn share_thread(
        &self,
        key: TaskKey,
        shared: &SharedTask,
        sent: Option<&str>,
    ) -> Result<Option<(String, String)>, StoreError> {
        let AuditTask { task, shared_thread_ts: known, .. } = self.audit_task(key)?;
        let theirs = &shared.task;
        if theirs.thread_ts == known {
            return Ok(None);
        }
        let Some(thread_ts) = theirs.thread_ts.as_ref().filter(|_| theirs.thread_ts != task.thread_ts) else {
            let sql = "UPDATE tasks SET shared_thread_ts = ?2 WHERE key = ?1";
            self.connection.execute(sql, params![key.0, theirs.thread_ts])?;
            return Ok(None);
        };
        let is_foreign = task.credential.as_ref().zip(theirs.credential.as_ref());
        if is_foreign.is_some_and(|(ours, recorded)| !ours.shares_threads_with(recorded)) {
            self.forget_news(key)?;
            return Ok(None);
        }
        // Since we told of ours, another one has come: that is told next.
        if task.thread_ts.as_deref() != sent {
            return Ok(None);
        }
        self.connection.execute(
            "UPDATE tasks SET thread_ts = ?2, shared_thread_ts = ?2, channel = coalesce(?3, channel),
                 channel_id = coalesce(?4, channel_id), card = ?5, joined = ?6, channel_is_default = 0,
                 opener_until_ms = NULL
             WHERE key = ?1",
            params![
                key.0,
                thread_ts,
                theirs.channel,
                theirs.channel_id,
                rows::card_column(&theirs.card),
                theirs.joined
            ],
        )?;
        let channel = task.channel_id.or(task.channel);
        Ok(channel.zip(task.thread_ts).filter(|_| task.credential.is_some()))
    }

    /// The task that its agent had here before.
    pub(crate) fn task_before(&self, task: &Task) -> Result<Option<Task>, StoreError> {
        let sql = format!(
            "SELECT {} FROM tasks WHERE agent_id = ?1 AND key < ?2 ORDER BY key DESC LIMIT 1",
            rows::TASK
        );
        let before = params![task.agent_id, task.key.map(|key| key.0)];
        Ok(self.connection.query_row(&sql, before, rows::task).optional()?)
    }

    /// Whether the database does not know the task's thread.
    pub(crate) fn has_news(&self, key: TaskKey) -> Result<bool, StoreError> {
        let sql =
            "SELECT thread_ts IS NOT NULL AND thread_ts IS NOT shared_thread_ts FROM tasks WHERE key = ?1";
        Ok(self.connection.query_row(sql, [key.0], |row| row.get(0))?)
    }

    /// A thread is not told of any more.
    pub(crate) fn forget_news(&self, key: TaskKey) -> Result<(), StoreError> {
        let sql = "UPDATE tasks SET shared_thread_ts = thread_ts WHERE key = ?1";
        self.connection.execute(sql, [key.0])?;
        Ok(())
    }

    /// Until then nobody here opens a thread for the task: somebody else is about to.
    pub(crate) fn await_thread(&self, key: TaskKey, until: Moment) -> Result<(), StoreError> {
        let sql = "UPDATE tasks SET opener_until_ms = ?2 WHERE key = ?1 AND thread_ts IS NULL";
        self.connection.execute(sql, params![key.0, until.0])?;
        Ok(())
    }

    /// Tasks whose thread somebody else is about to open.
    pub(crate) fn awaited_threads(&self, now: Moment) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let sql = "SELECT key, coalesce(shared_id, id) FROM tasks
                   WHERE opener_until_ms IS NOT NULL AND thread_ts IS NULL AND opener_until_ms > ?1";
        let mut statement = self.connection.prepare(sql)?;
        let found = statement
            .query_map([now.0], |row| Ok((TaskKey(row.get(0)?), TaskId(rows::uuid(row, 1)?))))?
            .collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// A task stands as somebody else has said since. What was said here before, and waits to be told in the thread, is
    /// told as it was said.
    pub(crate) fn stand_as(&self, key: TaskKey, mine: &Task, shared: &SharedTask) -> Result<(), StoreError> {
        let sql =
            "UPDATE entries SET frozen = ?2 WHERE task = ?1 AND kind = 0 AND state < 2 AND frozen IS NULL";
        self.connection.execute(sql, params![key.0, to_json(&mine.snapshot)])?;
        let mut shared = shared.clone();
        keep_button(&mut shared.task, mine);
        self.write_state(key, &shared, shared.task.ended_at)
    }

    fn write_state(
        &self,
        key: TaskKey,
        shared: &SharedTask,
        ended_at: Option<Moment>,
    ) -> Result<(), StoreError> {
        let theirs = &shared.task;
        self.connection.execute(
            "UPDATE tasks SET state = ?2, snapshot = ?3, updated_at_ms = ?4, ended_at_ms = ?5 WHERE key = ?1",
            params![
                key.0,
                theirs.state.name(),
                to_json(&theirs.snapshot),
                theirs.updated_at.0,
                ended_at.map(|at| at.0)
            ],
        )?;
        Ok(())
    }

    /// A task was ended elsewhere: it is over here as well, and what waits of it to be shown is outdated.
    pub(crate) fn end_elsewhere(&self, key: TaskKey, shared: &SharedTask) -> Result<(), StoreError> {
        self.write_state(key, shared, shared.task.ended_at.or(Some(shared.task.updated_at)))?;
        let outdated = "SELECT key FROM entries
             WHERE task = ?1 AND state = ?2 AND (kind = 1 OR kind = 0 AND priority = 1)";
        let mut statement = self.connection.prepare(outdated)?;
        let keys: Vec<i64> = statement
            .query_map(params![key.0, state::WAITING], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for entry in keys {
            self.drop_outdated(EntryKey(entry))?;
        }
        Ok(())
    }

    /// Takes back the latest checkpoints of a task, those behind this one that nobody has heard of and that are to go: the
    /// oldest first. None of a task that somebody answers for, as of a wrapped command's.
    pub(crate) fn take_back(
        &self,
        key: TaskKey,
        after: CheckpointKey,
        goes: impl Fn(&Checkpoint) -> bool,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        let sql = format!(
            "SELECT {}, EXISTS (SELECT 1 FROM entries WHERE checkpoint = c.key AND state <> {}) AS was_begun
             FROM checkpoints c JOIN tasks t ON t.key = c.task
             WHERE c.task = ?1 AND c.key > ?2 AND t.watcher IS NULL ORDER BY c.key DESC",
            rows::qualified(rows::CHECKPOINT, "c"),
            state::WAITING
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params![key.0, after.0])?;
        let mut taken = Vec::new();
        while let Some(row) = rows.next()? {
            let checkpoint = rows::checkpoint(row)?;
            let is_heard_of = row.get("was_begun")? || checkpoint.message_ts.is_some();
            let waits = matches!(
                checkpoint.delivery,
                Delivery::Queued | Delivery::Coalesced | Delivery::Printed | Delivery::Off
            );
            // The last word on a question is told in its thread.
            let is_an_end = checkpoint.id.0.get_version_num() == 8;
            if is_heard_of || !waits || is_an_end || !goes(&checkpoint) {
                break;
            }
            taken.push(checkpoint);
        }
        for gone in taken.iter().filter_map(|checkpoint| checkpoint.key) {
            self.connection.execute("DELETE FROM entries WHERE checkpoint = ?1", [gone.0])?;
            self.connection.execute("DELETE FROM checkpoints WHERE key = ?1", [gone.0])?;
        }
        taken.reverse();
        Ok(taken)
    }

    /// A task turns out to be one that is open already: from now on it goes by that one's id, with what that one knows.
    pub(crate) fn merge(&self, key: TaskKey, shared: &SharedTask, merged: &Task) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET shared_id = ?2, is_import = 1, task_type = ?3, snapshot = ?4, started_at_ms = ?5,
                 opened_anew = 0
             WHERE key = ?1",
            params![
                key.0,
                shared.task.id.to_string(),
                merged.task_type,
                to_json(&merged.snapshot),
                merged.started_at.0
            ],
        )?;
        Ok(())
    }

    /// Puts a task into the cache that is known elsewhere; or brings the one that is here up to it.
    pub(crate) fn import(&self, shared: &SharedTask) -> Result<TaskKey, StoreError> {
        self.import_as(shared, None)
    }

    /// The same for one that is over: its agent's latest task here stays the latest.
    pub(crate) fn import_older(&self, shared: &SharedTask) -> Result<TaskKey, StoreError> {
        let sql = "SELECT min(coalesce(min(key), 0), 0) - 1 FROM tasks";
        let lowest = self.connection.query_row(sql, [], |row| row.get(0))?;
        self.import_as(shared, Some(lowest))
    }

    fn import_as(&self, shared: &SharedTask, new_key: Option<i64>) -> Result<TaskKey, StoreError> {
        let find = format!(
            "SELECT {} FROM tasks WHERE coalesce(shared_id, id) = ?1 AND (id = ?1 OR shared_id = ?1)
             ORDER BY key DESC LIMIT 1",
            rows::TASK
        );
        let known = self.connection.query_row(&find, [shared.task.id.to_string()], rows::task).optional()?;
        let mut task = Task { key: known.as_ref().and_then(|mine| mine.key), ..shared.task.clone() };
        if let Some(mine) = &known {
            keep_button(&mut task, mine);
        }
        // A thread of ours that is unknown there, or another than there, is not forgotten: see `share_thread`.
        let kept = known.filter(|mine| mine.thread_ts.is_some() && mine.thread_ts != task.thread_ts);
        let keeps_thread = kept.is_some();
        if let Some(mine) = kept {
            (task.channel, task.channel_id, task.thread_ts) = (mine.channel, mine.channel_id, mine.thread_ts);
            (task.credential, task.joined) = (mine.credential, mine.joined);
        }
        let is_new = task.key.is_none();
        let key = self.write_task(&task)?;
        self.connection.execute(
            "UPDATE tasks SET agent_id = ?2, started_at_ms = ?3, is_import = is_import OR ?4,
                 shared_thread_ts = CASE WHEN ?5 THEN shared_thread_ts ELSE thread_ts END,
                 card = CASE WHEN ?5 THEN card ELSE ?6 END
             WHERE key = ?1",
            params![
                key.0,
                task.agent_id,
                task.started_at.0,
                is_new,
                keeps_thread,
                rows::card_column(&task.card)
            ],
        )?;
        match new_key.filter(|_| is_new) {
            None => Ok(key),
            Some(older) => {
                self.connection.execute("UPDATE tasks SET key = ?2 WHERE key = ?1", [key.0, older])?;
                Ok(TaskKey(older))
            }
        }
    }
}

/// Whoever said the latest may not have heard of a button of ours, or not that it is gone; of any other it knows better.
fn keep_button(task: &mut Task, mine: &Task) {
    let own = mine.cancel.as_ref().map(|cancel| &cancel.nonce);
    if task.snapshot.cancel.is_none() || task.snapshot.cancel.as_ref() == own {
        task.snapshot.cancel = mine.snapshot.cancel.clone().filter(|secret| Some(secret) == own);
    }
}
