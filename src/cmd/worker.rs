//! The worker: a thread that sends what a long-lived process records, so that nothing waits for the network but it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::deliver::{CACHE_MIN, PATIENCE, Sender, again_at};
use super::forward::Forwarder;
use super::{BUSY_MAX, now};
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::outbox::{Job, Priority};
use crate::checkpoint::time::Moment;
use crate::delivery::{Cause, Outcome, Retry};
use crate::store::{Claim, Scope, Store, Tx, Why};

/// The longest that a worker sleeps without looking, in case another process has left it something.
const REST_MAX: Duration = Duration::from_secs(30);
/// How often to look whether another process is done with what it is sending.
const POLL: Duration = Duration::from_millis(20);
/// How long a process that is about to end waits for a turn within Slack's limits.
pub(super) const SOON: Duration = Duration::from_millis(250);
/// How long the database may keep messages to Slack waiting.
const PASS_MAX: Duration = Duration::from_secs(5);
/// How long messages to Slack may keep the database waiting.
const SENDING_MAX: Duration = Duration::from_secs(1);
/// How soon to ask the database again what others have said, where it did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A worker's stack: it renders messages and speaks TLS.
const STACK: usize = 512 * 1024;

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something has changed since the worker last looked.
    woken: bool,
    /// Something was recorded at all.
    has_records: bool,
    /// Messages that could not be recorded, to be sent once. The first stays until it is.
    loose: VecDeque<Job>,
    settled: Loose,
    /// From then on nothing more will be recorded.
    end: Option<End>,
    done: bool,
}

/// What became of messages that could not be recorded.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// The latest of them that was tried.
    pub(super) latest: Option<(CheckpointId, Outcome)>,
    /// How many are not in Slack for certain.
    pub(super) lost: usize,
}

/// Where the thread of a task is that could not be recorded: its conversation and the thread's `ts`.
type Threads = HashMap<TaskId, (Option<String>, Option<String>)>;

/// How a worker ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) by: Instant,
    /// Whether to go on with what failed, or is not due, for as long as there is time.
    pub(super) persistent: bool,
    /// How long to wait otherwise for a turn within Slack's limits.
    pub(super) soon: Duration,
    /// Whose entries to send before.
    pub(super) scopes: Vec<Scope>,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn is_ending(&self) -> bool {
        self.lock().end.is_some()
    }

    fn first_loose(&self) -> Option<Job> {
        self.lock().loose.front().cloned()
    }

    fn end_by(&self) -> Option<Instant> {
        self.lock().end.as_ref().map(|end| end.by)
    }

    /// Waits that long, or until told to end. `ending`: the caller knows of the end.
    fn pause(&self, wait: Duration, ending: bool) {
        let state = self.lock();
        let same = |state: &mut State| state.end.is_some() == ending;
        drop(self.changed.wait_timeout_while(state, wait, same));
    }

    /// Whether a message may give way to a later one of its task that could not be recorded either.
    fn is_outdated(&self, job: &Job) -> bool {
        let is_later = |later: &Job| later.task.id == job.task.id && later.checkpoint != job.checkpoint;
        job.priority == Priority::Routine && self.lock().loose.iter().any(is_later)
    }

    /// Waits until woken, or then.
    fn rest(&self, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), wait, |state| !state.woken)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
    }
}

impl Worker {
    /// Starts a worker that sends to Slack and tells the database what the cache at `path` has for them, if there is one;
    /// `None` if there is neither Slack nor a database, or no thread can be had.
    pub(super) fn start(
        (sender, forwarder): (Option<Sender>, Option<Forwarder>),
        path: Option<&Path>,
    ) -> Option<Self> {
        if sender.is_none() && forwarder.is_none() {
            return None;
        }
        let orders = Arc::new(Orders::default());
        let (theirs, path) = (Arc::clone(&orders), path.map(Path::to_owned));
        let thread = thread::Builder::new().name("worker".to_owned()).stack_size(STACK).spawn(move || {
            work(&theirs, (sender, forwarder), path.as_deref());
            theirs.change(|state| state.done = true);
        });
        Some(Self { orders, thread: thread.ok()? })
    }

    /// Something was recorded.
    pub(super) fn wake(&self) {
        self.orders.change(|state| (state.woken, state.has_records) = (true, true));
    }

