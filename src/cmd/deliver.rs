//! The one loop that empties the outbox: claim an entry, hand it to delivery, write the outcome back.
//!
//! `emit`, `flush` and the courier differ only in whose entries they take and how long they are patient.

use std::thread;
use std::time::{Duration, Instant};

use super::{BUSY_MAX, jitter, now};
use crate::checkpoint::id::EntryKey;
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::{self, Credential, EntryKind, Job, Link, Settlement};
use crate::checkpoint::time::Moment;
use crate::config::{Config, Target};
use crate::delivery::http::Http;
use crate::delivery::{self, Cause, Destination, Outcome, Place, Retry, retry};
use crate::pace;
use crate::store::{Claim, ClaimFor, Owner, Scope, Store, StoreError, Tx};
use crate::ui::Ui;

/// How much longer than its attempt a lease lasts.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// What an attempt takes at least, so that none begins just to be given up with its answer on the way.
const ATTEMPT_MIN: Duration = Duration::from_millis(500);
/// The least time to wait for other processes that write to the cache, be the deadline over.
pub(super) const CACHE_MIN: Duration = Duration::from_millis(500);
/// The longest that one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// How many characters of a reason are kept.
const REASON_MAX: usize = 1000;
/// How far ahead an urgent entry reserves a slot within Slack's limits.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A sender: one destination, one connection, one holder of leases.
#[derive(Debug)]
pub(super) struct Sender {
    destination: Destination,
    link: Link,
    place: Place,
    http: Http,
    owner: Owner,
    /// What others say of a failure may repeat what they were sent.
    masker: Masker,
    /// A person asked; see [`Credential::may_send`].
    explicit: bool,
    deadline: Option<Instant>,
}

/// When to try a message again that stands in no outbox.
pub(super) fn again_at(cause: Cause, attempts: u32) -> Moment {
    match cause {
        Cause::Limited(after) | Cause::Lookup(after) => retry::limited_until(after, jitter(), now()),
        Cause::Network | Cause::Server | Cause::Foreign { .. } => retry::again_at(attempts, jitter(), now()),
    }
}

/// What happened to one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) entry: EntryKey,
    pub(super) kind: EntryKind,
    pub(super) agent_id: String,
    pub(super) outcome: Outcome,
}

impl Attempt {
    /// For whoever wants to know more.
    pub(super) fn words(&self) -> String {
        let what = match self.kind {
            EntryKind::Post => "message",
            EntryKind::Card => "live card",
            EntryKind::Note => "note",
            EntryKind::File => "file",
            EntryKind::Question => "question",
        };
        let outcome = match &self.outcome {
            Outcome::Posted { ts, .. } => format!("posted {}", ts.as_deref().unwrap_or_default()),
            Outcome::Edited => "edited".to_owned(),
            Outcome::Retry(Retry { reason, maybe_sent: true, .. }) => format!("unconfirmed: {reason}"),
            Outcome::Retry(Retry { reason, .. }) => format!("waits: {reason}"),
            Outcome::Rejected(reason) => format!("refused: {reason}"),
            Outcome::CardGone => "the card was deleted: a new one follows".to_owned(),
            Outcome::CardFrozen => "the card cannot be edited any more".to_owned(),
            Outcome::CardLeft => "left as it is".to_owned(),
            Outcome::ThreadGone => "the thread was deleted: a new one follows".to_owned(),
        };
        format!("{what} of {}: {}", self.agent_id, outcome.trim_end())
    }
}

