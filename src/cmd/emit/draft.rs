//! From what was typed to what is said: read, defaulted and masked.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use crate::args::EmitArgs;
use crate::checkpoint::Draft;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::parse::{self, Artifact};
use crate::checkpoint::status::Status;
use crate::cmd::{environment, masking, now};
use crate::config::identity::surroundings;
use crate::config::{Config, Flags};
use crate::exit::{Exit, Failure, cause};

/// The longest action that is read from standard input, in bytes.
const STDIN_MAX: usize = 4 * 1024 * 1024;

/// The flags that are settings.
pub(super) fn flags(args: &EmitArgs) -> Flags {
    Flags { context_limit: args.context_limit, ..Flags::of(args.identity.clone(), args.delivery.clone()) }
}

/// Takes and masks what the caller says.
pub(in crate::cmd) fn draft(
    args: &EmitArgs,
    action: Option<String>,
    config: &Config,
) -> anyhow::Result<Draft> {
    let masker = config.masker();
    let mask = |text: &str| masking::said(&masker, text);
    let wrong = |what: &str, invalid: parse::Invalid| {
        Failure::new(Exit::Usage, format!("{what}: the text {}", invalid.reason)).hint(invalid.hint)
    };
    let free = |what: &str, text: Option<String>| -> Result<Option<String>, Failure> {
        let text =
            text.map(|text| parse::free_text(text.trim())).transpose().map_err(|error| wrong(what, error))?;
        Ok(text.filter(|text| !text.is_empty()).map(|text| mask(&text)))
    };
    let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
    let said = |text: &Option<String>| text.as_deref().map(mask);
    Ok(Draft {
        id: CheckpointId::new(now()),
        agent_id: mask(&around.agent_id),
        status: args.status.unwrap_or(Status::Checkpoint),
        progress: args.progress,
        tokens: args.tokens,
        context_limit: config.context_limit,
        name: said(&config.task_name),
        task_type: said(&config.task_type),
        repo: said(&config.repo),
        repo_default: said(&around.repo),
        action: free("ACTION", action)?,
        error: free("--error", args.error.as_ref().map(|error| error.to_string_lossy().into_owned()))?,
        tail: None,
        artifacts: args
            .artifact
            .iter()
            .map(|Artifact { name, target }| match name {
                Some(name) => {
                    let (name, target) = masking::said_pair(&masker, name, target);
                    Artifact { name: Some(name), target }
                }
                None => Artifact { name: None, target: mask(target) },
            })
            .collect(),
        meta: masking::said_pairs(&masker, &args.meta),
        channel: config.channel.clone(),
        thread: config.thread.clone(),
        force: args.force,
        new: args.identity.new,
        within: None,
        opens: None,
        parent: None,
        inside: None,
        listens: Some(config.json || args.obey),
    })
}

/// An action as it was said.
#[derive(Debug, Default)]
pub(super) struct Action {
    pub(super) text: Option<String>,
    /// Why it is not all that was said.
    pub(super) cut: Option<String>,
}

/// What was typed, or what comes on standard input until its end, as for any command in a pipe: whoever computes the
/// action may take as long as it takes. No deadline runs yet.
pub(super) fn action(typed: Option<&OsStr>) -> Result<Action, Failure> {
    let text = |text: &OsStr| Action { text: Some(text.to_string_lossy().into_owned()), cut: None };
    if typed != Some(OsStr::new("-")) {
        return Ok(typed.map(text).unwrap_or_default());
    }
    let mut bytes = Vec::new();
    let max = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
    std::io::stdin().lock().take(max + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::Usage, format!("could not read ACTION from standard input: {}", cause(&error)))
            .hint("give it a file or a pipe, or ACTION as an argument")
    })?;
    let cut =
        (bytes.len() > STDIN_MAX).then(|| "ACTION on standard input was cut off after 4 MiB".to_owned());
    bytes.truncate(STDIN_MAX);
    Ok(Action { text: Some(String::from_utf8_lossy(&bytes).into_owned()), cut })
}
