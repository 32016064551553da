//! Slack's Web API with a bot token: threads by `ts`, and a live card that is edited.

use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::http::{Answer, Http, host};
use super::{Cause, LOOKALIKE_TRIES, Outcome, Place, Retry, dress, foreign_answer, plain, rich, whither};
use crate::checkpoint::Card;
use crate::checkpoint::outbox::{EntryKind, Job};
use crate::checkpoint::parse::is_conversation_id;
use crate::checkpoint::time::Moment;
use crate::render::question::Means;
use crate::secret::Secret;

/// The `event_type` of our messages' metadata.
pub(super) const EVENT_TYPE: &str = "agent_checkpoint";

/// How many pages of a listing are read before giving up.
const PAGES: usize = 5;
/// Messages on one page when a lost one is looked for; small enough for apps with the strictest limits.
const MESSAGES: &str = "100";
/// Channels on one page.
const CHANNELS: &str = "1000";
/// How far before an entry its message may stand, when the clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// The Web API, for as long as one entry takes.
#[derive(Debug)]
pub(crate) struct Bot<'a> {
    pub(crate) http: &'a mut Http,
    pub(crate) token: &'a Secret,
    /// Ends in a slash.
    pub(crate) api_url: &'a str,
    pub(crate) deadline: Instant,
}

/// Slack's answer in our words. Anything else in it is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    pub(crate) ok: bool,
    pub(crate) error: String,
    pub(crate) needed: String,
    pub(crate) provided: String,
    pub(crate) ts: Option<String>,
    pub(super) permalink: String,
    channel: Value,
    message: Message,
    messages: Vec<Message>,
    channels: Vec<Channel>,
    response_metadata: ResponseMetadata,
    pub(crate) team: String,
    /// A name; `users.info` has an object here.
    #[serde(deserialize_with = "name")]
    pub(crate) user: String,
}

fn name<'de, D: Deserializer<'de>>(field: D) -> Result<String, D::Error> {
    Ok(Value::deserialize(field)?.as_str().unwrap_or_default().to_owned())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    ts: Option<String>,
    thread_ts: Option<String>,
    metadata: Value,
}

/// A conversation.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Channel {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) is_member: bool,
    pub(crate) is_archived: bool,
    pub(crate) is_private: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponseMetadata {
    next_cursor: String,
    messages: Vec<String>,
}

/// What to do about an error string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Our message is malformed or too large: say it more plainly.
    Payload,
    CardGone,
    CardFrozen,
    ThreadGone,
    /// May pass; whether Slack may have stored the message.
    Server {
        maybe_sent: bool,
    },
    /// Refused for good.
    Refused,
}

/// Sorts Slack's error strings by what can be done about them; an unknown one is refused for good, verbatim, since
/// Slack's lists are not exhaustive (<https://docs.slack.dev/reference/methods/chat.postMessage>).
pub(crate) fn class(error: &str) -> Class {
    match error {
        "no_text"
        | "msg_too_long"
        | "msg_blocks_too_long"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "block_mismatch"
        | "invalid_attachments"
        | "too_many_attachments"
        | "attachment_payload_limit_exceeded"
        | "markdown_text_conflict"
        | "invalid_metadata_format"
        | "invalid_metadata_schema"
        | "metadata_too_large"
        | "metadata_must_be_sent_from_app"
        | "invalid_arguments"
        | "invalid_arg_name"
        | "invalid_array_arg" => Class::Payload,
        "message_not_found" => Class::CardGone,
        "cant_update_message" | "edit_window_closed" | "streaming_state_conflict" => Class::CardFrozen,
        "thread_not_found" => Class::ThreadGone,
        "internal_error" | "fatal_error" => Class::Server { maybe_sent: true },
        "service_unavailable"
        | "update_failed"
        | "request_timeout"
        | "external_channel_migrating"
        | "team_added_to_org" => Class::Server { maybe_sent: false },
        _ => Class::Refused,
    }
}

