//! People: who they are, what they say and how they react; and the messages only one of them sees.

use serde_json::{Value, json};

use super::args::{Args, Content};
use super::methods::{Answer, because, refuse, refuse_because};
use super::show::TEAM;
use super::state::State;
use super::{BOT_USER, FakeSlack, HUMAN};

/// A second person of the workspace.
pub(crate) const COLLEAGUE: &str = "U0COLLEAG0";
/// A guest: restricted, yet a person.
pub(crate) const GUEST: &str = "U0GUEST000";
/// A person of another workspace in a shared channel.
pub(crate) const FOREIGNER: &str = "U0FOREIGN0";
/// A person of the workspace who is in none of the channels.
pub(crate) const OUTSIDER: &str = "U0OUTSIDE0";
/// An account that was closed.
pub(crate) const DELETED: &str = "U0DELETED0";
/// The user of another app's bot.
pub(crate) const OTHER_BOT: &str = "U0OTHERBOT";
/// The workspace of the foreigner.
pub(crate) const OTHER_TEAM: &str = "T111";

/// How many users a reaction names where not all are asked for. Slack only says that they may be fewer.
const USERS_SHOWN: usize = 3;

/// An account, as `users.info` knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Person {
    pub(crate) id: String,
    /// The name of the account, as in `user.username` of a click.
    pub(crate) name: String,
    pub(crate) real_name: String,
    pub(crate) team: String,
    pub(crate) is_bot: bool,
    pub(crate) deleted: bool,
    pub(crate) restricted: bool,
    /// Whether the account is a member of the channels.
    pub(crate) member: bool,
}

impl Person {
    /// A person of this workspace who is in its channels.
    pub(crate) fn new(id: &str, name: &str, real_name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            real_name: real_name.to_owned(),
            team: TEAM.to_owned(),
            is_bot: false,
            deleted: false,
            restricted: false,
            member: true,
        }
    }

    fn describe(&self) -> Value {
        let mut profile = json!({
            "real_name": self.real_name, "display_name": self.name, "team": self.team,
        });
        if self.is_bot {
            profile["bot_id"] = json!(self.bot_id());
        }
        let mut user = json!({
            "id": self.id, "team_id": self.team, "name": self.name, "deleted": self.deleted,
            "is_bot": self.is_bot, "is_app_user": false, "updated": 1_700_000_000, "profile": profile,
        });
        if !self.deleted {
            // A closed account has none of these.
            user["real_name"] = json!(self.real_name);
            user["is_admin"] = json!(false);
            user["is_owner"] = json!(false);
            user["is_restricted"] = json!(self.restricted);
            user["is_ultra_restricted"] = json!(false);
        }
        if self.team != TEAM {
            user["is_stranger"] = json!(true);
        }
        user
    }

    pub(super) fn bot_id(&self) -> String {
        format!("B{}", self.id.trim_start_matches('U'))
    }
}

/// Everybody there is at the start. Slackbot is no bot, says Slack.
pub(super) fn everybody() -> Vec<Person> {
    let person = Person::new;
    vec![
        person(HUMAN, "ana", "Ana Human"),
        person(COLLEAGUE, "ben", "Ben Colleague"),
        Person { restricted: true, ..person(GUEST, "gus", "Gus Guest") },
        Person { team: OTHER_TEAM.to_owned(), ..person(FOREIGNER, "finn", "Finn Foreigner") },
        Person { member: false, ..person(OUTSIDER, "olga", "Olga Outsider") },
        Person { deleted: true, member: false, ..person(DELETED, "dan", "Dan Deleted") },
        Person { is_bot: true, ..person(OTHER_BOT, "otherbot", "Other Bot") },
        Person { is_bot: true, ..person(BOT_USER, "agent-checkpoint", "agent-checkpoint") },
        Person { member: false, ..person("USLACKBOT", "slackbot", "Slackbot") },
    ]
}

/// One emoji below a message, with the users who gave it, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reaction {
    /// Without colons.
    pub(crate) name: String,
    pub(crate) users: Vec<String>,
}

/// A message that one person sees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ephemeral {
    pub(crate) channel: String,
    pub(crate) user: String,
    pub(crate) thread_ts: Option<String>,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Value>,
}

