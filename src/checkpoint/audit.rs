//! The audit trail's rows: what is told of tasks and checkpoints in PostgreSQL, and what is read back.

pub(crate) mod people;
mod shared;
mod untold;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(crate) use self::shared::{SharedTask, StoredRow, inherit, of_value};
pub(crate) use self::untold::{Untold, latest, running};
use super::id::{CheckpointKey, TaskId};
use super::question::{Answer, Question, RequestId};
use super::snapshot::Snapshot;
use super::status::Status;
use super::time::Moment;
use super::{Card, Checkpoint, Task};

/// The key of the `metadata` columns under which everything of ours stands: the rest is the caller's.
pub(crate) const OURS: &str = "agent_checkpoint";

/// How many characters the columns hold, as databases have them that exist.
const AGENT_ID_MAX: usize = 255;
const TASK_TYPE_MAX: usize = 50;
const TASK_NAME_MAX: usize = 500;
const REPO_MAX: usize = 255;
const SLACK_MAX: usize = 50;
const ARTIFACT_NAME_MAX: usize = 255;

/// What stands for a card that Slack refuses to edit; a `ts` never looks like it.
const FROZEN: &str = "frozen";

/// The last millisecond of the year 9999: later ones are no date to most readers.
const LATEST: i64 = 253_402_300_799_999;

/// What corrects this machine's clock: milliseconds to add to its moments to have the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockOffset(pub(crate) i64);

/// Which checkpoint a task's row shows, so that an older one that arrives later changes nothing.
///
/// Of two from one cache the later one has the higher key, whatever its clock said; between caches the time decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latest {
    pub(crate) cache: String,
    pub(crate) key: i64,
    /// Milliseconds since 1970 by the server's clock.
    pub(crate) at_ms: i64,
}

/// A task to be told, as the cache has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuditTask {
    pub(crate) task: Task,
    /// Its latest checkpoint.
    pub(crate) newest: CheckpointKey,
    /// The thread that the database is known to have.
    pub(crate) shared_thread_ts: Option<String>,
    /// Where a person asked for the agent.
    pub(crate) request: Option<Request>,
}

/// What a person asked an agent for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whose Slack id it is.
    pub(crate) user_id: Option<String>,
    /// What the agent is to do.
    pub(crate) text: Option<String>,
}

/// A checkpoint to be told, as the cache has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuditCheckpoint {
    pub(crate) key: CheckpointKey,
    pub(crate) task: TaskId,
    pub(crate) agent_id: String,
    /// The first of its task.
    pub(crate) is_first: bool,
    pub(crate) checkpoint: Checkpoint,
    /// The question whose message it is.
    pub(crate) asks: Option<Box<Question>>,
    /// The end of a question that it tells of.
    pub(crate) decides: Option<Box<(RequestId, Answer)>>,
}

/// What a person did, to be told, as the cache has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuditIntervention {
    /// Its row in the cache; grows with time.
    pub(crate) key: i64,
    pub(crate) id: Uuid,
    pub(crate) task: TaskId,
    pub(crate) agent_id: String,
    pub(crate) kind: String,
    pub(crate) user_id: Option<String>,
    /// An object with all else that is known.
    pub(crate) details: Value,
    pub(crate) at: Moment,
}

/// A row of `human_interventions`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InterventionRow {
    pub(crate) id: String,
    pub(crate) task_id: String,
    pub(crate) agent_id: String,
    pub(crate) intervention_type: String,
    pub(crate) user_id: Option<String>,
    pub(crate) action_details: String,
    pub(crate) created_at: i64,
}

/// A row of `agent_tasks`. Moments are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskRow {
    pub(crate) id: String,
    pub(crate) agent_id: String,
    pub(crate) task_type: String,
    pub(crate) task_name: String,
    pub(crate) repo_scope: Option<String>,
    pub(crate) status: &'static str,
    pub(crate) progress: i32,
    pub(crate) slack_channel: Option<String>,
    pub(crate) slack_thread_ts: Option<String>,
    pub(crate) started_at: i64,
    pub(crate) completed_at: Option<i64>,
    pub(crate) updated_at: i64,
    pub(crate) result_summary: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) artifacts: Option<String>,
    pub(crate) metadata: String,
    pub(crate) description: Option<String>,
    pub(crate) requested_by: Option<String>,
}

/// A row of `agent_checkpoints`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckpointRow {
    pub(crate) id: String,
    pub(crate) task_id: String,
    pub(crate) agent_id: String,
    pub(crate) checkpoint_type: &'static str,
    pub(crate) action_description: Option<String>,
    pub(crate) progress: i32,
    pub(crate) tokens_used: Option<i32>,
    pub(crate) context_limit: i32,
    pub(crate) status: &'static str,
    pub(crate) elapsed_seconds: i32,
    pub(crate) error_message: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) metadata: String,
}

