//! A strict Slack on a real socket.
//!
//! It speaks the Web API methods below `/api/` that an agent's thread needs, and one incoming webhook below `/services/`.
//! Where Slack refuses, it refuses, with Slack's word for it; where Slack's behaviour is not documented, it takes the
//! reading that is harder on the client. It keeps every request and every message, and answers with whatever faults it
//! was told to.
//!
//! What it refuses, and why:
//!
//! - **A token anywhere but in `Authorization: Bearer`** (`not_authed`, `invalid_auth`). JSON calls need it there, and a
//!   token in a URL ends up in logs.
//! - **JSON to the `conversations.*` methods**: they do not read it, so the arguments count as absent.
//! - **JSON without `charset=utf-8`**, a body that does not parse, arguments in both query and body, a `ts` or channel
//!   that is not a string. A `ts` here always ends in a zero, so that one which went through a float is not found.
//! - **A channel name** anywhere but in `chat.postMessage`; private channels the bot is not in; archived channels;
//!   missing scopes, with `needed` and `provided`.
//! - **A `thread_ts` that names no message, or names a reply** (`thread_not_found`). Slack documents neither; a client
//!   that does this has lost its thread.
//! - **Messages over Slack's limits**, blocks of unknown types or with unknown keys, colours that are none, blocks
//!   together with the old fields in one attachment. `response_metadata.messages` says what and where. See [`rules`].
//! - **`chat.update` of what is gone or is not the bot's own.** Text over 4,000 characters is refused there, while
//!   `chat.postMessage` cuts at 40,000.
//! - **Socket Mode with anything but an app-level token**, and that token anywhere else (`not_allowed_token_type`); a
//!   ticket that was used; an eleventh connection. What a client sends that is no acknowledgement is noted in
//!   [`FakeSlack::socket_complaints`]. See [`sockets`].
//! - **A `response_url` used six times**, with a token, or when it has expired. See [`clicks`] for how people click.
//! - **Too many messages**: one a second in a channel with a burst of four, by any route, and 50 updates a minute; what each
//!   method's tier allows. Who asks for more gets 429 and is noted in [`FakeSlack::rate_violations`], and so is who calls before the time a
//!   `Retry-After` named.
//!
//! Text that would notify people is accepted, as Slack does, and noted in [`FakeSlack::pings`].

#![allow(
    clippy::allow_attributes,
    reason = "no single expectation fits both programs that include this module"
)]
#![allow(dead_code, reason = "the tests and the example program each use their own part of it")]

mod args;
mod callback;
pub(crate) mod clicks;
mod conversations;
mod files;
mod http;
mod methods;
pub(crate) mod people;
mod rules;
mod server;
mod show;
pub(crate) mod sockets;
mod state;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use server::Shared;
use state::{Channel, Rate, State, matches};

/// The channel the bot is a member of and the webhook is bound to: `#agent-supervisory`.
pub(crate) const CHANNEL: &str = "C0AGENT000";
/// The bot token that is accepted.
pub(crate) const TOKEN: &str = "xoxb-fake-token";
/// The webhook's path.
pub(crate) const WEBHOOK: &str = "/services/T000/B000/secret";
/// The bot's user.
pub(crate) const BOT_USER: &str = "U0BOT00000";
/// A person, who can also be written to directly.
pub(crate) const HUMAN: &str = "U0HUMAN000";

