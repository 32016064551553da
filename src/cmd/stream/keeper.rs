//! The cache of a process that writes to it for a long time: opened again when it was replaced meanwhile, and tried
//! again when it could not be used.

use std::time::{Duration, Instant};

use crate::cmd::{BUSY_MAX, open, unpack};
use crate::config::Config;
use crate::store::{Store, StoreError, Tx};
use crate::ui::Ui;

/// How long to go on without a cache before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps a cache open as well as that goes.
pub(super) struct Keeper<'a> {
    config: &'a Config,
    ui: &'a Ui,
    store: Option<Store>,
    failed_at: Instant,
}

impl<'a> Keeper<'a> {
    /// Opens the cache, or says why that cannot be.
    pub(super) fn open(config: &'a Config, ui: &'a Ui) -> Self {
        let mut keeper = Self { config, ui, store: None, failed_at: Instant::now() };
        if let Err(error) = keeper.reopen() {
            keeper.give_up(&error);
        }
        keeper
    }

    pub(super) fn store(&mut self) -> Option<&mut Store> {
        self.store.as_mut()
    }

    /// Runs `work` in a transaction that is durable when this returns; `None` without a cache, which was said.
    pub(super) fn write<T>(&mut self, work: impl Fn(&Tx<'_>) -> Result<T, StoreError>) -> Option<T> {
        match &self.store {
            Some(store) if store.is_in_place() => {}
            Some(_) => {
                self.store = None;
                if let Err(error) = self.reopen() {
                    self.give_up(&error);
                }
            }
            None if self.failed_at.elapsed() < AGAIN => return None,
            None => match self.reopen() {
                Ok(()) => self.ui.warn("the cache can be used again", None),
                Err(_) => self.failed_at = Instant::now(),
            },
        }
        let mut store = self.store.take()?;
        let mut written = store.write(&work);
        if matches!(&written, Err(error) if error.corrupt) {
            match store.start_afresh() {
                Ok(opened) => store = unpack(opened, self.ui),
                Err(error) => {
                    self.give_up(&error.to_string());
                    return None;
                }
            }
            store.keep_statements();
            written = store.write(&work);
        }
        match written {
            Ok(value) => {
                self.store = Some(store);
                Some(value)
            }
            Err(error) => {
                self.give_up(&format!("could not write to cache {}: {error}", store.path().display()));
                None
            }
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        let mut store = open(self.config, self.ui, BUSY_MAX).map_err(|error| error.to_string())?;
        store.keep_statements();
        self.store = Some(store);
        Ok(())
    }

    fn give_up(&mut self, error: &str) {
        self.failed_at = Instant::now();
        self.ui.warn(&format!("{error}; going on without state"), Some("run agent-checkpoint doctor"));
    }
}
