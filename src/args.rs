//! What was typed: clap types and nothing else. No I/O, and no defaults from the environment.

mod look;
mod people;
mod record;
mod upkeep;
mod values;
mod wrong;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::checkpoint::parse::{self, Thread};
use crate::exit::Failure;
#[cfg(feature = "postgres")]
pub(crate) use look::SourceArgs;
pub(crate) use look::{MetricsArgs, ShowArgs, TasksArgs};
pub(crate) use people::{AnswerArgs, AskArgs, RepliesArgs, TimeoutChoice};
pub(crate) use record::{EmitArgs, RunArgs, StreamArgs};
#[cfg(feature = "serve")]
pub(crate) use upkeep::ServeArgs;
pub(crate) use upkeep::{CompletionsArgs, CourierArgs, DoctorArgs, FlushArgs, GuardArgs, ManArgs};
#[cfg(feature = "postgres")]
pub(crate) use upkeep::{DbArgs, DbCommand, DbMigrateArgs};
pub(crate) use values::progress_pattern;
use values::text;

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

/// The command that agents call all the time, by itself: to describe all the others takes clap longer than to read it.
/// What it does not understand is read as [`Cli`], which knows all there is to say of it.
#[derive(Debug, Parser)]
#[command(name = "agent-checkpoint", disable_help_subcommand = true)]
struct Frequent {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: FrequentCommand,
}

#[derive(Debug, Subcommand)]
enum FrequentCommand {
    Emit(Box<EmitArgs>),
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
    /// approved or a choice is made, 10 when it is rejected, 124 when nobody answers in time. Ctrl-C
    /// withdraws it. Should ask be killed, a background process that waited for that withdraws it; with
    /// AGENT_CHECKPOINT_BACKGROUND=never the next call does.
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
    /// Wait for the end of whoever started it; started by ask and run, not by hand
    #[command(hide = true)]
    Guard(GuardArgs),
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

/// Reads a command line.
///
/// # Errors
/// A failure with the exit code 64 for a wrong one. Help and version come back as text for standard output.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Result<Cli, String>, Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == "emit")
        && let Ok(Frequent { global, command: FrequentCommand::Emit(emit) }) = Frequent::try_parse_from(&args)
    {
        return Ok(Ok(Cli { global, command: Command::Emit(emit) }));
    }
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Ok(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Err(error.render().to_string()))
        }
        Err(error) => Err(wrong::describe(&error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::checkpoint::status::Status;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_emit_is_read_as_it_is_among_all_commands() {
        let lines = [
            "emit x",
            "emit -s working --progress 50 --json -vv x",
            "emit --cache a.db -a me -f --no-color -- -x",
            "emit -q --artifact a=b --meta k=v --thread C1:1.2 x",
            "emit",
            "emit --help",
            "emit --version",
            "emit help",
            "emit --status nothing x",
            "emit --progress",
            "emit --no-such x",
            "-q emit x",
            "tasks",
            "",
        ];
        let said = |answer: Result<Cli, clap::Error>| match answer {
            Ok(cli) => format!("{cli:?}"),
            Err(error) => match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.render().to_string(),
                _ => format!("{:?}", wrong::describe(&error)),
            },
        };
        for line in lines {
            let args =
                || std::iter::once("agent-checkpoint").chain(line.split_whitespace()).map(OsString::from);
            let quickly = match parse(args()) {
                Ok(Ok(cli)) => format!("{cli:?}"),
                Ok(Err(help)) => help,
                Err(failure) => format!("{failure:?}"),
            };
            assert_eq!(quickly, said(Cli::try_parse_from(args())), "{line}");
        }
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
}
