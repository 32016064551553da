//! What people on other machines may have said something to: open questions, and tasks that can be cancelled.

use std::time::Duration;

use rusqlite::{Params, params};
use uuid::Uuid;

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::{TaskId, TaskKey};
use crate::checkpoint::time::Moment;

/// How many tasks are asked after at once, the latest ones.
const TASKS_MAX: i64 = 500;
/// How long after its time a question is still asked after, so that whoever came too late is told so. Where nobody waits it
/// may stay without an end much longer.
const LATE: Duration = Duration::from_secs(60);

impl Tx<'_> {
    /// Tasks with a question that is open, or was a moment ago, as databases know them.
    pub(crate) fn asking_tasks(&self, now: Moment) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let sql = "SELECT t.key, coalesce(t.shared_id, t.id) FROM tasks t WHERE t.key IN
                 (SELECT task FROM questions WHERE answer IS NULL AND expires_at_ms > ?2)
             ORDER BY t.key DESC LIMIT ?1";
        self.tasks_named(sql, params![TASKS_MAX, now.minus(LATE).0])
    }

    /// Running tasks that some process answers for, as databases know them.
    pub(crate) fn watched_tasks(&self) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let sql =
            "SELECT key, coalesce(shared_id, id) FROM tasks WHERE watcher IS NOT NULL AND state = 'running'
             ORDER BY seen_at_ms DESC LIMIT ?1";
        self.tasks_named(sql, params![TASKS_MAX])
    }

    /// Tasks whose card is to be edited by and by, as databases know them: a heartbeat waits until it is known whether
    /// somebody else has said something.
    pub(crate) fn tasks_to_edit(&self, now: Moment) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let sql = "SELECT key, coalesce(shared_id, id) FROM tasks WHERE key IN
                 (SELECT task FROM entries WHERE kind = 1 AND state < 2 AND state = 0 AND attempts = 0 AND due_at_ms > ?2)
             ORDER BY key DESC LIMIT ?1";
        self.tasks_named(sql, params![TASKS_MAX, now.0])
    }

    /// The edit of a task's card waits no longer.
    pub(crate) fn hasten_card(&self, task: TaskKey, now: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE entries SET due_at_ms = ?2
             WHERE task = ?1 AND kind = 1 AND state < 2 AND state = 0 AND attempts = 0 AND due_at_ms > ?2",
            params![task.0, now.0],
        )?;
        Ok(())
    }

    fn tasks_named(&self, sql: &str, by: impl Params) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let mut statement = self.connection.prepare(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((TaskKey(row.get(0)?), TaskId(rows::uuid(row, 1)?)));
        let found = statement.query_map(by, read)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// Notes that an intervention was heard by another machine, and that we have ruled on it; false if there is none.
    pub(crate) fn mark_passed_on(&self, task: TaskKey, id: Uuid, mark: &str) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE interventions SET details = json_set(details, '$.passed_on', ?3) WHERE task = ?1 AND id = ?2",
            params![task.0, id.to_string(), mark],
        )?;
        Ok(changed > 0)
    }

    /// Whether an intervention is marked so.
    pub(crate) fn is_passed_on(&self, task: TaskKey, id: Uuid, mark: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM interventions
                   WHERE task = ?1 AND id = ?2 AND json_extract(details, '$.passed_on') = ?3)";
        let parameters = params![task.0, id.to_string(), mark];
        Ok(self.connection.query_row(sql, parameters, |row| row.get(0))?)
    }
}
