//! Between the tables of the audit trail and domain values; the only place that knows the order of the columns read.
//!
//! What this program adds stands in `metadata` under [`OURS`]: a task's snapshot, and under `whole` what a column was too
//! narrow for. Other programs write such rows too, so that whatever may be null or missing is taken as such.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::report::{Asked, Intervention, Listed, Made};
use crate::checkpoint::audit::{OURS, of_value};
use crate::checkpoint::context::{self, DEFAULT_LIMIT, Thresholds};
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::metrics::{Date, Totals};
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Card, Checkpoint, Task};

/// What a task `t` is joined with: how many checkpoints it has and, where it has no snapshot, the newest of them and what
/// was done and said last.
pub(super) const CHECKPOINTS: &str = "LEFT JOIN LATERAL \
     (SELECT count(*) AS count FROM agent_checkpoints WHERE task_id = t.id) n ON true \
     LEFT JOIN LATERAL (SELECT * FROM agent_checkpoints \
     WHERE task_id = t.id AND t.metadata->'agent_checkpoint'->'snapshot' IS NULL \
     ORDER BY created_at DESC, id DESC LIMIT 1) c ON true \
     LEFT JOIN LATERAL (SELECT action_description FROM agent_checkpoints \
     WHERE task_id = t.id AND t.metadata->'agent_checkpoint'->'snapshot' IS NULL AND action_description IS NOT NULL \
     ORDER BY created_at DESC, id DESC LIMIT 1) a ON true";

/// The order in which rows `t` were recorded: moments are shared, and of those of one machine it has the numbers.
pub(super) const IN_ORDER: &str = "ORDER BY t.created_at, CASE \
     WHEN t.metadata->'agent_checkpoint'->>'seq' ~ '^[0-9]{1,18}$' \
     THEN (t.metadata->'agent_checkpoint'->>'seq')::int8 END, t.id";

/// The tokens that a task `t` had last in its context.
pub(super) const TOKENS: &str = "CASE WHEN t.metadata->'agent_checkpoint'->'snapshot' IS NULL \
     THEN (SELECT tokens_used FROM agent_checkpoints WHERE task_id = t.id AND tokens_used IS NOT NULL \
     ORDER BY created_at DESC, id DESC LIMIT 1)::int8 \
     WHEN t.metadata->'agent_checkpoint'->'snapshot'->>'tokens' ~ '^[0-9]{1,18}$' \
     THEN (t.metadata->'agent_checkpoint'->'snapshot'->>'tokens')::int8 END";

/// A time as milliseconds since 1970; none for one that another program left at infinity.
fn maybe_ms(column: &str) -> String {
    format!(
        "CASE WHEN {column} > '-infinity' AND {column} < 'infinity' \
         THEN round(extract(epoch FROM date_trunc('milliseconds', {column})) * 1000)::int8 END"
    )
}

/// The first of these times that is one.
fn first_ms(columns: &[&str]) -> String {
    let each: Vec<String> = columns.iter().map(|column| maybe_ms(column)).collect();
    format!("coalesce({})", each.join(", "))
}

/// The columns that [`listed`] reads.
pub(super) fn task_columns() -> String {
    let times = [
        first_ms(&["t.started_at", "t.created_at", "t.updated_at"]),
        first_ms(&["t.updated_at", "t.created_at", "t.started_at"]),
        maybe_ms("t.completed_at"),
    ];
    let times = times.join(", ");
    format!(
        "t.id::text, t.agent_id::text, t.task_type::text, t.task_name::text, t.repo_scope::text, t.status::text, \
         t.progress::int8, t.slack_channel::text, t.slack_thread_ts::text, t.error_message::text, \
         (t.metadata->'{OURS}')::text, {times}, n.count, \
         c.id IS NOT NULL, c.status::text, c.checkpoint_type::text, {TOKENS}, c.context_limit::int8, \
         c.elapsed_seconds::int8, c.error_message::text, a.action_description::text"
    )
}

pub(super) fn listed(row: &Row) -> Result<Listed, Error> {
    let ours = object(row, 10)?;
    let text = |column: &str, index| -> Result<Option<String>, Error> {
        let cut: Option<String> = row.try_get(index)?;
        Ok(whole(&ours, column).or(cut))
    };
    let started_at = known_moment(row, 11, 0)?;
    let ended_at = moment(row, 13)?;
    let state = task_state(row.try_get(5)?, ended_at);
    let kept = ours.get("snapshot").and_then(of_value);
    let snapshot = match kept {
        Some(snapshot) => snapshot,
        None => assembled(row, state, (started_at, ended_at))?,
    };
    let blank = Task::blank(
        TaskId(uuid(row, 0)?),
        text("agent_id", 1)?.unwrap_or_default(),
        text("task_type", 2)?.unwrap_or_default(),
        started_at,
    );
    let slack = ours.get("slack").and_then(Value::as_object).cloned().unwrap_or_default();
    let task = Task {
        state,
        snapshot,
        channel: string(&slack, "channel").or(row.try_get(7)?),
        channel_id: string(&slack, "channel_id"),
        thread_ts: row.try_get(8)?,
        card: string(&slack, "card").filter(|card| card != "frozen").map_or(Card::Missing, Card::At),
        updated_at: known_moment(row, 12, 0)?,
        ended_at,
        ..blank
    };
    Ok(Listed { task, checkpoints: number(row, 14)?.unwrap_or(0) })
}

