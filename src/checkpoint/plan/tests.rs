//! The rules of planning, one table each: here which task a checkpoint belongs to and what it takes over. `memory` applies
//! plans to a small store and `laws` says what always holds.

mod destination;
mod laws;
mod memory;
mod timing;
mod wrapped;

use super::*;
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::snapshot::Snapshot;
use memory::{Memory, draft};

/// Says these one after another, a second apart.
fn after(statuses: &[Status]) -> Memory {
    let mut memory = Memory::new();
    for status in statuses {
        memory.say(draft(*status));
        memory.pass(1000);
    }
    memory
}

#[test]
fn which_statuses_open_a_new_task_depends_on_how_the_last_one_stands() {
    use Status::{Blocked, Cancelled, Complete, Error, Starting, WaitingApproval, Working};
    let all: Vec<Status> = Status::ALL.to_vec();
    let but_terminal: Vec<Status> = all.iter().copied().filter(|status| !status.is_terminal()).collect();
    for (said, opening) in [
        (&[][..], all),
        (&[Starting], vec![]),
        (&[Working], vec![]),
        (&[Starting, Blocked], vec![]),
        (&[WaitingApproval], vec![]),
        (&[Working, Error], vec![Starting]),
        (&[Error, Working], vec![]),
        (&[Working, Complete], but_terminal.clone()),
        (&[Cancelled], but_terminal.clone()),
        (&[Complete, Cancelled], but_terminal),
    ] {
        let opens = |status: &Status| {
            let mut memory = after(said);
            let before = memory.tasks.len();
            let plan = memory.say(draft(*status));
            assert_eq!(plan.superseded, None, "{said:?} then {status}");
            memory.tasks.len() > before
        };
        let opened: Vec<Status> = Status::ALL.into_iter().filter(opens).collect();
        assert_eq!(opened, opening, "after {said:?}");
    }
}

#[test]
fn a_task_stands_as_its_latest_status_says() {
    use TaskState::{Cancelled, Completed, Failed, Running};
    for (status, state) in [
        (Status::Starting, Running),
        (Status::Planning, Running),
        (Status::Working, Running),
        (Status::Checkpoint, Running),
        (Status::WaitingApproval, Running),
        (Status::Blocked, Running),
        (Status::Error, Failed),
        (Status::Complete, Completed),
        (Status::Cancelled, Cancelled),
    ] {
        for said in [&[][..], &[Status::Working]] {
            let mut memory = after(said);
            let task = memory.say(draft(status)).append.task;
            assert_eq!((task.state, task.snapshot.status), (state, status));
            assert_eq!(task.ended_at, (state != Running).then_some(memory.now), "{status}");
        }
    }
}

#[test]
fn an_error_is_recovered_from_in_the_same_task() {
    let mut memory = after(&[Status::Working]);
    let failed = memory.say(Draft { error: Some("exit code 1".to_owned()), ..draft(Status::Error) });
    assert_eq!(failed.append.task.snapshot.error, Some(Excerpt::of("exit code 1")));
    memory.pass(1000);
    let recovered = memory.say(draft(Status::Working)).append.task;
    assert_eq!(recovered.id, failed.append.task.id);
    assert_eq!(
        (recovered.state, recovered.ended_at, recovered.snapshot.error),
        (TaskState::Running, None, None)
    );
}

#[test]
fn a_repeated_terminal_status_joins_the_closed_task_and_leaves_its_end() {
    let mut memory = after(&[Status::Working]);
    let closed = memory.say(draft(Status::Complete)).append.task;
    for (status, state) in [
        (Status::Complete, TaskState::Completed),
        (Status::Cancelled, TaskState::Cancelled),
        (Status::Complete, TaskState::Completed),
    ] {
        memory.pass(5000);
        let task = memory.say(draft(status)).append.task;
        assert_eq!((task.id, task.state, task.ended_at), (closed.id, state, closed.ended_at));
    }
    assert_eq!((memory.tasks.len(), memory.checkpoints.len()), (1, 5));
}

#[test]
fn new_opens_a_task_always_and_closes_the_running_one_as_superseded() {
    for (said, superseded) in [
        (&[][..], false),
        (&[Status::Working], true),
        (&[Status::WaitingApproval], true),
        (&[Status::Error], false),
        (&[Status::Complete], false),
        (&[Status::Cancelled], false),
    ] {
        for status in [Status::Working, Status::Complete] {
            let mut memory = after(said);
            let before = memory.tasks.clone();
            let plan = memory.say(Draft { new: true, ..draft(status) });
            assert_eq!(memory.tasks.len(), before.len() + 1, "{said:?}");
            let Some(closing) = plan.superseded else {
                assert!(!superseded, "{said:?}");
                assert_eq!(memory.tasks[..before.len()], before, "{said:?}");
                continue;
            };
            assert!(superseded, "{said:?}");
            assert_eq!(closing.task.id, before[0].id);
            assert_eq!((closing.task.state, closing.task.ended_at), (TaskState::Cancelled, Some(memory.now)));
            assert_eq!(closing.checkpoint.status, Status::Cancelled);
            assert_eq!(closing.checkpoint.action.as_deref(), Some("superseded"));
            assert_ne!(closing.checkpoint.id, plan.append.checkpoint.id);
            // Its end is told at once, and what waited behind it is outdated.
            let told = EntryChange::Insert { priority: Priority::Immediate, due_at: memory.now };
            assert_eq!(closing.entry, told);
        }
    }
}

