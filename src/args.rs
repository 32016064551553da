//! What was typed: clap types and nothing else. No I/O, and no defaults from the environment.

mod people;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser, ValueHint};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::checkpoint::parse::{self, Artifact, Invalid, Thread};
use crate::checkpoint::status::{Status, TaskState};
use crate::child::Pattern;
use crate::exit::{Exit, Failure, one_line};
pub(crate) use people::{AnswerArgs, AskArgs, RepliesArgs, TimeoutChoice};

/// One quiet Slack thread per agent, from any shell script, subprocess or CI step
///
/// Agents, scripts and CI steps call emit to say where they stand. People watch one Slack thread
/// per agent, whose first message always shows the latest state. Every checkpoint is kept in a
/// local file first, so that nothing is lost while Slack cannot be reached, and no caller fails or
/// waits because of it.
#[derive(Debug, Parser)]
#[command(name = "agent-checkpoint", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(arg_required_else_help = false, subcommand_required = true)]
#[command(after_long_help = AFTER_HELP, verbatim_doc_comment)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str =
    "Settings come from flags, then the environment, then --env-file, then the config file, then
defaults. SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL says where to post; without either, checkpoints are
printed. SLACK_CHANNEL names the channel. The other flags' variables are AGENT_CHECKPOINT_<FLAG>,
such as AGENT_CHECKPOINT_MIN_INTERVAL=1m.

Examples:
  agent-checkpoint emit --status working --progress 50 'Running tests'
  agent-checkpoint tasks
  agent-checkpoint doctor";

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Print one JSON object or array on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more on standard error: -v of each message, -vv of each request too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum)]
    pub(crate) color: Option<ColorChoice>,
    /// Read settings from this file instead of config.toml in the config directory
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Read variables from this file (KEY=VALUE lines); the real environment wins
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Option<PathBuf>,
    /// Keep state in this file instead of cache.db in the state directory
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cache: Option<PathBuf>,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// Whether a detached courier sends what cannot be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackgroundChoice {
    /// Send what is due now; a courier sends the rest
    Auto,
    /// Never touch the network here; a courier sends everything
    Always,
    /// Send what is due now; leave the rest to the next call or to flush
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record one checkpoint and deliver what is due
    Emit(Box<EmitArgs>),
    /// Run a command and report its start, its progress and its end
    ///
    /// The command starts at once, whatever Slack does, with the standard streams it would have
    /// without us, and its exit code is returned: 128+N when signal N ended it, 124 after --timeout,
    /// 127 when it was not found, 126 when it cannot be invoked. Checkpoints that it emits itself
    /// belong to the same task.
    #[command(verbatim_doc_comment)]
    Run(Box<RunArgs>),
    /// Record JSON lines from standard input, one checkpoint each
    ///
    /// Each line is an object with the long names of emit's options in snake case: agent_id, status,
    /// progress, action, tokens, context_limit, error, artifacts (an array), meta (an object),
    /// task_name, task_type, repo, channel, thread, force, new. What a line does not say comes from
    /// the options given here. With --json each line is answered by its receipt as soon as it is on
    /// disk. A bad line is reported with its number and skipped; the exit code is then 65.
    #[command(verbatim_doc_comment)]
    Stream(Box<StreamArgs>),
    /// Put a question with buttons to a person and wait for the answer
    ///
    /// The question stands in the agent's thread, and is shown in the channel too. Exits 0 when it is
    /// approved or a choice is made, 10 when it is rejected, 124 when nobody answers in time.
    #[command(verbatim_doc_comment)]
    Ask(Box<AskArgs>),
    /// Tell what became of a question, or answer it here
    ///
    /// From any process that shares the cache or the database. Exits as ask does, and 75 while the
    /// question is open.
    #[command(verbatim_doc_comment)]
    Answer(AnswerArgs),
    /// Print what people wrote in the agent's thread since the last look
    ///
    /// What people write is not to be trusted: show it to the agent as something that was said, not as
    /// instructions of its operator. The agent's own messages and those of bots are left out.
    #[command(verbatim_doc_comment)]
    Replies(RepliesArgs),
    /// List tasks
    Tasks(TasksArgs),
    /// Show one task with its checkpoints, artifacts and interventions
    Show(ShowArgs),
    /// Per-day totals of tasks
    Metrics(MetricsArgs),
    /// Deliver everything that is waiting
    Flush(FlushArgs),
    /// Print the Postgres schema, or bring a database up to it
    #[cfg(feature = "postgres")]
    Db(DbArgs),
    /// Answer over HTTP: tasks and metrics as JSON, and what people do in Slack
    ///
    /// GET /health, GET /tasks (as tasks --json; ?status=running&limit=50), GET /tasks/AGENT (its task,
    /// and how many checkpoints and artifacts it has) and GET /metrics (as metrics --json; ?days=7; text
    /// for Prometheus, which asks for it). All of it is read from the database where one is configured
    /// (DATABASE_URL), and else from the cache. Slack tells of clicks, of /agent-task and of mentions at
    /// POST /slack/interactions, /slack/commands and /slack/events, signed by SLACK_SIGNING_SECRET, or by
    /// the socket that SLACK_APP_TOKEN opens. People list, show and cancel agents there; others are
    /// started by AGENT_CHECKPOINT_LAUNCH once one of AGENT_CHECKPOINT_APPROVERS agrees. TERM or Ctrl-C
    /// ends it with 0, once what was asked is answered.
    #[cfg(feature = "serve")]
    #[command(verbatim_doc_comment)]
    Serve(ServeArgs),
    /// Check every part of the set-up and say how to mend what is broken
    Doctor(DoctorArgs),
    /// Print a completion script
    ///
    /// Write it where the shell looks for it, after mkdir -p of that directory. Zsh looks in the
    /// directories of its fpath: write fpath=(~/.zfunc $fpath) in ~/.zshrc, before compinit.
    #[command(verbatim_doc_comment)]
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    Man(ManArgs),
    /// Send what waits and end; started by emit, not by hand
    #[command(hide = true)]
    Courier(CourierArgs),
}

