//! What stands in a thread beside checkpoints: a line about a task that was started from it, and a whole tail as a file.

use serde::Deserialize;
use serde_json::json;

use super::bot::{Bot, Class, Reply, class, troubled};
use super::http::Answer;
use super::{Outcome, Retry, dress, foreign_answer};
use crate::checkpoint::outbox::{Job, Note};
use crate::render::slack;

/// The name under which a tail is attached.
const FILE_NAME: &str = "output.txt";
/// The name under which all that a question puts is attached, as its message says.
const QUESTION_NAME: &str = "question.txt";

/// An answer of the methods that take files.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Upload {
    upload_url: String,
    file_id: String,
}

impl Bot<'_> {
    /// Posts a note into the task's thread, with a link to the card it is about where Slack gives one.
    pub(super) fn post_note(
        &mut self,
        job: &Job,
        note: &Note,
        channel: &str,
        thread_ts: Option<&str>,
    ) -> Outcome {
        let permalink = match &note.card {
            Some((channel, ts)) => match self.permalink(channel, ts) {
                Ok(permalink) => permalink,
                Err(retry) => return Outcome::Retry(retry),
            },
            None => None,
        };
        let mut message = dress(slack::note(note, permalink.as_deref()), job);
        message["channel"] = json!(channel);
        if let Some(ts) = thread_ts {
            message["thread_ts"] = json!(ts);
        }
        match self.call("chat.postMessage", &message) {
            Ok(reply) if reply.ok => {
                Outcome::Posted { channel_id: None, ts: reply.ts, thread_ts: thread_ts.map(str::to_owned) }
            }
            Ok(reply) => self.refusal(&reply),
            Err(outcome) => outcome,
        }
    }

    /// Where people find a message; `None` if Slack does not say.
    fn permalink(&mut self, channel: &str, ts: &str) -> Result<Option<String>, Retry> {
        let query = [("channel", channel), ("message_ts", ts)];
        let (reply, _) = self.query("chat.getPermalink", &query)?;
        Ok(Some(reply.permalink).filter(|url| !url.is_empty()))
    }

    /// Attaches text as a file to the task's thread, in the three steps of
    /// <https://docs.slack.dev/messaging/working-with-files>.
    pub(super) fn attach(
        &mut self,
        job: &Job,
        text: &str,
        channel: &str,
        thread_ts: Option<&str>,
    ) -> Outcome {
        if text.is_empty() {
            // Slack refuses a file of no bytes; there is nothing to show either.
            return Outcome::Rejected("no_text".to_owned());
        }
        let length = text.len().to_string();
        let (name, title) = match &job.asked {
            Some(_) => (QUESTION_NAME, "What is asked by"),
            None => (FILE_NAME, "Output of"),
        };
        let reserved =
            match self.query("files.getUploadURLExternal", &[("filename", name), ("length", &length)]) {
                Ok((reply, answer)) if reply.ok => {
                    serde_json::from_str::<Upload>(&answer.body).unwrap_or_default()
                }
                Ok((reply, _)) => return self.refusal(&reply),
                Err(retry) => return Outcome::Retry(retry),
            };
        match self.http.post_text(&reserved.upload_url, text, self.deadline) {
            Ok(Answer { status: 200, .. }) => {}
            Ok(answer) => return Outcome::Retry(foreign_answer("the upload's host", &answer)),
            // A file that was not completed is seen by nobody.
            Err(trouble) => return Outcome::Retry(Retry { maybe_sent: false, ..trouble.into() }),
        }
        let mut complete = json!({
            "files": [{ "id": reserved.file_id, "title": format!("{title} {}", job.task.agent_id) }],
            "channel_id": channel,
        });
        if let Some(ts) = thread_ts {
            complete["thread_ts"] = json!(ts);
        }
        match self.call("files.completeUploadExternal", &complete) {
            Ok(reply) if reply.ok => {
                Outcome::Posted { channel_id: None, ts: None, thread_ts: thread_ts.map(str::to_owned) }
            }
            Ok(reply) => self.refusal(&reply),
            Err(outcome) => outcome,
        }
    }

    /// What is refused is not tried again: neither a note nor a file is worth holding a thread up.
    fn refusal(&self, reply: &Reply) -> Outcome {
        match class(&reply.error) {
            Class::Server { maybe_sent } => Outcome::Retry(troubled(reply.reason(), maybe_sent)),
            _ => Outcome::Rejected(reply.reason()),
        }
    }
}
