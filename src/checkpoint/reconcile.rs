//! Two views of an agent: what this cache has of it, and what everybody who shares the database has.

use super::audit::SharedTask;
use super::id::{CheckpointId, TaskId};
use super::plan::continues;
use super::status::{Status, TaskState};
use super::{Draft, Task};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::audit::Latest;
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
}
