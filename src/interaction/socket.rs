//! Socket Mode: a thread that keeps a WebSocket to Slack open and hands over what people do.
//!
//! Slack gives each interaction to one of the connections of an app, and renews every connection from time to time. The
//! new one is then open before the old one is left, so that nothing is missed. An interaction is acknowledged when the
//! function that takes it has returned: by then it must be stored. What is not acknowledged Slack sends again, or the
//! person sees that it did not work.

mod hands;
mod link;

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::{Value, json};
use tungstenite::{Error, Message};
use uuid::Uuid;

use super::dial::{DIAL_MAX, Line, dial};
use super::open::{Access, Refusal, open, switched_off};
use super::wire::{self, Call, Interaction, Malformed};
use crate::exit::{Failure, one_line};
use hands::{Hands, Slip};
use link::{Gone, Link};

/// What becomes of an interaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ack {
    /// It is stored. A command can be answered with a message.
    Taken(Option<Value>),
    /// It could not be stored: Slack may send it again, or the person sees that it did not work.
    NotTaken,
}

/// What the thread has to say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// Interactions come from now on, to one of so many connections of the app. More than one and another program may
    /// get them.
    Listening { connections: u64 },
    /// They do not come at the moment, and why; it is tried again.
    Interrupted(String),
    /// Something came that cannot be read.
    Unreadable(Malformed),
    /// They will not come any more; the thread has ended.
    Ended(Failure),
}

/// The times of a connection.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two pings.
    ping: Duration,
    /// The longest that nothing is heard, not even the answer to a ping, before a connection is given up.
    silence: Duration,
    /// The longest until the hello.
    hello: Duration,
    /// How long a connection must last for the next one to be tried at once.
    steady: Duration,
    /// The longest that an old connection is kept beside a new one.
    linger: Duration,
    /// The first wait before trying again; it doubles up to the last.
    first_wait: Duration,
    last_wait: Duration,
}

const PACE: Pace = Pace {
    ping: Duration::from_secs(10),
    silence: Duration::from_secs(25),
    hello: Duration::from_secs(10),
    steady: Duration::from_secs(60),
    linger: Duration::from_secs(30),
    first_wait: Duration::from_secs(1),
    last_wait: Duration::from_secs(60),
};

/// The listening thread. Dropping this stops it.
#[derive(Debug)]
pub(crate) struct Socket {
    stopping: Arc<AtomicBool>,
    bell: Arc<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Listens on a thread of its own. `hear` takes an interaction, on a thread for each, and returns once it is stored; it
    /// must be done in less than three seconds, and it must not do a thing twice when the same `id` comes again.
    ///
    /// # Errors
    /// When there are no threads or descriptors left.
    pub(crate) fn listen(
        access: Access,
        hear: impl Fn(Interaction) -> Ack + Send + Sync + 'static,
        note: impl FnMut(Notice) + Send + 'static,
    ) -> io::Result<Self> {
        Self::listen_at(PACE, access, hear, note)
    }

    fn listen_at(
        pace: Pace,
        access: Access,
        hear: impl Fn(Interaction) -> Ack + Send + Sync + 'static,
        note: impl FnMut(Notice) + Send + 'static,
    ) -> io::Result<Self> {
        let (bell, wake) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let (bell, stopping) = (Arc::new(bell), Arc::new(AtomicBool::new(false)));
        let (sender, opened) = mpsc::channel();
        let mut listener = Listener {
            pace,
            access: Arc::new(access),
            links: Vec::new(),
            opened_count: 0,
            sender,
            opened,
            opening: false,
            failures: 0,
            next_try: Instant::now(),
            stopping: Arc::clone(&stopping),
            bell: Arc::clone(&bell),
            wake,
            hands: Hands::new(Arc::new(hear), Arc::clone(&bell)),
            note: Box::new(note),
        };
        let thread = thread::Builder::new().name("socket".to_owned()).spawn(move || {
            if let Err(failure) = listener.run() {
                (listener.note)(Notice::Ended(failure));
            }
        })?;
        Ok(Self { stopping, bell, thread: Some(thread) })
    }

