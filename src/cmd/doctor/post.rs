//! `--post`: a message that belongs to no task, to see whether it arrives.

use std::thread;
use std::time::Instant;

use super::super::{jitter, now};
use super::report::Report;
use super::slack::mend;
use crate::checkpoint::Task;
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::outbox::{Credential, Job};
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::config::{Config, Target};
use crate::delivery::http::Http;
use crate::delivery::{Cause, Destination, Outcome, Place, Retry, deliver, retry};
use crate::store::Store;

/// Sends a message that belongs to no task.
pub(super) fn check(
    report: &mut Report,
    config: &Config,
    http: &mut Http,
    mut store: Option<Store>,
    deadline: Instant,
) {
    let Target::Slack(destination) = &config.target else {
        report.fail("post", "there is nowhere to post to", "set SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL");
        return;
    };
    let place = Place { channel: config.default_channel.clone(), thread: config.thread.clone() };
    let channel = place.thread.as_ref().map(|thread| &thread.channel).or(place.channel.as_ref());
    let channel = channel.cloned().unwrap_or_default();
    let credential = destination.credential();
    let outcome = loop {
        if let Some(store) = &mut store
            && let Err(turn) = wait_for_turn(store, &credential, &channel, deadline)
        {
            let message = format!("Slack's limits leave no room for a message before {}", turn.rfc3339());
            return report.fail("post", message, "try again then, or wait for longer with --deadline");
        }
        let outcome = deliver(http, destination, &test_message(), &place, deadline);
        match (&outcome, &mut store) {
            (Outcome::Retry(Retry { cause: Cause::Limited(after), .. }), Some(store)) => {
                let at = now();
                let until = retry::limited_until(*after, jitter(), at);
                if store.write(|tx| tx.hold_posts(&credential, until, at)).is_err() {
                    break outcome;
                }
            }
            _ => break outcome,
        }
    };
    match outcome {
        Outcome::Posted { channel_id, ts, .. } => {
            let at = ts.map_or_else(String::new, |ts| format!(" as {ts}"));
            let channel = channel_id.or(place.channel).unwrap_or_default();
            let whither = if matches!(destination, Destination::Webhook { .. }) {
                "the webhook's channel".to_owned()
            } else {
                channel
            };
            report.ok("post", format!("a test message is in {whither}{at}"));
        }
        Outcome::Rejected(reason) => {
            let hint = mend(&reason);
            report.fail("post", format!("Slack refused the test message: {reason}"), hint);
        }
        Outcome::Retry(Retry { reason, .. }) => {
            report.fail("post", format!("the test message did not arrive: {reason}"), "try again");
        }
        Outcome::Edited
        | Outcome::CardGone
        | Outcome::CardFrozen
        | Outcome::CardLeft
        | Outcome::ThreadGone => {
            report.fail("post", "the thread is gone", "mend AGENT_CHECKPOINT_THREAD");
        }
    }
}

/// Waits for a turn within Slack's limits, which all who share the cache keep to together. A cache that cannot be
/// written keeps nobody waiting.
///
/// # Errors
/// The moment of the turn, when that comes too late.
fn wait_for_turn(
    store: &mut Store,
    credential: &Credential,
    channel: &str,
    deadline: Instant,
) -> Result<(), Moment> {
    loop {
        let at = now();
        let latest = at.plus(deadline.saturating_duration_since(Instant::now()));
        let turn = store.write(|tx| tx.turn(credential, channel, at, latest)).unwrap_or(Ok(at))?;
        thread::sleep(turn.since(now()));
        // Slack may have asked everyone to wait meanwhile.
        let held_until = store.read(|tx| tx.post_hold(credential, now())).unwrap_or(at);
        if held_until <= now() {
            return Ok(());
        }
    }
}

fn test_message() -> Job {
    let at = now();
    let mut snapshot = Snapshot::blank();
    snapshot.status = Status::Checkpoint;
    snapshot.name = Some("Test message".to_owned());
    snapshot.action = Some(Excerpt::of("doctor --post: messages arrive here"));
    let blank = Task::blank(TaskId::new(at), "doctor".to_owned(), "test".to_owned(), at);
    Job::alone(Task { snapshot, ..blank }, CheckpointId::new(at), at)
}
