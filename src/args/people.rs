//! What was typed of the commands that have to do with people: `ask`, `answer` and `replies`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::IdentityArgs;
use super::values::text;
use crate::checkpoint::{parse, question};

#[derive(Debug, Clone, Args)]
#[command(after_long_help = ASK_EXAMPLES)]
pub(crate) struct AskArgs {
    /// What is to be approved or chosen
    #[arg(value_name = "QUESTION", value_parser = text(parse::free_text))]
    pub(crate) question: String,
    /// How long to wait for an answer
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", default_value = "15m", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) timeout: Duration,
    /// What no answer exits with: fail 124, reject 10, approve 0
    #[arg(long, value_name = "WHAT", value_enum, default_value = "fail", hide_possible_values = true)]
    pub(crate) on_timeout: TimeoutChoice,
    /// Something to choose, in place of approve and reject (repeatable)
    #[arg(long, value_name = "LABEL", value_parser = text(parse::name))]
    pub(crate) choice: Vec<String>,
    /// Who may answer, by Slack's id of the user (repeatable)
    ///
    /// Without it those of AGENT_CHECKPOINT_APPROVERS; without both anybody.
    #[arg(long, value_name = "USER", value_parser = text(question::user_id))]
    pub(crate) approver: Vec<String>,
    /// How many people have to agree
    #[arg(long, value_name = "N", default_value = "1", value_parser = text(question::quorum), allow_negative_numbers = true)]
    pub(crate) quorum: u32,
    /// More to read before answering; '-' reads standard input
    #[arg(long, value_name = "TEXT")]
    pub(crate) details: Option<OsString>,
    /// The command that is to be approved, shown whole
    #[arg(long, value_name = "COMMAND")]
    pub(crate) command: Option<OsString>,
    /// Remind of it in the thread this often
    ///
    /// A length of time such as 30s, 5m or 1h30m. AGENT_CHECKPOINT_MIN_INTERVAL is the least.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) remind: Option<Duration>,
    /// Print the request's id and do not wait
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

/// Which exit code it is when nobody answers a question in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeoutChoice {
    /// 124
    Fail,
    /// 10, as when it is rejected
    Reject,
    /// 0, as when it is approved
    Approve,
}

const ASK_EXAMPLES: &str = "Examples:
  agent-checkpoint ask 'Deploy 1.4.2 to production?' --command './deploy.sh prod'
  agent-checkpoint ask 'Which region?' --choice eu-west --choice us-east
  agent-checkpoint ask 'Drop the table?' --approver U0123456789 --approver U9876543210 --quorum 2
  git diff | agent-checkpoint ask 'Merge this?' --details - --timeout 2h --remind 30m
  agent-checkpoint ask --no-wait 'Continue?'";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = ANSWER_EXAMPLES)]
pub(crate) struct AnswerArgs {
    /// The request's id, as ask tells it
    #[arg(value_name = "ID", value_parser = text(parse::free_text))]
    pub(crate) id: String,
    /// Wait until it is answered or its time is over
    #[arg(long)]
    pub(crate) wait: bool,
    /// Approve it
    #[arg(long, conflicts_with_all = ["reject", "choice", "wait"])]
    pub(crate) approve: bool,
    /// Reject it
    #[arg(long, conflicts_with_all = ["choice", "wait"])]
    pub(crate) reject: bool,
    /// Choose this
    #[arg(long, value_name = "LABEL", conflicts_with = "wait", value_parser = text(parse::name))]
    pub(crate) choice: Option<String>,
    /// What to say beside the answer
    #[arg(long, value_name = "TEXT", conflicts_with = "wait", value_parser = text(parse::free_text))]
    pub(crate) comment: Option<String>,
}

const ANSWER_EXAMPLES: &str = "Examples:
  agent-checkpoint answer 01a2b0f4-52b1-7cde-8a48-2e68e6d5fc32
  agent-checkpoint answer --wait 01a2b0f4-52b1-7cde-8a48-2e68e6d5fc32
  agent-checkpoint answer 01a2b0f4-52b1-7cde-8a48-2e68e6d5fc32 --reject --comment 'Wait for Monday'";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = REPLIES_EXAMPLES)]
pub(crate) struct RepliesArgs {
    /// Name the agent [default: its session, CI job or user and directory]
    #[arg(short, long, value_name = "ID", value_parser = text(parse::agent_id))]
    pub(crate) agent_id: Option<String>,
    /// Wait for the first one, at most this long
    ///
    /// A length of time such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DUR", value_parser = text(parse::duration), allow_hyphen_values = true)]
    pub(crate) wait: Option<Duration>,
}

const REPLIES_EXAMPLES: &str = "Examples:
  agent-checkpoint replies
  agent-checkpoint replies --agent-id deploy-bot --wait 10m --json";
