//! Claiming: who may send which entry now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::lease::{self, Owner};
use super::rows::{self, state};
use super::{StoreError, Tx};
use crate::checkpoint::id::{CheckpointId, EntryKey, TaskKey};
use crate::checkpoint::outbox::{self, Credential, EntryKind, Job, Link, Priority};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::{Moment, millis};
use crate::pace::{self, Bucket};

/// A channel's pacing name while a task has no channel.
const NO_CHANNEL: &str = "-";

/// How soon to look again whether the message is posted that a note or file waits for.
const PREDECESSOR: Duration = Duration::from_millis(100);

/// How soon to look again whether the thread is there that somebody elsewhere is about to open.
const OPENER_LOOK: Duration = Duration::from_secs(1);

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
    pub(crate) link: &'a Link,
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

/// An entry and what of its task decides whether it may go.
struct Candidate {
    entry: EntryKey,
    task: TaskKey,
    kind: EntryKind,
    /// Which of Slack's limits it falls under.
    limited_as: EntryKind,
    priority: Priority,
    due_at: Moment,
    /// Its conversation's id where that is known, however the task spells it.
    channel: Option<String>,
    credential: Option<Credential>,
    lease_owner: Option<String>,
    lease_until: Option<Moment>,
    attempts: u32,
    /// A routine message that failed while a newer one was recorded.
    outdated: bool,
    /// The link that nothing answered by, if that is why it waits.
    failed_via: Option<String>,
    reads_first: bool,
    /// Until when somebody elsewhere is about to open the task's thread.
    opener_until: Option<Moment>,
}

const CANDIDATE: &str = "e.key, e.task, e.kind, e.priority, e.due_at_ms, coalesce(t.channel_id, \
     (SELECT id FROM conversations WHERE credential = t.credential AND name = t.channel), t.channel), \
     t.credential, t.lease_owner, \
     t.lease_until_ms, t.card IS NOT NULL, e.attempts, e.kind = 0 AND e.priority = 1 AND EXISTS (SELECT 1 FROM entries n \
     WHERE n.task = e.task AND n.kind = 0 AND n.key > e.key AND n.state < 2), e.failed_via, \
     e.maybe_sent OR e.state = 1, CASE WHEN t.thread_ts IS NULL AND e.kind = 0 THEN t.opener_until_ms END";

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    let kind = rows::kind(row, 2)?;
    Ok(Candidate {
        entry: EntryKey(row.get(0)?),
        task: TaskKey(row.get(1)?),
        kind,
        limited_as: outbox::limited_as(kind, row.get(9)?),
        priority: rows::priority(row, 3)?,
        due_at: Moment(row.get(4)?),
        channel: row.get(5)?,
        credential: row.get::<_, Option<String>>(6)?.map(Credential::stored),
        lease_owner: row.get(7)?,
        lease_until: row.get::<_, Option<i64>>(8)?.map(Moment),
        attempts: row.get(10)?,
        outdated: row.get(11)?,
        failed_via: row.get(12)?,
        reads_first: outbox::reads_first(kind, row.get(13)?),
        opener_until: row.get::<_, Option<i64>>(14)?.map(Moment),
    })
}

impl Candidate {
    /// When it is due. What is urgent, or was tried before, waits for no longer than anything may hold it back: more
    /// means that the clock was set back since. That nothing answers on one way is no reason to wait on another.
    fn due_at(&self, want: &ClaimFor<'_>) -> Moment {
        let now = want.now;
        if self.failed_via.as_deref().is_some_and(|link| link != want.link.as_str()) {
            now
        } else if self.failed_via.is_some() {
            pace::believable_rest(self.due_at, now)
        } else if self.priority == Priority::Immediate || self.attempts > 0 {
            pace::believable(self.due_at, now)
        } else {
            self.due_at
        }
    }

    /// Whether another process is sending for its task.
    fn is_held(&self, want: &ClaimFor<'_>) -> bool {
        lease::keeps_out(self.lease_owner.as_deref(), self.lease_until, want.owner, want.now)
    }
}

/// What confines a query to a scope, and its parameter.
fn scope_condition(scope: Scope) -> (&'static str, i64) {
    match scope {
        Scope::Task(task) => ("e.task = ?1", task.0),
        Scope::All => ("?1 = 0", 0),
    }
}

