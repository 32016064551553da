//! The rules of planning, one table each; `memory` applies plans to a small store and `laws` says what always holds.

mod laws;
mod memory;
mod wrapped;

use super::*;
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::snapshot::Snapshot;
use memory::{INTERVAL, Memory, draft, slack};

/// Says these one after another, a second apart.
fn after(statuses: &[Status]) -> Memory {
    let mut memory = Memory::new();
    for status in statuses {
        memory.say(draft(*status));
        memory.pass(1000);
    }
    memory
}

fn entry_of(plan: &Plan) -> (Option<Priority>, Option<i64>) {
    match plan.append.entry {
        EntryChange::None => (None, None),
        EntryChange::Insert { priority, due_at } => (Some(priority), Some(due_at.0)),
        EntryChange::Repoint { due_at, .. } => (Some(Priority::Routine), Some(due_at.0)),
    }
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

#[test]
fn a_task_is_posted_where_its_first_word_on_it_said() {
    let thread = |channel: &str, ts: &str| Some(Thread { channel: channel.to_owned(), ts: ts.to_owned() });
    let named = |channel: &str| Some(channel.to_owned());
    let place = |task: &Task| (task.channel.clone(), task.channel_id.clone(), task.thread_ts.clone());

    let opened = Memory::new().say(draft(Status::Working)).append.task;
    assert_eq!(place(&opened), (named("#agents"), None, None));
    let opened = Memory::new().say(Draft { channel: named("#dev"), ..draft(Status::Working) }).append.task;
    assert_eq!(place(&opened), (named("#dev"), None, None));
    let joined = thread("C1", "1.2");
    let opened = Memory::new().say(Draft { thread: joined, ..draft(Status::Working) }).append.task;
    assert_eq!(place(&opened), (named("C1"), named("C1"), named("1.2")));

    // A task without a thread moves; one with a thread stays, and says so.
    let kept = || ChannelOrThread::Channel("#dev", "#agents");
    for (has_thread, channel, join, expected, notice) in [
        (false, named("#dev"), None, (named("#dev"), None, None), None),
        (false, None, thread("C1", "1.2"), (named("C1"), named("C1"), named("1.2")), None),
        (true, None, None, (named("#agents"), named("C9"), named("9.9")), None),
        (true, named("#dev"), None, (named("#agents"), named("C9"), named("9.9")), Some(kept())),
        (true, named("#agents"), None, (named("#agents"), named("C9"), named("9.9")), None),
        (true, named("C9"), None, (named("#agents"), named("C9"), named("9.9")), None),
        (true, None, thread("C9", "9.9"), (named("#agents"), named("C9"), named("9.9")), None),
        (
            true,
            None,
            thread("C1", "1.2"),
            (named("#agents"), named("C9"), named("9.9")),
            Some(ChannelOrThread::Thread("1.2", "9.9")),
        ),
    ] {
        let mut memory = after(&[Status::Working]);
        if has_thread {
            memory.tasks[0].channel_id = named("C9");
            memory.tasks[0].thread_ts = named("9.9");
        }
        let said = Draft { channel: channel.clone(), thread: join.clone(), ..draft(Status::Working) };
        let plan = memory.say(said);
        assert_eq!(place(&plan.append.task), expected, "{channel:?} {join:?}");
        assert_eq!(plan.notices, notice.map(Notice::from).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_channel_that_nobody_named_follows_the_setting_until_something_is_posted() {
    let named = |channel: &str| Some(channel.to_owned());
    let silent = || draft(Status::Working);
    // (what the first checkpoint says, whether Slack has the task's first message, where the second goes)
    for (first, is_posted, expected) in [
        (silent(), false, "#mended"),
        (silent(), true, "#agents"),
        (Draft { channel: named("#dev"), ..silent() }, false, "#dev"),
    ] {
        let mut memory = Memory::new();
        let said = first.channel.clone();
        memory.say(first);
        if is_posted {
            memory.tasks[0].channel_id = named("C9");
            memory.tasks[0].thread_ts = named("9.9");
        }
        let Route::Slack { default_channel, .. } = &mut memory.policy.route else { panic!("slack is Slack") };
        *default_channel = named("#mended");
        let plan = memory.say(silent());
        assert_eq!(plan.append.task.channel.as_deref(), Some(expected), "{said:?} {is_posted}");
        assert_eq!(plan.notices, []);
    }
    // A channel that is named later stays, as if it had been named at once.
    let mut memory = Memory::new();
    memory.say(silent());
    memory.say(Draft { channel: named("#dev"), ..silent() });
    assert_eq!(memory.say(silent()).append.task.channel, named("#dev"));
}

/// A notice in a table: what was asked for, and what was kept.
enum ChannelOrThread {
    Channel(&'static str, &'static str),
    Thread(&'static str, &'static str),
}

impl From<ChannelOrThread> for Notice {
    fn from(notice: ChannelOrThread) -> Self {
        match notice {
            ChannelOrThread::Channel(asked, kept) => {
                Self::ChannelKept { asked: asked.to_owned(), kept: kept.to_owned() }
            }
            ChannelOrThread::Thread(asked, kept) => {
                Self::ThreadKept { asked: asked.to_owned(), kept: kept.to_owned() }
            }
        }
    }
}

#[test]
fn a_destination_that_could_not_be_read_is_filled_in_once_it_can() {
    let mut memory = Memory::new();
    memory.policy.route = Route::Slack { credential: None, default_channel: None };
    let plan = memory.say(draft(Status::Working));
    assert_eq!((plan.append.task.credential, plan.append.task.channel), (None, None));
    assert_eq!(plan.append.checkpoint.delivery, Delivery::Queued, "it waits");
    memory.policy.route = slack();
    let task = memory.say(draft(Status::Working)).append.task;
    let Route::Slack { credential, default_channel } = slack() else { panic!("slack is Slack") };
    assert_eq!((task.credential, task.channel), (credential.clone(), default_channel));
    // And is not lost again.
    memory.policy.route = Route::Slack { credential: None, default_channel: None };
    assert_eq!(memory.say(draft(Status::Working)).append.task.credential, credential);
}
