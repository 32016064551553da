//! Forwarding: what the cache has and the audit trail's database has not goes there, in batches.
//!
//! The same for `emit`, `flush`, the courier and the worker, which differ in when they do it and how long they wait. A
//! database may lag and never blocks: after a failure everyone who shares the cache leaves it alone for a while.

pub(in crate::cmd) mod people;
pub(super) mod resolve;

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use super::now;
use crate::audit::advance::{Clocks, advance};
use crate::audit::connect::{Client, connect};
use crate::audit::forward::{self, Rows};
use crate::audit::{Trouble, schema};
use crate::checkpoint::audit::{AuditCheckpoint, ClockOffset, SharedTask, StoredRow};
use crate::checkpoint::id::{CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::time::{Moment, millis};
use crate::config::Config;
use crate::config::database::{Audit, Database};
use crate::delivery::retry;
use crate::store::{Batch, Owner, Store, StoreError, Trail, Tx, Unsent};

/// How many processes that share a cache speak with a database at once.
const SEATS: u32 = 4;
/// How soon to look whether one of them is done, and how often in the end.
const POLL: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(40);
/// How much longer than its work a seat is kept, should its holder die.
const SEAT_MARGIN: Duration = Duration::from_secs(5);
/// How many checkpoints a batch has at most, and about how many bytes.
const BATCH: (usize, usize) = (2000, 4 * 1024 * 1024);
/// How many of them a call takes along that has something of its own to tell.
const ALONG: (usize, usize) = (200, 256 * 1024);
/// How long what is not urgent waits for company, so that a busy agent is no connection for each checkpoint.
pub(super) const REST: Duration = Duration::from_secs(10);
/// How often one process connects at most, whatever there is to tell.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it asks after a thread that somebody else is about to open.
const LOOK: Duration = Duration::from_secs(1);
/// How much the measured clock may differ from the one before by chance, beside the time that its answer took.
const CLOCK_NOISE: Duration = Duration::from_millis(50);
/// How long a connection may take: Slack waits meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Among how many refused rows reasons are looked for, and how many of them are told.
const REASONS_LOOK: u64 = 100;
const REASONS_MAX: usize = 3;
/// How often a batch is told again since somebody else was quicker with something.
const OVERTAKEN_MAX: u32 = 20;

/// Forwards rows to one database.
#[derive(Debug)]
pub(super) struct Forwarder {
    database: Box<Database>,
    /// What the cache knows the database by; holds no secret.
    name: String,
    owner: Owner,
    masker: Masker,
    /// When this process last told everything.
    passed_at: Cell<Option<Moment>>,
}

/// Why forwarding stopped.
#[derive(Debug)]
pub(super) enum Stop {
    Cache(StoreError),
    Database(Trouble),
    /// Others are speaking with the database already.
    Crowded,
}

/// What became of rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Checkpoints and interventions that the database has now.
    pub(super) sent: u64,
    /// Those that it refused for good.
    pub(super) refused: u64,
}

/// A connection while rows are told.
pub(super) struct Session<'a> {
    forwarder: &'a Forwarder,
    client: Client,
    seat: String,
    offset: ClockOffset,
    /// How long a word takes to the server, at most.
    latency: Duration,
    pub(super) trail: Trail,
    /// A checkpoint that was planned with what the database has of its agent.
    judged: Option<CheckpointKey>,
    /// What people did elsewhere may wait for the task that is told of.
    people_wait: bool,
    /// By when we must know that it is a server that we can use.
    greet_by: Instant,
    deadline: Instant,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Cache(error)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Database(trouble)
    }
}

impl Stop {
    /// Whether it stays as it is until somebody mends it.
    pub(super) fn needs_somebody(&self) -> bool {
        matches!(self, Self::Database(trouble) if trouble.needs_somebody())
    }