impl Bot<'_> {
    /// Sends one entry; as plain text if Slack refuses its blocks.
    pub(super) fn deliver(mut self, job: &Job, fallback: &Place) -> Outcome {
        match (job.kind, &job.task.card, &job.task.channel_id) {
            (EntryKind::Card, Card::At(ts), Some(channel)) => return self.edit(job, channel, ts),
            // Posted as a message it would only say again what the thread has.
            (EntryKind::Card, Card::Frozen, _) => return Outcome::CardLeft,
            (EntryKind::Question, ..) => {
                // Without a message there is nothing to edit.
                let place = job.asked.as_ref().and_then(|asked| asked.message.as_ref());
                return place.map_or(Outcome::CardLeft, |(channel, ts)| self.edit(job, channel, ts));
            }
            _ => {}
        }
        let (channel, thread_ts) = match whither(job, fallback) {
            Ok(place) => place,
            Err(retry) => return Outcome::Retry(retry),
        };
        if let Some(file) = &job.file {
            // A channel's name is no good for files, and a thread is there by now: so is the channel's id.
            return self.attach(job, file, channel, thread_ts);
        }
        if job.maybe_sent {
            match self.find(job, channel, thread_ts) {
                Ok(Some(found)) => return found,
                Ok(None) => {}
                Err(retry) => return Outcome::Retry(retry),
            }
        }
        match &job.note {
            Some(note) => match &note.given_up {
                Some((channel, ts)) => self.post_note(job, note, channel, Some(ts)),
                None => self.post_note(job, note, channel, thread_ts),
            },
            None => self.post(job, channel, thread_ts),
        }
    }

    fn post(&mut self, job: &Job, channel: &str, thread_ts: Option<&str>) -> Outcome {
        self.rich_then_plain(job, "chat.postMessage", |message| {
            message["channel"] = json!(channel);
            if let Some(ts) = thread_ts {
                message["thread_ts"] = json!(ts);
                // People are to see a question who do not follow the thread.
                if job.asked.is_some() {
                    message["reply_broadcast"] = json!(true);
                }
            }
        })
        .map_or_else(
            |outcome| outcome,
            |reply| {
                let named = reply.channel.as_str().filter(|id| is_conversation_id(id));
                let channel_id = named.or(Some(channel).filter(|asked| is_conversation_id(asked)));
                let ts = reply.ts.or(reply.message.ts).filter(|ts| !ts.is_empty());
                let (Some(channel_id), Some(ts)) = (channel_id.map(str::to_owned), ts) else {
                    return Outcome::Retry(self.placeless());
                };
                // Slack does not say what it does with a thread that is gone. If it posted into the channel instead,
                // the message has started a thread of its own, and that is where the task goes on.
                let thread_ts = reply.message.thread_ts.filter(|thread| *thread != ts);
                Outcome::Posted { channel_id: Some(channel_id), ts: Some(ts), thread_ts }
            },
        )
    }

    /// Said to be posted, but not where: without that there is no thread to go on in.
    fn placeless(&self) -> Retry {
        let reason =
            format!("{} took the message, but did not say where it stands (ts, channel)", host(self.api_url));
        Retry { cause: Cause::Foreign { tries: LOOKALIKE_TRIES }, reason, maybe_sent: true }
    }

    fn edit(&mut self, job: &Job, channel: &str, ts: &str) -> Outcome {
        self.rich_then_plain(job, "chat.update", |message| {
            message["channel"] = json!(channel);
            message["ts"] = json!(ts);
            // Unlike for new messages the default is `client`, which turns bare names into mentions.
            message["parse"] = json!("none");
        })
        .map_or_else(|outcome| outcome, |_| Outcome::Edited)
    }

    fn rich_then_plain(
        &mut self,
        job: &Job,
        method: &str,
        address: impl Fn(&mut Value),
    ) -> Result<Reply, Outcome> {
        let mut rich = dress(rich(job, Means::Buttons), job);
        address(&mut rich);
        let refused = match self.call(method, &rich)? {
            reply if reply.ok => return Ok(reply),
            reply if class(&reply.error) != Class::Payload => return Err(self.outcome(job, &reply)),
            reply => reply,
        };
        let mut plain = plain(job);
        address(&mut plain);
        match self.call(method, &plain)? {
            reply if reply.ok => Ok(reply),
            reply if class(&reply.error) == Class::Payload => Err(self.outcome(job, &refused)),
            reply => Err(self.outcome(job, &reply)),
        }
    }

    fn outcome(&self, job: &Job, reply: &Reply) -> Outcome {
        let reason = reply.reason();
        match class(&reply.error) {
            Class::Payload | Class::Refused => Outcome::Rejected(reason),
            // Nobody sees it any more, or nobody may change it.
            Class::CardGone | Class::CardFrozen | Class::ThreadGone if job.kind == EntryKind::Question => {
                Outcome::CardLeft
            }
            Class::CardGone if job.kind == EntryKind::Card => Outcome::CardGone,
            Class::CardFrozen if job.kind == EntryKind::Card => Outcome::CardFrozen,
            // A thread that somebody else opened is not ours to replace.
            Class::ThreadGone | Class::CardGone if owns_thread(job) => Outcome::ThreadGone,
            Class::ThreadGone | Class::CardGone | Class::CardFrozen => Outcome::Rejected(reason),
            Class::Server { maybe_sent } => Outcome::Retry(troubled(reason, maybe_sent)),
        }
    }

    pub(super) fn call(&mut self, method: &str, body: &Value) -> Result<Reply, Outcome> {
        let url = format!("{}{method}", self.api_url);
        let answer = self.http.post(&url, Some(self.token), &body.to_string(), self.deadline);
        read(self.api_url, answer.map_err(Retry::from)).map(|(reply, _)| reply).map_err(Outcome::Retry)
    }

    /// Calls a method that only reads.
    pub(super) fn query(&mut self, method: &str, query: &[(&str, &str)]) -> Result<(Reply, Answer), Retry> {
        let url = format!("{}{method}", self.api_url);
        let answer = self.http.get(&url, self.token, query, self.deadline);
        read(self.api_url, answer.map_err(Retry::from)).map_err(Retry::while_reading)
    }

    /// Looks for the message of an attempt whose answer was lost.
    ///
    /// Nothing found, and nothing to be found because the token may not read, are the same: it is sent again.
    fn find(&mut self, job: &Job, channel: &str, thread_ts: Option<&str>) -> Result<Option<Outcome>, Retry> {
        let Some(channel) = self.conversation_id(channel)? else { return Ok(None) };
        let Moment(since) = job.created_at.minus(CLOCK_SKEW);
        let oldest = format!("{}.000000", since / 1000);
        let method = if thread_ts.is_some() { "conversations.replies" } else { "conversations.history" };
        let wanted = job.checkpoint.to_string();
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let mut query = vec![
                ("channel", channel.as_str()),
                ("oldest", &oldest),
                ("limit", MESSAGES),
                ("include_all_metadata", "true"),
            ];
            query.extend(thread_ts.map(|ts| ("ts", ts)));
            if !cursor.is_empty() {
                query.push(("cursor", &cursor));
            }
            let (reply, _) = self.query(method, &query)?;
            if !reply.ok {
                return passing(&reply).map_or(Ok(None), Err);
            }
            let found = reply.messages.into_iter().find(|message| {
                let payload = &message.metadata["event_payload"];
                message.ts.is_some()
                    && message.metadata["event_type"] == EVENT_TYPE
                    && payload["checkpoint_id"] == *wanted
                    && payload["kind"] == kind(job)
            });
            if let Some(Message { ts, thread_ts, .. }) = found {
                let thread_ts = thread_ts.filter(|thread| Some(thread) != ts.as_ref());
                return Ok(Some(Outcome::Posted { channel_id: Some(channel), ts, thread_ts }));
            }
            cursor = reply.response_metadata.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    fn conversation_id(&mut self, channel: &str) -> Result<Option<String>, Retry> {
        if is_conversation_id(channel) {
            return Ok(Some(channel.to_owned()));
        }
        Ok(self.find_channel(channel)?.ok().map(|found| found.id))
    }

    /// Finds a channel by its name; the inner error is Slack's, empty when there is no such channel.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn find_channel(&mut self, name: &str) -> Result<Result<Channel, String>, Retry> {
        let name = name.trim_start_matches('#');
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let mut query = vec![
                ("types", "public_channel,private_channel"),
                ("exclude_archived", "false"),
                ("limit", CHANNELS),
            ];
            if !cursor.is_empty() {
                query.push(("cursor", &cursor));
            }
            let (reply, _) = self.query("conversations.list", &query)?;
            if !reply.ok {
                return passing(&reply).map_or(Ok(Err(reply.reason())), Err);
            }
            if let Some(found) = reply.channels.into_iter().find(|channel| channel.name == name) {
                return Ok(Ok(found));
            }
            cursor = reply.response_metadata.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(Err(String::new()))
    }

    /// Asks what is known of a conversation; the inner error is Slack's.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn channel_info(&mut self, id: &str) -> Result<Result<Channel, String>, Retry> {
        let (reply, _) = self.query("conversations.info", &[("channel", id)])?;
        if !reply.ok {
            return Ok(Err(reply.reason()));
        }
        Ok(serde_json::from_value(reply.channel).map_err(|_| "an answer without a channel".to_owned()))
    }

    /// Asks whose token this is; the answer's headers tell what it may do.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn auth_test(&mut self) -> Result<(Reply, Answer), Retry> {
        let url = format!("{}auth.test", self.api_url);
        let answer = self.http.post(&url, Some(self.token), "{}", self.deadline);
        read(self.api_url, answer.map_err(Retry::from))
    }
}