/// The snapshot of a task for which nobody kept one, from its columns and its newest checkpoint.
fn assembled(
    row: &Row,
    state: TaskState,
    (started_at, ended_at): (Moment, Option<Moment>),
) -> Result<Snapshot, Error> {
    let has_checkpoint: bool = row.try_get(15)?;
    let tokens = number(row, 18)?;
    let context_limit = limit(row, 19)?;
    let ran = ended_at.map_or(0, |ended| between(started_at, ended));
    // Without a checkpoint the task itself may still say why it failed.
    let error: Option<&str> = row.try_get(if has_checkpoint { 21 } else { 9 })?;
    let action: Option<&str> = row.try_get(22)?;
    Ok(Snapshot {
        status: if has_checkpoint { status(row, 16, 17)? } else { implied(state) },
        progress: percent(row, 6)?,
        name: row.try_get(3)?,
        repo: row.try_get(4)?,
        tokens,
        context_limit,
        context: context::level(tokens.unwrap_or(0), context_limit, Thresholds::default()),
        action: action.map(Excerpt::of),
        error: error.map(Excerpt::of),
        elapsed_ms: number(row, 20)?.map_or(ran, |seconds| seconds.saturating_mul(1000)),
        ..Snapshot::blank()
    })
}

/// The columns that [`checkpoint`] reads.
pub(super) fn checkpoint_columns() -> String {
    let created_at = maybe_ms("t.created_at");
    format!(
        "t.id::text, t.status::text, t.checkpoint_type::text, t.progress::int8, t.tokens_used::int8, \
         t.context_limit::int8, t.action_description::text, t.error_message::text, t.elapsed_seconds::int8, \
         {created_at}, t.metadata::text"
    )
}

/// Without its artifacts. What became of its message only the machine that recorded it knows.
pub(super) fn checkpoint(row: &Row, task: &Task) -> Result<Checkpoint, Error> {
    let created_at = known_moment(row, 9, 0)?;
    let since_start = between(task.started_at, created_at);
    let mut meta = object(row, 10)?;
    let ours = match meta.remove(OURS) {
        Some(Value::Object(ours)) => ours,
        _ => Map::new(),
    };
    let mut said = BTreeMap::new();
    said.extend(meta.into_iter().map(|(name, value)| (name, plain(&value))));
    Ok(Checkpoint {
        key: None,
        id: CheckpointId(uuid(row, 0)?),
        status: status(row, 1, 2)?,
        progress: percent(row, 3)?,
        tokens: whole(&ours, "tokens_used").and_then(|text| text.parse().ok()).or(number(row, 4)?),
        context_limit: limit(row, 5)?,
        action: row.try_get(6)?,
        error: row.try_get(7)?,
        tail: string(&ours, "tail"),
        artifacts: Vec::new(),
        meta: said,
        elapsed_ms: number(row, 8)?.map_or(since_start, |seconds| seconds.saturating_mul(1000)),
        created_at,
        delivery: Delivery::Off,
        delivery_error: None,
        message_ts: None,
    })
}

/// What a row of [`checkpoint_columns`] says of people; most say nothing.
pub(super) fn asked(row: &Row) -> Result<Option<Asked>, Error> {
    let text: Option<&str> = row.try_get(10)?;
    if !text.is_some_and(|text| text.contains("\"request_id\"")) {
        return Ok(None);
    }
    let metadata = object(row, 10)?;
    let told = |what: &str| Some(metadata.get(OURS)?.get(what)?.to_string());
    Ok(Some(Asked { question: told("question"), answer: told("answer") }))
}

/// The columns that [`artifact`] reads.
pub(super) fn artifact_columns() -> String {
    let created_at = maybe_ms("t.created_at");
    format!(
        "t.artifact_name::text, coalesce(t.artifact_url, t.artifact_content)::text, (t.metadata->'{OURS}')::text, \
         {created_at}"
    )
}

pub(super) fn artifact(row: &Row) -> Result<Made, Error> {
    let ours = object(row, 2)?;
    let name = whole(&ours, "artifact_name").or(row.try_get(0)?);
    let artifact = match row.try_get(1)? {
        Some(target) => Artifact { name, target },
        // One that has nothing but a name is what it is called.
        None => Artifact { name: None, target: name.unwrap_or_default() },
    };
    let checkpoint_id = string(&ours, "checkpoint_id");
    Ok(Made { artifact, checkpoint_id, created_at: moment(row, 3)?.unwrap_or(Moment::UNKNOWN) })
}

