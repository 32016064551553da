//! Two views of an agent: what this cache has of it, and what everybody who shares the database has.

use super::audit::SharedTask;
use super::id::{CheckpointId, TaskId};
use super::parse::Thread;
use super::plan::continues;
use super::status::{Status, TaskState};
use super::{Checkpoint, Draft, Task};

/// What the database's view of an agent means for a checkpoint that was planned without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that we did not know, or nothing that concerns it.
    Keep,
    /// The cache is stale: take the task over as it stands there, and plan anew.
    TakeOver,
    /// Here and there another task is open: whichever it is that goes on, it is not ours.
    GiveWay,
}

/// Judges what the database has of an agent. `mine` is the agent's latest task here, as it was before the checkpoint,
/// `planned` the one that the checkpoint went to, and `cache` the name of this cache there.
pub(crate) fn judge(
    mine: Option<&Task>,
    planned: TaskId,
    theirs: &SharedTask,
    draft: &Draft,
    cache: &str,
) -> Verdict {
    // Whoever shares the cache was quicker to tell of the task that the checkpoint opened.
    if theirs.task.id == planned && mine.is_none_or(|mine| mine.id != planned) {
        return Verdict::Keep;
    }
    let told_by_us = theirs.latest.as_ref().is_some_and(|latest| latest.cache == cache);
    match mine {
        Some(mine) if mine.id == theirs.task.id => {
            let is_newer = theirs.task.updated_at > mine.updated_at;
            let is_stale = theirs.task.state.is_closed() || is_newer;
            if !told_by_us && is_stale && !mine.state.is_closed() { Verdict::TakeOver } else { Verdict::Keep }
        }
        Some(mine) if mine.state == TaskState::Running => {
            if theirs.task.state == TaskState::Running {
                Verdict::GiveWay
            } else {
                Verdict::Keep
            }
        }
        mine => {
            let concerns_it = theirs.task.state == TaskState::Running || continues(&theirs.task, draft);
            let is_newer = mine.is_none_or(|mine| theirs.task.updated_at > mine.updated_at);
            if concerns_it && is_newer { Verdict::TakeOver } else { Verdict::Keep }
        }
    }
}

/// Whether somebody else has said something of an open task since what is known of it here.
pub(crate) fn is_outdated(mine: &Task, theirs: &SharedTask, cache: &str) -> bool {
    let told_by_us = theirs.latest.as_ref().is_some_and(|latest| latest.cache == cache);
    let is_open = !mine.state.is_closed() && !theirs.task.state.is_closed();
    mine.id == theirs.task.id && is_open && !told_by_us && theirs.task.updated_at > mine.updated_at
}

/// Whether a task that was begun here without the database would have gone on in the one that it has of the agent, had
/// it been asked. `previous` is the agent's task here before that one, `first` the status that ours began with.
pub(crate) fn would_have_gone_on(
    previous: Option<&Task>,
    begun: &Task,
    first: Status,
    theirs: &SharedTask,
    cache: &str,
) -> bool {
    let bare = Draft::bare(CheckpointId::new(begun.started_at), begun.agent_id.clone(), first);
    let draft = Draft { new: begun.opened_anew, ..bare };
    // One that began later did not know of ours either.
    theirs.task.started_at <= begun.started_at
        && continues(&theirs.task, &draft)
        && judge(previous, begun.id, theirs, &draft, cache) == Verdict::TakeOver
}

/// Whether a checkpoint that was recorded in a task belongs to another: somebody else had ended that one before, which was
/// not known here, and what was said is no answer to anybody.
pub(crate) fn comes_after_end(checkpoint: &Checkpoint, theirs: &SharedTask, cache: &str) -> bool {
    let told_by_us = theirs.latest.as_ref().is_some_and(|latest| latest.cache == cache);
    let ended_at = theirs.task.ended_at.unwrap_or(theirs.task.updated_at);
    let is_routine = !checkpoint.status.is_immediate();
    theirs.task.state.is_closed() && !told_by_us && is_routine && checkpoint.created_at > ended_at
}

