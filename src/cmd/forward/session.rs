//! A connection while rows are told: what is asked and said over it, and what of the answers is written down.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{ALONG, BATCH, CLOCK_NOISE, Forwarder, OVERTAKEN_MAX, Stop, Told, resolve};
use crate::audit::advance::{Clocks, advance};
use crate::audit::connect::Client;
use crate::audit::forward::{self, Rows};
use crate::audit::{Trouble, schema};
use crate::checkpoint::audit::people::Wanted;
use crate::checkpoint::audit::{AuditCheckpoint, ClockOffset, SharedTask, StoredRow};
use crate::checkpoint::id::{CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::time::{Moment, millis};
use crate::cmd::interact::elsewhere::Called;
use crate::cmd::now;
use crate::store::{Batch, Seat, Store, StoreError, Trail, Tx};

/// A connection while rows are told.
pub(in crate::cmd) struct Session<'a> {
    pub(super) forwarder: &'a Forwarder,
    pub(super) client: Client,
    /// Given up with the connection.
    pub(super) seat: Seat,
    pub(super) offset: ClockOffset,
    /// How long a word takes to the server, at most.
    pub(super) latency: Duration,
    pub(in crate::cmd) trail: Trail,
    /// A checkpoint that was planned with what the database has of its agent.
    pub(super) judged: Option<CheckpointKey>,
    /// What waited for the database before it was connected to.
    pub(super) waiting: Option<Batch>,
    /// What [`Self::advance`] told; it is written down at the end.
    pub(super) advanced: Option<Batch>,
    /// Tasks of which it is known that nobody else had ended them when they were told of.
    pub(super) looked_at: BTreeSet<Uuid>,
    /// Tasks that were told of and for which what people did elsewhere waits.
    pub(super) waits_for: Vec<Called>,
    /// Those that are to end, as some machine has ruled; it is written down at the end.
    pub(super) cancels: Vec<(TaskKey, Wanted)>,
    /// By when we must know that it is a server that we can use.
    pub(super) greet_by: Instant,
    pub(super) deadline: Instant,
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
    /// What a call takes along that has something of its own to tell.
    pub(super) fn along(tx: &Tx<'_>, trail: &Trail) -> Result<Batch, StoreError> {
        tx.audit_batch(trail, ALONG.0, ALONG.1)
    }

    /// Compares clocks and schemas, and asks for an agent's latest task.
    pub(in crate::cmd) fn greet(&mut self, agent_id: Option<&str>) -> Result<Option<SharedTask>, Trouble> {
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
    /// The session need not have greeted: its clocks are compared on the way. With `asks` it is found out as well what people
    /// want of the task.
    pub(in crate::cmd) fn advance(
        &mut self,
        store: &mut Store,
        checkpoint: CheckpointKey,
        asks: bool,
    ) -> Result<bool, Stop> {
        let batch = match self.waiting.take() {
            Some(batch) => batch,
            None => store.read(|tx| Self::along(tx, &self.trail))?,
        };
        let Some((task, told)) = batch.alone().filter(|(_, told)| told.key == checkpoint) else {
            return Ok(false);
        };
        // That it goes on here is what it is told upon.
        let called = task.task.key.map(|key| Called { key, id: task.task.id, goes_on_elsewhere: false });
        let clocks =
            Clocks { here: now().0, offset: self.offset.0, noise: CLOCK_NOISE, latency: self.latency };
        let rows = (task.row(&self.trail.cache, self.offset), told.row(self.offset));
        let told = match advance(&mut self.client, &rows, &clocks, asks, self.deadline) {
            // Whatever the server has against it, it will say of the rows as they are told otherwise.
            Err(trouble) if trouble.code.is_some() && !trouble.is_locked_out() => None,
            told => told?,
        };
        let is_told = told.is_some();
        if let Some(wishes) = told {
            self.cancels.extend(called.and_then(|called| Some((called.key, wishes.cancel(self.offset)?))));
            self.waits_for.extend(called.filter(|_| wishes.waits));
            self.advanced = Some(batch);
        }
        Ok(is_told)
    }

    /// Tells everything that waits; with `rejected`, first what was refused.
    pub(super) fn tell_all(
        &mut self,
        store: &mut Store,
        rejected: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Told, Stop> {
        let mut told = if rejected { self.tell_refused(store)? } else { Told::default() };
        let mut before: Option<Batch> = None;
        loop {
            let batch = store.read(|tx| tx.audit_batch(&self.trail, BATCH.0, BATCH.1))?;
            if self.part(store, &batch)? {
                continue;
            }
            // What nothing came of is left for another time.
            if batch.is_empty() || before.take().as_ref() == Some(&batch) {
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
    pub(in crate::cmd) fn tell_one(
        &mut self,
        store: &mut Store,
        checkpoint: CheckpointKey,
    ) -> Result<bool, Stop> {
        let read = |tx: &Tx<'_>, trail: &Trail| {
            let batch = Self::along(tx, trail)?;
            let has_it = batch.checkpoints.iter().any(|told| told.key == checkpoint);
            if has_it { Ok(batch) } else { tx.audit_of(trail, checkpoint) }
        };
        let mut batch = store.read(|tx| read(tx, &self.trail))?;
        self.judged = Some(checkpoint);
        let own = batch.checkpoints.iter().find(|told| told.key == checkpoint);
        self.looked_at.extend(own.map(|own| own.task.0));
        if self.part(store, &batch)? {
            batch = store.read(|tx| read(tx, &self.trail))?;
        }
        let refused = self.tell(store, &batch)?;
        Ok(refused == 0)
    }

    /// Tells where a task's thread is.
    pub(in crate::cmd) fn tell_thread(&mut self, store: &mut Store, task: TaskKey) -> Result<(), Stop> {
        let told = store.read(|tx| tx.audit_task(task))?;
        self.tell(store, &Batch { tasks: vec![told], ..Batch::default() })?;
        Ok(())
    }

    /// Tells a batch, writes down that it is there, and takes over what the database says of its tasks. Says how many
    /// checkpoints were refused.
    fn tell(&mut self, store: &mut Store, batch: &Batch) -> Result<u64, Stop> {
        let mut batch = Cow::Borrowed(batch);
        let mut overtaken = 0;
        // A task may have begun, and even ended, in ignorance of one that is open there.
        let begins = |told: &AuditCheckpoint| told.is_first && Some(told.key) != self.judged;
        if batch.checkpoints.iter().any(begins) && self.resolve(store, &batch)? {
            batch = Cow::Owned(store.read(|tx| tx.batch_again(&batch))?);
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
                    batch = Cow::Owned(store.read(|tx| tx.batch_again(&batch))?);
                }
                told => break told,
            }
        };
        let mut refused = 0;
        match told {
            Ok(rows) => {
                let mut shared = self.shared(rows);
                if self.recognize(store, &shared)? {
                    batch = Cow::Owned(store.read(|tx| tx.batch_again(&batch))?);
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
        let reason = self.forwarder.rules.masker.mask(&trouble.message);
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

    pub(super) fn send(&mut self, batch: &Batch) -> Result<Vec<StoredRow>, Trouble> {
        let offset = self.offset;
        let rows = Rows {
            tasks: batch.tasks.iter().map(|told| told.row(&self.trail.cache, offset)).collect(),
            checkpoints: batch.checkpoints.iter().map(|told| told.row(offset)).collect(),
            artifacts: batch.checkpoints.iter().flat_map(|told| told.artifacts(offset)).collect(),
            interventions: batch.interventions.iter().map(|told| told.row(offset)).collect(),
        };
        let (rows, wishes): (Vec<_>, Vec<_>) =
            forward::tell(&mut self.client, &rows, self.deadline)?.into_iter().unzip();
        for (row, wishes) in rows.iter().zip(wishes) {
            let cancel = wishes.cancel(offset);
            if !wishes.waits && cancel.is_none() {
                continue;
            }
            let its_own = batch.tasks.iter().find(|told| told.task.id.0 == row.id);
            let Some((key, id)) = its_own.and_then(|told| Some((told.task.key?, told.task.id))) else {
                continue;
            };
            self.cancels.extend(cancel.map(|wanted| (key, wanted)));
            if !wishes.waits {
                continue;
            }
            let latest = row.clone().task(offset).latest;
            let goes_on_elsewhere = latest.is_some_and(|latest| latest.cache != self.trail.cache);
            // What was heard last counts.
            self.waits_for.retain(|called| called.key != key);
            self.waits_for.push(Called { key, id, goes_on_elsewhere });
        }
        Ok(rows)
    }

    fn shared(&self, rows: Vec<StoredRow>) -> Vec<SharedTask> {
        rows.into_iter().map(|row| row.task(self.offset)).collect()
    }

    /// Finds that the cache is an older state of itself, from what the database says of its tasks: from now on it goes by
    /// another name. Says whether it does.
    pub(in crate::cmd) fn recognize(
        &mut self,
        store: &mut Store,
        shared: &[SharedTask],
    ) -> Result<bool, Stop> {
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
                resolve::catch_up(tx, key, theirs, told.task.thread_ts.as_deref(), &self.trail.cache, at)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Asks after the threads that others are about to open.
    pub(super) fn hear(&mut self, store: &mut Store) -> Result<(), Stop> {
        for (key, id) in store.read(|tx| tx.awaited_threads(now()))? {
            if let Some(theirs) = self.task(id)? {
                let cache = &self.trail.cache;
                store.write(|tx| resolve::hear(tx, key, &theirs, None, cache, now()))?;
            }
        }
        Ok(())
    }

    /// A task as the database has it.
    pub(in crate::cmd) fn task(&mut self, id: TaskId) -> Result<Option<SharedTask>, Stop> {
        let row = forward::task(&mut self.client, id, self.deadline)?;
        Ok(row.map(|row| row.task(self.offset)))
    }

    /// Ends the connection and gives the place to somebody else.
    pub(in crate::cmd) fn close(self, store: &mut Store) -> Result<(), StoreError> {
        let Self { forwarder, client, seat, advanced, cancels, offset, .. } = self;
        drop(client);
        drop(seat);
        if advanced.is_none() && cancels.is_empty() {
            return Ok(());
        }
        store.write_relaxed(|tx| {
            if let Some(batch) = &advanced {
                tx.audited(&forwarder.name, batch, offset, now())?;
            }
            cancels.iter().try_for_each(|(task, wanted)| tx.take_over_cancel(*task, wanted, now()))
        })
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
