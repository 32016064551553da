//! `run`: wrap a command and report its start, its progress and its end, whatever becomes of it and of us.
//!
//! This thread looks after the command and does nothing else; the reporter writes down and has sent.

mod draft;
mod news;
mod reporter;

use std::ffi::OsString;
use std::fs::File;
use std::sync::mpsc::{self, Receiver, Sender as Mouth, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::dup2_stderr;

use self::news::{Ending, News, Place, Report, Voice, Word};
use super::receipt::Audited;
use super::{BUSY_MAX, configure, courier, handover, open, report_problems, wrapper};
use crate::args::{BackgroundChoice, GlobalArgs, RunArgs};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::time::spoken;
use crate::child::{
    Child, Copying, Ears, Ended, Event, Exit as ChildExit, Limit, Plan, Program, Shown, SpawnFailure,
    Unstarted, signal_name,
};
use crate::config::{Config, Flags, Supervision, Target};
use crate::delivery::Destination;
use crate::exit::Exit;
use crate::fault;
use crate::render::console;
use crate::ui::Ui;

/// How long the command waits for its task to be known, so that it can be told; it starts all the same.
const PLACE_MAX: Duration = Duration::from_millis(3);
/// The most of a tail that is kept, in bytes.
const TAIL_BYTES: usize = 64 * 1024;
/// What of the output before it is looked at as well, in bytes: no credential that begins there may escape.
const TAIL_CONTEXT: usize = 8 * 1024;
/// How much longer than an interrupt, after the command's end, its output may take to be read.
const CUT_AFTER: Duration = Duration::from_secs(1);
/// The reporter's stack.
const STACK: usize = 512 * 1024;

/// What the reporter needs to know beside what happens.
#[derive(Debug)]
pub(super) struct Settings {
    config: Arc<Config>,
    ui: Ui,
    /// The agent was named after its parent: another command of that name may run at the same time.
    is_named_after_parent: bool,
    /// Somebody hears of a click on a button to cancel it: we, or a server of the app's.
    is_cancellable: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &RunArgs) -> anyhow::Result<Exit> {
    let flags = Flags {
        heartbeat: args.heartbeat,
        timeout: args.timeout,
        kill_after: args.kill_after,
        tail: args.tail,
        pattern: args.progress_regex.clone(),
        ..Flags::of(args.identity.clone(), args.delivery.clone())
    };
    let (mut config, ui) = configure(global, flags)?;
    report_problems(&config, &ui);
    if wrapper::is_launched() {
        // The server that has read it until now may end long before the command.
        let _ = File::options().write(true).open("/dev/null").map(dup2_stderr);
    }
    let masker = draft::masker(&config, std::env::vars_os(), &args.command);
    let mut named = None;
    let parent = wrapper::parent();
    if parent.is_some() {
        // Inside another run the surroundings speak of that one.
        if args.identity.thread.is_none() {
            config.thread = None;
        }
        if args.identity.agent_id.is_none() {
            named = config.agent_id.as_ref().map(|parent| draft::name_after(parent, &args.command));
        }
    }
    let start = draft::start(args, &config, &masker, parent, named.as_deref());
    let thread = start.thread.as_ref().map(|thread| format!("{}:{}", thread.channel, thread.ts));
    let expected = Place { agent_id: start.agent_id.clone(), task: start.opens, thread };
    let is_cancellable = matches!(&config.target, Target::Slack(Destination::Bot { .. }))
        && !config.no_post
        && (config.app_token.is_some()
            || config.signing_secret.is_some()
            || super::environment(wrapper::HEARD_ENV).is_some());
    let settings = Arc::new(Settings {
        is_cancellable,
        config: Arc::new(config),
        ui,
        is_named_after_parent: named.is_some(),
    });
    fault::spare_the_command();
    let (mouth, ears) = mpsc::channel();
    let (place_out, place) = mpsc::channel();
    let (word_out, words) = mpsc::channel();
    let voice = Voice { words: word_out, waker: Arc::default(), ended_at: Arc::default() };
    let (theirs, waker, ended_at) =
        (Arc::clone(&settings), Arc::clone(&voice.waker), Arc::clone(&voice.ended_at));
    let spawned = thread::Builder::new().name("reporter".to_owned()).stack_size(STACK).spawn(move || {
        reporter::report(&theirs, start, &ears, &place_out, &voice);
    });
    if let Err(error) = spawned {
        settings.ui.warn(&format!("could not start a thread: {error}; nothing will be reported"), None);
    }
    let place = place.recv_timeout(PLACE_MAX).unwrap_or(expected);
    let watch =
        Watch { settings: &settings, masker: &masker, mouth: &mouth, words: &words, ended_at: &ended_at };
    Ok(match Child::spawn(plan(args, &settings.config, &place)) {
        Ok(child) => {
            let _ = waker.set(child.waker());
            watch.see_through(child)
        }
        Err(Unstarted { error, ears }) => {
            if let Some(ears) = &ears {
                let _ = waker.set(ears.waker());
            }
            let message = masker.mask(&error.message);
            if matches!(error.reason, SpawnFailure::Failed) {
                settings.ui.warn(&format!("{message}; it runs without being followed"), None);
                // Its task ends as lost, which is what it is to us.
                Child::instead_of_us(&plan(args, &settings.config, &place).program);
            }
            settings.ui.wrong(&message, error.hint);
            watch.tell_end(Ending { error: Some(message), tail: None });
            watch.see_out(ears, error.reason.code())
        }
    })
}

fn plan(args: &RunArgs, config: &Config, place: &Place) -> Plan {
    let Supervision { timeout, kill_after, tail: lines, pattern, .. } = &config.supervision;
    let mut words = args.command.iter().cloned();
    let copying = |otherwise| match (pattern, lines) {
        (Some(_), _) => Copying::Always,
        (None, 0) => Copying::Never,
        (None, _) => otherwise,
    };
    Plan {
        program: Program {
            name: words.next().unwrap_or_default(),
            args: words.collect(),
            env: child_environment(config, place),
        },
        // What draws on the terminal has to have the real one.
        stdout: copying(Copying::UnlessTerminal),
        stderr: copying(Copying::Always),
        tail: (*lines > 0).then_some(Limit { lines: *lines, bytes: TAIL_BYTES, context: TAIL_CONTEXT }),
        progress: pattern.is_some() || *lines > 0,
        pattern: pattern.clone(),
        timeout: *timeout,
        kill_after: *kill_after,
    }
}

/// What makes checkpoints of the command itself belong to the same task.
fn child_environment(config: &Config, place: &Place) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: OsString| variables.push((name.into(), value));
    set(wrapper::AGENT_ENV, place.agent_id.clone().into());
    if let Some(task) = place.task {
        set(wrapper::TASK_ENV, task.to_string().into());
    }
    if let Some(thread) = &place.thread {
        set("AGENT_CHECKPOINT_THREAD", thread.into());
    }
    for (name, path) in [
        ("AGENT_CHECKPOINT_CACHE", &config.cache),
        ("AGENT_CHECKPOINT_CONFIG", &config.config_file),
        ("AGENT_CHECKPOINT_ENV_FILE", &config.env_file),
        ("AGENT_CHECKPOINT_DOTENV", &config.handover.dotenv),
    ] {
        if let Some(path) = path {
            set(name, path.clone().into());
        }
    }
    if let Some(channel) = &config.channel {
        set("SLACK_CHANNEL", channel.into());
    }
    if wrapper::is_launched() {
        set(wrapper::HEARD_ENV, wrapper::HEARD.into());
    }
    variables
}