    /// What failed and how to mend it, where it is the database.
    pub(super) fn words(&self) -> Option<(String, String)> {
        match self {
            Self::Database(trouble) if trouble.is_about_schema() => {
                let message = format!("the database lacks the audit trail's tables: {}", trouble.message);
                Some((message, "run agent-checkpoint db migrate".to_owned()))
            }
            Self::Database(Trouble { message, hint, .. }) => Some((message.clone(), hint.clone())),
            Self::Cache(_) | Self::Crowded => None,
        }
    }
}

impl Forwarder {
    /// For the configured database; `None` when there is none that can be used.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let Audit::Database(database) = &config.audit else { return None };
        Some(Self {
            name: format!("audit|{}", database.fingerprint()),
            database: database.clone(),
            owner: Owner::current(now()),
            masker: config.masker(),
            passed_at: Cell::new(None),
        })
    }

    /// What the cache knows the database by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn hold(&self) -> String {
        format!("{}|hold", self.name)
    }

    /// Until when everybody leaves the database alone.
    pub(super) fn held_until(&self, tx: &Tx<'_>, at: Moment) -> Result<Option<Moment>, StoreError> {
        let until = tx.held_until(&self.hold(), at)?;
        Ok((until > at).then_some(until))
    }

    /// When the database is to be told what waits for it; `None` if nothing does.
    pub(super) fn due(&self, tx: &Tx<'_>, at: Moment) -> Result<Option<Moment>, StoreError> {
        let held_until = self.held_until(tx, at)?.unwrap_or(at);
        let Some(trail) = tx.known_trail(&self.name)? else { return Ok(Some(held_until)) };
        let after = |moment: Option<Moment>, rest| moment.map_or(at, |moment| moment.min(at).plus(rest));
        let due_at = if tx.trail_waits(&trail)? {
            // A moment that a clock wrote which was set back since is not waited for.
            let rest = if tx.has_urgent_audit(&trail)? { Duration::ZERO } else { REST };
            after(trail.sent_at, rest).max(after(self.passed_at.get(), PAUSE))
        } else if tx.awaited_threads(at)?.is_empty() {
            return Ok(None);
        } else {
            after(self.passed_at.get(), LOOK)
        };
        Ok(Some(due_at.max(held_until)))
    }

    /// Whether a checkpoint is in the database.
    pub(super) fn has(&self, tx: &Tx<'_>, checkpoint: CheckpointKey) -> Result<bool, StoreError> {
        tx.is_audited(&self.name, checkpoint)
    }

    /// Whether the database lacks anything, what it refused included with `rejected`, or knows what we wait for.
    pub(super) fn is_behind(&self, store: &mut Store, rejected: bool) -> Result<bool, StoreError> {
        store.read(|tx| {
            let refused = if rejected { tx.audit_refusals(&self.name, 1)?.len() } else { 0 };
            Ok(refused > 0 || self.due(tx, now())?.is_some())
        })
    }

    /// Tells everything that waits, what was refused included with `rejected`, and hears what became of tasks elsewhere.
    /// `progress` is told how many rows are through.
    pub(super) fn pass(
        &self,
        store: &mut Store,
        rejected: bool,
        deadline: Instant,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Told, Stop> {
        self.passed_at.set(Some(now()));
        let passed = self.open(store, None, deadline).and_then(|(mut session, _)| {
            let told = session.tell_all(store, rejected, progress);
            let heard = session.hear(store);
            session.close(store)?;
            let told = told?;
            heard?;
            Ok(told)
        });
        self.remember(store, passed)
    }

    /// Why rows were refused: the first few reasons, each once.
    pub(super) fn refusals(&self, store: &mut Store) -> Result<Vec<String>, StoreError> {
        let found = store.read(|tx| tx.audit_refusals(&self.name, REASONS_LOOK))?;
        let mut reasons: Vec<String> = Vec::new();
        for (_, reason) in found {
            if reasons.len() < REASONS_MAX && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Ok(reasons)
    }

    /// Why a checkpoint was refused.
    pub(super) fn refusal(
        &self,
        store: &mut Store,
        checkpoint: CheckpointKey,
    ) -> Result<Option<String>, StoreError> {
        store.read(|tx| tx.audit_refusal(&self.name, checkpoint))
    }

    /// How many rows the database lacks.
    pub(super) fn unsent(&self, store: &mut Store) -> Result<Unsent, StoreError> {
        store.read(|tx| tx.unsent_audit(&self.name))
    }

    /// After a failure nobody who shares the cache tries for a while; after a success everybody may.
    pub(super) fn remember<T>(&self, store: &mut Store, done: Result<T, Stop>) -> Result<T, Stop> {
        let hold = self.hold();
        match &done {
            Ok(_) => {
                if store.read(|tx| tx.failures(&hold))? > 0 {
                    store.write_relaxed(|tx| tx.lift(&hold))?;
                }
            }
            Err(Stop::Database(_)) => {
                store.write_relaxed(|tx| {
                    let at = now();
                    tx.hold(&hold, retry::network_rest(tx.failures(&hold)?, at), at)
                })?;
            }
            Err(Stop::Cache(_) | Stop::Crowded) => {}
        }
        done
    }

    /// Connects, and asks for an agent's latest task on the way.
    pub(super) fn open(
        &self,
        store: &mut Store,
        agent_id: Option<&str>,
        deadline: Instant,
    ) -> Result<(Session<'_>, Option<SharedTask>), Stop> {
        let mut session = self.enter(store, deadline)?;
        match session.greet(agent_id) {
            Ok(found) => Ok((session, found)),
            Err(trouble) => {
                session.close(store)?;
                Err(Stop::Database(trouble))
            }
        }
    }

    /// Connects, without a word yet.
    pub(super) fn enter(&self, store: &mut Store, deadline: Instant) -> Result<Session<'_>, Stop> {
        let (seat, trail) = self.take_seat(store, deadline)?;
        let greet_by = deadline.min(Instant::now() + CONNECT_MAX);
        let began = Instant::now();
        match connect(&self.database, greet_by) {
            Ok(client) => {
                let latency = began.elapsed() / 2;
                let offset = trail.offset.unwrap_or(ClockOffset(0));
                Ok(Session {
                    forwarder: self,
                    client,
                    seat,
                    offset,
                    latency,
                    trail,
                    judged: None,
                    people_wait: true,
                    greet_by,
                    deadline,
                })
            }
            Err(trouble) => {
                store.write_relaxed(|tx| tx.leave_office(&seat, &self.owner))?;
                Err(Stop::Database(trouble))
            }
        }
    }

    fn take_seat(&self, store: &mut Store, deadline: Instant) -> Result<(String, Trail), Stop> {
        loop {
            let at = now();
            let left = deadline.saturating_duration_since(Instant::now());
            let until = at.plus(left.min(super::BUSY_MAX) + SEAT_MARGIN);
            let taken = store.write_relaxed(|tx| {
                let trail = tx.trail(&self.name, at)?;
                Ok((tx.take_seat(&self.name, SEATS, &self.owner, (at, until))?, trail))
            })?;
            match taken {
                (Some(seat), trail) => return Ok((seat, trail)),
                (None, _) if left.is_zero() => return Err(Stop::Crowded),
                (None, _) => self.await_seat(store, deadline)?,
            }
        }
    }

    /// Waits until somebody leaves, or the time is over.
    fn await_seat(&self, store: &mut Store, deadline: Instant) -> Result<(), Stop> {
        let mut poll = POLL;
        while !store.read(|tx| tx.has_free_seat(&self.name, SEATS, &self.owner, now()))? {
            if deadline.saturating_duration_since(Instant::now()) <= poll {
                return Err(Stop::Crowded);
            }
            thread::sleep(poll);
            poll = (poll * 2).min(POLL_MAX);
        }
        Ok(())
    }
}