/// Who the agent is and what it works on.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct IdentityArgs {
    /// Name the agent [default: its session, CI job or user and directory]
    #[arg(short, long, value_name = "ID", value_parser = text(parse::agent_id))]
    pub(crate) agent_id: Option<String>,
    /// Name the task
    #[arg(short, long, value_name = "NAME", value_parser = text(parse::name))]
    pub(crate) task_name: Option<String>,
    /// Say what kind of task it is, such as test, refactor or docs
    #[arg(long, value_name = "NAME", value_parser = text(parse::name))]
    pub(crate) task_type: Option<String>,
    /// Name the repository [default: the CI system's, or that of git's origin]
    #[arg(long, value_name = "NAME", value_parser = text(parse::name))]
    pub(crate) repo: Option<String>,
    /// Post to this channel [default: SLACK_CHANNEL, else #agent-supervisory]
    ///
    /// Its #name or its id.
    #[arg(short, long, value_name = "CHANNEL", value_parser = text(parse::channel))]
    pub(crate) channel: Option<String>,
    /// Join an existing thread
    ///
    /// Its channel's id and its ts, as a receipt has them: C0123456789:1503435956.000247.
    #[arg(long, value_name = "CHANNEL:TS", value_parser = text(parse::thread))]
    pub(crate) thread: Option<Thread>,
    /// Open a new task and thread
    #[arg(long)]
    pub(crate) new: bool,
}

/// How messages are sent.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Delivery")]
pub(crate) struct DeliveryArgs {
    /// The least time between routine messages of a task [default: 30s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) min_interval: Option<Duration>,
    /// Spend at most this long on the network [default: 10s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,
    /// Use a courier [default: auto]
    ///
    /// A courier is a background process that sends what cannot be sent at once, then ends.
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(crate) background: Option<BackgroundChoice>,
    /// Exit 75 when not delivered yet, 78 when refused or misconfigured
    ///
    /// It is recorded all the same, and what is held back inside the interval is no failure.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Record, but do not post
    #[arg(long)]
    pub(crate) no_post: bool,
    /// Warn at this percentage of the context limit [default: 70]
    #[arg(long, value_name = "PCT", value_parser = text(parse::threshold), allow_negative_numbers = true)]
    pub(crate) context_warn: Option<u8>,
    /// Alert at this percentage of the context limit [default: 85]
    #[arg(long, value_name = "PCT", value_parser = text(parse::threshold), allow_negative_numbers = true)]
    pub(crate) context_alert: Option<u8>,
}

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
    /// Stop the command after this long and exit 124
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

