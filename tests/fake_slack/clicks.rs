//! What people do that Slack tells the app: clicks, slash commands, mentions. By Socket Mode, or signed over HTTP to
//! where [`FakeSlack::interactivity`] says.
//!
//! Over HTTP an event that is not answered with 2xx comes a second time at once, as Slack's first retry does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use super::callback::Callback;
use super::people::Person;
use super::show::{APP, TEAM};
use super::sockets::ACK_WITHIN;
use super::state::State;
use super::{FakeSlack, Message};

/// A signing secret to give to [`FakeSlack::interactivity`] and to the app.
pub(crate) const SIGNING_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What people did so far, and where it is told.
#[derive(Default)]
pub(super) struct Inbound {
    /// The base of the app's URLs and its signing secret; without them Socket Mode is on.
    http: Option<(String, String)>,
    pub(super) callbacks: Vec<Callback>,
}

/// What became of a click, a command or an event.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Whether the app acknowledged it in time; else the person sees an error.
    pub(crate) acked: bool,
    /// The status, over HTTP where there was an answer.
    pub(crate) status: Option<u16>,
    /// What came with the acknowledgement.
    pub(crate) answer: Option<Value>,
    /// How often it was sent.
    pub(crate) times: usize,
    pub(crate) took: Duration,
}

/// The three places of an app that Slack calls.
#[derive(Clone, Copy)]
enum Place {
    Interactions,
    Commands,
    Events,
}

impl Place {
    fn path(self) -> &'static str {
        match self {
            Self::Interactions => "/slack/interactions",
            Self::Commands => "/slack/commands",
            Self::Events => "/slack/events",
        }
    }

    fn envelope(self) -> &'static str {
        match self {
            Self::Interactions => "interactive",
            Self::Commands => "slash_commands",
            Self::Events => "events_api",
        }
    }
}

/// The headers Slack signs a body with.
pub(crate) fn sign(secret: &str, timestamp: i64, body: &str) -> [(&'static str, String); 2] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("v0:{timestamp}:{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    [("X-Slack-Request-Timestamp", timestamp.to_string()), ("X-Slack-Signature", format!("v0={hex}"))]
}

/// Encodes the fields of an object as a form.
pub(crate) fn encode_form(fields: &Value) -> String {
    let encode = |text: &str| {
        let mut encoded = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                    encoded.push(char::from(byte));
                }
                b' ' => encoded.push('+'),
                byte => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        encoded
    };
    let pairs = fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value.as_str().unwrap_or_default())));
    pairs.collect::<Vec<_>>().join("&")
}

/// The button with that `action_id` in a message as the API shows it, and the attachment it stands in.
fn button<'a>(shown: &'a Value, action_id: &str) -> Option<(&'a Value, &'a str, Option<u64>)> {
    let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
    let attached = list(&shown["attachments"])
        .iter()
        .flat_map(|part| list(&part["blocks"]).iter().map(|block| (block, part["id"].as_u64())));
    let blocks = list(&shown["blocks"]).iter().map(|block| (block, None)).chain(attached);
    for (block, attachment) in blocks {
        let accessory = block.get("accessory").into_iter();
        let found = list(&block["elements"])
            .iter()
            .chain(accessory)
            .find(|element| element["type"] == "button" && element["action_id"].as_str() == Some(action_id));
        if let Some(found) = found {
            return Some((found, block["block_id"].as_str().unwrap_or_default(), attachment));
        }
    }
    None
}

impl State {
    /// A new `response_url`.
    fn callback(&mut self, port: u16, callback: Callback) -> String {
        let url = format!("http://127.0.0.1:{port}/response/{}", callback.id);
        self.inbound.callbacks.push(callback);
        url
    }

    /// A person's way of being named in what Slack sends; somebody unknown is one of the workspace.
    fn known(&self, user: &str) -> Person {
        self.person(user).cloned().unwrap_or_else(|| Person::new(user, "somebody", "Some Body"))
    }
}

fn fresh_id() -> String {
    Uuid::new_v4().simple().to_string()
}

impl FakeSlack {
    /// From now on tells of what people do over HTTP, signed: to `/slack/interactions`, `/slack/commands` and
    /// `/slack/events` below this URL. Before that, and where no URL is given, Socket Mode is on.
    pub(crate) fn interactivity(&self, url: &str, signing_secret: &str) {
        let base = url.trim_end_matches('/').to_owned();
        self.shared.lock().inbound.http = Some((base, signing_secret.to_owned()));
    }

    /// Lets a person click a button of a message as it looks now, and waits until the app has acknowledged that.
    ///
    /// # Panics
    /// When the message has no such button, or not any more.
    #[track_caller]
    pub(crate) fn click(&self, ts: &str, action_id: &str, user: &str) -> Heard {
        self.interact(&self.click_payload(&self.card(ts), action_id, user))
    }

    /// Lets a person click a button of a message as it looked before: a client may be slow to show an edit.
    ///
    /// # Panics
    /// When the message had no such button.
    #[track_caller]
    pub(crate) fn click_as_seen(&self, message: &Message, action_id: &str, user: &str) -> Heard {
        self.interact(&self.click_payload(message, action_id, user))
    }

