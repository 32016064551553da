//! What a message may be made of: limits and shapes of text, blocks, attachments and metadata, and what in them would
//! notify people.
//!
//! Lengths are counted in characters of the text as sent, after escaping. A complaint names the rule and points at the
//! place, as `response_metadata.messages` does.

use std::collections::HashSet;

use serde_json::{Map, Value};

const MAX_BLOCKS: usize = 50;
const MAX_ATTACHMENTS: usize = 100;
/// No size is published; Slack only says `metadata_too_large`.
const MAX_METADATA: usize = 16 * 1024;

/// An error name and the complaints that go with it.
pub(crate) type Complaint = (&'static str, Vec<String>);

/// A text that would notify somebody, and where in the message it stands.
pub(crate) type Mention = (String, String);

/// Looks through the parts of one message.
#[derive(Default)]
pub(crate) struct Inspector {
    complaints: Vec<String>,
    pub(crate) mentions: Vec<Mention>,
    block_ids: HashSet<String>,
    action_ids: HashSet<String>,
    blocks: usize,
    markdown: usize,
}

impl Inspector {
    /// Looks at the top-level text. `bare` says that plain `@here` counts as a mention too.
    pub(crate) fn text(&mut self, text: &str, bare: bool) {
        self.mention(text, bare, "/text");
    }

    /// Checks the top-level blocks.
    pub(crate) fn blocks(&mut self, blocks: &Value) -> Result<(), Complaint> {
        self.block_list(blocks, "/blocks");
        if blocks.as_array().is_none() {
            return Err(("invalid_blocks_format", std::mem::take(&mut self.complaints)));
        }
        if self.complaints.is_empty() {
            Ok(())
        } else {
            Err(("invalid_blocks", std::mem::take(&mut self.complaints)))
        }
    }

    /// Checks attachments, with the blocks inside them.
    pub(crate) fn attachments(&mut self, attachments: &Value) -> Result<(), Complaint> {
        let Some(list) = attachments.as_array() else {
            return Err(("invalid_attachments", vec!["[ERROR] attachments must be an array".to_owned()]));
        };
        if list.len() > MAX_ATTACHMENTS {
            return Err(("too_many_attachments", Vec::new()));
        }
        for (index, attachment) in list.iter().enumerate() {
            self.attachment(attachment, &format!("/attachments/{index}"));
        }
        if self.complaints.is_empty() {
            Ok(())
        } else {
            Err(("invalid_attachments", std::mem::take(&mut self.complaints)))
        }
    }

    fn attachment(&mut self, attachment: &Value, at: &str) {
        let Some(object) = self.object(attachment, at) else {
            return;
        };
        if let Some(colour) = object.get("color") {
            let good = colour.as_str().is_some_and(|colour| {
                let hex = colour.strip_prefix('#').unwrap_or(colour);
                matches!(colour, "good" | "warning" | "danger")
                    || (matches!(hex.len(), 3 | 6) && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            });
            if !good {
                self.complain("must be good, warning, danger or a hex colour", &format!("{at}/color"));
            }
        }
        if let Some(blocks) = object.get("blocks") {
            // Beside blocks the old fields are refused, those that only describe the attachment excepted.
            if object.keys().any(|key| !matches!(key.as_str(), "blocks" | "color" | "fallback" | "id")) {
                self.complain("invalid_keys", at);
            }
            self.block_list(blocks, &format!("{at}/blocks"));
        }
        for key in ["fallback", "pretext", "text", "title", "footer"] {
            match object.get(key) {
                None => {}
                Some(Value::String(text)) => self.mention(text, false, &format!("{at}/{key}")),
                Some(_) => self.complain("must be a string", &format!("{at}/{key}")),
            }
        }
        for (index, field) in object.get("fields").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            if let Some(text) = field["value"].as_str() {
                self.mention(text, false, &format!("{at}/fields/{index}/value"));
            }
        }
    }

    fn block_list(&mut self, blocks: &Value, at: &str) {
        let Some(list) = blocks.as_array() else {
            return self.complain("must be an array", at);
        };
        self.blocks += list.len();
        if self.blocks > MAX_BLOCKS {
            self.complain("no more than 50 items allowed", at);
        }
        for (index, block) in list.iter().enumerate() {
            self.block(block, &format!("{at}/{index}"));
        }
    }

    fn block(&mut self, block: &Value, at: &str) {
        let Some(object) = self.object(block, at) else {
            return;
        };
        if let Some(id) = object.get("block_id") {
            self.id(id, at, "block_id");
        }
        match object.get("type").and_then(Value::as_str).unwrap_or_default() {
            "section" => self.section(object, at),
            "header" => {
                self.keys(object, &["text"], at);
                self.text_object(&block["text"], 150, Some("plain_text"), &format!("{at}/text"));
            }
            "context" => {
                self.keys(object, &["elements"], at);
                for (element, at) in self.items(object, "elements", 10, at) {
                    if element["type"] == "image" {
                        self.image(element, &at);
                    } else {
                        self.text_object(element, 3_000, None, &at);
                    }
                }
            }
            "actions" => {
                self.keys(object, &["elements"], at);
                for (element, at) in self.items(object, "elements", 25, at) {
                    self.interactive(element, &at);
                }
            }
            "divider" => self.keys(object, &[], at),
            "image" => {
                self.keys(object, &["image_url", "slack_file", "alt_text", "title"], at);
                self.image(block, at);
            }
            "markdown" => {
                self.keys(object, &["text"], at);
                let text = object.get("text").and_then(Value::as_str).unwrap_or_default();
                self.markdown += text.chars().count();
                if text.is_empty() {
                    self.complain("must be more than 0 characters", &format!("{at}/text"));
                } else if self.markdown > 12_000 {
                    self.complain("must be less than 12001 characters", &format!("{at}/text"));
                }
                // What a markdown block does with a bare name is not documented: take the worse case.
                self.mention(text, true, &format!("{at}/text"));
            }
            "rich_text" => {
                self.keys(object, &["elements"], at);
                for (element, at) in self.items(object, "elements", usize::MAX, at) {
                    self.rich_text(element, &at);
                }
            }
            "alert" | "card" | "carousel" | "context_actions" | "plan" | "table" | "task_card" | "video" => {}
            other => self.complain(&format!("unsupported type: {other}"), &format!("{at}/type")),
        }
    }

    fn section(&mut self, object: &Map<String, Value>, at: &str) {
        self.keys(object, &["text", "fields", "accessory", "expand"], at);
        if !object.contains_key("text") && !object.contains_key("fields") {
            self.complain("must define either `text` or `fields`", at);
        }
        if let Some(text) = object.get("text") {
            self.text_object(text, 3_000, None, &format!("{at}/text"));
        }
        if object.contains_key("fields") {
            for (field, at) in self.items(object, "fields", 10, at) {
                self.text_object(field, 2_000, None, &at);
            }
        }
        if let Some(accessory) = object.get("accessory") {
            let at = format!("{at}/accessory");
            if accessory["type"] == "image" {
                self.image(accessory, &at);
            } else {
                self.interactive(accessory, &at);
            }
        }
    }

    fn image(&mut self, image: &Value, at: &str) {
        let url = image["image_url"].as_str();
        if url.is_none() && image.get("slack_file").is_none() {
            self.complain("missing required field: image_url", at);
        }
        if url.is_some_and(|url| url.chars().count() > 3_000 || !url.starts_with("http")) {
            self.complain("must be a URL of at most 3000 characters", &format!("{at}/image_url"));
        }
        match image["alt_text"].as_str().map(|text| text.chars().count()) {
            Some(1..=2_000) => {}
            _ => self.complain("must be 1 to 2000 characters", &format!("{at}/alt_text")),
        }
    }

    fn interactive(&mut self, element: &Value, at: &str) {
        let Some(object) = self.object(element, at) else {
            return;
        };
        if let Some(id) = object.get("action_id") {
            self.id(id, at, "action_id");
        }
        match object.get("type").and_then(Value::as_str).unwrap_or_default() {
            "button" => self.button(object, at),
            "static_select"
            | "external_select"
            | "users_select"
            | "conversations_select"
            | "channels_select"
            | "overflow"
            | "datepicker"
            | "timepicker"
            | "datetimepicker"
            | "checkboxes"
            | "radio_buttons"
            | "workflow_button" => {}
            other => self.complain(&format!("unsupported type: {other}"), &format!("{at}/type")),
        }
    }

    fn button(&mut self, button: &Map<String, Value>, at: &str) {
        self.keys(
            button,
            &["text", "action_id", "url", "value", "style", "confirm", "accessibility_label"],
            at,
        );
        let part = |key: &str| button.get(key).unwrap_or(&Value::Null);
        self.text_object(part("text"), 75, Some("plain_text"), &format!("{at}/text"));
        for (key, most) in [("value", 2_000), ("url", 3_000), ("accessibility_label", 75)] {
            match part(key) {
                Value::Null => {}
                Value::String(text) if text.chars().count() <= most => {}
                _ => self
                    .complain(&format!("must be less than {} characters", most + 1), &format!("{at}/{key}")),
            }
        }
        if !matches!(part("style"), Value::Null)
            && !matches!(part("style").as_str(), Some("primary" | "danger"))
        {
            self.complain("must be primary or danger", &format!("{at}/style"));
        }
        if let Some(confirm) = button.get("confirm") {
            let at = format!("{at}/confirm");
            let Some(object) = self.object(confirm, &at) else {
                return;
            };
            self.keys(object, &["title", "text", "confirm", "deny", "style"], &at);
            self.text_object(&confirm["title"], 100, Some("plain_text"), &format!("{at}/title"));
            self.text_object(&confirm["text"], 300, None, &format!("{at}/text"));
            self.text_object(&confirm["confirm"], 30, Some("plain_text"), &format!("{at}/confirm"));
            self.text_object(&confirm["deny"], 30, Some("plain_text"), &format!("{at}/deny"));
        }
    }

    fn rich_text(&mut self, element: &Value, at: &str) {
        let known = match element["type"].as_str().unwrap_or_default() {
            "rich_text_section" => &["elements"][..],
            "rich_text_list" => &["elements", "style", "indent", "offset", "border"],
            "rich_text_preformatted" => &["elements", "border", "language"],
            "rich_text_quote" => &["elements", "border"],
            "text" | "link" | "emoji" | "color" | "date" | "channel" => return self.rich_leaf(element, at),
            "user" | "usergroup" | "broadcast" => {
                return self.mentions.push((at.to_owned(), element.to_string()));
            }
            other => return self.complain(&format!("unsupported type: {other}"), &format!("{at}/type")),
        };
        let Some(object) = self.object(element, at) else {
            return;
        };
        self.keys(object, known, at);
        for (inner, at) in self.items(object, "elements", usize::MAX, at) {
            self.rich_text(inner, &at);
        }
    }

    fn rich_leaf(&mut self, element: &Value, at: &str) {
        if element["type"] == "text" && element["text"].as_str().is_none_or(str::is_empty) {
            self.complain("must be more than 0 characters", &format!("{at}/text"));
        }
    }

    /// Checks a text object of 1 to `most` characters, of one type only when `only` says so.
    fn text_object(&mut self, object: &Value, most: usize, only: Option<&str>, at: &str) {
        let Some(parts) = self.object(object, at) else {
            return;
        };
        let kind = parts.get("type").and_then(Value::as_str).unwrap_or_default();
        let flag = match kind {
            "plain_text" => "emoji",
            "mrkdwn" => "verbatim",
            other => return self.complain(&format!("unsupported type: {other}"), &format!("{at}/type")),
        };
        if only.is_some_and(|only| only != kind) {
            self.complain(&format!("unsupported type: {kind}"), &format!("{at}/type"));
        }
        self.unknown_keys(parts, &["type", "text", flag], at);
        if parts.get(flag).is_some_and(|value| !value.is_boolean()) {
            self.complain("must be a boolean", &format!("{at}/{flag}"));
        }
        let Some(text) = parts.get("text").and_then(Value::as_str) else {
            return self.complain("missing required field: text", at);
        };
        match text.chars().count() {
            0 => self.complain("must be more than 0 characters", &format!("{at}/text")),
            count if count > most => {
                self.complain(&format!("must be less than {} characters", most + 1), &format!("{at}/text"));
            }
            _ => {}
        }
        if kind == "mrkdwn" {
            let verbatim = parts.get("verbatim") == Some(&Value::Bool(true));
            self.mention(text, !verbatim, at);
            if !verbatim && text.contains("<!") && !notifies(text, true) {
                self.mentions.push((at.to_owned(), text.to_owned()));
            }
        }
    }

    fn mention(&mut self, text: &str, bare: bool, at: &str) {
        if notifies(text, bare) {
            self.mentions.push((at.to_owned(), text.to_owned()));
        }
    }

    fn id(&mut self, id: &Value, at: &str, name: &str) {
        let at = format!("{at}/{name}");
        let Some(id) = id.as_str() else {
            return self.complain("must be a string", &at);
        };
        if id.is_empty() || id.chars().count() > 255 {
            self.complain("must be 1 to 255 characters", &at);
        }
        let seen = if name == "block_id" { &mut self.block_ids } else { &mut self.action_ids };
        if !seen.insert(id.to_owned()) {
            self.complain(&format!("`{name}` {id} already exists"), &at);
        }
    }

    /// The items of an array that must hold 1 to `most`, each with its place.
    fn items<'a>(
        &mut self,
        object: &'a Map<String, Value>,
        key: &str,
        most: usize,
        at: &str,
    ) -> Vec<(&'a Value, String)> {
        let at = format!("{at}/{key}");
        let list = object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if list.is_empty() {
            self.complain("must provide a value", &at);
        } else if list.len() > most {
            self.complain(&format!("no more than {most} items allowed"), &at);
        }
        list.iter().enumerate().map(|(index, item)| (item, format!("{at}/{index}"))).collect()
    }

    fn object<'a>(&mut self, value: &'a Value, at: &str) -> Option<&'a Map<String, Value>> {
        if value.as_object().is_none() {
            self.complain("must provide an object", at);
        }
        value.as_object()
    }

    fn keys(&mut self, object: &Map<String, Value>, known: &[&str], at: &str) {
        let known: Vec<&str> = ["type", "block_id"].iter().chain(known).copied().collect();
        self.unknown_keys(object, &known, at);
    }

    fn unknown_keys(&mut self, object: &Map<String, Value>, known: &[&str], at: &str) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.complain(&format!("invalid additional property: {key}"), at);
        }
    }

    fn complain(&mut self, what: &str, at: &str) {
        self.complaints.push(format!("[ERROR] {what} [json-pointer:{at}]"));
    }
}