/// What has become of the command's output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Some of it may be on its way.
    Flowing,
    /// All of it has been passed on.
    Drained,
    /// Nobody waits for it any longer.
    Cut,
}

/// What there is to wait for after the command's end.
#[derive(Default)]
struct Rest {
    report: Option<Report>,
    /// The end is on disk.
    is_stored: bool,
    /// A signal asked us to end.
    is_interrupted: bool,
    /// The reporter's time is over.
    is_over: bool,
}

/// Whether a signal asks whoever gets it to end.
fn is_an_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT)
}

/// What it takes to see a command through to its end.
struct Watch<'a> {
    settings: &'a Settings,
    masker: &'a Masker,
    mouth: &'a Mouth<News>,
    words: &'a Receiver<Word>,
    /// See [`Voice::ended_at`].
    ended_at: &'a OnceLock<Instant>,
}

impl Watch<'_> {
    fn see_through(&self, mut child: Child) -> Exit {
        let heartbeat = self.settings.config.supervision.heartbeat;
        let next_beat = || heartbeat.and_then(|every| Instant::now().checked_add(every));
        // The next beat; from the end on, when the reporter's time is over at the latest.
        let mut next = next_beat();
        // Whoever interrupts the last delivery does not wait for a slow reader of the output much longer either.
        let mut cut = None;
        let mut code = None;
        let mut output = Output::Flowing;
        let mut rest = Rest::default();
        loop {
            match child.next_event(next.into_iter().chain(cut).min()) {
                Event::Progress(progress) => {
                    let action = progress.action.map(|action| self.masker.mask(&action));
                    self.tell(News::Progress { percent: progress.percent, action });
                }
                Event::DeadlineReached if code.is_none() => {
                    self.tell(News::Beat);
                    next = next_beat();
                }
                Event::Ended(ended) => {
                    code = Some(ended.code());
                    if let Some(error) = &ended.write_error {
                        self.settings.ui.warn(error, None);
                    }
                    self.tell_end(self.ending(&ended));
                    next = self.patience();
                }
                Event::Signal(signal) if code.is_some() && is_an_end(signal) && !rest.is_interrupted => {
                    (rest.is_interrupted, cut) = (true, Instant::now().checked_add(CUT_AFTER));
                }
                Event::Drained => output = Output::Drained,
                Event::DeadlineReached if cut.is_some_and(|cut| cut <= Instant::now()) => {
                    cut = None;
                    if output == Output::Flowing {
                        output = Output::Cut;
                    }
                }
                Event::DeadlineReached => (rest.is_over, next) = (true, None),
                Event::Woken if code.is_none() => {
                    // Before the end there is nothing else to be told.
                    if self.words.try_iter().any(|word| matches!(word, Word::Stop)) {
                        child.dismiss();
                    }
                }
                Event::Signal(_) | Event::Woken => {}
            }
            if let Some(code) = code
                && let Some(exit) = self.leave(&mut rest, output, code)
            {
                return exit;
            }
        }
    }

    /// Waits for the report of a command that did not start, as after the end of one that did.
    fn see_out(&self, ears: Option<Box<Ears>>, code: u8) -> Exit {
        let Some(mut ears) = ears else {
            let until = self.patience().unwrap_or_else(Instant::now);
            let next = || self.words.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
            return self.finish(std::iter::from_fn(next).find_map(Word::report), code);
        };
        let mut next = self.patience();
        let mut rest = Rest::default();
        loop {
            if let Some(exit) = self.leave(&mut rest, Output::Drained, code) {
                return exit;
            }
            match ears.next_event(next) {
                Event::Signal(signal) => rest.is_interrupted |= is_an_end(signal),
                Event::DeadlineReached => (rest.is_over, next) = (true, None),
                _ => {}
            }
        }
    }

    /// When the reporter's time is over at the latest, as of the command's end.
    fn patience(&self) -> Option<Instant> {
        Instant::now().checked_add(self.settings.config.deadline.saturating_add(BUSY_MAX))
    }

    /// Leaves if there is nothing more to wait for.
    fn leave(&self, rest: &mut Rest, output: Output, code: u8) -> Option<Exit> {
        let mut is_gone = false;
        while rest.report.is_none() && !is_gone {
            match self.words.try_recv() {
                Ok(Word::Stored) => rest.is_stored = true,
                Ok(Word::Stop) => {}
                Ok(Word::Done(done)) => rest.report = Some(*done),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => is_gone = true,
            }
        }
        let may_leave = output != Output::Flowing;
        if may_leave && (rest.report.is_some() || is_gone) {
            return Some(self.finish(rest.report.take(), code));
        }
        // Whoever interrupts us now has the end on disk, and a courier for the rest.
        let is_late = output == Output::Drained && rest.is_over;
        if is_late || may_leave && rest.is_interrupted && rest.is_stored {
            if let Ok(mut store) = open(&self.settings.config, &self.settings.ui, Duration::from_secs(1)) {
                courier::leave_the_rest(&mut store, &self.settings.config, &self.settings.ui);
            }
            return Some(self.finish(None, code));
        }
        None
    }

    fn tell(&self, news: News) {
        // A reporter that could not be started hears nothing.
        let _ = self.mouth.send(news);
    }

    fn tell_end(&self, ending: Ending) {
        let _ = self.ended_at.set(Instant::now());
        self.tell(News::Ended(ending));
    }

    fn ending(&self, ended: &Ended) -> Ending {
        let after = spoken(ended.elapsed);
        let memory = if ended.out_of_memory { ", possibly out of memory" } else { "" };
        let what = match (ended.timed_out, ended.exit) {
            (true, _) => Some(format!("stopped: its time was over after {after}")),
            (_, ChildExit::Code(0)) => None,
            (_, ChildExit::Code(code)) => Some(format!("exit code {code}{memory} after {after}")),
            (_, ChildExit::Signal { number, core_dumped }) => {
                let core = if core_dumped { ", core dumped" } else { "" };
                Some(format!("ended by {}{memory}{core} after {after}", signal_name(number)))
            }
        };
        let tail = ended.stderr.as_ref().filter(|shown| !shown.text.trim().is_empty());
        let tail = tail.or(ended.stdout.as_ref()).filter(|shown| !shown.text.trim().is_empty());
        Ending { tail: tail.filter(|_| what.is_some()).map(|shown| self.tail(shown)), error: what }
    }

    /// The last lines as text that can be stored, with a note of how many there were before.
    fn tail(&self, shown: &Shown) -> String {
        let text = self.masker.mask_after(&shown.before, &shown.text);
        match shown.lines_before {
            0 => text,
            1 => format!("… 1 line before\n{text}"),
            before => format!("… {} lines before\n{text}", crate::render::text::thousands(before)),
        }
    }

    /// Says what there is to say, and decides the exit code: the command's own, unless that is 0 and a strict caller
    /// wants to know what became of the report.
    fn finish(&self, report: Option<Report>, code: u8) -> Exit {
        let Settings { config, ui, .. } = self.settings;
        let Some(Report { mut receipt, warnings }) = report else { return Exit::Child(code) };
        for warning in &warnings {
            ui.warn(warning, None);
        }
        if let Some((message, advice)) = receipt.trouble(config, config.background == BackgroundChoice::Never)
        {
            ui.warn(&message, Some(advice));
            receipt.warnings.push(message);
        }
        handover::offer(&mut receipt, config, ui);
        receipt.warnings.extend(config.problems.iter().map(|problem| problem.message.clone()));
        if config.json {
            if let Err(error) = ui.answer(&receipt.json().to_string()) {
                ui.warn(&format!("{error:#}"), None);
            }
        } else if matches!(config.target, Target::Nowhere) {
            ui.tell(&console::line(&receipt.agent_id, &receipt.snapshot));
        }
        ui.detail(&format!(
            "checkpoint {} of {}: {}",
            receipt.checkpoint_id,
            receipt.agent_id,
            receipt.delivery.name()
        ));
        match receipt.delivery {
            _ if code != 0 || !config.strict => Exit::Child(code),
            Delivery::Rejected => Exit::Config,
            _ if config.is_wrong() => Exit::Config,
            Delivery::Queued | Delivery::Unconfirmed => Exit::NotYet,
            _ if receipt.audit == Audited::Queued => Exit::NotYet,
            _ => Exit::Child(code),
        }
    }
}
