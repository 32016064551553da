//! The Web API methods and the webhook: who may do what, and what comes of it.

use serde_json::{Map, Value, json};

use super::args::{Args, Content};
use super::http::Reply;
use super::rules::{Complaint, Mention};
use super::show::{BOT, TEAM};
use super::sockets::APP_TOKEN;
use super::state::{Channel, State};
use super::{Author, BOT_USER, CHANNEL, HUMAN, Message, Ping, Request, TOKEN, WEBHOOK};

pub(super) type Answer = Result<Value, Reply>;

/// The one method that takes an app-level token, and takes nothing else.
const OPEN: &str = "apps.connections.open";

/// Lets a call take effect and says what the answer is.
pub(super) fn answer(state: &mut State, request: &Request, complaint: Option<&'static str>) -> Reply {
    if let Some(seconds) = state.penalty(request) {
        return too_many(request, Some(seconds));
    }
    if request.path.starts_with("/services/") {
        return state.webhook(request, complaint);
    }
    if request.path.starts_with("/upload/") {
        return state.receive_upload(request);
    }
    if request.path.starts_with("/response/") {
        return state.respond(request, complaint);
    }
    if !request.path.starts_with("/api/") {
        return Reply::text(404, "not found");
    }
    let method = request.name();
    let Some(accepted) = accepted_scopes(method) else {
        return refuse("unknown_method");
    };
    let mut reply = match state.api(method, request, complaint) {
        Ok(mut value) => {
            value["ok"] = Value::Bool(true);
            Reply::json(&value)
        }
        Err(reply) => reply,
    };
    if !reply.body.is_empty() && state.authenticate(request).is_ok() {
        let held = if method == OPEN { "connections:write".to_owned() } else { state.scopes.join(",") };
        reply.headers.push(("x-oauth-scopes", held));
        reply.headers.push(("x-accepted-oauth-scopes", accepted.to_owned()));
    }
    reply.headers.push(("x-slack-req-id", format!("fake{:08}", state.requests.len())));
    reply
}

/// The scopes with which a method can be called; none for a method that does not exist.
fn accepted_scopes(method: &str) -> Option<&'static str> {
    Some(match method {
        "auth.test" => "",
        "chat.postMessage" | "chat.update" | "chat.delete" | "chat.postEphemeral" => "chat:write",
        "chat.getPermalink" => "",
        OPEN => "connections:write",
        "reactions.get" => "reactions:read",
        "reactions.add" | "reactions.remove" => "reactions:write",
        "users.info" => "users:read",
        "files.getUploadURLExternal" | "files.completeUploadExternal" => "files:write",
        "conversations.info" | "conversations.list" | "conversations.members" => {
            "channels:read,groups:read,im:read,mpim:read"
        }
        "conversations.history" | "conversations.replies" => {
            "channels:history,groups:history,im:history,mpim:history"
        }
        "conversations.join" => "channels:join",
        _ => return None,
    })
}

/// The answer of a call that comes too often.
pub(super) fn too_many(request: &Request, retry_after: Option<u32>) -> Reply {
    let mut reply = if request.path.starts_with("/services/") {
        Reply::text(429, "rate_limited")
    } else {
        Reply { status: 429, ..refuse("ratelimited") }
    };
    if let Some(seconds) = retry_after {
        reply.headers.push(("Retry-After", seconds.to_string()));
    }
    reply
}

/// A refusal in the words of the destination that was called.
pub(super) fn refusal(request: &Request, name: &str) -> Reply {
    if request.path.starts_with("/services/") { Reply::text(hook_status(name), name) } else { refuse(name) }
}

/// The status a webhook gives with an error.
fn hook_status(name: &str) -> u16 {
    match name {
        "action_prohibited" | "posting_to_general_channel_denied" | "invalid_token" => 403,
        "channel_not_found" | "no_service" | "no_service_id" | "no_team" | "team_disabled"
        | "no_active_hooks" => 404,
        "channel_is_archived" => 410,
        "rollup_error" => 500,
        _ => 400,
    }
}

