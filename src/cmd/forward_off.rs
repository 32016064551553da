//! Without the feature `postgres` there is no database to forward to.

use std::time::Instant;

use crate::checkpoint::id::CheckpointKey;
use crate::checkpoint::time::Moment;
use crate::config::Config;
use crate::store::{Store, StoreError, Tx};

/// Forwards rows to a database: there is never one.
#[derive(Debug)]
pub(super) enum Forwarder {}

/// Why forwarding stopped.
#[derive(Debug)]
#[expect(dead_code, reason = "who asks is written for a program with a database")]
pub(super) enum Stop {
    Cache(StoreError),
    Database(()),
    Crowded,
}

/// What became of rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) sent: u64,
    pub(super) refused: u64,
}

impl Stop {
    pub(super) fn words(&self) -> Option<(String, String)> {
        None
    }

    pub(super) fn needs_somebody(&self) -> bool {
        false
    }
}

/// Rows that a database does not have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsent {
    pub(super) waiting: u64,
}

impl Forwarder {
    pub(super) fn new(_config: &Config) -> Option<Self> {
        None
    }

    pub(super) fn name(&self) -> &str {
        match *self {}
    }

    pub(super) fn due(&self, _tx: &Tx<'_>, _at: Moment) -> Result<Option<Moment>, StoreError> {
        match *self {}
    }

    pub(super) fn held_until(&self, _tx: &Tx<'_>, _at: Moment) -> Result<Option<Moment>, StoreError> {
        match *self {}
    }

    pub(super) fn unsent(&self, _store: &mut Store) -> Result<Unsent, StoreError> {
        match *self {}
    }

    pub(super) fn refusals(&self, _store: &mut Store) -> Result<Vec<String>, StoreError> {
        match *self {}
    }

    pub(super) fn is_behind(&self, _store: &mut Store, _rejected: bool) -> Result<bool, StoreError> {
        match *self {}
    }

    pub(super) fn has(&self, _tx: &Tx<'_>, _checkpoint: CheckpointKey) -> Result<bool, StoreError> {
        match *self {}
    }

    pub(super) fn catch_up(&self, _store: &mut Store, _deadline: Instant) -> Result<Option<Moment>, Stop> {
        match *self {}
    }

    pub(super) fn pass(
        &self,
        _store: &mut Store,
        _rejected: bool,
        _deadline: Instant,
        _progress: &mut dyn FnMut(u64),
    ) -> Result<Told, Stop> {
        match *self {}
    }
}
