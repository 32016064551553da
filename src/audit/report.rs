//! What the fleet did, read from the database: the same as the cache tells of one machine.
//!
//! A report is one snapshot, in a transaction that can change nothing and that the server itself ends when the caller
//! has gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Error, IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::Trouble;
use super::connect::Client;
use super::forward::lock_limit;
use super::rows;
use crate::checkpoint::audit::ClockOffset;
use crate::checkpoint::audit::people::{read_answer, read_deciding, read_question};
use crate::checkpoint::metrics::{Totals, first_of};
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::question::{Answer, Question, RequestId};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Checkpoint, Task};

/// How many open tasks of one state are looked at, at least: more than there are agents at work, unless many were given up
/// without a word. No index has the times of their changes, which would make each change dearer.
const OPEN_MAX: u64 = 10_000;

/// The server's clock, in milliseconds. Rows bear its times, whatever the clocks of the machines that wrote them say.
const CLOCK: &str =
    "SELECT round(extract(epoch FROM date_trunc('milliseconds', statement_timestamp())) * 1000)::int8";

/// A task, with how many checkpoints it has.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) task: Task,
    pub(crate) checkpoints: u64,
}

/// A task, whole. Its checkpoints have those artifacts that say which of them made them.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) task: Task,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) artifacts: Vec<Made>,
    pub(crate) interventions: Vec<Intervention>,
    /// What was asked, by the server's clock as all of it, and what became of it.
    pub(crate) questions: Vec<(Question, Option<Answer>)>,
}

/// What a checkpoint says of people, as JSON.
#[derive(Debug)]
pub(super) struct Asked {
    /// What it asks.
    pub(super) question: Option<String>,
    /// What was decided.
    pub(super) answer: Option<String>,
}

/// Something that an agent made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) artifact: Artifact,
    /// The checkpoint that told of it, where that is known.
    pub(crate) checkpoint_id: Option<String>,
    pub(crate) created_at: Moment,
}

/// What a person did to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intervention {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) user_id: Option<String>,
    pub(crate) details: Option<String>,
    pub(crate) created_at: Moment,
}

/// The days on which tasks were started, of those days of which the last is today, and the server's time.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn totals(
    client: &mut Client,
    days: u16,
    deadline: Instant,
) -> Result<(Vec<Totals>, Moment), Trouble> {
    // As the cache counts them: by the day of the start, the latest state, the tokens last said. A clock that was set back
    // makes an end look earlier than its start.
    // Worked out row by row first (`OFFSET 0` keeps it so), so that nothing sorts whole rows.
    let sql = format!(
        "SELECT day, count(*), count(*) FILTER (WHERE status = 'completed'), \
         count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'cancelled'), \
         avg(greatest(extract(epoch FROM duration), 0)) FILTER (WHERE duration IS NOT NULL)::float8, \
         least(coalesce(sum(tokens), 0), {max})::int8 \
         FROM (SELECT floor(extract(epoch FROM t.started_at) / 86400)::int8 AS day, t.status, \
         CASE WHEN t.completed_at > '-infinity' AND t.completed_at < 'infinity' \
         THEN t.completed_at - t.started_at END AS duration, {tokens} AS tokens \
         FROM agent_tasks t WHERE t.started_at >= timestamptz 'epoch' + $1 * interval '1 second' \
         AND t.started_at < 'infinity' OFFSET 0) started \
         GROUP BY day ORDER BY day",
        tokens = rows::TOKENS,
        max = i64::MAX,
    );
    read(client, deadline, async |transaction, now| {
        let first = first_of(days, now).begins().0 as f64 / 1000.0;
        let found = transaction.query_typed(&sql, &[(&first, Type::FLOAT8)]).await?;
        found.iter().map(rows::totals).collect()
    })
}

/// The tasks in this state, or in any, the latest change first, and the server's time.
///
/// Of ended tasks, of which there may be very many, and of open ones beyond [`OPEN_MAX`], those that were made last are
/// looked at.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn list(
    client: &mut Client,
    state: Option<TaskState>,
    limit: u64,
    deadline: Instant,
) -> Result<(Vec<Listed>, Moment), Trouble> {
    let all = TaskState::ALL;
    let states = state.as_ref().map_or(all.as_slice(), std::slice::from_ref);
    let branches: Vec<String> = states.iter().map(|state| branch(*state)).collect();
    let sql = format!(
        "SELECT {} FROM (SELECT * FROM ({}) every ORDER BY updated_at DESC, id DESC LIMIT $1) t {} \
         ORDER BY t.updated_at DESC, t.id DESC",
        rows::task_columns(),
        branches.join(" UNION ALL "),
        rows::CHECKPOINTS,
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    read(client, deadline, async |transaction, _| {
        let found = transaction.query_typed(&sql, &[(&limit, Type::INT8)]).await?;
        found.iter().map(rows::listed).collect()
    })
}

/// Tasks in one state, by the index on that and the time at which they were made.
fn branch(state: TaskState) -> String {
    let limit = match state {
        TaskState::Pending | TaskState::Approved | TaskState::Running => &format!("greatest($1, {OPEN_MAX})"),
        TaskState::Failed | TaskState::Completed | TaskState::Cancelled => "$1",
    };
    format!(
        "(SELECT * FROM agent_tasks WHERE status = '{}' ORDER BY created_at DESC LIMIT {limit})",
        state.name()
    )
}

/// The latest task of the agent with this id, or the task with this id, and the server's time.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn find(
    client: &mut Client,
    agent_or_task: &str,
    deadline: Instant,
) -> Result<(Option<Found>, Moment), Trouble> {
    read(client, deadline, async |transaction, _| {
        let Some(found) = latest(transaction, agent_or_task).await? else { return Ok(None) };
        whole(transaction, found.task).await.map(Some)
    })
}

