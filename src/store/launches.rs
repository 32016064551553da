//! Starts: agents that people asked for and others approved, until `serve` takes each, once.

use rusqlite::params;

use super::questions::QuestionKey;
use super::rows;
#[cfg(feature = "serve")]
use super::watch::{Here, Watcher};
use super::{StoreError, Tx};
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::question::{Answer, Question};
use crate::checkpoint::time::Moment;

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
    pub(crate) fn open_launches(&self, now: Moment) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM questions WHERE answer IS NULL AND expires_at_ms > ?1
                       AND json_extract(content, '$.launch') IS NOT NULL";
        Ok(self.connection.query_row(sql, [now.0], |row| rows::count(row, 0))?)
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
    pub(crate) fn take_start(&self, start: &Start) -> Result<bool, StoreError> {
        let sql = "UPDATE requests SET type = 'launched' WHERE key = ?1 AND type = 'launch'";
        Ok(self.connection.execute(sql, [start.key])? > 0)
    }

    /// How many agents that were started run, or are about to: whose wrapper lives, whatever they say of themselves.
    #[cfg(feature = "serve")]
    pub(crate) fn launched(&self) -> Result<usize, StoreError> {
        let sql = "SELECT t.watcher FROM requests r JOIN tasks t ON t.key = r.task
                   WHERE r.type = 'launched' AND t.watcher IS NOT NULL";
        let mut statement = self.connection.prepare(sql)?;
        let watchers: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let here = Here::look();
        Ok(watchers.into_iter().filter(|one| Watcher::stored(one.clone()).obituary(&here).is_none()).count())
    }

    /// Whether it is this process that answers for the task.
    #[cfg(feature = "serve")]
    pub(crate) fn is_watched_by(&self, task: TaskKey, watcher: &Watcher) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE key = ?1 AND watcher = ?2)";
        Ok(self.connection.query_row(sql, params![task.0, watcher.as_str()], |row| row.get(0))?)
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
