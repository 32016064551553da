//! When two machines know different things of one agent: what the database has wins, and every row is kept.

use std::time::Duration;

use super::{Session, Stop};
use crate::audit::forward;
use crate::checkpoint::audit::{AuditTask, SharedTask, inherit};
use crate::checkpoint::id::{CheckpointId, CheckpointKey, TaskKey};
use crate::checkpoint::plan::{self, DEFAULT_TASK_TYPE};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;
use crate::cmd::now;
use crate::store::{Batch, Store, StoreError, Tx};

/// How long whoever opens a task may take to open its thread, before somebody else does.
pub(super) const OPENER: Duration = Duration::from_secs(60);

/// Takes over what the database says of a task: its thread, and its end. `sent` is the thread that it was told.
pub(in crate::cmd) fn hear(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    sent: Option<&str>,
    cache: &str,
    at: Moment,
) -> Result<(), StoreError> {
    if let Some(given_up) = tx.share_thread(key, theirs, sent)? {
        tx.point_onward(key, given_up, at)?;
    }
    let mine = tx.task(key)?;
    let by_others = theirs.latest.as_ref().is_none_or(|latest| latest.cache != cache);
    let is_open = matches!(mine.state, TaskState::Running | TaskState::Failed);
    if by_others && is_open && theirs.task.state.is_closed() {
        tx.end_elsewhere(key, theirs)?;
    }
    Ok(())
}

/// A task of ours is the same as one that is open there: from now on it goes by that one's name, in that one's thread.
pub(in crate::cmd) fn merge(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    cache: &str,
    at: Moment,
) -> Result<(), StoreError> {
    let mut merged = tx.task(key)?;
    let sent = merged.thread_ts.clone();
    inherit(&mut merged.snapshot, &theirs.task.snapshot);
    if merged.task_type == DEFAULT_TASK_TYPE {
        merged.task_type.clone_from(&theirs.task.task_type);
    }
    merged.started_at = merged.started_at.min(theirs.task.started_at);
    tx.merge(key, theirs, &merged)?;
    hear(tx, key, theirs, sent.as_deref(), cache, at)?;
    await_opener(tx, key, theirs, at)
}

/// Leaves it to whoever began the task to open its thread, for a while.
pub(in crate::cmd) fn await_opener(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    at: Moment,
) -> Result<(), StoreError> {
    let opener_until = theirs.task.started_at.min(at).plus(OPENER);
    // Who opened it without Slack opens no thread.
    let is_for_slack = theirs.task.credential.is_some();
    if theirs.task.thread_ts.is_none() && is_for_slack && opener_until > at {
        tx.await_thread(key, opener_until)?;
    }
    Ok(())
}

impl Session<'_> {
    /// Finds the open tasks that stand in a batch's way and gives way to them, or ends them where ours was to replace
    /// whatever ran. Says whether there was any.
    pub(super) fn resolve(&mut self, store: &mut Store, batch: &Batch) -> Result<bool, Stop> {
        let begins = |told: &AuditTask| {
            batch.checkpoints.iter().any(|checkpoint| checkpoint.is_first && checkpoint.task == told.task.id)
        };
        let concerned =
            || batch.tasks.iter().filter(|told| told.task.state == TaskState::Running || begins(told));
        let agents: Vec<String> =
            concerned().map(|told| told.row(&self.trail.cache, self.offset).agent_id).collect();
        let open = forward::open_tasks(&mut self.client, &agents, self.deadline)?;
        let cache = self.trail.cache.clone();
        let mut endings = Vec::new();
        let mut any = false;
        for theirs in open.into_iter().map(|row| row.task(self.offset)) {
            let Some(told) = concerned()
                .find(|told| told.task.agent_id == theirs.task.agent_id && told.task.id != theirs.task.id)
            else {
                continue;
            };
            let Some(key) = told.task.key else { continue };
            // One that is over by now would have joined the other only if that was there before.
            let is_over = told.task.state != TaskState::Running;
            if is_over && (told.task.opened_anew || told.task.started_at < theirs.task.started_at) {
                continue;
            }
            any = true;
            let ending = store.write(|tx| {
                let at = now();
                let mine = tx.task(key)?;
                if mine.id != told.task.id {
                    // Somebody else was quicker.
                    return Ok(None);
                }
                if let Some(ending) = ended_here(tx, &theirs, &cache)? {
                    return Ok(Some(ending));
                }
                if mine.opened_anew && theirs.task.updated_at <= mine.started_at {
                    return supersede(tx, &theirs, at).map(Some);
                }
                merge(tx, key, &theirs, &cache, at)?;
                Ok(None)
            })?;
            endings.extend(ending);
        }
        // Before anything else: as long as they are open, ours cannot be.
        for ending in endings {
            let ending = store.read(|tx| tx.audit_of(&self.trail, ending))?;
            self.send(&ending)?;
        }
        Ok(any)
    }
}

/// The end of a task that is open there only because nobody has told of it yet: ours began after it.
fn ended_here(tx: &Tx<'_>, theirs: &SharedTask, cache: &str) -> Result<Option<CheckpointKey>, StoreError> {
    let Some(latest) = theirs.latest.as_ref().filter(|latest| latest.cache == cache) else { return Ok(None) };
    let known = tx.task_with_id(&theirs.task.id.to_string())?.filter(|known| known.state.is_closed());
    let Some(key) = known.and_then(|known| known.key) else { return Ok(None) };
    let newest = tx.audit_task(key)?.newest;
    Ok((newest.0 > latest.key).then_some(newest))
}

/// Ends a task of another machine for one of ours that was to replace whatever ran.
fn supersede(tx: &Tx<'_>, theirs: &SharedTask, at: Moment) -> Result<CheckpointKey, StoreError> {
    let key = tx.import_older(theirs)?;
    let append = plan::supersede(tx.task(key)?, CheckpointId::new(at), at);
    Ok(tx.append(&append, at)?.checkpoint)
}
