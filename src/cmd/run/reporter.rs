//! The reporter: a thread that writes down what happens to a wrapped command and has it sent, so that neither the cache
//! nor the network ever holds the command up.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Mouth};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::super::deliver::Sender;
use super::super::receipt::{Receipt, conversation};
use super::super::worker::{End, Worker};
use super::super::{BUSY_MAX, courier, now, open, record};
use super::Settings;
use crate::args::BackgroundChoice;
use crate::checkpoint::id::{CheckpointId, TaskId, TaskKey};
use crate::checkpoint::outbox::{Delivery, Job};
use crate::checkpoint::plan::{Plan, Stored};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::{Draft, Task};
use crate::child::Waker;
use crate::store::{Recorded, Scope, Store, StoreError, Tx, Watcher};

/// Progress is written down at most this often; what comes faster is replaced by what comes later.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long a command that was started from another waits for that one to be recorded; this thread alone waits.
const PARENT_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// How many commands of the same name may run at once under one parent.
const NAMESAKES: u32 = 1000;

/// What there is to write down after the start.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// How far the command says it is.
    Progress { percent: Option<u8>, action: Option<String> },
    /// It is still running.
    Beat,
    /// It ended, or could not be started.
    Ended(Ending),
}

/// What the reporter says after the end.
#[derive(Debug)]
pub(super) enum Word {
    /// The end is on disk.
    Stored,
    /// All that can be done is done.
    Done(Box<Report>),
}

impl Word {
    pub(super) fn report(self) -> Option<Report> {
        match self {
            Self::Done(report) => Some(*report),
            Self::Stored => None,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// What went wrong, in words; `None` for exit code 0.
    pub(super) error: Option<String>,
    /// The last lines it wrote.
    pub(super) tail: Option<String>,
}

/// Where the command's checkpoints go, for the command's own environment.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) agent_id: String,
    pub(super) task: Option<TaskId>,
    /// The thread, as `CHANNEL:TS`, where there is one already.
    pub(super) thread: Option<String>,
}

/// What became of it all.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) receipt: Receipt,
    pub(super) warnings: Vec<String>,
}

/// Says words to a thread that waits for a command's events.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    pub(super) words: Mouth<Word>,
    /// Set before the end is news.
    pub(super) waker: Arc<OnceLock<Waker>>,
}

