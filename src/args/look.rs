//! What was typed of the commands that tell what is known: `tasks`, `show` and `metrics`.

#[cfg(feature = "postgres")]
use std::time::Duration;

use clap::Args;

use super::values::{task_states, text};
use crate::checkpoint::parse;
use crate::checkpoint::status::TaskState;

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
