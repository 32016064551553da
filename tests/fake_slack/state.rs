//! What the fake knows: channels, messages, and how often it was called.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::clicks::Inbound;
use super::people::{Ephemeral, Person, everybody};
use super::sockets::Hub;
use super::{CHANNEL, Fault, Limit, Message, Ping, RateViolation, Request, Upload};

/// What each method takes in a minute, where that is not the workspace's or a channel's rate of messages.
const TIERS: [(&str, usize); 8] = [
    // Its tier is 1 in some pages and 3 in others.
    ("apps.connections.open", 20),
    ("chat.postEphemeral", 100),
    ("conversations.members", 100),
    ("conversations.replies", 50),
    ("reactions.add", 50),
    ("reactions.get", 50),
    ("reactions.remove", 20),
    ("users.info", 100),
];

/// What the token may do at the start.
const SCOPES: [&str; 14] = [
    "chat:write",
    "chat:write.public",
    "channels:read",
    "groups:read",
    "channels:history",
    "groups:history",
    "channels:join",
    "reactions:read",
    "reactions:write",
    "im:write",
    "files:write",
    "commands",
    "app_mentions:read",
    "users:read",
];

/// A channel with its messages, by `ts`: those sort by time as text, having all the same length.
pub(super) struct Channel {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) private: bool,
    pub(super) archived: bool,
    pub(super) member: bool,
    pub(super) messages: BTreeMap<String, Message>,
    /// The replies of each thread, by its first message.
    pub(super) threads: HashMap<String, Vec<String>>,
}

/// Tokens that come back at a steady rate.
pub(super) struct Bucket {
    pub(super) tokens: f64,
    pub(super) at: Instant,
}

/// How much the fake takes before it answers 429.
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) burst: f64,
    pub(super) updates_per_minute: usize,
}

/// Is called with every call that is answered.
pub(super) type Observer = Arc<dyn Fn(&Request) + Send + Sync>;

/// All that changes.
pub(super) struct State {
    pub(super) stopping: bool,
    pub(super) held: bool,
    /// Counts the releases, so that calls which hang can tell when one happens.
    pub(super) releases: u64,
    pub(super) live: usize,
    pub(super) connections: u64,
    pub(super) streams: HashMap<u64, Arc<TcpStream>>,
    pub(super) requests: Vec<Request>,
    pub(super) faults: HashMap<String, VecDeque<Fault>>,
    pub(super) observer: Option<Observer>,
    pub(super) channels: Vec<Channel>,
    pub(super) scopes: Vec<String>,
    pub(super) revoked: bool,
    pub(super) webhook_gone: bool,
    pub(super) lost_replies_stand_alone: bool,
    pub(super) skew: i64,
    pub(super) last_ts: i64,
    pub(super) pings: Vec<Ping>,
    pub(super) uploads: Vec<Upload>,
    pub(super) rate: Option<Rate>,
    pub(super) buckets: HashMap<String, Bucket>,
    pub(super) updates: VecDeque<Instant>,
    pub(super) penalties: HashMap<String, Instant>,
    pub(super) violations: Vec<RateViolation>,
    pub(super) people: Vec<Person>,
    pub(super) ephemerals: Vec<Ephemeral>,
    pub(super) hub: Hub,
    pub(super) inbound: Inbound,
    pub(super) tiers: HashMap<&'static str, usize>,
    pub(super) calls: HashMap<&'static str, VecDeque<Instant>>,
}

/// Whether a script or a question by that name is about this call.
pub(super) fn matches(request: &Request, name: &str) -> bool {
    name == request.name()
        || name == request.path
        || name == "*"
        || (name == "webhook" && request.path.starts_with("/services/"))
}

impl State {
    pub(super) fn new() -> Self {
        let channels = vec![
            Channel::new("agent-supervisory", CHANNEL, false, false, true),
            // The one of the README's recipes.
            Channel::new("agents", "C0AGENTS00", false, false, true),
            Channel::new("general", "C0GENERAL0", false, false, false),
            Channel::new("secret", "G0SECRET00", true, false, false),
            Channel::new("old", "C0OLD00000", false, true, true),
        ];
        Self {
            stopping: false,
            held: false,
            releases: 0,
            live: 0,
            connections: 0,
            streams: HashMap::new(),
            requests: Vec::new(),
            faults: HashMap::new(),
            observer: None,
            channels,
            scopes: SCOPES.iter().map(|&scope| scope.to_owned()).collect(),
            revoked: false,
            webhook_gone: false,
            lost_replies_stand_alone: false,
            skew: 0,
            last_ts: 0,
            pings: Vec::new(),
            uploads: Vec::new(),
            rate: Some(Rate { per_second: 1.0, burst: 4.0, updates_per_minute: 50 }),
            buckets: HashMap::new(),
            updates: VecDeque::new(),
            penalties: HashMap::new(),
            violations: Vec::new(),
            people: everybody(),
            ephemerals: Vec::new(),
            hub: Hub::default(),
            inbound: Inbound::default(),
            tiers: TIERS.into(),
            calls: HashMap::new(),
        }
    }

    /// What is to go wrong with a call: the script for its method comes before one for all.
    pub(super) fn next_fault(&mut self, request: &Request) -> Fault {
        let keys = [request.name(), &request.path, "webhook", "*"];
        keys.iter()
            .filter(|key| matches(request, key))
            .find_map(|&key| self.faults.get_mut(key).and_then(VecDeque::pop_front))
            .unwrap_or(Fault::Ok)
    }

