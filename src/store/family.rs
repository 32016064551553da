//! Tasks that were started from another: their notes in its thread, and their place on its card.

use rusqlite::{OptionalExtension, params};

use super::claim::Scope;
use super::record::to_json;
use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::id::{CheckpointKey, EntryKey, TaskKey};
use crate::checkpoint::outbox::{EntryKind, Note, Priority};
use crate::checkpoint::plan::Append;
use crate::checkpoint::snapshot::{ChildTask, Snapshot};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;

/// The most children that a card lists, the latest.
const CHILDREN: i64 = 20;

impl Tx<'_> {
    /// Says in the parent's thread that a task began or ended, and brings the parent's card up to date.
    pub(super) fn tell_parent(
        &self,
        task: TaskKey,
        checkpoint: CheckpointKey,
        append: &Append,
        now: Moment,
    ) -> Result<(), StoreError> {
        let Some(parent) = append.task.parent else { return Ok(()) };
        let card = self
            .connection
            .query_row("SELECT card FROM tasks WHERE key = ?1", [parent.0], |row| {
                row.get::<_, Option<String>>(0)
            })
            .optional()?;
        let Some(card) = card else { return Ok(()) };
        if card.is_some_and(|card| card != rows::FROZEN) {
            self.refresh_card(parent, now)?;
        }
        let is_first = append.task.key.is_none();
        if !is_first && append.task.state == TaskState::Running {
            return Ok(());
        }
        let note = Note {
            agent_id: append.task.agent_id.clone(),
            status: append.checkpoint.status,
            elapsed_ms: append.checkpoint.elapsed_ms,
            card: None,
            given_up: None,
        };
        let note = Some(to_json(&note));
        self.insert_entry(parent, EntryKind::Note, Priority::Immediate, Some(checkpoint), note, now, now)?;
        let entry = self.connection.last_insert_rowid();
        self.connection.execute("UPDATE entries SET about = ?2 WHERE key = ?1", params![entry, task.0])?;
        Ok(())
    }

    /// Says in a thread of a task that was given up where the task goes on.
    #[cfg(feature = "postgres")]
    pub(crate) fn point_onward(
        &self,
        task: TaskKey,
        (channel, ts): (String, String),
        now: Moment,
    ) -> Result<(), StoreError> {
        let crate::checkpoint::Task { agent_id, snapshot, .. } = self.task(task)?;
        let given_up = Some((channel, ts));
        let note = Note { agent_id, status: snapshot.status, elapsed_ms: 0, card: None, given_up };
        let newest = self.newest(task)?;
        let note = Some(to_json(&note));
        self.insert_entry(task, EntryKind::Note, Priority::Immediate, Some(newest), note, now, now)?;
        let entry = self.connection.last_insert_rowid();
        self.connection.execute("UPDATE entries SET about = ?2 WHERE key = ?1", params![entry, task.0])?;
        Ok(())
    }

    /// Leaves an entry that attaches a checkpoint's tail as a file, when the message cannot show all of it.
    pub(super) fn attach_tail(
        &self,
        task: TaskKey,
        checkpoint: CheckpointKey,
        append: &Append,
        now: Moment,
    ) -> Result<(), StoreError> {
        if append.task.snapshot.tail.as_ref().is_none_or(|tail| tail.omitted == 0) {
            return Ok(());
        }
        self.insert_entry(task, EntryKind::File, Priority::Routine, Some(checkpoint), None, now, now)
    }

    /// The moment before which a note or file cannot go, because what it belongs to is not posted yet.
    pub(super) fn not_before(
        &self,
        entry: EntryKey,
        kind: EntryKind,
        task: TaskKey,
    ) -> Result<Option<Moment>, StoreError> {
        let first = |task: i64, condition: &str| {
            let sql = format!(
                "SELECT min(due_at_ms) FROM entries WHERE task = ?1 AND kind = 0 AND state < 2 AND {condition}"
            );
            // Both parameters are bound, so that each condition names both.
            self.connection.query_row(&sql, params![task, entry.0], |row| row.get::<_, Option<i64>>(0))
        };
        let due_at = match kind {
            EntryKind::Post | EntryKind::Card => None,
            // Both threads must have begun, or have nothing any more to begin with.
            EntryKind::Note => {
                let about = "SELECT about FROM entries WHERE key = ?1";
                let about: Option<i64> = self.connection.query_row(about, [entry.0], |row| row.get(0))?;
                let begun = "(SELECT thread_ts FROM tasks WHERE key = ?1) IS NULL AND ?2 IS NOT NULL";
                let shown = "(SELECT card FROM tasks WHERE key = ?1) IS NULL AND ?2 IS NOT NULL";
                first(task.0, begun)?.max(first(about.unwrap_or_default(), shown)?)
            }
            EntryKind::Question => first(task.0, "about = (SELECT about FROM entries WHERE key = ?2)")?,
            EntryKind::File => first(task.0, "checkpoint = (SELECT checkpoint FROM entries WHERE key = ?2)")?,
        };
        Ok(due_at.map(Moment))
    }

    /// What a note says, with the place of the card that it leads to.
    pub(super) fn note(&self, entry: EntryKey) -> Result<Note, StoreError> {
        let (mut note, about) = self.connection.query_row(
            "SELECT frozen, about FROM entries WHERE key = ?1",
            [entry.0],
            |row| Ok((rows::json::<Note>(row, 0)?, row.get::<_, Option<i64>>(1)?)),
        )?;
        let place = self
            .connection
            .query_row(
                "SELECT channel_id, CASE WHEN ?2 THEN thread_ts ELSE card END FROM tasks WHERE key = ?1",
                params![about.unwrap_or_default(), note.given_up.is_some()],
                |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?)),
            )
            .optional()?;
        note.card = match place {
            Some((Some(channel), Some(card))) if card != rows::FROZEN => Some((channel, card)),
            _ => None,
        };
        Ok(note)
    }

    /// The tasks started from this one, the latest twenty, in the order started.
    pub(super) fn children(&self, task: TaskKey) -> Result<Vec<ChildTask>, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT agent_id, snapshot FROM tasks WHERE parent = ?1 ORDER BY key DESC LIMIT ?2")?;
        let mut children: Vec<ChildTask> = statement
            .query_map([task.0, CHILDREN], |row| {
                let Snapshot { status, progress, .. } = rows::json(row, 1)?;
                Ok(ChildTask { agent_id: row.get(0)?, status, progress })
            })?
            .collect::<Result<_, _>>()?;
        children.reverse();
        Ok(children)
    }

    /// Notes that a task's process is alive; its card then shows the time that has passed, by `due_at`.
    pub(crate) fn beat(&self, task: TaskKey, due_at: Moment, now: Moment) -> Result<(), StoreError> {
        let card: Option<String> = self
            .connection
            .query_row(
                "UPDATE tasks SET seen_at_ms = ?2 WHERE key = ?1 RETURNING card",
                params![task.0, now.0],
                |row| row.get(0),
            )
            .optional()?
            .flatten();
        if card.is_some_and(|card| card != rows::FROZEN) {
            self.refresh_card_by(task, due_at, now)?;
        }
        Ok(())
    }

    /// Brings a task's card up to date, if it has one: what the interval holds back shows there at once.
    pub(crate) fn refresh_shown_card(&self, task: TaskKey, now: Moment) -> Result<(), StoreError> {
        let card: Option<String> =
            self.connection.query_row("SELECT card FROM tasks WHERE key = ?1", [task.0], |row| row.get(0))?;
        if card.is_some_and(|card| card != rows::FROZEN) {
            self.refresh_card(task, now)?;
        }
        Ok(())
    }

    /// Whether any message is still to be sent; a card that is to be edited does not count.
    pub(crate) fn has_open_posts(&self, scope: Scope) -> Result<bool, StoreError> {
        let task = match scope {
            Scope::Task(TaskKey(task)) => Some(task),
            Scope::All => None,
        };
        let found = self.connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM entries WHERE (?1 IS NULL OR task = ?1) AND kind <> 1 AND state < 2)",
            [task],
            |row| row.get(0),
        )?;
        Ok(found)
    }
}
