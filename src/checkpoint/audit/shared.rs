//! A task as the database has it, whoever told of it, and what it is to us.

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::{ClockOffset, FROZEN, Known, Latest, OURS, Slack};
use crate::checkpoint::id::TaskId;
use crate::checkpoint::outbox::Credential;
use crate::checkpoint::question::is_nonce;
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Card, Task};

/// A row of `agent_tasks` as it is read back, whoever wrote it. Moments are milliseconds since 1970 by the server's clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StoredRow {
    pub(crate) id: Uuid,
    pub(crate) agent_id: String,
    pub(crate) task_type: String,
    pub(crate) task_name: Option<String>,
    pub(crate) repo_scope: Option<String>,
    pub(crate) status: String,
    pub(crate) progress: i32,
    pub(crate) slack_channel: Option<String>,
    pub(crate) slack_thread_ts: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) completed_at: Option<i64>,
    pub(crate) updated_at: i64,
    pub(crate) metadata: Option<String>,
}

/// A task as everybody who shares the database knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedTask {
    /// With no row of the cache; moments are by this machine's clock.
    pub(crate) task: Task,
    /// Which checkpoint it shows; none for a task that another program made, or ended.
    pub(crate) latest: Option<Latest>,
}

/// A value as one of our types. By way of its text, as the cache's are read: to read the same types of values as well would
/// be as much code again.
pub(crate) fn of_value<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_str(&value.to_string()).ok()
}

impl StoredRow {
    /// The task that it stands for.
    pub(crate) fn task(self, offset: ClockOffset) -> SharedTask {
        let metadata = self.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let metadata: Value = metadata.unwrap_or_default();
        let known: Known = of_value(&metadata[OURS]).unwrap_or_default();
        let whole = |column: &str| metadata[OURS]["whole"][column].as_str().map(str::to_owned);
        let agent_id = whole("agent_id").unwrap_or(self.agent_id);
        let local = |at: i64| Moment(at.saturating_sub(offset.0));
        let state = match self.status.as_str() {
            "completed" => TaskState::Completed,
            "failed" => TaskState::Failed,
            "cancelled" => TaskState::Cancelled,
            // It is not for us to ask who may approve what another program put there: the agent runs.
            _ => TaskState::Running,
        };
        // Another program may have ended what we told of.
        let is_ended = |snapshot: &Snapshot| state.is_closed() && !snapshot.status.is_terminal();
        let ended_by_another = known.snapshot.as_ref().is_some_and(is_ended);
        let mut snapshot = known.snapshot.unwrap_or_else(|| Snapshot {
            status: shown_as(state),
            progress: u8::try_from(self.progress.clamp(0, 100)).unwrap_or(0),
            name: whole("task_name").or(self.task_name).filter(|name| *name != agent_id),
            repo: whole("repo_scope").or(self.repo_scope),
            ..Snapshot::blank()
        });
        if ended_by_another {
            snapshot.status = shown_as(state);
        }
        // A button's value is not whatever somebody wrote there: Slack would refuse the card.
        snapshot.cancel = snapshot.cancel.filter(|secret| is_nonce(secret));
        let started_at = local(self.started_at.unwrap_or(self.created_at));
        let task_type = whole("task_type").unwrap_or(self.task_type);
        let thread_ts = whole("slack_thread_ts").or(self.slack_thread_ts);
        let Slack { channel, channel_id, card, joined, credential } = known.slack;
        let channel = channel.or_else(|| self.slack_channel.clone());
        let task = Task {
            state,
            snapshot,
            channel_id: channel_id.or_else(|| self.slack_channel.filter(|_| thread_ts.is_some())),
            channel,
            joined,
            card: match (card, &thread_ts) {
                (Some(ts), Some(_)) if ts == FROZEN => Card::Frozen,
                (Some(ts), Some(_)) => Card::At(ts),
                // Another program's first message is not ours to edit.
                _ => Card::Missing,
            },
            thread_ts,
            credential: credential.map(Credential::stored),
            updated_at: local(self.updated_at),
            ended_at: self.completed_at.map(local),
            ..Task::blank(TaskId(self.id), agent_id, task_type, started_at)
        };
        SharedTask { task, latest: known.latest.filter(|_| !ended_by_another) }
    }
}

/// How a task is shown of which nothing but its state is known.
fn shown_as(state: TaskState) -> Status {
    match state {
        TaskState::Running | TaskState::Pending | TaskState::Approved => Status::Working,
        TaskState::Failed => Status::Error,
        TaskState::Completed => Status::Complete,
        TaskState::Cancelled => Status::Cancelled,
    }
}

/// Fills in what a task that was begun without knowledge of another has not said, from that other one: they are the
/// same.
pub(crate) fn inherit(snapshot: &mut Snapshot, elder: &Snapshot) {
    if snapshot.name.is_none() {
        snapshot.name.clone_from(&elder.name);
    }
    if snapshot.repo.is_none() {
        snapshot.repo.clone_from(&elder.repo);
    }
    if snapshot.tokens.is_none() {
        (snapshot.tokens, snapshot.context_limit) = (elder.tokens, elder.context_limit);
        (snapshot.context, snapshot.context_told) = (elder.context, elder.context_told);
    }
    if snapshot.progress == 0 && !snapshot.status.is_terminal() {
        snapshot.progress = elder.progress;
    }
    if snapshot.action.is_none() {
        snapshot.action.clone_from(&elder.action);
    }
    if snapshot.listens != Some(true) {
        snapshot.listens = elder.listens.or(snapshot.listens);
    }
    if snapshot.cancel.is_none() {
        snapshot.cancel.clone_from(&elder.cancel);
    }
    let steps = std::mem::take(&mut snapshot.steps);
    snapshot.steps.clone_from(&elder.steps);
    for step in &steps {
        snapshot.push_step(step);
    }
    let (artifacts, count) = (std::mem::take(&mut snapshot.artifacts), snapshot.artifact_count);
    snapshot.artifacts.clone_from(&elder.artifacts);
    snapshot.artifact_count = elder.artifact_count;
    let unnamed = count.saturating_sub(artifacts.len() as u64);
    snapshot.push_artifacts(&artifacts);
    snapshot.artifact_count += unnamed;
}
