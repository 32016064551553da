//! From text to values: one reader for each kind of value, shared by flags, environment and config file.

mod artifact;
mod place;

#[cfg(feature = "serve")]
use std::net::Ipv6Addr;
use std::time::Duration;
use std::{error, fmt};

pub(crate) use artifact::{Artifact, artifact, is_web_url, public_url, url};
pub(crate) use place::{Thread, channel, is_conversation_id, thread};

/// Why a text is not a value of its kind, and what to write instead.
///
/// The text itself is not in here: whoever shows the error quotes it, unless it is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Continues a sentence that begins with the quoted value: `is not a status`.
    pub(crate) reason: String,
    /// One action that mends it.
    pub(crate) hint: String,
}

impl Invalid {
    pub(crate) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl error::Error for Invalid {}

/// Longest agent id, in characters; audit databases keep it in a `VARCHAR(255)`.
const AGENT_ID_MAX: usize = 255;
/// Ten years.
const DAYS_MAX: u16 = 3660;

/// A percentage of work done.
pub(crate) fn progress(text: &str) -> Result<u8, Invalid> {
    let hint = "give a whole number from 0 to 100";
    let text = text.trim();
    match text.strip_suffix('%').unwrap_or(text).parse::<i128>() {
        Ok(value) => match u8::try_from(value) {
            Ok(value) if value <= 100 => Ok(value),
            _ => Err(Invalid::new("is not between 0 and 100", hint)),
        },
        Err(_) => Err(Invalid::new("is not a whole number", hint)),
    }
}

/// A percentage of the context limit at which a warning is given.
pub(crate) fn threshold(text: &str) -> Result<u8, Invalid> {
    progress(text)
}

/// A number of tokens.
pub(crate) fn count(text: &str) -> Result<u64, Invalid> {
    let plain = text.trim().replace(['_', ','], "");
    if plain.starts_with('-') {
        return Err(Invalid::new("is negative", "give a count of 0 or more"));
    }
    // The cache and the audit database keep counts as signed 64-bit integers.
    match plain.parse::<i64>() {
        Ok(value) => Ok(value.unsigned_abs()),
        Err(_) if !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit()) => {
            Err(Invalid::new("is too large for a count", format!("give at most {}", i64::MAX)))
        }
        Err(_) => Err(Invalid::new("is not a whole number", "give a count such as 150000")),
    }
}

/// A number of days to look back on.
pub(crate) fn days(text: &str) -> Result<u16, Invalid> {
    match u16::try_from(count(text)?) {
        Ok(days) if (1..=DAYS_MAX).contains(&days) => Ok(days),
        _ => Err(Invalid::new("is not a number of days", format!("give 1 to {DAYS_MAX} days, such as 7"))),
    }
}

/// Where to listen, as `HOST:PORT`; the host may be a name.
#[cfg(feature = "serve")]
pub(crate) fn listen(text: &str) -> Result<String, Invalid> {
    let is_right = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        is_host && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    if is_right {
        return Ok(text.to_owned());
    }
    Err(Invalid::new("is not an address with a port", "give one such as 127.0.0.1:3001 or [::1]:3001"))
}

/// The size of an agent's context window in tokens.
pub(crate) fn context_limit(text: &str) -> Result<u64, Invalid> {
    match count(text)? {
        0 => {
            Err(Invalid::new("is not a context limit", "give the size of the context window, such as 200000"))
        }
        limit => Ok(limit),
    }
}

/// A length of time: `30s`, `1m30s`, `500ms`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, Invalid> {
    let text = text.trim();
    let hint = "give a length of time such as 30s, 5m or 1h30m";
    if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')) {
        return Err(Invalid::new("is negative", hint));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_| Invalid::new("is not a length of time", hint));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|parsed| Duration::try_from(parsed).ok())
        .ok_or_else(|| Invalid::new("is not a length of time", hint))
}