/// A row of `task_artifacts`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArtifactRow {
    pub(crate) id: String,
    pub(crate) task_id: String,
    pub(crate) agent_id: String,
    pub(crate) artifact_type: &'static str,
    pub(crate) artifact_name: Option<String>,
    pub(crate) artifact_url: String,
    pub(crate) created_at: i64,
    pub(crate) metadata: String,
}

/// Columns whose text was cut, whole.
#[derive(Debug, Default)]
struct Whole(Map<String, Value>);

impl Whole {
    /// A number as far as the column holds it; keeps a larger one.
    fn number(&mut self, column: &str, value: u64) -> i32 {
        i32::try_from(value).unwrap_or_else(|_| {
            self.0.insert(column.to_owned(), json!(value));
            i32::MAX
        })
    }

    /// As much of a text as the column holds; keeps the whole of one that is longer.
    fn cut(&mut self, column: &str, text: &str, max: usize) -> String {
        let text = storable(text);
        match text.char_indices().nth(max) {
            None => text,
            Some((end, _)) => {
                let start = text[..end].to_owned();
                self.0.insert(column.to_owned(), Value::String(text));
                start
            }
        }
    }
}

/// PostgreSQL stores every character but one.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A `metadata` column: what the caller gave, and beside it what is ours.
fn metadata(mut theirs: Map<String, Value>, mut ours: Map<String, Value>, Whole(whole): Whole) -> String {
    if !whole.is_empty() {
        ours.insert("whole".to_owned(), Value::Object(whole));
    }
    if let Some(same) = theirs.remove(OURS) {
        ours.insert("meta".to_owned(), json!({ OURS: same }));
    }
    theirs.insert(OURS.to_owned(), Value::Object(ours));
    storable_json(&Value::Object(theirs))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn whole_number(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl ClockOffset {
    fn correct(self, moment: Moment) -> i64 {
        moment.0.saturating_add(self.0).clamp(0, LATEST)
    }
}

impl AuditTask {
    /// Its row, as of its newest checkpoint.
    pub(crate) fn row(&self, cache: &str, offset: ClockOffset) -> TaskRow {
        let (task, mut whole) = (&self.task, Whole::default());
        let snapshot = &task.snapshot;
        let updated_at = offset.correct(task.updated_at);
        let latest = Latest { cache: cache.to_owned(), key: self.newest.0, at_ms: updated_at };
        let known = Known {
            latest: Some(latest),
            snapshot: Some(snapshot.clone()),
            slack: Slack {
                channel: task.channel.clone(),
                channel_id: task.channel_id.clone(),
                card: match &task.card {
                    Card::At(ts) => Some(ts.clone()),
                    Card::Frozen => Some(FROZEN.to_owned()),
                    Card::Missing => None,
                },
                joined: task.joined,
                credential: task.credential.as_ref().map(|credential| credential.as_str().to_owned()),
            },
            replaces: self.shared_thread_ts.clone(),
        };
        let channel = task.channel_id.as_ref().or(task.channel.as_ref());
        let request = self.request.as_ref();
        let asker = request.and_then(|request| request.user_id.as_ref());
        let summary = || snapshot.action.as_ref().map(|action| storable(&action.text));
        TaskRow {
            id: task.id.to_string(),
            agent_id: whole.cut("agent_id", &task.agent_id, AGENT_ID_MAX),
            task_type: whole.cut("task_type", &task.task_type, TASK_TYPE_MAX),
            task_name: whole.cut(
                "task_name",
                snapshot.name.as_ref().unwrap_or(&task.agent_id),
                TASK_NAME_MAX,
            ),
            repo_scope: snapshot.repo.as_ref().map(|repo| whole.cut("repo_scope", repo, REPO_MAX)),
            status: task.state.name(),
            progress: i32::from(snapshot.progress),
            slack_channel: channel.map(|channel| whole.cut("slack_channel", channel, SLACK_MAX)),
            slack_thread_ts: task.thread_ts.as_ref().map(|ts| whole.cut("slack_thread_ts", ts, SLACK_MAX)),
            started_at: offset.correct(task.started_at),
            completed_at: task.ended_at.map(|at| offset.correct(at)),
            updated_at,
            result_summary: if snapshot.status.is_terminal() { summary() } else { None },
            error_message: snapshot.error.as_ref().map(|error| storable(&error.text)),
            artifacts: (!snapshot.artifacts.is_empty()).then(|| storable_json(&json!(snapshot.artifacts))),
            description: request.and_then(|request| request.text.as_deref()).map(storable),
            requested_by: asker.map(|id| whole.cut("requested_by", id, SLACK_MAX)),
            metadata: metadata(Map::new(), object(json!(known)), whole),
        }
    }
}

/// JSON text that `jsonb` takes, which has no U+0000.
fn storable_json(value: &Value) -> String {
    let text = value.to_string();
    // Escapes stand for nothing else in JSON, unless the backslash is one that is escaped itself.
    if text.contains("\\u0000") { clean(value).to_string() } else { text }
}

fn clean(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(text)),
        Value::Array(values) => Value::Array(values.iter().map(clean).collect()),
        Value::Object(map) => {
            let mut cleaned = Map::new();
            cleaned.extend(map.iter().map(|(key, value)| (storable(key), clean(value))));
            Value::Object(cleaned)
        }
        other => other.clone(),
    }
}

