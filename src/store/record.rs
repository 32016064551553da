//! Recording: reads what planning needs and writes what it decided.

use rusqlite::{OptionalExtension, params};

use super::rows::{self, state};
use super::{StoreError, Tx};
use crate::checkpoint::id::{CheckpointKey, EntryKey, TaskKey};
use crate::checkpoint::outbox::{Delivery, EntryKind, Priority, Waiting};
use crate::checkpoint::plan::{Append, EntryChange, Stored};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Draft, Parent, Task};

/// The rows that an append went to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) task: TaskKey,
    pub(crate) checkpoint: CheckpointKey,
    /// The outbox entry that carries the checkpoint, if one does.
    pub(crate) entry: Option<EntryKey>,
}

impl Tx<'_> {
    /// What planning a draft needs to know: its task, or else its agent's latest, and that task's posts that wait.
    pub(crate) fn stored(&self, draft: &Draft) -> Result<Stored, StoreError> {
        let find = |condition: &str, value: &str| {
            let sql =
                format!("SELECT {} FROM tasks WHERE {condition} = ?1 ORDER BY key DESC LIMIT 1", rows::TASK);
            self.connection.query_row(&sql, [value], rows::task).optional()
        };
        let within = match draft.within {
            Some(id) => match find("id", &id.to_string())? {
                Some(task) => Some(task),
                // Known to others by that id.
                None => find("shared_id", &id.to_string())?,
            },
            None => None,
        };
        let task = match within {
            Some(task) => Some(task),
            None => find("agent_id", &draft.agent_id)?,
        };
        let parent = match &draft.parent {
            Some(Parent { task, agent_id }) => {
                let find = "SELECT coalesce((SELECT key FROM tasks WHERE id = ?1),
                                (SELECT key FROM tasks WHERE shared_id = ?1 ORDER BY key DESC LIMIT 1),
                                (SELECT key FROM tasks WHERE agent_id = ?2 ORDER BY key DESC LIMIT 1))";
                let ids = params![task.to_string(), agent_id];
                self.connection.query_row(find, ids, |row| row.get::<_, Option<i64>>(0))?.map(TaskKey)
            }
            None => None,
        };
        let waiting = match task.as_ref().and_then(|task| task.key) {
            Some(key) => self.waiting(key)?,
            None => Vec::new(),
        };
        Ok(Stored { task, waiting, parent })
    }

    pub(super) fn waiting(&self, task: TaskKey) -> Result<Vec<Waiting>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT key, priority, state, due_at_ms FROM entries
             WHERE task = ?1 AND kind = 0 AND state < 2 ORDER BY key",
        )?;
        let waiting = statement
            .query_map([task.0], |row| {
                Ok(Waiting {
                    key: EntryKey(row.get(0)?),
                    priority: rows::priority(row, 1)?,
                    in_flight: row.get::<_, i64>(2)? == state::SENDING,
                    due_at: Moment(row.get(3)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(waiting)
    }

    /// Writes an append: task, checkpoint and outbox entry.
    pub(crate) fn append(&self, append: &Append, now: Moment) -> Result<Recorded, StoreError> {
        let task = self.save_task(append)?;
        let checkpoint = self.insert_checkpoint(task, append)?;
        for outdated in &append.outdated {
            self.drop_outdated(*outdated)?;
        }
        let entry = self.change_entry(task, checkpoint, append, now)?;
        if entry.is_some() {
            self.attach_tail(task, checkpoint, append, now)?;
            self.tell_parent(task, checkpoint, append, now)?;
        }
        Ok(Recorded { task, checkpoint, entry })
    }

    /// Takes a checkpoint back that nobody has heard of yet, and with it the task that it opened; another task is put
    /// back to what it was `before`. False if it is too late for that.
    #[cfg(feature = "postgres")]
    pub(crate) fn undo(
        &self,
        recorded: &Recorded,
        (draft, before): (&Draft, Option<&Task>),
    ) -> Result<bool, StoreError> {
        let untold = "SELECT delivery IN ('queued', 'coalesced', 'printed', 'off') AND message_ts IS NULL
                          AND key = (SELECT max(key) FROM checkpoints WHERE task = ?2)
                      FROM checkpoints WHERE key = ?1 AND id = ?3 AND task = ?2";
        let ids = params![recorded.checkpoint.0, recorded.task.0, draft.id.to_string()];
        let is_untold = self.connection.query_row(untold, ids, |row| row.get(0)).optional()?;
        let continued = before.filter(|before| before.key == Some(recorded.task));
        if is_untold != Some(true) || (recorded.entry.is_some() && !self.is_waiting_or_ours(recorded)?) {
            return Ok(false);
        }
        let checkpoint = recorded.checkpoint.0;
        self.connection.execute("DELETE FROM entries WHERE checkpoint = ?1", [checkpoint])?;
        self.connection.execute("DELETE FROM checkpoints WHERE key = ?1", [checkpoint])?;
        match continued {
            Some(before) => drop(self.write_task(before)?),
            None => drop(self.connection.execute("DELETE FROM tasks WHERE key = ?1", [recorded.task.0])?),
        }
        Ok(true)
    }

    /// Whether nobody else is sending a checkpoint's message.
    #[cfg(feature = "postgres")]
    fn is_waiting_or_ours(&self, recorded: &Recorded) -> Result<bool, StoreError> {
        let state: Option<i64> = self
            .connection
            .query_row(
                "SELECT state FROM entries WHERE key = ?1 AND checkpoint = ?2 AND state < 2",
                params![recorded.entry.map(|entry| entry.0), recorded.checkpoint.0],
                |row| row.get(0),
            )
            .optional()?;
        Ok(state == Some(state::WAITING)
            || state == Some(state::SENDING) && self.is_being_sent_by_us(recorded.checkpoint)?)
    }

    fn save_task(&self, append: &Append) -> Result<TaskKey, StoreError> {
        self.write_task(&append.task)
    }

    pub(super) fn write_task(&self, task: &Task) -> Result<TaskKey, StoreError> {
        let snapshot = to_json(&task.snapshot);
        if let Some(key) = task.key {
            self.connection.execute(
                "UPDATE tasks SET task_type = ?2, state = ?3, snapshot = ?4, channel = ?5, channel_id = ?6,
                     thread_ts = ?7, credential = ?8, updated_at_ms = ?9, ended_at_ms = ?10, joined = ?11,
                     channel_is_default = ?12
                 WHERE key = ?1",
                params![
                    key.0,
                    task.task_type,
                    task.state.name(),
                    snapshot,
                    task.channel,
                    task.channel_id,
                    task.thread_ts,
                    task.credential.as_ref().map(|credential| credential.as_str()),
                    task.updated_at.0,
                    task.ended_at.map(|at| at.0),
                    task.joined,
                    task.channel_is_default,
                ],
            )?;
            return Ok(key);
        }
        self.connection.execute(
            "INSERT INTO tasks (id, agent_id, task_type, state, snapshot, channel, channel_id, thread_ts, card,
                 credential, started_at_ms, updated_at_ms, ended_at_ms, parent, joined, channel_is_default, opened_anew)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            params![
                task.id.to_string(),
                task.agent_id,
                task.task_type,
                task.state.name(),
                snapshot,
                task.channel,
                task.channel_id,
                task.thread_ts,
                rows::card_column(&task.card),
                task.credential.as_ref().map(|credential| credential.as_str()),
                task.started_at.0,
                task.updated_at.0,
                task.ended_at.map(|at| at.0),
                task.parent.map(|parent| parent.0),
                task.joined,
                task.channel_is_default,
                task.opened_anew,
            ],
        )?;
        Ok(TaskKey(self.connection.last_insert_rowid()))
    }

    fn insert_checkpoint(&self, task: TaskKey, append: &Append) -> Result<CheckpointKey, StoreError> {
        let checkpoint = &append.checkpoint;
        self.connection.execute(
            "INSERT INTO checkpoints (task, id, status, progress, tokens, context_limit, action, error, artifacts,
                 meta, elapsed_ms, created_at_ms, delivery, tail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            params![
                task.0,
                checkpoint.id.to_string(),
                checkpoint.status.name(),
                checkpoint.progress,
                checkpoint.tokens.map(signed),
                signed(checkpoint.context_limit),
                checkpoint.action,
                checkpoint.error,
                (!checkpoint.artifacts.is_empty()).then(|| to_json(&checkpoint.artifacts)),
                (!checkpoint.meta.is_empty()).then(|| to_json(&checkpoint.meta)),
                signed(checkpoint.elapsed_ms),
                checkpoint.created_at.0,
                checkpoint.delivery.name(),
                checkpoint.tail,
            ],
        )?;
        Ok(CheckpointKey(self.connection.last_insert_rowid()))
    }

    fn change_entry(
        &self,
        task: TaskKey,
        checkpoint: CheckpointKey,
        append: &Append,
        now: Moment,
    ) -> Result<Option<EntryKey>, StoreError> {
        match &append.entry {
            EntryChange::None => Ok(None),
            EntryChange::Insert { priority, due_at } => {
                let frozen = (*priority == Priority::Immediate).then(|| to_json(&append.task.snapshot));
                self.insert_entry(task, EntryKind::Post, *priority, Some(checkpoint), frozen, *due_at, now)?;
                Ok(Some(EntryKey(self.connection.last_insert_rowid())))
            }
            EntryChange::Repoint { entry, due_at } => {
                self.cover(*entry)?;
                self.connection.execute(
                    "UPDATE entries SET checkpoint = ?2, due_at_ms = ?3, maybe_sent = 0, state = 0, frozen = NULL WHERE key = ?1",
                    params![entry.0, checkpoint.0, due_at.0],
                )?;
                Ok(Some(*entry))
            }
        }
    }

    /// Its message may be in Slack already: it is looked for before it is sent.
    pub(crate) fn look_before(&self, entry: EntryKey) -> Result<(), StoreError> {
        self.connection.execute("UPDATE entries SET maybe_sent = 1 WHERE key = ?1", [entry.0])?;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one for each column")]
    pub(super) fn insert_entry(
        &self,
        task: TaskKey,
        kind: EntryKind,
        priority: Priority,
        checkpoint: Option<CheckpointKey>,
        frozen: Option<String>,
        due_at: Moment,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO entries (task, kind, priority, state, checkpoint, frozen, due_at_ms, created_at_ms)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7)",
            params![
                task.0,
                rows::kind_column(kind),
                rows::priority_column(priority),
                checkpoint.map(|key| key.0),
                frozen,
                due_at.0,
                now.0
            ],
        )?;
        Ok(())
    }

    /// Deletes an entry whose checkpoint a newer message covers.
    pub(super) fn drop_outdated(&self, entry: EntryKey) -> Result<(), StoreError> {
        self.cover(entry)?;
        self.connection.execute("DELETE FROM entries WHERE key = ?1", [entry.0])?;
        Ok(())
    }

    /// Marks the checkpoint that an entry carried until now: a newer message covers it.
    fn cover(&self, entry: EntryKey) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE checkpoints SET delivery = ?2, delivery_error = NULL
             WHERE key = (SELECT checkpoint FROM entries WHERE key = ?1) AND delivery IN ('queued', 'unconfirmed')",
            params![entry.0, Delivery::Coalesced.name()],
        )?;
        Ok(())
    }
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("domain values have text keys and no non-finite numbers")
}