/// What was recorded in one task, to be said in another that begins with it. Whether it was to be posted whatever the
/// interval is not known any more: what begins a task is posted, and what follows is newer than anybody waited for.
pub(crate) fn said_again(task: &Task, checkpoint: Checkpoint) -> Draft {
    let thread = task.channel_id.clone().zip(task.thread_ts.clone()).filter(|_| task.joined);
    Draft {
        progress: Some(checkpoint.progress),
        tokens: checkpoint.tokens,
        context_limit: Some(checkpoint.context_limit),
        name: task.snapshot.name.clone(),
        task_type: Some(task.task_type.clone()),
        repo: task.snapshot.repo.clone(),
        action: checkpoint.action,
        error: checkpoint.error,
        tail: checkpoint.tail,
        artifacts: checkpoint.artifacts,
        meta: checkpoint.meta,
        channel: task.channel.clone().filter(|_| !task.channel_is_default),
        thread: thread.map(|(channel, ts)| Thread { channel, ts }),
        listens: task.snapshot.listens,
        ..Draft::bare(checkpoint.id, task.agent_id.clone(), checkpoint.status)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checkpoint::audit::Latest;
    use crate::checkpoint::context::Thresholds;
    use crate::checkpoint::plan::{Policy, Route, Stored, plan};
    use crate::checkpoint::time::Moment;

    fn task(id: u128, state: TaskState, updated_at: i64) -> Task {
        let id = TaskId(uuid::Uuid::from_u128(id));
        let blank = Task::blank(id, "bot".to_owned(), "task".to_owned(), Moment(0));
        Task { state, updated_at: Moment(updated_at), ..blank }
    }

    #[test]
    fn what_the_database_says_wins_over_a_stale_cache_and_over_nothing_else() {
        use TaskState::{Cancelled, Completed, Failed, Running};
        use Verdict::{GiveWay, Keep, TakeOver};
        let working = Status::Working;
        // (mine: id, state, updated at; theirs: id, state, updated at, told by us; draft's status; verdict)
        let cases = [
            // Nothing here: an open or failed task there goes on, a closed one is joined by what closes.
            (None, (1, Running, 5, false), working, TakeOver),
            (None, (1, Failed, 5, false), working, TakeOver),
            (None, (1, Failed, 5, false), Status::Starting, Keep),
            (None, (1, Completed, 5, false), working, Keep),
            (None, (1, Completed, 5, false), Status::Complete, TakeOver),
            (None, (1, Cancelled, 5, false), Status::Cancelled, TakeOver),
            // The same task: only what another cache told, and only what is newer.
            (Some((1, Running, 5)), (1, Running, 5, true), working, Keep),
            (Some((1, Running, 5)), (1, Running, 4, false), working, Keep),
            (Some((1, Running, 5)), (1, Running, 6, false), working, TakeOver),
            (Some((1, Running, 5)), (1, Completed, 4, false), working, TakeOver),
            (Some((1, Completed, 5)), (1, Running, 6, false), working, Keep),
            // Another task.
            (Some((2, Running, 5)), (1, Running, 4, false), working, GiveWay),
            (Some((2, Running, 5)), (1, Completed, 9, false), working, Keep),
            (Some((2, Completed, 5)), (1, Running, 6, false), working, TakeOver),
            (Some((2, Completed, 5)), (1, Running, 4, false), working, Keep),
            (Some((2, Completed, 5)), (1, Failed, 6, false), working, TakeOver),
            (Some((2, Completed, 5)), (1, Completed, 6, false), working, Keep),
        ];
        for (mine, (id, state, updated_at, by_us), status, verdict) in cases {
            let mine = mine.map(|(id, state, updated_at)| task(id, state, updated_at));
            let cache = if by_us { "ours" } else { "another" }.to_owned();
            let latest = Some(Latest { cache, key: 1, at_ms: updated_at });
            let theirs = SharedTask { task: task(id, state, updated_at), latest };
            let draft = Draft::of("bot", status);
            assert_eq!(
                judge(mine.as_ref(), TaskId(uuid::Uuid::from_u128(9)), &theirs, &draft, "ours"),
                verdict,
                "{mine:?} {theirs:?} {status:?}"
            );
            let id = theirs.task.id;
            if mine.as_ref().is_none_or(|mine| mine.id != id) {
                assert_eq!(judge(mine.as_ref(), id, &theirs, &draft, "ours"), Keep, "{mine:?} opened {id}");
            }
        }
    }

    #[test]
    fn what_is_known_of_an_open_task_is_outdated_once_somebody_else_has_said_something_later() {
        use TaskState::{Completed, Failed, Running};
        // (here: state, updated at; there: id, state, updated at, told by us; whether it is)
        let cases = [
            ((Running, 5), (1, Running, 6, false), true),
            ((Running, 5), (1, Failed, 6, false), true),
            ((Failed, 5), (1, Running, 6, false), true),
            ((Running, 5), (1, Running, 5, false), false),
            ((Running, 5), (1, Running, 6, true), false),
            ((Running, 5), (2, Running, 6, false), false),
            ((Completed, 5), (1, Running, 6, false), false),
            ((Running, 5), (1, Completed, 6, false), false),
        ];
        for ((state, at), (id, theirs, updated_at, by_us), is) in cases {
            let cache = if by_us { "ours" } else { "another" }.to_owned();
            let latest = Some(Latest { cache, key: 1, at_ms: updated_at });
            let theirs = SharedTask { task: task(id, theirs, updated_at), latest };
            assert_eq!(is_outdated(&task(1, state, at), &theirs, "ours"), is, "{state:?} {at} {theirs:?}");
        }
    }

    #[test]
    fn a_task_that_was_begun_alone_goes_on_in_the_one_that_its_first_checkpoint_belongs_to() {
        use TaskState::{Completed, Failed, Running};
        let (working, starting, complete) = (Status::Working, Status::Starting, Status::Complete);
        // (before it here: id, state, updated at; --new; first status; theirs: state, started at, updated at; whether it
        // does). Ours began at 10.
        let cases = [
            (None, false, working, (Failed, 1, 5), true),
            (None, false, complete, (Failed, 1, 5), true),
            (None, false, starting, (Failed, 1, 5), false),
            (None, true, working, (Failed, 1, 5), false),
            // It failed only after ours began, or it began after ours did.
            (None, false, working, (Failed, 1, 15), true),
            (None, false, working, (Failed, 11, 15), false),
            // What was ended is joined by what ends.
            (None, false, complete, (Completed, 1, 5), true),
            (None, false, working, (Completed, 1, 5), false),
            // What this cache had itself counts where it is newer, or the same.
            (Some((2, Completed, 4)), false, working, (Failed, 1, 5), true),
            (Some((2, Completed, 6)), false, working, (Failed, 1, 5), false),
            (Some((1, Completed, 4)), false, working, (Failed, 1, 5), false),
            (Some((2, Running, 4)), false, working, (Failed, 1, 5), false),
        ];
        for (before, opened_anew, first, (state, started_at, updated_at), goes_on) in cases {
            let before = before.map(|(id, state, updated_at)| task(id, state, updated_at));
            let begun = Task { started_at: Moment(10), opened_anew, ..task(9, Running, 20) };
            let theirs = Task { started_at: Moment(started_at), ..task(1, state, updated_at) };
            let latest = Some(Latest { cache: "another".to_owned(), key: 1, at_ms: updated_at });
            let theirs = SharedTask { task: theirs, latest };
            let said = would_have_gone_on(before.as_ref(), &begun, first, &theirs, "ours");
            assert_eq!(said, goes_on, "{before:?} {first:?} {theirs:?}");
        }
    }

    #[test]
    fn what_is_routine_and_later_than_an_end_elsewhere_belongs_to_another_task() {
        use TaskState::{Completed, Failed, Running};
        let policy =
            Policy { min_interval: Duration::ZERO, thresholds: Thresholds::default(), route: Route::Off };
        // (status, recorded at; there: state, ended at, told by us; whether it does)
        let cases = [
            (Status::Working, 6, (Completed, Some(5), false), true),
            (Status::Starting, 6, (Completed, Some(5), false), true),
            (Status::Working, 10, (Completed, None, false), true),
            // It was said before, or nobody else ended it.
            (Status::Working, 5, (Completed, Some(5), false), false),
            (Status::Working, 6, (Completed, Some(5), true), false),
            (Status::Working, 6, (Running, None, false), false),
            (Status::Working, 6, (Failed, Some(5), false), false),
            // What ends joins, and what is told at once was judged when it was.
            (Status::Complete, 6, (Completed, Some(5), false), false),
            (Status::Blocked, 6, (Completed, Some(5), false), false),
        ];
        for (status, at, (state, ended_at, by_us), is_later) in cases {
            let ids = (TaskId::new(Moment(0)), CheckpointId::new(Moment(0)));
            let plan = plan(&Stored::default(), &Draft::of("bot", status), &policy, ids, Moment(at));
            let cache = if by_us { "ours" } else { "another" }.to_owned();
            let latest = Some(Latest { cache, key: 1, at_ms: 5 });
            let theirs =
                SharedTask { task: Task { ended_at: ended_at.map(Moment), ..task(1, state, 7) }, latest };
            let said = comes_after_end(&plan.append.checkpoint, &theirs, "ours");
            assert_eq!(said, is_later, "{status:?} {at} {theirs:?}");
        }
    }
}
