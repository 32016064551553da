//! Supervises one process: starts it, copies its output, hands signals on, keeps its time, and tells how it ended.
//!
//! The caller gets a [`Child`] and asks it for one [`Event`] after the other. Nothing here knows what is made of them.
//!
//! **The child is to notice nothing of us.** Its input, environment, working directory, signal mask and ignored signals
//! are ours; `SIGPIPE` has its default action again, which Rust takes away. A stream is inherited untouched or copied
//! (see `copy.rs`). If that cannot be set up, it is inherited: a missing tail harms nobody.
//!
//! **Process groups.** With a controlling terminal the child stays in our process group, whatever its input is: a
//! group of its own would be in the background and could not read the terminal, not even to ask for a password. So
//! what is typed reaches it directly, and only what a process sent to us alone is passed on. Without a controlling
//! terminal nothing is gained by sharing ours, so the child leads a group of its own: signals reach it and its
//! descendants exactly once, by us, and ending it ends them too. The price: who kills our whole group with `KILL` does
//! not kill the child.
//!
//! **The end** is the child's, not that of its descriptors: descendants that live on may write through us for a moment
//! ([`Event::Ended`] waits 0.4 s at most) and then find their stream closed.

mod bell;
mod copy;
mod ears;
mod end;
mod progress;
mod signals;
mod spawn;
mod stop;
mod tail;
mod text;

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg, raise};
use nix::unistd::{Pid, getpgid, getpgrp};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::process::{WaitOptions, waitpid};

pub(crate) use bell::Waker;
pub(crate) use ears::{Ears, Unstarted};
pub(crate) use end::{Ended, Exit, signal_name};
pub(crate) use progress::{Pattern, Progress};
pub(crate) use signals::{ignored_signals, outlive_file_limit};
pub(crate) use spawn::{Program, SpawnError, SpawnFailure};
pub(crate) use tail::{Limit, Shown};

use bell::Bell;
use copy::{Copy, Finish, GRACE, Own};
use end::OomKills;
use progress::Reader;
use signals::{Arrived, Place, Signals};
use stop::Ending;
use tail::Tail;

/// How long the end is held back for output that is still on its way.
const LAST_WORDS: Duration = Duration::from_millis(100).saturating_add(GRACE);
/// Progress is told no more often.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// How often those who were told to end are looked for once the child is gone.
const LEFTOVER_PAUSE: Duration = Duration::from_millis(50);

/// Whether one of the child's output streams is copied. What is not copied costs nothing and is not seen.
#[derive(Debug, Clone, std::marker::Copy)]
pub(crate) enum Copying {
    Never,
    UnlessTerminal,
    /// Also when it is a terminal: the child then gets one of its own, which is not its controlling terminal.
    Always,
}

/// What to run, and how to look after it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// Where both streams are copied and go to the same place, they are copied as one, so that their order is kept. Where
    /// only one of them is copied, what goes through us may be shown a moment later than what does not.
    pub(crate) stdout: Copying,
    pub(crate) stderr: Copying,
    /// How much of the end of each copied stream to keep.
    pub(crate) tail: Option<Limit>,
    /// Whether to look for progress in the copied streams, and for what besides OSC 9;4.
    pub(crate) progress: bool,
    pub(crate) pattern: Option<Pattern>,
    /// After this long the child is told to end.
    pub(crate) timeout: Option<Duration>,
    /// That long after it was told to end, it is killed.
    pub(crate) kill_after: Duration,
}

/// What happened. `Ended` comes once; `Drained` once, after it; the others any number of times, before and after.
#[derive(Debug)]
pub(crate) enum Event {
    /// The newest progress of all copied streams. Comes at most ten times a second.
    Progress(Progress),
    /// One of HUP, INT, QUIT, TERM, TSTP, USR1 and USR2 reached us; whatever the child needs of it, it has.
    Signal(Signal),
    /// The child has ended. What it wrote may still be on its way to a slow reader.
    Ended(Box<Ended>),
    /// All that the child wrote has been passed on, and nobody that was told to end with it is left. Whoever exits
    /// before this cuts the output off.
    Drained,
    /// Somebody used a [`Waker`].
    Woken,
    /// The deadline of [`Child::next_event`] has come.
    DeadlineReached,
}

