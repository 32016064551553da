//! `flush` to the audit trail: everything that waits, as fast as the database takes it.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cmd::forward::{Forwarder, Stop, Told};
use crate::cmd::now;
use crate::config::Config;
use crate::delivery::retry;
use crate::exit::Exit;
use crate::store::{Store, StoreError};
use crate::ui::Ui;

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// What an attempt takes at least.
const ATTEMPT_MIN: Duration = Duration::from_millis(500);

/// What becomes of the rows that wait.
pub(super) struct TrailFlush {
    /// `None` when no database is configured.
    forwarder: Option<Forwarder>,
    rejected: bool,
    deadline: Option<Instant>,
    told: Told,
    waiting: u64,
    /// Why the first of those were refused that were.
    reasons: Vec<String>,
    failures: u32,
    /// What stopped it last.
    stop: Option<Stop>,
}

impl TrailFlush {
    pub(super) fn new(config: &Config, rejected: bool, deadline: Option<Instant>) -> Self {
        let forwarder = Forwarder::new(config);
        let told = Told::default();
        Self { forwarder, rejected, deadline, told, waiting: 0, reasons: Vec::new(), failures: 0, stop: None }
    }

    fn by(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + FOR_EVER)
    }

    /// Tries once.
    pub(super) fn tell(&mut self, store: &mut Store, ui: &Ui) -> Result<(), StoreError> {
        let by = self.by();
        let Some(forwarder) = &self.forwarder else { return Ok(()) };
        if !forwarder.is_behind(store, self.rejected)? {
            self.stop = None;
            return Ok(());
        }
        let all = forwarder.unsent(store)?.waiting;
        let shows = ui.shows_progress();
        let mut shown = false;
        let passed = forwarder.pass(store, self.rejected, by, &mut |done| {
            if shows {
                shown = true;
                ui.progress("forwarding", done, all.max(done));
            }
        });
        if shown {
            ui.end_progress();
        }
        match passed {
            Ok(told) => {
                self.rejected = false;
                (self.told.sent, self.told.refused) =
                    (self.told.sent + told.sent, self.told.refused + told.refused);
                self.stop = None;
            }
            Err(Stop::Cache(error)) => return Err(error),
            Err(stop) => {
                // What went through before it stopped is there.
                self.told.sent += all.saturating_sub(forwarder.unsent(store)?.waiting);
                self.stop = Some(stop);
            }
        }
        self.waiting = forwarder.unsent(store)?.waiting;
        if self.told.refused > 0 {
            self.reasons = forwarder.refusals(store)?;
        }
        Ok(())
    }

    /// Tries until nothing is left, the deadline is over, or somebody has to mend something first.
    pub(super) fn tell_all(&mut self, store: &mut Store, ui: &Ui) -> Result<(), StoreError> {
        // Another attempt without time would only hide why the one before failed.
        if self.stop.is_some() && self.by().saturating_duration_since(Instant::now()) < ATTEMPT_MIN {
            return Ok(());
        }
        loop {
            self.tell(store, ui)?;
            match &self.stop {
                None => return Ok(()),
                Some(stop) if stop.needs_somebody() => return Ok(()),
                Some(_) => {}
            }
            let wait = retry::network_rest(self.failures, now()).since(now());
            if wait + ATTEMPT_MIN >= self.by().saturating_duration_since(Instant::now()) {
                return Ok(());
            }
            if self.failures == 0
                && let Some((message, _)) = self.stop.as_ref().and_then(Stop::words)
            {
                ui.note(&format!("waiting for the audit trail's database: {message}"));
            }
            self.failures += 1;
            thread::sleep(wait);
        }
    }

    /// The answer's part for programs; null without a database.
    pub(super) fn json(&self) -> Value {
        match self.forwarder {
            None => Value::Null,
            Some(_) => json!({
                "sent": self.told.sent,
                "rejected": self.told.refused,
                "waiting": self.waiting,
            }),
        }
    }

    /// The answer's line for people, where there is anything to say.
    pub(super) fn answer(&self, ui: &Ui) -> anyhow::Result<()> {
        let Told { sent, refused } = self.told;
        if sent + refused + self.waiting > 0 {
            let line = format!("audit trail: {sent} sent, {refused} refused, {} still waiting", self.waiting);
            ui.answer(&line)?;
        }
        Ok(())
    }

    /// Says what is wrong, and what that is for the caller.
    pub(super) fn complain(&self, ui: &Ui) -> Exit {
        if self.told.refused > 0 {
            let reasons = self.reasons.join("; ");
            let message = format!("the database refused {} rows for good: {reasons}", self.told.refused);
            let hint = "once the cause is mended, run agent-checkpoint flush --rejected";
            ui.wrong(&message, Some(hint));
        }
        match &self.stop {
            Some(stop) => {
                let (message, hint) = stop.words().unwrap_or_else(|| {
                    let hint = "run flush again later".to_owned();
                    ("others are telling the audit trail all the time".to_owned(), hint)
                });
                ui.wrong(&format!("the audit trail is not up to date: {message}"), Some(&hint));
                if stop.needs_somebody() { Exit::Config } else { Exit::NotYet }
            }
            None if self.told.refused > 0 => Exit::Config,
            None => Exit::Done,
        }
    }
}
