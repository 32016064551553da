//! Telling a database of one more checkpoint of a task that it knows, where nobody else told it anything of the task
//! since we did: what nearly every call has to tell.
//!
//! [`forward`](super::forward) tells anything, asks first, and is a long statement that a server reads anew for each
//! connection. This one tells nothing unless all that would have been asked is as it was.

use std::time::{Duration, Instant};

use tokio_postgres::types::{ToSql, Type};

use super::connect::Client;
use super::forward::{OPEN, many};
use super::trouble::Trouble;
use crate::checkpoint::audit::people::WAITS;
use crate::checkpoint::audit::{CheckpointRow, TaskRow};

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
/// `asks` it is said whether what people did elsewhere waits for the task.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn advance(
    client: &mut Client,
    (task, checkpoint): &(TaskRow, CheckpointRow),
    clocks: &Clocks,
    asks: bool,
    deadline: Instant,
) -> Result<Option<bool>, Trouble> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let expected = clocks.here.saturating_add(clocks.offset);
    let earliest = expected.saturating_sub(millis(clocks.noise));
    let latest = expected.saturating_add(millis(clocks.noise + clocks.latency));
    let parameters: [(&(dyn ToSql + Sync), Type); 27] = [
        (&task.id, Type::TEXT),
        (&task.task_type, Type::TEXT),
        (&task.task_name, Type::TEXT),
        (&task.repo_scope, Type::TEXT),
        (&task.status, Type::TEXT),
        (&task.progress, Type::INT4),
        (&task.completed_at, Type::INT8),
        (&task.updated_at, Type::INT8),
        (&task.result_summary, Type::TEXT),
        (&task.error_message, Type::TEXT),
        (&task.artifacts, Type::TEXT),
        (&task.metadata, Type::TEXT),
        (&task.slack_channel, Type::TEXT),
        (&task.slack_thread_ts, Type::TEXT),
        (&earliest, Type::INT8),
        (&latest, Type::INT8),
        (&checkpoint.id, Type::TEXT),
        (&checkpoint.checkpoint_type, Type::TEXT),
        (&checkpoint.action_description, Type::TEXT),
        (&checkpoint.tokens_used, Type::INT4),
        (&checkpoint.context_limit, Type::INT4),
        (&checkpoint.status, Type::TEXT),
        (&checkpoint.elapsed_seconds, Type::INT4),
        (&checkpoint.error_message, Type::TEXT),
        (&checkpoint.created_at, Type::INT8),
        (&checkpoint.metadata, Type::TEXT),
        (&checkpoint.progress, Type::INT4),
    ];
    let rows = many(client, &statement(asks), &parameters, deadline, |row| row.try_get(0))?;
    Ok(rows.into_iter().next())
}

fn statement(asks: bool) -> String {
    let waits = match asks {
        true => format!(
            "EXISTS (SELECT 1 FROM human_interventions i WHERE i.task_id = $1::uuid AND strpos(action_details, '{WAITS}') > 0)"
        ),
        false => "false".to_owned(),
    };
    let at = |parameter: &str| format!("timestamptz 'epoch' + {parameter} * interval '1 millisecond'");
    format!(
        "WITH task AS (
             UPDATE agent_tasks t SET task_type = $2, task_name = $3, repo_scope = $4, status = $5, progress = $6,
                 completed_at = {completed}, updated_at = {updated}, result_summary = $9, error_message = $10,
                 artifacts = $11::jsonb, metadata = t.metadata || mine
             FROM (SELECT $12::jsonb AS mine) AS m
             WHERE t.id = $1::uuid AND t.status IN {OPEN}
                 AND t.metadata #> '{{agent_checkpoint,latest,cache}}' = mine #> '{{agent_checkpoint,latest,cache}}'
                 AND t.metadata #> '{{agent_checkpoint,latest,key}}' < mine #> '{{agent_checkpoint,latest,key}}'
                 AND t.slack_channel IS NOT DISTINCT FROM $13 AND t.slack_thread_ts IS NOT DISTINCT FROM $14
                 AND (extract(epoch FROM clock_timestamp()) * 1000)::bigint BETWEEN $15 AND $16
             RETURNING t.id, t.agent_id
         )
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, action_description, progress,
             tokens_used, context_limit, status, elapsed_seconds, error_message, retry_count, created_at, metadata)
         SELECT $17::uuid, id, agent_id, $18, $19, $27, $20, $21, $22, $23, $24, 0, {created}, $26::jsonb FROM task
         RETURNING {waits}",
        completed = at("$7"),
        updated = at("$8"),
        created = at("$25"),
    )
}