    /// Whether the thread has ended by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Socket {
    /// Stops at once. When this returns no interaction is being handled and none will be.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = (&*self.bell).write(&[1]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Slack's frames, as far as we care.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    envelope_id: Option<String>,
    payload: Value,
    accepts_response_payload: bool,
    reason: Option<String>,
    num_connections: Option<u64>,
}

struct Listener {
    pace: Pace,
    access: Arc<Access>,
    links: Vec<Link>,
    /// How many connections there were, each of which has a number.
    opened_count: u64,
    sender: Sender<Result<Line, Refusal>>,
    opened: Receiver<Result<Line, Refusal>>,
    /// A connection is being opened, on a thread of its own: that may block.
    opening: bool,
    /// How many openings in a row came to nothing that lasted.
    failures: u32,
    next_try: Instant,
    stopping: Arc<AtomicBool>,
    /// Rung when there is something to look at.
    bell: Arc<UnixStream>,
    wake: UnixStream,
    hands: Hands,
    note: Box<dyn FnMut(Notice) + Send>,
}

impl Listener {
    fn run(&mut self) -> Result<(), Failure> {
        while !self.stopping.load(Ordering::SeqCst) {
            let now = Instant::now();
            self.take_opened(now)?;
            self.look_after(now);
            if self.wants_link() && now >= self.next_try {
                self.open();
            }
            let (rung, ready) = self.wait(now);
            if rung {
                let _ = self.wake.read(&mut [0; 64]);
            }
            // From the last one, so that the places of the others stay.
            for index in ready.into_iter().rev() {
                if self.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let mut link = self.links.remove(index);
                match self.converse(&mut link) {
                    Ok(()) => self.links.insert(index, link),
                    Err(gone) => self.let_go(&link, gone)?,
                }
            }
            self.acknowledge()?;
        }
        // What is stored is acknowledged as well.
        self.hands.rest();
        self.acknowledge()?;
        for link in &mut self.links {
            let _ = link.line.socket.close(None);
        }
        Ok(())
    }

    /// Acknowledges what was stored, on the connection by which it came. If that is gone, it comes again.
    fn acknowledge(&mut self) -> Result<(), Failure> {
        while let Some((slip, ack)) = self.hands.done() {
            let Some(index) = self.links.iter().position(|link| link.number == slip.link) else { continue };
            let mut words = json!({ "envelope_id": slip.envelope_id });
            match ack {
                Ack::NotTaken => continue,
                Ack::Taken(Some(answer)) if slip.takes_answer => words["payload"] = answer,
                Ack::Taken(_) => {}
            }
            if let Err(error) = self.links[index].send(Message::text(words.to_string())) {
                let link = self.links.remove(index);
                self.let_go(&link, error.into())?;
            }
        }
        Ok(())
    }

    fn wants_link(&self) -> bool {
        !self.opening && self.links.iter().all(|link| link.leaving.is_some())
    }

    fn open(&mut self) {
        let (access, sender, bell) = (Arc::clone(&self.access), self.sender.clone(), Arc::clone(&self.bell));
        let opener = move || {
            let deadline = Instant::now() + DIAL_MAX;
            let line = open(&access, deadline)
                .and_then(|url| dial(&url, &access.network, deadline).map_err(Refusal::Passing));
            // Nobody is there to take it after a stop.
            let _ = sender.send(line);
            let _ = (&*bell).write(&[1]);
        };
        match thread::Builder::new().name("socket-opener".to_owned()).spawn(opener) {
            Ok(_) => self.opening = true,
            Err(error) => {
                self.failed(Instant::now());
                (self.note)(Notice::Interrupted(format!("could not start a thread: {error}")));
            }
        }
    }

