//! Telling a database: a batch of rows in one transaction that may be sent again without effect.
//!
//! All of a batch is one statement, and the statement goes out together with the beginning and the end of its
//! transaction, so that a batch costs one round trip and no transaction is ever open while we think.

use std::time::{Duration, Instant};

use futures_util::future::join3;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::connect::Client;
use super::people::{Wishes, wishes, wishes_of};
use super::trouble::Trouble;
use crate::checkpoint::audit::people::WAITS;
use crate::checkpoint::audit::{ArtifactRow, CheckpointRow, InterventionRow, StoredRow, TaskRow};
use crate::checkpoint::id::TaskId;

/// How long a statement may take, be there more time: a server that stalls is another time's business.
const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// The columns that [`stored`] reads, in its order; `t` is the row of `agent_tasks`. A moment that another program left
/// at infinity has no number: it counts as none.
const STORED: &str = "t.id::text, t.agent_id::text, t.task_type::text, t.task_name::text, t.repo_scope::text, \
     t.status::text, least(greatest(t.progress, 0), 100)::int4, t.slack_channel::text, t.slack_thread_ts::text, \
     CASE WHEN t.created_at > '-infinity' AND t.created_at < 'infinity' THEN (extract(epoch FROM t.created_at) * 1000)::bigint END, \
     CASE WHEN t.started_at > '-infinity' AND t.started_at < 'infinity' THEN (extract(epoch FROM t.started_at) * 1000)::bigint END, \
     CASE WHEN t.completed_at > '-infinity' AND t.completed_at < 'infinity' THEN (extract(epoch FROM t.completed_at) * 1000)::bigint END, \
     CASE WHEN t.updated_at > '-infinity' AND t.updated_at < 'infinity' THEN (extract(epoch FROM t.updated_at) * 1000)::bigint END, t.metadata::text";

/// How many columns [`STORED`] has.
const STORED_COLUMNS: usize = 14;

/// The columns of a task that its latest checkpoint decides.
const DECIDED: [&str; 10] = [
    "task_type",
    "task_name",
    "repo_scope",
    "status",
    "progress",
    "completed_at",
    "result_summary",
    "error_message",
    "artifacts",
    "updated_at",
];

/// Which states a task can be in that nobody has ended: an agent has one such task at most.
pub(super) const OPEN: &str = "('pending', 'approved', 'running')";

/// What a database says of itself, and of an agent.
#[derive(Debug)]
pub(crate) struct Hello {
    /// Its clock, in milliseconds since 1970, when it was asked.
    pub(crate) clock: i64,
    /// The version of its schema.
    pub(crate) version: i32,
    /// The task that was asked for.
    pub(crate) task: Option<StoredRow>,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) tasks: Vec<TaskRow>,
    pub(crate) checkpoints: Vec<CheckpointRow>,
    pub(crate) artifacts: Vec<ArtifactRow>,
    pub(crate) interventions: Vec<InterventionRow>,
}

/// Asks for its clock and its schema's version, and for the agent's latest task, where one is asked for: the open one if
/// there is one.
///
/// # Errors
/// What the server says, such as that there is no such schema, or that the deadline is over.
pub(crate) fn hello(
    client: &mut Client,
    agent_id: Option<&str>,
    deadline: Instant,
) -> Result<Hello, Trouble> {
    let clock = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
                 (SELECT coalesce(max(version), 0)::int4 FROM agent_checkpoint_schema)";
    let Some(agent_id) = agent_id else {
        let sql = format!("SELECT {clock}");
        return one(client, &sql, &[], deadline, |row| {
            Ok(Hello { clock: row.try_get(0)?, version: row.try_get(1)?, task: None })
        });
    };
    // Two looks by index instead of one through all of an agent's tasks.
    let sql = format!(
        "SELECT {clock}, {STORED} FROM (SELECT 1) AS one LEFT JOIN agent_tasks t ON t.id = coalesce(
             (SELECT id FROM agent_tasks WHERE agent_id = $1 AND status IN {OPEN} LIMIT 1),
             (SELECT id FROM agent_tasks WHERE agent_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1))"
    );
    one(client, &sql, &[(&agent_id, Type::TEXT)], deadline, |row| {
        let is_there = row.try_get::<_, Option<&str>>(2)?.is_some();
        let task = is_there.then(|| stored(row, 2)).transpose()?;
        Ok(Hello { clock: row.try_get(0)?, version: row.try_get(1)?, task })
    })
}

