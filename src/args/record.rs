//! What was typed of the commands that record checkpoints: `emit`, `run` and `stream`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::ValueHint;

use super::values::{progress_pattern, statuses, text};
use super::{DeliveryArgs, IdentityArgs};
use crate::checkpoint::parse::{self, Artifact};
use crate::checkpoint::status::Status;
use crate::child::Pattern;

#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = EMIT_EXAMPLES)]
pub(crate) struct EmitArgs {
    /// What the agent just did or is about to do; '-' reads standard input
    #[arg(value_name = "ACTION")]
    pub(crate) action: Option<OsString>,
    /// Where the agent stands [default: checkpoint]
    ///
    /// One of starting, planning, working, checkpoint, waiting_approval, blocked, error,
    /// complete and cancelled.
    #[arg(short, long, value_name = "NAME", hide_possible_values = true, value_parser = statuses(), verbatim_doc_comment)]
    pub(crate) status: Option<Status>,
    /// How much is done, 0 to 100
    #[arg(short, long, value_name = "PERCENT", value_parser = text(parse::progress), allow_negative_numbers = true)]
    pub(crate) progress: Option<u8>,
    /// How many tokens are in the context now
    #[arg(long, value_name = "N", value_parser = text(parse::count), allow_negative_numbers = true)]
    pub(crate) tokens: Option<u64>,
    /// How many tokens the context holds [default: 200000]
    #[arg(long, value_name = "N", value_parser = text(parse::context_limit), allow_negative_numbers = true)]
    pub(crate) context_limit: Option<u64>,
    /// What went wrong
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<OsString>,
    /// Something the agent made (repeatable)
    #[arg(long, value_name = "[NAME=]URL|PATH", value_hint = ValueHint::AnyPath, value_parser = text(parse::artifact))]
    pub(crate) artifact: Vec<Artifact>,
    /// Something to keep with the checkpoint (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = text(parse::meta))]
    pub(crate) meta: Vec<(String, String)>,
    /// Post now, whatever the interval
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Exit 20 when a person has asked the agent to stop
    #[arg(long)]
    pub(crate) obey: bool,
    /// Print what would be recorded and posted; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
}

const EMIT_EXAMPLES: &str = "Examples:
  agent-checkpoint emit --status starting --task-name 'Deploy X' 'Reading files'
  agent-checkpoint emit --status working --progress 50 'Running tests'
  agent-checkpoint emit --status error --error 'exit code 1' 'Tests failed'
  agent-checkpoint emit --status complete --artifact PR=https://example.com/pull/1 'Done'
  git log -1 --format=%s | agent-checkpoint emit --status working -";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
    /// Refresh the live card this often, 0 for never [default: 30s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) heartbeat: Option<Duration>,
    /// Stop the command after this long and exit 124, 0 for no limit
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,
    /// Kill it this long after it was told to stop [default: 10s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) kill_after: Option<Duration>,
    /// How many of its last lines a failure shows, 0 for none [default: 20]
    #[arg(long, value_name = "LINES", value_parser = text(parse::count), allow_negative_numbers = true)]
    pub(crate) tail: Option<u64>,
    /// Find progress in lines: groups percent, or done and total, and action
    #[arg(long, value_name = "RE", value_parser = text(progress_pattern))]
    pub(crate) progress_regex: Option<Pattern>,
    /// Something to keep with the task's first checkpoint (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = text(parse::meta))]
    pub(crate) meta: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
}

const RUN_EXAMPLES: &str = "Examples:
  agent-checkpoint run -- make test
  agent-checkpoint run --task-name 'Nightly build' --timeout 2h -- ./build.sh --all
  agent-checkpoint run --progress-regex '(?P<done>[0-9]+)/(?P<total>[0-9]+)' -- pytest";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = STREAM_EXAMPLES)]
pub(crate) struct StreamArgs {
    /// How many tokens the context holds [default: 200000]
    #[arg(long, value_name = "N", value_parser = text(parse::context_limit), allow_negative_numbers = true)]
    pub(crate) context_limit: Option<u64>,
    /// Post every checkpoint at once, whatever the interval
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
}

const STREAM_EXAMPLES: &str = r#"Examples:
  my-agent | agent-checkpoint stream --agent-id my-agent
  echo '{"status":"working","action":"Running tests"}' | agent-checkpoint stream --json"#;
