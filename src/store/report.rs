//! Reading for people: tasks, their checkpoints, and what waits and why.

use rusqlite::{OptionalExtension, params};

use super::lease::Owner;
use super::rows;
use super::statements::Statements;
use super::{Store, StoreError, Tx};
use crate::checkpoint::id::{CheckpointId, CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::outbox::{EntryKind, Link};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Checkpoint, Task};
use crate::pace;

/// Which tasks to list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) state: Option<TaskState>,
    /// Only those with messages that wait or were refused.
    pub(crate) waiting: bool,
    pub(crate) limit: u64,
}

/// A task and what became of its messages.
#[derive(Debug)]
pub(crate) struct TaskReport {
    pub(crate) task: Task,
    pub(crate) checkpoints: u64,
    pub(crate) waiting: Option<Wait>,
    pub(crate) rejected: Option<Wait>,
}

/// Messages that are not in Slack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) count: u64,
    /// The first kind that there is among them.
    pub(crate) kind: EntryKind,
    /// When the first of them is due.
    pub(crate) due_at: Moment,
    /// Since when the oldest waits.
    pub(crate) since: Moment,
    /// Why the latest attempt failed; `None` when there was none.
    pub(crate) reason: Option<String>,
}

/// What `doctor` wants to know of the outbox.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) waiting: Option<Wait>,
    /// One for each reason.
    pub(crate) rejected: Vec<Wait>,
}

impl Store {
    /// Runs `work` on one consistent state of the cache.
    ///
    /// # Errors
    /// Whatever SQLite reports.
    pub(crate) fn read<T>(
        &mut self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction()?;
        let value = work(&Tx { connection: Statements::of(&transaction).kept(self.keeps) })?;
        transaction.commit()?;
        Ok(value)
    }
}