/// The open tasks of these agents.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn open_tasks(
    client: &mut Client,
    agents: &[String],
    deadline: Instant,
) -> Result<Vec<StoredRow>, Trouble> {
    let sql =
        format!("SELECT {STORED} FROM agent_tasks t WHERE t.agent_id = ANY ($1) AND t.status IN {OPEN}");
    many(client, &sql, &[(&agents, Type::TEXT_ARRAY)], deadline, |row| stored(row, 0))
}

/// The latest task of each of these agents.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn latest_tasks(
    client: &mut Client,
    agents: &[String],
    deadline: Instant,
) -> Result<Vec<StoredRow>, Trouble> {
    // A look by index for each agent instead of one through all of its tasks.
    let sql = format!(
        "SELECT {STORED} FROM unnest($1::text[]) AS g (agent) JOIN agent_tasks t ON t.id =
             (SELECT id FROM agent_tasks WHERE agent_id = g.agent ORDER BY created_at DESC, id DESC LIMIT 1)"
    );
    many(client, &sql, &[(&agents, Type::TEXT_ARRAY)], deadline, |row| stored(row, 0))
}

/// A task.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn task(client: &mut Client, id: TaskId, deadline: Instant) -> Result<Option<StoredRow>, Trouble> {
    Ok(tasks(client, &[id], None, deadline)?.into_iter().next())
}

/// These tasks, as far as there are such; with `but_of` without those of which that cache was the last to say something.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn tasks(
    client: &mut Client,
    ids: &[TaskId],
    but_of: Option<&str>,
    deadline: Instant,
) -> Result<Vec<StoredRow>, Trouble> {
    let ids: Vec<String> = ids.iter().map(TaskId::to_string).collect();
    let sql = format!(
        "SELECT {STORED} FROM unnest($1::text[]) AS g (id) JOIN agent_tasks t ON t.id = g.id::uuid
         WHERE $2 IS NULL OR t.metadata #>> '{{agent_checkpoint,latest,cache}}' IS DISTINCT FROM $2"
    );
    many(client, &sql, &[(&ids, Type::TEXT_ARRAY), (&but_of, Type::TEXT)], deadline, |row| stored(row, 0))
}

/// Tells the rows of a batch; says what the database has of its tasks now, and what people want of each.
///
/// # Errors
/// What the server says, or that the deadline is over; nothing is changed then, or all of it, if the answer was lost.
pub(crate) fn tell(
    client: &mut Client,
    rows: &Rows,
    deadline: Instant,
) -> Result<Vec<(StoredRow, Wishes)>, Trouble> {
    many(client, &statement(rows), &parameters(rows).borrowed(), deadline, |row| {
        Ok((stored(row, 0)?, wishes(row, STORED_COLUMNS)?))
    })
}

fn one<T>(
    client: &mut Client,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
    deadline: Instant,
    read: impl Fn(&Row) -> Result<T, Error>,
) -> Result<T, Trouble> {
    let place = client.place().to_owned();
    let rows = many(client, sql, parameters, deadline, read)?;
    rows.into_iter().next().ok_or_else(|| Trouble::no_answer(&place))
}

/// Runs one statement in a transaction of its own, with limits that hold on the server too: one that is given up here
/// must not go on there, waiting for a lock with a connection that others need. A row may be any that others make of the
/// tables, so that `read` must not take for granted what is in it.
pub(super) fn many<T>(
    client: &mut Client,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
    deadline: Instant,
    read: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, Trouble> {
    let rows = rows(client, sql, parameters, deadline)?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| client.trouble(&error))
}

fn rows(
    client: &mut Client,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
    deadline: Instant,
) -> Result<Vec<Row>, Trouble> {
    let limits = Limits::until(deadline);
    let begin = format!("BEGIN; {}", limits.set());
    client.run(limits.deadline, async |client| {
        let all = join3(
            client.batch_execute(&begin),
            client.query_typed(sql, parameters),
            client.batch_execute("COMMIT"),
        );
        let (begun, rows, ended) = all.await;
        begun?;
        let rows = rows?;
        ended?;
        Ok(rows)
    })
}

/// How long a transaction may take, here and on the server.
pub(super) struct Limits {
    /// When it is given up here.
    pub(super) deadline: Instant,
    /// How many milliseconds the server has.
    left: u128,
}

