//! What Slack sends, decoded: a click, a slash command or a mention, by whom and where.
//!
//! The same three come over HTTP as a form or JSON, and over Socket Mode as JSON. What is none of them but well-formed
//! is to be acknowledged and forgotten. Everything in here was written by somebody else: ids are checked for their
//! shape, since they end up in messages and as keys, and texts are not to be trusted at all.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::checkpoint::parse::{self, is_conversation_id};
use crate::delivery::http::{host, is_loopback};
use crate::secret::Secret;

/// The longest `value` and the longest id of a button that Slack allows, in characters.
const VALUE_MAX: usize = 2_000;
const ACTION_ID_MAX: usize = 255;
/// The longest id of a user, channel or workspace that is taken; Slack's have eleven characters.
const ID_MAX: usize = 64;
/// The longest text of a command or a mention that is taken, in characters; Slack's messages have no more.
const TEXT_MAX: usize = 40_000;

/// Something a person did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interaction {
    Click(Click),
    Command(Command),
    Mention(Mention),
}

impl Interaction {
    /// What tells it from every other one: Slack may send the same one again, and so may whoever recorded it.
    #[cfg(test)]
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Click(click) => &click.id,
            Self::Command(command) => &command.id,
            Self::Mention(mention) => &mention.id,
        }
    }

    pub(crate) fn person(&self) -> &Person {
        match self {
            Self::Click(click) => &click.person,
            Self::Command(command) => &command.person,
            Self::Mention(mention) => &mention.person,
        }
    }
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// As in `<@ID>`.
    pub(crate) id: String,
    /// The name of the account, where Slack says it; anybody may call himself anything.
    pub(crate) name: Option<String>,
    /// The workspace the account belongs to, which in a shared channel may be another one than the app's.
    pub(crate) team_id: Option<String>,
}

/// A click on a button of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Click {
    pub(crate) id: String,
    pub(crate) person: Person,
    /// The workspace in which it was clicked.
    pub(crate) team_id: Option<String>,
    pub(crate) channel_id: String,
    /// The message.
    pub(crate) ts: String,
    /// The thread it stands in.
    pub(crate) thread_ts: Option<String>,
    pub(crate) action_id: String,
    /// What the button carries; empty when it carries nothing.
    pub(crate) value: String,
    /// Where the person can be told something, up to five times in thirty minutes; whoever has it can do that.
    pub(crate) response_url: Option<Secret>,
}

/// A slash command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) id: String,
    pub(crate) person: Person,
    pub(crate) channel_id: String,
    /// With its slash.
    pub(crate) command: String,
    /// What stands after it.
    pub(crate) text: String,
    pub(crate) response_url: Option<Secret>,
}

/// A message that mentions the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) id: String,
    pub(crate) person: Person,
    /// The workspace that has the app.
    pub(crate) team_id: Option<String>,
    pub(crate) channel_id: String,
    pub(crate) ts: String,
    /// The thread it stands in.
    pub(crate) thread_ts: Option<String>,
    /// Without the mention it begins with, and not unescaped.
    pub(crate) text: String,
}

/// What a call of Slack's asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Interaction(Box<Interaction>),
    /// Slack makes sure that the URL is ours: it is to be answered with this text.
    Challenge(String),
    /// Nothing we care for; it is to be acknowledged all the same.
    Nothing,
}

/// Why a call cannot be read, in words that quote nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The body of a call to the URL for interactivity: a form whose `payload` is JSON.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn interaction_form(body: &[u8]) -> Result<Call, Malformed> {
    let fields = form(body)?;
    if fields.contains_key("ssl_check") {
        return Ok(Call::Nothing);
    }
    let payload = fields.get("payload").ok_or(Malformed("the form has no payload"))?;
    let payload: Value =
        serde_json::from_str(payload).map_err(|_| Malformed("the form's payload is not JSON"))?;
    interaction(&payload)
}

/// The body of a call to the URL of a slash command: a form.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn command_form(body: &[u8]) -> Result<Call, Malformed> {
    let fields = form(body)?;
    if fields.contains_key("ssl_check") {
        return Ok(Call::Nothing);
    }
    let mut payload = Map::new();
    payload.extend(fields.into_iter().map(|(name, value)| (name, Value::String(value))));
    command(&Value::Object(payload))
}

/// The body of a call to the URL for events: JSON.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn event_body(body: &[u8]) -> Result<Call, Malformed> {
    let payload = str::from_utf8(body).ok().and_then(|text| serde_json::from_str(text).ok());
    event(&payload.ok_or(Malformed("the body is not JSON"))?)
}

