//! What is known of tasks where a database and a cache each know a part: the cache has what it has not told yet, the
//! database what other machines told. All moments are by the database's clock.

use crate::checkpoint::Task;
use crate::checkpoint::status::TaskState;

/// A task of the cache of which the database lacks something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Untold {
    pub(crate) task: Task,
    /// The database has heard nothing of it.
    pub(crate) is_new: bool,
}

/// The tasks that run, the latest change first: those that the database tells of as they are by now, and those of which it
/// has not heard. `theirs` are all that run by what it knows.
pub(crate) fn running(mut theirs: Vec<Task>, ours: Vec<Untold>) -> Vec<Task> {
    for Untold { task, is_new } in ours {
        let same = theirs.iter_mut().find(|known| known.id == task.id);
        // An agent has one task that runs: what was begun in ignorance of it becomes the same.
        let same = match same {
            None if is_new => theirs.iter_mut().find(|known| known.agent_id == task.agent_id),
            same => same,
        };
        match same {
            Some(known) if known.id == task.id || task.state == TaskState::Running => {
                if task.updated_at >= known.updated_at {
                    *known = task;
                }
            }
            None if is_new => theirs.push(task),
            // It ended on another machine, or the database tells of no more.
            Some(_) | None => {}
        }
    }
    theirs.retain(|task| task.state == TaskState::Running);
    theirs.sort_by_key(|task| std::cmp::Reverse(task.updated_at));
    theirs
}

/// An agent's latest task, of what the database has and what the cache has not told it.
pub(crate) fn latest(theirs: Option<Task>, ours: Option<Untold>) -> Option<Task> {
    match (theirs, ours) {
        (Some(theirs), Some(Untold { task, is_new })) => {
            let is_later = match theirs.id == task.id {
                true => task.updated_at >= theirs.updated_at,
                false => is_new && task.started_at >= theirs.started_at,
            };
            Some(if is_later { task } else { theirs })
        }
        (theirs, ours) => theirs.or(ours.map(|untold| untold.task)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::id::TaskId;
    use crate::checkpoint::time::Moment;

    /// A task with this number, of this agent, in this state, that began with its number and changed last then.
    fn task(number: i64, agent_id: &str, state: TaskState, updated_at: i64) -> Task {
        let id = TaskId(uuid::Uuid::from_u128(number.unsigned_abs().into()));
        let task = Task::blank(id, agent_id.to_owned(), "task".to_owned(), Moment(number));
        Task { state, updated_at: Moment(updated_at), ..task }
    }

    fn told(tasks: &[Task]) -> Vec<(i64, i64)> {
        tasks.iter().map(|task| (task.started_at.0, task.updated_at.0)).collect()
    }

    /// What the case is, the cache's task and whether it is new, and what runs then.
    type Row<'a> = (&'a str, (i64, &'a str, TaskState, i64, bool), &'a [(i64, i64)]);

    #[test]
    fn what_was_not_told_yet_is_among_what_runs_and_what_has_ended_is_not() {
        use TaskState::{Completed, Running};
        let theirs = || vec![task(1, "bot", Running, 10), task(2, "other", Running, 9)];
        let rows: [Row<'_>; 8] = [
            ("unknown there", (3, "new", Running, 11, true), &[(3, 11), (1, 10), (2, 9)]),
            ("unknown and over", (3, "new", Completed, 11, true), &[(1, 10), (2, 9)]),
            ("further here", (2, "other", Running, 12, false), &[(2, 12), (1, 10)]),
            ("further there", (2, "other", Running, 8, false), &[(1, 10), (2, 9)]),
            ("over here", (2, "other", Completed, 12, false), &[(1, 10)]),
            ("over there", (4, "gone", Running, 12, false), &[(1, 10), (2, 9)]),
            ("begun in ignorance", (5, "bot", Running, 12, true), &[(5, 12), (2, 9)]),
            ("begun and ended in ignorance", (5, "bot", Completed, 12, true), &[(1, 10), (2, 9)]),
        ];
        for (case, (number, agent, state, at, is_new), runs) in rows {
            let ours = Untold { task: task(number, agent, state, at), is_new };
            assert_eq!(told(&running(theirs(), vec![ours])), runs, "{case}");
        }
    }

    #[test]
    fn the_latest_task_is_the_one_that_began_last_as_it_is_by_now() {
        use TaskState::{Completed, Running};
        let theirs = || Some(task(5, "bot", Running, 10));
        let ours = |number, at, is_new| Some(Untold { task: task(number, "bot", Completed, at), is_new });
        for (case, theirs, ours, found) in [
            ("nobody knows it", None, None, None),
            ("only there", theirs(), None, Some((5, 10))),
            ("only here", None, ours(3, 4, true), Some((3, 4))),
            ("further here", theirs(), ours(5, 11, false), Some((5, 11))),
            ("further there", theirs(), ours(5, 9, false), Some((5, 10))),
            ("begun later", theirs(), ours(6, 7, true), Some((6, 7))),
            ("begun before", theirs(), ours(4, 11, true), Some((5, 10))),
            ("left behind", theirs(), ours(6, 11, false), Some((5, 10))),
        ] {
            let found_now = latest(theirs, ours).map(|task| (task.started_at.0, task.updated_at.0));
            assert_eq!(found_now, found, "{case}");
        }
    }
}