impl Limits {
    pub(super) fn until(deadline: Instant) -> Self {
        let left =
            deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), STATEMENT_MAX);
        Self { deadline: Instant::now() + left, left: left.as_millis() }
    }

    /// What a transaction is begun with.
    pub(super) fn set(&self) -> String {
        let (left, locked) = (self.left, lock_limit(self.left));
        format!("SET LOCAL statement_timeout = {left}; SET LOCAL lock_timeout = {locked}")
    }
}

/// How long a lock is waited for, of so many milliseconds: a little less, so that there is time to hear that it was one.
pub(super) fn lock_limit(left: u128) -> u128 {
    (left - (left / 10).max(100).min(left / 2)).max(1)
}

fn stored(row: &Row, at: usize) -> Result<StoredRow, Error> {
    debug_assert!(row.len() >= at + STORED_COLUMNS);
    Ok(StoredRow {
        id: Uuid::parse_str(row.try_get(at)?).unwrap_or_default(),
        agent_id: row.try_get::<_, Option<String>>(at + 1)?.unwrap_or_default(),
        task_type: row.try_get::<_, Option<String>>(at + 2)?.unwrap_or_default(),
        task_name: row.try_get(at + 3)?,
        repo_scope: row.try_get(at + 4)?,
        status: row.try_get::<_, Option<String>>(at + 5)?.unwrap_or_default(),
        progress: row.try_get::<_, Option<i32>>(at + 6)?.unwrap_or(0),
        slack_channel: row.try_get(at + 7)?,
        slack_thread_ts: row.try_get(at + 8)?,
        created_at: row.try_get::<_, Option<i64>>(at + 9)?.unwrap_or(0),
        started_at: row.try_get(at + 10)?,
        completed_at: row.try_get(at + 11)?,
        updated_at: row.try_get::<_, Option<i64>>(at + 12)?.unwrap_or(0),
        metadata: row.try_get(at + 13)?,
    })
}