impl Reply {
    /// Slack's reason as it gave it, with what it says would mend it.
    pub(crate) fn reason(&self) -> String {
        let mut reason = self.error.clone();
        if !self.needed.is_empty() {
            reason.push_str(&format!(" (needed: {}; provided: {})", self.needed, self.provided));
        }
        if !self.response_metadata.messages.is_empty() {
            reason.push_str(&format!(" ({})", self.response_metadata.messages.join("; ")));
        }
        reason
    }
}

/// Slack answered, but could not do it.
pub(super) fn troubled(reason: String, maybe_sent: bool) -> Retry {
    Retry { cause: Cause::Server, reason: format!("Slack answered {reason}"), maybe_sent }
}

/// Why a method that only reads was refused, if that may pass.
fn passing(reply: &Reply) -> Option<Retry> {
    matches!(class(&reply.error), Class::Server { .. }).then(|| troubled(reply.reason(), false))
}

/// Tells a card that was posted anew from the reply for the same checkpoint.
pub(super) fn kind(job: &Job) -> &'static str {
    match job.kind {
        EntryKind::Post => "message",
        EntryKind::Card => "card",
        EntryKind::Note => "note",
        EntryKind::File => "file",
        EntryKind::Question => "question",
    }
}

/// Whether the thread hangs from a message that this task posted.
fn owns_thread(job: &Job) -> bool {
    job.task.thread_ts.is_some() && !job.task.joined
}

