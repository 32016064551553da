//! The `response_url` of a click or a command: five uses in thirty minutes, without a token.

use serde_json::{Map, Value};

use super::args::{Args, Content};
use super::http::Reply;
use super::people::Ephemeral;
use super::state::State;
use super::{Author, Request};

const USES: usize = 5;

/// Where a `response_url` leads.
#[derive(Clone, Debug)]
pub(super) struct Callback {
    pub(super) id: String,
    pub(super) channel: String,
    pub(super) user: String,
    /// The message that was clicked, where one was.
    pub(super) ts: Option<String>,
    pub(super) thread_ts: Option<String>,
    pub(super) uses: usize,
    pub(super) expired: bool,
}

impl State {
    /// Takes what is posted to a `response_url`. Its errors are not documented; these are guesses.
    pub(super) fn respond(&mut self, request: &Request, complaint: Option<&'static str>) -> Reply {
        let no = |status, name: &str| Reply::text(status, &format!("{{\"ok\":false,\"error\":\"{name}\"}}"));
        let id = request.path.trim_start_matches("/response/");
        let Some(callback) = self.inbound.callbacks.iter_mut().find(|callback| callback.id == id) else {
            return no(404, "no_such_url");
        };
        let json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let readable = matches!(complaint, None | Some("invalid_charset"));
        if request.header("authorization").is_some() || request.method != "POST" || !json || !readable {
            return no(400, "invalid_payload");
        }
        if callback.expired {
            return no(404, "expired_url");
        }
        if callback.uses == USES {
            return no(404, "used_url");
        }
        callback.uses += 1;
        let callback = callback.clone();
        let Some(args) = request.args.as_object() else { return no(400, "invalid_payload") };
        match self.tell(&callback, args) {
            Ok(()) => Reply::text(200, "ok"),
            Err(error) => no(400, error),
        }
    }

    /// Shows what an app answers to a click or a command.
    pub(super) fn tell(
        &mut self,
        callback: &Callback,
        answer: &Map<String, Value>,
    ) -> Result<(), &'static str> {
        let args = Args(answer);
        let Callback { channel, user, ts, thread_ts, .. } = callback;
        let source = ts.as_deref().filter(|_| args.flag("replace_original") || args.flag("delete_original"));
        if args.flag("delete_original") {
            let deleted = source.is_some_and(|ts| self.channel_mut(channel).is_some_and(|c| c.delete(ts)));
            return if deleted { Ok(()) } else { Err("message_not_found") };
        }
        let content = Content::read(&args, false).map_err(|(error, _)| error)?;
        if let Some(ts) = source {
            let message = self.channel_mut(channel).and_then(|channel| channel.messages.get_mut(ts));
            let Some(message) = message.filter(|message| !message.deleted) else {
                return Err("message_not_found");
            };
            let before = std::mem::replace(&mut message.text, content.text);
            message.edits.push(before);
            message.blocks = content.blocks.unwrap_or_default();
            message.attachments = content.attachments.unwrap_or_default();
            return Ok(());
        }
        let asked = args.text("thread_ts").map_err(|_| "invalid_arguments")?;
        let thread = asked.or(thread_ts.as_deref());
        match args.text("response_type").map_err(|_| "invalid_arguments")? {
            Some("in_channel") => {
                self.store(channel, thread, Author::Bot, false, content);
            }
            None | Some("ephemeral") => self.ephemerals.push(Ephemeral {
                channel: channel.clone(),
                user: user.clone(),
                thread_ts: thread.map(str::to_owned),
                text: content.text,
                blocks: content.blocks.unwrap_or_default(),
            }),
            Some(_) => return Err("invalid_arguments"),
        }
        Ok(())
    }
}