    /// Whether a message has a button with that `action_id` now.
    pub(crate) fn has_button(&self, ts: &str, action_id: &str) -> bool {
        let message = self.card(ts);
        button(&self.shared.lock().show(&message, false), action_id).is_some()
    }

    /// The `action_id`s of all buttons of a message as it looks now.
    pub(crate) fn buttons(&self, ts: &str) -> Vec<String> {
        let message = self.card(ts);
        let parts = message.attachments.iter().filter_map(|part| part["blocks"].as_array()).flatten();
        let blocks = message.blocks.iter().chain(parts);
        let elements = blocks.flat_map(|block| {
            block["elements"].as_array().into_iter().flatten().chain(block.get("accessory"))
        });
        let buttons = elements.filter(|element| element["type"] == "button");
        buttons.map(|button| button["action_id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The newest message with such a button, for whoever clicks by hand.
    pub(crate) fn newest_with(&self, action_id: &str) -> Option<Message> {
        let all = self.visible(|_| true).into_iter();
        all.filter(|message| self.has_button(&message.ts, action_id)).max_by(|a, b| a.ts.cmp(&b.ts))
    }

    /// Whether a channel has a message of that `ts` in view.
    pub(crate) fn has_message(&self, channel: &str, ts: &str) -> bool {
        !self.visible(|message| message.channel == channel && message.ts == ts).is_empty()
    }

    /// What Slack tells the app of a click, for tests that alter it.
    ///
    /// # Panics
    /// When the message has no such button.
    #[track_caller]
    pub(crate) fn click_payload(&self, message: &Message, action_id: &str, user: &str) -> Value {
        let mut state = self.shared.lock();
        let shown = state.show(message, true);
        let Some((found, block_id, attachment)) = button(&shown, action_id) else {
            drop(state);
            panic!("no button {action_id} in {shown:#}");
        };
        let mut action = found.clone();
        action["block_id"] = json!(block_id);
        action["action_ts"] = json!(state.next_ts());
        let (person, channel) = (state.known(user), message.channel.clone());
        let name = state.channel(&channel).map(|channel| channel.name.clone()).unwrap_or_default();
        let mut container = json!({
            "type": "message", "message_ts": message.ts, "channel_id": channel, "is_ephemeral": false,
        });
        if let Some(id) = attachment {
            container["type"] = json!("message_attachment");
            container["attachment_id"] = json!(id);
            container["is_app_unfurl"] = json!(false);
        }
        if let Some(thread) = &message.thread_ts {
            container["thread_ts"] = json!(thread);
        }
        let response_url = state.callback(
            self.port(),
            Callback {
                id: fresh_id(),
                channel: channel.clone(),
                user: user.to_owned(),
                ts: Some(message.ts.clone()),
                thread_ts: message.thread_ts.clone(),
                uses: 0,
                expired: false,
            },
        );
        json!({
            "type": "block_actions", "api_app_id": APP, "token": "deprecated", "enterprise": null,
            "is_enterprise_install": false, "trigger_id": fresh_id(), "response_url": response_url,
            "team": { "id": TEAM, "domain": "fake" },
            "user": { "id": person.id, "username": person.name, "name": person.name, "team_id": person.team },
            "channel": { "id": channel, "name": name },
            "container": container, "message": shown, "state": { "values": {} }, "actions": [action],
        })
    }

    /// Tells the app of an interaction and waits for its acknowledgement.
    pub(crate) fn interact(&self, payload: &Value) -> Heard {
        self.deliver(Place::Interactions, payload)
    }

    /// Lets a person type a slash command, say `/agent-task` with `list`.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn command(&self, channel: &str, user: &str, command: &str, text: &str) -> Heard {
        let payload = self.command_payload(channel, user, command, text);
        let heard = self.deliver(Place::Commands, &payload);
        if let Some(answer) = &heard.answer {
            self.show_answer(&payload, answer);
        }
        heard
    }

    /// What Slack tells the app of a slash command, for tests that alter it.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn command_payload(&self, channel: &str, user: &str, command: &str, text: &str) -> Value {
        let mut state = self.shared.lock();
        let Some((id, name)) = state.channel(channel).map(|found| (found.id.clone(), found.name.clone()))
        else {
            drop(state);
            panic!("the fake has no channel {channel}");
        };
        let person = state.known(user);
        let response_url = state.callback(
            self.port(),
            Callback {
                id: fresh_id(),
                channel: id.clone(),
                user: user.to_owned(),
                ts: None,
                thread_ts: None,
                uses: 0,
                expired: false,
            },
        );
        json!({
            "token": "deprecated", "team_id": TEAM, "team_domain": "fake", "channel_id": id, "channel_name": name,
            "user_id": person.id, "user_name": person.name, "command": command, "text": text,
            "api_app_id": APP, "is_enterprise_install": "false", "response_url": response_url,
            "trigger_id": fresh_id(),
        })
    }

    /// What the app answers to a command is shown, if Slack can make anything of it.
    #[track_caller]
    fn show_answer(&self, payload: &Value, answer: &Value) {
        let answer = match answer {
            Value::String(text) => json!({ "text": text }),
            other => other.clone(),
        };
        let mut state = self.shared.lock();
        let url = payload["response_url"].as_str().unwrap_or_default();
        let id = url.rsplit('/').next().unwrap_or_default();
        let callback = state.inbound.callbacks.iter().find(|callback| callback.id == id).cloned();
        let told = match (callback, answer.as_object()) {
            (Some(callback), Some(answer)) => state.tell(&callback, answer),
            _ => Err("not an object"),
        };
        drop(state);
        self.shared.changed.notify_all();
        if let Err(error) = told {
            panic!("Slack cannot show the answer to a command: {error}: {answer}");
        }
    }

    /// Lets a person write a message that mentions the bot, in a thread where one is given; the message's `ts` comes
    /// first.
    #[track_caller]
    pub(crate) fn mention(
        &self,
        channel: &str,
        thread_ts: Option<&str>,
        user: &str,
        text: &str,
    ) -> (String, Heard) {
        let text = format!("<@{}> {text}", super::BOT_USER);
        let ts = self.say(channel, thread_ts, user, &text);
        let message = self.card(&ts);
        let team = self.shared.lock().known(user).team;
        let mut event = json!({
            "type": "app_mention", "user": user, "text": text, "ts": ts, "event_ts": ts,
            "channel": message.channel, "team": TEAM, "user_team": team,
        });
        if let Some(thread) = thread_ts {
            event["thread_ts"] = json!(thread);
        }
        (ts, self.event(event))
    }

    /// Tells the app of an event.
    pub(crate) fn event(&self, event: Value) -> Heard {
        self.event_callback(&self.event_payload(event))
    }

    /// What Slack tells the app of an event, for tests that alter it or tell it twice.
    pub(crate) fn event_payload(&self, event: Value) -> Value {
        let seconds = self.shared.clock();
        json!({
            "type": "event_callback", "token": "deprecated", "team_id": TEAM, "context_team_id": TEAM,
            "api_app_id": APP, "event": event, "event_id": format!("Ev{}", fresh_id()), "event_time": seconds,
            "authorizations": [{ "team_id": TEAM, "user_id": super::BOT_USER, "is_bot": true }],
            "is_ext_shared_channel": false, "event_context": "fake",
        })
    }

    /// Tells the app of an event, given all that comes with it.
    pub(crate) fn event_callback(&self, payload: &Value) -> Heard {
        self.deliver(Place::Events, payload)
    }

    /// From now on no `response_url` given so far is good for anything.
    pub(crate) fn expire_response_urls(&self) {
        for callback in &mut self.shared.lock().inbound.callbacks {
            callback.expired = true;
        }
    }

    fn deliver(&self, place: Place, payload: &Value) -> Heard {
        let began = Instant::now();
        let http = self.shared.lock().inbound.http.clone();
        if let Some((base, secret)) = http {
            return post(&base, &secret, place, payload, began);
        }
        let accepts_payload = matches!(place, Place::Commands);
        let delivered = self.shared.send_envelope(place.envelope(), payload, accepts_payload);
        let answer = delivered.ack.as_ref().and_then(|ack| ack.get("payload")).cloned();
        Heard {
            acked: delivered.ack.is_some(),
            status: None,
            answer,
            times: delivered.times,
            took: began.elapsed(),
        }
    }
}

/// The body that Slack sends over HTTP, and its type.
pub(crate) fn http_body(path: &str, payload: &Value) -> (String, &'static str) {
    let form = "application/x-www-form-urlencoded";
    match path {
        "/slack/interactions" => (encode_form(&json!({ "payload": payload.to_string() })), form),
        "/slack/commands" => (encode_form(payload), form),
        _ => (payload.to_string(), "application/json"),
    }
}

fn post(base: &str, secret: &str, place: Place, payload: &Value, began: Instant) -> Heard {
    let (body, content_type) = http_body(place.path(), payload);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(ACK_WITHIN))
        .build()
        .into();
    let attempts = if matches!(place, Place::Events) { 2 } else { 1 };
    let mut heard = Heard { acked: false, status: None, answer: None, times: 0, took: Duration::ZERO };
    while heard.times < attempts && !heard.acked {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = agent.post(format!("{base}{}", place.path())).header("content-type", content_type);
        for (name, value) in sign(secret, i64::try_from(seconds).unwrap_or_default(), &body) {
            request = request.header(name, value);
        }
        if heard.times > 0 {
            request = request.header("x-slack-retry-num", "1").header("x-slack-retry-reason", "http_error");
        }
        heard.times += 1;
        let Ok(mut response) = request.send(&body) else { continue };
        heard.status = Some(response.status().as_u16());
        heard.acked = response.status().is_success();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        if heard.acked && !text.is_empty() {
            heard.answer = Some(serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
    }
    heard.took = began.elapsed();
    heard
}
