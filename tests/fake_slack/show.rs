//! Messages as the API shows them.

use serde_json::{Value, json};

use super::people::show_reactions;
use super::state::State;
use super::{Author, BOT_USER, Message};

/// The bot, as its messages name it.
pub(super) const BOT: &str = "B0BOT00000";
/// The workspace.
pub(super) const TEAM: &str = "T000";
/// The app.
pub(super) const APP: &str = "A0APP00000";

impl State {
    /// A message as the API shows it; of metadata the payload only where asked for.
    pub(super) fn show(&self, message: &Message, whole: bool) -> Value {
        let replies =
            self.channel(&message.channel).map(|channel| channel.replies(&message.ts)).unwrap_or_default();
        let mut shown = json!({ "type": "message", "ts": message.ts });
        if message.deleted {
            shown["subtype"] = json!("tombstone");
            shown["user"] = json!("USLACKBOT");
            shown["text"] = json!("This message was deleted.");
        } else {
            shown["text"] = json!(message.text);
            show_author(&mut shown, &message.author);
            if let Author::Person(user) = &message.author
                && let Some(bot) = self.person(user).filter(|person| person.is_bot)
            {
                shown["bot_id"] = json!(bot.bot_id());
            }
            if message.broadcast {
                shown["subtype"] = json!("thread_broadcast");
            }
            if !message.reactions.is_empty() {
                shown["reactions"] = show_reactions(&message.reactions, false);
            }
            show_parts(&mut shown, message);
            if let Some(metadata) = &message.metadata {
                shown["metadata"] =
                    if whole { metadata.clone() } else { json!({ "event_type": metadata["event_type"] }) };
            }
        }
        if let Some(root) = &message.thread_ts {
            shown["thread_ts"] = json!(root);
            shown["parent_user_id"] = json!(BOT_USER);
        } else if let Some(last) = replies.last() {
            let mut users: Vec<&str> = replies.iter().map(|reply| user_of(&reply.author)).collect();
            users.sort_unstable();
            users.dedup();
            shown["thread_ts"] = json!(message.ts);
            shown["reply_count"] = json!(replies.len());
            shown["reply_users_count"] = json!(users.len());
            shown["reply_users"] = json!(&users[..users.len().min(5)]);
            shown["latest_reply"] = json!(last.ts);
            shown["is_locked"] = json!(false);
            shown["subscribed"] = json!(false);
        }
        shown
    }
}

fn user_of(author: &Author) -> &str {
    match author {
        Author::Bot => BOT_USER,
        Author::Webhook => "U0WEBHOOK0",
        Author::Person(user) => user,
    }
}

fn show_author(shown: &mut Value, author: &Author) {
    shown["user"] = json!(user_of(author));
    shown["team"] = json!(TEAM);
    match author {
        Author::Bot => {
            shown["bot_id"] = json!(BOT);
            shown["app_id"] = json!(APP);
        }
        Author::Webhook => {
            shown["bot_id"] = json!("B0WEBHOOK0");
            shown["subtype"] = json!("bot_message");
        }
        Author::Person(_) => {}
    }
}

/// Blocks and attachments come back with the ids Slack gives them.
fn show_parts(shown: &mut Value, message: &Message) {
    let numbered = |blocks: &[Value]| {
        let mut blocks = blocks.to_vec();
        for (number, block) in blocks.iter_mut().filter_map(Value::as_object_mut).enumerate() {
            block.entry("block_id").or_insert_with(|| json!(format!("fake{number}")));
        }
        Value::Array(blocks)
    };
    if !message.blocks.is_empty() {
        shown["blocks"] = numbered(&message.blocks);
    }
    if !message.attachments.is_empty() {
        let mut attachments = message.attachments.clone();
        for (number, part) in attachments.iter_mut().filter_map(Value::as_object_mut).enumerate() {
            part.insert("id".to_owned(), json!(number + 1));
            part.entry("fallback").or_insert_with(|| json!("[no preview available]"));
            if let Some(Value::Array(blocks)) = part.get("blocks") {
                let blocks = numbered(blocks);
                part.insert("blocks".to_owned(), blocks);
            }
        }
        shown["attachments"] = Value::Array(attachments);
    }
    if let (Some(_), Author::Bot, true) = (message.edits.last(), &message.author, message.blocks.is_empty()) {
        shown["edited"] = json!({ "user": BOT_USER, "ts": message.ts });
    }
}
