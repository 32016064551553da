//! `emit`: record one checkpoint, then try to deliver it.

pub(super) mod draft;
mod dry_run;
#[cfg(feature = "postgres")]
mod share;
mod stateless;

use std::thread;
use std::time::{Duration, Instant};

use super::deliver::{PATIENCE, Sender};
use super::forward::Forwarder;
#[cfg(feature = "postgres")]
use super::forward::{Departure, Place};
#[cfg(feature = "postgres")]
use super::interact::elsewhere::Taken;
use super::receipt::{Audited, Receipt, broken, conversation};
use super::record::Noted;
use super::{DAY, configure, courier, handover, now, open, record, report_problems, unpack, wrapper};
use crate::args::{BackgroundChoice, EmitArgs, GlobalArgs};
use crate::checkpoint::Draft;
#[cfg(feature = "postgres")]
use crate::checkpoint::Task;
use crate::checkpoint::outbox::{Delivery, EntryKind, Link, Priority};
use crate::checkpoint::plan::{EntryChange, Notice, Plan};
use crate::checkpoint::time::Moment;
use crate::config::{Config, Target};
use crate::delivery::{Cause, Outcome, Retry};
use crate::exit::Exit;
use crate::render::console;
use crate::store::{Claim, OpenError, Recorded, Scope, Standing, Store, StoreError, Tx, Why};
use crate::ui::Ui;

/// How often to look whether the process that is sending for the same task is done.
const POLL: Duration = Duration::from_millis(10);
pub(super) fn run(global: &GlobalArgs, args: EmitArgs) -> anyhow::Result<Exit> {
    let action = draft::action(args.action.as_deref())?;
    let started = Instant::now();
    let (config, ui) = configure(global, draft::flags(&args))?;
    let deadline = started + config.deadline.min(DAY);
    let mut draft = draft::draft(&args, action.text, &config)?;
    report_problems(&config, &ui);
    if let Some(cut) = &action.cut {
        ui.warn(cut, None);
    }
    if args.dry_run {
        return dry_run::dry_run(&draft, &config, &ui);
    }
    let sender = Sender::new(&config, false, Some(deadline)).map(|sender| sender.watched(&ui));
    let forwarder = Forwarder::new(&config);
    #[cfg(feature = "postgres")]
    let departure = depart(forwarder.as_ref(), (&draft, &config), deadline);
    let mut store = open(&config, &ui, super::busy_max(&config));
    if let Ok(store) = &mut store
        && let Some(inside) = wrapper::inside(store, config.agent_id.as_deref())
    {
        if !inside.joined && args.identity.thread.is_none() {
            draft.thread = None;
        }
        (draft.inside, draft.agent_id) = (Some(inside.task), inside.agent_id);
        // The wrapper does.
        draft.listens = Some(true);
    }
    let mut emission = Emission {
        config: &config,
        ui: &ui,
        draft: &draft,
        link: sender.as_ref().map(|sender| sender.link().clone()),
        sender,
        forwarder,
        #[cfg(feature = "postgres")]
        departure,
        #[cfg(feature = "postgres")]
        started,
        #[cfg(feature = "postgres")]
        heard: Vec::new(),
        warnings: action.cut.into_iter().collect(),
        told: None,
        audit_trouble_is_told: false,
        outcome: None,
        is_left_alone: config.background == BackgroundChoice::Never,
        obeys: args.obey,
    };
    let receipt = match store {
        Ok(store) => emission.with_store(store)?,
        Err(error) => {
            let known = match (&error, &config.cache) {
                (OpenError::Unusable { .. }, Some(path)) => Store::peek(path, |tx| tx.stored(&draft)).ok(),
                _ => None,
            };
            emission.without_store(&error.to_string(), known)?
        }
    };
    emission.finish(receipt)
}

/// What becomes of what nobody sees to.
const LEFT_ALONE: &str = "the next call or agent-checkpoint flush sends it";

