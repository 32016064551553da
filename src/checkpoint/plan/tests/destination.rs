//! Where a task is posted.

use super::memory::{Memory, draft, slack};
use super::*;

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
