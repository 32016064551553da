//! The pure domain: tasks, their checkpoints, and what recording one more of them means.
//!
//! Nothing in here reads a clock, a file, the environment or a socket, and nothing prints: values go in and values
//! come out.

#[cfg(feature = "postgres")]
pub(crate) mod audit;
pub(crate) mod context;
pub(crate) mod errand;
pub(crate) mod id;
pub(crate) mod mask;
pub(crate) mod metrics;
pub(crate) mod outbox;
pub(crate) mod parse;
pub(crate) mod plan;
pub(crate) mod question;
#[cfg(feature = "postgres")]
pub(crate) mod reconcile;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod time;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use id::{CheckpointId, CheckpointKey, TaskId, TaskKey};
use outbox::{Credential, Delivery};
use parse::{Artifact, Thread};
use snapshot::Snapshot;
use status::{Status, TaskState};
use time::Moment;

/// One run of one agent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    /// Its row in the cache; `None` before it is stored.
    pub(crate) key: Option<TaskKey>,
    pub(crate) id: TaskId,
    pub(crate) agent_id: String,
    pub(crate) task_type: String,
    pub(crate) state: TaskState,
    /// The newest state, as a message shows it.
    pub(crate) snapshot: Snapshot,
    /// The Slack conversation as it was said (`#name` or an id); `None` while nobody could tell which.
    pub(crate) channel: Option<String>,
    /// Nobody named the channel for this task: until something is posted, it follows the setting.
    pub(crate) channel_is_default: bool,
    /// The conversation's id, once Slack has told it.
    pub(crate) channel_id: Option<String>,
    /// The message that the task's thread hangs from, once there is one.
    pub(crate) thread_ts: Option<String>,
    /// Somebody else opened the thread: when it is gone it is not ours to replace.
    pub(crate) joined: bool,
    pub(crate) card: Card,
    /// The credential that the task's messages were recorded for.
    pub(crate) credential: Option<Credential>,
    /// The task that this one was started from, in the same cache.
    pub(crate) parent: Option<TaskKey>,
    /// When the task's latest message was handed to Slack; starts the interval.
    pub(crate) last_message_at: Option<Moment>,
    /// It was opened on purpose while another of its agent may have been running.
    pub(crate) opened_anew: bool,
    pub(crate) started_at: Moment,
    pub(crate) updated_at: Moment,
    /// The latest sign of life of the process that reports the task's end, where there is one.
    pub(crate) seen_at: Option<Moment>,
    pub(crate) ended_at: Option<Moment>,
    /// The button to cancel it, where there is to be one.
    pub(crate) cancel: Option<Cancel>,
}

impl Task {
    /// A task that has no checkpoint yet and no place in Slack.
    pub(crate) fn blank(id: TaskId, agent_id: String, task_type: String, now: Moment) -> Self {
        Self {
            key: None,
            id,
            agent_id,
            task_type,
            state: TaskState::Running,
            snapshot: Snapshot::blank(),
            channel: None,
            channel_is_default: false,
            channel_id: None,
            thread_ts: None,
            joined: false,
            card: Card::Missing,
            credential: None,
            parent: None,
            last_message_at: None,
            opened_anew: false,
            started_at: now,
            updated_at: now,
            seen_at: None,
            ended_at: None,
            cancel: None,
        }
    }
}

/// A button that cancels a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cancel {
    /// Proves that it is ours.
    pub(crate) nonce: String,
    /// The ids of those who may use it; empty for any person.
    pub(crate) approvers: Vec<String>,
}

/// The message that is edited to show a task's newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Card {
    /// Not posted yet, or deleted in Slack: the next message becomes the card.
    Missing,
    /// The `ts` of the card.
    At(String),
    /// Slack refuses to edit it for good (an edit window that closed); replies go on.
    Frozen,
}

/// One recorded moment in a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint {
    /// Its row in the cache; `None` before it is stored.
    pub(crate) key: Option<CheckpointKey>,
    pub(crate) id: CheckpointId,
    pub(crate) status: Status,
    pub(crate) progress: u8,
    pub(crate) tokens: Option<u64>,
    pub(crate) context_limit: u64,
    /// The whole text, however long.
    pub(crate) action: Option<String>,
    /// The whole text, however long.
    pub(crate) error: Option<String>,
    /// The last lines that a wrapped command wrote, as plain text.
    pub(crate) tail: Option<String>,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) meta: BTreeMap<String, String>,
    /// Milliseconds since the task's first checkpoint.
    pub(crate) elapsed_ms: u64,
    pub(crate) created_at: Moment,
    pub(crate) delivery: Delivery,
    /// Slack's or the network's reason, where the delivery has one.
    pub(crate) delivery_error: Option<String>,
    /// The message that shows this checkpoint, where there is one.
    pub(crate) message_ts: Option<String>,
}

/// What a caller says in one checkpoint, read and masked but not yet joined with its task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) id: CheckpointId,
    pub(crate) agent_id: String,
    pub(crate) status: Status,
    pub(crate) progress: Option<u8>,
    pub(crate) tokens: Option<u64>,
    pub(crate) context_limit: Option<u64>,
    pub(crate) name: Option<String>,
    pub(crate) task_type: Option<String>,
    pub(crate) repo: Option<String>,
    /// The repo to use when neither the caller nor the task knows one.
    pub(crate) repo_default: Option<String>,
    pub(crate) action: Option<String>,
    pub(crate) error: Option<String>,
    /// The last lines that a wrapped command wrote, as plain text.
    pub(crate) tail: Option<String>,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) meta: BTreeMap<String, String>,
    /// The Slack conversation, where the caller named one.
    pub(crate) channel: Option<String>,
    /// An existing thread to join.
    pub(crate) thread: Option<Thread>,
    /// Post now, whatever the interval.
    pub(crate) force: bool,
    /// Open a new task, whatever the state of the present one.
    pub(crate) new: bool,
    /// Stay in this task, whatever its state.
    pub(crate) within: Option<TaskId>,
    /// The id of the task that it opens, if it opens one and the caller has told it already.
    pub(crate) opens: Option<TaskId>,
    /// The task that a new one is started from.
    pub(crate) parent: Option<Parent>,
    /// The task of the wrapped command that says it of itself: one that it opens is the wrapper's to end as well.
    pub(crate) inside: Option<TaskId>,
    /// Whether the caller is told what people want of the agent; `None` where it says nothing of that.
    pub(crate) listens: Option<bool>,
}

/// The task that another is started from, as far as its environment tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) task: TaskId,
    /// Its agent, whose latest task it is if there is none with that id.
    pub(crate) agent_id: Option<String>,
}

impl Draft {
    /// A checkpoint that says nothing but its status.
    pub(crate) fn bare(id: CheckpointId, agent_id: String, status: Status) -> Self {
        Self {
            id,
            agent_id,
            status,
            progress: None,
            tokens: None,
            context_limit: None,
            name: None,
            task_type: None,
            repo: None,
            repo_default: None,
            action: None,
            error: None,
            tail: None,
            artifacts: Vec::new(),
            meta: BTreeMap::new(),
            channel: None,
            thread: None,
            force: false,
            new: false,
            within: None,
            opens: None,
            parent: None,
            inside: None,
            listens: None,
        }
    }
}

#[cfg(test)]
impl Draft {
    /// A checkpoint of this agent at the beginning of time.
    pub(crate) fn of(agent_id: &str, status: Status) -> Self {
        Self::bare(CheckpointId::new(Moment(0)), agent_id.to_owned(), status)
    }
}
