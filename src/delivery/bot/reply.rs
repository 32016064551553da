//! Slack's answers in our words, and what to do about its errors.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::delivery::http::{Answer, host};
use crate::delivery::{Cause, Retry, foreign_answer};

/// Slack's answer in our words. Anything else in it is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    pub(crate) ok: bool,
    pub(crate) error: String,
    pub(crate) needed: String,
    provided: String,
    pub(crate) ts: Option<String>,
    pub(in crate::delivery) permalink: String,
    pub(super) channel: Value,
    pub(super) message: Message,
    pub(super) messages: Vec<Message>,
    pub(super) channels: Vec<Channel>,
    pub(super) response_metadata: ResponseMetadata,
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
pub(super) struct Message {
    pub(super) ts: Option<String>,
    pub(super) thread_ts: Option<String>,
    pub(super) metadata: Value,
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
pub(super) struct ResponseMetadata {
    pub(super) next_cursor: String,
    pub(super) messages: Vec<String>,
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

/// Reads an answer: an error string stands in the body, and the status only tells a rate limit.
pub(super) fn read(api_url: &str, answer: Result<Answer, Retry>) -> Result<(Reply, Answer), Retry> {
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

/// Slack answered, but could not do it.
pub(in crate::delivery) fn troubled(reason: String, maybe_sent: bool) -> Retry {
    Retry { cause: Cause::Server, reason: format!("Slack answered {reason}"), maybe_sent }
}

/// Why a method that only reads was refused, if that may pass.
pub(super) fn passing(reply: &Reply) -> Option<Retry> {
    matches!(class(&reply.error), Class::Server { .. }).then(|| troubled(reply.reason(), false))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
