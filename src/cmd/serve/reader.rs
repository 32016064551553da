//! What `serve` reads, from the cache: the same that `tasks`, `show` and `metrics` read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use serde_json::json;

use super::super::{BUSY_MIN, about_cache, metrics, now, open, record, tasks};
use crate::checkpoint::metrics::{Totals, every_day, first_of};
use crate::checkpoint::status::TaskState;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::render::prometheus;
use crate::serve::{Ask, Form, Source, Unread};
use crate::store::{Roll, Store, StoreError, TaskReport};
use crate::ui::Ui;

/// The cache as several threads read it at once, each by a connection of its own.
///
/// Where a database is configured, that is read instead (`fleet.rs`); `mod.rs` is where one of them is chosen.
pub(super) struct Cache {
    config: Arc<Config>,
    ui: Ui,
    /// Connections that nobody is using.
    idle: Mutex<Vec<Reader>>,
    watch: Mutex<Watch>,
}

/// A connection, and the lists that were read by it.
struct Reader {
    store: Store,
    rolls: Vec<(Option<TaskState>, Roll)>,
}

/// Tells whether anything was written. SQLite counts for each connection apart, so that one of them does it for all.
#[derive(Default)]
struct Watch {
    store: Option<Store>,
    seen: i64,
    version: u64,
}

impl Watch {
    fn look(&mut self) -> Option<u64> {
        let store = self.store.take_if(|store| store.is_in_place())?;
        // It is taken back only if it can be read.
        let seen = store.version_of_data().ok()?;
        if seen != self.seen {
            self.seen = seen;
            self.version += 1;
        }
        self.store = Some(store);
        Some(self.version)
    }

    fn begin(&mut self, store: Store) {
        self.store = Some(store);
        self.version += 1;
    }
}

impl Cache {
    pub(super) fn new(config: Arc<Config>, ui: Ui, store: Store) -> Self {
        let mut watch = Watch::default();
        watch.begin(store);
        Self { config, ui, idle: Mutex::default(), watch: Mutex::new(watch) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Store, Failure> {
        let opened = open(&self.config, &self.ui, BUSY_MIN);
        let mut store = opened.map_err(|error| {
            Failure::new(Exit::Failed, error.to_string()).hint("run agent-checkpoint doctor where serve runs")
        })?;
        store.keep_statements();
        Ok(store)
    }

    /// Reads by a connection of the file that is in place now.
    fn with<T>(&self, read: impl FnOnce(&mut Reader) -> Result<T, StoreError>) -> Result<T, Failure> {
        let reader = {
            let mut idle = self.idle();
            idle.retain(|reader| reader.store.is_in_place());
            idle.pop()
        };
        let mut reader = match reader {
            Some(reader) => reader,
            None => Reader { store: self.open()?, rolls: Vec::new() },
        };
        if self.watch().store.is_none() {
            let fresh = self.open()?;
            self.watch().begin(fresh);
        }
        let value =
            read(&mut reader).map_err(|error| Failure::from(about_cache(error.into(), &self.config)))?;
        self.idle().push(reader);
        Ok(value)
    }

    fn answer(&self, reader: &mut Reader, ask: &Ask) -> Result<Option<Bytes>, StoreError> {
        let Reader { store, rolls } = reader;
        self.bury(store)?;
        let text = match ask {
            Ask::Tasks { state, limit } => {
                let index = rolls.iter().position(|(kept, _)| kept == state).unwrap_or_else(|| {
                    rolls.push((*state, Roll::default()));
                    rolls.len() - 1
                });
                let reports = store.read(|tx| {
                    let mut reports = tx.list_by(&mut rolls[index].1, *state, *limit)?;
                    tasks::hold_all_back(tx, &mut reports, &self.config)?;
                    Ok(reports)
                })?;
                Some(list(&reports))
            }
            Ask::Task(agent) => store.read(|tx| {
                let Some(mut report) = tx.find(agent)? else { return Ok(None) };
                report.waiting.iter_mut().try_for_each(|wait| tasks::hold_back(tx, wait, &self.config))?;
                let artifacts = report.task.key.map(|key| tx.artifact_count(key)).transpose()?;
                Ok(Some(one(&report, artifacts.unwrap_or_default())))
            })?,
            Ask::Metrics { days, form } => {
                let at = now();
                let first = first_of(*days, at);
                let days = every_day(first, &store.read(|tx| tx.totals(first))?, at);
                Some(totals(&days, *form))
            }
        };
        Ok(text.map(Bytes::from))
    }

    /// Looks for commands of this machine that were lost and for questions that nobody waits for any more, as every command
    /// does that a person waits for.
    fn bury(&self, store: &mut Store) -> Result<(), StoreError> {
        if record::has_lost(store)? {
            record::bury_all(store, &self.config, &self.ui);
        }
        Ok(())
    }

    /// Only looks for what was lost.
    #[cfg(feature = "postgres")]
    pub(super) fn look_for_lost(&self) {
        // Whoever reads elsewhere is not stopped by a cache that cannot be read.
        let _ = self.with(|reader| self.bury(&mut reader.store));
    }
}

/// The body of a list.
pub(super) fn list(reports: &[TaskReport]) -> String {
    tasks::list_json(reports).to_string() + "\n"
}

/// The body about one task.
pub(super) fn one(report: &TaskReport, artifacts: u64) -> String {
    let json = json!({
        "task": tasks::task_json(report),
        "checkpoints": report.checkpoints,
        "artifacts": artifacts,
    });
    json.to_string() + "\n"
}

/// The body about days.
pub(super) fn totals(days: &[Totals], form: Form) -> String {
    match form {
        Form::Json => metrics::list_json(days).to_string() + "\n",
        Form::Text => prometheus::page(days, false),
        Form::OpenMetrics => prometheus::page(days, true),
    }
}

impl Source for Cache {
    fn version(&self) -> Option<u64> {
        self.watch().look()
    }

    fn read(&self, ask: &Ask) -> Result<Option<Bytes>, Unread> {
        Ok(self.with(|reader| self.answer(reader, ask))?)
    }
}