/// Reads an answer: an error string stands in the body, and the status only tells a rate limit.
fn read(api_url: &str, answer: Result<Answer, Retry>) -> Result<(Reply, Answer), Retry> {
    let answer = answer?;
    if answer.status == 429 {
        return Err(Retry::limited(answer.retry_after));
    }
    // Every answer of the Web API has `ok`; anything without it comes from elsewhere.
    let reply = serde_json::from_str::<Value>(&answer.body)
        .ok()
        .filter(|value| value["ok"].is_boolean())
        .and_then(|value| serde_json::from_value::<Reply>(value).ok());
    match reply {
        // A limit is also told as an error, with the time to wait beside it as ever. Both spellings are Slack's.
        Some(reply) if matches!(&*reply.error, "ratelimited" | "rate_limited") => {
            Err(Retry::limited(answer.retry_after))
        }
        Some(reply) if reply.ok || !reply.error.is_empty() => Ok((reply, answer)),
        _ => Err(foreign_answer(host(api_url), &answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_error_is_told_apart() {
        for (error, expected) in [
            ("invalid_auth", Class::Refused),
            ("missing_scope", Class::Refused),
            ("channel_not_found", Class::Refused),
            ("is_archived", Class::Refused),
            ("a_string_nobody_knows", Class::Refused),
            ("invalid_blocks", Class::Payload),
            ("msg_too_long", Class::Payload),
            ("message_not_found", Class::CardGone),
            ("edit_window_closed", Class::CardFrozen),
            ("thread_not_found", Class::ThreadGone),
            ("fatal_error", Class::Server { maybe_sent: true }),
            ("service_unavailable", Class::Server { maybe_sent: false }),
        ] {
            assert_eq!(class(error), expected, "{error}");
        }
    }

    fn answer(status: u16, body: &str) -> Result<Answer, Retry> {
        Ok(Answer { status, retry_after: None, date: None, scopes: None, body: body.to_owned() })
    }

    #[test]
    fn what_is_not_slacks_is_retried() {
        let read =
            |status, body| read("https://slack.com/api/", answer(status, body)).map(|(reply, _)| reply.error);
        assert_eq!(read(200, r#"{"ok":false,"error":"invalid_auth"}"#), Ok("invalid_auth".to_owned()));
        for (status, body, maybe_sent) in [
            (503, "<html>Server Error</html>", false),
            (200, "<html>hotel wifi</html>", true),
            (200, "[]", true),
            (200, "{}", true),
            (200, r#"{"ok":false}"#, true),
            (302, "", false),
            (500, "", true),
            (502, "", true),
            (504, "<html>Gateway Timeout</html>", true),
        ] {
            let retry = read(status, body).expect_err(body);
            let is_foreign = matches!(retry.cause, Cause::Foreign { .. });
            assert_eq!((is_foreign, retry.maybe_sent), (status == 200, maybe_sent), "{status} {body}");
        }
    }

    #[test]
    fn a_limit_is_told_by_status_or_by_name_and_its_time_is_kept() {
        let told = Some(Duration::from_secs(7));
        for (status, body, retry_after) in [
            (429, "", told),
            (429, "<html>slow down</html>", None),
            (200, r#"{"ok":false,"error":"ratelimited"}"#, told),
            (200, r#"{"ok":false,"error":"rate_limited"}"#, None),
        ] {
            let answer = Answer { retry_after, ..answer(status, body).expect("an answer") };
            let retry = read("https://slack.com/api/", Ok(answer)).expect_err(body);
            assert_eq!((retry.cause, retry.maybe_sent), (Cause::Limited(retry_after), false), "{body}");
        }
    }

    #[test]
    fn a_missing_scope_names_what_is_needed() {
        let reply: Reply = serde_json::from_str(
            r#"{"ok":false,"error":"missing_scope","needed":"chat:write","provided":"channels:read","extra":1}"#,
        )
        .expect("an answer");
        assert_eq!(reply.reason(), "missing_scope (needed: chat:write; provided: channels:read)");
    }
}