/// The name by which an agent is known between calls.
pub(crate) fn agent_id(text: &str) -> Result<String, Invalid> {
    let text = line(text)?;
    if text.is_empty() {
        return Err(Invalid::new("is empty", "give the agent a name, such as deploy-bot"));
    }
    if let Some(c) = text.chars().find(|c| is_unseen(*c)) {
        let reason = format!("holds an invisible character (U+{:04X})", u32::from(c));
        return Err(Invalid::new(reason, "two agents must not look alike: leave it out"));
    }
    let length = text.chars().count();
    if length > AGENT_ID_MAX {
        return Err(Invalid::new(
            format!("has {length} characters"),
            format!("use at most {AGENT_ID_MAX} characters"),
        ));
    }
    Ok(text)
}

/// An agent's id made of names that nobody chose as such: one line of characters that can be seen.
pub(crate) fn agent_id_of(names: &str) -> String {
    let seen = |c: char| if c.is_control() || is_unseen(c) { '_' } else { c };
    names.chars().map(seen).take(AGENT_ID_MAX).collect()
}

/// How much of a person's name is kept.
const PERSON_MAX: usize = 100;

/// A person's name that somebody else wrote, be it Slack or whoever can write rows of a database: one line of characters
/// that can be seen, and not too many; `None` where nothing is left.
pub(crate) fn person(name: &str) -> Option<String> {
    let seen = name.chars().filter(|c| !is_unseen(*c)).map(|c| if c.is_control() { ' ' } else { c });
    let name: String = seen.skip_while(|c| c.is_whitespace()).take(PERSON_MAX).collect();
    let name = name.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether a character takes no room, or changes the reading direction: Unicode's format characters and fillers, but
/// not what only gives an emoji its colours.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// One line of text without control characters, such as a task's name; surrounding space is dropped.
pub(crate) fn line(text: &str) -> Result<String, Invalid> {
    let text = free_text(text)?;
    let text = text.trim();
    match text.chars().find(|c| c.is_control()) {
        Some(_) => Err(Invalid::new("holds a control character", "write it on one line of plain text")),
        None => Ok(text.to_owned()),
    }
}

/// What a task or repository is called: one line, made of several where need be, such as a commit's whole message.
pub(crate) fn name(text: &str) -> Result<String, Invalid> {
    line(&text.replace(['\n', '\r', '\t'], " "))
}

/// Any text but one with NUL bytes, which neither a database nor a C program can carry.
pub(crate) fn free_text(text: &str) -> Result<String, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new("holds a NUL byte", "remove it, for example with tr -d '\\000'"));
    }
    Ok(text.to_owned())
}

/// `KEY=VALUE`.
pub(crate) fn meta(text: &str) -> Result<(String, String), Invalid> {
    let text = free_text(text)?;
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(Invalid::new("is not KEY=VALUE", "write for example --meta commit=1a2b3c4")),
    }
}