/// How far the end has come.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The child has ended; its last words are on their way.
    Ended {
        exit: Exit,
        at: Instant,
    },
    Reported,
    Over,
}

/// A process that is being looked after.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    place: Place,
    started: Instant,
    timeout_at: Option<Instant>,
    kill_after: Duration,
    signals: Signals,
    bell: Arc<Bell>,
    finish: Arc<Finish>,
    out: Option<Copy>,
    err: Option<Copy>,
    oom: Option<OomKills>,
    ending: Option<Ending>,
    /// It was told to end by the caller, not because its time was over.
    dismissed: bool,
    killed: bool,
    /// The child is stopped, we have heard TSTP, and we are to stop as well.
    stopped: bool,
    heard_stop: bool,
    stop_along: bool,
    progress_from: Instant,
    phase: Phase,
    events: VecDeque<Event>,
}

impl Child {
    /// Starts it. From then on signals no longer end us by themselves, even if this fails.
    ///
    /// # Errors
    /// Why there is no child; signals can be heard all the same.
    pub(crate) fn spawn(plan: Plan) -> Result<Self, Unstarted> {
        Self::prepare_and_spawn(plan).unwrap_or_else(|error| {
            let message = format!("could not get ready: {}", spawn::words(&error));
            let error = SpawnError { reason: SpawnFailure::Failed, message, hint: None };
            Err(Unstarted { error, ears: None })
        })
    }

    /// Becomes the command where there is no room to start it beside us: it runs, and nobody looks after it. Returns only
    /// when that is not possible either.
    pub(crate) fn instead_of_us(program: &Program) {
        spawn::become_it(program);
    }

    fn prepare_and_spawn(plan: Plan) -> io::Result<Result<Self, Unstarted>> {
        let (wake, ring) = UnixStream::pair()?;
        let signals = Signals::new(wake, ring.try_clone()?)?;
        let bell = Arc::new(Bell::new(ring)?);
        let finish = Arc::new(Finish::new()?);
        // A signal must find us ready as soon as there is a child. What we handle has its default action in the child,
        // so what was ignored must be left alone. Where that is not known, the child has to come first.
        let ignored = ignored_signals();
        if let Some(ignored) = ignored {
            signals.watch(ignored)?;
        }
        let copying = |how: Copying, own: Own| match how {
            Copying::Never => false,
            Copying::UnlessTerminal => !own.is_terminal(),
            Copying::Always => true,
        };
        let (want_out, want_err) = (copying(plan.stdout, Own::Stdout), copying(plan.stderr, Own::Stderr));
        let as_one = want_out && want_err && copy::are_one();
        let start = |own: Own| {
            let reader = plan.progress.then(|| Reader::new(plan.pattern.clone()));
            Copy::start(own, plan.tail.map(Tail::new), reader, Arc::clone(&bell), Arc::clone(&finish)).ok()
        };
        let mut out = if want_out && !as_one { start(Own::Stdout) } else { None };
        let mut err = if want_err { start(Own::Stderr) } else { None };
        let err_end = err.as_ref().and_then(Copy::child_end);
        let out_end = if as_one { err_end } else { out.as_ref().and_then(Copy::child_end) };
        let place = if has_terminal() { Place::Beside } else { Place::Apart };
        let started = Instant::now();
        let child = match spawn::spawn(&plan.program, out_end, err_end, place == Place::Apart) {
            Ok(child) => child,
            Err(error) => {
                if ignored.is_none() {
                    signals.watch(0)?;
                }
                return Ok(Err(Unstarted { error, ears: Some(Box::new(Ears::new(signals, bell))) }));
            }
        };
        if ignored.is_none() {
            signals.watch(0)?;
        }
        out.iter_mut().chain(err.iter_mut()).for_each(Copy::hand_over);
        Ok(Ok(Self {
            pid: Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
            place,
            started,
            timeout_at: plan.timeout.and_then(|timeout| started.checked_add(timeout)),
            kill_after: plan.kill_after,
            signals,
            bell,
            finish,
            out,
            err,
            oom: OomKills::start(),
            ending: None,
            dismissed: false,
            killed: false,
            stopped: false,
            heard_stop: false,
            stop_along: false,
            progress_from: started,
            phase: Phase::Running,
            events: VecDeque::new(),
        }))
    }

