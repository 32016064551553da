//! The reporter: a thread that writes down what happens to a wrapped command and has it sent, so that neither the cache
//! nor the network ever holds the command up.

mod receipt;

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Mouth};
use std::time::{Duration, Instant};

use super::super::ask::listen;
use super::super::deliver::{CACHE_MIN, Sender};
use super::super::forward::Forwarder;
use super::super::guard::{Guard, Will};
use super::super::interact::Owed;
use super::super::record::Noted;
use super::super::worker::{self, Worker};
use super::super::{busy_max, courier, now, open, record, unpack, wrapper};
use super::Settings;
use super::news::{Ending, News, Place, Report, Voice, Word, merged};
use crate::args::BackgroundChoice;
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::outbox::{Delivery, Job, Priority};
use crate::checkpoint::parse::Thread;
use crate::checkpoint::plan::{Plan, Stored};
use crate::checkpoint::question::nonce;
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::{Cancel, Draft, Task};
use crate::delivery::{Outcome, Retry};
use crate::store::{Recorded, Request, Scope, Store, StoreError, Tx, Watcher};

/// Progress is written down at most this often; what comes faster is replaced by what comes later.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often to look whether a person wants the command to end.
const LOOK: Duration = Duration::from_millis(500);
/// How long the edit that a heartbeat brings waits until it is known what was said of the task on other machines.
const NEWS_MAX: Duration = Duration::from_secs(10);
/// How many commands of the same name may run at once under one parent.
const NAMESAKES: u32 = 1000;
/// How long the start waits for a cache that other processes keep busy, while the command runs.
const START_MAX: Duration = Duration::from_secs(30);
/// The longest deadline that can be added to any moment.
const DEADLINE_MAX: Duration = Duration::from_secs(86_400);

/// How a warning ends after which messages are posted without being recorded.
const WITHOUT_STATE: &str = "going on without state";

/// Writes down the start, says where that went, then whatever else there is to hear until the end.
pub(super) fn report(
    settings: &Settings,
    start: Draft,
    ears: &Receiver<News>,
    place: &Mouth<Place>,
    voice: &Voice,
) {
    let mut reporter = Reporter::new(settings, start, place, &voice.ended_at);
    let mut progress: Option<News> = None;
    let mut written_at = Instant::now();
    let ending = loop {
        let wait = match &progress {
            Some(_) => PROGRESS_EVERY.saturating_sub(written_at.elapsed()),
            None => Duration::MAX,
        };
        if reporter.is_to_stop() {
            voice.say(Word::Stop);
        }
        reporter.see_to_a_guard();
        match ears.recv_timeout(wait.min(LOOK)) {
            Ok(news @ News::Progress { .. }) => progress = Some(merged(progress, news)),
            Ok(News::Beat) => reporter.beat(),
            Ok(News::Ended(ending)) => break ending,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Ending { error: Some("the wrapper stopped".to_owned()), tail: None };
            }
        }
        if written_at.elapsed() >= PROGRESS_EVERY
            && let Some(News::Progress { percent, action }) = progress.take()
        {
            reporter.progress(percent, action);
            written_at = Instant::now();
        }
    };
    if let Some(News::Progress { percent, action }) = progress {
        reporter.progress(percent, action);
    }
    let by = voice.ended_at.get().copied().unwrap_or_else(Instant::now)
        + settings.config.deadline.min(DEADLINE_MAX);
    let recorded = reporter.record_end(ending);
    voice.say(Word::Stored);
    let report = reporter.finish(recorded, by);
    voice.say(Word::Done(Box::new(report)));
}

/// The cache and the worker, as far as they can be had.
struct Reporter<'a> {
    settings: &'a Settings,
    store: Option<Store>,
    /// The cache that others kept busy for too long: it is asked once more in the end.
    shelved: Option<Store>,
    worker: Option<Worker>,
    start: Draft,
    /// The task as it stood after its latest checkpoint of ours: the one that the start went to, or one that the
    /// command has opened after it.
    task: Task,
    /// All of them.
    tasks: Vec<TaskKey>,
    me: Watcher,
    warnings: Vec<String>,
    /// The cache as it was when it was last looked for requests.
    seen: Option<i64>,
    /// Who wants the command to end.
    canceller: Option<Request>,
    /// When one is to be posted who takes the button from the card if we cannot.
    guard_at: Option<Instant>,
    guard: Option<Guard>,
    /// What people are still to be told of what they did.
    owed: Owed,
    /// There is a database, so that others may speak for the task on other machines.
    is_shared: bool,
}

/// What became of the end.
struct End {
    draft: Draft,
    /// `None` when it was not recorded: because it could not be, or because the command had the last word.
    recorded: Option<Recorded>,
    /// What becomes of a message that could not be recorded.
    delivery: Delivery,
    /// For the guard, where the cache that has the start could not take it.
    will: Option<Will>,
}