    /// The server's clock, in microseconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        i64::try_from(micros).unwrap_or(i64::MAX / 2).saturating_add(self.skew.saturating_mul(1_000_000))
    }

    /// A `ts` that no message has. It grows, and its last digit is a zero.
    pub(super) fn next_ts(&mut self) -> String {
        self.last_ts = (self.now() / 10 * 10).max(self.last_ts + 10);
        format!("{}.{:06}", self.last_ts / 1_000_000, self.last_ts % 1_000_000)
    }

    /// For how many seconds a call comes before the time it was told.
    pub(super) fn penalty(&mut self, request: &Request) -> Option<u32> {
        self.rate.as_ref()?;
        let left = self.penalties.get(request.name())?.checked_duration_since(Instant::now())?;
        self.too_early(request.name(), None, Limit::RetryAfter);
        Some(whole_seconds(left))
    }

    /// Takes one message's worth of a channel's rate, or says in how many seconds there will be one.
    pub(super) fn pace(&mut self, method: &str, channel: &str) -> Result<(), u32> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let (now, full) = (Instant::now(), rate.burst);
        let bucket = self.buckets.entry(channel.to_owned()).or_insert(Bucket { tokens: full, at: now });
        let grown = now.duration_since(bucket.at).as_secs_f64() * rate.per_second;
        bucket.tokens = (bucket.tokens + grown).min(full);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - bucket.tokens) / rate.per_second.max(0.001);
        self.too_early(method, Some(channel), Limit::Channel);
        Err(whole_seconds(Duration::from_secs_f64(wait)))
    }

    /// Takes one update from the minute's, or says in how many seconds there will be one.
    pub(super) fn pace_update(&mut self) -> Result<(), u32> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let (now, minute) = (Instant::now(), Duration::from_mins(1));
        while self.updates.front().is_some_and(|at| now.duration_since(*at) >= minute) {
            self.updates.pop_front();
        }
        if self.updates.len() < rate.updates_per_minute {
            self.updates.push_back(now);
            return Ok(());
        }
        let left = self.updates.front().map_or(minute, |at| minute.saturating_sub(now.duration_since(*at)));
        self.too_early("chat.update", None, Limit::Updates);
        Err(whole_seconds(left))
    }

    /// Takes one call from what a method has in a minute, or says in how many seconds there will be one.
    pub(super) fn pace_method(&mut self, method: &str) -> Result<(), u32> {
        let Some((&method, &most)) = self.tiers.get_key_value(method) else { return Ok(()) };
        if self.rate.is_none() {
            return Ok(());
        }
        let (now, minute) = (Instant::now(), Duration::from_mins(1));
        let calls = self.calls.entry(method).or_default();
        while calls.front().is_some_and(|at| now.duration_since(*at) >= minute) {
            calls.pop_front();
        }
        if calls.len() < most {
            calls.push_back(now);
            return Ok(());
        }
        let left = calls.front().map_or(minute, |at| minute.saturating_sub(now.duration_since(*at)));
        self.too_early(method, None, Limit::Method);
        Err(whole_seconds(left))
    }

    pub(super) fn too_early(&mut self, method: &str, channel: Option<&str>, limit: Limit) {
        let channel = channel.map(str::to_owned);
        self.violations.push(RateViolation { method: method.to_owned(), channel, at: Instant::now(), limit });
    }

    /// A channel by id or name, with or without `#`.
    pub(super) fn channel(&self, wanted: &str) -> Option<&Channel> {
        let name = wanted.strip_prefix('#').unwrap_or(wanted);
        self.channels.iter().find(|channel| channel.id == wanted || channel.name == name)
    }

    pub(super) fn channel_mut(&mut self, wanted: &str) -> Option<&mut Channel> {
        let name = wanted.strip_prefix('#').unwrap_or(wanted);
        self.channels.iter_mut().find(|channel| channel.id == wanted || channel.name == name)
    }
}

impl Channel {
    pub(super) fn new(name: &str, id: &str, private: bool, archived: bool, member: bool) -> Self {
        let (messages, threads) = (BTreeMap::new(), HashMap::new());
        Self { id: id.to_owned(), name: name.to_owned(), private, archived, member, messages, threads }
    }

    pub(super) fn insert(&mut self, message: Message) {
        if let Some(root) = &message.thread_ts {
            self.threads.entry(root.clone()).or_default().push(message.ts.clone());
        }
        self.messages.insert(message.ts.clone(), message);
    }

    /// The replies of a thread that are in view, oldest first.
    pub(super) fn replies(&self, root: &str) -> Vec<&Message> {
        let all = self.threads.get(root).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(|ts| self.messages.get(ts)).filter(|message| !message.deleted).collect()
    }

    /// Whether a message is in view, be it as a tombstone.
    pub(super) fn present(&self, message: &Message) -> bool {
        !message.deleted || !self.replies(&message.ts).is_empty()
    }

    pub(super) fn delete(&mut self, ts: &str) -> bool {
        match self.messages.get_mut(ts) {
            Some(message) if !message.deleted => {
                message.deleted = true;
                true
            }
            _ => false,
        }
    }
}

/// Rounded up, and at least one, as `Retry-After` is.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000_000).max(1)).unwrap_or(u32::MAX)
}
