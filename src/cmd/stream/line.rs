//! One line of `stream`'s input: a JSON object with the long names of `emit`'s options.

use std::borrow::Cow;
use std::fmt::Display;

use serde_json::{Map, Value};

use crate::checkpoint::Draft;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse::{self, Artifact, Invalid};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::cmd::masking::{said, said_pair};

/// How much of a wrong value is quoted, in characters.
const QUOTED_MAX: usize = 80;

/// Options that are given to the whole stream.
const OF_THE_STREAM: [&str; 7] =
    ["background", "context_alert", "context_warn", "deadline", "min_interval", "no_post", "strict"];

/// Why a line cannot be recorded.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

/// A line that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) draft: Draft,
    /// Whether the line itself says if it opens a new task.
    pub(super) says_new: bool,
    /// Names that mean nothing to us.
    pub(super) unknown: Vec<String>,
}

/// Reads a line; what it does not say comes from `defaults`.
///
/// # Errors
/// What is wrong with it, with the value quoted.
pub(super) fn read(bytes: &[u8], defaults: &Draft, masker: &Masker, now: Moment) -> Result<Read, Wrong> {
    let text = String::from_utf8_lossy(bytes.trim_ascii());
    let fields: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        let hint = r#"write one object on each line, such as {"status":"working","progress":50}"#.to_owned();
        let what = if error.is_data() { "is not an object".to_owned() } else { not_json(&error) };
        Wrong { message: format!("'{}' {what}", quoted(&text, masker)), hint }
    })?;
    let mut draft = Draft { id: CheckpointId::new(now), ..defaults.clone() };
    let says = |name| fields.get(name).is_some_and(|value| !value.is_null());
    let says_new = says("new");
    if says("channel") {
        // A place of its own, not that of the options.
        draft.thread = None;
    }
    let is_lossy = matches!(text, Cow::Owned(_));
    let mut unknown = Vec::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let is_free = matches!(name.as_str(), "action" | "error");
        let is_known = if is_lossy && !is_free && value.to_string().contains(char::REPLACEMENT_CHARACTER) {
            Err(refused(value, "is not valid UTF-8", "write all but action and error in UTF-8"))
        } else {
            set(&mut draft, name, value, masker)
        };
        let is_known = is_known.map_err(|(invalid, text)| Wrong {
            message: format!("{name}: '{}' {}", quoted(&text, masker), invalid.reason),
            hint: invalid.hint,
        })?;
        if !is_known {
            unknown.push(name.clone());
        }
    }
    Ok(Read { draft, says_new, unknown })
}

/// How a name that means nothing here may have been meant.
pub(super) fn advice(unknown: &str) -> &'static str {
    if OF_THE_STREAM.contains(&unknown) {
        "give it to stream as an option"
    } else {
        "fields have the names of emit's flags, in snake case"
    }
}

/// Where in the line it ceases to be JSON; the line's own number is the caller's to say.
fn not_json(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    format!("is not JSON: {words} at column {}", error.column())
}

type Refused = (Invalid, String);

