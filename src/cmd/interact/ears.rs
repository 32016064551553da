//! Hearing of several things at once: what waits for a database keeps nobody else from being answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::{now, open_quietly};
use super::{Reply, handle};
use crate::config::Config;
use crate::interaction::wire::Interaction;
use crate::store::Store;

/// How many connections to the cache are kept that nobody is using.
const IDLE_MAX: usize = 2;

/// The cache as several threads hear by it, each by a connection of its own: it has the writers take turns.
pub(in crate::cmd) struct Ears {
    config: Arc<Config>,
    busy: Duration,
    idle: Mutex<Vec<Store>>,
}

impl Ears {
    /// `busy` says how long a turn of the cache is waited for.
    pub(in crate::cmd) fn new(config: &Arc<Config>, busy: Duration) -> Self {
        Self { config: Arc::clone(config), busy, idle: Mutex::default() }
    }

    /// Does what somebody wants; `None` if it could not be stored, and is not to be acknowledged.
    pub(in crate::cmd) fn hear(&self, interaction: &Interaction) -> Option<Reply> {
        let idle = {
            let mut idle = self.idle();
            idle.retain(Store::is_in_place);
            idle.pop()
        };
        let mut store = idle.or_else(|| open_quietly(&self.config, self.busy))?;
        let reply = handle(&mut store, &self.config, interaction, now()).ok()?;
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(store);
        }
        Some(reply)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Store>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
