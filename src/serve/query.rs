//! From a request's address and wishes to what it asks for.

use super::{Ask, Form};
use crate::checkpoint::parse::{self, Invalid};
use crate::checkpoint::status::TaskState;
use crate::exit::one_line;

/// How many tasks are listed unless more are asked for, and how many at most.
const LIMIT: u64 = 50;
const LIMIT_MAX: u64 = 1000;
/// How many days are told of unless others are asked for.
const DAYS: u16 = 7;

/// A wrong value: a sentence that names it, and a hint.
type Wrong = (String, String);

/// What `/tasks` is asked for. `state`, the name of the flag of `tasks`, means the same as `status`.
pub(super) fn tasks(query: &str) -> Result<Ask, Wrong> {
    let [status, state, limit] = values(query, ["status", "state", "limit"])?;
    if status.is_some() && state.is_some() {
        return Err(("status and state mean the same".to_owned(), "give one of them".to_owned()));
    }
    Ok(Ask::Tasks {
        state: read("status", status.or(state), TaskState::parse)?,
        limit: read("limit", limit, self::limit)?.unwrap_or(LIMIT),
    })
}

/// What `/metrics` is asked for.
pub(super) fn metrics(query: &str, form: Form) -> Result<Ask, Wrong> {
    let [days] = values(query, ["days"])?;
    Ok(Ask::Metrics { days: read("days", days, parse::days)?.unwrap_or(DAYS), form })
}

/// The agent or task that a path names; it may hold slashes.
pub(super) fn agent(path: &str) -> Result<String, Wrong> {
    let about = |invalid: Invalid| (format!("'{}' {}", one_line(path), invalid.reason), invalid.hint);
    decoded(path).and_then(|text| parse::free_text(&text)).map_err(about)
}

fn limit(text: &str) -> Result<u64, Invalid> {
    match parse::count(text)? {
        limit if limit <= LIMIT_MAX => Ok(limit),
        _ => Err(Invalid::new("is too many", format!("ask for at most {LIMIT_MAX}"))),
    }
}

fn read<T>(
    name: &str,
    value: Option<String>,
    read: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Wrong> {
    let about = |text: &str, invalid: Invalid| {
        (format!("{name}: '{}' {}", one_line(text), invalid.reason), invalid.hint)
    };
    value.map(|text| read(&text).map_err(|invalid| about(&text, invalid))).transpose()
}

/// The values of these names; no other name, and none twice.
fn values<const N: usize>(query: &str, names: [&str; N]) -> Result<[Option<String>; N], Wrong> {
    let mut values = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |part: &str| {
            decoded(&part.replace('+', " "))
                .map_err(|invalid| (format!("'{}' {}", one_line(pair), invalid.reason), invalid.hint))
        };
        let (name, value) = (text(name)?, text(value)?);
        let Some(index) = names.iter().position(|known| *known == name) else {
            return Err((
                format!("unknown parameter '{}'", one_line(&name)),
                format!("use {}", names.join(", ")),
            ));
        };
        if values[index].replace(value).is_some() {
            return Err((format!("{name} was given more than once"), "give it once".to_owned()));
        }
    }
    Ok(values)
}

/// Text without its percent-encoding.
fn decoded(text: &str) -> Result<String, Invalid> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        if *byte != b'%' {
            out.push(*byte);
            index += 1;
            continue;
        }
        let code = digit(bytes.get(index + 1)).zip(digit(bytes.get(index + 2)));
        let code = code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        out.push(code.ok_or_else(|| Invalid::new("is not percent-encoded", "write a % itself as %25"))?);
        index += 3;
    }
    String::from_utf8(out).map_err(|_| Invalid::new("is not valid UTF-8", "encode the bytes of UTF-8"))
}

