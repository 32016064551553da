//! From a command line to the checkpoint that opens the task of a wrapped command.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::args::RunArgs;
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::mask::{MASK, Masker};
use crate::checkpoint::parse;
use crate::checkpoint::status::Status;
use crate::checkpoint::{Draft, Parent};
use crate::cmd::masking::{said, said_pairs};
use crate::cmd::{environment, now};
use crate::config::Config;
use crate::config::identity::surroundings;
use crate::secret::Secret;

/// Parts of variables' names that promise a secret.
const SECRET_NAMES: &[&str] = &[
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
    "AUTH",
    "SIGNATURE",
    "COOKIE",
    "DSN",
    "CONNECTION_STRING",
];
/// Ends of such names.
const SECRET_ENDS: &[&str] = &["_PAT", "_KEY", "_PW", "_PWD"];
/// Values shorter than this are not looked for in output: they would mask ordinary words.
const SECRET_MIN: usize = 8;

/// Masks the configured secrets, what looks like one, and the values of variables and of the command's options whose
/// names promise one.
pub(super) fn masker(
    config: &Config,
    variables: impl Iterator<Item = (OsString, OsString)>,
    command: &[OsString],
) -> Masker {
    let values: Vec<String> = variables
        .filter(|(name, _)| is_secret_name(name))
        // As the output is read too.
        .map(|(_, value)| value.to_string_lossy().into_owned())
        .chain(words(command).filter_map(|(word, secret)| Some(word[secret?..].to_owned())))
        .collect();
    // Of several lines some may be cut off.
    let parts = values.iter().flat_map(|value| std::iter::once(value.as_str()).chain(value.lines()));
    let parts = parts.filter(|part| part.len() >= SECRET_MIN);
    Masker::new(config.secrets.iter().map(Secret::reveal).chain(parts))
}

fn is_secret_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    // A socket or a program that asks for a secret is not one.
    let is_path = name.ends_with("_SOCK") || name.ends_with("_FILE") || name.ends_with("_ASKPASS");
    // Neither is an author, nor a file of authority.
    let name = name.replace("AUTHOR", "");
    !is_path
        && (SECRET_NAMES.iter().any(|part| name.contains(part))
            || SECRET_ENDS.iter().any(|end| name.ends_with(end)))
}

/// The name of an agent that runs inside another: `PARENT/COMMAND`.
pub(super) fn name_after(parent: &str, command: &[OsString]) -> String {
    let name = parse::agent_id_of(&program_name(command));
    let room = 255_usize.saturating_sub(name.chars().count() + 1);
    parse::agent_id_of(&format!("{}/{name}", parent.chars().take(room).collect::<String>()))
}

/// What the command is called.
fn program_name(command: &[OsString]) -> String {
    let program = command.first().map(|program| Path::new(program).file_name().unwrap_or(program));
    program.unwrap_or_default().to_string_lossy().into_owned()
}

/// The words of a command, and where in each a secret begins: the value of an option or a variable whose name promises
/// one.
fn words(command: &[OsString]) -> impl Iterator<Item = (Cow<'_, str>, Option<usize>)> {
    let mut is_awaited = false;
    command.iter().map(move |word| {
        let word = word.to_string_lossy();
        let is_value = std::mem::take(&mut is_awaited) && !word.starts_with('-');
        let start = match word.split_once('=') {
            _ if is_value => Some(0),
            Some((name, _)) if is_secret_option(name) => Some(name.len() + 1),
            Some(_) => None,
            None => {
                is_awaited = word.starts_with("--") && is_secret_option(&word);
                None
            }
        };
        // A number of tokens is no token.
        let start = start.filter(|start| word[*start..].bytes().any(|b| !b.is_ascii_digit()));
        (word, start)
    })
}

/// Whether the value of an option or a variable is a secret, by its name.
fn is_secret_option(name: &str) -> bool {
    let name = name.trim_start_matches('-').replace('-', "_").to_ascii_lowercase();
    // A tokenizer is a part of a model, --no-password has no value, and --auth says how, not with what.
    let is_harmless = name.starts_with("no_") || name.contains("tokeniz");
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    is_name && !is_harmless && is_secret_name(OsStr::new(&name.replace("auth", "")))
}

