//! The outbox: who may send which entry now, what became of it, and which courier looks after the rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::lease::{self, Owner};
use super::rows::{self, state};
use super::{StoreError, Tx};
use crate::checkpoint::id::{CheckpointId, CheckpointKey, EntryKey, TaskKey};
use crate::checkpoint::outbox::{Credential, Delivery, EntryKind, Job, Priority, Settlement};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Card, Task};
use crate::pace::{self, Bucket};

/// A channel's pacing name while a task has no channel.
const NO_CHANNEL: &str = "-";

/// Whose entries a caller wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Task(TaskKey),
    All,
}

/// Who asks for an entry, and until when it can wait.
#[derive(Debug, Clone)]
pub(crate) struct ClaimFor<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) credential: &'a Credential,
    /// A person asked: see [`Credential::may_send`].
    pub(crate) explicit: bool,
    pub(crate) scope: Scope,
    pub(crate) now: Moment,
    /// The latest moment at which an immediate entry may still start.
    pub(crate) latest: Moment,
    /// How long the task's lease runs beyond the start.
    pub(crate) lease: Duration,
}

/// The answer to a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The caller alone may send this.
    Job(Box<Job>),
    /// Nothing may be sent before this moment.
    Wait { until: Moment, why: Why },
    /// Nothing waits (for this credential).
    Nothing,
}

/// Why something has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Another process is sending for the task; it may be done sooner.
    Held,
    /// Its time has not come: inside the interval, or after a failure.
    NotDue,
    /// Slack's limits.
    Paced,
}

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

/// What `flush` found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flushable {
    /// Entries that this credential may send.
    pub(crate) ours: u64,
    /// Entries recorded for another workspace.
    pub(crate) foreign: u64,
    /// The latest of them.
    pub(crate) last: EntryKey,
}

/// An entry and what of its task decides whether it may go.
struct Candidate {
    entry: EntryKey,
    task: TaskKey,
    kind: EntryKind,
    priority: Priority,
    due_at: Moment,
    channel: Option<String>,
    credential: Option<Credential>,
    lease_owner: Option<String>,
    lease_until: Option<Moment>,
}

const CANDIDATE: &str = "e.key, e.task, e.kind, e.priority, e.due_at_ms, t.channel, t.credential, t.lease_owner, \
     t.lease_until_ms";

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate {
        entry: EntryKey(row.get(0)?),
        task: TaskKey(row.get(1)?),
        kind: rows::kind(row, 2)?,
        priority: rows::priority(row, 3)?,
        due_at: Moment(row.get(4)?),
        channel: row.get(5)?,
        credential: row.get::<_, Option<String>>(6)?.map(Credential::stored),
        lease_owner: row.get(7)?,
        lease_until: row.get::<_, Option<i64>>(8)?.map(Moment),
    })
}