/// The form that somebody prefers who accepts these; JSON where it makes no difference, or none is wanted.
pub(super) fn form<'a>(accept: impl Iterator<Item = &'a str>) -> Form {
    let ranges: Vec<(&str, &str, f32)> =
        accept.flat_map(|value| value.split(',')).filter_map(range).collect();
    let quality = |kind: &str, sub: &str| {
        let fits = |(wanted, wanted_sub, _): &&(&str, &str, f32)| {
            let fits = |wanted: &str, is: &str| wanted == "*" || wanted.eq_ignore_ascii_case(is);
            fits(wanted, kind) && fits(wanted_sub, sub)
        };
        // The most precise counts, and of equals the best: a kind may stand there once for each version.
        let precise = |(kind, sub, _): &(&str, &str, f32)| u8::from(*kind != "*") + u8::from(*sub != "*");
        let best =
            ranges.iter().filter(fits).max_by(|a, b| precise(a).cmp(&precise(b)).then(a.2.total_cmp(&b.2)));
        best.map_or(0.0, |(_, _, quality)| *quality)
    };
    let mut best = (Form::Json, quality("application", "json"));
    for (form, kind, sub) in
        [(Form::OpenMetrics, "application", "openmetrics-text"), (Form::Text, "text", "plain")]
    {
        let quality = quality(kind, sub);
        if quality > best.1 {
            best = (form, quality);
        }
    }
    best.0
}

/// `text/plain;version=0.0.4;q=0.3` as its kind and how much it is wanted.
fn range(text: &str) -> Option<(&str, &str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, sub) = parts.next()?.split_once('/')?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((kind, sub, quality.map_or(Some(1.0), |quality| quality.parse().ok())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_what_is_wrong_with_it_is_named() {
        let list = |state, limit| Ok(Ask::Tasks { state, limit });
        assert_eq!(tasks(""), list(None, 50));
        assert_eq!(tasks("status=running&limit=5"), list(Some(TaskState::Running), 5));
        assert_eq!(tasks("state=fail%65d&"), list(Some(TaskState::Failed), 50));
        assert_eq!(tasks("limit=1000"), list(None, 1000));
        for (query, error, hint) in [
            (
                "status=working",
                "status: 'working' is not a task state",
                "use one of running, failed, completed, cancelled, pending, approved",
            ),
            (
                "status=",
                "status: '' is not a task state",
                "use one of running, failed, completed, cancelled, pending, approved",
            ),
            ("limit=1001", "limit: '1001' is too many", "ask for at most 1000"),
            ("limit=-1", "limit: '-1' is negative", "give a count of 0 or more"),
            ("limit=1&limit=2", "limit was given more than once", "give it once"),
            ("status=running&state=failed", "status and state mean the same", "give one of them"),
            ("agent=%0A", "unknown parameter 'agent'", "use status, state, limit"),
            ("limit=%", "'limit=%' is not percent-encoded", "write a % itself as %25"),
            ("limit=%ff", "'limit=%ff' is not valid UTF-8", "encode the bytes of UTF-8"),
        ] {
            assert_eq!(tasks(query), Err((error.to_owned(), hint.to_owned())), "{query}");
        }
        assert_eq!(metrics("days=30", Form::Text), Ok(Ask::Metrics { days: 30, form: Form::Text }));
        assert!(metrics("days=0", Form::Json).is_err());
    }

    #[test]
    fn an_agent_may_have_any_name() {
        for (path, agent) in [
            ("deploy-bot", "deploy-bot"),
            ("ana@laptop:rocket", "ana@laptop:rocket"),
            ("github/acme/rocket/42.1/test", "github/acme/rocket/42.1/test"),
            ("github%2Facme%2frocket", "github/acme/rocket"),
            ("a+b%20c%25", "a+b c%"),
            ("%F0%9F%9A%80", "🚀"),
            ("../../etc/passwd", "../../etc/passwd"),
            ("a//", "a//"),
        ] {
            assert_eq!(super::agent(path), Ok(agent.to_owned()), "{path}");
        }
        for path in ["%", "%4", "%zz", "%ff", "%ED%A0%80", "a%00b"] {
            assert!(super::agent(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_scraper_gets_text_and_everyone_else_json() {
        for (accept, expected) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Json),
            ("text/plain", Form::Text),
            ("text/plain; version=0.0.4", Form::Text),
            ("TEXT/PLAIN;q=0.5, */*;q=0.1", Form::Text),
            ("text/plain;q=0.5, application/json", Form::Json),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Form::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Form::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Form::Text),
            ("text/plain;q=none", Form::Json),
            ("image/png", Form::Json),
        ] {
            assert_eq!(form([accept].into_iter()), expected, "{accept}");
        }
    }
}