const PATIENCE: Duration = Duration::from_secs(20);

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// 429, with `Retry-After` in seconds where given.
    RateLimited { retry_after: Option<u32> },
    /// That status, with an empty body.
    Status(u16),
    /// The call takes effect; that status, with an empty body.
    StatusAfterStoring(u16),
    /// That status, with an HTML page as the edge of a service shows it.
    Html(u16),
    /// `ok:false` with that error; for a webhook the bare word, with the status that belongs to it.
    ErrorName(&'static str),
    /// No answer, until [`FakeSlack::release`]; nothing is stored.
    Hang,
    /// The connection is reset; nothing is stored.
    ResetBeforeStoring,
    /// The call takes effect, then the connection is reset.
    ResetAfterStoring,
    /// The call takes effect, then there is no answer.
    HangAfterStoring,
    /// 200 with a body that is not JSON, nor `ok`; nothing is stored.
    Garbage,
    /// 200 with a body that is not UTF-8; nothing is stored.
    NoText,
    /// The call takes effect; 200 with this body, whatever Slack would say.
    Answer(&'static str),
    /// The call takes effect; half of the answer comes, then the connection ends.
    TruncatedJson,
    /// The call takes effect; the answer comes at ten bytes a second.
    SlowBody,
    /// Nothing: the call is answered as usual.
    Ok,
}

/// One call, as received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query: `/api/chat.postMessage`.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The decoded arguments: an object, or null where there were none that could be read. In a form or query all are
    /// strings but `blocks`, `attachments` and `metadata`.
    pub(crate) args: Value,
    pub(crate) at: Instant,
    /// Which TCP connection it came by, counted from 1.
    pub(crate) connection: u64,
    /// The status it was answered with; 0 while or where there was no answer.
    pub(crate) status: u16,
}

impl Request {
    /// `chat.postMessage` for `/api/chat.postMessage`, else the path.
    pub(crate) fn name(&self) -> &str {
        self.path.strip_prefix("/api/").unwrap_or(&self.path)
    }

    /// A header's value by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        http::header(&self.headers, name)
    }
}

/// A message as stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) channel: String,
    pub(crate) ts: String,
    /// The thread's first message, for a reply.
    pub(crate) thread_ts: Option<String>,
    pub(crate) author: Author,
    pub(crate) text: String,
    pub(crate) attachments: Vec<Value>,
    pub(crate) blocks: Vec<Value>,
    pub(crate) metadata: Option<Value>,
    /// The texts it had before, oldest first.
    pub(crate) edits: Vec<String>,
    /// Gone from view; with replies it stays as a tombstone.
    pub(crate) deleted: bool,
    pub(crate) broadcast: bool,
    pub(crate) reactions: Vec<people::Reaction>,
}

/// A file, as far as its upload has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) length: usize,
    pub(crate) title: Option<String>,
    pub(crate) content: Option<String>,
    /// Where it is shown, once the upload is complete.
    pub(crate) channel: Option<String>,
    pub(crate) thread_ts: Option<String>,
}

/// Who wrote a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Author {
    Bot,
    Webhook,
    /// The user id of a person.
    Person(String),
}

/// A text that notified people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ping {
    pub(crate) channel: String,
    pub(crate) ts: String,
    /// Where in the message, as a JSON pointer.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// A call that came too early.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RateViolation {
    /// The method's name, or the webhook's path.
    pub(crate) method: String,
    /// The channel, where the limit is one of channels.
    pub(crate) channel: Option<String>,
    pub(crate) at: Instant,
    pub(crate) limit: Limit,
}

/// Which limit a call went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Messages in one channel.
    Channel,
    /// `chat.update` in the workspace.
    Updates,
    /// Any other method in the workspace.
    Method,
    /// The time a `Retry-After` named.
    RetryAfter,
}

/// The running fake. Dropping it ends its threads and connections.
pub(crate) struct FakeSlack {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl FakeSlack {
    /// Starts on a free port.
    ///
    /// # Panics
    /// When no socket can be had.
    #[track_caller]
    pub(crate) fn start() -> Self {
        match Self::start_on(0) {
            Ok(fake) => fake,
            Err(error) => panic!("no socket for the fake Slack: {error}"),
        }
    }

    /// Starts on a given port of the loopback address; 0 takes a free one.
    pub(crate) fn start_on(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { state: Mutex::new(State::new()), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("fake-slack".to_owned())
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self { shared, port, acceptor: Some(acceptor) })
    }

    /// The base of the Web API, with the slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/", self.port)
    }

    pub(crate) fn webhook_url(&self) -> String {
        format!("http://127.0.0.1:{}{WEBHOOK}", self.port)
    }

