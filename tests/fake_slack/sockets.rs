//! Socket Mode: tickets, at most ten connections, envelopes that wait for their acknowledgement, and what can go wrong.
//!
//! A connection is a real WebSocket. Each envelope goes to one of the connections in turn. What is not acknowledged since
//! its connection ended goes to another one; an event that is not acknowledged in three seconds is sent once more, and
//! the person who clicked sees an error. Long texts come in two frames, which Slack may do, but hardly does: its own SDK
//! for Python could not read them.

mod control;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, WebSocket};
use uuid::Uuid;

use super::FakeSlack;
use super::http::{self, Raw, Reply, Wire};
use super::methods::{Answer, refuse};
use super::server::Shared;
use super::show::APP;
use super::state::State;

/// The app-level token that is accepted.
pub(crate) const APP_TOKEN: &str = "xapp-1-A0APP00000-000-fake";

const MOST_LINKS: usize = 10;
/// How long a link waits for a byte before it looks whether there is something to send.
const TICK: Duration = Duration::from_millis(3);
/// How often the server pings.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long Slack waits for an acknowledgement.
pub(super) const ACK_WITHIN: Duration = Duration::from_secs(3);
/// How long a link lives on after a warning, unless there is a newer one.
const NOTICE: Duration = Duration::from_secs(10);
/// How long it lives on after there is.
const OVERLAP: Duration = Duration::from_millis(300);
/// How long a client has to answer a close frame.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// Longer texts come in two frames, in bytes.
const WHOLE_FRAME: usize = 1_000;

/// What a link is to send.
enum Out {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    /// Half of a frame, then the end of the connection.
    Half(String),
    /// A close frame.
    Close,
    /// The end of the connection, without a word.
    Cut,
}

/// What a link is to do now.
struct Due {
    silent: bool,
    whole: bool,
    outs: Vec<Out>,
}

/// One open WebSocket.
#[derive(Default)]
struct Link {
    outbox: VecDeque<Out>,
    /// It gets no hello.
    doomed: bool,
    /// It has got its hello, and no farewell.
    ready: bool,
    /// When it was told to leave.
    leaving: Option<Instant>,
    pings: usize,
    pongs: usize,
}

impl Link {
    /// Ends it in an orderly way.
    fn end(&mut self) {
        if !self.doomed {
            (self.doomed, self.ready) = (true, false);
            self.outbox.push_back(Out::Close);
        }
    }
}

/// An envelope that was sent.
#[derive(Default)]
struct Sent {
    times: usize,
    acks: Vec<Value>,
    accepts_payload: bool,
}

/// All that Socket Mode remembers.
#[derive(Default)]
pub(super) struct Hub {
    tickets: Vec<String>,
    /// What addresses begin with, where that is not this server's own.
    base: Option<String>,
    links: BTreeMap<u64, Link>,
    /// The link that got the last envelope.
    last: u64,
    sent: HashMap<String, Sent>,
    complaints: Vec<String>,
    opened: usize,
    withhold_hello: bool,
    silent: bool,
    twice: bool,
    whole_frames: bool,
    /// The next envelope is followed by the end of its connection.
    cut_next: bool,
    off: bool,
    revoked: bool,
}

impl Hub {
    fn ready(&self) -> usize {
        self.links.values().filter(|link| link.ready).count()
    }

    /// The next link in turn to get an envelope.
    fn pick(&self) -> Option<u64> {
        let ready = |(&id, link): (&u64, &Link)| link.ready.then_some(id);
        let after = self.links.range(self.last + 1..).find_map(ready);
        after.or_else(|| self.links.iter().find_map(ready))
    }

    fn tell_all(&mut self, mut out: impl FnMut() -> Out) {
        for link in self.links.values_mut() {
            link.outbox.push_back(out());
        }
    }

    fn heard(&mut self, text: &str) {
        let Ok(Value::Object(ack)) = serde_json::from_str(text) else {
            return self.complaints.push(format!("not a JSON object: {text}"));
        };
        let id = ack.get("envelope_id").and_then(Value::as_str).unwrap_or_default();
        let Some(sent) = self.sent.get_mut(id) else {
            return self.complaints.push(format!("an acknowledgement of nothing: {text}"));
        };
        if ack.keys().any(|key| !matches!(key.as_str(), "envelope_id" | "payload")) {
            self.complaints.push(format!("unknown keys: {text}"));
        } else if ack.contains_key("payload") && !sent.accepts_payload {
            self.complaints.push(format!("no payload is accepted here: {text}"));
        } else if sent.acks.len() == sent.times {
            self.complaints.push(format!("acknowledged more often than sent: {text}"));
        }
        sent.acks.push(Value::Object(ack));
    }
}

