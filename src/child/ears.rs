//! Listening where there is no child to look after.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;
use rustix::event::PollFlags;

use super::bell::{Bell, Waker};
use super::signals::Signals;
use super::spawn::SpawnError;
use super::{Event, copy};

/// A command that did not become a child.
#[derive(Debug)]
pub(crate) struct Unstarted {
    pub(crate) error: SpawnError,
    /// `None` if not even signals are watched: then they end us by themselves.
    pub(crate) ears: Option<Box<Ears>>,
}

/// Hears signals and wakers.
#[derive(Debug)]
pub(crate) struct Ears {
    signals: Signals,
    bell: Arc<Bell>,
    events: VecDeque<Event>,
}

impl Ears {
    pub(super) fn new(signals: Signals, bell: Arc<Bell>) -> Self {
        Self { signals, bell, events: VecDeque::new() }
    }

    /// For other threads.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }

    /// Waits for the next signal or waker, until the deadline if there is one.
    pub(crate) fn next_event(&mut self, deadline: Option<Instant>) -> Event {
        loop {
            let arrived = self.signals.arrived();
            self.bell.answer();
            let meant = |signal: &Signal| !matches!(signal, Signal::SIGCHLD | Signal::SIGWINCH);
            let signals = arrived.into_iter().map(|arrived| arrived.signal).filter(meant);
            self.events.extend(signals.map(Event::Signal));
            if self.bell.was_woken() {
                self.events.push_back(Event::Woken);
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Event::DeadlineReached;
            }
            let pause = deadline.map(|deadline| deadline.saturating_duration_since(now));
            copy::wait(&[self.signals.wake().as_fd()], PollFlags::IN, pause);
        }
    }
}
