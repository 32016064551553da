//! What recording one checkpoint means: which task it belongs to, what changes, and when Slack hears of it.

use std::time::Duration;

use super::context::{self, Level, Thresholds};
use super::id::{CheckpointId, EntryKey, TaskId, TaskKey};
use super::outbox::{Credential, Delivery, Priority, Waiting};
use super::parse::Thread;
use super::snapshot::Excerpt;
use super::status::{Status, TaskState};
use super::time::{Moment, millis};
use super::{Checkpoint, Draft, Task};

/// The task type of a task that was given none.
pub(crate) const DEFAULT_TASK_TYPE: &str = "task";

/// The action of the checkpoint that closes a running task when a new one is asked for.
const SUPERSEDED: &str = "superseded";

/// What the agent has in the store: its latest task, and that task's entries still in the outbox.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) task: Option<Task>,
    /// Post entries in the order recorded; cards are not listed.
    pub(crate) waiting: Vec<Waiting>,
    /// The task that a new one is started from.
    pub(crate) parent: Option<TaskKey>,
}

/// The settings that planning depends on.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// At most one routine message per task in this time.
    pub(crate) min_interval: Duration,
    pub(crate) thresholds: Thresholds,
    pub(crate) route: Route,
}

/// Where a checkpoint goes beside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Nowhere: the caller asked for it.
    Off,
    /// To standard output: no destination is configured.
    Print,
    /// To Slack.
    Slack {
        /// `None` when a credential is configured but could not be read: the entry waits.
        credential: Option<Credential>,
        /// The channel of a task that names none; `None` when it could not be read.
        default_channel: Option<String>,
    },
}

/// All that recording one checkpoint changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// A running task that the new one replaces, closed as cancelled.
    pub(crate) superseded: Option<Append>,
    /// The checkpoint itself, and its task as it stands afterwards.
    pub(crate) append: Append,
    pub(crate) notices: Vec<Notice>,
}

/// A checkpoint appended to a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Append {
    /// The task after the checkpoint; new when it has no key.
    pub(crate) task: Task,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) entry: EntryChange,
    /// Waiting routine entries that the new message makes outdated.
    pub(crate) outdated: Vec<EntryKey>,
}

/// What happens to the outbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EntryChange {
    None,
    /// A new entry; an immediate one shows the task as it stands now, whatever happens before it is sent.
    Insert {
        priority: Priority,
        due_at: Moment,
    },
    /// The waiting routine entry carries this checkpoint from now on.
    Repoint {
        entry: EntryKey,
        due_at: Moment,
    },
}

/// Something that the caller should hear of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A context threshold was crossed upwards.
    Context {
        level: Level,
        /// Percent of the limit, with one decimal.
        percent: f64,
        tokens: u64,
        limit: u64,
    },
    /// The task already has a thread in another channel.
    ChannelKept { asked: String, kept: String },
    /// The task already has another thread.
    ThreadKept { asked: String, kept: String },
}

/// Joins a draft with what is stored.
///
/// `task_id` is used if the draft opens a task, `closing_id` if it closes a running one on the way.
pub(crate) fn plan(
    stored: &Stored,
    draft: &Draft,
    policy: &Policy,
    (task_id, closing_id): (TaskId, CheckpointId),
    now: Moment,
) -> Plan {
    let mut notices = Vec::new();
    match &stored.task {
        Some(task) if continues(task, draft) => {
            let task = adopt(task.clone(), draft, policy, &mut notices);
            let append = append(task, &stored.waiting, draft, policy, now, &mut notices);
            Plan { superseded: None, append, notices }
        }
        previous => {
            let superseded = previous.as_ref().filter(|task| task.state == TaskState::Running).map(|task| {
                append(
                    task.clone(),
                    &stored.waiting,
                    &closing(&draft.agent_id, closing_id),
                    policy,
                    now,
                    &mut Vec::new(),
                )
            });
            let append = append(
                open(draft, policy, draft.opens.unwrap_or(task_id), stored.parent, now),
                &[],
                draft,
                policy,
                now,
                &mut notices,
            );
            Plan { superseded, append, notices }
        }
    }
}

/// Whether the draft belongs to this task rather than to a new one.
pub(super) fn continues(task: &Task, draft: &Draft) -> bool {
    if draft.within == Some(task.id) {
        return true;
    }
    if draft.new {
        return false;
    }
    match task.state {
        TaskState::Running | TaskState::Pending | TaskState::Approved => true,
        TaskState::Failed => draft.status != Status::Starting,
        TaskState::Completed | TaskState::Cancelled => draft.status.is_terminal(),
    }
}

/// Marks a running task whose process has ended without a word; `id` is that of the new checkpoint.
///
/// It keeps its own place in Slack, whatever the caller who found it is configured for.
pub(crate) fn lose(
    task: Task,
    waiting: &[Waiting],
    reason: &str,
    policy: &Policy,
    id: CheckpointId,
    now: Moment,
) -> Append {
    let error = Some(format!("lost ({reason})"));
    let draft = Draft { error, ..Draft::bare(id, task.agent_id.clone(), Status::Error) };
    speak_for(task, waiting, &draft, policy, now)
}