impl<'a> Reporter<'a> {
    fn new(
        settings: &'a Settings,
        mut start: Draft,
        place: &Mouth<Place>,
        ended_at: &OnceLock<Instant>,
    ) -> Self {
        let config = &settings.config;
        let begun = Instant::now();
        let mut warnings = Vec::new();
        let mut store = match open(config, &settings.ui, busy_max(config)) {
            Ok(store) => Some(store),
            Err(error) => {
                warnings.push(format!("{error}; going on without state"));
                None
            }
        };
        let me = Watcher::current();
        let (mut planned, mut shelved) = (None, None);
        if let (Some(store), Some(parent)) = (&mut store, &start.parent) {
            wrapper::await_task(store, parent.task);
        }
        while let Some(open) = &mut store
            && planned.is_none()
        {
            match open.write(|tx| record_start(tx, settings, &mut start, &me, place)) {
                Ok((plan, _)) => planned = Some(plan),
                // Nobody waits for us yet.
                Err(error) if error.busy && ended_at.get().is_none() && begun.elapsed() < START_MAX => {}
                Err(error) if error.corrupt => match store.take().map(Store::start_afresh) {
                    Some(Ok(opened)) => store = Some(unpack(opened, &settings.ui)),
                    Some(Err(error)) => warnings.push(format!("{error}; going on without state")),
                    None => {}
                },
                Err(error) => {
                    warnings.push(without_state(&error));
                    shelved = store.take().filter(|_| error.busy);
                }
            }
        }
        let task = match planned {
            Some(plan) => plan.append.task,
            None => record::plan(&Stored::default(), &start, &record::policy(config), now()).append.task,
        };
        let sender = sends(settings).then(|| Sender::new(config, false, None)).flatten();
        let sender = sender.map(|sender| sender.watched(&settings.ui));
        let is_online = config.background != BackgroundChoice::Always;
        let forwarder = Forwarder::new(config);
        let is_shared = forwarder.is_some();
        let worker = Worker::start((sender, forwarder.filter(|_| is_online)), config.cache.as_deref());
        let tasks = task.key.into_iter().collect();
        let owed = Owed::default();
        let reporter = Self {
            settings,
            store,
            shelved,
            worker,
            start,
            task,
            tasks,
            me,
            warnings,
            seen: None,
            canceller: None,
            guard_at: settings.is_cancellable.then(|| Instant::now() + listen::BRIEF),
            guard: None,
            owed: owed.clone(),
            is_shared,
        };
        let _ = place.send(place_of(&reporter.task));
        if settings.is_cancellable {
            listen::keep(&settings.config, &settings.ui, &owed);
        }
        #[cfg(feature = "postgres")]
        if is_online {
            super::super::interact::elsewhere::keep(&settings.config, &settings.ui, false, &owed);
        }
        reporter.pass_on(reporter.start.id, Priority::Routine);
        reporter
    }

    /// Has sent what was just recorded, or the message itself when it could not be recorded: a routine one gives way
    /// to the end when it cannot be sent before.
    fn pass_on(&self, checkpoint: CheckpointId, priority: Priority) {
        match (&self.worker, &self.store) {
            (Some(worker), Some(_)) => worker.wake(),
            (Some(worker), None) => {
                let job = Job::alone(self.task.clone(), checkpoint, now());
                worker.send_loose(Job { priority, ..job });
            }
            (None, _) => {}
        }
    }

    /// Whether a person wants the command to end; true once.
    fn is_to_stop(&mut self) -> bool {
        let Some(store) = self.store.as_mut().filter(|_| self.canceller.is_none()) else { return false };
        let version = store.version_of_data().ok();
        if version.is_none() || version == self.seen {
            return false;
        }
        self.seen = version;
        self.canceller = store.read(|tx| tx.cancel_of(&self.me)).ok().flatten();
        self.canceller.is_some()
    }

    fn see_to_a_guard(&mut self) {
        if self.guard_at.is_some_and(|at| at <= Instant::now()) {
            self.guard_at = None;
            self.guard = Guard::post(&self.settings.config, &self.settings.ui);
        }
    }

    fn draft(&self, status: Status) -> Draft {
        Draft::bare(CheckpointId::new(now()), self.start.agent_id.clone(), status)
    }

    fn progress(&mut self, percent: Option<u8>, action: Option<String>) {
        self.follow_the_cache();
        let draft = Draft { progress: percent, action, ..self.draft(Status::Working) };
        if self.store.is_some()
            && let Err(error) = self.record(&draft, |_| Ok(()))
        {
            self.warn(format!("could not write to the cache: {error}"));
        }
    }

