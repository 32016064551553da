//! What people do in Slack, looked for: replies in a thread, reactions on a message, who somebody is; and telling one
//! person something that nobody else sees.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Retry;
use super::bot::{Bot, Class, class, troubled};
use super::http::Answer;

/// How many replies one call asks for: what the apps with the strictest limits get.
const REPLIES: &str = "15";
/// How many pages of them are read at once.
const PAGES: usize = 20;

/// A message in a thread.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) ts: String,
    pub(crate) user: Option<String>,
    pub(crate) text: String,
    pub(crate) bot_id: Option<String>,
    pub(crate) subtype: Option<String>,
}

/// Who reacted with what.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Reaction {
    /// Without colons.
    pub(crate) name: String,
    pub(crate) users: Vec<String>,
}

/// What Slack knows of somebody.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) team_id: String,
    pub(crate) is_bot: bool,
    pub(crate) deleted: bool,
}

/// Whose token ours is.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    pub(crate) user_id: String,
    pub(crate) team_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Replies {
    messages: Vec<Said>,
    has_more: bool,
    response_metadata: Cursor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cursor {
    next_cursor: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reactions {
    message: Reacted,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reacted {
    reactions: Vec<Reaction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    user: Account,
}

impl Said {
    /// Written by a program, or by Slack itself.
    pub(crate) fn is_automatic(&self) -> bool {
        self.bot_id.is_some()
            || self.user.is_none()
            || self.subtype.as_deref().is_some_and(|kind| kind != "thread_broadcast")
    }
}

/// A `ts` as something that can be ordered: the two numbers it is made of.
pub(crate) fn order(ts: &str) -> (u64, u64) {
    let (seconds, micros) = ts.split_once('.').unwrap_or((ts, "0"));
    (seconds.parse().unwrap_or(0), micros.parse().unwrap_or(0))
}

impl Bot<'_> {
    /// Replies in a thread that came after `oldest`, in order; the inner error is Slack's.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn replies(
        &mut self,
        channel: &str,
        thread_ts: &str,
        oldest: &str,
    ) -> Result<Result<Vec<Said>, String>, Retry> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let mut query =
                vec![("channel", channel), ("ts", thread_ts), ("oldest", oldest), ("limit", REPLIES)];
            if !cursor.is_empty() {
                query.push(("cursor", &cursor));
            }
            let page: Replies = match self.look("conversations.replies", &query)? {
                Ok(page) => page,
                Err(reason) => return Ok(Err(reason)),
            };
            // The thread's first message comes with every page, whatever was asked for.
            let is_new = |said: &Said| said.ts != thread_ts && order(&said.ts) > order(oldest);
            for said in page.messages.into_iter().filter(is_new) {
                // Slack has them in order, or nearly.
                let place = found.partition_point(|before: &Said| order(&before.ts) <= order(&said.ts));
                found.insert(place, said);
            }
            cursor = page.response_metadata.next_cursor;
            if !page.has_more || cursor.is_empty() {
                break;
            }
        }
        found.dedup_by(|one, other| one.ts == other.ts);
        Ok(Ok(found))
    }

    /// The reactions on a message; the inner error is Slack's.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn reactions(
        &mut self,
        channel: &str,
        ts: &str,
    ) -> Result<Result<Vec<Reaction>, String>, Retry> {
        let query = [("channel", channel), ("timestamp", ts), ("full", "true")];
        let found: Result<Reactions, String> = self.look("reactions.get", &query)?;
        Ok(found.map(|found| found.message.reactions))
    }

    /// Who somebody is; the inner error is Slack's.
    ///
    /// # Errors
    /// A failure that may pass.
    pub(crate) fn account(&mut self, user: &str) -> Result<Result<Account, String>, Retry> {
        let found: Result<Info, String> = self.look("users.info", &[("user", user)])?;
        Ok(found.map(|found| found.user))
    }

    /// Whose token ours is.
    ///
    /// # Errors
    /// A failure that may pass, or Slack's refusal.
    pub(crate) fn identity(&mut self) -> Result<Identity, Retry> {
        let (reply, answer) = self.auth_test()?;
        if !reply.ok {
            return Err(troubled(reply.reason(), false));
        }
        Ok(read(&answer))
    }

    /// Tells one person something in a thread, as well as that goes.
    pub(crate) fn whisper(&mut self, channel: &str, thread_ts: Option<&str>, user: &str, text: &str) {
        let mut message = json!({ "channel": channel, "user": user, "text": text });
        if let Some(ts) = thread_ts {
            message["thread_ts"] = json!(ts);
        }
        // Nothing depends on it.
        let _ = self.call("chat.postEphemeral", &message);
    }

    /// Says something in a thread, once or not at all.
    pub(crate) fn reply(&mut self, channel: &str, thread_ts: &str, text: &str) {
        let message = json!({
            "channel": channel, "thread_ts": thread_ts, "text": text, "unfurl_links": false, "unfurl_media": false,
        });
        // Nothing depends on it.
        let _ = self.call("chat.postMessage", &message);
    }

    fn look<T: DeserializeOwned + Default>(
        &mut self,
        method: &str,
        query: &[(&str, &str)],
    ) -> Result<Result<T, String>, Retry> {
        let (reply, answer) = self.query(method, query)?;
        match class(&reply.error) {
            _ if reply.ok => Ok(Ok(read(&answer))),
            Class::Server { .. } => Err(troubled(reply.reason(), false)),
            _ => Ok(Err(reply.reason())),
        }
    }
}

/// What is of use in an answer; what is not as expected counts as not there.
fn read<T: DeserializeOwned + Default>(answer: &Answer) -> T {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ts_is_ordered_by_its_two_numbers() {
        assert!(order("1503435956.000247") < order("1503435956.001000"));
        assert!(order("999999999.900000") < order("1503435956.000000"));
        assert_eq!(order("rubbish"), (0, 0));
    }

    #[test]
    fn programs_and_slack_itself_are_no_people() {
        let said = |json: &str| serde_json::from_str::<Said>(json).expect("a message").is_automatic();
        assert!(!said(r#"{"ts":"1.0","user":"U1","text":"hi"}"#));
        assert!(!said(r#"{"ts":"1.0","user":"U1","text":"hi","subtype":"thread_broadcast"}"#));
        assert!(said(r#"{"ts":"1.0","user":"U1","text":"hi","bot_id":"B1"}"#));
        assert!(said(r#"{"ts":"1.0","text":"hi"}"#));
        assert!(said(r#"{"ts":"1.0","user":"USLACKBOT","subtype":"tombstone"}"#));
    }
}