/// Says something in a task that is not the caller's: it keeps its own place in Slack, whatever the caller is configured
/// for.
pub(crate) fn speak_for(
    task: Task,
    waiting: &[Waiting],
    draft: &Draft,
    policy: &Policy,
    now: Moment,
) -> Append {
    let policy = Policy { route: own_route(&task), ..policy.clone() };
    append(task, waiting, draft, &policy, now, &mut Vec::new())
}

/// Closes a running task that another one replaces; `id` is that of the new checkpoint. It keeps its own place in Slack.
#[cfg(feature = "postgres")]
pub(crate) fn supersede(task: Task, id: CheckpointId, now: Moment) -> Append {
    let draft = closing(&task.agent_id, id);
    let policy =
        Policy { min_interval: Duration::ZERO, thresholds: Thresholds::default(), route: Route::Off };
    speak_for(task, &[], &draft, &policy, now)
}

/// Where a task's messages have gone so far.
pub(crate) fn own_route(task: &Task) -> Route {
    match &task.credential {
        Some(credential) => {
            Route::Slack { credential: Some(credential.clone()), default_channel: task.channel.clone() }
        }
        None => Route::Off,
    }
}

/// A draft that closes the agent's running task.
fn closing(agent_id: &str, id: CheckpointId) -> Draft {
    let action = Some(SUPERSEDED.to_owned());
    Draft { action, ..Draft::bare(id, agent_id.to_owned(), Status::Cancelled) }
}

/// A task that has no checkpoint yet.
fn open(draft: &Draft, policy: &Policy, id: TaskId, parent: Option<TaskKey>, now: Moment) -> Task {
    let (credential, default_channel) = match &policy.route {
        Route::Slack { credential, default_channel } => (credential.clone(), default_channel.clone()),
        Route::Off | Route::Print => (None, None),
    };
    let (channel, channel_id, thread_ts) = match &draft.thread {
        Some(Thread { channel, ts }) => (Some(channel.clone()), Some(channel.clone()), Some(ts.clone())),
        None => (draft.channel.clone().or(default_channel), None, None),
    };
    let task_type = draft.task_type.clone().unwrap_or_else(|| DEFAULT_TASK_TYPE.to_owned());
    let blank = Task::blank(id, draft.agent_id.clone(), task_type, now);
    Task {
        channel_is_default: draft.thread.is_none() && draft.channel.is_none(),
        joined: draft.thread.is_some(),
        channel,
        channel_id,
        thread_ts,
        credential,
        parent,
        opened_anew: draft.new,
        ..blank
    }
}

/// Takes over what the draft says of the task's place in Slack, as far as the task has none yet.
fn adopt(mut task: Task, draft: &Draft, policy: &Policy, notices: &mut Vec<Notice>) -> Task {
    if let Route::Slack { credential, default_channel } = &policy.route {
        if credential.is_some() {
            task.credential.clone_from(credential);
        }
        let has_no_place = task.thread_ts.is_none() && task.channel_id.is_none();
        if task.channel.is_none() {
            task.channel.clone_from(default_channel);
            task.channel_is_default = true;
        } else if task.channel_is_default && has_no_place && default_channel.is_some() {
            // A wrong setting that was mended since: nothing of the task is in Slack yet.
            task.channel.clone_from(default_channel);
        }
    }
    if let Some(thread) = &draft.thread {
        match &task.thread_ts {
            None => {
                task.channel = Some(thread.channel.clone());
                task.channel_id = Some(thread.channel.clone());
                task.thread_ts = Some(thread.ts.clone());
                (task.channel_is_default, task.joined) = (false, true);
            }
            Some(kept) if *kept != thread.ts => {
                notices.push(Notice::ThreadKept { asked: thread.ts.clone(), kept: kept.clone() });
            }
            Some(_) => {}
        }
    } else if let Some(channel) = &draft.channel {
        let same = task.channel.as_ref() == Some(channel) || task.channel_id.as_ref() == Some(channel);
        if !same && task.thread_ts.is_none() {
            task.channel = Some(channel.clone());
            (task.channel_is_default, task.channel_id) = (false, None);
        } else if !same {
            let kept = task.channel.clone().unwrap_or_default();
            notices.push(Notice::ChannelKept { asked: channel.clone(), kept });
        }
    }
    task
}