#[test]
fn a_new_task_takes_nothing_over_from_the_one_before() {
    let mut memory = Memory::new();
    memory.say(Draft {
        name: Some("Deploy".to_owned()),
        repo: Some("acme/rocket".to_owned()),
        progress: Some(40),
        tokens: Some(190_000),
        context_limit: Some(1_000_000),
        channel: Some("#deploys".to_owned()),
        task_type: Some("deploy".to_owned()),
        ..draft(Status::Complete)
    });
    let task = memory.say(Draft { repo_default: Some("acme/probe".to_owned()), ..draft(Status::Starting) });
    let task = task.append.task;
    assert_eq!(
        task.snapshot,
        Snapshot { status: Status::Starting, repo: Some("acme/probe".to_owned()), ..Snapshot::blank() }
    );
    assert_eq!((task.task_type.as_str(), task.channel.as_deref()), ("task", Some("#agents")));
}

#[test]
fn what_a_checkpoint_does_not_say_is_inherited() {
    let mut memory = Memory::new();
    memory.say(Draft {
        name: Some("Deploy".to_owned()),
        repo: Some("acme/rocket".to_owned()),
        progress: Some(40),
        tokens: Some(50_000),
        context_limit: Some(100_000),
        channel: Some("#deploys".to_owned()),
        task_type: Some("deploy".to_owned()),
        action: Some("Building".to_owned()),
        error: Some("a warning".to_owned()),
        artifacts: vec![Artifact { name: None, target: "out.txt".to_owned() }],
        ..draft(Status::Working)
    });
    memory.pass(61_000);
    let Append { task, checkpoint, .. } =
        memory.say(Draft { repo_default: Some("acme/probe".to_owned()), ..draft(Status::Planning) }).append;
    let snapshot = &task.snapshot;
    assert_eq!(
        (snapshot.name.as_deref(), snapshot.repo.as_deref(), snapshot.progress),
        (Some("Deploy"), Some("acme/rocket"), 40)
    );
    assert_eq!((snapshot.tokens, snapshot.context_limit), (Some(50_000), 100_000));
    assert_eq!((task.task_type.as_str(), task.channel.as_deref()), ("deploy", Some("#deploys")));
    assert_eq!((snapshot.action.clone(), snapshot.artifact_count), (Some(Excerpt::of("Building")), 1));
    assert_eq!(snapshot.error, None, "an error is of its checkpoint alone");
    assert_eq!(snapshot.elapsed_ms, 61_000);
    // The row itself says what was said, beside the numbers that it inherits.
    assert_eq!(
        (checkpoint.progress, checkpoint.tokens, checkpoint.context_limit),
        (40, Some(50_000), 100_000)
    );
    assert_eq!((checkpoint.action, checkpoint.artifacts, checkpoint.elapsed_ms), (None, vec![], 61_000));

    let task = memory.say(Draft {
        name: Some("Deploy again".to_owned()),
        repo: Some("acme/other".to_owned()),
        progress: Some(10),
        tokens: Some(0),
        ..draft(Status::Working)
    });
    let snapshot = task.append.task.snapshot;
    assert_eq!(
        (snapshot.name.as_deref(), snapshot.repo.as_deref(), snapshot.progress, snapshot.tokens),
        (Some("Deploy again"), Some("acme/other"), 10, Some(0)),
        "what is said replaces what was known"
    );
}

#[test]
fn complete_means_100_unless_it_says_otherwise() {
    for (status, said, shown) in [
        (Status::Complete, None, 100),
        (Status::Complete, Some(90), 90),
        (Status::Cancelled, None, 40),
        (Status::Error, None, 40),
        (Status::Working, None, 40),
        (Status::Working, Some(0), 0),
    ] {
        let mut memory = Memory::new();
        memory.say(Draft { progress: Some(40), ..draft(Status::Working) });
        let append = memory.say(Draft { progress: said, ..draft(status) }).append;
        assert_eq!((append.task.snapshot.progress, append.checkpoint.progress), (shown, shown), "{status}");
    }
}
