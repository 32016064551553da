//! Interventions: what people did, allowed or not, in the order it was heard.

use rusqlite::{Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::questions::QuestionKey;
use super::record::to_json;
use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::question::Vote;
use crate::checkpoint::time::Moment;

/// One click, reply, reaction or command of a person.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Intervention {
    /// The same in every database that it reaches, and for whoever hears of it: made of what tells it from every other
    /// act (UUIDv5), or by us (UUIDv7) where nothing is heard twice.
    pub(crate) id: Uuid,
    /// What was wanted: `approve`, `reject`, `choose`, `cancel` and the like.
    pub(crate) kind: String,
    /// How it was heard: `click`, `reply`, `reaction`, `command` or `terminal`.
    pub(crate) source: String,
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
    /// An object with whatever else is known, such as a comment, or why it changed nothing.
    pub(crate) details: Value,
    pub(crate) at: Moment,
}

impl Tx<'_> {
    /// Keeps an intervention; `vote` if it counts for a question.
    pub(crate) fn note_intervention(
        &self,
        task: TaskKey,
        question: Option<QuestionKey>,
        intervention: &Intervention,
        vote: Option<&Vote>,
    ) -> Result<(), StoreError> {
        let Intervention { id, kind, source, user_id, user_name, details, at } = intervention;
        self.connection.execute(
            "INSERT INTO interventions (task, question, id, kind, source, user_id, user_name, details, vote,
                 created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                task.0,
                question.map(|key| key.0),
                id.to_string(),
                kind,
                source,
                user_id,
                user_name,
                to_json(details),
                vote.map(to_json),
                at.0
            ],
        )?;
        Ok(())
    }

    /// A task's interventions in the order heard.
    pub(crate) fn interventions(&self, task: TaskKey) -> Result<Vec<Intervention>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT id, kind, source, user_id, user_name, details, created_at_ms FROM interventions
             WHERE task = ?1 ORDER BY key",
        )?;
        let read = |row: &Row<'_>| {
            Ok(Intervention {
                id: rows::uuid(row, 0)?,
                kind: row.get(1)?,
                source: row.get(2)?,
                user_id: row.get(3)?,
                user_name: row.get(4)?,
                details: rows::json(row, 5)?,
                at: Moment(row.get(6)?),
            })
        };
        let found = statement.query_map([task.0], read)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// The words that count for a question, in the order heard.
    pub(super) fn votes(&self, question: QuestionKey) -> Result<Vec<Vote>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT vote FROM interventions WHERE task = (SELECT task FROM questions WHERE key = ?1)
                 AND question = ?1 AND vote IS NOT NULL ORDER BY key",
        )?;
        let found = statement.query_map([question.0], |row| rows::json(row, 0))?.collect::<Result<_, _>>()?;
        Ok(found)
    }
}