    /// Sends a message that could not be recorded.
    pub(super) fn send_loose(&self, job: Job) {
        self.orders.change(|state| {
            state.woken = true;
            state.loose.push_back(job);
        });
    }

    /// Lets the worker send what is due, and returns then, or in time. Says what became of messages that could not be
    /// recorded.
    pub(super) fn finish(self, end: End) -> Loose {
        // What an attempt came to that was given up at the very end has yet to be written down.
        let wait = end.by.saturating_duration_since(Instant::now()).saturating_add(CACHE_MIN);
        self.orders.change(|state| (state.woken, state.end) = (true, Some(end)));
        let (mut state, _) = self
            .orders
            .changed
            .wait_timeout_while(self.orders.lock(), wait, |state| !state.done)
            .unwrap_or_else(PoisonError::into_inner);
        let mut loose = std::mem::take(&mut state.settled);
        loose.lost += state.loose.len();
        // One that is still in the middle of a call is left behind: what it sends is looked for before it is sent again.
        if state.done {
            drop(state);
            let _ = self.thread.join();
        }
        loose
    }
}

fn work(orders: &Orders, (mut sender, forwarder): (Option<Sender>, Option<Forwarder>), path: Option<&Path>) {
    let mut store = None;
    let mut threads = Threads::new();
    loop {
        let (has_records, end) = {
            let state = orders.lock();
            (state.has_records, state.end.clone())
        };
        if let Some(sender) = &mut sender {
            if let Some(end) = &end {
                sender.end_by(end.by);
            }
            send_loose(orders, sender, &mut threads);
        }
        if store.as_ref().is_some_and(|store: &Store| !store.is_in_place()) {
            store = None;
        }
        if let (None, Some(path), true) = (&store, path, has_records) {
            store = Store::open_at(path, BUSY_MAX).ok().map(|opened| opened.store);
            if let Some(store) = &mut store {
                store.keep_statements();
            }
        }
        let next = match (&mut store, end) {
            (Some(store), Some(end)) => {
                // Who opens a thread is the database's to say, so it is told before, and after of what came of it.
                forward(store, forwarder.as_ref(), (end.by, true));
                if let Some(sender) = &mut sender {
                    // All of them in turn: none waits for what holds another one up.
                    let mut look = || {
                        end.scopes
                            .iter()
                            .filter_map(|scope| send(orders, store, sender, (*scope, None)))
                            .min()
                    };
                    while let Some(next) = look()
                        && next < end.by
                    {
                        orders.rest(next);
                    }
                    forward(store, forwarder.as_ref(), (end.by, true));
                }
                return;
            }
            (None, Some(_)) => return,
            (Some(store), None) => {
                let by = Instant::now() + PASS_MAX;
                forward(store, forwarder.as_ref(), (by, false));
                let asked = catch_up(store, forwarder.as_ref(), by);
                let turn = forwarder.is_some().then(|| Instant::now() + SENDING_MAX);
                let sent = sender.as_mut().and_then(|sender| send(orders, store, sender, (Scope::All, turn)));
                let told = forward(store, forwarder.as_ref(), (by, false));
                sent.into_iter().chain(told).chain(asked).min()
            }
            (None, None) => None,
        };
        orders.rest(next.unwrap_or_else(|| Instant::now() + REST_MAX));
    }
}

/// Tells the database what it is to be told by now, or everything if this is the last time; says when it is to be told more.
fn forward(
    store: &mut Store,
    forwarder: Option<&Forwarder>,
    (by, is_last): (Instant, bool),
) -> Option<Instant> {
    let forwarder = forwarder?;
    let due = |store: &mut Store| store.read(|tx| forwarder.due(tx, now())).ok().flatten();
    let is_held = |store: &mut Store| !matches!(store.read(|tx| forwarder.held_until(tx, now())), Ok(None));
    if due(store)? <= now() || is_last && !is_held(store) {
        // What is left of it is tried again when the others try.
        let _ = forwarder.pass(store, false, by, &mut |_| {});
    }
    Some(Instant::now() + due(store)?.since(now()).max(POLL))
}

