//! Questions and what people say to them, between machines that share a database.
//!
//! A question is found by its checkpoint's key, its end by that one's, and what was passed on by its task: each by an
//! index.

use std::time::Instant;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::Trouble;
use super::connect::Client;
use super::forward::many;
use crate::checkpoint::audit::ClockOffset;
use crate::checkpoint::audit::people::{PassedOn, WAITS, its_own, read_answer, read_deciding, read_question};
use crate::checkpoint::id::TaskId;
use crate::checkpoint::question::{Answer, Question, RequestId};
use crate::checkpoint::time::Moment;

/// How many acts of people are looked at at once: whoever can write rows could write any number.
pub(crate) const ACTS_MAX: usize = 200;

/// A question that the database knows of.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) task: TaskId,
    pub(crate) agent_id: String,
    /// By this machine's clock.
    pub(crate) question: Question,
    pub(crate) answer: Option<Answer>,
}

/// The question with this id, if the database has it. `now` is asked for this machine's time when it has answered.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn question(
    client: &mut Client,
    request: RequestId,
    now: impl Fn() -> Moment,
    deadline: Instant,
) -> Result<Option<Known>, Trouble> {
    // Other programs may have written anything into details, and a moment at infinity has no number.
    let sql =
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, q.task_id::text, q.agent_id::text,
             (q.metadata -> 'agent_checkpoint' -> 'question')::text,
             (a.metadata -> 'agent_checkpoint' -> 'answer')::text,
             d.action_details::text, d.user_id::text,
             CASE WHEN d.created_at > '-infinity' AND d.created_at < 'infinity' THEN (extract(epoch FROM d.created_at) * 1000)::bigint END
         FROM agent_checkpoints q
         LEFT JOIN agent_checkpoints a ON a.id = $2::text::uuid
         LEFT JOIN LATERAL (SELECT action_details, user_id, created_at FROM human_interventions
             WHERE a.id IS NULL AND task_id = q.task_id AND strpos(action_details, '\"decision\":\"') > 0
                 AND strpos(action_details, $1) > 0
             ORDER BY created_at, id LIMIT 1) d ON true
         WHERE q.id = $1::text::uuid";
    let (id, ending) = (request.to_string(), request.ending().to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&id, Type::TEXT), (&ending, Type::TEXT)];
    let rows = many(client, sql, &parameters, deadline, |row| known(row, request, now()))?;
    Ok(rows.into_iter().next().flatten())
}

fn known(row: &Row, request: RequestId, here: Moment) -> Result<Option<Known>, Error> {
    let offset = ClockOffset(row.try_get::<_, i64>(0)?.saturating_sub(here.0));
    let text = |index| row.try_get::<_, Option<&str>>(index);
    let (task, question) = (text(1)?, text(3)?.and_then(|text| read_question(text, offset)));
    let told = text(4)?.and_then(|text| read_answer(text, offset)).and_then(its_own(request));
    let (details, user_id, at) = (text(5)?, row.try_get(6)?, row.try_get::<_, Option<i64>>(7)?);
    let deciding = || {
        let at = Moment(at?.saturating_sub(offset.0));
        read_deciding(details?, user_id, at).and_then(its_own(request))
    };
    let (Some(Ok(task)), Some(question)) = (task.map(Uuid::parse_str), question) else { return Ok(None) };
    Ok(Some(Known {
        task: TaskId(task),
        agent_id: text(2)?.unwrap_or_default().to_owned(),
        question,
        answer: told.or_else(deciding),
    }))
}

/// Leaves what a person did for whom it is for; once, however often it is said.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn pass_on(client: &mut Client, act: &PassedOn, deadline: Instant) -> Result<(), Trouble> {
    let sql =
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details,
             created_at)
         VALUES ($1::text::uuid, $2::text::uuid, $3, $4, $5, $6, clock_timestamp())
         ON CONFLICT (id) DO NOTHING";
    let (id, task) = (act.id.to_string(), act.task.to_string());
    let (kind, details) = (act.kind(), act.details());
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&id, Type::TEXT),
        (&task, Type::TEXT),
        (&act.agent_id, Type::TEXT),
        (&kind, Type::TEXT),
        (&act.user_id, Type::TEXT),
        (&details, Type::TEXT),
    ];
    many(client, sql, &parameters, deadline, |_| Ok(())).map(|_| ())
}

