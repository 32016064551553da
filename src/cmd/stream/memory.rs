//! What is remembered of each agent while there is no cache, so that its interval is kept and its newest state is sent.

use std::collections::HashMap;

use crate::checkpoint::id::TaskKey;
use crate::checkpoint::outbox::{Delivery, Job};
use crate::checkpoint::plan::{Plan, Policy, Stored};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Draft, Task};
use crate::cmd::record;

/// The row of a task that has none.
const NO_ROW: TaskKey = TaskKey(0);

/// Each agent's task, by the agent's id.
#[derive(Debug, Default)]
pub(super) struct Memory {
    tasks: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    task: Task,
    /// Its newest state, while the interval holds it back.
    held: Option<Job>,
}

impl Memory {
    /// Plans a draft; the message that is to be sent for it now, if one is, comes with it.
    pub(super) fn plan(&mut self, draft: &Draft, policy: &Policy, at: Moment) -> (Plan, Option<Job>) {
        let known = self.tasks.remove(&draft.agent_id);
        let stored = Stored { task: known.map(|known| known.task), ..Stored::default() };
        let plan = record::plan(&stored, draft, policy, at);
        let mut task = plan.append.task.clone();
        task.key = Some(NO_ROW);
        let job = Job::alone(task.clone(), draft.id, at);
        let (sent, held) = match plan.append.checkpoint.delivery {
            Delivery::Queued => (Some(job), None),
            Delivery::Coalesced => (None, Some(job)),
            _ => (None, None),
        };
        if sent.is_some() {
            task.last_message_at = Some(at);
        }
        self.tasks.insert(draft.agent_id.clone(), Remembered { task, held });
        (plan, sent)
    }

    /// What the interval holds back.
    pub(super) fn held(&mut self) -> Vec<Job> {
        self.tasks.values_mut().filter_map(|known| known.held.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checkpoint::context::Thresholds;
    use crate::checkpoint::plan::Route;
    use crate::checkpoint::status::Status;

    #[test]
    fn the_interval_is_kept_and_the_newest_state_remembered() {
        let route = Route::Slack { credential: None, default_channel: Some("#dev".to_owned()) };
        let min_interval = Duration::from_secs(30);
        let policy = Policy { min_interval, thresholds: Thresholds::default(), route };
        let mut memory = Memory::default();
        let mut sent = Vec::new();
        for (agent, status, progress, at) in [
            ("a", Status::Working, 10, 0),
            ("b", Status::Working, 10, 0),
            ("a", Status::Working, 20, 1_000),
            ("a", Status::Working, 30, 2_000),
            ("b", Status::Complete, 100, 2_000),
            ("b", Status::Working, 0, 3_000),
        ] {
            let draft = Draft { progress: Some(progress), ..Draft::of(agent, status) };
            let (_, job) = memory.plan(&draft, &policy, Moment(at));
            sent.push(job.map(|job| job.snapshot.progress));
        }
        assert_eq!(sent, [Some(10), Some(10), None, None, Some(100), Some(0)]);
        let held: Vec<_> = memory.held().iter().map(|job| job.snapshot.progress).collect();
        assert_eq!(held, [30]);
        assert!(memory.held().is_empty());
    }
}
