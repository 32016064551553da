//! What `run` hands on to its command by the environment, and how a call inside finds it again.

use std::thread;
use std::time::Duration;

use uuid::Uuid;

use super::{environment, now};
use crate::checkpoint::id::TaskId;
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::{Draft, Parent, Task};
use crate::store::Store;

/// The variable that holds the wrapper's task.
pub(super) const TASK_ENV: &str = "AGENT_CHECKPOINT_TASK";
/// The variable that holds the name of the command's agent.
pub(super) const AGENT_ENV: &str = "AGENT_CHECKPOINT_AGENT_ID";
/// The variable that says that somebody hears of clicks: a server has started us, or the wrapper that we run inside of.
pub(super) const HEARD_ENV: &str = "AGENT_CHECKPOINT_HEARD";
/// What it says to a wrapper that a server has started, and to all inside of that.
pub(super) const LAUNCHED: &str = "launched";
pub(super) const HEARD: &str = "1";

/// How long after its beginning a task may not be recorded yet: its command does not wait for that, so that we may be
/// as young as the task is.
const YOUTH: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// The task that we run inside of, and its agent's name as it was announced.
pub(super) fn parent() -> Option<Parent> {
    let text = |name| environment(name)?.into_string().ok().filter(|text| !text.is_empty());
    let task = Uuid::parse_str(text(TASK_ENV)?.trim()).ok().map(TaskId)?;
    // Not what a flag says: that is a name of our own.
    Some(Parent { task, agent_id: text(AGENT_ENV) })
}

/// Whether a server has started us, which reads what we say on standard error before the command begins.
pub(super) fn is_launched() -> bool {
    environment(HEARD_ENV).is_some_and(|heard| heard == LAUNCHED)
}

/// What a call inside speaks for unless it goes by a name of its own.
pub(super) struct Inside {
    pub(super) task: TaskId,
    /// The task's agent, which may have got another name than the one announced.
    pub(super) agent_id: String,
    /// The thread that the environment names is somebody's that the wrapper was told to join, and so are we; otherwise
    /// it is the task's own, in which no other task begins.
    pub(super) joined: bool,
}

/// The wrapper's task, for a call that goes by this name.
pub(super) fn inside(store: &mut Store, named: Option<&str>) -> Option<Inside> {
    let Parent { task, agent_id: announced } = parent()?;
    let announced = announced.filter(|announced| named == Some(announced))?;
    if let Some((agent_id, joined)) = await_task(store, task) {
        return Some(Inside { task, agent_id, joined });
    }
    // The wrapper went on in a task that was there, and could not tell its command in time.
    let (task, joined) = store.read(|tx| tx.watched_of(&announced)).ok().flatten()?;
    Some(Inside { task, agent_id: announced, joined })
}

/// Waits until a task is recorded, if it is so young that it may still be; its agent, and whether it has joined a thread.
pub(super) fn await_task(store: &mut Store, task: TaskId) -> Option<(String, bool)> {
    let until = task.begun_at().plus(YOUTH);
    loop {
        match store.read(|tx| tx.agent_of(task)) {
            Ok(None) if now() < until => thread::sleep(POLL),
            found => return found.ok().flatten(),
        }
    }
}

/// Whether a wrapper's final word adds to what the command said of itself.
pub(super) fn says_more(task: Option<&Task>, draft: &Draft) -> bool {
    match task.map(|task| task.state) {
        // Whoever cancelled it meant it, whatever the exit code.
        Some(TaskState::Cancelled) => false,
        Some(TaskState::Completed) => draft.status == Status::Error,
        Some(TaskState::Running | TaskState::Failed | TaskState::Pending | TaskState::Approved) | None => {
            true
        }
    }
}