impl Tx<'_> {
    /// Takes the next entry that may be sent, its task's lease, and a slot within Slack's limits.
    ///
    /// Posts of a task go in the order recorded, its card after them; between tasks immediate entries go first.
    pub(crate) fn claim(&self, want: &ClaimFor<'_>) -> Result<Claim, StoreError> {
        let candidates = self.candidates(want)?;
        let mut paces = HashMap::new();
        let mut wake: Option<(Moment, Why)> = None;
        let mut wait = |until: Moment, why: Why| {
            if wake.is_none_or(|(earliest, _)| until < earliest) {
                wake = Some((until, why));
            }
        };
        for candidate in candidates {
            if lease::keeps_out(candidate.lease_owner.as_deref(), candidate.lease_until, want.owner, want.now)
            {
                wait(candidate.lease_until.unwrap_or(want.now), Why::Held);
                continue;
            }
            if candidate.due_at > want.now {
                wait(candidate.due_at, Why::NotDue);
                continue;
            }
            match self.reserve(&candidate, want, &mut paces)? {
                Ok(start_at) => {
                    return self.take(&candidate, want, start_at).map(|job| Claim::Job(Box::new(job)));
                }
                Err((at, why)) => wait(at, why),
            }
        }
        Ok(wake.map_or(Claim::Nothing, |(until, why)| Claim::Wait { until, why }))
    }

    /// The first post and the card of each task in scope, those that go first in front.
    fn candidates(&self, want: &ClaimFor<'_>) -> Result<Vec<Candidate>, StoreError> {
        // A card may overtake a post that is not due yet, but no post may overtake another of its task.
        let firsts = "e.state < 2 AND e.key = (SELECT min(f.key) FROM entries f
                         WHERE f.task = e.task AND f.kind = e.kind AND f.state < 2)";
        let (scope, task) = match want.scope {
            Scope::Task(task) => ("e.task = ?1", task.0),
            Scope::All => ("?1 = 0", 0),
        };
        let sql = format!(
            "SELECT {CANDIDATE} FROM entries e JOIN tasks t ON t.key = e.task
             WHERE {scope} AND {firsts} ORDER BY e.kind, e.priority, e.due_at_ms, e.key"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut candidates = Vec::new();
        for found in statement.query_map([task], candidate)? {
            let found = found?;
            if want.credential.may_send(found.credential.as_ref(), want.explicit) {
                candidates.push(found);
            }
        }
        Ok(candidates)
    }

    /// Takes a slot for the candidate; the error is the moment at which there will be one.
    fn reserve(
        &self,
        candidate: &Candidate,
        want: &ClaimFor<'_>,
        paces: &mut HashMap<String, Bucket>,
    ) -> Result<Result<Moment, (Moment, Why)>, StoreError> {
        let channel = candidate.channel.as_deref().unwrap_or(NO_CHANNEL);
        let name = pace::bucket(want.credential, candidate.kind, channel);
        let mut look_up = |name: String| -> Result<Bucket, StoreError> {
            Ok(match paces.entry(name) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let bucket = self.pace(unknown.key())?;
                    *unknown.insert(bucket)
                }
            })
        };
        let network = look_up(pace::network_hold(want.credential))?.hold_until;
        if network > want.now {
            return Ok(Err((network, Why::NotDue)));
        }
        let method = look_up(pace::method_hold(want.credential, candidate.kind))?.hold_until;
        let mut bucket = look_up(name.clone())?;
        bucket.hold_until = bucket.hold_until.max(method);
        // Only what is urgent reserves a slot ahead of time: so it always goes before what is not.
        let latest = if candidate.priority == Priority::Immediate { want.latest } else { want.now };
        match pace::reserve(bucket, pace::limit(candidate.kind), want.now, latest.max(want.now)) {
            Ok((start_at, next)) => {
                self.connection.execute(
                    "INSERT INTO paces (name, full_at_ms, hold_until_ms) VALUES (?1, ?2, 0)
                     ON CONFLICT (name) DO UPDATE SET full_at_ms = ?2",
                    params![name, next.full_at.0],
                )?;
                Ok(Ok(start_at))
            }
            Err(at) => Ok(Err((at, Why::Paced))),
        }
    }

    fn pace(&self, name: &str) -> Result<Bucket, StoreError> {
        let bucket = self
            .connection
            .query_row("SELECT full_at_ms, hold_until_ms FROM paces WHERE name = ?1", [name], |row| {
                Ok(Bucket { full_at: Moment(row.get(0)?), hold_until: Moment(row.get(1)?) })
            })
            .optional()?;
        Ok(bucket.unwrap_or_default())
    }

    fn take(&self, candidate: &Candidate, want: &ClaimFor<'_>, start_at: Moment) -> Result<Job, StoreError> {
        self.connection.execute(
            "UPDATE tasks SET lease_owner = ?2, lease_until_ms = ?3, credential = ?4,
                 last_message_at_ms = CASE ?5 WHEN 0 THEN ?6 ELSE last_message_at_ms END
             WHERE key = ?1",
            params![
                candidate.task.0,
                want.owner.as_str(),
                start_at.plus(want.lease).0,
                want.credential.as_str(),
                rows::kind_column(candidate.kind),
                start_at.0,
            ],
        )?;
        let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
        let task = self.connection.query_row(&sql, [candidate.task.0], rows::task)?;
        let job = self.connection.query_row(
            "SELECT e.frozen, e.attempts, e.maybe_sent, e.state, e.created_at_ms,
                 coalesce((SELECT id FROM checkpoints WHERE key = e.checkpoint),
                          (SELECT id FROM checkpoints WHERE task = e.task ORDER BY key DESC LIMIT 1))
             FROM entries e WHERE e.key = ?1",
            [candidate.entry.0],
            |row| {
                let frozen: Option<String> = row.get(0)?;
                // Still marked as being sent although its lease is free: whoever sent it died before the answer.
                let interrupted = row.get::<_, i64>(3)? == state::SENDING;
                Ok(Job {
                    entry: candidate.entry,
                    kind: candidate.kind,
                    priority: candidate.priority,
                    snapshot: if frozen.is_some() { rows::json(row, 0)? } else { task.snapshot.clone() },
                    checkpoint: CheckpointId(rows::uuid(row, 5)?),
                    attempts: row.get(1)?,
                    maybe_sent: row.get::<_, bool>(2)? || interrupted,
                    created_at: Moment(row.get(4)?),
                    start_at,
                    task: task.clone(),
                })
            },
        )?;
        self.connection.execute(
            "UPDATE entries SET state = ?2, maybe_sent = ?3 WHERE key = ?1",
            params![candidate.entry.0, state::SENDING, job.maybe_sent],
        )?;
        Ok(job)
    }

    /// Writes back what became of a job. The caller keeps the task's lease until [`Tx::release`].
    pub(crate) fn settle(&self, job: &Job, settlement: &Settlement, now: Moment) -> Result<(), StoreError> {
        let Some(task) = job.task.key else { return Ok(()) };
        match settlement {
            Settlement::Posted { channel_id, ts, thread_ts } => {
                if job.kind == EntryKind::Post {
                    self.conclude(job.entry, Delivery::Sent, None, ts.as_deref())?;
                }
                self.delete(job.entry)?;
                self.posted(task, job, channel_id.as_deref(), ts.as_deref(), thread_ts.as_deref(), now)
            }
            Settlement::Edited => self.delete(job.entry),
            Settlement::Retry { at, reason, maybe_sent } => {
                let maybe_sent = *maybe_sent || job.maybe_sent;
                let delivery = if maybe_sent { Delivery::Unconfirmed } else { Delivery::Queued };
                if job.kind == EntryKind::Post {
                    self.conclude(job.entry, delivery, Some(reason), None)?;
                }
                self.connection.execute(
                    "UPDATE entries SET state = ?2, due_at_ms = ?3, attempts = attempts + 1, maybe_sent = ?4, reason = ?5
                     WHERE key = ?1",
                    params![job.entry.0, state::WAITING, at.0, maybe_sent, reason],
                )?;
                Ok(())
            }
            Settlement::Rejected { reason } => match job.kind {
                EntryKind::Post => {
                    self.conclude(job.entry, Delivery::Rejected, Some(reason), None)?;
                    self.connection.execute(
                        "UPDATE entries SET state = ?2, reason = ?3, attempts = attempts + 1 WHERE key = ?1",
                        params![job.entry.0, state::REJECTED, reason],
                    )?;
                    Ok(())
                }
                EntryKind::Card => self.delete(job.entry),
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

    fn posted(
        &self,
        task: TaskKey,
        job: &Job,
        channel_id: Option<&str>,
        ts: Option<&str>,
        thread_ts: Option<&str>,
        now: Moment,
    ) -> Result<(), StoreError> {
        // The first message that is not a reply opens the thread; the first message of all is the card.
        self.connection.execute(
            "UPDATE tasks SET channel_id = coalesce(?2, channel_id), thread_ts = coalesce(?3, thread_ts),
                 card = coalesce(card, ?4)
             WHERE key = ?1",
            params![task.0, channel_id, thread_ts.or(ts), ts],
        )?;
        let is_reply_beside_a_card = matches!(&job.task.card, Card::At(_));
        if job.kind == EntryKind::Post && is_reply_beside_a_card {
            self.refresh_card(task, now)?;
        }
        Ok(())
    }

    /// Leaves an entry that edits the card, unless one waits already: it shows the newest state when it goes.
    fn refresh_card(&self, task: TaskKey, now: Moment) -> Result<(), StoreError> {
        let waits = self
            .connection
            .query_row("SELECT 1 FROM entries WHERE task = ?1 AND kind = 1 AND state < 2", [task.0], |_| {
                Ok(())
            })
            .optional()?;
        if waits.is_none() {
            self.insert_entry(task, EntryKind::Card, Priority::Routine, None, None, now, now)?;
        }
        Ok(())
    }

    fn conclude(
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

    /// Gives the task's lease up.
    pub(crate) fn release(&self, task: TaskKey, owner: &Owner) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET lease_owner = NULL, lease_until_ms = NULL WHERE key = ?1 AND lease_owner = ?2",
            params![task.0, owner.as_str()],
        )?;
        Ok(())
    }

    /// Holds everyone who uses this name back until then.
    pub(crate) fn hold(&self, name: &str, until: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO paces (name, full_at_ms, hold_until_ms, failures) VALUES (?1, 0, ?2, 1)
             ON CONFLICT (name) DO UPDATE SET hold_until_ms = max(hold_until_ms, ?2), failures = failures + 1",
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

    /// Until when a call of this kind is held back.
    pub(crate) fn held_until(&self, credential: &Credential, kind: EntryKind) -> Result<Moment, StoreError> {
        let method = self.pace(&pace::method_hold(credential, kind))?.hold_until;
        Ok(method.max(self.pace(&pace::network_hold(credential))?.hold_until))
    }

    /// Whether anything waits that this credential may send.
    pub(crate) fn anything_waits(&self, credential: &Credential) -> Result<bool, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT t.credential FROM entries e JOIN tasks t ON t.key = e.task WHERE e.state < 2")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let recorded = row.get::<_, Option<String>>(0)?.map(Credential::stored);
            if credential.may_send(recorded.as_ref(), false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the caller the one courier for this credential, unless another one lives.
    pub(crate) fn appoint_courier(
        &self,
        credential: &Credential,
        owner: &Owner,
        now: Moment,
        until: Moment,
    ) -> Result<bool, StoreError> {
        let present: Option<(String, i64)> = self
            .connection
            .query_row(
                "SELECT owner, until_ms FROM couriers WHERE credential = ?1",
                [credential.as_str()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if let Some((holder, held_until)) = present
            && lease::keeps_out(Some(&holder), Some(Moment(held_until)), owner, now)
        {
            return Ok(false);
        }
        self.connection.execute(
            "INSERT INTO couriers (credential, owner, until_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (credential) DO UPDATE SET owner = ?2, until_ms = ?3",
            params![credential.as_str(), owner.as_str(), until.0],
        )?;
        Ok(true)
    }

    /// Passes a courier's office from the process that started it to the courier itself; false if it was lost.
    pub(crate) fn take_office(
        &self,
        credential: &Credential,
        from: &Owner,
        to: &Owner,
        until: Moment,
    ) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE couriers SET owner = ?3, until_ms = ?4 WHERE credential = ?1 AND owner = ?2",
            params![credential.as_str(), from.as_str(), to.as_str(), until.0],
        )?;
        Ok(changed > 0)
    }

    /// Prolongs a courier's office once half of it is over; false if it was lost to another one.
    pub(crate) fn stay_in_office(
        &self,
        credential: &Credential,
        owner: &Owner,
        now: Moment,
        until: Moment,
    ) -> Result<bool, StoreError> {
        self.connection.execute(
            "UPDATE couriers SET until_ms = ?4 WHERE credential = ?1 AND owner = ?2 AND until_ms < (?3 + ?4) / 2",
            params![credential.as_str(), owner.as_str(), now.0, until.0],
        )?;
        let held = self
            .connection
            .query_row(
                "SELECT 1 FROM couriers WHERE credential = ?1 AND owner = ?2",
                [credential.as_str(), owner.as_str()],
                |_| Ok(()),
            )
            .optional()?;
        Ok(held.is_some())
    }

    /// Ends a courier's office.
    pub(crate) fn leave_office(&self, credential: &Credential, owner: &Owner) -> Result<(), StoreError> {
        self.connection.execute(
            "DELETE FROM couriers WHERE credential = ?1 AND owner = ?2",
            params![credential.as_str(), owner.as_str()],
        )?;
        Ok(())
    }

    /// Makes everything that waits due now, held-back states included; with `rejected`, what was refused as well.
    pub(crate) fn hurry(
        &self,
        credential: &Credential,
        rejected: bool,
        now: Moment,
    ) -> Result<Flushable, StoreError> {
        if rejected {
            self.revive(credential, now)?;
        }
        self.connection
            .execute("UPDATE entries SET due_at_ms = ?1 WHERE state = 0 AND due_at_ms > ?1", [now.0])?;
        let last =
            self.connection.query_row("SELECT coalesce(max(key), 0) FROM entries", [], |row| row.get(0))?;
        // Slack's own Retry-After stays; only our caution about the network is put aside.
        self.connection.execute("DELETE FROM paces WHERE name = ?1", [pace::network_hold(credential)])?;
        self.left(credential, EntryKey(last))
    }

    /// What of the entries up to `last` still waits, and the cards that follow from them.
    pub(crate) fn left(&self, credential: &Credential, last: EntryKey) -> Result<Flushable, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT t.credential, count(*) FROM entries e JOIN tasks t ON t.key = e.task
             WHERE e.state < 2 AND (e.key <= ?1 OR e.kind = 1) GROUP BY t.credential",
        )?;
        let mut found = Flushable { ours: 0, foreign: 0, last };
        let counts = statement
            .query_map([last.0], |row| Ok((row.get::<_, Option<String>>(0)?, rows::count(row, 1)?)))?;
        for row in counts {
            let (recorded, count) = row?;
            if credential.may_send(recorded.map(Credential::stored).as_ref(), true) {
                found.ours += count;
            } else {
                found.foreign += count;
            }
        }
        Ok(found)
    }

    fn revive(&self, credential: &Credential, now: Moment) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT e.key, t.credential FROM entries e JOIN tasks t ON t.key = e.task WHERE e.state = 2",
        )?;
        let found: Vec<(i64, Option<String>)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        for (entry, recorded) in found {
            if credential.may_send(recorded.map(Credential::stored).as_ref(), true) {
                self.conclude(EntryKey(entry), Delivery::Queued, None, None)?;
                self.connection.execute(
                    "UPDATE entries SET state = 0, due_at_ms = ?2, attempts = 0 WHERE key = ?1",
                    params![entry, now.0],
                )?;
            }
        }
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

    /// The task as it stands.
    pub(crate) fn task(&self, key: TaskKey) -> Result<Task, StoreError> {
        let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
        Ok(self.connection.query_row(&sql, [key.0], rows::task)?)
    }
}