impl State {
    /// `apps.connections.open`: a ticket for one connection.
    pub(super) fn open_socket(&mut self, host: &str) -> Answer {
        if self.hub.revoked {
            return Err(refuse("token_revoked"));
        }
        let ticket = Uuid::new_v4().to_string();
        self.hub.tickets.push(ticket.clone());
        let base = self.hub.base.clone().unwrap_or_else(|| format!("ws://{host}"));
        Ok(json!({ "url": format!("{base}/link/?ticket={ticket}&app_id={APP}") }))
    }
}

/// What came of an envelope.
pub(super) struct Delivered {
    /// The first acknowledgement.
    pub(super) ack: Option<Value>,
    /// How often it was sent.
    pub(super) times: usize,
}

impl Shared {
    /// Sends an envelope to one of the links, and waits for what becomes of it.
    pub(super) fn send_envelope(&self, kind: &str, payload: &Value, accepts_payload: bool) -> Delivered {
        let id = Uuid::new_v4().to_string();
        let mut envelope = json!({
            "envelope_id": id, "type": kind, "payload": payload, "accepts_response_payload": accepts_payload,
        });
        let attempts = if kind == "events_api" { 2 } else { 1 };
        self.lock().hub.sent.insert(id.clone(), Sent { accepts_payload, ..Sent::default() });
        for attempt in 0..attempts {
            if kind == "events_api" {
                envelope["retry_attempt"] = json!(attempt);
                envelope["retry_reason"] = json!(if attempt == 0 { "" } else { "timeout" });
            }
            self.send_until_acked(&id, &envelope.to_string());
            if self.lock().hub.sent.get(&id).is_some_and(|sent| !sent.acks.is_empty()) {
                break;
            }
        }
        let state = self.lock();
        let sent = state.hub.sent.get(&id);
        Delivered {
            ack: sent.and_then(|sent| sent.acks.first().cloned()),
            times: sent.map_or(0, |sent| sent.times),
        }
    }

