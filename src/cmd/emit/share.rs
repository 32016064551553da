//! Between recording and sending: the agent's task as everybody who shares the database has it.
//!
//! A checkpoint is on disk before anybody is told of it; the way to the database may be opened while it is written. What
//! the database then says may mean that it belongs to another task: as long as nobody has heard of it, it is planned anew.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Emission, Outset};
use crate::checkpoint::audit::SharedTask;
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::outbox::Settlement;
use crate::checkpoint::reconcile::{Verdict, judge};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;
use crate::cmd::forward::{Departure, Place, Session, Stop, resolve};
use crate::cmd::{now, record};
use crate::exit::one_line;
use crate::store::{Claim, Store, StoreError, Tx};

/// Which part of the deadline the database may have; the rest is Slack's.
const SHARE: u32 = 3;
/// The least that it gets, as far as there is that much left.
const SHARE_MIN: Duration = Duration::from_millis(200);

impl Emission<'_> {
    /// Begins to connect while the checkpoint is recorded, or goes on with what was begun before. `None` where others have
    /// all seats, or there is no time.
    pub(super) fn set_out(
        &self,
        (tx, cache): (&Tx<'_>, &Path),
        at: Moment,
        before: Option<Departure>,
    ) -> Result<Option<Place>, StoreError> {
        match (&self.forwarder, self.audit_deadline()) {
            (Some(forwarder), Some(deadline)) => forwarder.set_out((tx, cache), at, deadline, before),
            _ => Ok(None),
        }
    }

    /// Tells the database of the checkpoint, and plans it anew where that shows it to belong elsewhere.
    pub(super) fn share(&mut self, store: &mut Store, mut outset: Outset) -> Outset {
        if !outset.is_told {
            return outset;
        }
        let Some(forwarder) = self.forwarder.take() else { return outset };
        let session = match (outset.place.take(), self.audit_deadline()) {
            (Some(place), Some(deadline)) => forwarder.arrive(store, place.by(deadline)),
            (Some(place), None) => forwarder.arrive(store, place),
            (None, Some(deadline)) => forwarder.enter_unless_held(store, deadline),
            (None, None) => Err(Stop::Crowded),
        };
        let shared = session.and_then(|mut session| {
            let shared = self.reconcile(store, &mut session, &mut outset);
            if shared.is_ok() {
                // What others want of the agent; what cannot be asked now is asked with the next one. Who does not listen
                // takes it as well where it is known that there is any, so that nobody waits for ever for a word.
                self.heard = session.hear_people(store).unwrap_or_default();
            }
            session.close(store)?;
            shared
        });
        let shared = forwarder.remember(store, shared);
        if let Ok(is_there) = shared {
            self.told = Some(is_there);
            if !is_there {
                self.say_refused(forwarder.refusal(store, outset.recorded.checkpoint));
            }
        }
        self.forwarder = Some(forwarder);
        self.report(shared.map(|_| ()));
        outset
    }

    /// Tells the database where the thread is, once it is open.
    pub(super) fn share_thread(&mut self, store: &mut Store, task: TaskKey) {
        let Some(forwarder) = &self.forwarder else { return };
        // What has just failed is left alone: it would fail again, at the cost of the time that is left.
        let is_due = store.read(|tx| Ok(tx.has_news(task)? && forwarder.held_until(tx, now())?.is_none()));
        if !is_due.unwrap_or(false) {
            return;
        }
        let Some(deadline) = self.audit_deadline() else { return };
        let shared = forwarder.open(store, None, deadline).and_then(|(mut session, _)| {
            let told = session.tell_thread(store, task);
            session.close(store)?;
            told
        });
        let shared = forwarder.remember(store, shared);
        self.report(shared);
    }

    /// Tells those whose word was passed on from another machine what came of it: after our own message, which is what we
    /// were called for.
    pub(super) fn tell_people(&self, store: &mut Store) {
        let Some(forwarder) = self.forwarder.as_ref().filter(|_| !self.heard.is_empty()) else { return };
        let by = self.started + self.config.deadline.min(crate::cmd::DAY);
        forwarder.rules().tell(store, &self.heard, Some(by));
    }

    /// `None` when the time is over: what is not even tried says nothing of the database, and holds nobody else back.
    pub(super) fn audit_deadline(&self) -> Option<Instant> {
        share_of(self.started + self.config.deadline.min(crate::cmd::DAY))
    }

    fn say_refused(&mut self, reason: Result<Option<String>, StoreError>) {
        let reason = reason.ok().flatten().unwrap_or_default();
        let message = format!("recorded, but the audit trail's database refused it for good: {reason}");
        let hint = "once the cause is mended, run agent-checkpoint flush --rejected";
        self.warn(one_line(&message), Some(hint));
    }

    fn report(&mut self, shared: Result<(), Stop>) {
        let Err(stop) = shared else { return };
        match (stop.words(), stop) {
            (Some((message, hint)), _) => {
                let message = format!("recorded, but not in the audit trail yet (queued): {message}");
                self.warn(one_line(&message), Some(&hint));
                self.audit_trouble_is_told = true;
            }
            (None, Stop::Cache(error)) => self.ui.detail(&format!("could not use the cache: {error}")),
            (None, _) => self.ui.detail("the audit trail is told later: there was no turn in time"),
        }
    }

    /// Whether the caller is told what people want of the agent.
    fn hears(&self) -> bool {
        self.config.json || self.obeys
    }

    /// Says whether the database has the checkpoint in the end.
    fn reconcile(
        &self,
        store: &mut Store,
        session: &mut Session<'_>,
        outset: &mut Outset,
    ) -> Result<bool, Stop> {
        // At the end everybody is to hear that it is over.
        let asks = self.hears() || self.draft.status.is_terminal();
        if session.advance(store, outset.recorded.checkpoint, asks)? {
            return Ok(true);
        }
        if let Some(mut theirs) = session.greet(Some(&self.draft.agent_id))? {
            self.leave_foreign_thread(&mut theirs);
            session.recognize(store, std::slice::from_ref(&theirs))?;
            self.adapt(store, session, outset, &theirs)?;
        }
        let is_there = session.tell_one(store, outset.recorded.checkpoint)?;
        self.look_again(store, outset)?;
        Ok(is_there)
    }

    /// A thread of another workspace, or of a bot where we have a webhook, is no place for our messages.
    fn leave_foreign_thread(&self, theirs: &mut SharedTask) {
        let task = &mut theirs.task;
        let ours = self.link.as_ref().map(crate::checkpoint::outbox::Link::credential);
        if let (Some(ours), Some(recorded)) = (ours, &task.credential)
            && !ours.shares_threads_with(recorded)
        {
            (task.channel, task.channel_id, task.thread_ts, task.credential) = (None, None, None, None);
        }
    }

    fn adapt(
        &self,
        store: &mut Store,
        session: &mut Session<'_>,
        outset: &mut Outset,
        theirs: &SharedTask,
    ) -> Result<(), Stop> {
        let (before, policy) = (outset.before.clone(), record::policy(self.config));
        let cache = session.trail.cache.clone();
        let verdict = judge(before.as_ref(), outset.plan.append.task.id, theirs, self.draft, &cache);
        let mine = before.and_then(|before| Some((before.key?, before)));
        if let Some((key, mine)) = &mine
            && mine.state == TaskState::Running
            && mine.id != theirs.task.id
            && verdict != Verdict::TakeOver
            && let Some(known) = session.task(mine.id)?
        {
            let by_others = known.latest.as_ref().is_none_or(|latest| latest.cache != cache);
            let is_left = match verdict {
                Verdict::GiveWay => known.task.state != TaskState::Running,
                _ => known.task.state.is_closed() && by_others,
            };
            if is_left {
                return self.plan_anew(store, outset, |tx| {
                    let settings = (&session.trail, &policy);
                    resolve::leave_behind(tx, (*key, &known), theirs, settings, now())
                });
            }
        }
        match (verdict, mine) {
            (Verdict::Keep, _) | (Verdict::GiveWay, None) => Ok(()),
            (Verdict::TakeOver, mine) => self.plan_anew(store, outset, |tx| {
                // What was held back since goes before ours.
                if let (Some((key, _)), true) = (mine, theirs.task.state.is_closed()) {
                    resolve::set_apart(tx, key, theirs, &session.trail, &policy)?;
                }
                let key = tx.import(theirs)?;
                resolve::await_opener(tx, key, theirs, now())
            }),
            // Ours has never come there.
            (Verdict::GiveWay, Some((key, _))) => {
                self.plan_anew(store, outset, |tx| resolve::merge(tx, key, theirs, &cache, now()))
            }
        }
    }

    /// Takes the checkpoint back and plans it once more, after the cache was brought up to date; unless somebody has heard
    /// of it.
    fn plan_anew(
        &self,
        store: &mut Store,
        outset: &mut Outset,
        prepare: impl FnOnce(&Tx<'_>) -> Result<(), StoreError>,
    ) -> Result<(), Stop> {
        let policy = record::policy(self.config);
        let anew = store.write(|tx| {
            if !tx.undo(&outset.recorded, (self.draft, outset.before.as_ref()))? {
                return Ok(None);
            }
            if let Some(sender) = &self.sender {
                tx.release(outset.recorded.task, sender.owner())?;
            }
            prepare(tx)?;
            let at = now();
            let noted = record::append(tx, self.draft, &policy, at)?;
            Ok(Some(self.begin(tx, noted, at)?))
        })?;
        if let Some(anew) = anew {
            *outset = Outset { is_told: true, ..anew };
        }
        Ok(())
    }

    /// What was claimed may be out of date: the task's thread, or its name, was learnt since.
    fn look_again(&self, store: &mut Store, outset: &mut Outset) -> Result<(), StoreError> {
        let key = outset.recorded.task;
        let task = store.read(|tx| tx.task(key))?;
        let is_same = match &outset.claim {
            Claim::Job(job) => job.task.thread_ts == task.thread_ts && job.task.id == task.id,
            _ => true,
        };
        if let (false, Claim::Job(job), Some(sender)) = (is_same, &outset.claim, &self.sender) {
            outset.claim = store.write(|tx| {
                let at = now();
                tx.settle(job, &Settlement::Released { at }, at)?;
                tx.release(key, sender.owner())?;
                sender.claim(tx, crate::store::Scope::Task(key), super::PATIENCE, at)
            })?;
        }
        (outset.plan.append.task.id, outset.plan.append.task.thread_ts) = (task.id, task.thread_ts);
        Ok(())
    }
}

/// By when the database is done with, of the time until `deadline`.
pub(super) fn share_of(deadline: Instant) -> Option<Instant> {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    (!left.is_zero()).then(|| now + (left / SHARE).max(SHARE_MIN).min(left))
}