    /// For other threads.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }

    /// Tells it to end, and later kills it, as when its time is over.
    pub(crate) fn dismiss(&mut self) {
        self.look_at_the_child();
        if self.is_alive() && self.ending.is_none() {
            (self.timeout_at, self.dismissed) = (None, true);
            self.ending = Some(Ending::begin(self.pid, self.place, self.kill_after));
        }
    }

    /// Waits for the next event, until the deadline if there is one. Uses no time while it waits.
    pub(crate) fn next_event(&mut self, deadline: Option<Instant>) -> Event {
        loop {
            // First empty the stream, then answer, then look: what rings meanwhile is seen now or wakes us later.
            let arrived = self.signals.arrived();
            self.bell.answer();
            for arrived in arrived {
                self.hear(arrived);
            }
            self.look_at_the_child();
            if std::mem::take(&mut self.stop_along) {
                self.stop_with_the_child();
            }
            let now = Instant::now();
            self.keep_time(now);
            self.take_progress(now);
            self.conclude(now);
            if self.bell.was_woken() {
                self.events.push_back(Event::Woken);
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Event::DeadlineReached;
            }
            let next = self.next_look(now).into_iter().chain(deadline).min();
            let pause = next.map(|next| next.saturating_duration_since(now));
            copy::wait(&[self.signals.wake().as_fd()], PollFlags::IN, pause);
        }
    }

    fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.out.iter().chain(&self.err)
    }

    fn write_error(&self) -> Option<String> {
        let streams = [("output", &self.out), ("error", &self.err)];
        streams.into_iter().find_map(|(name, copy)| {
            let reason = copy.as_ref()?.write_error()?;
            Some(format!("the command's output was cut off: could not write to standard {name}: {reason}"))
        })
    }

    fn is_alive(&self) -> bool {
        self.phase == Phase::Running
    }

    /// When something is due although nobody rings.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let progress = (self.progress_from > now).then_some(self.progress_from);
        let time = match &self.ending {
            Some(ending) => ending.kill_at,
            None => self.timeout_at.filter(|_| self.is_alive()),
        };
        let end = match self.phase {
            Phase::Ended { at, .. } => Some(at + LAST_WORDS),
            Phase::Reported if self.ending.is_some() => Some(now + LEFTOVER_PAUSE),
            _ => None,
        };
        progress.into_iter().chain(time.filter(|_| self.phase != Phase::Over)).chain(end).min()
    }

    fn hear(&mut self, arrived: Arrived) {
        match arrived.signal {
            Signal::SIGCHLD => {}
            Signal::SIGWINCH => {
                let resized = self.copies().filter(|copy| copy.resize()).count();
                if resized > 0 && self.is_alive() {
                    // It may have been told before its terminal had the new size.
                    let _ = kill(self.pid, Signal::SIGWINCH);
                }
            }
            signal => {
                self.heard_stop |= signal == Signal::SIGTSTP;
                let moved = self.place == Place::Beside && getpgid(Some(self.pid)) != Ok(getpgrp());
                if self.is_alive() && arrived.is_for_the_child(self.pid, self.place, moved) {
                    self.send(signal);
                }
                self.events.push_back(Event::Signal(signal));
            }
        }
    }

    /// To the child, or to its group where it leads one. It may be gone by now.
    fn send(&self, signal: Signal) {
        let _ = match self.place {
            Place::Beside => kill(self.pid, signal),
            Place::Apart => killpg(self.pid, signal),
        };
    }

    fn look_at_the_child(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid.as_raw()) else {
            return;
        };
        let news = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        while self.is_alive() {
            let status = match waitpid(Some(pid), news) {
                Ok(Some((_, status))) => status,
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => continue,
                // Somebody else has taken its exit status.
                Err(_) => return self.note_the_end(Exit::Code(u8::MAX)),
            };
            if let Some(signal) = status.stopping_signal() {
                // A stop by the terminal's TSTP is for the whole job: the shell waits for us to stop. At TTIN and
                // TTOU the kernel has stopped us with the child. Any other stop is the child's own affair.
                let for_all =
                    signal == Signal::SIGTSTP as i32 || (signal == Signal::SIGSTOP as i32 && self.heard_stop);
                if !self.stopped {
                    self.stopped = true;
                    self.stop_along = for_all;
                }
            } else if status.continued() {
                self.go_on();
            } else {
                self.note_the_end(Exit::from_raw(status.as_raw()));
            }
        }
    }

    fn go_on(&mut self) {
        (self.stopped, self.heard_stop, self.stop_along) = (false, false, false);
    }

    fn note_the_end(&mut self, exit: Exit) {
        self.phase = Phase::Ended { exit, at: Instant::now() };
        self.finish.tell();
    }

    fn stop_with_the_child(&mut self) {
        self.look_at_the_child();
        if !self.stopped || !self.is_alive() {
            return;
        }
        let _ = raise(Signal::SIGSTOP);
        // Here somebody has continued us: the whole job, or us alone.
        self.look_at_the_child();
        if self.stopped && self.is_alive() {
            self.send(Signal::SIGCONT);
        }
    }

    fn keep_time(&mut self, now: Instant) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.look_at_the_child();
            if self.is_alive() {
                self.ending = Some(Ending::begin(self.pid, self.place, self.kill_after));
            }
        }
        let alive = self.is_alive();
        if self.phase != Phase::Over
            && let Some(ending) =
                self.ending.as_mut().filter(|ending| ending.kill_at.is_some_and(|at| at <= now))
        {
            ending.kill(alive);
            self.killed = true;
        }
    }

    fn take_progress(&mut self, now: Instant) {
        if now < self.progress_from {
            return;
        }
        let newest = self.copies().filter_map(Copy::take_progress).last();
        if let Some(progress) = newest {
            self.progress_from = now + PROGRESS_PAUSE;
            self.events.push_back(Event::Progress(progress));
        }
    }

    fn conclude(&mut self, now: Instant) {
        let drained = self.copies().all(Copy::is_done);
        match self.phase {
            Phase::Ended { exit, at } if drained || at + LAST_WORDS <= now => {
                let ended = Ended {
                    exit,
                    timed_out: self.ending.is_some() && !self.dismissed,
                    out_of_memory: self.oom.as_ref().is_some_and(|oom| oom.explain(exit, self.killed)),
                    elapsed: at.saturating_duration_since(self.started),
                    stdout: self.out.as_ref().and_then(Copy::shown),
                    stderr: self.err.as_ref().and_then(Copy::shown),
                    write_error: self.write_error(),
                };
                // What the tail shows has been told.
                self.progress_from = now;
                self.take_progress(now);
                self.phase = Phase::Reported;
                self.events.push_back(Event::Ended(Box::new(ended)));
            }
            Phase::Reported if drained && !self.ending.as_ref().is_some_and(Ending::is_awaited) => {
                self.phase = Phase::Over;
                self.events.push_back(Event::Drained);
            }
            _ => {}
        }
    }
}

/// Whether we have a controlling terminal.
fn has_terminal() -> bool {
    let flags = i32::try_from((OFlags::NOCTTY | OFlags::NONBLOCK).bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty").is_ok()
}