/// A payload of interactivity: of `block_actions` the button.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn interaction(payload: &Value) -> Result<Call, Malformed> {
    if kind_of(payload)? != "block_actions" {
        return Ok(Call::Nothing);
    }
    let wire = BlockActions::deserialize(payload)
        .map_err(|_| Malformed("a click has something of another type than Slack's"))?;
    // A view, say, has buttons too, but no message.
    if !matches!(wire.container.kind.as_str(), "message" | "message_attachment") {
        return Ok(Call::Nothing);
    }
    let Some(action) = wire.actions.into_iter().find(|action| action.kind == "button") else {
        return Ok(Call::Nothing);
    };
    let person = person(wire.user)?;
    let channel_id = conversation(wire.container.channel_id.or(wire.channel.id))?;
    let ts = timestamp(wire.container.message_ts)?;
    let (action_id, value) = (bounded(action.action_id, ACTION_ID_MAX)?, bounded(action.value, VALUE_MAX)?);
    // Two people can click in the same moment, and one person two buttons of two messages.
    let at = timestamp(action.action_ts)?;
    Ok(found(Interaction::Click(Click {
        id: format!("click:{channel_id}:{ts}:{at}:{}", person.id),
        person,
        team_id: wire.team.id.filter(|id| is_id(id)),
        channel_id,
        ts,
        thread_ts: wire
            .container
            .thread_ts
            .or(wire.message.thread_ts)
            .map(|ts| timestamp(Some(ts)))
            .transpose()?,
        action_id,
        value,
        response_url: wire.response_url.and_then(response_url),
    })))
}

/// The fields of a slash command.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn command(payload: &Value) -> Result<Call, Malformed> {
    let wire = SlashCommand::deserialize(payload)
        .map_err(|_| Malformed("a command has something of another type than Slack's"))?;
    let trigger = wire.trigger_id.filter(|id| is_key(id)).ok_or(Malformed("a command has no trigger_id"))?;
    if !wire.command.starts_with('/') || wire.command.chars().count() > ACTION_ID_MAX {
        return Err(Malformed("a command has no name that begins with a slash"));
    }
    let user = User { id: wire.user_id, username: wire.user_name, name: None, team_id: wire.team_id };
    Ok(found(Interaction::Command(Command {
        id: format!("command:{trigger}"),
        person: person(user)?,
        channel_id: conversation(wire.channel_id)?,
        command: wire.command,
        text: bounded(wire.text, TEXT_MAX)?,
        response_url: wire.response_url.and_then(response_url),
    })))
}

/// A payload of the Events API.
///
/// # Errors
/// What of it cannot be read.
pub(crate) fn event(payload: &Value) -> Result<Call, Malformed> {
    match kind_of(payload)? {
        "url_verification" => match payload.get("challenge").and_then(Value::as_str) {
            Some(challenge) => Ok(Call::Challenge(bounded(Some(challenge.to_owned()), VALUE_MAX)?)),
            None => Err(Malformed("url_verification has no challenge")),
        },
        "event_callback" => event_callback(payload),
        _ => Ok(Call::Nothing),
    }
}

fn event_callback(payload: &Value) -> Result<Call, Malformed> {
    let wire = EventCallback::deserialize(payload)
        .map_err(|_| Malformed("an event has something of another type than Slack's"))?;
    let event = wire.event;
    // Bots mention bots: with an answer to each that would never end.
    if event.kind != "app_mention" || event.bot_id.is_some() || event.user.is_none() {
        return Ok(Call::Nothing);
    }
    let id = wire.event_id.filter(|id| is_key(id)).ok_or(Malformed("an event has no event_id"))?;
    let user = User {
        id: event.user,
        username: None,
        name: None,
        team_id: event.user_team.or(event.team).or_else(|| wire.team_id.clone()),
    };
    Ok(found(Interaction::Mention(Mention {
        id: format!("event:{id}"),
        person: person(user)?,
        team_id: wire.team_id.filter(|id| is_id(id)),
        channel_id: conversation(event.channel)?,
        ts: timestamp(event.ts)?,
        thread_ts: event.thread_ts.map(|ts| timestamp(Some(ts))).transpose()?,
        text: without_mention(&bounded(event.text, TEXT_MAX)?).to_owned(),
    })))
}

fn found(interaction: Interaction) -> Call {
    Call::Interaction(Box::new(interaction))
}

