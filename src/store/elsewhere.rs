//! What people on other machines may have said something to: open questions, and tasks that can be cancelled.

use rusqlite::params;
use uuid::Uuid;

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::{TaskId, TaskKey};

/// How many tasks are asked after at once, the latest ones.
const TASKS_MAX: i64 = 500;

impl Tx<'_> {
    /// Tasks with a question that is open, as databases know them.
    pub(crate) fn asking_tasks(&self) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        self.tasks_named(
            "SELECT t.key, coalesce(t.shared_id, t.id) FROM tasks t
             WHERE t.key IN (SELECT task FROM questions WHERE answer IS NULL) ORDER BY t.key DESC LIMIT ?1",
        )
    }

    /// Running tasks that some process answers for, as databases know them.
    pub(crate) fn watched_tasks(&self) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        self.tasks_named(
            "SELECT key, coalesce(shared_id, id) FROM tasks WHERE watcher IS NOT NULL AND state = 'running'
             ORDER BY seen_at_ms DESC LIMIT ?1",
        )
    }

    fn tasks_named(&self, sql: &str) -> Result<Vec<(TaskKey, TaskId)>, StoreError> {
        let mut statement = self.connection.prepare(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((TaskKey(row.get(0)?), TaskId(rows::uuid(row, 1)?)));
        let found = statement.query_map([TASKS_MAX], read)?.collect::<Result<_, _>>()?;
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