impl Sender {
    /// A sender for the configured destination; `None` when there is none that works, or nothing is to be posted unless a
    /// person asks.
    pub(super) fn new(config: &Config, explicit: bool, deadline: Option<Instant>) -> Option<Self> {
        let Target::Slack(destination) = &config.target else { return None };
        if config.no_post && !explicit {
            return None;
        }
        // Another agent's channel or thread is not ours to guess: its own next call knows them, or a person does.
        let place = if explicit {
            Place { channel: config.default_channel.clone(), thread: config.thread.clone() }
        } else {
            Place::default()
        };
        Some(Self {
            destination: destination.clone(),
            link: destination.link(&config.network),
            place,
            http: Http::new(config.network.clone()),
            owner: Owner::current(now()),
            masker: config.masker(),
            explicit,
            deadline,
        })
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The same, telling of its requests where that is wanted.
    pub(super) fn watched(mut self, ui: &Ui) -> Self {
        if let Some(witness) = ui.witness() {
            self.http.watch(witness);
        }
        self
    }

    pub(super) fn credential(&self) -> &Credential {
        self.link.credential()
    }

    #[cfg(feature = "postgres")]
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Sets the deadline.
    pub(super) fn end_by(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// What is left until the deadline.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// How long to wait for other processes that write to the cache: what is known by now is worth a moment more.
    pub(super) fn time_for_the_cache(&self) -> Duration {
        self.time_left().clamp(CACHE_MIN, BUSY_MAX)
    }

    /// How long to wait for a turn at most: what comes then needs some time as well.
    pub(super) fn time_to_wait(&self) -> Duration {
        self.time_left().saturating_sub(ATTEMPT_MIN)
    }

    /// Claims the next entry, inside the caller's transaction. An urgent one may start up to `patience` later.
    pub(super) fn claim(
        &self,
        tx: &Tx<'_>,
        scope: Scope,
        patience: Duration,
        now: Moment,
    ) -> Result<Claim, StoreError> {
        let left = self.time_left();
        if left.is_zero() {
            return Ok(Claim::Nothing);
        }
        tx.claim(&ClaimFor {
            owner: &self.owner,
            link: &self.link,
            explicit: self.explicit,
            scope,
            now,
            latest: now.plus(self.time_to_wait().min(patience)),
            lease: left.min(ATTEMPT_MAX) + LEASE_MARGIN,
        })
    }

    /// Attempts a claimed entry, writes the outcome back and claims the next one, in the same transaction where that
    /// may be. What became of the attempt is told even if it could not be written back.
    pub(super) fn attempt(
        &mut self,
        store: &mut Store,
        job: &Job,
        claim_next: impl FnOnce(&Self, &Tx<'_>, Moment) -> Result<Claim, StoreError>,
    ) -> Result<(Attempt, Result<Claim, StoreError>), StoreError> {
        let outcome = match self.wait_for_slot(store, job)? {
            Some(held_until) => Err(held_until),
            None => Ok(self.send(job)),
        };
        store.wait_at_most(self.time_for_the_cache());
        let at = now();
        let settle = |tx: &Tx<'_>| {
            let settlement = match &outcome {
                Ok(outcome) => self.judge(tx, job, outcome, at)?,
                Err(held_until) => Settlement::Released { at: *held_until },
            };
            tx.settle(job, &settlement, at)?;
            if let Some(task) = job.task.key {
                tx.release(task, &self.owner)?;
            }
            Ok(())
        };
        let claim = |tx: &Tx<'_>| claim_next(self, tx, at);
        let next = if matches!(outcome, Ok(Outcome::Edited)) {
            // Not in one: a claim has to be durable before its message leaves.
            store.write_relaxed(settle).and_then(|()| store.write(claim))
        } else {
            store.write(|tx| settle(tx).and_then(|()| claim(tx)))
        };
        let outcome = outcome.unwrap_or_else(|_| {
            let reason = "Slack asked everyone to wait".to_owned();
            Outcome::Retry(Retry { cause: Cause::Limited(None), reason, maybe_sent: false })
        });
        Ok((Attempt { entry: job.entry, kind: job.kind, agent_id: job.task.agent_id.clone(), outcome }, next))
    }

    /// Sends without a store, once.
    pub(super) fn send(&mut self, job: &Job) -> Outcome {
        let deadline = Instant::now() + self.time_left().min(ATTEMPT_MAX);
        let mut outcome = delivery::deliver(&mut self.http, &self.destination, job, &self.place, deadline);
        if let Outcome::Rejected(reason) | Outcome::Retry(Retry { reason, .. }) = &mut outcome {
            *reason = self.repeatable(reason);
        }
        outcome
    }

    /// A reason as it may be kept and shown: without credentials, and no longer than a person reads.
    fn repeatable(&self, reason: &str) -> String {
        let masked = self.masker.mask(reason);
        match masked.char_indices().nth(REASON_MAX) {
            Some((end, _)) => format!("{}…", &masked[..end]),
            None => masked,
        }
    }

    /// Waits for the slot that was reserved; says until when, if everyone is held back meanwhile.
    fn wait_for_slot(&self, store: &mut Store, job: &Job) -> Result<Option<Moment>, StoreError> {
        let wait = job.start_at.since(now());
        if wait.is_zero() {
            return Ok(None);
        }
        thread::sleep(wait);
        let what = (job.limited_as(), outbox::reads_first(job.kind, job.maybe_sent));
        let at = now();
        let held = store.read(|tx| tx.hold_beyond(at, &self.link, what, at))?;
        Ok(held.map(|(until, _)| until))
    }

    /// From an outcome to what is written back; sets or lifts what holds everyone back.
    fn judge(
        &self,
        tx: &Tx<'_>,
        job: &Job,
        outcome: &Outcome,
        now: Moment,
    ) -> Result<Settlement, StoreError> {
        let network = pace::network_hold(&self.link);
        let settlement = match outcome.clone() {
            Outcome::Posted { channel_id, ts, thread_ts } => {
                // A webhook tells no ids; a thread that was given stays.
                let thread_ts = thread_ts.or_else(|| job.task.thread_ts.clone().filter(|_| ts.is_none()));
                Settlement::Posted { channel_id, ts, thread_ts }
            }
            Outcome::Edited | Outcome::CardLeft => Settlement::Edited,
            Outcome::Rejected(reason) => Settlement::Rejected { reason },
            Outcome::CardGone => Settlement::CardGone,
            Outcome::CardFrozen => Settlement::CardFrozen,
            Outcome::ThreadGone => Settlement::ThreadGone,
            Outcome::Retry(Retry { cause, reason, maybe_sent }) => {
                let alone = retry::again_at(job.attempts, jitter(), now);
                let at = match cause {
                    Cause::Server | Cause::Foreign { .. } => alone,
                    Cause::Lookup(after) => {
                        let until = retry::limited_until(after, jitter(), now);
                        tx.hold(&pace::reading_hold(self.credential(), job.limited_as()), until, now)?;
                        alone.max(until)
                    }
                    Cause::Limited(after) => {
                        let until = retry::limited_until(after, jitter(), now);
                        tx.hold(&pace::method_hold(self.credential(), job.limited_as()), until, now)?;
                        until
                    }
                    Cause::Network => {
                        let until = retry::network_rest(tx.failures(&network)?, now);
                        tx.rest(&network, until, now)?;
                        alone.max(until)
                    }
                };
                let via = (cause == Cause::Network).then(|| self.link.clone());
                return Ok(Settlement::Retry { at, reason, maybe_sent, via });
            }
        };
        tx.lift(&network)?;
        Ok(settlement)
    }
}