/// What is said to the bot: `<@U…> text`.
fn without_mention(text: &str) -> &str {
    let text = text.trim();
    let rest = text.strip_prefix("<@").and_then(|rest| rest.split_once('>'));
    rest.map_or(text, |(_, rest)| rest.trim_start_matches([':', ',']).trim_start())
}

fn kind_of(payload: &Value) -> Result<&str, Malformed> {
    payload.get("type").and_then(Value::as_str).ok_or(Malformed("the payload has no type"))
}

fn person(user: User) -> Result<Person, Malformed> {
    let id = user.id.filter(|id| is_user_id(id)).ok_or(Malformed("there is no user's id"))?;
    let name = user.username.or(user.name).as_deref().and_then(parse::person);
    Ok(Person { id, name, team_id: user.team_id.filter(|id| is_id(id)) })
}

fn conversation(id: Option<String>) -> Result<String, Malformed> {
    id.filter(|id| id.len() <= ID_MAX && is_conversation_id(id)).ok_or(Malformed("there is no channel's id"))
}

fn timestamp(ts: Option<String>) -> Result<String, Malformed> {
    let is_ts = |ts: &String| {
        let digits = |part: &str| (1..=20).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        ts.split_once('.').is_some_and(|(seconds, rest)| digits(seconds) && digits(rest))
    };
    ts.filter(is_ts).ok_or(Malformed("there is no ts where one belongs"))
}

fn bounded(text: Option<String>, most: usize) -> Result<String, Malformed> {
    let text = text.unwrap_or_default();
    if text.chars().count() > most { Err(Malformed("a text is longer than Slack's are")) } else { Ok(text) }
}

fn response_url(url: String) -> Option<Secret> {
    // What is told there is told unencrypted on this machine only, as by a fake Slack.
    let is_safe = url.starts_with("https://") || (url.starts_with("http://") && is_loopback(host(&url)));
    (is_safe && url.len() <= VALUE_MAX && url.bytes().all(|b| b.is_ascii_graphic())).then(|| Secret::new(url))
}

fn is_id(id: &str) -> bool {
    (2..=ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn is_user_id(id: &str) -> bool {
    id.starts_with(['U', 'W']) && is_id(id)
}

fn is_key(id: &str) -> bool {
    (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The fields of a form; of two by the same name the first counts.
fn form(body: &[u8]) -> Result<BTreeMap<String, String>, Malformed> {
    let mut fields = BTreeMap::new();
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        let (name, value) = (decoded(name)?, decoded(value)?);
        fields.entry(name).or_insert(value);
    }
    Ok(fields)
}

fn decoded(bytes: &[u8]) -> Result<String, Malformed> {
    const WRONG: Malformed = Malformed("the form is not encoded as one");
    let digit =
        |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => digit(rest.next()).ok_or(WRONG)? << 4 | digit(rest.next()).ok_or(WRONG)?,
            byte => *byte,
        });
    }
    String::from_utf8(plain).map_err(|_| WRONG)
}

/// Slack's JSON, as far as we care. Slack adds to it at any time, and `null` is as good as nothing.
#[derive(Debug, Deserialize)]
struct BlockActions {
    #[serde(default, deserialize_with = "nullable")]
    user: User,
    #[serde(default, deserialize_with = "nullable")]
    team: Named,
    #[serde(default, deserialize_with = "nullable")]
    channel: Named,
    #[serde(default, deserialize_with = "nullable")]
    container: Container,
    #[serde(default, deserialize_with = "nullable")]
    message: InThread,
    #[serde(default, deserialize_with = "nullable")]
    actions: Vec<Action>,
    response_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    id: Option<String>,
    username: Option<String>,
    name: Option<String>,
    team_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InThread {
    thread_ts: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    #[serde(rename = "type")]
    kind: String,
    message_ts: Option<String>,
    channel_id: Option<String>,
    thread_ts: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    #[serde(rename = "type")]
    kind: String,
    action_id: Option<String>,
    value: Option<String>,
    action_ts: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SlashCommand {
    user_id: Option<String>,
    user_name: Option<String>,
    team_id: Option<String>,
    channel_id: Option<String>,
    #[serde(default)]
    command: String,
    text: Option<String>,
    response_url: Option<String>,
    trigger_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EventCallback {
    team_id: Option<String>,
    event_id: Option<String>,
    #[serde(default)]
    event: Event,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
    bot_id: Option<String>,
    user_team: Option<String>,
    team: Option<String>,
    channel: Option<String>,
    text: Option<String>,
    ts: Option<String>,
    thread_ts: Option<String>,
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