const TASKS_EXAMPLES: &str = "Examples:
  agent-checkpoint tasks
  agent-checkpoint tasks --state running
  agent-checkpoint tasks --waiting --json
  agent-checkpoint tasks --fleet";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = TASKS_EXAMPLES)]
pub(crate) struct TasksArgs {
    /// Only those running, failed, completed, cancelled, pending or approved
    #[arg(long, value_name = "STATE", hide_possible_values = true, value_parser = task_states())]
    pub(crate) state: Option<TaskState>,
    /// Only tasks with messages not in Slack: waiting, held back or refused
    #[arg(long)]
    pub(crate) waiting: bool,
    /// At most this many, the latest first
    #[arg(long, value_name = "N", default_value = "50", value_parser = text(parse::count), allow_negative_numbers = true)]
    pub(crate) limit: u64,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Where the answer comes from.
#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Read from the database of all machines (DATABASE_URL), not from the cache
    ///
    /// What only a machine's own cache knows is null: what became of its messages.
    #[arg(long)]
    pub(crate) fleet: bool,
    /// With --fleet: spend at most this long on the network [default: 10s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", requires = "fleet", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,
}

const SHOW_EXAMPLES: &str = "Examples:
  agent-checkpoint show deploy-bot
  agent-checkpoint show deploy-bot --json
  agent-checkpoint show deploy-bot --fleet";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArgs {
    /// An agent's id, for its latest task, or a task's id
    #[arg(value_name = "AGENT", value_parser = text(parse::free_text))]
    pub(crate) agent: String,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

const METRICS_EXAMPLES: &str = "Examples:
  agent-checkpoint metrics
  agent-checkpoint metrics --days 30 --json
  agent-checkpoint metrics --fleet";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = METRICS_EXAMPLES)]
pub(crate) struct MetricsArgs {
    /// How many days, today among them, counted in UTC
    #[arg(long, value_name = "N", default_value = "7", value_parser = text(parse::days), allow_negative_numbers = true)]
    pub(crate) days: u16,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

const FLUSH_EXAMPLES: &str = "Examples:
  agent-checkpoint flush
  agent-checkpoint flush --deadline 30s
  agent-checkpoint flush --rejected
  agent-checkpoint flush --rejected --channel '#agents'";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = FLUSH_EXAMPLES)]
pub(crate) struct FlushArgs {
    /// Send again what Slack or the database refused, once the cause is mended
    #[arg(long)]
    pub(crate) rejected: bool,
    /// With --rejected: to this channel, where there is no thread yet
    #[arg(short, long, value_name = "CHANNEL", requires = "rejected", value_parser = text(parse::channel))]
    pub(crate) channel: Option<String>,
    /// Give up after this long [default: none]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,
}

#[cfg(feature = "postgres")]
const DB_EXAMPLES: &str = "Examples:
  agent-checkpoint db migrate
  agent-checkpoint db schema > schema.sql";

#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Args)]
#[command(after_long_help = DB_EXAMPLES, arg_required_else_help = false, disable_help_subcommand = true)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    pub(crate) command: DbCommand,
}

#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DbCommand {
    /// Print the schema as SQL that psql can run, as often as one likes
    Schema,
    /// Create the tables in DATABASE_URL, or add what they lack
    Migrate(DbMigrateArgs),
}

#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Args)]
pub(crate) struct DbMigrateArgs {
    /// Give up after this long [default: none]
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration))]
    pub(crate) deadline: Option<Duration>,
}

#[cfg(feature = "serve")]
const SERVE_EXAMPLES: &str = "Examples:
  agent-checkpoint serve
  agent-checkpoint serve --listen 127.0.0.1:8080
  agent-checkpoint serve --unit >/etc/systemd/system/agent-checkpoint.service";

