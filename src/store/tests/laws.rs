//! What holds in the real store whatever is said, however messages fare and whoever dies over them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::checkpoint::Parent;
use crate::checkpoint::outbox::Delivery;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Say {
        agent: usize,
        status: usize,
        new: bool,
    },
    Pass(u64),
    /// The next message is taken up; whoever had one in hand is done or dead first.
    Send(Fate),
}

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// Fails after other things happened.
    FailsLater,
    Fails,
    /// The answer is lost, or the sender dies before it comes.
    Dies,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fate = prop_oneof![
        5 => Just(Fate::Arrives),
        2 => Just(Fate::FailsLater),
        2 => Just(Fate::Fails),
        1 => Just(Fate::Dies),
    ];
    let event = prop_oneof![
        4 => (0_usize..2, 0_usize..9, prop::bool::weighted(0.1))
            .prop_map(|(agent, status, new)| Event::Say { agent, status, new }),
        3 => (0_u64..20).prop_map(Event::Pass),
        5 => fate.prop_map(Event::Send),
    ];
    proptest::collection::vec(event, 1..60)
}

/// A message that arrived.
#[derive(Debug)]
struct Message {
    priority: Priority,
    checkpoint: CheckpointId,
    at: Moment,
}

/// The world outside: what Slack has, by task.
#[derive(Debug, Default)]
struct Slack {
    messages: BTreeMap<i64, Vec<Message>>,
}

struct World {
    cache: Cache,
    slack: Slack,
    /// An attempt whose failure is not known yet, and who makes it.
    in_flight: Option<(Job, Owner)>,
    processes: i64,
}

impl World {
    fn new() -> Self {
        Self { cache: Cache::new(), slack: Slack::default(), in_flight: None, processes: 0 }
    }

    fn fail(&mut self, job: &Job, by: &Owner) {
        let at = self.cache.now.plus(seconds(2));
        self.cache.settle(
            job,
            by,
            &Settlement::Retry { at, reason: "why".to_owned(), maybe_sent: false, via: None },
        );
    }

    fn send(&mut self, fate: Fate) -> bool {
        if let Some((job, by)) = self.in_flight.take() {
            self.fail(&job, &by);
        }
        self.processes += 1;
        let by = owner(self.processes);
        let Claim::Job(job) = self.cache.claim(&by) else { return false };
        self.follows_what_it_belongs_to(&job);
        match fate {
            Fate::Arrives => {
                let ts = format!("{}.1", self.processes);
                if job.kind == EntryKind::Post {
                    let task = job.task.key.expect("a stored task").0;
                    let at = self.cache.now;
                    let message = Message { priority: job.priority, checkpoint: job.checkpoint, at };
                    self.slack.messages.entry(task).or_default().push(message);
                    self.cache.posted(&job, &by, &ts);
                } else {
                    self.cache.settle(&job, &by, &Settlement::Edited);
                }
            }
            Fate::Fails => self.fail(&job, &by),
            Fate::FailsLater => self.in_flight = Some((*job, by)),
            // Its lease is all that is left of it.
            Fate::Dies => {}
        }
        true
    }

    /// A note goes once both threads have begun, a file once its message has arrived.
    fn follows_what_it_belongs_to(&self, job: &Job) {
        match job.kind {
            EntryKind::Post | EntryKind::Card | EntryKind::Question => {}
            EntryKind::Note => {
                assert!(job.task.thread_ts.is_some(), "the parent has no thread yet: {job:?}");
                assert!(job.note.as_ref().is_some_and(|note| note.card.is_some()), "no card yet: {job:?}");
            }
            EntryKind::File => {
                let messages = job.task.key.and_then(|task| self.slack.messages.get(&task.0));
                let has_arrived = |message: &Message| message.checkpoint == job.checkpoint;
                assert!(messages.is_some_and(|messages| messages.iter().any(has_arrived)), "{job:?}");
                assert!(job.file.as_ref().is_some_and(|file| file.starts_with("line")), "{job:?}");
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Say { agent, status, new } => {
                let agent = ["a", "b"][agent];
                let status = Status::ALL[status];
                let channel = Some(format!("#{agent}"));
                // The second is started from whatever the first does then, and errors come with a long tail.
                let parent = (agent == "b")
                    .then(|| Parent { task: TaskId::new(self.cache.now), agent_id: Some("a".to_owned()) });
                let tail = (status == Status::Error).then(|| "line\n".repeat(1000));
                self.cache.record(Draft { new, channel, parent, tail, ..Draft::of(agent, status) });
            }
            Event::Pass(time) => self.cache.pass(seconds(time)),
            Event::Send(fate) => {
                self.send(fate);
            }
        }
    }

    /// Slack and the network are well again: everything is sent.
    fn drain(&mut self) {
        for _ in 0..1000 {
            self.cache.pass(seconds(5));
            if !self.send(Fate::Arrives) && self.cache.entries().is_empty() {
                return;
            }
        }
        panic!("something waits forever: {:#?}", self.cache.entries());
    }

    fn tasks(&mut self) -> Vec<Task> {
        let all = Filter { state: None, waiting: false, limit: 1000 };
        let listed = self.cache.store.read(|tx| tx.list(&all)).expect("a list");
        listed.into_iter().map(|report| report.task).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_checkpoint_is_shown_or_covered_in_order_and_at_its_pace(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.drain();
        for task in world.tasks() {
            let key = task.key.expect("a stored task");
            let checkpoints = world.cache.checkpoints(key);
            let messages = world.slack.messages.remove(&key.0).unwrap_or_default();

            // Nothing waits, nothing is unknown, and what is called sent is in Slack.
            let shown: BTreeSet<String> = messages.iter().map(|message| message.checkpoint.to_string()).collect();
            prop_assert_eq!(shown.len(), messages.len(), "a message was posted twice");
            for checkpoint in &checkpoints {
                let is_shown = shown.contains(&checkpoint.id.to_string());
                let expected = if is_shown { Delivery::Sent } else { Delivery::Coalesced };
                prop_assert_eq!(checkpoint.delivery, expected, "{:?}", checkpoint.status);
                prop_assert!(is_shown || !checkpoint.status.is_immediate(), "{:?} was lost", checkpoint);
            }
            let newest = checkpoints.last().map(|checkpoint| checkpoint.id);
            prop_assert_eq!(messages.last().map(|message| message.checkpoint), newest);

            // In the order recorded.
            let place = |message: &Message| {
                checkpoints.iter().position(|checkpoint| checkpoint.id == message.checkpoint)
            };
            let places: Vec<_> = messages.iter().map(place).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);

            // At most one routine message in an interval.
            for pair in messages.windows(2).filter(|pair| pair.iter().all(|m| m.priority == Priority::Routine)) {
                prop_assert!(pair[1].at.since(pair[0].at) >= INTERVAL, "{:?}", pair);
            }
        }
    }
}
