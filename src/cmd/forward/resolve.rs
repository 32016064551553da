//! When two machines know different things of one agent: what the database has wins, and every row is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use super::{Session, Stop};
use crate::audit::forward;
use crate::checkpoint::Task;
use crate::checkpoint::audit::{AuditCheckpoint, AuditTask, SharedTask, inherit};
use crate::checkpoint::id::{CheckpointId, CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::plan::{self, DEFAULT_TASK_TYPE, Policy, Route};
use crate::checkpoint::reconcile::{comes_after_end, is_outdated, said_again, would_have_gone_on};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::cmd::{now, record};
use crate::store::{Batch, Store, StoreError, Trail, Tx};

/// How long whoever opens a task may take to open its thread, before somebody else does.
pub(super) const OPENER: Duration = Duration::from_secs(60);

/// Takes over what the database says of a task: its thread, and its end. `sent` is the thread that it was told. Says how
/// the task stood here.
pub(in crate::cmd) fn hear(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    sent: Option<&str>,
    cache: &str,
    at: Moment,
) -> Result<Task, StoreError> {
    if let Some(given_up) = tx.share_thread(key, theirs, sent)? {
        tx.point_onward(key, given_up, at)?;
    }
    let mine = tx.task(key)?;
    let by_others = theirs.latest.as_ref().is_none_or(|latest| latest.cache != cache);
    let is_open = matches!(mine.state, TaskState::Running | TaskState::Failed);
    if by_others && is_open && theirs.task.state.is_closed() {
        tx.end_elsewhere(key, theirs)?;
    }
    Ok(mine)
}

/// The same, and what somebody else has said of it since: the card shows that.
pub(super) fn catch_up(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    sent: Option<&str>,
    cache: &str,
    at: Moment,
) -> Result<(), StoreError> {
    let mine = hear(tx, key, theirs, sent, cache, at)?;
    if is_outdated(&mine, theirs, cache) { tx.stand_as(key, &mine, theirs) } else { Ok(()) }
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

/// What became of a task here that somebody else had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cmd) enum Apart {
    /// Nothing was recorded in it since.
    Nothing,
    /// What was recorded since is in this task.
    In(TaskKey),
    /// It is no longer what it was: somebody else was quicker.
    Already,
}

/// What was recorded here in a task that somebody else had ended before begins a task of its own, behind what the database
/// has already.
pub(in crate::cmd) fn set_apart(
    tx: &Tx<'_>,
    key: TaskKey,
    theirs: &SharedTask,
    trail: &Trail,
    policy: &Policy,
) -> Result<Apart, StoreError> {
    let mine = tx.task(key)?;
    if mine.id != theirs.task.id || mine.state.is_closed() {
        return Ok(Apart::Already);
    }
    let taken = tx.take_back(key, trail.after, |recorded| comes_after_end(recorded, theirs, &trail.cache))?;
    if taken.is_empty() {
        return Ok(Apart::Nothing);
    }
    tx.end_elsewhere(key, theirs)?;
    let mut apart = Apart::Nothing;
    for recorded in taken {
        let (at, delivery) = (recorded.created_at, recorded.delivery);
        let route = match delivery {
            Delivery::Off => Route::Off,
            Delivery::Printed => Route::Print,
            _ => plan::own_route(&mine),
        };
        let policy = Policy { route, ..policy.clone() };
        let noted = record::append(tx, &said_again(&mine, recorded), &policy, at)?;
        apart = Apart::In(noted.recorded.task);
    }
    Ok(apart)
}

/// A task of ours was ended there, and the agent has had another one since: what was recorded here since the end, and what
/// comes, goes on in that one while it runs.
pub(in crate::cmd) fn leave_behind(
    tx: &Tx<'_>,
    (key, ended): (TaskKey, &SharedTask),
    latest: &SharedTask,
    (trail, policy): (&Trail, &Policy),
    at: Moment,
) -> Result<(), StoreError> {
    match (set_apart(tx, key, ended, trail, policy)?, latest.task.state) {
        (Apart::In(task), TaskState::Running) => return merge(tx, task, latest, &trail.cache, at),
        (Apart::In(_), _) => return Ok(()),
        (Apart::Nothing, _) => tx.end_elsewhere(key, ended)?,
        (Apart::Already, _) => {}
    }
    let key = tx.import(latest)?;
    await_opener(tx, key, latest, at)
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
    /// Finds the tasks there that a batch's tasks belong to, or that stand in their way: ours become one with them, or
    /// end them where ours were to replace whatever ran. Says whether there were any.
    pub(super) fn resolve(&mut self, store: &mut Store, batch: &Batch) -> Result<bool, Stop> {
        let concerned: Vec<&AuditTask> = batch
            .tasks
            .iter()
            .filter(|told| told.task.state == TaskState::Running || first_of(batch, told).is_some())
            .collect();
        let agents = self.agents(&concerned);
        let open = forward::open_tasks(&mut self.client, &agents, self.deadline)?;
        let open: Vec<SharedTask> = open.into_iter().map(|row| row.task(self.offset)).collect();
        let is_open = |told: &AuditTask| open.iter().any(|open| open.task.agent_id == told.task.agent_id);
        let others: Vec<&AuditTask> = concerned.iter().copied().filter(|told| !is_open(told)).collect();
        let gave_way = self.give_way(store, &concerned, open)?;
        Ok(self.go_on(store, batch, &others)? || gave_way)
    }

    fn agents(&self, tasks: &[&AuditTask]) -> Vec<String> {
        tasks.iter().map(|told| told.row(&self.trail.cache, self.offset).agent_id).collect()
    }

    /// Looks before they are told whether tasks that a batch goes on with were ended by somebody else; what was recorded
    /// after that is told in another task. Says whether the batch is out of date by that. Each is asked for once.
    pub(super) fn part(&mut self, store: &mut Store, batch: &Batch) -> Result<bool, Stop> {
        let of = |rows: &mut dyn Iterator<Item = &AuditCheckpoint>| -> BTreeSet<Uuid> {
            rows.map(|row| row.task.0).collect()
        };
        let begun = of(&mut batch.checkpoints.iter().filter(|row| row.is_first));
        let routine = of(&mut batch.checkpoints.iter().filter(|row| !row.checkpoint.status.is_immediate()));
        let concerned: Vec<(TaskKey, Uuid)> = batch
            .tasks
            .iter()
            .filter(|told| !told.task.state.is_closed())
            .filter_map(|told| Some((told.task.key?, told.task.id.0)))
            .filter(|(_, id)| routine.contains(id) && !begun.contains(id) && !self.looked_at.contains(id))
            .collect();
        self.looked_at.extend(batch.tasks.iter().map(|told| told.task.id.0));
        if concerned.is_empty() {
            return Ok(false);
        }
        let ids: Vec<TaskId> = concerned.iter().map(|(_, id)| TaskId(*id)).collect();
        let found = forward::tasks(&mut self.client, &ids, None, self.deadline)?;
        let mut any = false;
        for theirs in found.into_iter().map(|row| row.task(self.offset)) {
            let key = concerned.iter().find(|(_, id)| *id == theirs.task.id.0).map(|(key, _)| *key);
            if let (Some(key), true) = (key, theirs.task.state.is_closed()) {
                let policy = self.forwarder.rules.policy();
                let apart = store.write(|tx| set_apart(tx, key, &theirs, &self.trail, policy))?;
                any |= apart != Apart::Nothing;
            }
        }
        Ok(any)
    }

    /// Gives way to the tasks that are open there.
    fn give_way(
        &mut self,
        store: &mut Store,
        concerned: &[&AuditTask],
        open: Vec<SharedTask>,
    ) -> Result<bool, Stop> {
        let cache = self.trail.cache.clone();
        let mut endings = Vec::new();
        let mut any = false;
        for theirs in open {
            let Some(told) = concerned
                .iter()
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

    /// Goes on in tasks there that are not open, failed ones above all, where a task of ours would have done so had it
    /// been known here when it began.
    fn go_on(&mut self, store: &mut Store, batch: &Batch, told: &[&AuditTask]) -> Result<bool, Stop> {
        let begun: Vec<(&AuditTask, Status)> =
            told.iter().filter_map(|told| Some((*told, first_of(batch, told)?))).collect();
        // What begins a task, whatever there was, is most of what is told: nothing need be asked for it.
        let begun: Vec<(&AuditTask, Status)> = begun
            .into_iter()
            .filter(|(told, first)| !told.task.opened_anew && *first != Status::Starting)
            .collect();
        if begun.is_empty() {
            return Ok(false);
        }
        let mut agents = self.agents(&begun.iter().map(|(told, _)| *told).collect::<Vec<_>>());
        agents.sort_unstable();
        agents.dedup();
        let latest = forward::latest_tasks(&mut self.client, &agents, self.deadline)?;
        let latest: Vec<SharedTask> = latest.into_iter().map(|row| row.task(self.offset)).collect();
        let cache = self.trail.cache.clone();
        let mut any = false;
        for (told, first) in begun {
            let theirs = latest.iter().find(|theirs| theirs.task.agent_id == told.task.agent_id);
            let (Some(theirs), Some(key)) = (theirs, told.task.key) else { continue };
            any |= store.write(|tx| {
                let mine = tx.task(key)?;
                let before = tx.task_before(&mine)?;
                // Somebody else may have been quicker.
                let goes_on = mine.id == told.task.id
                    && would_have_gone_on(before.as_ref(), &mine, first, theirs, &cache);
                if goes_on {
                    merge(tx, key, theirs, &cache, now())?;
                }
                Ok(goes_on || mine.id != told.task.id)
            })?;
        }
        Ok(any)
    }
}

/// The status of the checkpoint that begins a task, where a batch tells of it.
fn first_of(batch: &Batch, told: &AuditTask) -> Option<Status> {
    let begins = |row: &&AuditCheckpoint| row.is_first && row.task == told.task.id;
    batch.checkpoints.iter().find(begins).map(|row| row.checkpoint.status)
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