/// The statement that takes a batch, as arrays of columns.
fn statement(rows: &Rows) -> String {
    // Which of two checkpoints is the later one; see `checkpoint::audit::Latest`.
    let ours = |row: &str| format!("{row}.metadata -> 'agent_checkpoint'");
    let latest = |row: &str, what: &str| format!("({}) -> 'latest' ->> '{what}'", ours(row));
    // Other programs may have written anything there.
    let number = |row: &str, what: &str| {
        let text = latest(row, what);
        format!("coalesce(CASE WHEN {text} ~ '^[0-9]{{1,18}}$' THEN ({text})::bigint END, 0)")
    };
    let newer = format!(
        "CASE WHEN {} = {} THEN {} >= {} ELSE {} >= {} END",
        latest("t", "cache"),
        latest("excluded", "cache"),
        number("excluded", "key"),
        number("t", "key"),
        number("excluded", "at_ms"),
        number("t", "at_ms"),
    );
    // What was ended is never revived.
    let ended = "('completed', 'cancelled')";
    let decides = format!("{newer} AND (t.status NOT IN {ended} OR excluded.status IN {ended})");
    // The first thread that is told of stays, unless whoever replaces it knew it.
    let takes_thread = format!(
        "excluded.slack_thread_ts IS NOT NULL AND (t.slack_thread_ts IS NULL
             OR t.slack_thread_ts IN (excluded.slack_thread_ts, ({}) ->> 'replaces'))",
        ours("excluded")
    );
    let decided: String = DECIDED.map(|column| format!("{column}, ")).concat();
    let either: String = DECIDED
        .map(|column| format!("CASE WHEN decides THEN excluded.{column} ELSE t.{column} END, "))
        .concat();
    // Said once and looked at for each column: a server reads the statement anew with each batch.
    let set = format!(
        "({decided}description, requested_by, started_at, slack_channel, slack_thread_ts, metadata) = (
             SELECT {either}coalesce(t.description, excluded.description),
                 coalesce(t.requested_by, excluded.requested_by), coalesce(t.started_at, excluded.started_at),
                 CASE WHEN takes_thread THEN excluded.slack_channel
                     ELSE coalesce(t.slack_channel, excluded.slack_channel) END,
                 CASE WHEN takes_thread THEN excluded.slack_thread_ts ELSE t.slack_thread_ts END,
                 CASE WHEN jsonb_typeof(t.metadata) = 'object' THEN t.metadata ELSE '{{}}' END
                     || jsonb_build_object('agent_checkpoint',
                         CASE WHEN decides OR theirs IS NULL THEN mine ELSE theirs END
                         || jsonb_build_object('slack',
                             CASE WHEN takes_thread OR theirs -> 'slack' IS NULL THEN mine -> 'slack'
                             ELSE theirs -> 'slack' END))
             FROM (SELECT {decides} AS decides, {takes_thread} AS takes_thread, {theirs} AS theirs, {mine} AS mine) AS c)",
        theirs = ours("t"),
        mine = ours("excluded"),
    );
    let at = |column: &str| format!("timestamptz 'epoch' + {column} * interval '1 millisecond'");
    let created = at("created_at");
    // Most batches have none, and need not pay for them.
    let artifacts = match rows.artifacts.is_empty() {
        true => String::new(),
        false => format!(
            ", artifacts AS (
             INSERT INTO task_artifacts (id, task_id, agent_id, artifact_type, artifact_name, artifact_url, created_at,
                 metadata)
             SELECT id::uuid, task_id::uuid, agent_id, artifact_type, artifact_name, artifact_url, {created},
                 metadata::jsonb
             FROM unnest($30::text[], $31::text[], $32::text[], $33::text[], $34::text[], $35::text[], $36::bigint[],
                     $37::text[])
                 AS g (id, task_id, agent_id, artifact_type, artifact_name, artifact_url, created_at, metadata)
             ON CONFLICT (id) DO NOTHING
         )"
        ),
    };
    let interventions = match rows.interventions.is_empty() {
        true => String::new(),
        false => format!(
            ", interventions AS (
             INSERT INTO human_interventions AS t (id, task_id, agent_id, intervention_type, user_id, action_details,
                 created_at)
             SELECT DISTINCT ON (id) id::uuid, task_id::uuid, agent_id, intervention_type, user_id, action_details, {created}
             FROM unnest($38::text[], $39::text[], $40::text[], $41::text[], $42::text[], $43::text[], $44::bigint[])
                 AS g (id, task_id, agent_id, intervention_type, user_id, action_details, created_at)
             ON CONFLICT (id) DO UPDATE SET action_details = excluded.action_details
                 WHERE strpos(t.action_details, '{WAITS}') > 0
         )"
        ),
    };
    format!(
        "WITH tasks AS (
             INSERT INTO agent_tasks AS t (id, agent_id, task_type, task_name, repo_scope, status, progress, slack_channel,
                 slack_thread_ts, created_at, started_at, completed_at, updated_at, result_summary, error_message,
                 artifacts, metadata, description, requested_by)
             SELECT id::uuid, agent_id, task_type, task_name, repo_scope, status, progress, slack_channel,
                 slack_thread_ts, {started}, {started}, {completed}, {updated}, result_summary, error_message,
                 artifacts::jsonb, metadata::jsonb, description, requested_by
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int4[], $8::text[],
                     $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::text[],
                     $16::text[], $45::text[], $46::text[])
                 AS g (id, agent_id, task_type, task_name, repo_scope, status, progress, slack_channel, slack_thread_ts,
                     started_at, completed_at, updated_at, result_summary, error_message, artifacts, metadata,
                     description, requested_by)
             ON CONFLICT (id) DO UPDATE SET {set}
             RETURNING t.*
         ), checkpoints AS (
             INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, action_description, progress,
                 tokens_used, context_limit, status, elapsed_seconds, error_message, retry_count, created_at, metadata)
             SELECT id::uuid, task_id::uuid, agent_id, checkpoint_type, action_description, progress, tokens_used,
                 context_limit, status, elapsed_seconds, error_message, 0, {created}, metadata::jsonb
             FROM unnest($17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::int4[], $23::int4[],
                     $24::int4[], $25::text[], $26::int4[], $27::text[], $28::bigint[], $29::text[])
                 AS g (id, task_id, agent_id, checkpoint_type, action_description, progress, tokens_used, context_limit,
                     status, elapsed_seconds, error_message, created_at, metadata)
             ON CONFLICT (id) DO NOTHING
         ){artifacts}{interventions}
         SELECT {STORED}, {wishes} FROM tasks t",
        wishes = wishes_of("t.id"),
        started = at("started_at"),
        completed = at("completed_at"),
        updated = at("updated_at"),
    )
}

