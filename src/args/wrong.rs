//! What is said of a wrong command line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::checkpoint::parse::Invalid;
use crate::exit::{Exit, Failure, one_line};

/// One clear line with the value quoted, and one hint.
pub(super) fn describe(error: &clap::Error) -> Failure {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        Some(ContextValue::StyledStrs(texts)) => texts.first().map(ToString::to_string),
        _ => None,
    };
    let shown = |kind| text(kind).map(|text| one_line(&text));
    let arg = shown(ContextKind::InvalidArg).unwrap_or_default();
    let flag = arg.split(' ').next().unwrap_or_default().to_owned();
    let value = shown(ContextKind::InvalidValue);
    let suggested = text(ContextKind::SuggestedArg)
        .or_else(|| text(ContextKind::SuggestedValue))
        .or_else(|| text(ContextKind::SuggestedSubcommand));
    let command = text(ContextKind::Usage).and_then(|usage| command_of(&usage));
    let takes_text = matches!(command.as_deref(), Some("emit" | "show" | "ask"));
    let help = match &command {
        Some(name) => format!("see agent-checkpoint {name} --help"),
        None => "see agent-checkpoint --help".to_owned(),
    };
    let (message, hint) = match error.kind() {
        ErrorKind::ValueValidation => {
            let invalid =
                std::error::Error::source(error).and_then(|source| source.downcast_ref::<Invalid>());
            let value = value.unwrap_or_default();
            match invalid {
                Some(Invalid { reason, hint }) => (format!("{flag}: '{value}' {reason}"), hint.clone()),
                None => (format!("{flag}: '{value}' is not a valid value"), help),
            }
        }
        ErrorKind::InvalidValue => {
            let valid = text(ContextKind::ValidValue).unwrap_or_default();
            match value.filter(|value| !value.is_empty()) {
                Some(value) => (
                    format!("{flag}: '{value}' is not a valid value"),
                    suggested.map_or_else(
                        || format!("use one of {valid}"),
                        |one| format!("did you mean '{one}'?"),
                    ),
                ),
                None => (format!("{flag} needs a value"), format!("write {arg}")),
            }
        }
        ErrorKind::UnknownArgument => (
            format!("unknown argument '{arg}'"),
            suggested.map_or_else(
                || match arg.strip_prefix('-').map(|name| name.trim_start_matches('-')) {
                    None if takes_text => "quote a text of several words".to_owned(),
                    None => help,
                    Some(name) if name.starts_with(|c: char| c.is_ascii_alphabetic()) => help,
                    Some(_) => "write -- in front of a text that begins with a dash".to_owned(),
                },
                |one| if one.starts_with('-') { format!("did you mean '{one}'?") } else { one },
            ),
        ),
        ErrorKind::InvalidSubcommand => (
            format!("unknown command '{}'", shown(ContextKind::InvalidSubcommand).unwrap_or_default()),
            // The likeliest comes last.
            suggested.map_or(help, |some| {
                format!("did you mean '{}'?", some.rsplit(", ").next().unwrap_or_default())
            }),
        ),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            if command.is_some() =>
        {
            ("no command was given".to_owned(), help)
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ("no command was given".to_owned(), "start with agent-checkpoint emit --help".to_owned())
        }
        ErrorKind::MissingRequiredArgument if command.as_deref() == Some("run") => (
            format!("{arg} is missing"),
            "write the command after --, such as agent-checkpoint run -- make test".to_owned(),
        ),
        // Nothing else there needs it.
        ErrorKind::MissingRequiredArgument if arg == "--fleet" => (
            "--deadline is for --fleet alone: this machine's cache is read without waiting for the network"
                .to_owned(),
            "leave it out, or add --fleet".to_owned(),
        ),
        ErrorKind::MissingRequiredArgument => (format!("{arg} is missing"), help),
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg) {
            Some(prior) if prior != arg => (format!("{arg} cannot be used with {prior}"), help),
            _ => (format!("{flag} was given more than once"), "give it once".to_owned()),
        },
        ErrorKind::InvalidUtf8 => {
            ("an argument is not valid UTF-8".to_owned(), "write ids and names in UTF-8".to_owned())
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (first, help)
        }
    };
    Failure::new(Exit::Usage, message).hint(hint)
}

/// The command that a line of usage speaks of: `Usage: agent-checkpoint emit [OPTIONS] [ACTION]`.
fn command_of(usage: &str) -> Option<String> {
    let (_, rest) = usage.split_once("agent-checkpoint ")?;
    let word = rest.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_lowercase()).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::parse;

    fn failure(line: &str) -> (String, String) {
        let args = std::iter::once("agent-checkpoint").chain(line.split(' ')).map(OsString::from);
        let failure = parse(args).expect_err(line);
        assert_eq!(failure.exit, Exit::Usage);
        (failure.message, failure.hint.unwrap_or_default())
    }

    #[test]
    fn wrong_values_are_quoted_with_a_hint() {
        for (line, message, hint) in [
            (
                "emit --progress 150",
                "--progress: '150' is not between 0 and 100",
                "give a whole number from 0 to 100",
            ),
            (
                "emit --progress -1",
                "--progress: '-1' is not between 0 and 100",
                "give a whole number from 0 to 100",
            ),
            ("emit -s workign", "--status: 'workign' is not a status", "did you mean 'working'?"),
            ("emit --tokens -5", "--tokens: '-5' is negative", "give a count of 0 or more"),
            (
                "emit --background alway",
                "--background: 'alway' is not a valid value",
                "did you mean 'always'?",
            ),
            ("emit --stauts working", "unknown argument '--stauts'", "did you mean '--status'?"),
            ("emti", "unknown command 'emti'", "did you mean 'emit'?"),
            (
                "emit -t a\n\u{1b}b",
                "--task-name: 'a\\n\\u{1b}b' holds a control character",
                "write it on one line of plain text",
            ),
            ("emit a b", "unknown argument 'b'", "quote a text of several words"),
            ("emit --status", "--status needs a value", "write --status <NAME>"),
            ("emit --force --force", "--force was given more than once", "give it once"),
            ("show", "<AGENT> is missing", "see agent-checkpoint show --help"),
            (
                "metrics --deadline 3s",
                "--deadline is for --fleet alone: this machine's cache is read without waiting for the network",
                "leave it out, or add --fleet",
            ),
            ("show a b", "unknown argument 'b'", "quote a text of several words"),
            ("tasks a", "unknown argument 'a'", "see agent-checkpoint tasks --help"),
            ("emit --xyzzy", "unknown argument '--xyzzy'", "see agent-checkpoint emit --help"),
            ("--xyzzy", "unknown argument '--xyzzy'", "see agent-checkpoint --help"),
            (
                "run --timeout 5s --",
                "<CMD>... is missing",
                "write the command after --, such as agent-checkpoint run -- make test",
            ),
        ] {
            assert_eq!(failure(line), (message.to_owned(), hint.to_owned()), "{line}");
        }
    }
}
