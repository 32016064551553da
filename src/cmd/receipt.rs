//! The receipt of `emit`: what became of a checkpoint, in the same words for people and programs.

use serde_json::{Value, json};

use super::forward::Forwarder;
use crate::args::BackgroundChoice;
use crate::checkpoint::Task;
use crate::checkpoint::id::CheckpointKey;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::plan::{EntryChange, Plan};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::time::Moment;
use crate::config::{Config, Target};
use crate::delivery::Destination;
use crate::store::{Request, Store};

/// What became of one checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) checkpoint_id: String,
    /// `None` when nothing could be recorded.
    pub(super) task_id: Option<String>,
    pub(super) agent_id: String,
    pub(super) snapshot: Snapshot,
    pub(super) delivery: Delivery,
    pub(super) channel: Option<String>,
    pub(super) thread_ts: Option<String>,
    pub(super) message_ts: Option<String>,
    pub(super) retry_at: Option<Moment>,
    pub(super) error: Option<String>,
    pub(super) audit: Audited,
    pub(super) warnings: Vec<String>,
    /// What people want of the agent.
    pub(super) requests: Vec<Request>,
}

/// Whether the audit trail's database has a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audited {
    /// No database is configured.
    Off,
    Sent,
    /// It waits.
    Queued,
}

impl Audited {
    /// What the cache says of a checkpoint.
    pub(super) fn of(
        config: &Config,
        forwarder: Option<&Forwarder>,
        store: &mut Store,
        checkpoint: CheckpointKey,
    ) -> Self {
        match forwarder {
            None if config.has_broken_audit() => Self::Queued,
            None => Self::Off,
            Some(forwarder) => match store.read(|tx| forwarder.has(tx, checkpoint)) {
                Ok(true) => Self::Sent,
                // What cannot be read is told once more.
                Ok(false) | Err(_) => Self::Queued,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sent => "sent",
            Self::Queued => "queued",
        }
    }
}

impl Receipt {
    /// The receipt of a checkpoint that was recorded, as planned, and not sent yet.
    pub(super) fn of(plan: &Plan, config: &Config) -> Self {
        let (task, checkpoint) = (&plan.append.task, &plan.append.checkpoint);
        let due_at = match plan.append.entry {
            EntryChange::None => None,
            EntryChange::Insert { due_at, .. } | EntryChange::Repoint { due_at, .. } => Some(due_at),
        };
        Self {
            checkpoint_id: checkpoint.id.to_string(),
            task_id: Some(task.id.to_string()),
            agent_id: task.agent_id.clone(),
            snapshot: task.snapshot.clone(),
            delivery: checkpoint.delivery,
            channel: conversation(config, task),
            thread_ts: task.thread_ts.clone(),
            message_ts: None,
            retry_at: due_at,
            error: None,
            audit: if config.has_audit() { Audited::Queued } else { Audited::Off },
            warnings: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// What the caller should hear of a message that Slack does not have, and what to do about it; `is_left_alone` if no
    /// courier sees to it.
    pub(super) fn trouble(&self, config: &Config, is_left_alone: bool) -> Option<(String, &'static str)> {
        let reason = self.error.as_ref().map(|error| format!(": {error}"));
        let is_recorded = self.task_id.is_some();
        match self.delivery {
            Delivery::Rejected => {
                let advice = "run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected";
                let reason = reason.unwrap_or_default();
                Some((format!("Slack refused the message for good{reason}"), advice))
            }
            // What is wrong with the destination was said already, and a courier sees to what was left to it.
            Delivery::Queued | Delivery::Unconfirmed
                if matches!(config.target, Target::Broken)
                    || (is_recorded && config.background == BackgroundChoice::Always) =>
            {
                None
            }
            Delivery::Queued | Delivery::Unconfirmed if is_recorded => {
                let advice = if is_left_alone {
                    "the next call or agent-checkpoint flush sends it"
                } else {
                    "it is sent as soon as that is possible"
                };
                let reason = reason.unwrap_or_else(|| ": waiting for its turn".to_owned());
                let name = self.delivery.name();
                Some((format!("recorded, but not in Slack yet ({name}){reason}"), advice))
            }
            Delivery::Queued | Delivery::Unconfirmed => {
                let what = match self.delivery {
                    Delivery::Unconfirmed => "not recorded, and perhaps not delivered",
                    _ => "neither recorded nor delivered",
                };
                Some((format!("{what}{}", reason.unwrap_or_default()), "run agent-checkpoint doctor"))
            }
            _ => None,
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "checkpoint_id": self.checkpoint_id,
            "task_id": self.task_id,
            "agent_id": self.agent_id,
            "status": self.snapshot.status.name(),
            "progress": self.snapshot.progress,
            "context_percent": self.snapshot.context_percent(),
            "delivery": self.delivery.name(),
            "channel": self.channel,
            "thread_ts": self.thread_ts,
            "message_ts": self.message_ts,
            "retry_at": self.retry_at.map(Moment::rfc3339),
            "error": self.error,
            "audit": self.audit.name(),
            "warnings": self.warnings,
        });
        if !self.requests.is_empty() {
            json["requests"] = self.requests.iter().map(Request::json).collect();
        }
        json
    }
}

/// What is wrong with the destination, when that is why messages wait.
pub(super) fn broken(config: &Config) -> Option<String> {
    let broken = matches!(config.target, Target::Broken);
    config.problems.iter().find(|problem| broken && !problem.harmless).map(|problem| problem.message.clone())
}

/// The conversation that a task's messages go to, as far as it is known: a webhook posts to its own.
pub(super) fn conversation(config: &Config, task: &Task) -> Option<String> {
    match &config.target {
        Target::Nowhere => None,
        Target::Slack(Destination::Webhook { .. }) => task.channel_id.clone(),
        Target::Slack(Destination::Bot { .. }) | Target::Broken => {
            task.channel_id.clone().or_else(|| task.channel.clone())
        }
    }
}