/// What corrects this machine's clock. The one from before stands as long as it may be right: of two moments of one
/// machine the later one must not come to lie before the earlier one by chance.
fn offset(clock: i64, (asked, answered): (Moment, Moment), before: Option<ClockOffset>) -> ClockOffset {
    let took = answered.since(asked);
    let here = asked.plus(took / 2);
    let measured = clock.saturating_sub(here.0);
    let doubt = i64::try_from(millis(took / 2 + CLOCK_NOISE)).unwrap_or(i64::MAX);
    // At first it is taken to be right.
    let before = before.unwrap_or(ClockOffset(0));
    if (measured - before.0).abs() <= doubt { before } else { ClockOffset(measured) }
}

impl Session<'_> {
    /// Compares clocks and schemas, and asks for an agent's latest task.
    pub(super) fn greet(&mut self, agent_id: Option<&str>) -> Result<Option<SharedTask>, Trouble> {
        let asked = now();
        let hello = forward::hello(&mut self.client, agent_id, self.greet_by)?;
        let answered = now();
        if hello.version < 1 {
            return Err(Trouble::no_schema(self.client.place(), hello.version, schema::version()));
        }
        self.offset = offset(hello.clock, (asked, answered), self.trail.offset);
        Ok(hello.task.map(|row| row.task(self.offset)))
    }

    /// Tells a checkpoint that goes on in a task of which nobody but us has told the database anything: the usual case,
    /// told with the least there is to say and nothing to ask before. False, and nothing is told, where it is not the
    /// case.
    ///
    /// The session need not have greeted: its clocks are compared on the way. With `asks` it is found out as well whether
    /// what people did elsewhere waits.
    pub(super) fn advance(
        &mut self,
        store: &mut Store,
        checkpoint: CheckpointKey,
        asks: bool,
    ) -> Result<bool, Stop> {
        let batch = store.read(|tx| tx.audit_batch(&self.trail, ALONG.0, ALONG.1))?;
        let Some((task, told)) = batch.alone().filter(|(_, told)| told.key == checkpoint) else {
            return Ok(false);
        };
        let clocks =
            Clocks { here: now().0, offset: self.offset.0, noise: CLOCK_NOISE, latency: self.latency };
        let rows = (task.row(&self.trail.cache, self.offset), told.row(self.offset));
        let told = match advance(&mut self.client, &rows, &clocks, asks, self.deadline) {
            // Whatever the server has against it, it will say of the rows as they are told otherwise.
            Err(trouble) if trouble.code.is_some() => None,
            told => told?,
        };
        let is_told = told.is_some();
        if let Some(waits) = told {
            self.people_wait = waits;
            store.write_relaxed(|tx| tx.audited(&self.forwarder.name, &batch, self.offset, now()))?;
        }
        Ok(is_told)
    }

    /// Tells everything that waits; with `rejected`, first what was refused.
    fn tell_all(
        &mut self,
        store: &mut Store,
        rejected: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Told, Stop> {
        let mut told = if rejected { self.tell_refused(store)? } else { Told::default() };
        let mut before: Option<Batch> = None;
        loop {
            let batch = store.read(|tx| tx.audit_batch(&self.trail, BATCH.0, BATCH.1))?;
            // What nothing came of is left for another time.
            if batch.is_empty() || before.as_ref() == Some(&batch) {
                return Ok(told);
            }
            let count = batch.keys().count() as u64;
            let refused = self.tell(store, &batch)?;
            told.refused += refused;
            told.sent += count.saturating_sub(refused);
            progress(told.sent + told.refused);
            before = Some(batch);
        }
    }

    /// Tells what was refused once more.
    fn tell_refused(&mut self, store: &mut Store) -> Result<Told, Stop> {
        let name = &self.forwarder.name;
        let mut told = Told::default();
        for (checkpoint, _) in store.read(|tx| tx.audit_refusals(name, u64::MAX))? {
            let batch = store.read(|tx| tx.refused_batch(&self.trail, checkpoint))?;
            let refused = if batch.is_empty() { 0 } else { self.tell(store, &batch)? };
            if refused == 0 {
                store.write_relaxed(|tx| tx.forget_refusal(name, checkpoint))?;
            }
            told.sent += u64::from(refused == 0 && !batch.is_empty());
            told.refused += refused;
        }
        Ok(told)
    }

    /// Tells a checkpoint, and what waits before it as far as that is little; says whether the database has it now.
    pub(super) fn tell_one(&mut self, store: &mut Store, checkpoint: CheckpointKey) -> Result<bool, Stop> {
        let batch = store.read(|tx| {
            let batch = tx.audit_batch(&self.trail, ALONG.0, ALONG.1)?;
            let has_it = batch.checkpoints.iter().any(|told| told.key == checkpoint);
            if has_it { Ok(batch) } else { tx.audit_of(&self.trail, checkpoint) }
        })?;
        self.judged = Some(checkpoint);
        let refused = self.tell(store, &batch)?;
        Ok(refused == 0)
    }

    /// Tells where a task's thread is.
    pub(super) fn tell_thread(&mut self, store: &mut Store, task: TaskKey) -> Result<(), Stop> {
        let told = store.read(|tx| tx.audit_task(task))?;
        self.tell(store, &Batch { tasks: vec![told], ..Batch::default() })?;
        Ok(())
    }

    /// Tells a batch, writes down that it is there, and takes over what the database says of its tasks. Says how many
    /// checkpoints were refused.
    fn tell(&mut self, store: &mut Store, batch: &Batch) -> Result<u64, Stop> {
        let mut batch = batch.clone();
        let mut overtaken = 0;
        // A task may have begun, and even ended, in ignorance of one that is open there.
        let begins = |told: &AuditCheckpoint| told.is_first && Some(told.key) != self.judged;
        if batch.checkpoints.iter().any(begins) && self.resolve(store, &batch)? {
            batch = store.read(|tx| tx.batch_again(&batch))?;
        }
        let told = loop {
            match self.send(&batch) {
                // Another task of an agent of ours is open there.
                Err(trouble)
                    if trouble.is_conflict()
                        && overtaken < OVERTAKEN_MAX
                        && self.resolve(store, &batch)? =>
                {
                    overtaken += 1;
                    batch = store.read(|tx| tx.batch_again(&batch))?;
                }
                told => break told,
            }
        };
        let mut refused = 0;
        match told {
            Ok(rows) => {
                let mut shared = self.shared(rows);
                if self.recognize(store, &shared)? {
                    batch = store.read(|tx| tx.batch_again(&batch))?;
                    shared = self.send(&batch).map(|rows| self.shared(rows))?;
                }
                self.settle(store, &batch, &shared)?;
            }
            Err(trouble) if trouble.is_about_rows() => {
                refused = self.tell_halves(store, &batch, &trouble)?;
                self.settle(store, &batch, &[])?;
            }
            Err(trouble) => return Err(Stop::Database(trouble)),
        }
        if let Some(up_to) = batch.up_to {
            self.trail.after = self.trail.after.max(up_to);
        }
        self.trail.after_intervention = self.trail.after_intervention.max(batch.up_to_intervention);
        Ok(refused)
    }

    /// Finds what the server refuses and sets it aside; the rest goes on.
    fn tell_halves(&mut self, store: &mut Store, batch: &Batch, trouble: &Trouble) -> Result<u64, Stop> {
        if let Some((first, second)) = batch.halves() {
            return Ok(self.tell(store, &first)? + self.tell(store, &second)?);
        }
        let reason = self.forwarder.masker.mask(&trouble.message);
        let name = &self.forwarder.name;
        store.write(|tx| {
            for row in batch.keys() {
                tx.refuse_audit(name, row, &reason, now())?;
            }
            // A thread alone is not worth a second try; beside a row it is told by itself next.
            let alone = batch.tasks.iter().filter(|_| batch.keys().next().is_none());
            alone.filter_map(|told| told.task.key).try_for_each(|task| tx.forget_news(task))
        })?;
        Ok(batch.keys().count() as u64)
    }

    fn send(&mut self, batch: &Batch) -> Result<Vec<StoredRow>, Trouble> {
        let offset = self.offset;
        let rows = Rows {
            tasks: batch.tasks.iter().map(|told| told.row(&self.trail.cache, offset)).collect(),
            checkpoints: batch.checkpoints.iter().map(|told| told.row(offset)).collect(),
            artifacts: batch.checkpoints.iter().flat_map(|told| told.artifacts(offset)).collect(),
            interventions: batch.interventions.iter().map(|told| told.row(offset)).collect(),
        };
        forward::tell(&mut self.client, &rows, self.deadline)
    }

    fn shared(&self, rows: Vec<StoredRow>) -> Vec<SharedTask> {
        rows.into_iter().map(|row| row.task(self.offset)).collect()
    }

    /// Finds that the cache is an older state of itself, from what the database says of its tasks: from now on it goes by
    /// another name. Says whether it does.
    pub(super) fn recognize(&mut self, store: &mut Store, shared: &[SharedTask]) -> Result<bool, Stop> {
        for theirs in shared.iter().filter(|theirs| theirs.latest.is_some()) {
            let (name, ours) = (&self.forwarder.name, &self.trail.cache);
            let is_ours = theirs.latest.as_ref().is_some_and(|latest| latest.cache == *ours);
            let found = if is_ours { store.write(|tx| tx.renamed_cache(name, ours, theirs))? } else { None };
            if let Some(cache) = found {
                self.trail.cache = cache;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down what the database has now. A power loss may undo it: then it is told once more, to no effect.
    fn settle(&self, store: &mut Store, batch: &Batch, shared: &[SharedTask]) -> Result<(), Stop> {
        store.write_relaxed(|tx| {
            let at = now();
            tx.audited(&self.forwarder.name, batch, self.offset, at)?;
            for told in &batch.tasks {
                let (Some(key), Some(theirs)) =
                    (told.task.key, shared.iter().find(|theirs| theirs.task.id == told.task.id))
                else {
                    continue;
                };
                resolve::hear(tx, key, theirs, told.task.thread_ts.as_deref(), &self.trail.cache, at)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Asks after the threads that others are about to open.
    fn hear(&mut self, store: &mut Store) -> Result<(), Stop> {
        for (key, id) in store.read(|tx| tx.awaited_threads(now()))? {
            if let Some(theirs) = self.task(id)? {
                let cache = &self.trail.cache;
                store.write(|tx| resolve::hear(tx, key, &theirs, None, cache, now()))?;
            }
        }
        Ok(())
    }

    /// A task as the database has it.
    pub(super) fn task(&mut self, id: TaskId) -> Result<Option<SharedTask>, Stop> {
        let row = forward::task(&mut self.client, id, self.deadline)?;
        Ok(row.map(|row| row.task(self.offset)))
    }

    /// Ends the connection and gives the place to somebody else.
    pub(super) fn close(self, store: &mut Store) -> Result<(), StoreError> {
        let Self { forwarder, client, seat, .. } = self;
        drop(client);
        store.write_relaxed(|tx| tx.leave_office(&seat, &forwarder.owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_corrected_and_does_not_waver() {
        let at = |clock, asked, answered, before: Option<i64>| {
            offset(clock, (Moment(asked), Moment(answered)), before.map(ClockOffset)).0
        };
        assert_eq!(at(8_200_050, 1_000_000, 1_000_100, None), 7_200_000);
        assert_eq!(at(1_000_080, 1_000_000, 1_000_100, None), 0);
        // As long as it may be right, it stays.
        assert_eq!(at(8_200_050, 1_000_000, 1_000_100, Some(7_200_090)), 7_200_090);
        assert_eq!(at(8_200_050, 1_000_000, 1_000_100, Some(7_200_101)), 7_200_000);
    }
}