/// Appends the draft to the task and decides when Slack hears of it.
fn append(
    mut task: Task,
    waiting: &[Waiting],
    draft: &Draft,
    policy: &Policy,
    now: Moment,
    notices: &mut Vec<Notice>,
) -> Append {
    let is_first = task.key.is_none();
    let crossed = advance(&mut task, draft, policy.thresholds, now);
    if crossed {
        let snapshot = &task.snapshot;
        notices.push(Notice::Context {
            level: snapshot.context,
            percent: snapshot.context_percent(),
            tokens: snapshot.tokens.unwrap_or(0),
            limit: snapshot.context_limit,
        });
    }
    let immediate = is_first || crossed || draft.force || draft.status.is_immediate();
    let (entry, outdated, delivery) = match policy.route {
        Route::Off => (EntryChange::None, Vec::new(), Delivery::Off),
        Route::Print => (EntryChange::None, Vec::new(), Delivery::Printed),
        Route::Slack { .. } => schedule(&task, waiting, immediate, policy.min_interval, now),
    };
    let snapshot = &task.snapshot;
    let checkpoint = Checkpoint {
        key: None,
        id: draft.id,
        status: draft.status,
        progress: snapshot.progress,
        tokens: snapshot.tokens,
        context_limit: snapshot.context_limit,
        action: draft.action.clone(),
        error: draft.error.clone(),
        tail: draft.tail.clone(),
        artifacts: draft.artifacts.clone(),
        meta: draft.meta.clone(),
        elapsed_ms: snapshot.elapsed_ms,
        created_at: now,
        delivery,
        delivery_error: None,
        message_ts: None,
    };
    Append { task, checkpoint, entry, outdated }
}

/// Moves the task's snapshot and state on; says whether a context threshold was crossed upwards.
fn advance(task: &mut Task, draft: &Draft, thresholds: Thresholds, now: Moment) -> bool {
    let snapshot = &mut task.snapshot;
    snapshot.status = draft.status;
    snapshot.progress = match draft.progress {
        Some(progress) => progress,
        None if draft.status == Status::Complete => 100,
        None => snapshot.progress,
    };
    if draft.name.is_some() {
        snapshot.name.clone_from(&draft.name);
    }
    if draft.repo.is_some() {
        snapshot.repo.clone_from(&draft.repo);
    } else if snapshot.repo.is_none() {
        snapshot.repo.clone_from(&draft.repo_default);
    }
    if draft.tokens.is_some() {
        snapshot.tokens = draft.tokens;
    }
    if let Some(limit) = draft.context_limit {
        snapshot.context_limit = limit;
    }
    if let Some(action) = &draft.action {
        snapshot.action = Some(Excerpt::of(action));
        snapshot.push_step(action);
    }
    snapshot.error = draft.error.as_deref().map(Excerpt::of);
    snapshot.tail = draft.tail.as_deref().map(Excerpt::end_of);
    snapshot.push_artifacts(&draft.artifacts);
    // One who listens is enough.
    if snapshot.listens != Some(true) {
        snapshot.listens = draft.listens.or(snapshot.listens);
    }
    snapshot.elapsed_ms = millis(now.since(task.started_at));

    let tokens = snapshot.tokens.unwrap_or(0);
    let (told, crossed) = context::cross(snapshot.context_told, tokens, snapshot.context_limit, thresholds);
    snapshot.context_told = told;
    snapshot.context = context::level(tokens, snapshot.context_limit, thresholds);

    if let Some(task_type) = &draft.task_type {
        task.task_type.clone_from(task_type);
    }
    task.state = draft.status.task_state();
    task.updated_at = now;
    task.ended_at = match task.state {
        TaskState::Running | TaskState::Pending | TaskState::Approved => None,
        TaskState::Failed => Some(now),
        TaskState::Completed | TaskState::Cancelled => task.ended_at.or(Some(now)),
    };
    crossed
}

/// When the checkpoint's message is due, and which waiting ones it replaces.
fn schedule(
    task: &Task,
    waiting: &[Waiting],
    immediate: bool,
    min_interval: Duration,
    now: Moment,
) -> (EntryChange, Vec<EntryKey>, Delivery) {
    let is_idle_routine = |entry: &&Waiting| entry.priority == Priority::Routine && !entry.in_flight;
    if immediate {
        let outdated = waiting.iter().filter(is_idle_routine).map(|entry| entry.key).collect();
        return (
            EntryChange::Insert { priority: Priority::Immediate, due_at: now },
            outdated,
            Delivery::Queued,
        );
    }
    // A message that is waiting ahead counts as one that is about to be sent.
    let ahead = waiting
        .iter()
        .filter(|entry| entry.priority == Priority::Immediate)
        .map(|entry| entry.due_at.max(now));
    let last = ahead.chain(task.last_message_at).max();
    // A clock that was set back must not hold messages until it has caught up.
    let due_at = last.map_or(now, |last| last.min(now).plus(min_interval));
    let held = |due_at| if due_at > now { Delivery::Coalesced } else { Delivery::Queued };
    // Only the last in the row may carry the newest state. A routine message with another one behind it was being sent
    // when that one was recorded, and failed.
    let newest = waiting.last().filter(is_idle_routine);
    let outdated = waiting
        .iter()
        .filter(is_idle_routine)
        .map(|entry| entry.key)
        .filter(|key| newest.is_none_or(|newest| newest.key != *key))
        .collect();
    match newest {
        Some(entry) => {
            let due_at = due_at.min(entry.due_at).max(now);
            (EntryChange::Repoint { entry: entry.key, due_at }, outdated, held(due_at))
        }
        None => (EntryChange::Insert { priority: Priority::Routine, due_at }, outdated, held(due_at)),
    }
}

#[cfg(test)]
mod tests;