    fn beat(&mut self) {
        self.follow_the_cache();
        let is_shared = self.is_shared;
        let (Some(store), Some(first)) = (&mut self.store, self.task.key) else { return };
        let beaten = store.write_relaxed(|tx| {
            let key = tx.watched(&self.me)?.map_or(first, |(key, _)| key);
            let at = now();
            tx.beat(key, if is_shared { at.plus(NEWS_MAX) } else { at }, at)
        });
        // Nobody else may live who could say that others have ended; what cannot be said now is said by whoever comes next.
        let _ = record::bury_found(store, &self.settings.config);
        if let (Ok(()), Some(worker)) = (beaten, &self.worker) {
            worker.wake();
        }
    }

    /// Goes on in a fresh cache where ours was deleted or replaced: what is written to the old one is read by nobody.
    fn follow_the_cache(&mut self) {
        let Some(store) = self.store.as_mut().filter(|store| !store.is_in_place()) else { return };
        // It can still be read: where the thread is.
        if let Some(Ok(task)) = self.task.key.map(|key| store.read(|tx| tx.task(key))) {
            self.task = task;
        }
        self.task.key = None;
        self.tasks.clear();
        self.store = match open(&self.settings.config, &self.settings.ui, busy_max(&self.settings.config)) {
            Ok(store) => Some(store),
            Err(error) => {
                self.warn(format!("{error}; going on without state"));
                None
            }
        };
    }

    /// A draft for a cache that does not know our task: it goes on in the thread that it had.
    fn anew(&self, draft: &Draft) -> Draft {
        let place = self.task.channel_id.as_ref().zip(self.task.thread_ts.as_ref());
        let thread = place.map(|(channel, ts)| Thread { channel: channel.clone(), ts: ts.clone() });
        Draft {
            id: draft.id,
            status: draft.status,
            progress: draft.progress,
            action: draft.action.clone(),
            error: draft.error.clone(),
            tail: draft.tail.clone(),
            thread: thread.or_else(|| self.start.thread.clone()),
            opens: Some(self.task.id),
            new: false,
            ..self.start.clone()
        }
    }

