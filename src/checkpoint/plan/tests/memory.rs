//! One agent's rows in memory: plans are applied to it as the store would, entries are sent in their order.

use super::super::*;
use crate::checkpoint::id::TaskKey;

pub(super) const INTERVAL: Duration = Duration::from_secs(30);

/// An entry of the outbox.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: EntryKey,
    pub(super) task: TaskKey,
    pub(super) priority: Priority,
    pub(super) in_flight: bool,
    pub(super) due_at: Moment,
    pub(super) checkpoint: CheckpointId,
}

/// A message that was handed to Slack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) task: TaskKey,
    pub(super) priority: Priority,
    pub(super) checkpoint: CheckpointId,
    pub(super) at: Moment,
}

#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) policy: Policy,
    pub(super) now: Moment,
    /// In the order opened; a task's key is its place.
    pub(super) tasks: Vec<Task>,
    pub(super) checkpoints: Vec<(TaskKey, Checkpoint)>,
    pub(super) entries: Vec<Entry>,
    pub(super) messages: Vec<Message>,
    pub(super) next_entry: i64,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            policy: Policy { min_interval: INTERVAL, thresholds: Thresholds::default(), route: slack() },
            now: Moment(1_772_357_400_000),
            tasks: Vec::new(),
            checkpoints: Vec::new(),
            entries: Vec::new(),
            messages: Vec::new(),
            next_entry: 1,
        }
    }

    /// Moves the clock, back as well.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now = Moment(self.now.0 + ms);
    }

    fn key_of(index: usize) -> TaskKey {
        TaskKey(i64::try_from(index).expect("a small index"))
    }

    /// Plans the draft against the latest task and applies the plan.
    pub(super) fn say(&mut self, draft: Draft) -> Plan {
        let task = self.tasks.last().cloned();
        let key = task.as_ref().and_then(|task| task.key);
        let waiting = self
            .entries
            .iter()
            .filter(|entry| Some(entry.task) == key)
            .map(|&Entry { key, priority, in_flight, due_at, .. }| Waiting {
                key,
                priority,
                in_flight,
                due_at,
            })
            .collect();
        let ids = (TaskId::new(self.now), CheckpointId::new(self.now));
        let plan = plan(&Stored { task, waiting, parent: None }, &draft, &self.policy, ids, self.now);
        if let Some(superseded) = &plan.superseded {
            self.apply(superseded);
        }
        self.apply(&plan.append);
        plan
    }

    fn apply(&mut self, append: &Append) {
        let mut task = append.task.clone();
        let key = match task.key {
            Some(key) => key,
            None => Self::key_of(self.tasks.len()),
        };
        task.key = Some(key);
        match usize::try_from(key.0).ok().and_then(|index| self.tasks.get_mut(index)) {
            Some(known) => *known = task,
            None => self.tasks.push(task),
        }
        self.checkpoints.push((key, append.checkpoint.clone()));
        self.entries.retain(|entry| !append.outdated.contains(&entry.key));
        match append.entry {
            EntryChange::None => {}
            EntryChange::Insert { priority, due_at } => {
                let inserted = self.insert(priority, due_at, append.checkpoint.id);
                self.entry(inserted).task = key;
            }
            EntryChange::Repoint { entry, due_at } => {
                let entry = self.entry(entry);
                (entry.due_at, entry.checkpoint) = (due_at, append.checkpoint.id);
            }
        }
    }

    /// Adds an entry of the latest task.
    pub(super) fn insert(
        &mut self,
        priority: Priority,
        due_at: Moment,
        checkpoint: CheckpointId,
    ) -> EntryKey {
        let key = EntryKey(self.next_entry);
        self.next_entry += 1;
        let task = Self::key_of(self.tasks.len() - 1);
        self.entries.push(Entry { key, task, priority, in_flight: false, due_at, checkpoint });
        key
    }

    pub(super) fn entry(&mut self, key: EntryKey) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.key == key).expect("planning names entries that wait")
    }

    /// Starts to send the first due entry of a task for which nothing is being sent.
    pub(super) fn start_sending(&mut self) {
        let first_of_its_task = |entry: &&Entry| {
            self.entries.iter().find(|first| first.task == entry.task).map(|first| first.key)
                == Some(entry.key)
        };
        let due = |entry: &&Entry| entry.due_at <= self.now && !entry.in_flight;
        let Some(found) = self.entries.iter().filter(first_of_its_task).find(due).cloned() else { return };
        let Entry { key, task, priority, checkpoint, .. } = found;
        self.entry(key).in_flight = true;
        self.messages.push(Message { task, priority, checkpoint, at: self.now });
        let index = usize::try_from(task.0).expect("a key is an index");
        self.tasks[index].last_message_at = Some(self.now);
    }

    /// Slack took all that is being sent.
    pub(super) fn finish_sending(&mut self) {
        self.entries.retain(|entry| !entry.in_flight);
    }

    /// Sends what is due until nothing is.
    pub(super) fn send_all(&mut self) {
        while self.entries.iter().any(|entry| entry.due_at <= self.now) {
            self.start_sending();
            self.finish_sending();
        }
    }
}

pub(super) fn slack() -> Route {
    Route::Slack {
        credential: Some(Credential::bot("xoxb-111111111-222222222-abcdefg")),
        default_channel: Some("#agents".to_owned()),
    }
}

/// A checkpoint that says nothing but its status.
pub(super) fn draft(status: Status) -> Draft {
    Draft::of("deploy-bot", status)
}