impl Tx<'_> {
    /// Whether this process is sending the message of a checkpoint, or did and could not write down what came of it.
    pub(crate) fn is_being_sent_by_us(&self, checkpoint: CheckpointKey) -> Result<bool, StoreError> {
        let owner: Option<Option<String>> = self
            .connection
            .query_row(
                "SELECT t.lease_owner FROM entries e JOIN tasks t ON t.key = e.task
                 WHERE e.checkpoint = ?1 AND e.state < 2 AND e.state = ?2 AND e.kind = 0
                     AND e.task = (SELECT task FROM checkpoints WHERE key = ?1)",
                params![checkpoint.0, rows::state::SENDING],
                |row| row.get(0),
            )
            .optional()?;
        Ok(owner.flatten().is_some_and(|owner| Owner::stored(owner).is_this_process()))
    }

    /// Lists tasks, the latest change first.
    pub(crate) fn list(&self, filter: &Filter) -> Result<Vec<TaskReport>, StoreError> {
        let sql = format!(
            "SELECT {} FROM tasks
             WHERE (?1 IS NULL OR state = ?1) AND (?2 = 0 OR EXISTS (SELECT 1 FROM entries WHERE task = tasks.key))
             ORDER BY updated_at_ms DESC, key DESC LIMIT ?3",
            rows::TASK
        );
        let mut statement = self.connection.prepare(&sql)?;
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let tasks: Vec<Task> = statement
            .query_map(params![filter.state.map(TaskState::name), filter.waiting, limit], rows::task)?
            .collect::<Result<_, _>>()?;
        tasks.into_iter().map(|task| self.report(task)).collect()
    }

    /// The task with this id, or the latest of the agent with this id.
    pub(crate) fn find(&self, agent_or_task: &str) -> Result<Option<TaskReport>, StoreError> {
        let by = |condition: &str| {
            let sql =
                format!("SELECT {} FROM tasks WHERE {condition} = ?1 ORDER BY key DESC LIMIT 1", rows::TASK);
            self.connection.query_row(&sql, [agent_or_task], rows::task).optional()
        };
        let mut task = None;
        for name in ["agent_id", "id", "shared_id"] {
            task = task.map_or_else(|| by(name), |found| Ok(Some(found)))?;
        }
        task.map(|task| self.report(task)).transpose()
    }

    pub(super) fn report(&self, task: Task) -> Result<TaskReport, StoreError> {
        let key = task.key.unwrap_or(TaskKey(0));
        let checkpoints = self.connection.query_row(
            "SELECT count(*) FROM checkpoints WHERE task = ?1",
            [key.0],
            |row| rows::count(row, 0),
        )?;
        let waiting = self.wait("task = ?1 AND state < 2", key.0)?;
        // Not by the index of what was refused: calls of emit never read it, so that damage to it would be met here first.
        let rejected = self.wait("task = ?1 AND +state = 2", key.0)?;
        Ok(TaskReport { task, checkpoints, waiting, rejected })
    }

    fn wait(&self, condition: &str, parameter: i64) -> Result<Option<Wait>, StoreError> {
        let sql = format!(
            "SELECT count(*), coalesce(min(due_at_ms), 0), coalesce(min(created_at_ms), 0), coalesce(min(kind), 0),
                 (SELECT reason FROM entries WHERE {condition} AND reason IS NOT NULL ORDER BY key DESC LIMIT 1)
             FROM entries WHERE {condition}"
        );
        let wait = self.connection.query_row(&sql, [parameter], |row| {
            Ok(Wait {
                count: rows::count(row, 0)?,
                due_at: Moment(row.get(1)?),
                since: Moment(row.get(2)?),
                kind: rows::kind(row, 3)?,
                reason: row.get(4)?,
            })
        })?;
        Ok((wait.count > 0).then_some(wait))
    }

    /// What holds everyone back holds this too: says until when, and why.
    pub(crate) fn hold_back(&self, wait: &mut Wait, link: &Link, now: Moment) -> Result<(), StoreError> {
        if let Some((until, why)) = self.hold_beyond(wait.due_at, link, (wait.kind, false), now)? {
            (wait.due_at, wait.reason) = (until, Some(why.to_owned()));
        }
        Ok(())
    }

    /// What holds everyone's entries of this kind, and whether they read first, back for longer than until then: until
    /// when, and why.
    pub(crate) fn hold_beyond(
        &self,
        due_at: Moment,
        link: &Link,
        (kind, reads_first): (EntryKind, bool),
        now: Moment,
    ) -> Result<Option<(Moment, &'static str)>, StoreError> {
        let mut longest = None;
        let mut beyond = due_at.max(now);
        let asked = "Slack asked everyone to wait";
        let believable: fn(Moment, Moment) -> Moment = pace::believable;
        let reading = reads_first.then(|| (pace::reading_hold(link.credential(), kind), asked, believable));
        let holds = [
            (pace::method_hold(link.credential(), kind), asked, believable),
            (pace::network_hold(link), "Slack could not be reached", pace::believable_rest),
        ];
        for (name, why, believed) in holds.into_iter().chain(reading) {
            let until = believed(self.pace(&name)?.hold_until, now);
            if until > beyond {
                beyond = until;
                longest = Some((until, why));
            }
        }
        Ok(longest)
    }

    /// A task's checkpoints in the order recorded.
    pub(crate) fn checkpoints(&self, task: TaskKey) -> Result<Vec<Checkpoint>, StoreError> {
        let sql = format!("SELECT {} FROM checkpoints WHERE task = ?1 ORDER BY key", rows::CHECKPOINT);
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map([task.0], rows::checkpoint)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// How many artifacts a task's checkpoints have.
    #[cfg(feature = "serve")]
    pub(crate) fn artifact_count(&self, task: TaskKey) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(json_array_length(artifacts)), 0) FROM checkpoints
                   WHERE task = ?1 AND artifacts IS NOT NULL";
        Ok(self.connection.query_row(sql, [task.0], |row| rows::count(row, 0))?)
    }

    /// What is wrong with the file, if anything is. Reads all of it.
    pub(crate) fn damage(&self) -> Result<Option<String>, StoreError> {
        let found: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((found != "ok").then_some(found))
    }

    /// What waits and what was refused, over all tasks.
    pub(crate) fn problems(&self) -> Result<Problems, StoreError> {
        let waiting = self.wait("?1 = 0 AND state < 2", 0)?;
        let mut statement = self.connection.prepare(
            "SELECT count(*), min(due_at_ms), min(created_at_ms), min(kind), reason FROM entries
             WHERE state = 2 GROUP BY reason ORDER BY count(*) DESC",
        )?;
        let rejected = statement
            .query_map([], |row| {
                Ok(Wait {
                    count: rows::count(row, 0)?,
                    due_at: Moment(row.get(1)?),
                    since: Moment(row.get(2)?),
                    kind: rows::kind(row, 3)?,
                    reason: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Problems { waiting, rejected })
    }

    /// How many messages of these tasks wait, and how many were refused.
    pub(crate) fn unsent(&self, tasks: &[TaskKey]) -> Result<(u64, u64), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT count(*) FILTER (WHERE e.state < 2 AND c.delivery <> 'coalesced'),
                 count(*) FILTER (WHERE e.state = 2)
             FROM entries e JOIN checkpoints c ON c.key = e.checkpoint WHERE e.task = ?1 AND e.kind = 0",
        )?;
        let mut unsent = (0, 0);
        for task in tasks {
            let (waiting, refused) =
                statement.query_row([task.0], |row| Ok((rows::count(row, 0)?, rows::count(row, 1)?)))?;
            unsent = (unsent.0 + waiting, unsent.1 + refused);
        }
        Ok(unsent)
    }

    /// A task's latest checkpoint.
    pub(crate) fn newest(&self, task: TaskKey) -> Result<CheckpointKey, StoreError> {
        let sql = "SELECT key FROM checkpoints WHERE task = ?1 ORDER BY key DESC LIMIT 1";
        Ok(CheckpointKey(self.connection.query_row(sql, [task.0], |row| row.get(0))?))
    }

    /// What the world knows a checkpoint by.
    pub(crate) fn checkpoint_id(&self, checkpoint: CheckpointKey) -> Result<CheckpointId, StoreError> {
        let sql = "SELECT id FROM checkpoints WHERE key = ?1";
        Ok(CheckpointId(self.connection.query_row(sql, [checkpoint.0], |row| rows::uuid(row, 0))?))
    }

    /// The agent of a task that is recorded here, and whether that has joined somebody's thread.
    pub(crate) fn agent_of(&self, task: TaskId) -> Result<Option<(String, bool)>, StoreError> {
        let sql = "SELECT agent_id, joined FROM tasks WHERE id = ?1 OR shared_id = ?1 ORDER BY key DESC";
        let found = self.connection.query_row(sql, [task.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(found.optional()?)
    }

    /// The task as it stands.
    pub(crate) fn task(&self, key: TaskKey) -> Result<Task, StoreError> {
        let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
        Ok(self.connection.query_row(&sql, [key.0], rows::task)?)
    }
}
