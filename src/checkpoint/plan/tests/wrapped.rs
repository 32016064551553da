//! Planning for a wrapped command: its wrapper stays in its task, names it beforehand, and may be lost.

use super::memory::slack;
use super::*;
use crate::checkpoint::outbox::Waiting;

/// Plans against a task as it is stored.
fn plan_on(memory: &Memory, draft: &Draft) -> Plan {
    let stored = Stored { task: memory.tasks.last().cloned(), ..Stored::default() };
    let ids = (TaskId::new(memory.now), CheckpointId::new(memory.now));
    plan(&stored, draft, &memory.policy, ids, memory.now)
}

#[test]
fn whoever_stays_within_a_task_opens_no_other_whatever_its_state() {
    use Status::{Cancelled, Complete, Error, Working};
    for before in [Working, Error, Complete, Cancelled] {
        let memory = after(&[Status::Starting, before]);
        let task = memory.tasks[0].clone();
        for status in Status::ALL {
            for new in [false, true] {
                let draft = Draft { within: Some(task.id), new, ..draft(status) };
                let plan = plan_on(&memory, &draft);
                assert_eq!((plan.append.task.id, plan.superseded), (task.id, None), "{before} then {status}");
                assert_eq!(plan.append.task.state, status.task_state());
            }
        }
        // Another task is not it: then the usual rules hold.
        let other = Draft { within: Some(TaskId::new(memory.now)), ..draft(Working) };
        let is_same = plan_on(&memory, &other).append.task.id == task.id;
        assert_eq!(is_same, !before.is_terminal(), "{before}");
    }
}

#[test]
fn a_task_that_is_opened_has_the_id_that_was_told_and_a_known_one_keeps_its_own() {
    let opens = Some(TaskId::new(Moment(5)));
    let fresh = plan_on(&Memory::new(), &Draft { opens, ..draft(Status::Starting) });
    assert_eq!(Some(fresh.append.task.id), opens);
    let memory = after(&[Status::Working]);
    let known = plan_on(&memory, &Draft { opens, ..draft(Status::Starting) });
    assert_eq!(known.append.task.id, memory.tasks[0].id);
    let new = plan_on(&memory, &Draft { opens, new: true, ..draft(Status::Starting) });
    assert_eq!(Some(new.append.task.id), opens);
}

#[test]
fn a_parent_is_that_of_a_task_from_its_beginning_on_or_never() {
    let memory = after(&[Status::Working]);
    let ids = (TaskId::new(memory.now), CheckpointId::new(memory.now));
    let parent = Some(TaskKey(77));
    for (task, new, expected) in [
        (None, false, parent),
        (memory.tasks.last().cloned(), false, None),
        (memory.tasks.last().cloned(), true, parent),
    ] {
        let stored = Stored { task, parent, ..Stored::default() };
        let plan = plan(&stored, &Draft { new, ..draft(Status::Starting) }, &memory.policy, ids, memory.now);
        assert_eq!(plan.append.task.parent, expected, "{new}");
        assert_eq!(plan.superseded.and_then(|superseded| superseded.task.parent), None);
    }
}

#[test]
fn a_lost_task_has_failed_and_says_so_in_its_own_place() {
    let mut memory = Memory::new();
    memory.say(Draft { progress: Some(40), action: Some("Building".to_owned()), ..draft(Status::Working) });
    memory.pass(7000);
    let task = memory.tasks[0].clone();
    let waits =
        |key, priority, in_flight| Waiting { key: EntryKey(key), priority, in_flight, due_at: memory.now };
    let waiting = [
        waits(1, Priority::Immediate, false),
        waits(2, Priority::Routine, true),
        waits(3, Priority::Routine, false),
    ];
    let id = CheckpointId::new(memory.now);
    for route in [slack(), Route::Off, Route::Print] {
        let policy = Policy { route, ..memory.policy.clone() };
        let append = lose(task.clone(), &waiting, "process 7 is gone", &policy, id, memory.now);
        assert_eq!((append.checkpoint.id, append.checkpoint.status), (id, Status::Error));
        assert_eq!(append.checkpoint.error.as_deref(), Some("lost (process 7 is gone)"));
        assert_eq!((append.task.id, append.task.state), (task.id, TaskState::Failed));
        assert_eq!((append.task.ended_at, append.task.snapshot.progress), (Some(memory.now), 40));
        assert_eq!(
            (append.task.channel, append.task.credential),
            (task.channel.clone(), task.credential.clone())
        );
        let told = EntryChange::Insert { priority: Priority::Immediate, due_at: memory.now };
        assert_eq!((append.entry, append.outdated), (told, vec![EntryKey(3)]));
    }
    // One that was never to be posted is not posted now.
    let quiet = Task { credential: None, ..task };
    let append = lose(quiet, &[], "gone", &memory.policy, id, memory.now);
    assert_eq!((append.entry, append.checkpoint.delivery), (EntryChange::None, Delivery::Off));
}

#[test]
fn a_tail_is_shown_with_the_checkpoint_that_it_belongs_to() {
    let mut memory = Memory::new();
    let long = "0123456789\n".repeat(400);
    let plan = memory.say(Draft { tail: Some(long.clone()), ..draft(Status::Error) });
    assert_eq!(plan.append.checkpoint.tail.as_deref(), Some(long.as_str()), "it is kept whole");
    let shown = plan.append.task.snapshot.tail.expect("a tail");
    assert!(long.ends_with(&shown.text) && shown.text.len() <= 2500, "{}", shown.text.len());
    assert_eq!(shown.omitted, u64::try_from(long.len() - shown.text.len()).expect("a small number"));
    assert_eq!(memory.say(draft(Status::Working)).append.task.snapshot.tail, None);
}
