//! The arguments of a call: where they may stand, and what they may be.

use serde_json::{Map, Value};

use super::http::{self, Raw, Reply};
use super::methods::{because, refuse};
use super::rules::{self, Complaint, Inspector};

const MAX_POST: usize = 40_000;
const MAX_UPDATE: usize = 4_000;

/// Reads the arguments of a call, wherever they stand. What is wrong with them comes second.
pub(super) fn read(raw: &Raw) -> (Value, Option<&'static str>) {
    let Some(mut args) = http::form(&raw.query) else {
        return (Value::Null, Some("invalid_form_data"));
    };
    if raw.body.is_empty() {
        parse_nested(&mut args);
        return (Value::Object(args), None);
    }
    let content_type = http::header(&raw.headers, "content-type").unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
    });
    let both = (!args.is_empty()).then_some("invalid_arguments");
    match kind.as_str() {
        "application/json" => match serde_json::from_slice::<Value>(&raw.body) {
            Err(_) => (Value::Null, Some("invalid_json")),
            Ok(Value::Object(mut args)) => {
                args.retain(|_, value| !value.is_null());
                let wrong = (charset.as_deref() != Some("utf-8")).then_some("invalid_charset");
                (Value::Object(args), both.or(wrong))
            }
            Ok(_) => (Value::Null, Some("json_not_object")),
        },
        "application/x-www-form-urlencoded" => {
            let body = std::str::from_utf8(&raw.body).ok().and_then(http::form);
            let Some(mut body) = body else {
                return (Value::Null, Some("invalid_form_data"));
            };
            parse_nested(&mut body);
            (Value::Object(body), both)
        }
        "" => (Value::Null, Some("missing_post_type")),
        "multipart/form-data" => (Value::Null, Some("invalid_form_data")),
        "text/plain" => (Value::Object(args), None),
        _ => (Value::Null, Some("invalid_post_type")),
    }
}

/// In a form, structured arguments are JSON in a string. What does not parse stays one and is refused later.
fn parse_nested(args: &mut Map<String, Value>) {
    for name in ["blocks", "attachments", "metadata"] {
        if let Some(value) = args.get_mut(name)
            && let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = parsed;
        }
    }
}

/// The arguments of a call.
pub(super) struct Args<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Args<'a> {
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Reply> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(because("invalid_arguments", &format!("must be a string: {name}"))),
        }
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a str, Reply> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(because("invalid_arguments", &format!("missing required field: {name}"))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            Some(Value::String(text)) => matches!(text.as_str(), "1" | "true" | "True"),
            _ => false,
        }
    }

    pub(super) fn limit(&self, default: usize) -> Result<usize, Reply> {
        let number = match self.0.get("limit") {
            None => return Ok(default),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        match number {
            Some(number @ 1..=1000) => usize::try_from(number).map_err(|_| refuse("invalid_limit")),
            _ => Err(refuse("invalid_limit")),
        }
    }
}

/// A `ts`, or whole seconds, in microseconds.
pub(super) fn micros(ts: &str) -> Option<i64> {
    let (seconds, rest) = ts.split_once('.').unwrap_or((ts, "000000"));
    if rest.len() > 6 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rest = format!("{rest:0<6}").parse::<i64>().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(rest)
}

/// What a message is to hold, checked.
pub(super) struct Content {
    pub(super) text: String,
    pub(super) blocks: Option<Vec<Value>>,
    pub(super) attachments: Option<Vec<Value>>,
    pub(super) metadata: Option<Value>,
    pub(super) mentions: Vec<rules::Mention>,
}

impl Content {
    pub(super) fn read(args: &Args<'_>, update: bool) -> Result<Self, Complaint> {
        let string = |name: &'static str| match args.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(("invalid_arguments", vec![format!("[ERROR] must be a string: {name}")])),
        };
        let mut text = string("text")?.unwrap_or_default();
        let parse = string("parse")?.unwrap_or_else(|| if update { "client" } else { "none" }.to_owned());
        let bare = args.flag("link_names") || matches!(parse.as_str(), "client" | "full");
        if let Some(markdown) = string("markdown_text")? {
            if !text.is_empty() || args.0.contains_key("blocks") {
                return Err(("markdown_text_conflict", Vec::new()));
            }
            if markdown.chars().count() > 12_000 {
                return Err(("msg_too_long", Vec::new()));
            }
            text = markdown;
        }
        if update && text.chars().count() > MAX_UPDATE {
            return Err(("msg_too_long", Vec::new()));
        }
        let mut inspector = Inspector::default();
        inspector.text(&text, bare);
        if let Some(blocks) = args.0.get("blocks") {
            inspector.blocks(blocks)?;
        }
        if let Some(attachments) = args.0.get("attachments") {
            inspector.attachments(attachments)?;
        }
        let list = |name: &str| args.0.get(name).and_then(Value::as_array).cloned();
        let (blocks, attachments) = (list("blocks"), list("attachments"));
        let metadata = args.0.get("metadata").cloned();
        if let Some(metadata) = &metadata
            && !(update && metadata.as_object().is_some_and(Map::is_empty))
        {
            rules::metadata(metadata)?;
        }
        let shown = |list: &Option<Vec<Value>>| list.clone().unwrap_or_default();
        if !rules::shows(&text, &shown(&blocks), &shown(&attachments)) {
            return Err(("no_text", Vec::new()));
        }
        if text.chars().count() > MAX_POST {
            text = text.chars().take(MAX_POST).collect();
        }
        Ok(Self { text, blocks, attachments, metadata, mentions: inspector.mentions })
    }
}

/// The part of a channel's time a call asks for.
pub(super) struct Window {
    pub(super) oldest: i64,
    pub(super) latest: i64,
    pub(super) inclusive: bool,
    pub(super) limit: usize,
}

impl Window {
    pub(super) fn read(args: &Args<'_>, limit: usize) -> Result<Self, Reply> {
        let bound = |name: &str, missing: i64| match args.text(name)? {
            None | Some("") => Ok(missing),
            Some(ts) => micros(ts).ok_or_else(|| refuse(&format!("invalid_ts_{name}"))),
        };
        let (oldest, latest) = (bound("oldest", i64::MIN)?, bound("latest", i64::MAX)?);
        Ok(Self { oldest, latest, inclusive: args.flag("inclusive"), limit: args.limit(limit)? })
    }

    pub(super) fn holds(&self, ts: &str) -> bool {
        let at = micros(ts).unwrap_or_default();
        let on_the_edge = self.inclusive && (at == self.oldest || at == self.latest);
        on_the_edge || (at > self.oldest && at < self.latest)
    }
}
