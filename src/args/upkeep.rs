//! What was typed of the commands that keep everything going: `flush`, `db`, `serve`, `doctor`, `completions`, `man`,
//! `courier` and `guard`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
#[cfg(feature = "postgres")]
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, ValueHint};

use super::values::text;
use crate::checkpoint::parse;

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
  agent-checkpoint doctor --manifest --url https://agents.example.com
  agent-checkpoint doctor --channel '#agents'
  agent-checkpoint doctor --post";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Also send a test message
    #[arg(long)]
    pub(crate) post: bool,
    /// Print a Slack app manifest with all that is needed, and do nothing else
    #[arg(long, conflicts_with_all = ["post", "channel"])]
    pub(crate) manifest: bool,
    /// With --manifest: where Slack can reach serve [default: it need not]
    ///
    /// The address that a proxy hands on to serve. Without it the app uses Socket Mode.
    #[arg(long, value_name = "URL", requires = "manifest", value_parser = text(parse::public_url), value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,
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

#[derive(Debug, Clone, Args)]
pub(crate) struct GuardArgs {
    /// The process that it is a guard over, as the cache names it
    #[arg(long)]
    pub(crate) over: String,
}