/// One checkpoint on its way.
struct Emission<'a> {
    config: &'a Config,
    ui: &'a Ui,
    draft: &'a Draft,
    /// `None` when nothing is configured, or nothing that works.
    sender: Option<Sender>,
    /// How messages go, once the sender is at work.
    link: Option<Link>,
    /// `None` when no database is configured, or none that works.
    forwarder: Option<Forwarder>,
    /// The way to the database, where it was begun before the cache was open.
    #[cfg(feature = "postgres")]
    departure: Option<Departure>,
    #[cfg(feature = "postgres")]
    started: Instant,
    /// What people did elsewhere and was heard of.
    #[cfg(feature = "postgres")]
    heard: Vec<Taken>,
    warnings: Vec<String>,
    /// Whether the database took the checkpoint when it was told of it; false if it refused it for good.
    told: Option<bool>,
    /// What keeps the database from having it was said.
    audit_trouble_is_told: bool,
    /// What became of our own message when it was last tried, which the cache may not know.
    outcome: Option<Outcome>,
    /// Whether no courier sees to what waits.
    is_left_alone: bool,
    /// Whether the exit code is to say that a person wants the agent to stop.
    obeys: bool,
}

/// Whether the database is to be told at once whatever becomes of the checkpoint: it ends a task, or needs somebody.
fn tells_anyway(draft: &Draft, config: &Config) -> bool {
    config.background != BackgroundChoice::Always && (draft.status.is_immediate() || draft.force)
}

/// Begins to connect to the database before the cache is open, where that can be known.
#[cfg(feature = "postgres")]
fn depart(
    forwarder: Option<&Forwarder>,
    (draft, config): (&Draft, &Config),
    deadline: Instant,
) -> Option<Departure> {
    let (forwarder, cache) = (forwarder?, config.cache.as_deref()?);
    if tells_anyway(draft, config) { forwarder.depart(cache, share::share_of(deadline)?) } else { None }
}

/// Claims the next entry in reach. Nobody else's is begun just to be given up with its answer on the way.
fn claim_within(
    sender: &Sender,
    tx: &Tx<'_>,
    (scope, patience): (Scope, Duration),
    at: Moment,
) -> Result<Claim, StoreError> {
    if scope == Scope::All && sender.time_to_wait().is_zero() {
        return Ok(Claim::Nothing);
    }
    sender.claim(tx, scope, patience, at)
}

/// What the recording transaction did.
struct Outset {
    /// The agent's task as it was before.
    #[cfg(feature = "postgres")]
    before: Option<Task>,
    plan: Plan,
    recorded: Recorded,
    claim: Claim,
    /// The courier that has to be started, if any.
    courier: Option<courier::Office>,
    /// The database is to be told now.
    is_told: bool,
    /// The way to it, if nobody stands in it.
    #[cfg(feature = "postgres")]
    place: Option<Place>,
}