/// The columns that [`intervention`] reads.
pub(super) fn intervention_columns() -> String {
    let created_at = maybe_ms("t.created_at");
    format!("t.id::text, t.intervention_type::text, t.user_id::text, t.action_details::text, {created_at}")
}

pub(super) fn intervention(row: &Row) -> Result<Intervention, Error> {
    let kind: Option<String> = row.try_get(1)?;
    Ok(Intervention {
        id: row.try_get(0)?,
        kind: kind.unwrap_or_default(),
        user_id: row.try_get(2)?,
        details: row.try_get(3)?,
        created_at: known_moment(row, 4, 0)?,
    })
}

/// A day, the counts of its tasks, the average of their durations, and tokens.
pub(super) fn totals(row: &Row) -> Result<Totals, Error> {
    let day: i64 = row.try_get(0)?;
    Ok(Totals {
        date: Date::of(Moment(day.saturating_mul(86_400_000))),
        total: number(row, 1)?.unwrap_or(0),
        completed: number(row, 2)?.unwrap_or(0),
        failed: number(row, 3)?.unwrap_or(0),
        cancelled: number(row, 4)?.unwrap_or(0),
        avg_duration: row.try_get(5)?,
        tokens: number(row, 6)?.unwrap_or(0),
    })
}

/// A state that is none of ours counts as open until the task has ended.
fn task_state(text: Option<&str>, ended_at: Option<Moment>) -> TaskState {
    let known = text.and_then(|text| TaskState::parse(text).ok());
    known.unwrap_or(if ended_at.is_some() { TaskState::Completed } else { TaskState::Running })
}

/// What a task that has no checkpoint says of its agent.
fn implied(state: TaskState) -> Status {
    match state {
        TaskState::Running | TaskState::Pending | TaskState::Approved => Status::Starting,
        TaskState::Failed => Status::Error,
        TaskState::Completed => Status::Complete,
        TaskState::Cancelled => Status::Cancelled,
    }
}

/// A checkpoint's status, or what its type says where that is none of ours.
fn status(row: &Row, status: usize, kind: usize) -> Result<Status, Error> {
    let said: Option<&str> = row.try_get(status)?;
    let kind: Option<&str> = row.try_get(kind)?;
    Ok(said.and_then(|said| Status::parse(said).ok()).unwrap_or(match kind {
        Some("start") => Status::Starting,
        Some("complete") => Status::Complete,
        Some("error") => Status::Error,
        _ => Status::Checkpoint,
    }))
}

fn moment(row: &Row, index: usize) -> Result<Option<Moment>, Error> {
    Ok(row.try_get::<_, Option<i64>>(index)?.map(Moment))
}

/// The same of something that has its time in its id as well, where that is one of ours.
fn known_moment(row: &Row, index: usize, id: usize) -> Result<Moment, Error> {
    if let Some(moment) = moment(row, index)? {
        return Ok(moment);
    }
    let made_at = uuid(row, id)?.get_timestamp().map(|time| {
        let (seconds, nanos) = time.to_unix();
        let millis = seconds.saturating_mul(1000).saturating_add(u64::from(nanos) / 1_000_000);
        Moment(i64::try_from(millis).unwrap_or(i64::MAX))
    });
    Ok(made_at.unwrap_or(Moment::UNKNOWN))
}

/// The milliseconds between two moments; none where one is unknown, or they are in the wrong order.
fn between(first: Moment, last: Moment) -> u64 {
    let is_known = first.is_known() && last.is_known();
    if is_known { u64::try_from(last.0.saturating_sub(first.0)).unwrap_or(0) } else { 0 }
}

/// A number of things, which cannot be negative.
fn number(row: &Row, index: usize) -> Result<Option<u64>, Error> {
    Ok(row.try_get::<_, Option<i64>>(index)?.map(|number| u64::try_from(number).unwrap_or(0)))
}

fn limit(row: &Row, index: usize) -> Result<u64, Error> {
    Ok(number(row, index)?.filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT))
}

fn percent(row: &Row, index: usize) -> Result<u8, Error> {
    let number: Option<i64> = row.try_get(index)?;
    Ok(u8::try_from(number.unwrap_or(0).clamp(0, 100)).unwrap_or(0))
}

fn uuid(row: &Row, index: usize) -> Result<Uuid, Error> {
    Ok(Uuid::parse_str(row.try_get(index)?).unwrap_or_default())
}

/// Empty where there is none, or where it is something else.
fn object(row: &Row, index: usize) -> Result<Map<String, Value>, Error> {
    let text: Option<&str> = row.try_get(index)?;
    Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}

/// What a column was too narrow for.
fn whole(ours: &Map<String, Value>, column: &str) -> Option<String> {
    ours.get("whole")?.get(column).map(plain)
}

fn string(ours: &Map<String, Value>, name: &str) -> Option<String> {
    ours.get(name)?.as_str().map(str::to_owned)
}

/// A value as text, which has no quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
