//! Questions: put, shown, answered once, and those whose asker is gone.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::record::to_json;
use super::rows;
use super::watch::{Here, Watcher};
use super::{StoreError, Tx};
use crate::checkpoint::Task;
use crate::checkpoint::id::{EntryKey, TaskKey};
use crate::checkpoint::outbox::{Asked, EntryKind, Job, Priority, Waiting};
use crate::checkpoint::question::{Answer, Decision, Question, RequestId};
use crate::checkpoint::time::Moment;

/// How long after its time a question is closed by others than its asker.
const GRACE: Duration = Duration::from_secs(10);

/// A question's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QuestionKey(pub(super) i64);

/// A question in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) key: QuestionKey,
    pub(crate) task: TaskKey,
    pub(crate) asked: Asked,
}

/// A question that nobody closes but whoever finds it.
#[derive(Debug)]
pub(crate) struct Forsaken {
    pub(crate) key: QuestionKey,
    pub(crate) answer: Answer,
}

/// What became of a question's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It waits to be sent.
    Waiting,
    /// Slack has it, and the file beside it if there is one.
    Posted,
    /// Slack refused it, or the file without which it is not the whole question.
    Refused(String),
}

const COLUMNS: &str = "key, task, content, answer, channel_id, message_ts";

fn put(row: &Row<'_>) -> rusqlite::Result<Put> {
    Ok(Put {
        key: QuestionKey(row.get(0)?),
        task: TaskKey(row.get(1)?),
        asked: Asked {
            question: rows::json(row, 2)?,
            votes: Vec::new(),
            answer: rows::optional_json(row, 3)?,
            message: row.get::<_, Option<String>>(4)?.zip(row.get(5)?),
        },
    })
}

