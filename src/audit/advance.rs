//! Telling a database of one more checkpoint of a task that it knows, where nobody else told it anything of the task
//! since we did: what nearly every call has to tell.
//!
//! [`forward`](super::forward) tells anything, asks first, and is a long statement that a server reads anew for each
//! connection. This one tells nothing unless all that would have been asked is as it was.

use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::SimpleQueryMessage;

use super::connect::Client;
use super::forward::{Limits, OPEN};
use super::people::{Wishes, wishes_of};
use super::trouble::Trouble;
use crate::checkpoint::audit::{CheckpointRow, TaskRow};
use crate::checkpoint::time::Moment;

/// About the year 9980: the last ones of four digits are left to those who are asked before.
const MOMENT_MAX: i64 = 8_000 * 366 * 86_400_000;

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
    let Some(told) = statement(task, checkpoint, clocks, asks) else { return Ok(None) };
    let limits = Limits::until(deadline);
    // What one message says is one transaction, and a message less to wait for is a tenth of what the server takes.
    let sql = format!("{}; {told}", limits.set());
    let answer = client.run(limits.deadline, async |client| client.simple_query(&sql).await)?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if asks => Some(Wishes::told(row.get(0), row.get(1))),
        SimpleQueryMessage::Row(_) => Some(Wishes::default()),
        _ => None,
    }))
}

/// `None` for what a server does not keep, or cannot be told in so many words.
fn statement(task: &TaskRow, checkpoint: &CheckpointRow, clocks: &Clocks, asks: bool) -> Option<String> {
    let id = text(&task.id);
    let waits = match asks {
        true => wishes_of(&format!("{id}::uuid")),
        false => "false".to_owned(),
    };
    let expected = clocks.here.saturating_add(clocks.offset);
    let noise = millis(clocks.noise);
    let earliest = moment(expected.saturating_sub(noise))?;
    let latest = moment(expected.saturating_add(noise).saturating_add(millis(clocks.latency)))?;
    // A task that goes on was not completed.
    let completed_at = match task.completed_at {
        Some(at) => moment(at)?,
        None => "NULL".to_owned(),
    };
    // A server looks everything up anew for a new connection. So values come as they are and not as parameters, operators
    // are given the types that they are made for, which spares it a search among all of their name, and what the task must
    // be like stands in a `CASE`, which it does not look for indexes and estimates for.
    let sql = format!(
        "WITH task AS (
             UPDATE agent_tasks t SET task_type = {task_type}, task_name = {task_name}, repo_scope = {repo_scope},
                 status = {status}, progress = {progress}, completed_at = {completed_at}, updated_at = {updated_at},
                 result_summary = {result_summary}, error_message = {error_message}, artifacts = {artifacts}::jsonb,
                 metadata = t.metadata || mine
             FROM (SELECT {metadata}::jsonb AS mine) AS m
             WHERE t.id = {id}::uuid AND CASE WHEN t.status::text IN {OPEN}
                 AND t.metadata #> '{{agent_checkpoint,latest,cache}}'::text[]
                     = mine #> '{{agent_checkpoint,latest,cache}}'::text[]
                 AND t.metadata #> '{{agent_checkpoint,latest,key}}'::text[]
                     < mine #> '{{agent_checkpoint,latest,key}}'::text[]
                 AND t.slack_channel::text IS NOT DISTINCT FROM {channel}
                 AND t.slack_thread_ts::text IS NOT DISTINCT FROM {thread_ts}
                 AND clock_timestamp() BETWEEN {earliest} AND {latest} THEN true ELSE false END
             RETURNING t.id, t.agent_id
         )
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, action_description, progress,
             tokens_used, context_limit, status, elapsed_seconds, error_message, retry_count, created_at, metadata)
         SELECT {checkpoint_id}::uuid, id, agent_id, {checkpoint_type}, {action}, {checkpoint_progress}, {tokens_used}, {context_limit},
             {checkpoint_status}, {elapsed_seconds}, {checkpoint_error}, 0, {created_at}, {checkpoint_metadata}::jsonb FROM task
         RETURNING {waits}",
        task_type = text(&task.task_type),
        task_name = text(&task.task_name),
        repo_scope = maybe_text(task.repo_scope.as_deref()),
        status = text(task.status),
        progress = task.progress,
        updated_at = moment(task.updated_at)?,
        result_summary = maybe_text(task.result_summary.as_deref()),
        error_message = maybe_text(task.error_message.as_deref()),
        artifacts = maybe_text(task.artifacts.as_deref()),
        metadata = text(&task.metadata),
        channel = maybe_text(task.slack_channel.as_deref()),
        thread_ts = maybe_text(task.slack_thread_ts.as_deref()),
        checkpoint_id = text(&checkpoint.id),
        checkpoint_type = text(checkpoint.checkpoint_type),
        action = maybe_text(checkpoint.action_description.as_deref()),
        checkpoint_progress = checkpoint.progress,
        tokens_used = checkpoint.tokens_used.map_or("NULL".to_owned(), |tokens| tokens.to_string()),
        context_limit = checkpoint.context_limit,
        checkpoint_status = text(checkpoint.status),
        elapsed_seconds = checkpoint.elapsed_seconds,
        checkpoint_error = maybe_text(checkpoint.error_message.as_deref()),
        created_at = moment(checkpoint.created_at)?,
        checkpoint_metadata = text(&checkpoint.metadata),
    );
    // Such a character would end the message.
    (!sql.contains('\0')).then_some(sql)
}

/// A text as SQL has it, quoted as libpq does: whatever is in it, it is nothing but a text.
fn text(text: &str) -> String {
    escape_literal(text)
}

fn maybe_text(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), escape_literal)
}

/// A moment in milliseconds since 1970; `None` for one that cannot be written as everybody reads it.
fn moment(millis: i64) -> Option<String> {
    (0..MOMENT_MAX).contains(&millis).then(|| format!("timestamptz '{}'", Moment(millis).rfc3339()))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_ends_where_it_ends(said in any::<String>()) {
            let sql = text(&said);
            let (quotes, escapes) = match sql.strip_prefix(" E'") {
                Some(rest) => (rest, true),
                None => (&sql[1..], false),
            };
            let inner = quotes.strip_suffix('\'').expect("it is closed");
            let read = inner.replace("\'\'", "\'");
            prop_assert_eq!(if escapes { read.replace("\\\\", "\\") } else { read }, said.clone());
            prop_assert_eq!(escapes, said.contains('\\'));
        }
    }

    #[test]
    fn moments_are_written_as_everybody_reads_them_or_not_at_all() {
        assert_eq!(moment(1_772_357_400_000).as_deref(), Some("timestamptz '2026-03-01T09:30:00.000Z'"));
        assert_eq!(moment(MOMENT_MAX - 1).map(|sql| sql.len()), Some(38));
        assert_eq!((moment(-1), moment(MOMENT_MAX)), (None, None));
    }
}