/// The same task with how many artifacts it has, however many belong to it.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn find_brief(
    client: &mut Client,
    agent_or_task: &str,
    deadline: Instant,
) -> Result<Option<(Listed, u64)>, Trouble> {
    let found = read(client, deadline, async |transaction, _| {
        let Some(found) = latest(transaction, agent_or_task).await? else { return Ok(None) };
        let sql = "SELECT count(*) FROM task_artifacts WHERE task_id = $1::text::uuid";
        let count = one(transaction, sql, &found.task.id.to_string()).await?;
        let count: i64 = count.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        Ok(Some((found, u64::try_from(count).unwrap_or_default())))
    })?;
    Ok(found.0)
}

async fn latest(transaction: &Transaction<'_>, agent_or_task: &str) -> Result<Option<Listed>, Error> {
    let by = |condition: &str| {
        format!(
            "SELECT {} FROM (SELECT * FROM agent_tasks WHERE {condition} ORDER BY created_at DESC, id DESC LIMIT 1) t {}",
            rows::task_columns(),
            rows::CHECKPOINTS,
        )
    };
    let mut found = one(transaction, &by("agent_id = $1"), agent_or_task).await?;
    if found.is_none()
        && let Ok(id) = Uuid::parse_str(agent_or_task)
    {
        found = one(transaction, &by("id = $1::text::uuid"), &id.to_string()).await?;
    }
    found.as_ref().map(rows::listed).transpose()
}

async fn one(transaction: &Transaction<'_>, sql: &str, text: &str) -> Result<Option<Row>, Error> {
    transaction.query_typed_opt(sql, &[(&text, Type::TEXT)]).await
}

/// All that belongs to a task.
async fn whole(transaction: &Transaction<'_>, mut task: Task) -> Result<Found, Error> {
    let id = task.id.to_string();
    let all = async |columns: &str, table: &str, order: &str| {
        let sql = format!("SELECT {columns} FROM {table} t WHERE t.task_id = $1::text::uuid {order}");
        transaction.query_typed(&sql, &[(&id, Type::TEXT)]).await
    };
    let checkpoints = all(&rows::checkpoint_columns(), "agent_checkpoints", rows::IN_ORDER).await?;
    let artifacts = all(&rows::artifact_columns(), "task_artifacts", rows::IN_ORDER).await?;
    let interventions =
        all(&rows::intervention_columns(), "human_interventions", "ORDER BY t.created_at, t.id").await?;

    let mut asked = Vec::new();
    for row in &checkpoints {
        asked.extend(rows::asked(row)?);
    }
    let mut checkpoints: Vec<Checkpoint> =
        checkpoints.iter().map(|row| rows::checkpoint(row, &task)).collect::<Result<_, _>>()?;
    let artifacts: Vec<Made> = artifacts.iter().map(rows::artifact).collect::<Result<_, _>>()?;
    let interventions: Vec<Intervention> =
        interventions.iter().map(rows::intervention).collect::<Result<_, _>>()?;
    let questions = answered(&asked, &interventions);
    let mut by_checkpoint: HashMap<&str, Vec<Artifact>> = HashMap::new();
    for made in &artifacts {
        if let Some(id) = &made.checkpoint_id {
            by_checkpoint.entry(id).or_default().push(made.artifact.clone());
        }
    }
    for checkpoint in &mut checkpoints {
        checkpoint.artifacts =
            by_checkpoint.get(checkpoint.id.to_string().as_str()).cloned().unwrap_or_default();
    }
    if task.snapshot.artifact_count == 0 {
        let made: Vec<Artifact> = artifacts.iter().map(|made| made.artifact.clone()).collect();
        task.snapshot.push_artifacts(&made);
    }
    Ok(Found { task, checkpoints, artifacts, interventions, questions })
}

/// The questions among what checkpoints say of people, each with what was decided.
fn answered(asked: &[Asked], interventions: &[Intervention]) -> Vec<(Question, Option<Answer>)> {
    // All times here are the server's.
    let here = ClockOffset(0);
    let mut answers: HashMap<RequestId, Answer> = HashMap::new();
    // The first counts, and what checkpoints say before what people did.
    let told = asked.iter().filter_map(|asked| read_answer(asked.answer.as_ref()?, here));
    let deciding = interventions
        .iter()
        .filter_map(|one| read_deciding(one.details.as_ref()?, one.user_id.clone(), one.created_at));
    for (request, answer) in told.chain(deciding) {
        answers.entry(request).or_insert(answer);
    }
    let questions = asked.iter().filter_map(|asked| read_question(asked.question.as_ref()?, here));
    let each = questions.map(|question| {
        let answer = answers.get(&question.id).cloned();
        (question, answer)
    });
    each.collect()
}

/// Runs `work` on one state of the database, and says what time it is there.
fn read<T>(
    client: &mut Client,
    deadline: Instant,
    work: impl AsyncFnOnce(&Transaction<'_>, Moment) -> Result<T, Error>,
) -> Result<(T, Moment), Trouble> {
    client.run(deadline, async |client| {
        let builder = client.build_transaction().read_only(true);
        let transaction = builder.isolation_level(IsolationLevel::RepeatableRead).start().await?;
        // The server is not told when a query is given up, so that it has to know by itself.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let left = left.as_millis().min(i32::MAX.unsigned_abs().into());
        let locked = lock_limit(left);
        let limits = format!("SET LOCAL statement_timeout = {left}; SET LOCAL lock_timeout = {locked}");
        transaction.batch_execute(&limits).await?;
        let now = Moment(transaction.query_typed_one(CLOCK, &[]).await?.try_get(0)?);
        let value = work(&transaction, now).await?;
        transaction.commit().await?;
        Ok((value, now))
    })
}