    /// What was said already is not said again.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Records a draft in the latest task that we answer for, unless the command itself has ended that; `after` runs in
    /// the same transaction.
    fn record(
        &mut self,
        draft: &Draft,
        after: impl FnOnce(&Tx<'_>) -> Result<(), StoreError>,
    ) -> Result<Option<Recorded>, StoreError> {
        let policy = record::policy(&self.settings.config);
        let anew = self.anew(draft);
        let Some(store) = &mut self.store else { return Ok(None) };
        let (task, recorded) = store.write(|tx| {
            let within = tx.watched(&self.me)?.map_or(self.task.id, |(_, id)| id);
            let draft = Draft { within: Some(within), ..draft.clone() };
            let stored = tx.stored(&draft)?.task;
            let is_new = stored.is_none();
            let draft = if is_new { anew } else { draft };
            let (task, recorded) = if wrapper::says_more(stored.as_ref(), &draft) {
                let Noted { plan, recorded, .. } = record::record(tx, &draft, &policy, now())?;
                if is_new {
                    tx.watch(recorded.task, &self.me, now())?;
                }
                (Task { key: Some(recorded.task), ..plan.append.task }, Some(recorded))
            } else {
                (stored.unwrap_or_else(|| self.task.clone()), None)
            };
            after(tx)?;
            Ok((Some(task), recorded))
        })?;
        if let Some(task) = task {
            self.tasks.extend(task.key.filter(|key| !self.tasks.contains(key)));
            self.task = task;
        }
        if recorded.is_some() {
            self.pass_on(draft.id, Priority::Routine);
        }
        Ok(recorded)
    }

    fn record_end(&mut self, ending: Ending) -> End {
        let status = if ending.error.is_some() { Status::Error } else { Status::Complete };
        let draft = match &self.canceller {
            Some(by) => {
                let action = Some(format!("cancelled by {}", by.who()));
                Draft { action, tail: ending.tail, ..self.draft(Status::Cancelled) }
            }
            None => Draft { error: ending.error, tail: ending.tail, ..self.draft(status) },
        };
        let mut end = End { draft, recorded: None, delivery: Delivery::Off, will: None };
        let me = self.me.clone();
        self.follow_the_cache();
        match self.record(&end.draft, |tx| tx.leave(&me)) {
            Ok(recorded) => end.recorded = recorded,
            Err(error) => {
                self.warn(without_state(&error));
                // It may still be read: where the thread is, and whether the command had the last word.
                if let (Some(store), Some(key)) = (&mut self.store, self.task.key)
                    && let Ok(task) = store.read(|tx| tx.task(key))
                {
                    self.task = task;
                }
                self.shelved = self.store.take().filter(|_| error.busy);
                end.will = self.task.key.map(|_| Will::of(&end.draft));
            }
        }
        if self.store.is_none() && wrapper::says_more(Some(&self.task), &end.draft) {
            let stored = Stored { task: Some(self.task.clone()), ..Stored::default() };
            let policy = record::policy(&self.settings.config);
            let append = record::plan(&stored, &end.draft, &policy, now()).append;
            (self.task, end.delivery) = (append.task, append.checkpoint.delivery);
            self.pass_on(end.draft.id, Priority::Immediate);
        }
        end
    }

    /// Records the end after all if it could not be posted either: those who kept the cache busy may be done.
    fn try_again(&mut self, end: &mut End, loose: Option<&Outcome>) {
        let is_out = match loose {
            Some(Outcome::Retry(Retry { maybe_sent, .. })) => *maybe_sent,
            Some(Outcome::Rejected(_)) | None => false,
            Some(_) => true,
        };
        let Some(mut store) = self.shelved.take().filter(|_| !is_out) else { return };
        store.wait_at_most(CACHE_MIN);
        self.store = Some(store);
        let me = self.me.clone();
        match self.record(&end.draft, |tx| tx.leave(&me)) {
            Ok(recorded) => {
                (end.recorded, end.will) = (recorded, None);
                self.warnings.retain(|warning| !warning.ends_with(WITHOUT_STATE));
            }
            Err(_) => self.store = None,
        }
    }

    fn finish(mut self, mut end: End, by: Instant) -> Report {
        let config = &self.settings.config;
        let mut loose = None;
        if let Some(worker) = self.worker.take() {
            let persistent = config.background == BackgroundChoice::Never || config.strict;
            let tasks = self.tasks.iter().copied().chain(self.task.parent);
            let scopes = tasks.map(Scope::Task).collect();
            loose = worker.finish(worker::End { by, persistent, soon: worker::SOON, scopes }).latest;
        }
        let loose = loose.filter(|(id, _)| *id == end.draft.id).map(|(_, outcome)| outcome);
        self.try_again(&mut end, loose.as_ref());
        if let Some(store) = &mut self.store {
            courier::leave_the_rest(store, config, &self.settings.ui);
        }
        if end.will.is_some() && self.guard.is_none() && self.settings.is_cancellable {
            self.guard = Guard::post(config, &self.settings.ui);
        }
        match (self.guard.take(), &end.will) {
            // Until the cache can be written again, the card has its button.
            (Some(guard), Some(will)) => guard.leave(will),
            (Some(guard), None) => guard.dismiss(),
            (None, _) => {}
        }
        // Who ended it is told so, which is beside us on its way.
        if self.canceller.is_some() {
            self.owed.await_paid(by);
        }
        let receipt = self.receipt(&end, loose);
        Report { receipt, warnings: self.warnings }
    }
}

fn without_state(error: &StoreError) -> String {
    format!("could not write to the cache: {error}; {WITHOUT_STATE}")
}

/// Where a task's checkpoints go.
fn place_of(task: &Task) -> Place {
    let channel = task.channel_id.as_ref().or(task.channel.as_ref());
    let thread = channel.zip(task.thread_ts.as_ref()).map(|(channel, ts)| format!("{channel}:{ts}"));
    Place { agent_id: task.agent_id.clone(), task: Some(task.id), thread }
}

fn sends(settings: &Settings) -> bool {
    !settings.config.no_post && settings.config.background != BackgroundChoice::Always
}

/// Records the start; says where it goes before it is durable, which the command need not wait for.
fn record_start(
    tx: &Tx<'_>,
    settings: &Settings,
    start: &mut Draft,
    me: &Watcher,
    place: &Mouth<Place>,
) -> Result<(Plan, Recorded), StoreError> {
    if settings.is_named_after_parent {
        let name = start.agent_id.clone();
        for number in 2..NAMESAKES {
            let stored = tx.stored(start)?;
            let running = stored.task.filter(|task| task.state == TaskState::Running);
            match running.and_then(|task| task.key) {
                Some(key) if tx.is_watched(key)? => start.agent_id = format!("{name}-{number}"),
                _ => break,
            }
        }
    }
    let Noted { mut plan, recorded, .. } =
        record::record(tx, start, &record::policy(&settings.config), now())?;
    tx.watch(recorded.task, me, now())?;
    if let (true, Some(approvers)) = (settings.is_cancellable, settings.config.approvers.clone()) {
        tx.offer_cancel(recorded.task, &Cancel { nonce: nonce(), approvers })?;
        if plan.append.task.key.is_some() {
            // A card that is there has no button yet, and the start's message may be due much later.
            tx.refresh_shown_card(recorded.task, now())?;
        }
    }
    plan.append.task.key = Some(recorded.task);
    let _ = place.send(place_of(&plan.append.task));
    Ok((plan, recorded))
}