/// Hears what others have said before a heartbeat shows; says when to ask, if it is not time.
fn catch_up(store: &mut Store, forwarder: Option<&Forwarder>, by: Instant) -> Option<Instant> {
    let next = forwarder?.catch_up(store, by).unwrap_or_else(|_| Some(now().plus(ASK_AGAIN)))?;
    Some(Instant::now() + next.since(now()).max(POLL))
}

/// Tries each until it is sent, its answer was lost, it is refused or out of date, or there is no time left.
fn send_loose(orders: &Orders, sender: &mut Sender, threads: &mut Threads) {
    let mut attempts = 0;
    let mut may_be_there = false;
    while let Some(mut job) = orders.first_loose() {
        if attempts > 0 && orders.is_outdated(&job) {
            (attempts, may_be_there) = (0, false);
            orders.change(|state| {
                state.loose.pop_front();
                state.settled.lost += 1;
            });
            continue;
        }
        if let Some(by) = orders.end_by() {
            sender.end_by(by);
        }
        if let Some((channel_id, thread_ts)) = threads.get(&job.task.id) {
            (job.task.channel_id, job.task.thread_ts) = (Clone::clone(channel_id), Clone::clone(thread_ts));
        }
        job.maybe_sent = may_be_there;
        let outcome = sender.send(&job);
        if let Outcome::Retry(Retry { cause, maybe_sent, .. }) = &outcome
            && (!maybe_sent || *cause == Cause::Server)
        {
            // From then on it is looked for before it is sent again.
            may_be_there |= maybe_sent;
            let again = Instant::now() + again_at(*cause, attempts).since(now());
            if await_turn(orders, sender, again) {
                attempts += 1;
                continue;
            }
            orders.change(|state| state.settled.latest = Some((job.checkpoint, outcome)));
            return;
        }
        (attempts, may_be_there) = (0, false);
        if let Outcome::Posted { channel_id, ts, thread_ts } = &outcome {
            let known = (channel_id.clone(), thread_ts.clone().or_else(|| ts.clone()));
            threads.entry(job.task.id).or_insert(known);
        }
        orders.change(|state| {
            state.loose.pop_front();
            state.settled.lost += usize::from(!matches!(outcome, Outcome::Posted { .. }));
            state.settled.latest = Some((job.checkpoint, outcome));
        });
    }
}

/// Waits until then; false if everything ends before.
fn await_turn(orders: &Orders, sender: &mut Sender, until: Instant) -> bool {
    loop {
        let by = orders.end_by();
        if let Some(by) = by {
            sender.end_by(by);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if left >= sender.time_to_wait() {
            return false;
        }
        orders.pause(left, by.is_some());
    }
}

/// Sends what is due, until it is somebody else's turn; says when to look again, if there is a reason to.
fn send(
    orders: &Orders,
    store: &mut Store,
    sender: &mut Sender,
    (scope, turn): (Scope, Option<Instant>),
) -> Option<Instant> {
    let is_turn = || turn.is_some_and(|turn| turn <= Instant::now());
    let mut claim = store.write(|tx| sender.claim(tx, scope, PATIENCE, now())).ok()?;
    loop {
        match claim {
            Claim::Job(job) => {
                let claimed = sender.attempt(store, &job, |sender: &Sender, tx: &Tx<'_>, at: Moment| {
                    // At the end, what is not ours has its own senders.
                    let is_over = scope == Scope::All && orders.is_ending();
                    if is_over || is_turn() {
                        Ok(Claim::Nothing)
                    } else {
                        sender.claim(tx, scope, PATIENCE, at)
                    }
                });
                claim = claimed.ok()?.1.ok()?;
            }
            Claim::Wait { until, why } => {
                let wait = if why == Why::Held { POLL } else { until.since(now()) };
                let is_worth_it = match &orders.lock().end {
                    // A courier comes after us: only what is under way, or nearly so, is worth the caller's time.
                    Some(end) if !end.persistent => {
                        why != Why::NotDue && wait <= end.soon && has_posts(store, scope)
                    }
                    _ => true,
                };
                return is_worth_it.then(|| Instant::now() + wait);
            }
            Claim::Nothing => return is_turn().then(Instant::now),
        }
    }
}

fn has_posts(store: &mut Store, scope: Scope) -> bool {
    store.read(|tx| tx.has_open_posts(scope)).unwrap_or(false)
}
