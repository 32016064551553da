//! Looking for what Slack has: a message whose answer was lost, and channels.

use std::time::Duration;

use super::reply::{Channel, Message, passing};
use super::{Bot, EVENT_TYPE, kind};
use crate::checkpoint::outbox::Job;
use crate::checkpoint::parse::is_conversation_id;
use crate::checkpoint::time::Moment;
use crate::delivery::{Outcome, Retry};

/// How many pages of a listing are read before giving up.
const PAGES: usize = 5;
/// Messages on one page when a lost one is looked for; small enough for apps with the strictest limits.
const MESSAGES: &str = "100";
/// Channels on one page.
const CHANNELS: &str = "1000";
/// How far before an entry its message may stand, when the clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(600);

impl Bot<'_> {
    /// Looks for the message of an attempt whose answer was lost.
    ///
    /// Nothing found, and nothing to be found because the token may not read, are the same: it is sent again.
    pub(super) fn find(
        &mut self,
        job: &Job,
        channel: &str,
        thread_ts: Option<&str>,
    ) -> Result<Option<Outcome>, Retry> {
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
}