impl Voice {
    fn say(&self, word: Word) {
        let _ = self.words.send(word);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// Writes down the start, says where that went, then whatever else there is to hear until the end.
pub(super) fn report(
    settings: &Settings,
    start: Draft,
    ears: &Receiver<News>,
    place: &Mouth<Place>,
    voice: &Voice,
) {
    let mut reporter = Reporter::new(settings, start);
    let _ = place.send(reporter.place());
    let mut progress: Option<News> = None;
    let mut written_at = Instant::now();
    let ending = loop {
        let wait = match &progress {
            Some(_) => PROGRESS_EVERY.saturating_sub(written_at.elapsed()),
            None => Duration::MAX,
        };
        match ears.recv_timeout(wait) {
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
    let recorded = reporter.record_end(ending);
    voice.say(Word::Stored);
    let report = reporter.finish(recorded);
    voice.say(Word::Done(Box::new(report)));
}

/// The later news, with what only the earlier one says.
fn merged(earlier: Option<News>, later: News) -> News {
    match (earlier, later) {
        (
            Some(News::Progress { percent: old_percent, action: old_action }),
            News::Progress { percent, action },
        ) => News::Progress { percent: percent.or(old_percent), action: action.or(old_action) },
        (_, later) => later,
    }
}

/// The cache and the worker, as far as they can be had.
struct Reporter<'a> {
    settings: &'a Settings,
    store: Option<Store>,
    worker: Option<Worker>,
    start: Draft,
    /// The task as it stood after its latest checkpoint of ours.
    task: Task,
    warnings: Vec<String>,
}

impl<'a> Reporter<'a> {
    fn new(settings: &'a Settings, mut start: Draft) -> Self {
        let config = &settings.config;
        let mut warnings = Vec::new();
        let mut store = match open(config, &settings.ui, BUSY_MAX) {
            Ok(store) => Some(store),
            Err(error) => {
                warnings.push(format!("{error}; going on without state"));
                None
            }
        };
        let recorded = store.as_mut().map(|store| {
            await_parent(store, &start);
            store.write(|tx| record_start(tx, settings, &mut start))
        });
        let planned = match recorded {
            Some(Ok((plan, _))) => Some(plan),
            Some(Err(error)) => {
                warnings.push(format!("could not write to the cache: {error}; going on without state"));
                store = None;
                None
            }
            None => None,
        };
        let task = match planned {
            Some(plan) => plan.append.task,
            None => stateless(settings, &start).append.task,
        };
        let worker = sends(settings)
            .then(|| Sender::new(config, false, None))
            .flatten()
            .and_then(|sender| Worker::start(sender, config.cache.as_deref()).ok());
        let reporter = Self { settings, store, worker, start, task, warnings };
        reporter.pass_on();
        reporter
    }

    fn place(&self) -> Place {
        let channel = self.task.channel_id.as_ref().or(self.task.channel.as_ref());
        let thread = channel.zip(self.task.thread_ts.as_ref()).map(|(channel, ts)| format!("{channel}:{ts}"));
        Place { agent_id: self.start.agent_id.clone(), task: Some(self.task.id), thread }
    }

    /// Has sent what was just recorded, or the message itself when it could not be recorded.
    fn pass_on(&self) {
        match (&self.worker, &self.store) {
            (Some(worker), Some(_)) => worker.wake(),
            (Some(worker), None) => {
                worker.send_loose(Job::alone(self.task.clone(), CheckpointId::new(now()), now()));
            }
            (None, _) => {}
        }
    }

    fn draft(&self, status: Status) -> Draft {
        let bare = Draft::bare(CheckpointId::new(now()), self.start.agent_id.clone(), status);
        Draft { within: Some(self.task.id), ..bare }
    }

    fn progress(&mut self, percent: Option<u8>, action: Option<String>) {
        let draft = Draft { progress: percent, action, ..self.draft(Status::Working) };
        if self.store.is_some() {
            self.record(&draft, |_, _| Ok(()));
        }
    }

    fn beat(&mut self) {
        let Some(store) = &mut self.store else { return };
        if let Some(key) = self.task.key
            && store.write_relaxed(|tx| tx.beat(key, now())).is_ok()
            && let Some(worker) = &self.worker
        {
            worker.wake();
        }
    }

    /// Records a draft unless the task was ended by the command itself; `after` runs in the same transaction.
    fn record(
        &mut self,
        draft: &Draft,
        after: impl FnOnce(&Tx<'_>, TaskKey) -> Result<(), StoreError>,
    ) -> Option<Recorded> {
        let policy = record::policy(&self.settings.config);
        let store = self.store.as_mut()?;
        let written = store.write(|tx| {
            let stored = tx.stored(draft)?;
            let Some(key) = stored.task.as_ref().and_then(|task| task.key) else { return Ok(None) };
            let recorded = match says_more(stored.task.as_ref(), draft) {
                true => Some(record::record(tx, draft, &policy, now())?),
                false => None,
            };
            after(tx, key)?;
            Ok(recorded)
        });
        match written {
            Ok(Some((plan, recorded))) => {
                self.task = plan.append.task;
                self.task.key = Some(recorded.task);
                self.pass_on();
                Some(recorded)
            }
            Ok(None) => None,
            Err(error) => {
                self.warnings.push(format!("could not write to the cache: {error}"));
                None
            }
        }
    }

    fn record_end(&mut self, ending: Ending) -> (Draft, Option<Recorded>) {
        let status = if ending.error.is_some() { Status::Error } else { Status::Complete };
        let draft = Draft { error: ending.error, tail: ending.tail, ..self.draft(status) };
        let is_recorded = self.store.is_some();
        let recorded = self.record(&draft, |tx, key| tx.unwatch(key));
        if !is_recorded {
            let planned = record::plan(
                &Stored { task: Some(self.task.clone()), ..Stored::default() },
                &draft,
                &record::policy(&self.settings.config),
                now(),
            );
            self.task = planned.append.task;
            self.pass_on();
        }
        (draft, recorded)
    }

    fn finish(mut self, (draft, recorded): (Draft, Option<Recorded>)) -> Report {
        let config = &self.settings.config;
        if let Some(worker) = self.worker.take() {
            let persistent = config.background == BackgroundChoice::Never || config.strict;
            let scopes = [self.task.key, self.task.parent].into_iter().flatten().map(Scope::Task).collect();
            worker.finish(End { by: Instant::now() + config.deadline, persistent, scopes });
        }
        if let Some(store) = &mut self.store {
            courier::leave_the_rest(store, config, &self.settings.ui);
        }
        let receipt = self.receipt(&draft, recorded);
        Report { receipt, warnings: self.warnings }
    }

    /// What became of the last checkpoint: ours, or the command's own last word.
    fn receipt(&mut self, draft: &Draft, recorded: Option<Recorded>) -> Receipt {
        let config = &self.settings.config;
        let mut receipt = Receipt {
            checkpoint_id: draft.id.to_string(),
            task_id: self.store.as_ref().map(|_| self.task.id.to_string()),
            agent_id: self.task.agent_id.clone(),
            snapshot: self.task.snapshot.clone(),
            delivery: Delivery::Unconfirmed,
            channel: conversation(config, &self.task),
            thread_ts: self.task.thread_ts.clone(),
            message_ts: None,
            retry_at: None,
            error: None,
            warnings: self.warnings.clone(),
        };
        let (Some(store), Some(key)) = (&mut self.store, self.task.key) else { return receipt };
        let found = store.read(|tx| {
            let last = match recorded {
                Some(recorded) => recorded.checkpoint,
                None => tx.newest(key)?,
            };
            Ok((tx.checkpoint_id(last)?, tx.delivery_of(last)?, tx.task(key)?))
        });
        if let Ok((id, standing, task)) = found {
            receipt.checkpoint_id = id.to_string();
            receipt.delivery = standing.delivery;
            receipt.message_ts = standing.message_ts;
            receipt.retry_at = standing.due_at;
            receipt.error = standing.reason;
            receipt.channel = conversation(config, &task);
            receipt.thread_ts = task.thread_ts;
            receipt.snapshot = task.snapshot;
        }
        receipt
    }
}

/// Whether a final word of ours adds to what the command said of itself.
fn says_more(task: Option<&Task>, draft: &Draft) -> bool {
    match task.map(|task| task.state) {
        // Whoever cancelled it meant it, whatever the exit code.
        Some(TaskState::Cancelled) => false,
        Some(TaskState::Completed) => draft.status == Status::Error,
        Some(TaskState::Running | TaskState::Failed) | None => true,
    }
}

fn sends(settings: &Settings) -> bool {
    !settings.config.no_post && settings.config.background != BackgroundChoice::Always
}

fn stateless(settings: &Settings, draft: &Draft) -> Plan {
    record::plan(&Stored::default(), draft, &record::policy(&settings.config), now())
}

/// Waits a little until the parent's start is recorded, which may be as young as we are.
fn await_parent(store: &mut Store, start: &Draft) {
    let begun = Instant::now();
    while start.parent.is_some() && begun.elapsed() < PARENT_MAX {
        match store.read(|tx| tx.stored(start)) {
            Ok(Stored { parent: None, .. }) => thread::sleep(POLL),
            _ => return,
        }
    }
}

fn record_start(tx: &Tx<'_>, settings: &Settings, start: &mut Draft) -> Result<(Plan, Recorded), StoreError> {
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
    let (mut plan, recorded) = record::record(tx, start, &record::policy(&settings.config), now())?;
    tx.watch(recorded.task, &Watcher::current(), now())?;
    plan.append.task.key = Some(recorded.task);
    Ok((plan, recorded))
}
