//! Waiting for an answer: whoever hears one puts it into the cache, and here it is found.
//!
//! Meanwhile what is due is sent, reminders are given, and the question ends in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

use super::listen::{Hearing, Listener};
use super::{LAST_WORDS, close, poll, start_worker, ways};
use crate::args::BackgroundChoice;
use crate::checkpoint::Draft;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::question::{Answer, Decision};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::child::ignored_signals;
use crate::cmd::guard::Guard;
#[cfg(feature = "postgres")]
use crate::cmd::interact::{Owed, elsewhere};
use crate::cmd::worker::{self, Worker};
use crate::cmd::{DAY, courier, now, record};
use crate::config::Config;
use crate::store::{Put, Scope, Shown, Store, StoreError};
use crate::ui::Ui;

/// How often to look whether the cache has changed.
const LOOK: Duration = Duration::from_millis(50);
/// How often to look into it although it has not: time passes by itself.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// How often to look for what others left behind: nobody else may live who could.
const TIDY: Duration = Duration::from_secs(5);
/// After how long somebody who asks is told that Slack does not have the question.
const UNSHOWN: Duration = Duration::from_secs(5);

/// The signals that end the wait.
#[derive(Debug)]
pub(in crate::cmd) struct Signals {
    arrived: Arc<AtomicUsize>,
}

impl Signals {
    /// Heeds those that were not ignored when we were started. The second one ends us as if nobody heeded it.
    pub(in crate::cmd) fn heed() -> Self {
        let ignored = ignored_signals().unwrap_or(0);
        let (arrived, is_ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if ignored & (1 << (signal - 1)) == 0 {
                // Where that is not possible the signal ends us, and whoever comes next closes the question.
                let _ = flag::register_conditional_default(signal, Arc::clone(&is_ending));
                let _ = flag::register(signal, Arc::clone(&is_ending));
                let number = usize::try_from(signal).unwrap_or_default();
                let _ = flag::register_usize(signal, Arc::clone(&arrived), number);
            }
        }
        Self { arrived }
    }

    pub(in crate::cmd) fn first(&self) -> Option<u8> {
        match self.arrived.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }
}

/// How a wait ended.
#[derive(Debug)]
pub(in crate::cmd) enum Ended {
    Answered(Answer),
    /// This signal came; what we asked ourselves is withdrawn.
    Signal(u8),
    /// Slack refused to show the question, for this reason; it is withdrawn.
    Refused(String),
    /// The question is no longer there.
    Gone,
}

/// Somebody who waits for the answer to a question.
#[derive(Debug)]
pub(in crate::cmd) struct Vigil<'a> {
    config: &'a Arc<Config>,
    ui: &'a Ui,
    store: Store,
    put: Put,
    worker: Option<Worker>,
    remind: Option<(Duration, Moment)>,
    /// Whoever asked also ends the question.
    is_asker: bool,
    /// It was said that Slack does not have the question.
    is_unshown: bool,
    tidied: Instant,
    is_guarded: bool,
    guard: Option<Guard>,
}

impl<'a> Vigil<'a> {
    pub(in crate::cmd) fn new(
        config: &'a Arc<Config>,
        ui: &'a Ui,
        store: Store,
        put: Put,
        remind: Option<Duration>,
        is_asker: bool,
    ) -> Self {
        let worker = start_worker(config, ui);
        let remind = remind
            .filter(|every| !every.is_zero())
            // No agent floods its thread.
            .map(|every| every.max(config.min_interval))
            .map(|every| (every, put.asked.question.asked_at.plus(every)));
        Self {
            config,
            ui,
            store,
            put,
            worker,
            remind,
            is_asker,
            is_unshown: false,
            tidied: Instant::now(),
            is_guarded: false,
            guard: None,
        }
    }