/// A switch in the environment or the config file.
pub(crate) fn switch(text: &str) -> Result<bool, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Invalid::new("is neither true nor false", "use true or false")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::status::Status;

    #[test]
    fn progress_is_0_to_100() {
        for (text, value) in [("0", 0), ("50", 50), (" 7 ", 7), ("100", 100), ("80%", 80)] {
            assert_eq!(progress(text), Ok(value));
        }
        for text in ["150", "-1", "101", "", "fifty", "1e2", "99999999999999999999999999"] {
            assert!(progress(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_whole_and_fit_the_database() {
        assert_eq!(count("150000"), Ok(150_000));
        assert_eq!(count("1_000"), Ok(1000));
        assert_eq!((days("1"), days("3660")), (Ok(1), Ok(3660)));
        assert!(["0", "-1", "3661", "99999999", "week"].into_iter().all(|text| days(text).is_err()));
        assert_eq!(count("9223372036854775807"), Ok(i64::MAX as u64));
        for text in ["-1", "9223372036854775808", "1.5", "", "many"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(context_limit("0").is_err());
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, ms) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2", 2000),
            ("0", 0),
            ("0.5", 500),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["-1s", "soon", "", "30 parsecs", "NaN", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agent_ids_have_1_to_255_characters_on_one_line() {
        assert_eq!(agent_id(&"é".repeat(255)).map(|id| id.chars().count()), Ok(255));
        for text in [String::new(), " ".into(), "a".repeat(256), "a\0b".into(), "a\nb".into()] {
            assert!(agent_id(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_made_one_line() {
        assert_eq!(name(" Fix it\n\nfor good\t").as_deref(), Ok("Fix it  for good"));
        assert!(name("a\u{7}b").is_err());
    }

    #[test]
    fn meta_needs_a_key() {
        assert_eq!(meta("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(meta("=b").is_err());
        assert!(meta("a").is_err());
    }

    #[test]
    fn a_persons_name_is_one_short_line_of_what_can_be_seen() {
        for (text, name) in [
            ("Ana Lucía", Some("Ana Lucía")),
            ("\n\u{1b}[31mana\r\n\u{202e}b\u{7} ", Some("[31mana  b")),
            ("\u{200b}\0\n ", None),
            ("", None),
        ] {
            assert_eq!(person(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(person(&"é".repeat(1_000_000)).map(|name| name.chars().count()), Some(PERSON_MAX));
    }

    #[test]
    fn switches_know_how_people_write_yes_and_no() {
        for (text, on) in
            [("1", true), ("TRUE", true), (" yes ", true), ("on", true), ("", false), ("0", false)]
        {
            assert_eq!(switch(text), Ok(on), "{text:?}");
        }
        for text in ["2", "maybe", "truefalse"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    /// Anything at all, and things that are nearly right.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,40}",
            "[-+]?[0-9_,.%eE]{0,25}",
            "[0-9]{1,20} ?(ms|s|m|h|d|y)",
            "#?[A-Za-z0-9._-]{0,90}",
            "[CGD][A-Z0-9]{0,12}:[0-9]{0,22}\\.[0-9]{0,22}",
            "[a-z]{0,5}://[^ ]{0,30}",
            "[ -~]{0,10}=[ -~]{0,20}",
            ".{250,260}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_text_is_too_odd_and_what_is_read_is_within_its_limits(text in texts()) {
            prop_assert!(progress(&text).is_ok_and(|value| value <= 100) || progress(&text).is_err());
            if let Ok(value) = count(&text) {
                prop_assert!(i64::try_from(value).is_ok());
            }
            prop_assert!(context_limit(&text) != Ok(0));
            let _ = (duration(&text), switch(&text), url(&text), is_web_url(&text), Status::parse(&text));
            if let Ok(id) = agent_id(&text) {
                prop_assert!((1..=255).contains(&id.chars().count()));
                prop_assert!(id == id.trim() && !id.contains(|c: char| c.is_control()), "{id:?}");
                prop_assert_eq!(agent_id(&id), Ok(id.clone()), "reading it again changes nothing");
            }
            if let Ok(read) = channel(&text) {
                prop_assert!(read.starts_with('#') || is_conversation_id(&read), "{read:?}");
                prop_assert!(!read.contains(|c: char| c.is_whitespace() || c.is_control() || "<>@,".contains(c)));
                prop_assert_eq!(channel(&read), Ok(read.clone()));
            }
            if let Ok(read) = thread(&text) {
                prop_assert_eq!(format!("{}:{}", read.channel, read.ts), text.trim());
            }
            if let Ok(read) = artifact(&text) {
                prop_assert!(!read.target.is_empty());
                prop_assert!(!read.target.contains("://") || url(&read.target).is_ok());
            }
            if let Ok((key, value)) = meta(&text) {
                prop_assert!(!key.is_empty() && !key.contains('=') && text.ends_with(&value));
            }
            for read in [line(&text), free_text(&text)].into_iter().flatten() {
                prop_assert!(!read.contains('\0') && text.contains(&read));
            }
        }
    }
}