    fn take_opened(&mut self, now: Instant) -> Result<(), Failure> {
        while let Ok(opened) = self.opened.try_recv() {
            self.opening = false;
            match opened {
                Ok(line) => {
                    self.failed(now);
                    self.opened_count += 1;
                    self.links.push(Link::new(self.opened_count, line, now));
                }
                Err(Refusal::Final(failure)) => return Err(failure),
                Err(Refusal::Limited(after)) => {
                    self.failures = self.failures.saturating_add(1);
                    self.next_try = now + after + Duration::from_secs(1).mul_f64(jitter());
                    let words = format!("Slack's rate limit is reached (retry after {} s)", after.as_secs());
                    (self.note)(Notice::Interrupted(words));
                }
                Err(Refusal::Passing(why)) => {
                    self.failed(now);
                    (self.note)(Notice::Interrupted(why));
                }
            }
        }
        Ok(())
    }

    /// Counts an opening, which has failed unless it turns out to last, and sets the time of the next one.
    fn failed(&mut self, now: Instant) {
        self.next_try = now + wait_after(self.failures, &self.pace).mul_f64(0.75 + jitter() / 2.0);
        self.failures = self.failures.saturating_add(1);
    }

    /// The next connection may be tried at once after one that lasted.
    fn forgive(&mut self, link: &Link, now: Instant) {
        if link.ready && now.duration_since(link.opened) >= self.pace.steady {
            (self.failures, self.next_try) = (0, now);
        }
    }

    /// Pings, and gives up what is silent or has been left.
    fn look_after(&mut self, now: Instant) {
        let (pace, mut index) = (self.pace, 0);
        let replaced = self.links.iter().any(|link| link.ready && link.leaving.is_none());
        if self.hands.are_full() {
            // What is not read is no silence.
            self.links.iter_mut().for_each(|link| link.heard = now);
        }
        while index < self.links.len() {
            let link = &mut self.links[index];
            let silent = now.duration_since(link.heard) >= pace.silence;
            let mute = !link.ready && now.duration_since(link.opened) >= pace.hello;
            let left = link.leaving.is_some_and(|since| now.duration_since(since) >= pace.linger);
            let mut gone = if left && replaced {
                Some(Gone::Left)
            } else if silent {
                Some(Gone::Lost("nothing was heard from Slack any more".to_owned()))
            } else if mute {
                Some(Gone::Lost("Slack did not say hello".to_owned()))
            } else {
                None
            };
            if gone.is_none() && now.duration_since(link.pinged) >= pace.ping {
                link.pinged = now;
                gone = link.send(Message::Ping(Vec::new().into())).err().map(Gone::from);
            }
            match gone {
                None => index += 1,
                Some(gone) => {
                    let mut link = self.links.remove(index);
                    let _ = link.line.socket.close(None);
                    // None of these ends the thread.
                    let _ = self.let_go(&link, gone);
                }
            }
        }
    }

