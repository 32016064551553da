//! Settling: what became of an attempt, and what that holds back.

use rusqlite::{OptionalExtension, params};

use super::rows::{self, state};
use super::{StoreError, Tx};
use crate::checkpoint::id::{CheckpointKey, EntryKey, TaskKey};
use crate::checkpoint::outbox::{Delivery, EntryKind, Job, Link, Priority, Settlement};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Card, Task};
use crate::pace;

/// What became of a checkpoint's message so far.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) delivery: Delivery,
    pub(crate) message_ts: Option<String>,
    /// Why the latest attempt failed.
    pub(crate) reason: Option<String>,
    /// When its entry is due, if it still has one.
    pub(crate) due_at: Option<Moment>,
}

impl Tx<'_> {
    /// Writes back what became of a job. The caller keeps the task's lease until [`Tx::release`].
    ///
    /// A sender that slept through its lease changes nothing once its entry is settled or stands for another
    /// checkpoint.
    pub(crate) fn settle(&self, job: &Job, settlement: &Settlement, now: Moment) -> Result<(), StoreError> {
        let Some(task) = job.task.key else { return Ok(()) };
        if !self.is_open(task, job)? {
            return Ok(());
        }
        match settlement {
            Settlement::Posted { channel_id, ts, thread_ts } => {
                if job.kind == EntryKind::Post {
                    self.conclude(job.entry, Delivery::Sent, None, ts.as_deref())?;
                }
                self.delete(job.entry)?;
                if matches!(job.kind, EntryKind::Note | EntryKind::File | EntryKind::Question) {
                    return Ok(());
                }
                self.posted(task, job, channel_id.as_deref(), ts.as_deref(), thread_ts.as_deref(), now)
            }
            Settlement::Edited if job.kind == EntryKind::Question => self.delete(job.entry),
            Settlement::Edited => {
                self.forget_refused_card(task)?;
                self.delete(job.entry)
            }
            Settlement::Retry { at, reason, maybe_sent, via } => {
                let maybe_sent = *maybe_sent || job.maybe_sent;
                let delivery = if maybe_sent { Delivery::Unconfirmed } else { Delivery::Queued };
                if job.kind == EntryKind::Post {
                    self.conclude(job.entry, delivery, Some(reason), None)?;
                }
                self.connection.execute(
                    "UPDATE entries SET state = ?2, due_at_ms = ?3, attempts = attempts + 1, maybe_sent = ?4, reason = ?5,
                         failed_via = ?6
                     WHERE key = ?1",
                    params![job.entry.0, state::WAITING, at.0, maybe_sent, reason, via.as_ref().map(Link::as_str)],
                )?;
                Ok(())
            }
            Settlement::Rejected { reason } => match job.kind {
                EntryKind::Post => {
                    self.conclude(job.entry, Delivery::Rejected, Some(reason), None)?;
                    self.refuse(job.entry, reason)
                }
                // Kept like a message, so that it is shown, and sent again with the next edit or by hand.
                EntryKind::Card | EntryKind::Question => self.refuse(job.entry, reason),
                // Without it nobody can read all that is asked.
                EntryKind::File if job.asked.is_some() => self.refuse(job.entry, reason),
                EntryKind::Note | EntryKind::File => self.delete(job.entry),
            },
            Settlement::CardGone => {
                self.connection.execute("UPDATE tasks SET card = NULL WHERE key = ?1", [task.0])?;
                self.put_back(job.entry, now)
            }
            Settlement::CardFrozen => {
                let frozen = rows::card_column(&Card::Frozen);
                self.connection
                    .execute("UPDATE tasks SET card = ?2 WHERE key = ?1", params![task.0, frozen])?;
                self.delete(job.entry)
            }
            Settlement::ThreadGone => {
                self.connection
                    .execute("UPDATE tasks SET card = NULL, thread_ts = NULL WHERE key = ?1", [task.0])?;
                self.put_back(job.entry, now)
            }
            Settlement::Released { at } => self.put_back(job.entry, *at),
        }
    }

    /// Whether the job's entry is still there. Its key alone does not tell: a free one is given out again.
    fn is_open(&self, task: TaskKey, job: &Job) -> Result<bool, StoreError> {
        let found = self
            .connection
            .query_row(
                "SELECT coalesce((SELECT id FROM checkpoints WHERE key = entries.checkpoint), ?5) = ?5 FROM entries
                 WHERE key = ?1 AND task = ?2 AND kind = ?3 AND created_at_ms = ?4",
                params![
                    job.entry.0,
                    task.0,
                    rows::kind_column(job.kind),
                    job.created_at.0,
                    job.checkpoint.to_string()
                ],
                |row| row.get(0),
            )
            .optional()?;
        Ok(found.unwrap_or(false))
    }

    fn posted(
        &self,
        task: TaskKey,
        job: &Job,
        channel_id: Option<&str>,
        ts: Option<&str>,
        thread_ts: Option<&str>,
        now: Moment,
    ) -> Result<(), StoreError> {
        // A message that is not a reply opens the thread and is its card; in a given thread the first reply is.
        let opens_thread = ts.is_some() && thread_ts.is_none();
        // A question's message has buttons, which an edit of the card would take away.
        let card = if job.asked.is_some() { ts.and(rows::card_column(&Card::Frozen)) } else { ts };
        self.connection.execute(
            "UPDATE tasks SET channel_id = coalesce(?2, channel_id), thread_ts = coalesce(?3, thread_ts),
                 card = CASE WHEN ?5 THEN ?4 ELSE coalesce(card, ?4) END,
                 joined = CASE WHEN ?5 THEN 0 ELSE joined OR (thread_ts IS NULL AND ?3 IS NOT NULL) END
             WHERE key = ?1",
            params![task.0, channel_id, thread_ts.or(ts), card, opens_thread],
        )?;
        if let Some(asked) = &job.asked {
            self.place_question(&asked.question, channel_id, ts)?;
        }
        if let (Some(id), None) = (channel_id, &job.task.channel_id) {
            self.note_conversation(&job.task, id)?;
        }
        let is_reply_beside_a_card = !opens_thread && matches!(&job.task.card, Card::At(_));
        if job.kind == EntryKind::Post && is_reply_beside_a_card {
            self.refresh_card(task, now)?;
        }
        Ok(())
    }

    /// Remembers which conversation a channel's name stands for: from now on both are paced as one.
    fn note_conversation(&self, task: &Task, id: &str) -> Result<(), StoreError> {
        let (Some(credential), Some(name)) = (&task.credential, &task.channel) else { return Ok(()) };
        if name == id {
            return Ok(());
        }
        let changed = self.connection.execute(
            "INSERT INTO conversations (credential, name, id) VALUES (?1, ?2, ?3)
             ON CONFLICT (credential, name) DO UPDATE SET id = ?3 WHERE id <> ?3",
            params![credential.as_str(), name, id],
        )?;
        if changed > 0 {
            let bucket = |channel| pace::bucket(credential, EntryKind::Post, channel);
            self.connection.execute(
                "INSERT INTO paces (name, full_at_ms, hold_until_ms)
                 SELECT ?2, full_at_ms, hold_until_ms FROM paces WHERE name = ?1
                 ON CONFLICT (name) DO UPDATE SET full_at_ms = max(full_at_ms, excluded.full_at_ms)",
                [bucket(name), bucket(id)],
            )?;
        }
        Ok(())
    }

    /// Leaves an entry that edits the card, unless one waits already: it shows the newest state when it goes. One that is
    /// on its way does not.
    pub(super) fn refresh_card(&self, task: TaskKey, now: Moment) -> Result<(), StoreError> {
        self.refresh_card_by(task, now, now)
    }

    /// The same for an edit that has until then.
    pub(super) fn refresh_card_by(
        &self,
        task: TaskKey,
        due_at: Moment,
        now: Moment,
    ) -> Result<(), StoreError> {
        // One that failed comes when it may.
        let waiting = self.connection.execute(
            "UPDATE entries SET due_at_ms = CASE attempts WHEN 0 THEN min(due_at_ms, ?2) ELSE due_at_ms END
             WHERE task = ?1 AND kind = 1 AND state < 2 AND state = 0",
            params![task.0, due_at.0],
        )?;
        if waiting == 0 {
            self.forget_refused_card(task)?;
            self.insert_entry(task, EntryKind::Card, Priority::Routine, None, None, due_at, now)?;
        }
        Ok(())
    }

    pub(super) fn conclude(
        &self,
        entry: EntryKey,
        delivery: Delivery,
        reason: Option<&str>,
        ts: Option<&str>,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE checkpoints SET delivery = ?2, delivery_error = ?3, message_ts = ?4
             WHERE key = (SELECT checkpoint FROM entries WHERE key = ?1)",
            params![entry.0, delivery.name(), reason, ts],
        )?;
        Ok(())
    }

    fn refuse(&self, entry: EntryKey, reason: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE entries SET state = ?2, reason = ?3, attempts = attempts + 1 WHERE key = ?1",
            params![entry.0, state::REJECTED, reason],
        )?;
        Ok(())
    }

    /// An edit that was refused has been made up for, or is about to be, by a later one.
    fn forget_refused_card(&self, task: TaskKey) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM entries WHERE task = ?1 AND kind = 1 AND state = 2", [task.0])?;
        Ok(())
    }

    fn delete(&self, entry: EntryKey) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM entries WHERE key = ?1", [entry.0])?;
        Ok(())
    }

    fn put_back(&self, entry: EntryKey, due_at: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE entries SET state = ?2, due_at_ms = ?3 WHERE key = ?1",
            params![entry.0, state::WAITING, due_at.0],
        )?;
        Ok(())
    }

    /// Holds everyone who uses this name back until then, or for as long as they are held back already.
    pub(crate) fn hold(&self, name: &str, until: Moment, now: Moment) -> Result<(), StoreError> {
        // One from before a clock was set back holds nobody: kept, it would undo this one.
        self.hold_from(name, until.max(pace::believable(self.pace(name)?.hold_until, now)))
    }

    /// The same after something did not answer, which is for much less long.
    pub(crate) fn rest(&self, name: &str, until: Moment, now: Moment) -> Result<(), StoreError> {
        self.hold_from(name, until.max(pace::believable_rest(self.pace(name)?.hold_until, now)))
    }

    fn hold_from(&self, name: &str, until: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO paces (name, full_at_ms, hold_until_ms, failures) VALUES (?1, 0, ?2, 1)
             ON CONFLICT (name) DO UPDATE SET hold_until_ms = ?2, failures = failures + 1",
            params![name, until.0],
        )?;
        Ok(())
    }

    /// How often a hold was set since it was last lifted.
    pub(crate) fn failures(&self, name: &str) -> Result<u32, StoreError> {
        let failures = self
            .connection
            .query_row("SELECT failures FROM paces WHERE name = ?1", [name], |row| row.get(0))
            .optional()?;
        Ok(failures.unwrap_or(0))
    }

    /// Lifts a hold, as after a call that went through.
    pub(crate) fn lift(&self, name: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM paces WHERE name = ?1", [name])?;
        Ok(())
    }

    /// What the cache says of a checkpoint's delivery.
    pub(crate) fn delivery_of(&self, checkpoint: CheckpointKey) -> Result<Standing, StoreError> {
        let sql = format!("SELECT {} FROM checkpoints WHERE key = ?1", rows::CHECKPOINT);
        let found = self.connection.query_row(&sql, [checkpoint.0], rows::checkpoint)?;
        let due_at = self
            .connection
            .query_row(
                "SELECT due_at_ms FROM entries WHERE checkpoint = ?1 AND state < 2
                     AND task = (SELECT task FROM checkpoints WHERE key = ?1)",
                [checkpoint.0],
                |row| row.get(0),
            )
            .optional()?;
        Ok(Standing {
            delivery: found.delivery,
            message_ts: found.message_ts,
            reason: found.delivery_error,
            due_at: due_at.map(Moment),
        })
    }
}