impl Tx<'_> {
    /// Takes the next entry that may be sent, its task's lease, and a slot within Slack's limits.
    ///
    /// Posts of a task go in the order recorded, its card after them; between tasks immediate entries go first.
    pub(crate) fn claim(&self, want: &ClaimFor<'_>) -> Result<Claim, StoreError> {
        // Mostly there is nothing more: to find that out costs less than to prepare the search.
        if !self.anything_open(want.scope)? {
            return Ok(Claim::Nothing);
        }
        // While nothing answers there is no need to look through all that waits.
        let network = self.pace(&pace::network_hold(want.link))?.hold_until;
        let network = pace::believable_rest(network, want.now);
        if network > want.now {
            return Ok(Claim::Wait { until: network, why: Why::NotDue });
        }
        let mut candidates = self.candidates(want)?;
        while self.drop_the_outdated(&candidates, want)? {
            candidates = self.candidates(want)?;
        }
        let mut paces = HashMap::new();
        let mut wake: Option<(Moment, Why)> = None;
        let mut wait = |until: Moment, why: Why| {
            if wake.is_none_or(|(earliest, _)| until < earliest) {
                wake = Some((until, why));
            }
        };
        for candidate in candidates {
            if candidate.is_held(want) {
                wait(candidate.lease_until.unwrap_or(want.now), Why::Held);
                continue;
            }
            let due_at = candidate.due_at(want);
            if due_at > want.now {
                wait(due_at, Why::NotDue);
                continue;
            }
            if candidate.opener_until.is_some_and(|until| pace::believable(until, want.now) > want.now) {
                wait(want.now.plus(OPENER_LOOK), Why::NotDue);
                continue;
            }
            if let Some(due_at) = self.not_before(candidate.entry, candidate.kind, candidate.task)? {
                wait(due_at.max(want.now.plus(PREDECESSOR)), Why::NotDue);
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

    fn anything_open(&self, scope: Scope) -> Result<bool, StoreError> {
        let (scope, task) = scope_condition(scope);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM entries e WHERE {scope} AND e.state < 2)");
        Ok(self.connection.query_row(&sql, [task], |row| row.get(0))?)
    }

    /// The first post and the card of each task in scope, those that go first in front: before all the edits that take
    /// buttons away, which are few and hold up no message.
    fn candidates(&self, want: &ClaimFor<'_>) -> Result<Vec<Candidate>, StoreError> {
        // A card may overtake a post that is not due yet, but no post may overtake another of its task.
        let firsts = "e.state < 2 AND e.key = (SELECT min(f.key) FROM entries f
                         WHERE f.task = e.task AND f.kind = e.kind AND f.state < 2)";
        let (scope, task) = scope_condition(want.scope);
        let sql = format!(
            "SELECT {CANDIDATE} FROM entries e JOIN tasks t ON t.key = e.task
             WHERE {scope} AND {firsts} ORDER BY e.kind <> 4, e.kind, e.priority, e.due_at_ms, e.key"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut candidates = Vec::new();
        for found in statement.query_map([task], candidate)? {
            let found = found?;
            if want.link.credential().may_send(found.credential.as_ref(), want.explicit) {
                candidates.push(found);
            }
        }
        Ok(candidates)
    }

    /// Makes way for the newer messages behind routine ones that failed; says whether there were any.
    fn drop_the_outdated(&self, candidates: &[Candidate], want: &ClaimFor<'_>) -> Result<bool, StoreError> {
        let mut any = false;
        for candidate in candidates.iter().filter(|candidate| candidate.outdated && !candidate.is_held(want))
        {
            self.drop_outdated(candidate.entry)?;
            any = true;
        }
        Ok(any)
    }

    /// Takes a slot for the candidate; the error is the moment at which there will be one.
    fn reserve(
        &self,
        candidate: &Candidate,
        want: &ClaimFor<'_>,
        paces: &mut HashMap<String, Bucket>,
    ) -> Result<Result<Moment, (Moment, Why)>, StoreError> {
        let channel = candidate.channel.as_deref().unwrap_or(NO_CHANNEL);
        let name = pace::bucket(want.link.credential(), candidate.limited_as, channel);
        let mut look_up = |name: String| -> Result<Bucket, StoreError> {
            Ok(match paces.entry(name) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let bucket = self.pace(unknown.key())?;
                    *unknown.insert(bucket)
                }
            })
        };
        let (credential, kind) = (want.link.credential(), candidate.limited_as);
        let mut bucket = look_up(name.clone())?;
        let method = look_up(pace::method_hold(credential, kind))?.hold_until;
        bucket.hold_until = bucket.hold_until.max(method);
        if candidate.reads_first {
            let reading = look_up(pace::reading_hold(credential, kind))?.hold_until;
            bucket.hold_until = bucket.hold_until.max(reading);
        }
        // Only what is urgent reserves a slot ahead of time: so it always goes before what is not.
        let latest = if candidate.priority == Priority::Immediate { want.latest } else { want.now };
        match pace::reserve(bucket, pace::limit(candidate.limited_as), want.now, latest.max(want.now)) {
            Ok((start_at, next)) => {
                self.spend(&name, next)?;
                Ok(Ok(start_at))
            }
            Err(at) => Ok(Err((at, Why::Paced))),
        }
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
                want.link.credential().as_str(),
                rows::kind_column(candidate.kind),
                start_at.0,
            ],
        )?;
        let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
        let mut task = self.connection.query_row(&sql, [candidate.task.0], rows::task)?;
        task.snapshot.children = self.children(candidate.task)?;
        if candidate.kind == EntryKind::Card && task.state == TaskState::Running {
            task.snapshot.elapsed_ms = millis(want.now.since(task.started_at));
        }
        let note = match candidate.kind {
            EntryKind::Note => Some(self.note(candidate.entry)?),
            EntryKind::Post | EntryKind::Card | EntryKind::File | EntryKind::Question => None,
        };
        let mut about = None;
        let mut job = self.connection.query_row(
            "SELECT e.frozen, e.attempts, e.maybe_sent, e.state, e.created_at_ms,
                 coalesce((SELECT id FROM checkpoints WHERE key = e.checkpoint),
                          (SELECT id FROM checkpoints WHERE task = e.task ORDER BY key DESC LIMIT 1)),
                 CASE e.kind WHEN 3 THEN (SELECT tail FROM checkpoints WHERE key = e.checkpoint) END,
                 CASE e.kind WHEN 2 THEN NULL ELSE e.about END
             FROM entries e WHERE e.key = ?1",
            [candidate.entry.0],
            |row| {
                let frozen: Option<String> = row.get(0)?;
                // Still marked as being sent although its lease is free: whoever sent it died before the answer.
                let interrupted = row.get::<_, i64>(3)? == state::SENDING;
                about = row.get::<_, Option<i64>>(7)?;
                Ok(Job {
                    entry: candidate.entry,
                    kind: candidate.kind,
                    priority: candidate.priority,
                    snapshot: match (candidate.kind, frozen) {
                        (EntryKind::Post, Some(_)) => {
                            let frozen: Snapshot = rows::json(row, 0)?;
                            Snapshot { children: task.snapshot.children.clone(), ..frozen }
                        }
                        _ => task.snapshot.clone(),
                    },
                    note: note.clone(),
                    asked: None,
                    file: row.get(6)?,
                    checkpoint: CheckpointId(rows::uuid(row, 5)?),
                    attempts: row.get(1)?,
                    maybe_sent: row.get::<_, bool>(2)? || interrupted,
                    created_at: Moment(row.get(4)?),
                    start_at,
                    task: task.clone(),
                })
            },
        )?;
        if let Some(question) = about {
            self.fill_in(&mut job, question)?;
        }
        self.connection.execute(
            "UPDATE entries SET state = ?2, maybe_sent = ?3 WHERE key = ?1",
            params![candidate.entry.0, state::SENDING, job.maybe_sent],
        )?;
        Ok(job)
    }

    /// Writes down what is left of a limit.
    pub(super) fn spend(&self, name: &str, bucket: Bucket) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO paces (name, full_at_ms, hold_until_ms) VALUES (?1, ?2, 0)
             ON CONFLICT (name) DO UPDATE SET full_at_ms = ?2",
            params![name, bucket.full_at.0],
        )?;
        Ok(())
    }

    pub(super) fn pace(&self, name: &str) -> Result<Bucket, StoreError> {
        let bucket = self
            .connection
            .query_row("SELECT full_at_ms, hold_until_ms FROM paces WHERE name = ?1", [name], |row| {
                Ok(Bucket { full_at: Moment(row.get(0)?), hold_until: Moment(row.get(1)?) })
            })
            .optional()?;
        Ok(bucket.unwrap_or_default())
    }

    /// Gives the task's lease up.
    pub(crate) fn release(&self, task: TaskKey, owner: &Owner) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET lease_owner = NULL, lease_until_ms = NULL WHERE key = ?1 AND lease_owner = ?2",
            params![task.0, owner.as_str()],
        )?;
        Ok(())
    }
}