    /// Waits for something to do; says whether the bell was rung, and which connections have something.
    fn wait(&self, now: Instant) -> (bool, Vec<usize>) {
        let pace = &self.pace;
        // What more there is waits until somebody can take it, for which the bell is rung.
        let heard: &[Link] = if self.hands.are_full() { &[] } else { &self.links };
        let due = self.links.iter().flat_map(|link| {
            let hello = (!link.ready).then_some(link.opened + pace.hello);
            let leaving = link.leaving.map(|since| since + pace.linger).filter(|at| *at > now);
            [Some(link.pinged + pace.ping), Some(link.heard + pace.silence), hello, leaving]
        });
        let next = due.flatten().chain(self.wants_link().then_some(self.next_try)).min();
        let at_once = heard.iter().any(|link| link.fresh).then_some(Duration::ZERO);
        let timeout = at_once.or_else(|| next.map(|at| at.saturating_duration_since(now)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(heard.iter().map(|link| {
            let flags = if link.unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(link.line.fd(), flags)
        }));
        // A signal is no news; the next round waits again.
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return (false, Vec::new());
        }
        let has_news = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready =
            (0..heard.len()).filter(|index| heard[*index].fresh || has_news(&fds[index + 1])).collect();
        (has_news(&fds[0]), ready)
    }

    /// Reads what has come, until something is handed over.
    fn converse(&mut self, link: &mut Link) -> Result<(), Gone> {
        link.fresh = false;
        if link.unsent {
            link.flush()?;
        }
        while !link.fresh && !self.stopping.load(Ordering::SeqCst) {
            let message = match link.line.socket.read() {
                Ok(message) => message,
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            link.heard = Instant::now();
            match message {
                Message::Text(text) => self.take(link, &text)?,
                // The answer lies ready already.
                Message::Ping(_) | Message::Close(_) => link.flush()?,
                Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, link: &mut Link, text: &str) -> Result<(), Gone> {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else { return Ok(()) };
        match (&*frame.kind, &frame.envelope_id) {
            ("hello", _) => {
                link.ready = true;
                (self.note)(Notice::Listening { connections: frame.num_connections.unwrap_or(1) });
            }
            ("disconnect", _) => return self.leave(link, frame.reason.as_deref().unwrap_or_default()),
            (_, Some(_)) => self.answer(link, frame)?,
            (_, None) => {}
        }
        Ok(())
    }

    fn leave(&mut self, link: &mut Link, reason: &str) -> Result<(), Gone> {
        match reason {
            "link_disabled" => Err(Gone::Final(switched_off())),
            "too_many_websockets" => {
                let words = "Slack takes no more than ten connections for one app (too_many_websockets)";
                Err(Gone::Lost(words.to_owned()))
            }
            // `warning` and `refresh_requested` are routine; an unknown reason asks for no less.
            _ => {
                if link.leaving.is_none() {
                    let now = Instant::now();
                    link.leaving = Some(now);
                    self.forgive(link, now);
                }
                Ok(())
            }
        }
    }

    /// Hands an envelope's payload over, or acknowledges at once what is nothing to us.
    fn answer(&mut self, link: &mut Link, frame: Frame) -> Result<(), Gone> {
        let read = match &*frame.kind {
            "interactive" => wire::interaction(&frame.payload),
            "slash_commands" => wire::command(&frame.payload),
            "events_api" => wire::event(&frame.payload),
            _ => Ok(Call::Nothing),
        };
        match read {
            Ok(Call::Interaction(interaction)) => {
                let takes_answer = frame.accepts_response_payload;
                let slip = Slip { link: link.number, envelope_id: frame.envelope_id, takes_answer };
                self.hands.take(*interaction, slip);
                // What was done meanwhile is acknowledged before anything else is read.
                link.fresh = true;
                return Ok(());
            }
            Ok(Call::Challenge(_) | Call::Nothing) => {}
            // It would be no better the next time.
            Err(malformed) => (self.note)(Notice::Unreadable(malformed)),
        }
        let ack = json!({ "envelope_id": frame.envelope_id });
        Ok(link.send(Message::text(ack.to_string()))?)
    }

    fn let_go(&mut self, link: &Link, gone: Gone) -> Result<(), Failure> {
        self.forgive(link, Instant::now());
        match gone {
            Gone::Final(failure) => Err(failure),
            // That it would be closed was known.
            Gone::Left => Ok(()),
            Gone::Lost(_) if link.leaving.is_some() => Ok(()),
            Gone::Lost(words) => {
                (self.note)(Notice::Interrupted(one_line(&words)));
                Ok(())
            }
        }
    }
}

/// How long to wait after so many openings in a row that came to nothing.
fn wait_after(failures: u32, pace: &Pace) -> Duration {
    pace.first_wait.saturating_mul(2_u32.saturating_pow(failures.min(20))).min(pace.last_wait)
}

/// A number from 0 to 1: programs that lost their connections together do not come back together.
fn jitter() -> f64 {
    f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0
}

#[cfg(test)]
mod tests;
