//! Looking into the database for what people on other machines said to this cache: one process of all that share it.
//!
//! A thread of its own, with a connection of its own, so that nothing waits for it: no exit, no click that is heard here.
//! The connection stays open while there is something to look for, since to open it costs a server far more than a look;
//! each look is one statement in a transaction, so that a pooler has no server to keep for it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Called, Taken, take};
use crate::audit::connect::Client;
use crate::checkpoint::id::{TaskId, TaskKey};
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::interact::Owed;
use crate::cmd::{BUSY_MAX, courier, jitter, now, open_quietly};
use crate::config::Config;
use crate::store::{Owner, Put, Store};
use crate::ui::Ui;

/// How often to look while somebody waits for an answer, give or take a quarter.
const LOOK: Duration = Duration::from_secs(2);
/// How often otherwise: whether a command is to end.
const LOOK_FOR_CANCELS: Duration = Duration::from_secs(15);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long the office lasts without a sign of life; shorter than the time between two looks that nothing hurries, so
/// that whoever is in a hurry can have it.
const OFFICE: Duration = Duration::from_secs(10);
/// The stack: it speaks TLS.
const STACK: usize = 512 * 1024;

/// Starts to look, until this process ends. With `leaves`, a courier does what follows, since nobody else here does.
pub(in crate::cmd) fn keep(config: &Arc<Config>, ui: &Ui, leaves: bool, owed: &Owed) {
    let Some(mut looker) = Looker::new(config, ui) else { return };
    let owed = owed.clone();
    // Without it answers by all other ways are heard all the same.
    let _ = thread::Builder::new().name("elsewhere".to_owned()).stack_size(STACK).spawn(move || {
        let mut store = None;
        loop {
            thread::sleep(LOOK.mul_f64(0.75 + jitter().clamp(0.0, 1.0) / 2.0));
            if store.as_ref().is_none_or(|store: &Store| !store.is_in_place()) {
                store = open_quietly(&looker.config, BUSY_MAX);
            }
            let Some(store) = &mut store else { continue };
            let _debt = owed.owe();
            match looker.look(store) {
                Ok(taken) => looker.follow(store, &taken, leaves),
                Err(stop) => looker.report(&stop),
            }
        }
    });
}

/// Looks once for what was said to a question.
pub(in crate::cmd) fn look_once(config: &Arc<Config>, ui: &Ui, store: &mut Store, put: &Put) {
    let Some(mut looker) = Looker::new(config, ui) else { return };
    let Ok(task) = store.read(|tx| tx.task(put.task)) else { return };
    let deadline = Instant::now() + config.deadline.min(LOOK_MAX);
    match looker.ask(store, &[(put.task, task.id)], deadline) {
        Ok(taken) => looker.follow(store, &taken, true),
        Err(stop) => looker.report(&stop),
    }
}

struct Looker {
    config: Arc<Config>,
    ui: Ui,
    forwarder: Forwarder,
    owner: Owner,
    client: Option<Client>,
    /// When the office was last taken.
    taken: Option<Instant>,
    looked: Option<Instant>,
}

impl Looker {
    /// `None` without a database.
    fn new(config: &Arc<Config>, ui: &Ui) -> Option<Self> {
        Some(Self {
            forwarder: Forwarder::new(config)?,
            config: Arc::clone(config),
            ui: ui.clone(),
            owner: Owner::current(now()),
            client: None,
            taken: None,
            looked: None,
        })
    }

    /// Looks if it is time, there is something to look for, and nobody else does.
    fn look(&mut self, store: &mut Store) -> Result<Vec<Taken>, Stop> {
        let (asking, watched, is_held) = store.read(|tx| {
            let at = now();
            let is_held = self.forwarder.held_until(tx, at)?.is_some();
            Ok((tx.asking_tasks(at)?, tx.watched_tasks()?, is_held))
        })?;
        let is_urgent = !asking.is_empty();
        let is_due = is_urgent || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_FOR_CANCELS);
        let mut tasks = asking;
        tasks.extend(watched);
        if tasks.is_empty() {
            self.leave(store)?;
            return Ok(Vec::new());
        }
        if is_held || !is_due || !self.is_in_office(store)? {
            return Ok(Vec::new());
        }
        self.looked = Some(Instant::now());
        let taken = self.ask(store, &tasks, Instant::now() + LOOK_MAX);
        if !is_urgent {
            self.client = None;
        }
        taken
    }

    /// Asks the database, over the connection that there is as long as it is of use.
    fn ask(
        &mut self,
        store: &mut Store,
        tasks: &[(TaskKey, TaskId)],
        deadline: Instant,
    ) -> Result<Vec<Taken>, Stop> {
        // Some process here answers for each.
        let called = |&(key, id)| Called { key, id, goes_on_elsewhere: false };
        let tasks: Vec<Called> = tasks.iter().map(called).collect();
        if let Some(client) = &mut self.client {
            match take(store, &self.forwarder, client, &tasks, deadline) {
                Ok(taken) => return Ok(taken),
                // The server or a pooler may have ended it meanwhile, which says nothing of another one.
                Err(Stop::Database(_)) => self.client = None,
                Err(stop) => return Err(stop),
            }
        }
        let asked = self.forwarder.call(deadline).and_then(|mut client| {
            let taken = take(store, &self.forwarder, &mut client, &tasks, deadline)?;
            Ok((client, taken))
        });
        let (client, taken) = self.forwarder.remember(store, asked)?;
        self.client = Some(client);
        Ok(taken)
    }

    fn is_in_office(&mut self, store: &mut Store) -> Result<bool, Stop> {
        if self.taken.is_some_and(|taken| taken.elapsed() < OFFICE / 2) {
            return Ok(true);
        }
        let office = self.forwarder.ears();
        let at = now();
        let is_ours =
            store.write_relaxed(|tx| tx.appoint_courier(&office, &self.owner, at, at.plus(OFFICE)))?;
        self.taken = is_ours.then(Instant::now);
        if !is_ours {
            self.client = None;
        }
        Ok(is_ours)
    }

    fn leave(&mut self, store: &mut Store) -> Result<(), Stop> {
        self.client = None;
        if self.taken.take().is_some() {
            let office = self.forwarder.ears();
            store.write_relaxed(|tx| tx.leave_office(&office, &self.owner))?;
        }
        Ok(())
    }

    fn report(&self, stop: &Stop) {
        match (stop.words(), stop) {
            (Some((message, _)), _) => {
                self.ui.detail(&format!("could not look for answers from elsewhere: {message}"));
            }
            (None, Stop::Cache(error)) => self.ui.detail(&format!("could not use the cache: {error}")),
            (None, _) => {}
        }
    }

    /// Tells people what came of what they did, and sees to it that others hear of it.
    fn follow(&self, store: &mut Store, taken: &[Taken], leaves: bool) {
        if leaves && !taken.is_empty() {
            courier::leave_and_go_on(store, &self.config, &self.ui);
        }
        self.forwarder.rules().tell(store, taken, None);
    }
}