/// The columns of a batch, in the order of the statement's parameters.
struct Parameters<'a>(Vec<(Box<dyn ToSql + Sync + 'a>, Type)>);

impl<'a> Parameters<'a> {
    fn text<R>(&mut self, rows: &'a [R], column: impl Fn(&'a R) -> &'a str) {
        self.0.push((Box::new(rows.iter().map(column).collect::<Vec<_>>()), Type::TEXT_ARRAY));
    }

    fn maybe_text<R>(&mut self, rows: &'a [R], column: impl Fn(&'a R) -> Option<&'a str>) {
        self.0.push((Box::new(rows.iter().map(column).collect::<Vec<_>>()), Type::TEXT_ARRAY));
    }

    fn number<R>(&mut self, rows: &'a [R], column: impl Fn(&'a R) -> Option<i32>) {
        self.0.push((Box::new(rows.iter().map(column).collect::<Vec<_>>()), Type::INT4_ARRAY));
    }

    fn moment<R>(&mut self, rows: &'a [R], column: impl Fn(&'a R) -> Option<i64>) {
        self.0.push((Box::new(rows.iter().map(column).collect::<Vec<_>>()), Type::INT8_ARRAY));
    }

    fn borrowed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.0.iter().map(|(values, kind)| (&**values, kind.clone())).collect()
    }
}

fn parameters(Rows { tasks, checkpoints, artifacts, interventions }: &Rows) -> Parameters<'_> {
    let mut all = Parameters(Vec::with_capacity(46));
    all.text(tasks, |row| &row.id);
    all.text(tasks, |row| &row.agent_id);
    all.text(tasks, |row| &row.task_type);
    all.text(tasks, |row| &row.task_name);
    all.maybe_text(tasks, |row| row.repo_scope.as_deref());
    all.text(tasks, |row| row.status);
    all.number(tasks, |row| Some(row.progress));
    all.maybe_text(tasks, |row| row.slack_channel.as_deref());
    all.maybe_text(tasks, |row| row.slack_thread_ts.as_deref());
    all.moment(tasks, |row| Some(row.started_at));
    all.moment(tasks, |row| row.completed_at);
    all.moment(tasks, |row| Some(row.updated_at));
    all.maybe_text(tasks, |row| row.result_summary.as_deref());
    all.maybe_text(tasks, |row| row.error_message.as_deref());
    all.maybe_text(tasks, |row| row.artifacts.as_deref());
    all.text(tasks, |row| &row.metadata);
    all.text(checkpoints, |row| &row.id);
    all.text(checkpoints, |row| &row.task_id);
    all.text(checkpoints, |row| &row.agent_id);
    all.text(checkpoints, |row| row.checkpoint_type);
    all.maybe_text(checkpoints, |row| row.action_description.as_deref());
    all.number(checkpoints, |row| Some(row.progress));
    all.number(checkpoints, |row| row.tokens_used);
    all.number(checkpoints, |row| Some(row.context_limit));
    all.text(checkpoints, |row| row.status);
    all.number(checkpoints, |row| Some(row.elapsed_seconds));
    all.maybe_text(checkpoints, |row| row.error_message.as_deref());
    all.moment(checkpoints, |row| Some(row.created_at));
    all.text(checkpoints, |row| &row.metadata);
    all.text(artifacts, |row| &row.id);
    all.text(artifacts, |row| &row.task_id);
    all.text(artifacts, |row| &row.agent_id);
    all.text(artifacts, |row| row.artifact_type);
    all.maybe_text(artifacts, |row| row.artifact_name.as_deref());
    all.text(artifacts, |row| &row.artifact_url);
    all.moment(artifacts, |row| Some(row.created_at));
    all.text(artifacts, |row| &row.metadata);
    all.text(interventions, |row| &row.id);
    all.text(interventions, |row| &row.task_id);
    all.text(interventions, |row| &row.agent_id);
    all.text(interventions, |row| &row.intervention_type);
    all.maybe_text(interventions, |row| row.user_id.as_deref());
    all.text(interventions, |row| &row.action_details);
    all.moment(interventions, |row| Some(row.created_at));
    all.maybe_text(tasks, |row| row.description.as_deref());
    all.maybe_text(tasks, |row| row.requested_by.as_deref());
    all
}