/// The command as one would type it, for people.
fn line(command: &[OsString]) -> String {
    let words: Vec<String> = words(command)
        .map(|(word, secret)| {
            if let Some(start) = secret {
                return format!("{}{MASK}", &word[..start]);
            }
            let is_plain =
                !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=@%+,~".contains(c));
            if is_plain { word.into_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
        })
        .collect();
    words.join(" ")
}

/// The checkpoint that opens the task.
pub(super) fn start(
    args: &RunArgs,
    config: &Config,
    masker: &Masker,
    parent: Option<Parent>,
    named: Option<&str>,
) -> Draft {
    let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let around = surroundings(named.or(config.agent_id.as_deref()), &environment, &dir);
    let masked = |text: &Option<String>| text.as_deref().map(|text| said(masker, text));
    let line = said(masker, &line(&args.command));
    let bare = Draft::bare(CheckpointId::new(now()), said(masker, &around.agent_id), Status::Starting);
    Draft {
        context_limit: config.context_limit,
        name: masked(&config.task_name).or_else(|| Some(line.clone())),
        task_type: masked(&config.task_type),
        repo: masked(&config.repo),
        repo_default: masked(&around.repo),
        action: Some(format!("$ {line}")),
        meta: said_pairs(masker, &args.meta),
        channel: config.channel.clone(),
        thread: config.thread.clone(),
        new: args.identity.new,
        opens: Some(TaskId::new(now())),
        parent,
        listens: Some(true),
        ..bare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_as_one_would_type_it() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(line(&words(&["make", "-j2", "test"])), "make -j2 test");
        assert_eq!(line(&words(&["sh", "-c", "echo it's \"$X\""])), r#"sh -c 'echo it'\''s "$X"'"#);
        assert_eq!(line(&words(&["printf", ""])), "printf ''");
        assert_eq!(program_name(&words(&["/usr/bin/make", "x"])), "make");
    }

    #[test]
    fn a_command_does_not_tell_its_secrets() {
        for (given, shown) in [
            ("mysql --password=hunter2 db", "mysql --password=[masked] db"),
            ("mysql --password hunter2 db", "mysql --password [masked] db"),
            ("env API_KEY=a=b DEPLOY-TOKEN=x1 cmd", "env API_KEY=[masked] DEPLOY-TOKEN=[masked] cmd"),
            ("vault --client-secret --verbose x", "vault --client-secret --verbose x"),
            ("agent --max-tokens=4096 --max-tokens 4096", "agent --max-tokens=4096 --max-tokens 4096"),
            ("agent --tokenizer gpt --token-file t", "agent --tokenizer gpt --token-file t"),
            ("psql --no-password db", "psql --no-password db"),
            ("curl --auth-mode basic --author=ana", "curl --auth-mode basic --author=ana"),
            ("curl --auth-token abc", "curl --auth-token [masked]"),
            ("make token PASSWORD", "make token PASSWORD"),
        ] {
            let command: Vec<OsString> = given.split(' ').map(OsString::from).collect();
            assert_eq!(line(&command), shown);
        }
    }

    #[test]
    fn names_that_promise_a_secret() {
        for (name, secret) in [
            ("GITHUB_TOKEN", true),
            ("db_password", true),
            ("AWS_SECRET_ACCESS_KEY", true),
            ("SENTRY_DSN", true),
            ("DEPLOY_KEY", true),
            ("CI_AUTH", true),
            ("LD_LIBRARY_PATH", false),
            ("GIT_AUTHOR_NAME", false),
            ("XAUTHORITY", false),
            ("XKB_KEYBOARD", false),
            ("PWD", false),
            ("OLDPWD", false),
            ("SSH_AUTH_SOCK", false),
            ("HOME", false),
            ("KEYBOARD", false),
        ] {
            assert_eq!(is_secret_name(OsStr::new(name)), secret, "{name}");
        }
    }
}