    pub(crate) fn token(&self) -> &'static str {
        TOKEN
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Every call so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The calls of one method, or to one path.
    pub(crate) fn calls(&self, name: &str) -> Vec<Request> {
        self.shared.lock().requests.iter().filter(|request| matches(request, name)).cloned().collect()
    }

    /// Waits until there were `count` calls, answered or not, and returns them.
    ///
    /// # Panics
    /// When they do not come in 20 seconds.
    #[track_caller]
    pub(crate) fn wait_requests(&self, count: usize) -> Vec<Request> {
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), PATIENCE, |state| state.requests.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        let requests = state.requests.clone();
        drop(state);
        if timeout.timed_out() {
            let seen: Vec<&str> = requests.iter().map(Request::name).collect();
            panic!("waited for {count} calls, got {}: {seen:?}", seen.len());
        }
        requests
    }

    /// The messages of a channel (id or name), oldest first, deleted ones included.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn messages(&self, channel: &str) -> Vec<Message> {
        match self.shared.lock().channel(channel) {
            Some(channel) => channel.messages.values().cloned().collect(),
            None => panic!("the fake has no channel {channel}"),
        }
    }

    /// The first message of a thread and its replies in all channels, without deleted ones.
    pub(crate) fn thread(&self, ts: &str) -> Vec<Message> {
        self.visible(|message| message.ts == ts || message.thread_ts.as_deref() == Some(ts))
    }

    /// All messages that are no replies, in all channels, without deleted ones.
    pub(crate) fn roots(&self) -> Vec<Message> {
        self.visible(|message| message.thread_ts.is_none())
    }

    /// The message of that `ts`, as it looks now.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub(crate) fn card(&self, ts: &str) -> Message {
        match self.visible(|message| message.ts == ts).pop() {
            Some(message) => message,
            None => panic!("the fake has no message {ts}"),
        }
    }

    fn visible(&self, wanted: impl Fn(&Message) -> bool) -> Vec<Message> {
        let state = self.shared.lock();
        let all = state.channels.iter().flat_map(|channel| channel.messages.values());
        all.filter(|message| !message.deleted && wanted(message)).cloned().collect()
    }

    /// Texts so far that notified people.
    pub(crate) fn pings(&self) -> Vec<Ping> {
        self.shared.lock().pings.clone()
    }

    /// Files so far, also those nobody sees.
    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.shared.lock().uploads.clone()
    }

    /// Calls so far that came too early.
    pub(crate) fn rate_violations(&self) -> Vec<RateViolation> {
        self.shared.lock().violations.clone()
    }

    /// Queues faults for the next calls of a method (`chat.update`), to a path (`/services/…`), to the webhook
    /// (`webhook`) or of any kind (`*`), one each.
    pub(crate) fn script(&self, name: &str, faults: Vec<Fault>) {
        self.shared.lock().faults.entry(name.to_owned()).or_default().extend(faults);
    }

    /// How many faults of a script have not been used.
    pub(crate) fn unused_faults(&self) -> usize {
        self.shared.lock().faults.values().map(VecDeque::len).sum()
    }

    /// Stops answering: calls are noted, then wait for [`FakeSlack::release`].
    pub(crate) fn hold(&self) {
        self.shared.lock().held = true;
    }

    /// Ends a [`FakeSlack::hold`]. Calls whose client has gone meanwhile have no effect, the others are answered; calls
    /// that hang by a [`Fault`] are cut off.
    pub(crate) fn release(&self) {
        let mut state = self.shared.lock();
        state.held = false;
        state.releases += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Closes all connections, as a server does with idle ones.
    pub(crate) fn drop_connections(&self) {
        for stream in self.shared.lock().streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Replaces the scopes the token holds.
    pub(crate) fn set_scopes(&self, scopes: &[&str]) {
        self.shared.lock().scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
    }

    /// Adds a channel; the name stands without `#`.
    pub(crate) fn add_channel(&self, name: &str, id: &str, private: bool, archived: bool, member: bool) {
        self.shared.lock().channels.push(Channel::new(name, id, private, archived, member));
    }

    /// Lets a person delete a message: it is gone, or a tombstone where it has replies.
    ///
    /// # Panics
    /// When there is no such message.
    #[track_caller]
    pub(crate) fn delete_message(&self, channel: &str, ts: &str) {
        let deleted = self.shared.lock().channel_mut(channel).is_some_and(|channel| channel.delete(ts));
        assert!(deleted, "the fake has no message {ts} in {channel}");
    }

    /// Lets a person write into a channel, in a thread where one is given; returns the message's `ts`.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn say(&self, channel: &str, thread_ts: Option<&str>, user: &str, text: &str) -> String {
        let mut state = self.shared.lock();
        let ts = state.next_ts();
        let Some(channel) = state.channel_mut(channel) else {
            drop(state);
            panic!("the fake has no channel {channel}");
        };
        channel.insert(Message {
            channel: channel.id.clone(),
            ts: ts.clone(),
            thread_ts: thread_ts.map(str::to_owned),
            author: Author::Person(user.to_owned()),
            text: text.to_owned(),
            attachments: Vec::new(),
            blocks: Vec::new(),
            metadata: None,
            edits: Vec::new(),
            deleted: false,
            broadcast: false,
            reactions: Vec::new(),
        });
        drop(state);
        self.shared.changed.notify_all();
        ts
    }

    /// Archives a channel.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn archive(&self, channel: &str) {
        let archived = self.shared.lock().channel_mut(channel).map(|channel| channel.archived = true);
        assert!(archived.is_some(), "the fake has no channel {channel}");
    }

    /// From now on the token is answered with `token_revoked`.
    pub(crate) fn revoke_token(&self) {
        self.shared.lock().revoked = true;
    }

    /// From now on the webhook is answered with `no_active_hooks`.
    pub(crate) fn revoke_webhook(&self) {
        self.shared.lock().webhook_gone = true;
    }

    /// From now on a reply to a thread that is gone is posted into the channel, the other thing that Slack might do.
    pub(crate) fn post_lost_replies_alone(&self) {
        self.shared.lock().lost_replies_stand_alone = true;
    }

    /// Sets the server's clock that many seconds ahead of ours, or behind: the `Date` header and the `ts` to come.
    pub(crate) fn set_date_skew(&self, seconds: i64) {
        self.shared.lock().skew = seconds;
    }

    /// Sets how many messages a channel takes: so many a second, and `burst` at once.
    pub(crate) fn set_rate(&self, per_second: f64, burst: u32) {
        let mut state = self.shared.lock();
        let updates_per_minute = state.rate.as_ref().map_or(50, |rate| rate.updates_per_minute);
        state.rate = Some(Rate { per_second, burst: f64::from(burst.max(1)), updates_per_minute });
        state.buckets.clear();
    }

    /// Sets how many `chat.update` a minute the workspace takes.
    pub(crate) fn set_update_rate(&self, per_minute: usize) {
        if let Some(rate) = &mut self.shared.lock().rate {
            rate.updates_per_minute = per_minute;
        }
    }

    /// Sets how many calls of a method a minute the workspace takes: 1 is what Slack lets an app do that is sold outside
    /// of its directory and reads threads.
    pub(crate) fn set_method_rate(&self, method: &'static str, per_minute: usize) {
        self.shared.lock().tiers.insert(method, per_minute);
    }

    /// Takes any number of calls: no 429 but scripted ones.
    pub(crate) fn set_lenient_rate(&self) {
        self.shared.lock().rate = None;
    }

    /// Calls a function with every call that is answered, on the thread that answers it.
    pub(crate) fn observe(&self, observer: impl Fn(&Request) + Send + Sync + 'static) {
        self.shared.lock().observer = Some(Arc::new(observer));
    }
}

impl Drop for FakeSlack {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        // A last connection wakes the thread that accepts them.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.drop_connections();
        let _ = self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE, |state| state.live > 0);
    }
}