/// Takes one field over; false for a name that means nothing.
fn set(draft: &mut Draft, name: &str, value: &Value, masker: &Masker) -> Result<bool, Refused> {
    match name {
        "agent_id" => draft.agent_id = said(masker, &scalar(value, parse::agent_id)?),
        "status" => draft.status = scalar(value, Status::parse)?,
        "progress" => draft.progress = Some(scalar(value, parse::progress)?),
        "action" => draft.action = text(value, |text| parse::free_text(text.trim()), masker)?,
        "error" => draft.error = text(value, |text| parse::free_text(text.trim()), masker)?,
        "tokens" => draft.tokens = Some(scalar(value, parse::count)?),
        "context_limit" => draft.context_limit = Some(scalar(value, parse::context_limit)?),
        "task_name" => draft.name = text(value, parse::line, masker)?,
        "task_type" => draft.task_type = text(value, parse::line, masker)?,
        "repo" => draft.repo = text(value, parse::line, masker)?,
        "channel" => draft.channel = Some(scalar(value, parse::channel)?),
        "thread" => draft.thread = Some(scalar(value, parse::thread)?),
        "force" => draft.force = switch(value)?,
        "new" => draft.new = switch(value)?,
        "artifacts" => draft.artifacts = artifacts(value, masker)?,
        "meta" => {
            let Value::Object(fields) = value else { return Err(refused(value, "is not an object", META)) };
            for (key, value) in fields {
                let key = nameable(key)?;
                let pair = |text: &str| parse::meta(&format!("{key}={text}"));
                let (key, value) =
                    scalar(value, pair).map_err(|(invalid, text)| (invalid, format!("{key}={text}")))?;
                let (key, value) = said_pair(masker, &key, &value);
                draft.meta.insert(key, value);
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

const META: &str = r#"write for example "meta":{"commit":"1a2b3c4"}"#;
const ARTIFACTS: &str = r#"write for example "artifacts":["PR=https://example.com/pull/1"]"#;

fn refused(value: &Value, reason: impl Display, hint: &str) -> Refused {
    (Invalid::new(reason.to_string(), hint), value.to_string())
}

/// A text, or a number or switch as the text that a flag would have.
fn scalar<T>(value: &Value, read: impl Fn(&str) -> Result<T, Invalid>) -> Result<T, Refused> {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if number.is_f64() && whole.fract() == 0.0 && whole.abs() < 1e30 => {
                Cow::Owned(format!("{whole:.0}"))
            }
            _ => Cow::Owned(number.to_string()),
        },
        Value::Bool(switch) => Cow::Owned(switch.to_string()),
        other => return Err(refused(other, "is not a text or number", "write one value")),
    };
    read(&text).map_err(|invalid| (invalid, text.into_owned()))
}

fn switch(value: &Value) -> Result<bool, Refused> {
    value.as_bool().ok_or_else(|| refused(value, "is neither true nor false", "use true or false"))
}

/// A text that says nothing when it is empty.
fn text(
    value: &Value,
    read: impl Fn(&str) -> Result<String, Invalid>,
    masker: &Masker,
) -> Result<Option<String>, Refused> {
    let text = scalar(value, read)?;
    Ok((!text.is_empty()).then(|| said(masker, &text)))
}

/// Each as `--artifact` takes it, or with its parts apart.
fn artifacts(value: &Value, masker: &Masker) -> Result<Vec<Artifact>, Refused> {
    let Value::Array(values) = value else { return Err(refused(value, "is not an array", ARTIFACTS)) };
    values.iter().map(|value| artifact(value, masker)).collect()
}

fn artifact(value: &Value, masker: &Masker) -> Result<Artifact, Refused> {
    let Artifact { name, target } = match value {
        Value::Object(parts) => {
            let part = |name| match parts.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(part) => {
                    scalar(part, parse::line).map(|text| Some(text).filter(|text| !text.is_empty()))
                }
            };
            let target = part("target")?.ok_or_else(|| refused(value, "names no artifact", ARTIFACTS))?;
            if target.contains("://") {
                parse::url(&target).map_err(|invalid| (invalid, target.clone()))?;
            }
            Artifact { name: part("name")?, target }
        }
        other => scalar(other, parse::artifact)?,
    };
    Ok(match name {
        Some(name) => {
            let (name, target) = said_pair(masker, nameable(&name)?, &target);
            Artifact { name: Some(name), target }
        }
        None => Artifact { name: None, target: said(masker, &target) },
    })
}

/// What can stand in front of an equals sign, as flags have it.
fn nameable(name: &str) -> Result<&str, Refused> {
    let invalid = || Invalid::new("is not a name", "write it without an equals sign");
    if name.contains('=') { Err((invalid(), name.to_owned())) } else { Ok(name) }
}

/// Enough of a wrong text to recognise it by. Masked as a whole: half of a credential does not look like one.
fn quoted(text: &str, masker: &Masker) -> String {
    let text = said(masker, text);
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Read, Wrong> {
        let defaults = Draft::bare(CheckpointId::new(Moment(0)), "someone".to_owned(), Status::Checkpoint);
        read(text.as_bytes(), &defaults, &Masker::default(), Moment(0))
    }

    #[test]
    fn every_field_has_its_place() {
        let line = r##"{"agent_id":"a","status":"working","progress":50.0,"action":" Running ","tokens":1000,
            "context_limit":"200000","error":"e","artifacts":["PR=https://example.com/1",{"name":"log","target":"out.txt"}],
            "meta":{"commit":"1a2b","try":2},"task_name":"T","task_type":"test","repo":"r","channel":"#dev","force":true,
            "new":false,"thread":null,"later":1}"##;
        let Read { draft, unknown, says_new } = read_text(&line.replace('\n', " ")).expect("a good line");
        assert_eq!((draft.agent_id.as_str(), draft.status, draft.progress), ("a", Status::Working, Some(50)));
        assert_eq!((draft.action.as_deref(), draft.tokens), (Some("Running"), Some(1000)));
        assert_eq!((draft.context_limit, draft.error.as_deref()), (Some(200_000), Some("e")));
        assert_eq!(draft.artifacts.len(), 2);
        assert_eq!(draft.artifacts[1].name.as_deref(), Some("log"));
        assert_eq!(draft.meta.get("try").map(String::as_str), Some("2"));
        assert_eq!((draft.name.as_deref(), draft.task_type.as_deref()), (Some("T"), Some("test")));
        assert_eq!((draft.repo.as_deref(), draft.channel.as_deref()), (Some("r"), Some("#dev")));
        assert!(draft.force && !draft.new && draft.thread.is_none());
        assert!(says_new);
        assert_eq!(unknown, ["later"]);
    }

    #[test]
    fn what_is_wrong_is_quoted() {
        for (line, message) in [
            ("[]", "'[]' is not an object"),
            ("", "'' is not JSON: EOF while parsing a value at column 0"),
            (r#"{"status":"wor"#, "'{\"status\":\"wor' is not JSON: EOF while parsing a string at column 14"),
            (r#"{"progress":150}"#, "progress: '150' is not between 0 and 100"),
            (r#"{"status":"workign"}"#, "status: 'workign' is not a status"),
            (r#"{"agent_id":""}"#, "agent_id: '' is empty"),
            (r#"{"agent_id":"a\u0000b"}"#, "agent_id: 'a\0b' holds a NUL byte"),
            (r#"{"tokens":-1}"#, "tokens: '-1' is negative"),
            (r#"{"tokens":[1]}"#, "tokens: '[1]' is not a text or number"),
            (r#"{"force":"yes"}"#, "force: '\"yes\"' is neither true nor false"),
            (r#"{"artifacts":"x"}"#, "artifacts: '\"x\"' is not an array"),
            (r#"{"artifacts":[{"name":"x"}]}"#, "artifacts: '{\"name\":\"x\"}' names no artifact"),
            (r#"{"artifacts":["https://"]}"#, "artifacts: 'https://' is a URL without a host"),
            (r#"{"meta":[]}"#, "meta: '[]' is not an object"),
            (r#"{"meta":{"":"x"}}"#, "meta: '=x' is not KEY=VALUE"),
            (r#"{"progress":50.5}"#, "progress: '50.5' is not a whole number"),
            (r#"{"tokens":1e20}"#, "tokens: '100000000000000000000' is too large for a count"),
            (r#"{"meta":{"a=b":"x"}}"#, "meta: 'a=b' is not a name"),
        ] {
            assert_eq!(read_text(line).expect_err(line).message, message, "{line}");
        }
    }
}