/// Whether a text holds a token that notifies people; `bare` adds `@here`, `@channel` and `@everyone` written plainly.
pub(crate) fn notifies(text: &str, bare: bool) -> bool {
    let token = text.match_indices('<').any(|(at, _)| {
        let rest = &text[at + 1..];
        let Some(inner) = rest.find('>').map(|end| &rest[..end]) else {
            return false;
        };
        let name = inner.split(['|', '^']).next().unwrap_or_default();
        match name.as_bytes() {
            [b'!', ..] => matches!(&name[1..], "here" | "channel" | "everyone" | "group" | "subteam"),
            [b'@', b'U' | b'W', id @ ..] => !id.is_empty() && id.iter().all(u8::is_ascii_alphanumeric),
            _ => false,
        }
    });
    token || (bare && text.match_indices('@').any(|(at, _)| names_everyone(&text[..at], &text[at + 1..])))
}

fn names_everyone(before: &str, after: &str) -> bool {
    let inside_a_word = before.chars().next_back().is_some_and(char::is_alphanumeric);
    let word = after.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default();
    let word = word.trim_end_matches(['_', '-']).to_ascii_lowercase();
    !inside_a_word && matches!(word.as_str(), "here" | "channel" | "everyone")
}

/// Checks `{event_type, event_payload}`.
pub(crate) fn metadata(metadata: &Value) -> Result<(), Complaint> {
    let malformed = |why: &str| Err(("invalid_metadata_format", vec![format!("[ERROR] {why}")]));
    let Some(object) = metadata.as_object() else {
        return malformed("metadata must be an object");
    };
    let (Some(Value::String(kind)), Some(Value::Object(payload))) =
        (object.get("event_type"), object.get("event_payload"))
    else {
        return malformed("metadata must have an event_type and an event_payload object");
    };
    if object.len() > 2 {
        return malformed("metadata has only event_type and event_payload");
    }
    if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(("invalid_metadata_schema", vec![format!("[ERROR] event_type {kind:?}")]));
    }
    for (key, value) in payload {
        if !plain(value, 2) {
            return Err(("invalid_metadata_schema", vec![format!("[ERROR] event_payload.{key}: {value}")]));
        }
    }
    if metadata.to_string().len() > MAX_METADATA {
        return Err(("metadata_too_large", Vec::new()));
    }
    Ok(())
}

/// A payload's value: a string, number or boolean, an object of such, or an array of such objects.
fn plain(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Object(object) => depth > 0 && object.values().all(|value| plain(value, depth - 1)),
        Value::Array(list) => {
            depth > 0 && list.iter().all(|value| value.is_object() && plain(value, depth - 1))
        }
    }
}

/// Whether a message of these parts would show anything at all.
pub(crate) fn shows(text: &str, blocks: &[Value], attachments: &[Value]) -> bool {
    let filled = |attachment: &Value| {
        ["blocks", "fields"]
            .iter()
            .any(|key| attachment[*key].as_array().is_some_and(|list| !list.is_empty()))
            || ["text", "pretext", "title", "fallback", "image_url", "footer", "author_name"]
                .iter()
                .any(|key| attachment[*key].as_str().is_some_and(|text| !text.is_empty()))
    };
    !text.trim().is_empty() || !blocks.is_empty() || attachments.iter().any(filled)
}