    fn send_until_acked(&self, id: &str, envelope: &str) {
        let until = Instant::now() + ACK_WITHIN;
        let mut first = true;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Without any link the person is told so at once; after a loss there may be one again.
            if !first && !self.wait_until(left, |state| state.hub.ready() > 0) {
                return;
            }
            let mut state = self.lock();
            let Some(link) = state.hub.pick() else { return };
            state.hub.last = link;
            let times = if std::mem::take(&mut state.hub.twice) { 2 } else { 1 };
            let cut = std::mem::take(&mut state.hub.cut_next);
            if let Some(link) = state.hub.links.get_mut(&link) {
                for _ in 0..times {
                    link.outbox.push_back(Out::Text(envelope.to_owned()));
                }
                if cut {
                    link.outbox.push_back(Out::Cut);
                }
            }
            if let Some(sent) = state.hub.sent.get_mut(id) {
                sent.times += times;
            }
            drop(state);
            first = false;
            let left = until.saturating_duration_since(Instant::now());
            let acked = |state: &State| state.hub.sent.get(id).is_some_and(|sent| !sent.acks.is_empty());
            let over = self.wait_until(left, |state| acked(state) || !state.hub.links.contains_key(&link));
            if !over || acked(&self.lock()) {
                return;
            }
        }
    }

    /// Takes a connection over as a WebSocket, until it ends.
    pub(super) fn link(&self, wire: &mut Wire, raw: &Raw, connection: u64) {
        let key = match self.admit(raw) {
            Ok(key) => key,
            Err(status) => {
                let reply = Reply::text(status, "");
                let _ = wire.write(reply.head(self.clock(), false).as_bytes());
                return;
            }
        };
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let Ok(stream) = wire.socket() else { return };
        if wire.write(head.as_bytes()).is_err() || stream.set_read_timeout(Some(TICK)).is_err() {
            return;
        }
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        let mut state = self.lock();
        state.hub.opened += 1;
        let mut link = Link::default();
        let refused = if state.hub.off {
            Some("link_disabled")
        } else {
            (state.hub.links.len() >= MOST_LINKS).then_some("too_many_websockets")
        };
        if let Some(reason) = refused {
            link.doomed = true;
            link.outbox.extend([Out::Text(goodbye(reason)), Out::Close]);
        }
        state.hub.links.insert(connection, link);
        drop(state);
        self.changed.notify_all();
        let _ = self.converse_by_frames(&mut socket, connection);
        let _ = socket.get_ref().shutdown(Shutdown::Both);
        self.lock().hub.links.remove(&connection);
        self.changed.notify_all();
    }

    /// The key of a request to become a WebSocket with a ticket nobody has used; else the status of the refusal.
    fn admit(&self, raw: &Raw) -> Result<String, u16> {
        let part = |name: &str| http::header(&raw.headers, name).unwrap_or_default();
        let upgrade = part("upgrade").eq_ignore_ascii_case("websocket")
            && part("connection").to_ascii_lowercase().contains("upgrade")
            && part("sec-websocket-version") == "13";
        // A token has no business here: the ticket is the right to connect.
        if raw.method != "GET" || !upgrade || !part("authorization").is_empty() {
            return Err(400);
        }
        let query = http::form(&raw.query).unwrap_or_default();
        let ticket = query.get("ticket").and_then(Value::as_str).unwrap_or_default();
        let mut state = self.lock();
        let at = state.hub.tickets.iter().position(|known| known == ticket).ok_or(403_u16)?;
        state.hub.tickets.swap_remove(at);
        Ok(part("sec-websocket-key").to_owned())
    }

    fn converse_by_frames(&self, socket: &mut WebSocket<TcpStream>, id: u64) -> Result<(), Error> {
        let (mut pinged, mut closing) = (Instant::now(), None::<Instant>);
        loop {
            let Some(Due { silent, whole, outs }) = self.due(id) else { return Ok(()) };
            if silent {
                thread::sleep(TICK);
                continue;
            }
            for out in outs {
                if matches!(out, Out::Close) {
                    closing = Some(Instant::now());
                }
                send(socket, out, whole)?;
            }
            if closing.is_some_and(|since| since.elapsed() >= CLOSED_WITHIN) {
                return Ok(());
            }
            if closing.is_none() && pinged.elapsed() >= PING_EVERY {
                pinged = Instant::now();
                socket.send(Message::Ping(Vec::from("fake").into()))?;
            }
            match socket.read() {
                Ok(Message::Text(text)) => {
                    self.lock().hub.heard(&text);
                    self.changed.notify_all();
                }
                Ok(Message::Ping(_)) => {
                    socket.flush()?;
                    self.note(id, |link| link.pings += 1);
                }
                Ok(Message::Pong(_)) => self.note(id, |link| link.pongs += 1),
                Ok(Message::Close(_)) => {
                    socket.flush()?;
                    return Ok(());
                }
                Ok(Message::Binary(_) | Message::Frame(_)) => {
                    self.lock().hub.complaints.push("a frame that is not text".to_owned());
                }
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&self, id: u64, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.lock().hub.links.get_mut(&id) {
            change(link);
        }
        self.changed.notify_all();
    }

    /// What a link is to send now, the hello first; nothing when it is to end.
    fn due(&self, id: u64) -> Option<Due> {
        let mut state = self.lock();
        if state.stopping {
            return None;
        }
        let hub = &mut state.hub;
        let whole = hub.whole_frames;
        let (withhold, silent, count) = (hub.withhold_hello, hub.silent, hub.links.len());
        let newer = hub.links.range(id + 1..).any(|(_, link)| link.ready);
        let link = hub.links.get_mut(&id)?;
        let mut greeted = false;
        let mut outs = Vec::new();
        if !silent && !link.ready && !link.doomed && !withhold {
            (link.ready, greeted) = (true, true);
            outs.push(Out::Text(hello(count)));
        }
        let notice = if newer { OVERLAP } else { NOTICE };
        if link.leaving.is_some_and(|since| since.elapsed() >= notice) {
            link.end();
        }
        if !silent {
            outs.extend(link.outbox.drain(..));
        }
        drop(state);
        if greeted {
            self.changed.notify_all();
        }
        Some(Due { silent, whole, outs })
    }
}

fn hello(count: usize) -> String {
    json!({
        "type": "hello", "num_connections": count, "connection_info": { "app_id": APP },
        "debug_info": { "host": "fake", "started": "2026-01-01 00:00:00.000", "build_number": 1,
            "approximate_connection_time": 3600 },
    })
    .to_string()
}

fn goodbye(reason: &str) -> String {
    json!({ "type": "disconnect", "reason": reason, "debug_info": { "host": "fake" } }).to_string()
}

fn send(socket: &mut WebSocket<TcpStream>, out: Out, whole: bool) -> Result<(), Error> {
    match out {
        Out::Text(text) if text.len() > WHOLE_FRAME && !whole => {
            let (mut first, mut rest) = (text.into_bytes(), Vec::new());
            // Where a text is cut may be within a character.
            rest.extend(first.split_off(first.len() / 2));
            let text = Frame::message(first, OpCode::Data(Data::Text), false);
            socket.send(Message::Frame(text))?;
            socket.send(Message::Frame(Frame::message(rest, OpCode::Data(Data::Continue), true)))
        }
        Out::Text(text) => socket.send(Message::text(text)),
        Out::Binary(bytes) => socket.send(Message::Binary(bytes.into())),
        Out::Ping(bytes) => socket.send(Message::Ping(bytes.into())),
        Out::Close => match socket.close(None) {
            Ok(()) => Ok(()),
            Err(error) => Err(error),
        },
        Out::Half(text) => {
            let mut frame = Vec::new();
            Frame::message(text.into_bytes(), OpCode::Data(Data::Text), true).format(&mut frame)?;
            socket.get_mut().write_all(&frame[..frame.len() / 2])?;
            Err(Error::ConnectionClosed)
        }
        Out::Cut => Err(Error::ConnectionClosed),
    }
}