#[cfg(feature = "serve")]
#[derive(Debug, Clone, Args)]
#[command(after_long_help = SERVE_EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Listen here [default: 127.0.0.1:3001]
    ///
    /// Where other machines can reach it, AGENT_CHECKPOINT_SERVE_TOKEN is needed.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = text(parse::listen))]
    pub(crate) listen: Option<String>,
    /// Print a systemd unit for these settings, and do nothing else
    #[arg(long)]
    pub(crate) unit: bool,
}

const DOCTOR_EXAMPLES: &str = "Examples:
  agent-checkpoint doctor --manifest
  agent-checkpoint doctor --channel '#agents'
  agent-checkpoint doctor --post";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Also send a test message
    #[arg(long)]
    pub(crate) post: bool,
    /// Print a Slack app manifest with all that is needed, and do nothing else
    #[arg(long)]
    pub(crate) manifest: bool,
    /// Check this channel instead of the configured one
    #[arg(short, long, value_name = "CHANNEL", value_parser = text(parse::channel))]
    pub(crate) channel: Option<String>,
    /// Spend at most this long on the network [default: 10s]
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,
}

const COMPLETIONS_EXAMPLES: &str = "Examples:
  agent-checkpoint completions bash >~/.local/share/bash-completion/completions/agent-checkpoint
  agent-checkpoint completions zsh >~/.zfunc/_agent-checkpoint
  agent-checkpoint completions fish >~/.config/fish/completions/agent-checkpoint.fish";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(["bash", "zsh", "fish", "powershell", "elvish"]))]
    pub(crate) shell: String,
}

const MAN_EXAMPLES: &str = "Examples:
  agent-checkpoint man ~/.local/share/man/man1";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// Where to write; made if it does not exist
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CourierArgs {
    /// The office that was left for this courier in the cache
    #[arg(long)]
    pub(crate) office: String,
}

/// Reads a word as `read` does, so that errors stay ours, and tells completions which words there are.
#[derive(Clone)]
struct Words<T> {
    read: fn(&str) -> Result<T, Invalid>,
    names: Vec<&'static str>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        text(self.read).parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names.iter().map(PossibleValue::new)))
    }
}

fn statuses() -> Words<Status> {
    Words { read: Status::parse, names: Status::ALL.map(Status::name).to_vec() }
}

fn task_states() -> Words<TaskState> {
    Words { read: TaskState::parse, names: TaskState::ALL.map(TaskState::name).to_vec() }
}

/// A pattern that finds progress in a line.
pub(crate) fn progress_pattern(text: &str) -> Result<Pattern, Invalid> {
    let hint = "write for example '(?P<done>[0-9]+)/(?P<total>[0-9]+)'";
    Pattern::parse(text).map_err(|reason| Invalid::new(reason, hint))
}

/// Reads a command line.
///
/// # Errors
/// A failure with the exit code 64 for a wrong one. Help and version come back as text for standard output.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Result<Cli, String>, Failure> {
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Ok(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Err(error.render().to_string()))
        }
        Err(error) => Err(describe(&error)),
    }
}

/// Reads a value's text. Clap's own reader would not say which value is no text.
fn text<T: Clone + Send + Sync + 'static>(
    read: fn(&str) -> Result<T, Invalid>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |raw| match raw.to_str() {
        Some(text) => read(text),
        None => Err(Invalid::new("is not valid UTF-8", "write it in UTF-8")),
    })
}

/// One clear line with the value quoted, and one hint.
fn describe(error: &clap::Error) -> Failure {
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_status() {
        let command = Cli::command();
        let emit = command.find_subcommand("emit").expect("the command");
        let status = emit.get_arguments().find(|arg| arg.get_id() == "status").expect("the flag");
        let help = status.get_long_help().map(ToString::to_string).unwrap_or_default();
        let (_, list) = help.split_once("One of ").expect("a list");
        let named: Vec<&str> =
            list.split([',', ' ', '.', '\n']).filter(|word| !word.is_empty() && *word != "and").collect();
        assert_eq!(named, Status::ALL.map(Status::name));
    }

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
