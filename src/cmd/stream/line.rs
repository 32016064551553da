//! One line of `stream`'s input: a JSON object with the long names of `emit`'s options.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::checkpoint::Draft;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse::{self, Artifact, Invalid};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;

/// Why a line cannot be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

/// A line that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) draft: Draft,
    /// Names that mean nothing to us.
    pub(super) unknown: Vec<String>,
}

/// Reads a line; what it does not say comes from `defaults`.
///
/// # Errors
/// What is wrong with it, with the value quoted.
pub(super) fn read(bytes: &[u8], defaults: &Draft, masker: &Masker, now: Moment) -> Result<Read, Wrong> {
    let text = String::from_utf8_lossy(bytes);
    let fields: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        let hint = r#"write one object on each line, such as {"status":"working","progress":50}"#;
        let what = if error.is_data() { "it is not an object".to_owned() } else { json_words(&error) };
        Wrong { message: what, hint: hint.to_owned() }
    })?;
    let mut draft = Draft { id: CheckpointId::new(now), ..defaults.clone() };
    let mut unknown = Vec::new();
    for (name, value) in fields {
        if value.is_null() {
            continue;
        }
        let is_known = set(&mut draft, &name, &value, masker).map_err(|(invalid, quoted)| Wrong {
            message: format!("{name}: '{}' {}", masker.mask(&clip(&quoted)), invalid.reason),
            hint: invalid.hint,
        })?;
        if !is_known {
            unknown.push(name);
        }
    }
    // What is not valid UTF-8 may stand in free text, but not in a name by which an agent is known.
    if draft.agent_id.contains('\u{fffd}') {
        let message = "agent_id: it is not valid UTF-8".to_owned();
        return Err(Wrong { message, hint: "write ids and names in UTF-8".to_owned() });
    }
    Ok(Read { draft, unknown })
}

/// Where in the line the JSON ends to be JSON; the line's own number is the caller's to say.
fn json_words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    format!("it is not JSON: {words} at column {}", error.column())
}

type Refused = (Invalid, String);

/// Takes one field over; false for a name that means nothing.
fn set(draft: &mut Draft, name: &str, value: &Value, masker: &Masker) -> Result<bool, Refused> {
    let masked = |text: String| masker.mask(&text);
    match name {
        "agent_id" => draft.agent_id = masked(scalar(value, parse::agent_id)?),
        "status" => draft.status = scalar(value, Status::parse)?,
        "progress" => draft.progress = Some(scalar(value, parse::progress)?),
        "action" => draft.action = free(value, masker)?,
        "error" => draft.error = free(value, masker)?,
        "tokens" => draft.tokens = Some(scalar(value, parse::count)?),
        "context_limit" => draft.context_limit = Some(scalar(value, parse::context_limit)?),
        "task_name" => draft.name = Some(masked(scalar(value, parse::line)?)).filter(|text| !text.is_empty()),
        "task_type" => {
            draft.task_type = Some(masked(scalar(value, parse::line)?)).filter(|text| !text.is_empty());
        }
        "repo" => draft.repo = Some(masked(scalar(value, parse::line)?)).filter(|text| !text.is_empty()),
        "channel" => draft.channel = Some(scalar(value, parse::channel)?),
        "thread" => draft.thread = Some(scalar(value, parse::thread)?),
        "force" => draft.force = switch(value)?,
        "new" => draft.new = switch(value)?,
        "artifacts" => draft.artifacts = artifacts(value, masker)?,
        "meta" => {
            let Value::Object(fields) = value else { return Err(refused(value, "is not an object", META)) };
            for (key, value) in fields {
                let text = scalar(value, parse::free_text)?;
                draft.meta.insert(masked(key.clone()), masked(text));
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
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => format!("{whole:.0}"),
            _ => number.to_string(),
        },
        Value::Bool(switch) => switch.to_string(),
        other => return Err(refused(other, "is not a text or number", "write one value")),
    };
    read(&text).map_err(|invalid| (invalid, text))
}

fn switch(value: &Value) -> Result<bool, Refused> {
    value.as_bool().ok_or_else(|| refused(value, "is neither true nor false", "use true or false"))
}

fn free(value: &Value, masker: &Masker) -> Result<Option<String>, Refused> {
    let text = scalar(value, |text| parse::free_text(text.trim()))?;
    Ok((!text.is_empty()).then(|| masker.mask(&text)))
}

/// Each as `--artifact` takes it, or with its parts apart.
fn artifacts(value: &Value, masker: &Masker) -> Result<Vec<Artifact>, Refused> {
    let Value::Array(values) = value else { return Err(refused(value, "is not an array", ARTIFACTS)) };
    values
        .iter()
        .map(|value| {
            let text = match value {
                Value::Object(parts) => {
                    match (parts.get("name"), parts.get("target").and_then(Value::as_str)) {
                        (Some(Value::String(name)), Some(target)) => format!("{name}={target}"),
                        (None | Some(Value::Null), Some(target)) => target.to_owned(),
                        _ => return Err(refused(value, "names no artifact", ARTIFACTS)),
                    }
                }
                other => scalar(other, parse::free_text)?,
            };
            let Artifact { name, target } = parse::artifact(&text).map_err(|invalid| (invalid, text))?;
            Ok(Artifact { name: name.map(|name| masker.mask(&name)), target: masker.mask(&target) })
        })
        .collect()
}

/// Enough of a wrong value to recognise it by.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
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
        let Read { draft, unknown } = read_text(&line.replace('\n', " ")).expect("a good line");
        assert_eq!((draft.agent_id.as_str(), draft.status, draft.progress), ("a", Status::Working, Some(50)));
        assert_eq!((draft.action.as_deref(), draft.tokens), (Some("Running"), Some(1000)));
        assert_eq!((draft.context_limit, draft.error.as_deref()), (Some(200_000), Some("e")));
        assert_eq!(draft.artifacts.len(), 2);
        assert_eq!(draft.artifacts[1].name.as_deref(), Some("log"));
        assert_eq!(draft.meta.get("try").map(String::as_str), Some("2"));
        assert_eq!((draft.name.as_deref(), draft.task_type.as_deref()), (Some("T"), Some("test")));
        assert_eq!((draft.repo.as_deref(), draft.channel.as_deref()), (Some("r"), Some("#dev")));
        assert!(draft.force && !draft.new && draft.thread.is_none());
        assert_eq!(unknown, ["later"]);
    }

    #[test]
    fn what_is_wrong_is_quoted() {
        for (line, message) in [
            ("[]", "it is not an object"),
            ("", "it is not JSON: EOF while parsing a value at column 0"),
            (r#"{"progress":150}"#, "progress: '150' is not between 0 and 100"),
            (r#"{"status":"workign"}"#, "status: 'workign' is not a status"),
            (r#"{"agent_id":""}"#, "agent_id: '' is empty"),
            (r#"{"agent_id":"a\u0000b"}"#, "agent_id: 'a\0b' holds a NUL byte"),
            (r#"{"tokens":-1}"#, "tokens: '-1' is negative"),
            (r#"{"tokens":[1]}"#, "tokens: '[1]' is not a text or number"),
            (r#"{"force":"yes"}"#, "force: '\"yes\"' is neither true nor false"),
            (r#"{"artifacts":"x"}"#, "artifacts: '\"x\"' is not an array"),
            (r#"{"meta":[]}"#, "meta: '[]' is not an object"),
        ] {
            assert_eq!(read_text(line).expect_err(line).message, message, "{line}");
        }
    }
}
