//! Starts: agents that people asked for and others approved, until `serve` takes each, once.

#[cfg(feature = "serve")]
use std::time::Duration;

use rusqlite::params;

use super::questions::QuestionKey;
use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::question::{Answer, Question};
use crate::checkpoint::time::Moment;

/// How long one that was taken may take until its task has somebody who answers for it.
#[cfg(feature = "serve")]
const START_MAX: Duration = Duration::from_secs(60);

/// An approved start that nobody has taken.
#[cfg(feature = "serve")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    key: i64,
    pub(crate) task: TaskKey,
    pub(crate) approved_at: Moment,
}

impl Tx<'_> {
    /// Whether approval of this question starts an agent.
    pub(crate) fn is_for_launch(&self, question: QuestionKey) -> Result<bool, StoreError> {
        let sql = "SELECT content FROM questions WHERE key = ?1";
        let content: Question = self.connection.query_row(sql, [question.0], |row| rows::json(row, 0))?;
        Ok(content.launch.is_some())
    }

    /// How many requests for agents wait for somebody's decision.
    pub(crate) fn open_launches(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM questions
                   WHERE answer IS NULL AND json_extract(content, '$.launch') IS NOT NULL";
        Ok(self.connection.query_row(sql, [], |row| rows::count(row, 0))?)
    }

    /// Leaves an approved start to `serve`, in the transaction that decides.
    pub(crate) fn leave_start(&self, task: TaskKey, answer: &Answer, now: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO requests (task, type, user_id, user_name, created_at_ms) VALUES (?1, 'launch', ?2, ?3, ?4)",
            params![task.0, answer.user_id, answer.user_name, now.0],
        )?;
        Ok(())
    }

    /// The approved starts that nobody has taken, in the order approved. Few requests are kept, so that all are looked at.
    #[cfg(feature = "serve")]
    pub(crate) fn starts(&self) -> Result<Vec<Start>, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT key, task, created_at_ms FROM requests WHERE type = 'launch' ORDER BY key")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Start { key: row.get(0)?, task: TaskKey(row.get(1)?), approved_at: Moment(row.get(2)?) })
        };
        let found = statement.query_map([], read)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// Takes a start, which is nobody else's from then on: false if it was taken before.
    #[cfg(feature = "serve")]
    pub(crate) fn take_start(&self, start: &Start, now: Moment) -> Result<bool, StoreError> {
        let sql =
            "UPDATE requests SET type = 'launched', created_at_ms = ?2 WHERE key = ?1 AND type = 'launch'";
        Ok(self.connection.execute(sql, [start.key, now.0])? > 0)
    }

    /// How many agents that were started run, or are about to.
    #[cfg(feature = "serve")]
    pub(crate) fn launched(&self, now: Moment) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM requests r JOIN tasks t ON t.key = r.task
                   WHERE r.type = 'launched' AND t.state = 'running'
                       AND (t.watcher IS NOT NULL OR r.created_at_ms > ?1)";
        let since = now.minus(START_MAX).0;
        Ok(self.connection.query_row(sql, [since], |row| rows::count(row, 0))?)
    }

    /// The agents of the latest tasks, each once.
    pub(crate) fn latest_agents(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT agent_id FROM (SELECT agent_id FROM tasks ORDER BY key DESC LIMIT ?1)";
        let mut statement = self.connection.prepare(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = statement.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(found)
    }
}
