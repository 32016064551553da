//! When a checkpoint is told, and which message gives way to which.

use super::memory::{INTERVAL, Memory, draft};
use super::*;

fn entry_of(plan: &Plan) -> (Option<Priority>, Option<i64>) {
    match plan.append.entry {
        EntryChange::None => (None, None),
        EntryChange::Insert { priority, due_at } => (Some(priority), Some(due_at.0)),
        EntryChange::Repoint { due_at, .. } => (Some(Priority::Routine), Some(due_at.0)),
    }
}

#[test]
fn what_is_told_at_once_and_what_waits_for_the_interval() {
    use Status::{
        Blocked, Cancelled, Checkpoint, Complete, Error, Planning, Starting, WaitingApproval, Working,
    };
    let soon = Draft { force: true, ..draft(Working) };
    let full = Draft { tokens: Some(140_000), ..draft(Working) };
    for (said, at_once) in [
        (draft(Starting), false),
        (draft(Planning), false),
        (draft(Working), false),
        (draft(Checkpoint), false),
        (draft(WaitingApproval), true),
        (draft(Blocked), true),
        (draft(Error), true),
        (draft(Complete), true),
        (draft(Cancelled), true),
        (soon, true),
        (full, true),
    ] {
        let mut memory = after(&[Starting]);
        memory.send_all();
        memory.pass(1000);
        let sent_at = memory.now.0 - 1000;
        let plan = memory.say(said.clone());
        let (expected, delivery) = if at_once {
            ((Some(Priority::Immediate), Some(memory.now.0)), Delivery::Queued)
        } else {
            let due_at = sent_at + i64::try_from(INTERVAL.as_millis()).expect("small");
            ((Some(Priority::Routine), Some(due_at)), Delivery::Coalesced)
        };
        assert_eq!(entry_of(&plan), expected, "{said:?}");
        assert_eq!(plan.append.checkpoint.delivery, delivery, "{said:?}");
    }
}

#[test]
fn the_first_checkpoint_of_a_task_is_told_at_once_whatever_its_status() {
    for status in Status::ALL {
        let mut memory = after(&[Status::Working, Status::Complete]);
        for new in [false, true] {
            let plan = memory.say(Draft { new, ..draft(status) });
            assert_eq!(entry_of(&plan), (Some(Priority::Immediate), Some(memory.now.0)), "{status}");
            assert_eq!(plan.append.checkpoint.delivery, Delivery::Queued);
        }
    }
}

#[test]
fn a_routine_message_is_due_an_interval_after_the_message_before_it() {
    let interval = i64::try_from(INTERVAL.as_millis()).expect("small");
    // (the latest message was handed over, an immediate one still waits and is due, due; all against now)
    for (last, ahead, due) in [
        (None, None, 0),
        (Some(-1000), None, interval - 1000),
        (Some(-interval), None, 0),
        (Some(-interval + 1), None, 1),
        (Some(-10 * interval), None, -9 * interval),
        // What waits ahead counts as a message that is about to be sent.
        (None, Some(-5000), interval),
        (Some(-interval), Some(0), interval),
        (Some(-1000), Some(20_000), interval),
        // A clock that was set back holds nothing longer than one interval.
        (Some(86_400_000), None, interval),
        (None, Some(86_400_000), interval),
    ] {
        let mut memory = after(&[Status::Working]);
        memory.entries.clear();
        memory.tasks[0].last_message_at = last.map(|last| Moment(memory.now.0 + last));
        if let Some(ahead) = ahead {
            let due_at = Moment(memory.now.0 + ahead);
            memory.insert(Priority::Immediate, due_at, CheckpointId::new(memory.now));
        }
        let plan = memory.say(draft(Status::Working));
        let (priority, due_at) = entry_of(&plan);
        assert_eq!(
            (priority, due_at),
            (Some(Priority::Routine), Some(memory.now.0 + due)),
            "{last:?} {ahead:?}"
        );
        let delivery = if due > 0 { Delivery::Coalesced } else { Delivery::Queued };
        assert_eq!(plan.append.checkpoint.delivery, delivery, "{last:?} {ahead:?}");
    }
}