    /// Waits for the end.
    pub(in crate::cmd) fn keep(&mut self, signals: &Signals) -> Result<Ended, StoreError> {
        let mut listener = Listener::new(self.config, self.ui);
        if listener.is_none() {
            poll::start(self.config, self.ui, &self.put);
        }
        #[cfg(feature = "postgres")]
        elsewhere::keep(self.config, self.ui, false, &Owed::default());
        let (mut seen, mut looked) = (None, Instant::now());
        loop {
            if let Some(signal) = signals.first() {
                self.withdraw();
                return Ok(Ended::Signal(signal));
            }
            if !self.store.is_in_place() {
                return Ok(Ended::Gone);
            }
            match self.round(&mut listener, &mut seen, &mut looked) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                // Whoever keeps it so long ends at some time; but nobody waits longer than was said.
                Err(error) if error.busy && !self.put.asked.question.is_over(now()) => {
                    self.ui.detail(&format!("could not look for the answer: {error}"));
                }
                Err(error) => return Err(error),
            }
            thread::sleep(LOOK);
        }
    }

    /// Sees to it that clicks are heard, and looks for the answer where there may be one.
    fn round(
        &mut self,
        listener: &mut Option<Listener>,
        seen: &mut Option<i64>,
        looked: &mut Instant,
    ) -> Result<Option<Ended>, StoreError> {
        if let Some(listening) = listener
            && listening.tick(&mut self.store)? == Hearing::Over
        {
            *listener = None;
            // What Socket Mode cannot tell us is looked for.
            poll::start(self.config, self.ui, &self.put);
        }
        let version = Some(self.store.version_of_data()?);
        if *seen == version && looked.elapsed() < LOOK_ANYWAY {
            return Ok(None);
        }
        if *seen != version {
            self.wake();
        }
        (*seen, *looked) = (version, Instant::now());
        self.tidy();
        self.look()
    }

    /// Withdraws the question if it is ours. Where that fails, whoever comes next closes it: its asker has ended.
    fn withdraw(&mut self) {
        if !self.is_asker {
            return;
        }
        let answer = Answer::withdrawn("interrupted", now());
        match close(&mut self.store, self.config, &self.put, &answer) {
            Ok(true) => self.ui.note("the question is withdrawn"),
            // Somebody was quicker.
            Ok(false) => {}
            Err(error) => {
                // The guard may have better luck.
                self.guard = None;
                let when = "the question is withdrawn by the next call at the latest";
                self.ui.warn(&format!("{when}: {error}"), None);
            }
        }
    }

    /// Ends the questions and tasks of others that have ended without a word.
    fn tidy(&mut self) {
        if self.tidied.elapsed() < TIDY {
            return;
        }
        self.tidied = Instant::now();
        // What cannot be done now is done by whoever comes next.
        if let Ok(true) = record::bury_found(&mut self.store, self.config) {
            self.wake();
        }
    }

    /// Something was recorded, here or by others.
    fn wake(&mut self) {
        match &self.worker {
            Some(worker) => worker.wake(),
            None => drop(courier::leave_the_rest(&mut self.store, self.config, self.ui)),
        }
    }

    fn look(&mut self) -> Result<Option<Ended>, StoreError> {
        let id = self.put.asked.question.id;
        let (answer, shown) = self.store.read(|tx| {
            let answer = match tx.question(id)? {
                Some(put) => Some(put.asked.answer),
                None => None,
            };
            Ok((answer, tx.shown(&self.put)?))
        })?;
        if self.is_asker && !self.is_guarded && matches!(answer, Some(None)) {
            // While the question is on its way, so that nobody sees it later for this; that it has arrived is not always known.
            (self.is_guarded, self.guard) = (true, Guard::post(self.config, self.ui));
        }
        match (answer, shown) {
            (None, _) => return Ok(Some(Ended::Gone)),
            (Some(Some(answer)), _) => return Ok(Some(Ended::Answered(answer))),
            (Some(None), Shown::Refused(reason)) if self.is_asker => {
                let answer = Answer::withdrawn("it could not be shown", now());
                close(&mut self.store, self.config, &self.put, &answer)?;
                return Ok(Some(Ended::Refused(reason)));
            }
            (Some(None), Shown::Waiting) => self.tell_unshown(),
            (Some(None), _) => {}
        }
        let question = &self.put.asked.question;
        let at = now();
        if question.is_over(at) {
            let answer = Answer { at: question.expires_at, ..Answer::bare(Decision::TimedOut, at) };
            close(&mut self.store, self.config, &self.put, &answer)?;
            self.wake();
            // Somebody may have been quicker.
            return Ok(self.store.read(|tx| tx.answer(id))?.map(Ended::Answered));
        }
        if let Some((every, next)) = self.remind
            && at >= next
        {
            self.remind = Some((every, next.plus(every).max(at)));
            self.remind_of_it(at)?;
        }
        Ok(None)
    }

    /// Says once that nobody can see the question in Slack yet, and what helps.
    fn tell_unshown(&mut self) {
        let question = &self.put.asked.question;
        if self.is_unshown || !self.is_asker || now() < question.asked_at.plus(UNSHOWN) {
            return;
        }
        self.is_unshown = true;
        let hint = format!(
            "run agent-checkpoint answer {} {}; agent-checkpoint doctor tells whether Slack can be reached",
            question.id,
            ways(question)
        );
        self.ui.warn("the question is not in Slack yet: only the command line can answer it", Some(&hint));
    }

    /// Says in the thread that the question is still open.
    fn remind_of_it(&mut self, at: Moment) -> Result<(), StoreError> {
        let question = &self.put.asked.question;
        let policy = record::policy(self.config);
        let text = format!("Still waiting for an answer, {} left: {}", question.time_left(at), question.text);
        self.store.write(|tx| {
            let task = tx.task(self.put.task)?;
            let draft = Draft {
                action: Some(text),
                within: Some(task.id),
                ..Draft::bare(CheckpointId::new(at), task.agent_id, Status::WaitingApproval)
            };
            record::record(tx, &draft, &policy, at)
        })?;
        self.wake();
        Ok(())
    }

    /// Has the end shown in Slack, as far as there is time; a courier does the rest.
    pub(in crate::cmd) fn finish(mut self) {
        // Whoever acts on the answer is waiting.
        let (time, soon) = match self.config.background {
            BackgroundChoice::Never => (self.config.deadline.min(DAY), LOOK),
            _ => (self.config.deadline.min(LAST_WORDS), Duration::ZERO),
        };
        if let Some(worker) = self.worker.take() {
            let scopes = vec![Scope::Task(self.put.task)];
            worker.finish(worker::End { by: Instant::now() + time, persistent: false, soon, scopes });
        }
        courier::leave_the_rest(&mut self.store, self.config, self.ui);
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}
