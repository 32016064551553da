//! Requests: what people want of an agent, each told until its task ends.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::record::to_json;
use super::rows;
use super::watch::Watcher;
use super::{StoreError, Tx};
#[cfg(feature = "postgres")]
use crate::checkpoint::audit::people::Wanted;
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Cancel, Task};

/// Something that a person wants of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Only `cancel` so far: those for a start are for `serve`.
    pub(crate) kind: String,
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
    pub(crate) at: Moment,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        json!({
            "type": self.kind,
            "user_id": self.user_id,
            "user_name": self.user_name,
            "requested_at": self.at.rfc3339(),
        })
    }

    /// Who wants it, as people read it.
    pub(crate) fn who(&self) -> String {
        let name = self.user_name.as_ref().map(|name| format!("@{name}"));
        name.or_else(|| self.user_id.clone()).unwrap_or_else(|| "somebody".to_owned())
    }
}

const COLUMNS: &str = "type, user_id, user_name, created_at_ms";

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request { kind: row.get(0)?, user_id: row.get(1)?, user_name: row.get(2)?, at: Moment(row.get(3)?) })
}

impl Tx<'_> {
    /// Notes that somebody wants a task to end.
    pub(crate) fn request_cancel(
        &self,
        task: TaskKey,
        user_id: Option<&str>,
        user_name: Option<&str>,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO requests (task, type, user_id, user_name, created_at_ms) VALUES (?1, 'cancel', ?2, ?3, ?4)",
            params![task.0, user_id, user_name, now.0],
        )?;
        Ok(())
    }

    /// Notes the same as another machine has ruled it, once, as long as the task has not ended.
    #[cfg(feature = "postgres")]
    pub(crate) fn take_over_cancel(
        &self,
        task: TaskKey,
        wanted: &Wanted,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO requests (task, type, user_id, user_name, created_at_ms) SELECT key, 'cancel', ?2, ?3, ?4
             FROM tasks WHERE key = ?1 AND state NOT IN ('completed', 'cancelled')
                 AND NOT EXISTS (SELECT 1 FROM requests WHERE task = ?1 AND type = 'cancel')",
            params![task.0, wanted.user_id, wanted.user_name, wanted.at.unwrap_or(now).0],
        )?;
        Ok(())
    }

    /// What people want of a task that has not ended.
    pub(crate) fn requests(&self, task: TaskKey) -> Result<Vec<Request>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM requests WHERE task = ?1 AND type = 'cancel' AND EXISTS
                 (SELECT 1 FROM tasks WHERE key = ?1 AND state NOT IN ('completed', 'cancelled')) ORDER BY key"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map([task.0], request)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// Whether there is any at all, of whatever task and type.
    pub(crate) fn has_requests(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM requests)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// What people want of a task or wanted while it ran.
    pub(crate) fn requests_ever(&self, task: TaskKey) -> Result<Vec<Request>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM requests WHERE task = ?1 AND type = 'cancel' ORDER BY key");
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map([task.0], request)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// Who wants a task to end that this process answers for.
    pub(crate) fn cancel_of(&self, watcher: &Watcher) -> Result<Option<Request>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM requests WHERE type = 'cancel' AND task IN
                 (SELECT key FROM tasks WHERE watcher = ?1) ORDER BY key LIMIT 1"
        );
        Ok(self.connection.query_row(&sql, [watcher.as_str()], request).optional()?)
    }

    /// From now on the task's card has a button to cancel it, as long as it runs and somebody answers for it.
    pub(crate) fn offer_cancel(&self, task: TaskKey, cancel: &Cancel) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET cancel = ?2, snapshot = json_set(snapshot, '$.cancel', ?3) WHERE key = ?1",
            params![task.0, to_json(cancel), cancel.nonce],
        )?;
        Ok(())
    }

    /// The task with this id, here or in a database.
    pub(crate) fn task_with_id(&self, id: &str) -> Result<Option<Task>, StoreError> {
        let sql = format!(
            "SELECT {} FROM tasks WHERE key = coalesce((SELECT key FROM tasks WHERE id = ?1),
                 (SELECT key FROM tasks WHERE shared_id = ?1))",
            rows::TASK
        );
        Ok(self.connection.query_row(&sql, [id], rows::task).optional()?)
    }
}