/// The reactions as the API shows them.
pub(super) fn show_reactions(reactions: &[Reaction], full: bool) -> Value {
    let shown = reactions.iter().map(|reaction| {
        let most = if full { usize::MAX } else { USERS_SHOWN };
        let users: Vec<&String> = reaction.users.iter().take(most).collect();
        json!({ "name": reaction.name, "count": reaction.users.len(), "users": users })
    });
    Value::Array(shown.collect())
}

impl State {
    pub(super) fn person(&self, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.id == id)
    }

    pub(super) fn user_info(&self, args: &Args<'_>) -> Answer {
        self.need("users:read")?;
        let id = args.required("user")?;
        let person = self.person(id).ok_or_else(|| refuse("user_not_found"))?;
        Ok(json!({ "user": person.describe() }))
    }

    pub(super) fn members(&self, args: &Args<'_>) -> Answer {
        let channel = self.readable(args, ["channels:read", "groups:read"])?;
        let limit = args.limit(100)?;
        let start = match args.text("cursor")? {
            None | Some("") => 0,
            Some(cursor) => {
                let number = cursor.strip_prefix("members:").and_then(|rest| rest.parse::<usize>().ok());
                number.ok_or_else(|| refuse("invalid_cursor"))?
            }
        };
        let inside = |person: &&Person| person.member && (person.id != BOT_USER || channel.member);
        let all: Vec<&String> = self.people.iter().filter(inside).map(|person| &person.id).collect();
        let page: Vec<&&String> = all.iter().skip(start).take(limit).collect();
        let end = start.saturating_add(limit);
        let next = if end < all.len() { format!("members:{end}") } else { String::new() };
        Ok(json!({ "members": page, "response_metadata": { "next_cursor": next } }))
    }

    pub(super) fn reactions(&self, args: &Args<'_>) -> Answer {
        self.need("reactions:read")?;
        let (id, ts) = self.reacted(args)?;
        let message = self.channel(&id).and_then(|channel| channel.messages.get(&ts));
        let message = message.ok_or_else(|| refuse("message_not_found"))?;
        let mut shown = self.show(message, false);
        if !message.reactions.is_empty() {
            shown["reactions"] = show_reactions(&message.reactions, args.flag("full"));
        }
        Ok(json!({ "type": "message", "channel": id, "message": shown }))
    }

    pub(super) fn add_reaction(&mut self, args: &Args<'_>) -> Answer {
        self.need("reactions:write")?;
        let (id, ts) = self.reacted(args)?;
        let name = emoji(args)?;
        if self.react(&id, &ts, BOT_USER, &name) { Ok(json!({})) } else { Err(refuse("already_reacted")) }
    }

    pub(super) fn remove_reaction(&mut self, args: &Args<'_>) -> Answer {
        self.need("reactions:write")?;
        let (id, ts) = self.reacted(args)?;
        let name = emoji(args)?;
        if self.unreact(&id, &ts, BOT_USER, &name) { Ok(json!({})) } else { Err(refuse("no_reaction")) }
    }

    /// The channel's id and the `ts` of the message that a call about reactions names.
    fn reacted(&self, args: &Args<'_>) -> Result<(String, String), super::http::Reply> {
        let (Some(channel), Some(ts)) = (args.text("channel")?, args.text("timestamp")?) else {
            return Err(refuse("no_item_specified"));
        };
        if channel.is_empty() || ts.is_empty() {
            return Err(refuse("no_item_specified"));
        }
        let channel = self.by_id(args)?;
        if !channel.member {
            return Err(refuse("not_in_channel"));
        }
        if super::args::micros(ts).is_none() {
            return Err(refuse("bad_timestamp"));
        }
        match channel.messages.get(ts) {
            Some(message) if !message.deleted => Ok((channel.id.clone(), ts.to_owned())),
            _ => Err(refuse("message_not_found")),
        }
    }

    /// Whether the reaction is new.
    fn react(&mut self, channel: &str, ts: &str, user: &str, name: &str) -> bool {
        let Some(message) = self.channel_mut(channel).and_then(|channel| channel.messages.get_mut(ts)) else {
            return false;
        };
        match message.reactions.iter_mut().find(|reaction| reaction.name == name) {
            Some(reaction) if reaction.users.iter().any(|other| other == user) => false,
            Some(reaction) => {
                reaction.users.push(user.to_owned());
                true
            }
            None => {
                message.reactions.push(Reaction { name: name.to_owned(), users: vec![user.to_owned()] });
                true
            }
        }
    }

    /// Whether there was such a reaction.
    fn unreact(&mut self, channel: &str, ts: &str, user: &str, name: &str) -> bool {
        let Some(message) = self.channel_mut(channel).and_then(|channel| channel.messages.get_mut(ts)) else {
            return false;
        };
        let reaction = message.reactions.iter_mut().find(|reaction| reaction.name == name);
        let Some(reaction) = reaction else { return false };
        let before = reaction.users.len();
        reaction.users.retain(|other| other != user);
        let gone = reaction.users.len() < before;
        message.reactions.retain(|reaction| !reaction.users.is_empty());
        gone
    }

    pub(super) fn post_ephemeral(&mut self, args: &Args<'_>) -> Answer {
        self.need("chat:write")?;
        let user = args.required("user")?.to_owned();
        let channel = self.by_id(args)?;
        if !channel.member {
            return Err(refuse("not_in_channel"));
        }
        let id = channel.id.clone();
        if !self.person(&user).is_some_and(|person| person.member && !person.deleted) {
            return Err(refuse("user_not_in_channel"));
        }
        let content = Content::read(args, false).map_err(refuse_because)?;
        if content.text.chars().count() > 4_000 {
            return Err(refuse("msg_too_long"));
        }
        if content.attachments.iter().flatten().any(|attachment| attachment.get("blocks").is_some()) {
            return Err(because("invalid_attachments", "no blocks in attachments of an ephemeral message"));
        }
        let thread_ts = args.text("thread_ts")?.map(str::to_owned);
        if let Err(why) = self.check_thread(&id, thread_ts.as_deref()) {
            return Err(because("thread_not_found", why));
        }
        let ts = self.next_ts();
        let blocks = content.blocks.unwrap_or_default();
        self.ephemerals.push(Ephemeral { channel: id, user, thread_ts, text: content.text, blocks });
        Ok(json!({ "message_ts": ts }))
    }
}