#[test]
fn a_newer_message_replaces_routine_ones_that_wait_but_no_other() {
    // The entries that wait: priority, and whether it is being sent. Then what a newer one of each kind does to them.
    use Priority::{Immediate, Routine};
    for (waiting, repointed, outdated, outdated_by_immediate) in [
        (&[][..], None, vec![], vec![]),
        (&[(Routine, false)], Some(1), vec![], vec![1]),
        (&[(Routine, true)], None, vec![], vec![]),
        (&[(Immediate, false)], None, vec![], vec![]),
        (&[(Immediate, true)], None, vec![], vec![]),
        (&[(Immediate, false), (Routine, false)], Some(2), vec![], vec![2]),
        (&[(Routine, true), (Routine, false)], Some(2), vec![], vec![2]),
        (&[(Routine, true), (Immediate, false)], None, vec![], vec![]),
        // The first was being sent when the others were recorded, and failed.
        (&[(Routine, false), (Immediate, false)], None, vec![1], vec![1]),
        (&[(Routine, false), (Routine, false)], Some(2), vec![1], vec![1, 2]),
        (&[(Routine, false), (Immediate, false), (Routine, false)], Some(3), vec![1], vec![1, 3]),
    ] {
        let mut memory = after(&[Status::Working]);
        memory.entries.clear();
        memory.next_entry = 1;
        for (priority, in_flight) in waiting {
            let entry = memory.insert(*priority, memory.now, CheckpointId::new(memory.now));
            memory.entry(entry).in_flight = *in_flight;
        }
        let keys = |entries: &[EntryKey]| entries.iter().map(|key| key.0).collect::<Vec<_>>();

        let routine = memory.clone().say(draft(Status::Working)).append;
        match (routine.entry, repointed) {
            (EntryChange::Repoint { entry, .. }, Some(expected)) => assert_eq!(entry.0, expected),
            (EntryChange::Insert { priority: Routine, .. }, None) => {}
            (entry, _) => panic!("{waiting:?}: {entry:?}"),
        }
        assert_eq!(keys(&routine.outdated), outdated, "{waiting:?}");

        let immediate = memory.say(draft(Status::Blocked)).append;
        assert_eq!(immediate.entry, EntryChange::Insert { priority: Immediate, due_at: memory.now });
        assert_eq!(keys(&immediate.outdated), outdated_by_immediate, "{waiting:?}");
    }
}

#[test]
fn a_repointed_message_keeps_the_moment_at_which_it_is_due() {
    // Whether the message before it is in Slack already, or still waits itself.
    for is_sent in [true, false] {
        let mut memory = after(&[Status::Working]);
        if is_sent {
            memory.send_all();
        }
        let held = entry_of(&memory.say(draft(Status::Working)));
        for _ in 0..5 {
            memory.pass(3000);
            let again = entry_of(&memory.say(draft(Status::Working)));
            assert_eq!(again, held, "a busy agent is not held back forever");
        }
        memory.pass(60_000);
        let late = memory.say(draft(Status::Working));
        assert_eq!(entry_of(&late), (Some(Priority::Routine), Some(memory.now.0)));
        assert_eq!(late.append.checkpoint.delivery, Delivery::Queued);
    }
}

#[test]
fn each_crossing_of_a_context_threshold_is_noticed_and_told_once() {
    let mut memory = after(&[Status::Working]);
    memory.send_all();
    let told = |memory: &mut Memory, tokens: u64| {
        let plan = memory.say(Draft { tokens: Some(tokens), ..draft(Status::Working) });
        let levels: Vec<Level> = plan
            .notices
            .iter()
            .map(|notice| match notice {
                Notice::Context { level, .. } => *level,
                other => panic!("{other:?}"),
            })
            .collect();
        (levels, entry_of(&plan).0 == Some(Priority::Immediate))
    };
    assert_eq!(told(&mut memory, 139_999), (vec![], false));
    assert_eq!(told(&mut memory, 140_000), (vec![Level::Warn], true));
    assert_eq!(told(&mut memory, 169_999), (vec![], false));
    assert_eq!(told(&mut memory, 170_000), (vec![Level::Alert], true));
    assert_eq!(told(&mut memory, 180_000), (vec![], false));
    assert_eq!(told(&mut memory, 20_000), (vec![], false));
    assert_eq!(told(&mut memory, 140_000), (vec![Level::Warn], true), "re-armed, as after compaction");
    // A smaller limit crosses as well as more tokens do.
    let plan = memory.say(Draft { context_limit: Some(150_000), ..draft(Status::Working) });
    assert_eq!(
        plan.notices,
        [Notice::Context { level: Level::Alert, percent: 93.3, tokens: 140_000, limit: 150_000 }]
    );
}

#[test]
fn without_slack_nothing_is_left_in_the_outbox() {
    for (route, delivery) in [(Route::Off, Delivery::Off), (Route::Print, Delivery::Printed)] {
        for status in Status::ALL {
            let mut memory = after(&[Status::Working]);
            memory.policy.route = route.clone();
            let append = memory.say(draft(status)).append;
            assert_eq!((append.entry, append.checkpoint.delivery), (EntryChange::None, delivery), "{status}");
        }
    }
}