pub(super) fn refuse(error: &str) -> Reply {
    Reply::json(&json!({ "ok": false, "error": error }))
}

pub(super) fn refuse_because((error, messages): Complaint) -> Reply {
    if messages.is_empty() {
        return refuse(error);
    }
    Reply::json(&json!({ "ok": false, "error": error, "response_metadata": { "messages": messages } }))
}

pub(super) fn because(error: &'static str, message: &str) -> Reply {
    refuse_because((error, vec![format!("[ERROR] {message}")]))
}

impl State {
    fn api(&mut self, method: &str, request: &Request, complaint: Option<&'static str>) -> Answer {
        let posted = request.method == "POST";
        if !posted && request.method != "GET" {
            return Err(refuse("insecure_request"));
        }
        let writes =
            ["conversations.join", "files.completeUploadExternal", "reactions.add", "reactions.remove", OPEN];
        let is_read = method == "chat.getPermalink";
        if !posted && !is_read && (method.starts_with("chat.") || writes.contains(&method)) {
            return Err(refuse("insecure_request"));
        }
        self.authenticate(request)?;
        let json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let reads = ["chat.getPermalink", "files.getUploadURLExternal", "reactions.get", "users.info"];
        let unread = json && (method.starts_with("conversations.") || reads.contains(&method));
        if let Some(error) = complaint
            && !unread
        {
            return Err(refuse(error));
        }
        self.pace_method(method).map_err(pause)?;
        let none = Map::new();
        let args = Args(if unread { &none } else { request.args.as_object().unwrap_or(&none) });
        match method {
            "auth.test" => Ok(json!({
                "url": "https://fake.slack.invalid/", "team": "Fake", "user": "agent-checkpoint", "team_id": TEAM,
                "user_id": BOT_USER, "bot_id": BOT, "is_enterprise_install": false,
            })),
            "chat.postMessage" => self.post(&args),
            "chat.update" => self.update(&args),
            "chat.delete" => self.delete(&args),
            "chat.getPermalink" => self.permalink(&args),
            "files.getUploadURLExternal" => {
                self.reserve_upload(&args, request.header("host").unwrap_or_default())
            }
            "files.completeUploadExternal" => self.complete_upload(&args),
            "conversations.info" => {
                let channel = self.readable(&args, ["channels:read", "groups:read"])?;
                Ok(json!({ "channel": channel.describe() }))
            }
            "conversations.list" => self.list(&args),
            "conversations.history" => self.history(&args),
            "conversations.replies" => self.replies(&args),
            "conversations.join" => self.join(&args),
            "conversations.members" => self.members(&args),
            "chat.postEphemeral" => self.post_ephemeral(&args),
            "reactions.get" => self.reactions(&args),
            "reactions.add" => self.add_reaction(&args),
            "reactions.remove" => self.remove_reaction(&args),
            "users.info" => self.user_info(&args),
            OPEN => self.open_socket(request.header("host").unwrap_or_default()),
            _ => Err(refuse("unknown_method")),
        }
    }

    fn authenticate(&self, request: &Request) -> Result<(), Reply> {
        let opens = request.name() == OPEN;
        let Some(header) = request.header("authorization") else {
            return Err(refuse(if opens { "missing_args" } else { "not_authed" }));
        };
        let known = [Some(TOKEN), Some(APP_TOKEN)];
        let (right, wrong) = if opens { (known[1], known[0]) } else { (known[0], known[1]) };
        if request.args.get("token").is_none() && header.strip_prefix("Bearer ") == wrong {
            return Err(refuse("not_allowed_token_type"));
        }
        if opens && header.strip_prefix("Bearer ") == right && request.args.get("token").is_none() {
            return Ok(());
        }
        if header.strip_prefix("Bearer ") != Some(TOKEN) || request.args.get("token").is_some() {
            return Err(refuse("invalid_auth"));
        }
        if self.revoked { Err(refuse("token_revoked")) } else { Ok(()) }
    }