fn emoji(args: &Args<'_>) -> Result<String, super::http::Reply> {
    let name = args.text("name")?.unwrap_or_default();
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-+'".contains(&byte);
    if name.is_empty() || !name.bytes().all(known) {
        return Err(refuse("invalid_name"));
    }
    Ok(name.to_owned())
}

impl FakeSlack {
    /// Adds a person, or replaces the one with that id.
    pub(crate) fn add_person(&self, person: Person) {
        let mut state = self.shared.lock();
        state.people.retain(|other| other.id != person.id);
        state.people.push(person);
    }

    /// Lets a person reply in a thread; returns the reply's `ts`.
    ///
    /// # Panics
    /// When there is no such channel.
    #[track_caller]
    pub(crate) fn person_replies(&self, channel: &str, thread_ts: &str, user: &str, text: &str) -> String {
        self.say(channel, Some(thread_ts), user, text)
    }

    /// Lets a person give a message an emoji, named without colons.
    ///
    /// # Panics
    /// When there is no such message, or the person has given it already.
    #[track_caller]
    pub(crate) fn person_reacts(&self, channel: &str, ts: &str, user: &str, name: &str) {
        let done = self.shared.lock().react(channel, ts, user, name);
        assert!(done, "{user} cannot give {name} to {ts} in {channel}");
        self.shared.changed.notify_all();
    }

    /// Lets a person take an emoji back.
    ///
    /// # Panics
    /// When the person has not given it.
    #[track_caller]
    pub(crate) fn person_takes_back(&self, channel: &str, ts: &str, user: &str, name: &str) {
        let done = self.shared.lock().unreact(channel, ts, user, name);
        assert!(done, "{user} has not given {name} to {ts} in {channel}");
    }

    /// What single persons were told so far: by `chat.postEphemeral`, a `response_url`, or the answer to a command.
    pub(crate) fn ephemerals(&self) -> Vec<Ephemeral> {
        self.shared.lock().ephemerals.clone()
    }

    /// Waits until single persons were told `count` things, and returns them.
    ///
    /// # Panics
    /// When they are not told in 20 seconds.
    #[track_caller]
    pub(crate) fn wait_ephemerals(&self, count: usize) -> Vec<Ephemeral> {
        let met = self.shared.wait_until(super::PATIENCE, |state| state.ephemerals.len() >= count);
        let told = self.ephemerals();
        assert!(met, "waited for {count} ephemeral messages, got {told:?}");
        told
    }
}
