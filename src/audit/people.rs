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
use crate::checkpoint::audit::people::{
    PassedOn, REFUSED, SOURCE, WAITS, Wanted, its_own, read_answer, read_deciding, read_question,
};
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

/// What people want of a task, as far as it is told along with its row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Something that was passed on waits for it.
    pub(crate) waits: bool,
    /// It is to end, as some machine has ruled: a user, details, and when by the server's clock.
    cancel: Option<String>,
}

impl Wishes {
    /// The same columns as they are written.
    pub(super) fn told(waits: Option<&str>, cancel: Option<&str>) -> Self {
        Self { waits: waits == Some("t"), cancel: cancel.map(str::to_owned) }
    }

    /// Who wants the task to end, by this machine's clock.
    pub(crate) fn cancel(&self, offset: ClockOffset) -> Option<Wanted> {
        let (user_id, details, seconds): (Option<String>, String, Option<f64>) =
            serde_json::from_str(self.cancel.as_ref()?).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "no clock is that far from 1970")]
        let at = seconds.map(|seconds| (seconds * 1000.0) as i64);
        Some(Wanted::read(user_id, &details, at, offset))
    }
}

/// The columns that [`wishes`] reads, of the task with this id.
pub(super) fn wishes_of(task: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM human_interventions WHERE task_id = {task} AND strpos(action_details, '{WAITS}') > 0),
         (SELECT json_build_array(user_id, action_details,
                 CASE WHEN created_at > '-infinity' AND created_at < 'infinity' THEN extract(epoch FROM created_at) END)::text
             FROM human_interventions WHERE task_id = {task} AND {} ORDER BY created_at LIMIT 1)",
        is_cancel()
    )
}

/// Whether a row says that a task is to end, and somebody has ruled so.
fn is_cancel() -> String {
    format!(
        "intervention_type = 'cancel' AND strpos(action_details, '{WAITS}') = 0
             AND strpos(action_details, '{REFUSED}') = 0 AND strpos(action_details, '{SOURCE}') > 0"
    )
}

/// # Errors
/// They are not there.
pub(super) fn wishes(row: &Row, at: usize) -> Result<Wishes, Error> {
    let waits = row.try_get::<_, Option<bool>>(at)?.unwrap_or(false);
    Ok(Wishes { waits, cancel: row.try_get(at + 1)? })
}

/// Something that people want of a task.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: Uuid,
    /// When, in microseconds since 1970 by the server's clock; the end of time where nobody's clock can have said so.
    pub(crate) at: i64,
    /// `None` where it cannot be read: it is left alone.
    pub(crate) wish: Option<Wish>,
}

#[derive(Debug)]
pub(crate) enum Wish {
    /// It was passed on and waits.
    PassedOn(Box<PassedOn>),
    /// The task is to end, as some machine has ruled.
    Cancel(TaskId, Wanted),
}

/// What was passed on to these tasks and waits, and whether they are to end, [`ACTS_MAX`] at most, by the order of ids: those
/// after this one first, then from the beginning. Moments of what is wanted are corrected by `offset`.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn waiting(
    client: &mut Client,
    tasks: &[TaskId],
    after: Uuid,
    offset: ClockOffset,
    deadline: Instant,
) -> Result<Vec<Waiting>, Trouble> {
    let sql = format!(
        "SELECT id::text, task_id::text, agent_id::text, user_id::text, action_details::text,
             CASE WHEN created_at BETWEEN '0001-01-01' AND '9999-12-31' THEN (extract(epoch FROM created_at) * 1000000)::bigint END
         FROM human_interventions
         WHERE task_id = ANY ($1::text[]::uuid[]) AND (strpos(action_details, '{WAITS}') > 0 OR {})
         ORDER BY id <= $2::text::uuid, id LIMIT {ACTS_MAX}",
        is_cancel()
    );
    let (tasks, after) = (tasks.iter().map(TaskId::to_string).collect::<Vec<_>>(), after.to_string());
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&tasks, Type::TEXT_ARRAY), (&after, Type::TEXT)];
    many(client, &sql, &parameters, deadline, |row| {
        let id = row.try_get::<_, Option<&str>>(0)?.and_then(|id| Uuid::parse_str(id).ok());
        let id = id.unwrap_or_default();
        let at = row.try_get::<_, Option<i64>>(5)?;
        Ok(Waiting { id, at: at.unwrap_or(i64::MAX), wish: wish(row, (id, at), offset)? })
    })
}

fn wish(row: &Row, (id, at): (Uuid, Option<i64>), offset: ClockOffset) -> Result<Option<Wish>, Error> {
    let text = |index| row.try_get::<_, Option<&str>>(index);
    let task = text(1)?.and_then(|text| Uuid::parse_str(text).ok());
    let (Some(task), Some(details)) = (task, text(4)?) else { return Ok(None) };
    if !details.contains(WAITS) {
        let wanted = Wanted::read(row.try_get(3)?, details, at.map(|at| at / 1000), offset);
        return Ok(Some(Wish::Cancel(TaskId(task), wanted)));
    }
    let Ok(act) = serde_json::from_str(details) else { return Ok(None) };
    Ok(Some(Wish::PassedOn(Box::new(PassedOn {
        id,
        task: TaskId(task),
        // Nothing depends on whose it says it is.
        agent_id: text(2)?.unwrap_or_default().to_owned(),
        user_id: row.try_get(3)?,
        at: at.map(|at| Moment((at / 1000).saturating_sub(offset.0))),
        act,
    }))))
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