    pub(super) fn need(&self, scope: &str) -> Result<(), Reply> {
        if self.scopes.iter().any(|held| held == scope) {
            return Ok(());
        }
        let provided = self.scopes.join(",");
        let refusal = json!({ "ok": false, "error": "missing_scope", "needed": scope, "provided": provided });
        Err(Reply::json(&refusal))
    }

    fn post(&mut self, args: &Args<'_>) -> Answer {
        self.need("chat:write")?;
        let wanted = match args.text("channel")? {
            Some(channel) if !channel.is_empty() => channel,
            _ => return Err(refuse("channel_not_found")),
        };
        if wanted == HUMAN && self.channel("D0HUMAN000").is_none() {
            self.channels.push(Channel::new(HUMAN, "D0HUMAN000", true, false, true));
        }
        let Some(channel) = self.channel(wanted).filter(|channel| channel.member || !channel.private) else {
            return Err(refuse("channel_not_found"));
        };
        let id = channel.id.clone();
        if channel.archived {
            return Err(refuse("is_archived"));
        }
        if !channel.member && self.need("chat:write.public").is_err() {
            return Err(refuse("not_in_channel"));
        }
        if ["username", "icon_emoji", "icon_url"].iter().any(|name| args.0.contains_key(*name)) {
            self.need("chat:write.customize")?;
        }
        if let Err(seconds) = self.pace("chat.postMessage", &id) {
            return Err(pause(seconds));
        }
        let content = Content::read(args, false).map_err(refuse_because)?;
        let mut thread = args.text("thread_ts")?;
        if let Err(why) = self.check_thread(&id, thread) {
            if !self.lost_replies_stand_alone {
                return Err(because("thread_not_found", why));
            }
            thread = None;
        }
        let message = self.store(&id, thread, Author::Bot, args.flag("reply_broadcast"), content);
        let shown = self.show(&message, true);
        Ok(json!({ "channel": id, "ts": message.ts, "message": shown }))
    }