impl AuditCheckpoint {
    pub(crate) fn row(&self, offset: ClockOffset) -> CheckpointRow {
        let (checkpoint, mut whole) = (&self.checkpoint, Whole::default());
        let checkpoint_type = match checkpoint.status {
            _ if self.is_first => "start",
            Status::Complete | Status::Cancelled => "complete",
            Status::Error => "error",
            _ => "progress",
        };
        let mut ours = object(json!({ "seq": self.key.0 }));
        if let Some(tail) = &checkpoint.tail {
            ours.insert("tail".to_owned(), json!(tail));
        }
        if let Some(question) = &self.asks {
            ours.insert("question".to_owned(), people::question(question, offset));
        }
        if let Some(decided) = &self.decides {
            ours.insert("answer".to_owned(), people::answer(decided, offset));
        }
        CheckpointRow {
            id: checkpoint.id.to_string(),
            task_id: self.task.to_string(),
            agent_id: whole.cut("agent_id", &self.agent_id, AGENT_ID_MAX),
            checkpoint_type,
            action_description: checkpoint.action.as_deref().map(storable),
            progress: i32::from(checkpoint.progress),
            tokens_used: checkpoint.tokens.map(|tokens| whole.number("tokens_used", tokens)),
            context_limit: whole.number("context_limit", checkpoint.context_limit),
            status: checkpoint.status.name(),
            elapsed_seconds: whole_number(checkpoint.elapsed_ms / 1000),
            error_message: checkpoint.error.as_deref().map(storable),
            created_at: offset.correct(checkpoint.created_at),
            metadata: metadata(object(json!(checkpoint.meta)), ours, whole),
        }
    }

    /// The rows of what it made.
    pub(crate) fn artifacts(&self, offset: ClockOffset) -> Vec<ArtifactRow> {
        let made = self.checkpoint.artifacts.iter().enumerate();
        made.map(|(index, artifact)| {
            let mut whole = Whole::default();
            let name = artifact.name.as_ref();
            let artifact_name = name.map(|name| whole.cut("artifact_name", name, ARTIFACT_NAME_MAX));
            ArtifactRow {
                id: derived(self.checkpoint.id.0, index).to_string(),
                task_id: self.task.to_string(),
                agent_id: whole.cut("agent_id", &self.agent_id, AGENT_ID_MAX),
                artifact_type: if artifact.is_link() { "url" } else { "file" },
                artifact_name,
                artifact_url: storable(&artifact.target),
                created_at: offset.correct(self.checkpoint.created_at),
                metadata: metadata(
                    Map::new(),
                    object(json!({ "seq": index, "checkpoint_id": self.checkpoint.id.to_string() })),
                    whole,
                ),
            }
        })
        .collect()
    }

    /// About how many bytes its rows take.
    pub(crate) fn size(&self) -> usize {
        let Checkpoint { action, error, tail, artifacts, meta, .. } = &self.checkpoint;
        let texts: usize = [action, error, tail].into_iter().flatten().map(String::len).sum();
        let made: usize = artifacts.iter().map(|artifact| artifact.target.len() + 200).sum();
        let said: usize = meta.iter().map(|(key, value)| key.len() + value.len()).sum();
        let asked = self.asks.as_ref().map_or(0, |question| question.whole().len() + 500);
        200 + texts + made + said + asked
    }
}

impl AuditIntervention {
    pub(crate) fn row(&self, offset: ClockOffset) -> InterventionRow {
        // There is no column for what is cut: details hold whatever is longer than these.
        let mut whole = Whole::default();
        InterventionRow {
            id: self.id.to_string(),
            task_id: self.task.to_string(),
            agent_id: whole.cut("agent_id", &self.agent_id, AGENT_ID_MAX),
            intervention_type: whole.cut("intervention_type", &self.kind, SLACK_MAX),
            user_id: self.user_id.as_ref().map(|user| whole.cut("user_id", user, SLACK_MAX)),
            action_details: storable_json(&self.details),
            created_at: offset.correct(self.at),
        }
    }
}

/// A UUIDv7 of the same moment as another, always the same for the same index: what was sent is sent again as itself.
fn derived(id: Uuid, index: usize) -> Uuid {
    let hashed = Uuid::new_v5(&id, &index.to_be_bytes());
    let mut bytes = *hashed.as_bytes();
    bytes[..6].copy_from_slice(&id.as_bytes()[..6]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    Uuid::from_bytes(bytes)
}

/// What a task's row keeps beside its columns, so that an agent can go on from it elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latest: Option<Latest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<Snapshot>,
    #[serde(default)]
    slack: Slack,
    /// The thread that the database had when this was told: it alone gives way to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

/// What goes with a thread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Slack {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<String>,
    #[serde(default)]
    joined: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

#[cfg(test)]
mod tests;
