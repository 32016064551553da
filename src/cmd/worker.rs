//! The worker: a thread that sends what a long-lived process records, so that nothing waits for the network but it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::deliver::{PATIENCE, Sender, again_at};
use super::{BUSY_MAX, now};
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::outbox::Job;
use crate::checkpoint::time::Moment;
use crate::delivery::{Outcome, Retry};
use crate::store::{Claim, Scope, Store, Tx, Why};

/// The longest that a worker sleeps without looking, in case another process has left it something.
const REST_MAX: Duration = Duration::from_secs(30);
/// How often to look whether another process is done with what it is sending.
const POLL: Duration = Duration::from_millis(20);
/// How long a process that is about to end waits for a turn within Slack's limits.
const SOON: Duration = Duration::from_millis(250);
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
    /// Messages that could not be recorded, to be sent once.
    loose: Vec<Job>,
    /// What became of the latest of them.
    loose_outcome: Option<(CheckpointId, Outcome)>,
    /// From then on nothing more will be recorded.
    end: Option<End>,
    done: bool,
}

/// How a worker ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) by: Instant,
    /// Whether to go on with what failed, or is not due, for as long as there is time.
    pub(super) persistent: bool,
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

    /// Waits until told to end, or then; says when everything ends.
    fn pause(&self, until: Instant) -> Option<Instant> {
        let wait = until.saturating_duration_since(Instant::now());
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), wait, |state| state.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.end.as_ref().map(|end| end.by)
    }

    /// Whether there is a later message of the same task that could not be recorded either.
    fn has_later(&self, job: &Job) -> bool {
        self.lock().loose.iter().any(|later| later.task.id == job.task.id)
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
    /// Starts a worker that sends by `sender`; from the cache at `path` if there is one.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(sender: Sender, path: Option<&Path>) -> std::io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let (theirs, path) = (Arc::clone(&orders), path.map(Path::to_owned));
        let thread = thread::Builder::new().name("worker".to_owned()).stack_size(STACK).spawn(move || {
            work(&theirs, sender, path.as_deref());
            theirs.change(|state| state.done = true);
        })?;
        Ok(Self { orders, thread })
    }

    /// Something was recorded.
    pub(super) fn wake(&self) {
        self.orders.change(|state| (state.woken, state.has_records) = (true, true));
    }

    /// Sends a message that could not be recorded.
    pub(super) fn send_loose(&self, job: Job) {
        self.orders.change(|state| {
            state.woken = true;
            state.loose.push(job);
        });
    }

    /// Lets the worker send what is due, and returns then, or in time. Says what became of the latest message that could
    /// not be recorded.
    pub(super) fn finish(self, end: End) -> Option<(CheckpointId, Outcome)> {
        let wait = end.by.saturating_duration_since(Instant::now());
        self.orders.change(|state| (state.woken, state.end) = (true, Some(end)));
        let (mut state, _) = self
            .orders
            .changed
            .wait_timeout_while(self.orders.lock(), wait, |state| !state.done)
            .unwrap_or_else(PoisonError::into_inner);
        let outcome = state.loose_outcome.take();
        // One that is still in the middle of a call is left behind: what it sends is looked for before it is sent again.
        if state.done {
            drop(state);
            let _ = self.thread.join();
        }
        outcome
    }
}

fn work(orders: &Orders, mut sender: Sender, path: Option<&Path>) {
    let mut store = None;
    let mut threads = HashMap::new();
    loop {
        let (loose, has_records, end) = {
            let mut state = orders.lock();
            (std::mem::take(&mut state.loose), state.has_records, state.end.clone())
        };
        if let Some(end) = &end {
            sender.end_by(end.by);
        }
        for mut job in loose {
            if let Some((channel_id, thread_ts)) = threads.get(&job.task.id) {
                (job.task.channel_id, job.task.thread_ts) =
                    (Clone::clone(channel_id), Clone::clone(thread_ts));
            }
            let outcome = send_loose(orders, &mut sender, &job);
            if let Outcome::Posted { channel_id, ts, thread_ts } = &outcome
                && !threads.contains_key(&job.task.id)
            {
                let known = (channel_id.clone(), thread_ts.clone().or_else(|| ts.clone()));
                threads.insert(job.task.id, known);
            }
            orders.change(|state| state.loose_outcome = Some((job.checkpoint, outcome)));
        }
        if let (None, Some(path), true) = (&store, path, has_records) {
            store = Store::open_at(path, BUSY_MAX).ok().map(|opened| opened.store);
        }
        let next = match (&mut store, end) {
            (Some(store), Some(end)) => {
                for scope in &end.scopes {
                    while let Some(next) = send(orders, store, &mut sender, *scope)
                        && next < end.by
                    {
                        orders.rest(next);
                    }
                }
                return;
            }
            (None, Some(_)) => return,
            (Some(store), None) => send(orders, store, &mut sender, Scope::All),
            (None, None) => None,
        };
        orders.rest(next.unwrap_or_else(|| Instant::now() + REST_MAX));
    }
}

/// Tries until it is sent, may have been sent, is out of date, or there is no time left.
fn send_loose(orders: &Orders, sender: &mut Sender, job: &Job) -> Outcome {
    let mut attempts = 0;
    loop {
        let outcome = sender.send(job);
        let Outcome::Retry(Retry { cause, maybe_sent: false, .. }) = &outcome else { return outcome };
        let wait = again_at(*cause, attempts).since(now());
        let again = Instant::now() + wait;
        if let Some(end) = orders.pause(again) {
            sender.end_by(end);
            let left = again.saturating_duration_since(Instant::now());
            if left >= sender.time_to_wait() {
                return outcome;
            }
            thread::sleep(left);
        }
        if orders.has_later(job) {
            return outcome;
        }
        attempts += 1;
    }
}

/// Sends what is due; says when to look again, if there is a reason to.
fn send(orders: &Orders, store: &mut Store, sender: &mut Sender, scope: Scope) -> Option<Instant> {
    let mut claim = store.write(|tx| sender.claim(tx, scope, PATIENCE, now())).ok()?;
    loop {
        match claim {
            Claim::Job(job) => {
                let claimed = sender.attempt(store, &job, |sender: &Sender, tx: &Tx<'_>, at: Moment| {
                    // At the end, what is not ours has its own senders.
                    let is_over = scope == Scope::All && orders.is_ending();
                    if is_over { Ok(Claim::Nothing) } else { sender.claim(tx, scope, PATIENCE, at) }
                });
                claim = claimed.ok()?.1.ok()?;
            }
            Claim::Wait { until, why } => {
                let wait = if why == Why::Held { POLL } else { until.since(now()) };
                let is_worth_it = match &orders.lock().end {
                    // A courier comes after us: only what is under way, or nearly so, is worth the caller's time.
                    Some(end) if !end.persistent => {
                        why != Why::NotDue && wait <= SOON && has_posts(store, scope)
                    }
                    _ => true,
                };
                return is_worth_it.then(|| Instant::now() + wait);
            }
            Claim::Nothing => return None,
        }
    }
}

fn has_posts(store: &mut Store, scope: Scope) -> bool {
    store.read(|tx| tx.has_open_posts(scope)).unwrap_or(false)
}