    pub(super) fn check_thread(&self, channel: &str, thread: Option<&str>) -> Result<(), &'static str> {
        let (Some(ts), Some(channel)) = (thread, self.channel(channel)) else {
            return Ok(());
        };
        match channel.messages.get(ts) {
            Some(root) if root.thread_ts.is_some() => Err("thread_ts names a reply, not a thread"),
            Some(root) if channel.present(root) => Ok(()),
            _ => Err("thread_ts names no message of this channel"),
        }
    }

    pub(super) fn store(
        &mut self,
        channel: &str,
        thread: Option<&str>,
        author: Author,
        broadcast: bool,
        content: Content,
    ) -> Message {
        let message = Message {
            channel: channel.to_owned(),
            ts: self.next_ts(),
            thread_ts: thread.map(str::to_owned),
            author,
            text: content.text,
            attachments: content.attachments.unwrap_or_default(),
            blocks: content.blocks.unwrap_or_default(),
            metadata: content.metadata,
            edits: Vec::new(),
            deleted: false,
            broadcast: broadcast && thread.is_some(),
            reactions: Vec::new(),
        };
        self.note_pings(&message, content.mentions);
        if let Some(channel) = self.channel_mut(channel) {
            channel.insert(message.clone());
        }
        message
    }

    pub(super) fn note_pings(&mut self, message: &Message, mentions: Vec<Mention>) {
        let (channel, ts) = (&message.channel, &message.ts);
        self.pings.extend(mentions.into_iter().map(|(place, text)| Ping {
            channel: channel.clone(),
            ts: ts.clone(),
            place,
            text,
        }));
    }

    fn update(&mut self, args: &Args<'_>) -> Answer {
        self.need("chat:write")?;
        let channel = self.by_id(args)?;
        let (id, archived) = (channel.id.clone(), channel.archived);
        let ts = args.required("ts")?;
        let known = channel.messages.get(ts).map(|message| (message.author.clone(), message.deleted));
        match known {
            None | Some((_, true)) => return Err(refuse("message_not_found")),
            Some((Author::Bot, _)) => {}
            Some(_) => return Err(refuse("cant_update_message")),
        }
        if archived {
            return Err(refuse("is_inactive"));
        }
        if let Err(seconds) = self.pace_update() {
            return Err(pause(seconds));
        }
        let content = Content::read(args, true).map_err(refuse_because)?;
        let Some(message) = self.channel_mut(&id).and_then(|channel| channel.messages.get_mut(ts)) else {
            return Err(refuse("message_not_found"));
        };
        let before = std::mem::replace(&mut message.text, content.text);
        message.edits.push(before);
        // Text alone takes the blocks away; attachments stay unless given.
        message.blocks = content.blocks.unwrap_or_default();
        if let Some(attachments) = content.attachments {
            message.attachments = attachments;
        }
        if let Some(metadata) = content.metadata {
            message.metadata =
                metadata.as_object().is_some_and(|object| !object.is_empty()).then_some(metadata);
        }
        let message = message.clone();
        self.note_pings(&message, content.mentions);
        let shown = self.show(&message, true);
        Ok(json!({ "channel": id, "ts": ts, "text": message.text, "message": shown }))
    }

    fn delete(&mut self, args: &Args<'_>) -> Answer {
        self.need("chat:write")?;
        let (id, ts) = (self.by_id(args)?.id.clone(), args.required("ts")?);
        let found = self.channel_mut(&id).and_then(|channel| channel.messages.get_mut(ts));
        let Some(message) = found.filter(|message| !message.deleted) else {
            return Err(refuse("message_not_found"));
        };
        if message.author != Author::Bot {
            return Err(refuse("cant_delete_message"));
        }
        message.deleted = true;
        Ok(json!({ "channel": id, "ts": ts }))
    }

    fn permalink(&self, args: &Args<'_>) -> Answer {
        let (channel, ts) = (self.by_id(args)?, args.required("message_ts")?);
        if !channel.messages.contains_key(ts) {
            return Err(refuse("message_not_found"));
        }
        let permalink =
            format!("https://fake.slack.invalid/archives/{}/p{}", channel.id, ts.replace('.', ""));
        Ok(json!({ "channel": channel.id, "permalink": permalink }))
    }

    fn webhook(&mut self, request: &Request, complaint: Option<&'static str>) -> Reply {
        let no = |name: &str| Reply::text(hook_status(name), name);
        let Some((hook, secret)) = WEBHOOK.rsplit_once('/') else {
            return no("no_service");
        };
        match request.path.rsplit_once('/') {
            Some((asked, _)) if asked != hook => return no("no_service"),
            Some((_, given)) if given != secret => return no("invalid_token"),
            _ => {}
        }
        if self.webhook_gone {
            return no("no_active_hooks");
        }
        let json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let readable = matches!(complaint, None | Some("invalid_charset"));
        let (true, true, true, Some(args)) =
            (request.method == "POST", json, readable, request.args.as_object())
        else {
            return no("invalid_payload");
        };
        let args = Args(args);
        if self.channel(CHANNEL).is_some_and(|channel| channel.archived) {
            return no("channel_is_archived");
        }
        if let Err(seconds) = self.pace(request.name(), CHANNEL) {
            return too_many(request, Some(seconds));
        }
        let content = match Content::read(&args, false) {
            Ok(content) => content,
            Err((name, _)) => return no(name),
        };
        let Ok(thread) = args.text("thread_ts") else {
            return no("invalid_payload");
        };
        if self.check_thread(CHANNEL, thread).is_err() {
            return no("thread_not_found");
        }
        self.store(CHANNEL, thread, Author::Webhook, args.flag("reply_broadcast"), content);
        Reply::text(200, "ok")
    }
}

pub(super) fn pause(seconds: u32) -> Reply {
    let mut reply = Reply { status: 429, ..refuse("ratelimited") };
    reply.headers.push(("Retry-After", seconds.to_string()));
    reply
}
