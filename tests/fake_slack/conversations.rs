//! The methods that read channels.

use serde_json::{Value, json};

use super::Message;
use super::args::{Args, Window};
use super::http::Reply;
use super::methods::{Answer, refuse};
use super::state::{Channel, State};

impl State {
    /// A channel by its id alone, if the bot may see it.
    pub(super) fn by_id(&self, args: &Args<'_>) -> Result<&Channel, Reply> {
        let id = args.text("channel")?.unwrap_or_default();
        let found = self.channels.iter().find(|channel| channel.id == id);
        found.filter(|channel| channel.member || !channel.private).ok_or_else(|| refuse("channel_not_found"))
    }

    /// A channel to read of, given the scopes for public and private ones.
    pub(super) fn readable(&self, args: &Args<'_>, scopes: [&str; 2]) -> Result<&Channel, Reply> {
        if scopes.iter().all(|scope| self.need(scope).is_err()) {
            self.need(scopes[0])?;
        }
        let channel = self.by_id(args)?;
        self.need(scopes[usize::from(channel.private)])?;
        Ok(channel)
    }

    pub(super) fn list(&self, args: &Args<'_>) -> Answer {
        let limit = args.limit(100)?;
        let types = args.text("types")?.unwrap_or("public_channel");
        let (public, private) = (types.contains("public_channel"), types.contains("private_channel"));
        if public {
            self.need("channels:read")?;
        }
        if private {
            self.need("groups:read")?;
        }
        let start = match args.text("cursor")? {
            None | Some("") => 0,
            Some(cursor) => {
                let number = cursor.strip_prefix("list:").and_then(|rest| rest.parse::<usize>().ok());
                number.ok_or_else(|| refuse("invalid_cursor"))?
            }
        };
        let wanted = |channel: &&Channel| {
            !channel.id.starts_with('D')
                && (if channel.private { private && channel.member } else { public })
                && !(channel.archived && args.flag("exclude_archived"))
        };
        let all: Vec<&Channel> = self.channels.iter().filter(wanted).collect();
        let page: Vec<Value> = all.iter().skip(start).take(limit).map(|channel| channel.describe()).collect();
        let end = start.saturating_add(limit);
        let next = if end < all.len() { format!("list:{end}") } else { String::new() };
        Ok(json!({ "channels": page, "response_metadata": { "next_cursor": next } }))
    }

    pub(super) fn history(&self, args: &Args<'_>) -> Answer {
        let channel = self.readable(args, ["channels:history", "groups:history"])?;
        if !channel.member {
            return Err(refuse("not_in_channel"));
        }
        let top = |message: &&Message| message.thread_ts.is_none() || message.broadcast;
        let newest_first =
            channel.messages.values().rev().filter(|message| channel.present(message)).filter(top);
        let window = Window::read(args, 100)?;
        self.page(newest_first.collect(), None, &window, args)
    }

    pub(super) fn replies(&self, args: &Args<'_>) -> Answer {
        let channel = self.readable(args, ["channels:history", "groups:history"])?;
        if !channel.member {
            return Err(refuse("not_in_channel"));
        }
        let ts = args.text("ts")?.unwrap_or_default();
        let found = channel.messages.get(ts).filter(|message| channel.present(message));
        let Some(root) = found else {
            return Err(refuse("thread_not_found"));
        };
        let window = Window::read(args, 1_000)?;
        self.page(channel.replies(ts), Some(root), &window, args)
    }

    /// One page of messages, after the parent where there is one: that always comes with the first.
    pub(super) fn page(
        &self,
        all: Vec<&Message>,
        parent: Option<&Message>,
        window: &Window,
        args: &Args<'_>,
    ) -> Answer {
        let whole = args.flag("include_all_metadata");
        let cursor = args.text("cursor")?.filter(|cursor| !cursor.is_empty());
        let start = match cursor.map(|cursor| cursor.strip_prefix("after:").unwrap_or_default()) {
            None => 0,
            Some(ts) if parent.is_some_and(|parent| parent.ts == ts) => 0,
            Some(ts) => {
                let at = all.iter().position(|message| message.ts == ts);
                at.ok_or_else(|| refuse("invalid_cursor"))? + 1
            }
        };
        let mut rest = all.into_iter().skip(start).filter(|message| window.holds(&message.ts));
        let mut taken: Vec<&Message> = parent.filter(|_| cursor.is_none()).into_iter().collect();
        taken.extend(rest.by_ref().take(window.limit - taken.len()));
        let more = rest.next().is_some();
        let next =
            taken.last().filter(|_| more).map(|message| format!("after:{}", message.ts)).unwrap_or_default();
        let shown: Vec<Value> = taken.into_iter().map(|message| self.show(message, whole)).collect();
        let mut page = json!({ "messages": shown, "has_more": more });
        if more {
            page["response_metadata"] = json!({ "next_cursor": next });
        }
        Ok(page)
    }

    pub(super) fn join(&mut self, args: &Args<'_>) -> Answer {
        self.need("channels:join")?;
        let channel = self.by_id(args)?;
        if channel.private {
            return Err(refuse("method_not_supported_for_channel_type"));
        }
        if channel.archived {
            return Err(refuse("is_archived"));
        }
        let (id, already) = (channel.id.clone(), channel.member);
        let Some(channel) = self.channel_mut(&id) else {
            return Err(refuse("channel_not_found"));
        };
        channel.member = true;
        let mut joined = json!({ "channel": channel.describe() });
        if already {
            joined["warning"] = json!("already_in_channel");
            joined["response_metadata"] = json!({ "warnings": ["already_in_channel"] });
        }
        Ok(joined)
    }
}

impl Channel {
    pub(super) fn describe(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "name_normalized": self.name, "is_channel": !self.private,
            "is_group": self.private, "is_im": self.id.starts_with('D'), "is_private": self.private,
            "is_archived": self.archived, "is_member": self.member, "is_general": self.name == "general",
        })
    }
}