impl Emission<'_> {
    fn with_store(&mut self, mut store: Store) -> anyhow::Result<Receipt> {
        let mut outset = self.record(&mut store);
        if matches!(&outset, Err(error) if error.corrupt) {
            match store.start_afresh() {
                Ok(opened) => store = unpack(opened, self.ui),
                Err(error) => return self.without_store(&error.to_string(), None),
            }
            outset = self.record(&mut store);
        }
        let outset = match outset {
            Ok(outset) => outset,
            Err(error) => {
                let error = format!("could not write to cache {}: {error}", store.path().display());
                // It may still be read: where the agent's thread is.
                let known = store.read(|tx| tx.stored(self.draft)).ok();
                return self.without_store(&error, known);
            }
        };
        #[cfg(feature = "postgres")]
        let outset = self.share(&mut store, outset);
        self.notice(&outset.plan.notices);
        let delivered = self.deliver(&mut store, outset.claim, &outset.recorded, &outset.plan);
        #[cfg(feature = "postgres")]
        if outset.is_told {
            self.share_thread(&mut store, outset.recorded.task);
        }
        let office = match delivered.and_then(|()| self.appoint(&mut store)) {
            Ok(office) => outset.courier.or(office),
            Err(error) => {
                // The checkpoint is recorded and its entry is leased to us: the next call takes it up again.
                self.warn(format!("could not write to cache {}: {error}", store.path().display()), None);
                self.is_left_alone = outset.courier.is_none();
                outset.courier
            }
        };
        if let Some(office) = office
            && let Err(error) = courier::start(self.config, &office)
        {
            self.warn(format!("could not start a courier: {error}"), Some(LEFT_ALONE));
            self.is_left_alone = true;
        }
        #[cfg(feature = "postgres")]
        self.tell_people(&mut store);
        let mut receipt = self.receipt(&mut store, &outset.recorded, &outset.plan);
        if self.config.json || self.obeys {
            receipt.requests = store.read(|tx| tx.requests(outset.recorded.task)).unwrap_or_default();
        }
        Ok(receipt)
    }

    /// Records the checkpoint; claims its entry or appoints a courier in the same transaction.
    fn record(&mut self, store: &mut Store) -> Result<Outset, StoreError> {
        let at = now();
        let policy = record::policy(self.config);
        // What is not made use of is given up once the transaction is over: a goodbye may take its time.
        #[cfg(feature = "postgres")]
        let (mut departure, path) = (self.departure.take(), store.path().to_owned());
        let this = &*self;
        store.write(|tx| {
            // The way is long: it is begun as soon as it is known that it will be gone.
            let is_certain = tells_anyway(this.draft, this.config);
            let is_early = is_certain && this.may_be_told(tx, at)?;
            #[cfg(feature = "postgres")]
            let place = if is_early { this.set_out((tx, &path), at, departure.take())? } else { None };
            let noted = record::record(tx, this.draft, &policy, at)?;
            let mut outset = this.begin(tx, noted, at)?;
            let is_late = !is_certain && this.tells(&outset.plan) && this.may_be_told(tx, at)?;
            outset.is_told = is_early || is_late;
            #[cfg(feature = "postgres")]
            {
                outset.place = if is_late { this.set_out((tx, &path), at, None)? } else { place };
            }
            if !outset.is_told && matches!(outset.claim, Claim::Nothing) {
                let way = (this.link.as_ref(), this.forwarder.as_ref());
                outset.courier = courier::appoint(tx, this.config, way, at)?;
            }
            Ok(outset)
        })
    }

    /// Claims the entry of what was written down, if it is due.
    fn begin(&self, tx: &Tx<'_>, noted: Noted, at: Moment) -> Result<Outset, StoreError> {
        let Noted { plan, recorded, .. } = noted;
        let is_due = plan.append.checkpoint.delivery == Delivery::Queued;
        let claim = match &self.sender {
            Some(sender) if is_due && self.config.background != BackgroundChoice::Always => {
                sender.claim(tx, Scope::Task(recorded.task), PATIENCE, at)?
            }
            _ => Claim::Nothing,
        };
        Ok(Outset {
            #[cfg(feature = "postgres")]
            before: noted.before,
            plan,
            recorded,
            claim,
            courier: None,
            is_told: false,
            #[cfg(feature = "postgres")]
            place: None,
        })
    }

    /// Whether there is a database, and nobody has to leave it alone.
    fn may_be_told(&self, tx: &Tx<'_>, at: Moment) -> Result<bool, StoreError> {
        let held_until = self.forwarder.as_ref().map(|forwarder| forwarder.held_until(tx, at)).transpose()?;
        Ok(held_until.is_some_and(|until| until.is_none()))
    }

    /// Whether the database is to be told at once of what was recorded: that a task begins, or what is posted now. All else
    /// goes with the next of these or of what is told [anyway](tells_anyway), or with the courier.
    fn tells(&self, plan: &Plan) -> bool {
        let append = &plan.append;
        let begins = append.task.key.is_none();
        let is_posted = append.checkpoint.delivery == Delivery::Queued;
        self.config.background != BackgroundChoice::Always && (begins || is_posted)
    }

    /// The courier that must be started for what is left.
    fn appoint(&self, store: &mut Store) -> Result<Option<courier::Office>, StoreError> {
        let link = self.link.as_ref();
        if self.config.background == BackgroundChoice::Never || link.is_none() && self.forwarder.is_none() {
            return Ok(None);
        }
        store.write(|tx| courier::appoint(tx, self.config, (link, self.forwarder.as_ref()), now()))
    }

    /// Sends what is due, as far as the caller's patience goes.
    fn deliver(
        &mut self,
        store: &mut Store,
        mut claim: Claim,
        recorded: &Recorded,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let Some(mut sender) = self.sender.take() else { return Ok(()) };
        store.wait_at_most(sender.time_for_the_cache());
        let urgent = matches!(&plan.append.entry, EntryChange::Insert { priority: Priority::Immediate, .. });
        // Whoever leaves nothing to a courier, or wants to know, tries for as long as there is time.
        let persistent = self.config.background == BackgroundChoice::Never || self.config.strict;
        let patient = |why| persistent || (urgent && why != Why::NotDue);
        // Whether our own message is still to be sent, and worth waiting for.
        let mut open = recorded.entry.is_some() && plan.append.checkpoint.delivery == Delivery::Queued;
        let mut reach = (Scope::Task(recorded.task), PATIENCE);
        loop {
            claim = match claim {
                Claim::Job(job) => {
                    let (attempt, next) =
                        sender.attempt(store, &job, |sender, tx, at| claim_within(sender, tx, reach, at))?;
                    self.ui.detail(&attempt.words());
                    if Some(attempt.entry) == recorded.entry {
                        open = match &attempt.outcome {
                            Outcome::Retry(Retry { cause: Cause::Limited(_), .. }) => patient(Why::Paced),
                            // Where it goes cannot be read, and that does not change while we wait.
                            Outcome::Retry(_) if plan.append.task.channel.is_none() => false,
                            Outcome::Retry(_) => persistent,
                            Outcome::ThreadGone => true,
                            _ => false,
                        };
                        self.outcome = Some(attempt.outcome);
                    }
                    next?
                }
                Claim::Wait { until, why } if open && patient(why) => {
                    let wait = if why == Why::Held { POLL } else { until.since(now()) };
                    if wait > sender.time_to_wait() {
                        break;
                    }
                    thread::sleep(wait);
                    open = why != Why::Held || !self.is_settled(store, recorded)?;
                    store.write(|tx| claim_within(&sender, tx, reach, now()))?
                }
                // Nobody comes after us: take along what else is due, as far as that goes without waiting.
                Claim::Wait { .. } | Claim::Nothing
                    if reach.0 != Scope::All && self.config.background == BackgroundChoice::Never =>
                {
                    reach = (Scope::All, Duration::ZERO);
                    open = false;
                    store.write(|tx| claim_within(&sender, tx, reach, now()))?
                }
                Claim::Wait { .. } | Claim::Nothing => break,
            };
        }
        Ok(())
    }

    fn is_settled(&self, store: &mut Store, recorded: &Recorded) -> Result<bool, StoreError> {
        let Standing { delivery, .. } = store.read(|tx| tx.delivery_of(recorded.checkpoint))?;
        Ok(!matches!(delivery, Delivery::Queued | Delivery::Unconfirmed))
    }

    /// What the cache says of the checkpoint in the end.
    fn receipt(&self, store: &mut Store, recorded: &Recorded, plan: &Plan) -> Receipt {
        let append = &plan.append;
        let is_sent = matches!(self.outcome, Some(Outcome::Posted { .. }));
        let found = if is_sent && !self.config.json && !self.config.handover.is_wanted() {
            let standing =
                Standing { delivery: Delivery::Sent, message_ts: None, reason: None, due_at: None };
            Ok((standing, append.task.clone()))
        } else {
            store.read(|tx| {
                let mut standing = tx.delivery_of(recorded.checkpoint)?;
                // What holds everyone back holds this message too.
                if let (Some(due_at), Target::Slack(destination)) = (standing.due_at, &self.config.target) {
                    let link = destination.link(&self.config.network);
                    let reads_first = standing.delivery == Delivery::Unconfirmed;
                    let held = tx.hold_beyond(due_at, &link, (EntryKind::Post, reads_first), now())?;
                    if let Some((until, why)) = held {
                        standing.due_at = Some(until);
                        standing.reason.get_or_insert_with(|| why.to_owned());
                    }
                }
                Ok((standing, tx.task(recorded.task)?))
            })
        };
        let (Standing { delivery, message_ts, reason, due_at }, task) = found.unwrap_or_else(|_| {
            let delivery = append.checkpoint.delivery;
            (Standing { delivery, message_ts: None, reason: None, due_at: None }, append.task.clone())
        });
        // What Slack has, or may have, is there even if the cache could not be told.
        let delivery = match &self.outcome {
            Some(Outcome::Posted { .. }) => Delivery::Sent,
            Some(Outcome::Retry(Retry { maybe_sent: true, .. })) if delivery == Delivery::Queued => {
                Delivery::Unconfirmed
            }
            _ => delivery,
        };
        let waits = matches!(delivery, Delivery::Queued | Delivery::Unconfirmed | Delivery::Coalesced);
        Receipt {
            checkpoint_id: self.draft.id.to_string(),
            task_id: Some(task.id.to_string()),
            agent_id: self.draft.agent_id.clone(),
            snapshot: append.task.snapshot.clone(),
            delivery,
            channel: conversation(self.config, &task),
            thread_ts: task.thread_ts,
            message_ts,
            retry_at: due_at.filter(|_| waits),
            error: reason.or_else(|| self.failure().or_else(|| broken(self.config)).filter(|_| waits)),
            audit: match self.told {
                // Rows from before may still wait.
                Some(true) => Audited::Sent,
                _ => Audited::of(self.config, self.forwarder.as_ref(), store, recorded.checkpoint),
            },
            warnings: self.warnings.clone(),
            requests: Vec::new(),
        }
    }

    /// Why our own message could not be sent.
    fn failure(&self) -> Option<String> {
        match &self.outcome {
            Some(Outcome::Retry(Retry { reason, .. }) | Outcome::Rejected(reason)) => Some(reason.clone()),
            _ => None,
        }
    }

    fn warn(&mut self, message: String, hint: Option<&str>) {
        self.ui.warn(&message, hint);
        self.warnings.push(message);
    }

    /// Says on standard error what Slack hears too, so that the agent's own log has it.
    fn notice(&mut self, notices: &[Notice]) {
        for notice in notices {
            let (message, hint) = record::notice_words(notice);
            self.warn(message, hint);
        }
    }

    /// Prints what is to be printed and decides the exit code.
    fn finish(&self, mut receipt: Receipt) -> anyhow::Result<Exit> {
        let refused = receipt.delivery == Delivery::Rejected || self.told == Some(false);
        let late = matches!(receipt.delivery, Delivery::Queued | Delivery::Unconfirmed)
            || receipt.audit == Audited::Queued;
        if let Some((message, advice)) = receipt.trouble(self.config, self.is_left_alone) {
            self.ui.warn(&message, Some(advice));
            receipt.warnings.push(message);
        }
        // The caller wants to know, and nobody has tried and said so.
        if self.config.strict && receipt.audit == Audited::Queued && !refused && !self.audit_trouble_is_told {
            let message = "recorded, but not in the audit trail yet (queued)".to_owned();
            self.ui.warn(&message, Some("run agent-checkpoint doctor"));
            receipt.warnings.push(message);
        }
        handover::offer(&mut receipt, self.config, self.ui);
        for problem in self.config.problems.iter() {
            receipt.warnings.push(problem.message.clone());
        }
        let answer = if self.config.json {
            Some(receipt.json().to_string())
        } else {
            let printed = receipt.delivery == Delivery::Printed;
            printed.then(|| console::line(&receipt.agent_id, &receipt.snapshot))
        };
        if let Some(Err(error)) = answer.map(|answer| self.ui.answer(&answer)) {
            // The caller must not fail over an output that is full, unless nothing else came of the checkpoint.
            if receipt.task_id.is_none() && receipt.delivery == Delivery::Printed {
                return Err(error);
            }
            self.ui.warn(&format!("{error:#}"), None);
        }
        self.ui.detail(&format!(
            "checkpoint {} of {}: {}",
            receipt.checkpoint_id,
            receipt.agent_id,
            receipt.delivery.name()
        ));
        Ok(match () {
            () if self.obeys && !receipt.requests.is_empty() => Exit::Stop,
            () if !self.config.strict => Exit::Done,
            () if refused || self.config.is_wrong() => Exit::Config,
            () if late => Exit::NotYet,
            () => Exit::Done,
        })
    }
}
