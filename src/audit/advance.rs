//! Telling a database of one more checkpoint of a task that it knows, where nobody else told it anything of the task
//! since we did: what nearly every call has to tell.
//!
//! [`forward`](super::forward) tells anything, asks first, and is a long statement that a server reads anew for each
//! connection. This one tells nothing unless all that would have been asked is as it was.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::{ToSql, Type};

use super::connect::Client;
use super::forward::{OPEN, many};
use super::people::{Wishes, wishes, wishes_of};
use super::trouble::Trouble;
use crate::checkpoint::audit::{CheckpointRow, TaskRow};

/// About the year 100,000: well within what PostgreSQL keeps as a `timestamptz`.
const MOMENT_MAX: u64 = 98_000 * 366 * 86_400_000;

/// What shows that moments are corrected rightly. All in milliseconds but the durations.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// This machine's, since 1970.
    pub(crate) here: i64,
    /// What corrected the moments of the rows.
    pub(crate) offset: i64,
    /// By how much the server's may differ from that by chance.
    pub(crate) noise: Duration,
    /// How long a word takes to the server, at most.
    pub(crate) latency: Duration,
}

/// Tells a checkpoint and what its task is after it. `None`, and nothing is changed, unless the task is open, was last
/// told of by the same cache with an earlier checkpoint, is in the same thread, and the clocks are as they were. With
/// `asks` it is said what people want of the task.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn advance(
    client: &mut Client,
    (task, checkpoint): &(TaskRow, CheckpointRow),
    clocks: &Clocks,
    asks: bool,
    deadline: Instant,
) -> Result<Option<Wishes>, Trouble> {
    let moments = || {
        // Of a task that goes on there is none.
        let completed_at = match task.completed_at {
            Some(millis) => Some(at(millis)?),
            None => None,
        };
        Some((
            at(clocks.here.saturating_add(clocks.offset))?,
            completed_at,
            at(task.updated_at)?,
            at(checkpoint.created_at)?,
        ))
    };
    let Some((expected, completed_at, updated_at, created_at)) = moments() else { return Ok(None) };
    let (earliest, latest) = (expected - clocks.noise, expected + clocks.noise + clocks.latency);
    let parameters: [(&(dyn ToSql + Sync), Type); 27] = [
        (&task.id, Type::TEXT),
        (&task.task_type, Type::TEXT),
        (&task.task_name, Type::TEXT),
        (&task.repo_scope, Type::TEXT),
        (&task.status, Type::TEXT),
        (&task.progress, Type::INT4),
        (&completed_at, Type::TIMESTAMPTZ),
        (&updated_at, Type::TIMESTAMPTZ),
        (&task.result_summary, Type::TEXT),
        (&task.error_message, Type::TEXT),
        (&task.artifacts, Type::TEXT),
        (&task.metadata, Type::TEXT),
        (&task.slack_channel, Type::TEXT),
        (&task.slack_thread_ts, Type::TEXT),
        (&earliest, Type::TIMESTAMPTZ),
        (&latest, Type::TIMESTAMPTZ),
        (&checkpoint.id, Type::TEXT),
        (&checkpoint.checkpoint_type, Type::TEXT),
        (&checkpoint.action_description, Type::TEXT),
        (&checkpoint.tokens_used, Type::INT4),
        (&checkpoint.context_limit, Type::INT4),
        (&checkpoint.status, Type::TEXT),
        (&checkpoint.elapsed_seconds, Type::INT4),
        (&checkpoint.error_message, Type::TEXT),
        (&created_at, Type::TIMESTAMPTZ),
        (&checkpoint.metadata, Type::TEXT),
        (&checkpoint.progress, Type::INT4),
    ];
    let rows = many(client, &statement(asks), &parameters, deadline, |row| {
        if asks { wishes(row, 0) } else { Ok(Wishes::default()) }
    })?;
    Ok(rows.into_iter().next())
}

fn statement(asks: bool) -> String {
    let waits = match asks {
        true => wishes_of("$1::uuid"),
        false => "false".to_owned(),
    };
    // A server looks everything up anew for a new connection. So moments come as such, operators are given the types that
    // they are made for, which spares it a search among all of their name, and what the task must be like stands in a
    // `CASE`, which it does not look for indexes and estimates for.
    format!(
        "WITH task AS (
             UPDATE agent_tasks t SET task_type = $2, task_name = $3, repo_scope = $4, status = $5, progress = $6,
                 completed_at = $7, updated_at = $8, result_summary = $9, error_message = $10,
                 artifacts = $11::jsonb, metadata = t.metadata || mine
             FROM (SELECT $12::jsonb AS mine) AS m
             WHERE t.id = $1::uuid AND CASE WHEN t.status::text IN {OPEN}
                 AND t.metadata #> '{{agent_checkpoint,latest,cache}}'::text[]
                     = mine #> '{{agent_checkpoint,latest,cache}}'::text[]
                 AND t.metadata #> '{{agent_checkpoint,latest,key}}'::text[]
                     < mine #> '{{agent_checkpoint,latest,key}}'::text[]
                 AND t.slack_channel::text IS NOT DISTINCT FROM $13
                 AND t.slack_thread_ts::text IS NOT DISTINCT FROM $14
                 AND clock_timestamp() BETWEEN $15 AND $16 THEN true ELSE false END
             RETURNING t.id, t.agent_id
         )
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, action_description, progress,
             tokens_used, context_limit, status, elapsed_seconds, error_message, retry_count, created_at, metadata)
         SELECT $17::uuid, id, agent_id, $18, $19, $27, $20, $21, $22, $23, $24, 0, $25, $26::jsonb FROM task
         RETURNING {waits}"
    )
}

/// A moment in milliseconds since 1970; `None` for one that no server keeps.
fn at(millis: i64) -> Option<SystemTime> {
    let millis = u64::try_from(millis).ok().filter(|millis| *millis < MOMENT_MAX)?;
    Some(UNIX_EPOCH + Duration::from_millis(millis))
}