/// Something that was passed on and waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: Uuid,
    /// When, in microseconds since 1970 by the server's clock; the end of time where nobody's clock can have said so.
    pub(crate) at: i64,
    /// `None` where it cannot be read: it is left alone.
    pub(crate) act: Option<PassedOn>,
}

/// What was passed on to these tasks and waits, [`ACTS_MAX`] at most, by the order of ids: those after this one first, then
/// from the beginning.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn waiting(
    client: &mut Client,
    tasks: &[TaskId],
    after: Uuid,
    deadline: Instant,
) -> Result<Vec<Waiting>, Trouble> {
    let sql = format!(
        "SELECT id::text, task_id::text, agent_id::text, user_id::text, action_details::text,
             CASE WHEN created_at BETWEEN '0001-01-01' AND '9999-12-31' THEN (extract(epoch FROM created_at) * 1000000)::bigint END
         FROM human_interventions
         WHERE task_id = ANY ($1::text[]::uuid[]) AND strpos(action_details, '{WAITS}') > 0
         ORDER BY id <= $2::text::uuid, id LIMIT {ACTS_MAX}"
    );
    let (tasks, after) = (tasks.iter().map(TaskId::to_string).collect::<Vec<_>>(), after.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&tasks, Type::TEXT_ARRAY), (&after, Type::TEXT)];
    many(client, &sql, &parameters, deadline, |row| {
        let id = row.try_get::<_, Option<&str>>(0)?.and_then(|id| Uuid::parse_str(id).ok());
        let id = id.unwrap_or_default();
        let at = row.try_get::<_, Option<i64>>(5)?.unwrap_or(i64::MAX);
        Ok(Waiting { id, at, act: passed_on(row, id)? })
    })
}

fn passed_on(row: &Row, id: Uuid) -> Result<Option<PassedOn>, Error> {
    let text = |index| row.try_get::<_, Option<&str>>(index);
    let task = text(1)?.and_then(|text| Uuid::parse_str(text).ok());
    let act = text(4)?.and_then(|text| serde_json::from_str(text).ok());
    let (Some(task), Some(act)) = (task, act) else { return Ok(None) };
    Ok(Some(PassedOn {
        id,
        task: TaskId(task),
        // Nothing depends on whose it says it is.
        agent_id: text(2)?.unwrap_or_default().to_owned(),
        user_id: row.try_get(3)?,
        act,
    }))
}

/// Says why acts that waited change nothing.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn refuse(client: &mut Client, acts: &[PassedOn], deadline: Instant) -> Result<(), Trouble> {
    if acts.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE human_interventions t SET action_details = g.details
         FROM unnest($1::text[], $2::text[]) AS g (id, details)
         WHERE t.id = g.id::uuid AND strpos(t.action_details, '{WAITS}') > 0"
    );
    let ids: Vec<String> = acts.iter().map(|act| act.id.to_string()).collect();
    let details: Vec<String> = acts.iter().map(PassedOn::details).collect();
    many(client, &sql, &[(&ids, Type::TEXT_ARRAY), (&details, Type::TEXT_ARRAY)], deadline, |_| Ok(()))
        .map(|_| ())
}

/// An act as it stands there now.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn details(client: &mut Client, id: Uuid, deadline: Instant) -> Result<Option<String>, Trouble> {
    let sql = "SELECT action_details::text FROM human_interventions WHERE id = $1::text::uuid";
    let rows = many(client, sql, &[(&id.to_string(), Type::TEXT)], deadline, |row| row.try_get(0))?;
    Ok(rows.into_iter().next().flatten())
}