impl Tx<'_> {
    /// Puts a question, as the message of this entry; `asker` is who closes it, if anybody does. With `file`, all of it
    /// is attached as well.
    pub(crate) fn put_question(
        &self,
        question: &Question,
        task: TaskKey,
        entry: Option<EntryKey>,
        asker: Option<&Watcher>,
        file: bool,
    ) -> Result<(), StoreError> {
        let at = question.asked_at;
        self.connection.execute(
            "INSERT INTO questions (task, id, content, asker, expires_at_ms, created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                task.0,
                question.id.to_string(),
                to_json(question),
                asker.map(Watcher::as_str),
                question.expires_at.0,
                at.0
            ],
        )?;
        let key = self.connection.last_insert_rowid();
        let Some(entry) = entry else { return Ok(()) };
        self.connection.execute("UPDATE entries SET about = ?2 WHERE key = ?1", [entry.0, key])?;
        if file {
            self.connection.execute(
                "INSERT INTO entries (task, kind, priority, state, checkpoint, due_at_ms, created_at_ms, about)
                 SELECT task, ?2, priority, 0, checkpoint, due_at_ms, created_at_ms, about FROM entries WHERE key = ?1",
                [entry.0, rows::kind_column(EntryKind::File)],
            )?;
        }
        Ok(())
    }

    /// The question with this id.
    pub(crate) fn question(&self, id: RequestId) -> Result<Option<Put>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM questions WHERE id = ?1");
        let found = self.connection.query_row(&sql, [id.to_string()], put).optional()?;
        found.map(|found| self.with_votes(found)).transpose()
    }

    /// A question's id.
    pub(crate) fn request_of(&self, key: QuestionKey) -> Result<RequestId, StoreError> {
        let sql = "SELECT id FROM questions WHERE key = ?1";
        let read = |row: &Row<'_>| rows::text(row, 0, RequestId::parse);
        Ok(self.connection.query_row(sql, [key.0], read)?)
    }

    /// The answer to a question, if there is one; cheap to ask again and again.
    pub(crate) fn answer(&self, id: RequestId) -> Result<Option<Answer>, StoreError> {
        let sql = "SELECT answer FROM questions WHERE id = ?1";
        let read = |row: &Row<'_>| rows::optional_json(row, 0);
        Ok(self.connection.query_row(sql, [id.to_string()], read).optional()?.flatten())
    }

    /// A task's questions, in the order put.
    pub(crate) fn questions_of(&self, task: TaskKey) -> Result<Vec<Put>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM questions WHERE task = ?1 ORDER BY key");
        let mut statement = self.connection.prepare(&sql)?;
        let found: Vec<Put> = statement.query_map([task.0], put)?.collect::<Result<_, _>>()?;
        found.into_iter().map(|found| self.with_votes(found)).collect()
    }

    fn with_votes(&self, mut found: Put) -> Result<Put, StoreError> {
        found.asked.votes = self.votes(found.key)?;
        Ok(found)
    }

    /// Decides a question, once: false if it was decided before. Its message is edited, and so is the card.
    pub(crate) fn decide(&self, key: QuestionKey, answer: &Answer, now: Moment) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE questions SET answer = ?2 WHERE key = ?1 AND answer IS NULL",
            params![key.0, to_json(answer)],
        )?;
        if changed > 0 {
            // Not ahead of its turn: whoever waits for the answer would wait for that too.
            self.edit_question(key, Priority::Routine, now)?;
        }
        Ok(changed > 0)
    }

    /// Leaves an entry that brings a question's message up to date, unless there is none or one waits already.
    pub(crate) fn edit_question(
        &self,
        key: QuestionKey,
        priority: Priority,
        now: Moment,
    ) -> Result<(), StoreError> {
        let kind = rows::kind_column(EntryKind::Question);
        self.connection.execute(
            "INSERT INTO entries (task, kind, priority, state, about, due_at_ms, created_at_ms)
             SELECT task, ?2, ?3, 0, key, ?4, ?4 FROM questions q WHERE key = ?1
                 AND (message_ts IS NOT NULL OR EXISTS
                      (SELECT 1 FROM entries WHERE task = q.task AND kind = 0 AND state < 2 AND about = q.key))
                 AND NOT EXISTS
                      (SELECT 1 FROM entries WHERE task = q.task AND kind = ?2 AND state < 2 AND state = 0
                           AND about = q.key)",
            params![key.0, kind, rows::priority_column(priority), now.0],
        )?;
        // One that was to show who agrees so far is now to show what was decided.
        self.connection.execute(
            "UPDATE entries SET priority = ?3 WHERE kind = ?2 AND state < 2 AND state = 0 AND about = ?1
                 AND task = (SELECT task FROM questions WHERE key = ?1) AND priority > ?3",
            params![key.0, kind, rows::priority_column(priority)],
        )?;
        Ok(())
    }

    /// Notes where a question's message is.
    pub(super) fn place_question(
        &self,
        question: &Question,
        channel_id: Option<&str>,
        ts: Option<&str>,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE questions SET message_ts = ?3, channel_id = coalesce(?2,
                 (SELECT channel_id FROM tasks WHERE key = questions.task)) WHERE id = ?1",
            params![question.id.to_string(), channel_id, ts],
        )?;
        Ok(())
    }

    /// Completes a job that puts, edits or attaches a question.
    pub(super) fn fill_in(&self, job: &mut Job, question: i64) -> Result<(), StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM questions WHERE key = ?1");
        let Some(found) = self.connection.query_row(&sql, [question], put).optional()? else { return Ok(()) };
        let asked = self.with_votes(found)?.asked;
        if job.kind == EntryKind::File {
            job.file = Some(asked.question.whole());
        }
        job.asked = Some(Box::new(asked));
        Ok(())
    }

    /// What became of the question's message.
    pub(crate) fn shown(&self, put: &Put) -> Result<Shown, StoreError> {
        let of = "FROM entries WHERE task = ?1 AND about = ?2 AND kind IN (0, 3)";
        let refused = self
            .connection
            .query_row(&format!("SELECT reason {of} AND state = 2 LIMIT 1"), [put.task.0, put.key.0], |row| {
                row.get::<_, Option<String>>(0)
            })
            .optional()?;
        if let Some(reason) = refused {
            return Ok(Shown::Refused(reason.unwrap_or_default()));
        }
        let waits = self.connection.query_row(
            &format!("SELECT EXISTS (SELECT 1 {of} AND state < 2)"),
            [put.task.0, put.key.0],
            |row| row.get(0),
        )?;
        Ok(if waits { Shown::Waiting } else { Shown::Posted })
    }

    /// Open questions whose asker has ended, or whose time is over without a word of the asker's; looks at so many, and at
    /// others the next time.
    pub(crate) fn forsaken(&self, limit: usize, now: Moment) -> Result<Vec<Forsaken>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT key, expires_at_ms, asker FROM questions WHERE answer IS NULL ORDER BY random() LIMIT ?1",
        )?;
        let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut forsaken = Vec::new();
        let mut here = None;
        while let Some(row) = rows.next()? {
            let expires_at = Moment(row.get(1)?);
            let asker = row.get::<_, Option<String>>(2)?.map(Watcher::stored);
            let death = asker.as_ref().and_then(|asker| asker.obituary(here.get_or_insert_with(Here::look)));
            let grace = if asker.is_some() { GRACE } else { Duration::ZERO };
            let answer = match death {
                Some(reason) => Answer::withdrawn(&reason, now),
                None if now >= expires_at.plus(grace) => {
                    Answer { at: expires_at, ..Answer::bare(Decision::TimedOut, now) }
                }
                None => continue,
            };
            forsaken.push(Forsaken { key: QuestionKey(row.get(0)?), answer });
        }
        Ok(forsaken)
    }

    /// The task of a question, and its posts that wait, to say there what was decided.
    pub(crate) fn task_of_question(&self, key: QuestionKey) -> Result<(Task, Vec<Waiting>), StoreError> {
        let sql = format!(
            "SELECT {} FROM tasks WHERE key = (SELECT task FROM questions WHERE key = ?1)",
            rows::TASK
        );
        let task = self.connection.query_row(&sql, [key.0], rows::task)?;
        let waiting = task.key.map(|task| self.waiting(task)).transpose()?.unwrap_or_default();
        Ok((task, waiting))
    }
}
