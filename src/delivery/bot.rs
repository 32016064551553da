//! Slack's Web API with a bot token: threads by `ts`, and a live card that is edited.

mod find;
mod reply;

use std::time::Instant;

use serde_json::{Value, json};

use super::http::{Answer, Http, host};
use super::{Cause, LOOKALIKE_TRIES, Outcome, Place, Retry, dress, plain, rich, whither};
use crate::checkpoint::Card;
use crate::checkpoint::outbox::{EntryKind, Job};
use crate::checkpoint::parse::is_conversation_id;
use crate::render::question::Means;
use crate::secret::Secret;
use reply::read;
pub(super) use reply::troubled;
pub(crate) use reply::{Channel, Class, Reply, class};

/// The `event_type` of our messages' metadata.
pub(super) const EVENT_TYPE: &str = "agent_checkpoint";

/// The Web API, for as long as one entry takes.
#[derive(Debug)]
pub(crate) struct Bot<'a> {
    pub(crate) http: &'a mut Http,
    pub(crate) token: &'a Secret,
    /// Ends in a slash.
    pub(crate) api_url: &'a str,
    pub(crate) deadline: Instant,
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
