//! What holds whatever an agent says, however its messages fare and whatever its clock does.

use proptest::prelude::*;

use super::memory::{INTERVAL, Memory, draft};
use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Say(Box<Draft>),
    /// The clock moves, in milliseconds.
    Pass(i64),
    StartSending,
    FinishSending,
}

fn drafts() -> impl Strategy<Value = Draft> {
    let said = (0_usize..9, proptest::option::of(0_u8..=100), proptest::option::of(0_u64..250_000));
    let texts = (proptest::option::of("[a-z ]{0,12}"), proptest::option::of("[a-z]{1,8}"), 0_usize..3);
    let limit = proptest::option::of(1_u64..400_000);
    (said, texts, limit, prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(
        |((status, progress, tokens), (action, error, artifacts), context_limit, force, new)| Draft {
            progress,
            tokens,
            context_limit,
            action,
            error,
            artifacts: vec![Artifact { name: None, target: "out.txt".to_owned() }; artifacts],
            force,
            new,
            ..draft(Status::ALL[status])
        },
    )
}

fn events(passing: std::ops::Range<i64>) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => drafts().prop_map(|draft| Event::Say(Box::new(draft))),
        2 => passing.prop_map(Event::Pass),
        2 => Just(Event::StartSending),
        2 => Just(Event::FinishSending),
    ];
    proptest::collection::vec(event, 1..60)
}

/// Lets everything happen and calls `check` after each event, with what was said if it was that.
fn live(
    events: Vec<Event>,
    mut check: impl FnMut(&Memory, Option<(&Draft, &Plan)>) -> Result<(), TestCaseError>,
) -> Result<Memory, TestCaseError> {
    let mut memory = Memory::new();
    for event in events {
        match event {
            Event::Say(said) => {
                // Every checkpoint has its own id, as in life.
                let said = Draft { id: CheckpointId::new(memory.now), ..*said };
                let plan = memory.say(said.clone());
                check(&memory, Some((&said, &plan)))?;
            }
            Event::Pass(ms) => memory.pass(ms),
            Event::StartSending => memory.start_sending(),
            Event::FinishSending => memory.finish_sending(),
        }
        check(&memory, None)?;
    }
    Ok(memory)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn tasks_stay_legal(events in events(-100_000..100_000)) {
        live(events, |memory, _| {
            let running = memory.tasks.iter().filter(|task| task.state == TaskState::Running);
            prop_assert!(running.count() <= 1, "more than one running task");
            for task in &memory.tasks {
                prop_assert_eq!(task.state, task.snapshot.status.task_state());
                prop_assert_eq!(task.ended_at.is_none(), task.state == TaskState::Running);
                prop_assert!(task.snapshot.progress <= 100);
                prop_assert!(task.snapshot.steps.len() <= 5);
                prop_assert!(task.snapshot.artifacts.len() <= 10);
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_snapshot_shows_what_was_said_last(events in events(-100_000..100_000)) {
        live(events, |memory, said| {
            let Some((said, plan)) = said else { return Ok(()) };
            let Append { task, checkpoint, .. } = &plan.append;
            prop_assert_eq!((task.snapshot.status, checkpoint.status), (said.status, said.status));
            if let Some(action) = &said.action {
                let step = action.split_whitespace().collect::<Vec<_>>().join(" ");
                prop_assert_eq!(task.snapshot.steps.last(), Some(&step));
                prop_assert_eq!(&task.snapshot.action, &Some(Excerpt::of(action)));
            }
            // Never negative, and not from the beginning of time either.
            let alive = memory.now.since(task.started_at).as_millis();
            prop_assert_eq!(u128::from(task.snapshot.elapsed_ms), alive);
            prop_assert_eq!(checkpoint.elapsed_ms, task.snapshot.elapsed_ms);
            // The row keeps what was said, whole.
            prop_assert_eq!((&checkpoint.action, &checkpoint.error), (&said.action, &said.error));
            prop_assert_eq!(&checkpoint.artifacts, &said.artifacts);
            Ok(())
        })?;
    }

    #[test]
    fn a_snapshot_survives_the_cache(events in events(-100_000..100_000)) {
        live(events, |_, said| {
            let Some((_, plan)) = said else { return Ok(()) };
            let snapshot = &plan.append.task.snapshot;
            let kept = serde_json::to_string(snapshot).expect("a snapshot is JSON");
            let back: Snapshot = serde_json::from_str(&kept).expect("what we wrote");
            prop_assert_eq!(&back, snapshot);
            Ok(())
        })?;
    }

    #[test]
    fn at_most_one_routine_message_in_an_interval(events in events(0..40_000)) {
        let memory = live(events, |_, _| Ok(()))?;
        for key in memory.tasks.iter().filter_map(|task| task.key) {
            let messages: Vec<_> = memory.messages.iter().filter(|message| message.task == key).collect();
            for pair in messages.windows(2).filter(|pair| pair[1].priority == Priority::Routine) {
                let both = pair[0].priority == Priority::Routine;
                prop_assert!(!both || pair[1].at.since(pair[0].at) >= INTERVAL, "{pair:?}");
            }
        }
    }

    #[test]
    fn an_immediate_checkpoint_is_told_in_its_own_message(events in events(-5000..40_000)) {
        let mut memory = live(events, |memory, said| {
            let routine_that_wait = |task: &Task| {
                let of_task = |entry: &&memory::Entry| Some(entry.task) == task.key;
                let idle = |entry: &&memory::Entry| entry.priority == Priority::Routine && !entry.in_flight;
                memory.entries.iter().filter(of_task).filter(idle).count()
            };
            prop_assert!(memory.tasks.iter().all(|task| routine_that_wait(task) <= 1));
            if let Some((said, plan)) = said && (said.status.is_immediate() || said.force) {
                let told = EntryChange::Insert { priority: Priority::Immediate, due_at: memory.now };
                prop_assert_eq!(&plan.append.entry, &told);
            }
            Ok(())
        })?;
        memory.finish_sending();
        memory.pass(1_000_000);
        memory.send_all();
        for (key, checkpoint) in &memory.checkpoints {
            let messages = || memory.messages.iter().filter(|message| message.task == *key);
            let own = messages().filter(|message| message.checkpoint == checkpoint.id).count();
            if checkpoint.status.is_immediate() {
                prop_assert_eq!(own, 1, "{:?}", checkpoint);
            }
            prop_assert!(own <= 1);
        }
        // In the end, Slack has heard of the newest state of every task.
        for task in &memory.tasks {
            let newest = memory.checkpoints.iter().rev().find(|(key, _)| Some(*key) == task.key);
            let last = memory.messages.iter().rev().find(|message| Some(message.task) == task.key);
            let newest = newest.map(|(_, checkpoint)| checkpoint.id);
            prop_assert_eq!(last.map(|message| message.checkpoint), newest);
        }
    }
}
