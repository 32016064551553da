//! `stream`: what Slack gets of it, and how it ends.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake_slack::{CHANNEL, FakeSlack, Fault};
use crate::stream::{Talk, stream};
use crate::support::{Sandbox, wait_for};

fn set_up() -> (FakeSlack, Sandbox) {
    let (slack, sandbox) = (FakeSlack::start(), Sandbox::new());
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// A stream that is talked to, with receipts.
#[track_caller]
fn talk(sandbox: &Sandbox, args: &[&str]) -> Talk {
    Talk::start(sandbox.cmd([&["stream", "--json", "-a", "bot"], args].concat()))
}

#[track_caller]
fn signal(talk: &Talk, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(talk.child.id()).expect("a pid")), signal).expect("it lives");
}

/// Whether a signal has been sent that is not heard yet, where that can be known.
fn pends(talk: &Talk) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", talk.child.id())).unwrap_or_default();
    let mut pending = status.lines().filter_map(|line| line.strip_prefix("ShdPnd:"));
    pending.any(|mask| mask.trim().contains(|digit| digit != '0'))
}

/// How each checkpoint of an agent was delivered, in the order recorded.
#[track_caller]
fn deliveries(sandbox: &Sandbox, agent: &str) -> Vec<Value> {
    let shown = sandbox.cmd(["show", agent, "--json"]).run().success().json();
    let checkpoints = shown["checkpoints"].as_array().expect("a list").iter();
    checkpoints.map(|checkpoint| checkpoint["delivery"].clone()).collect()
}

/// The line of a text that says how far it is.
fn progress(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("Progress: "))?;
    line.split(' ').nth(1)?.trim_end_matches('%').parse().ok()
}

#[test]
fn each_agent_has_one_thread_with_its_newest_state_in_order() {
    let (slack, sandbox) = set_up();
    let agents = ["one", "two", "three"];
    let mut lines = Vec::new();
    for agent in agents {
        slack.add_channel(agent, &format!("C0{}", agent.to_uppercase()), false, false, true);
    }
    for step in 0..40 {
        for agent in agents {
            // An immediate one among many that the interval holds back.
            let status = if step == 20 { "blocked" } else { "working" };
            lines.push(json!({"agent_id": agent, "channel": agent, "status": status, "progress": step}));
        }
    }
    let output = stream(&sandbox, &["--json"], &lines).run().success();
    let named = |name: &str| output.json_lines().iter().filter(|receipt| receipt["delivery"] == name).count();
    assert_eq!(
        (named("queued"), named("coalesced")),
        (6, 114),
        "the first of each agent, and what blocks it"
    );
    assert_eq!(output.stderr, "");
    for agent in agents {
        let messages = slack.messages(agent);
        let card = &messages[0];
        let replies = messages.iter().skip(1).map(|reply| (reply.thread_ts.clone(), progress(&reply.text)));
        // The interval began within this stream, which has nothing more to say: the last state is not held back.
        let thread = Some(card.ts.clone());
        assert_eq!(replies.collect::<Vec<_>>(), [(thread.clone(), Some(20)), (thread, Some(39))]);
        assert_eq!((progress(&card.edits[0]), progress(&card.text)), (Some(0), Some(39)), "the live card");
    }
    assert_eq!(deliveries(&sandbox, "two").iter().filter(|delivery| **delivery == "sent").count(), 3);
}

#[test]
fn messages_are_sent_beside_the_reading_and_within_the_interval_only_once() {
    let (slack, sandbox) = set_up();
    let mut talk = talk(&sandbox, &["--min-interval", "1500ms"]);
    talk.ask(&json!({"progress": 1}));
    slack.wait_requests(1);
    for progress in 2..10 {
        assert_eq!(talk.ask(&json!({"progress": progress}))["delivery"], "coalesced");
    }
    // The input stays open: the newest state comes by itself.
    let reply = wait_for("the newest state", || {
        slack.messages(CHANNEL).into_iter().find(|message| message.thread_ts.is_some())
    });
    assert_eq!(progress(&reply.text), Some(9));
    assert_eq!(talk.end(), (Some(0), String::new()));
    assert_eq!(slack.calls("chat.postMessage").len(), 2);
}

#[test]
fn a_held_back_state_of_an_earlier_call_keeps_its_interval() {
    let (slack, sandbox) = set_up();
    let line = json!({"agent_id": "bot"});
    for _ in 0..3 {
        stream(&sandbox, &[], std::slice::from_ref(&line)).run().success().silent();
    }
    assert_eq!(slack.calls("chat.postMessage").len(), 1);
    assert_eq!(deliveries(&sandbox, "bot"), ["sent", "coalesced", "coalesced"]);
}

#[test]
fn a_line_may_name_its_own_place() {
    let (slack, sandbox) = set_up();
    slack.add_channel("dev", "C0DEV00000", false, false, true);
    let ts = slack.say(CHANNEL, None, "U0HUMAN000", "Look at this");
    let thread = format!("{CHANNEL}:{ts}");
    let lines = [
        json!({"agent_id": "joins"}),
        json!({"agent_id": "elsewhere", "channel": "#dev"}),
        json!({"agent_id": "both", "channel": "#dev", "thread": thread}),
    ];
    stream(&sandbox, &["--thread", &thread], &lines).run().success().silent();
    assert_eq!(slack.thread(&ts).len(), 3);
    assert_eq!(slack.messages("dev").len(), 1);
    let output = stream(&sandbox, &[], &[json!({"agent_id": "joins", "channel": "#dev"})]).run().success();
    output.stderr_has("joins: the task's thread is in C0AGENT000; channel #dev was not used");
}

#[test]
fn a_slack_that_hangs_delays_no_acknowledgement_and_the_end_only_by_the_deadline() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let mut talk = talk(&sandbox, &["--deadline", "700ms"]);
    talk.ask(&json!({"action": "first"}));
    slack.wait_requests(1);
    let mut waits: Vec<Duration> = (0..20)
        .map(|index| {
            let since = Instant::now();
            talk.ask(&json!({"action": index}));
            since.elapsed()
        })
        .collect();
    waits.sort();
    // Those that nothing else on the machine held up.
    assert!(waits[4] < Duration::from_millis(50), "{waits:?}");
    let since = Instant::now();
    let (code, stderr) = talk.end();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(code, Some(0));
    assert_eq!(
        stderr,
        "agent-checkpoint: warning: recorded, but not in Slack yet: 2\n\
         hint: the next call or agent-checkpoint flush sends them\n"
    );
    slack.release();
    sandbox.cmd(["flush"]).run().success();
    assert_eq!(deliveries(&sandbox, "bot")[19..], ["coalesced", "sent"]);
    assert_eq!(slack.roots().len(), 1);
}

#[test]
fn strict_tells_what_was_not_delivered() {
    for (fault, code, said) in [
        (Fault::Status(503), 75, "recorded, but not in Slack yet: 1"),
        (Fault::ErrorName("is_archived"), 78, "messages that Slack refused for good: 1"),
    ] {
        let (slack, sandbox) = set_up();
        slack.script("chat.postMessage", vec![fault; 10]);
        let lines = [json!({"agent_id": "a", "status": "blocked"})];
        stream(&sandbox, &["--strict", "--deadline", "900ms"], &lines).run().code(code).stderr_has(said);
    }
    let (_slack, sandbox) = set_up();
    let lines = [json!({"agent_id": "a"}), json!({"agent_id": "a"})];
    stream(&sandbox, &["--strict"], &lines).run().success().silent();
    // Inside an interval that an earlier call began: held back is no failure.
    stream(&sandbox, &["--strict"], &lines).run().success().silent();
}

#[test]
fn no_post_posts_nothing() {
    let (slack, sandbox) = set_up();
    let receipts =
        stream(&sandbox, &["--no-post", "--json"], &[json!({"status": "blocked"})]).run().success();
    assert_eq!(receipts.json_lines()[0]["delivery"], "off");
    sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "always");
    stream(&sandbox, &["--no-post"], &[json!({"status": "blocked"})]).run().success().silent();
    assert_eq!((slack.requests().len(), sandbox.couriers().len()), (0, 0));
}

#[test]
fn with_background_always_a_courier_sends_while_the_stream_goes_on() {
    let (slack, sandbox) = set_up();
    let mut talk = talk(&sandbox, &["--background", "always"]);
    assert_eq!(talk.ask(&json!({"status": "blocked"}))["delivery"], "queued");
    wait_for("a message", || slack.roots().pop());
    talk.ask(&json!({"status": "blocked", "action": "again"}));
    wait_for("a reply", || (slack.messages(CHANNEL).len() == 2).then_some(()));
    assert_eq!(talk.end(), (Some(0), String::new()));
}

#[test]
fn with_background_auto_a_courier_sends_what_the_deadline_leaves() {
    let (slack, sandbox) = set_up();
    sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    slack.script("chat.postMessage", vec![Fault::Status(503)]);
    let lines = [json!({"agent_id": "bot", "status": "blocked"})];
    let output = stream(&sandbox, &["--deadline", "900ms"], &lines).run().success();
    output.stderr_is(
        "agent-checkpoint: warning: recorded, but not in Slack yet: 1\n\
         hint: they are sent as soon as that is possible\n",
    );
    wait_for("the courier's message", || slack.roots().pop());
    wait_for("the courier's end", || sandbox.couriers().is_empty().then_some(()));
    assert_eq!(deliveries(&sandbox, "bot"), ["sent"]);
}

#[test]
fn a_signal_ends_the_stream_like_the_end_of_its_input() {
    for (number, code) in
        [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)]
    {
        let (slack, sandbox) = set_up();
        let mut talk = talk(&sandbox, &[]);
        talk.ask(&json!({"progress": 1}));
        slack.wait_requests(1);
        talk.ask(&json!({"progress": 2}));
        signal(&talk, number);
        let input = talk.stdin.take();
        assert_eq!(talk.end(), (Some(code), String::new()), "{number}");
        drop(input);
        assert_eq!(deliveries(&sandbox, "bot"), ["sent", "sent"], "{number}");
        assert_eq!(progress(&slack.roots()[0].text), Some(2), "the card shows the last state");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_nothing_recorded_is_lost() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let mut talk = talk(&sandbox, &["--deadline", "20s"]);
    talk.ask(&json!({"status": "blocked"}));
    slack.wait_requests(1);
    // A hangup often comes together with another signal.
    for _ in 0..2 {
        signal(&talk, Signal::SIGHUP);
        wait_for("it to be heard", || (!pends(&talk)).then_some(()));
    }
    assert!(!talk.answers_within(Duration::from_millis(100)));
    assert_eq!(talk.child.try_wait().expect("a child"), None);
    // One that came before the other is heard would be taken for the first.
    signal(&talk, Signal::SIGINT);
    assert_eq!(talk.end(), (None, String::new()));
    slack.release();
    sandbox.cmd(["flush"]).run().success();
    assert_eq!(deliveries(&sandbox, "bot"), ["sent"]);
}

#[cfg(target_os = "linux")]
#[test]
fn signals_that_were_ignored_from_the_start_stay_so() {
    let sandbox = Sandbox::new();
    let mut talk = Talk::start(sandbox.shell(r#"trap '' HUP; exec "$BIN" stream --json -a bot"#));
    talk.ask(&json!({}));
    signal(&talk, Signal::SIGHUP);
    assert_eq!(talk.ask(&json!({}))["line"], 2);
    assert_eq!(talk.end(), (Some(0), String::new()));
}

#[test]
fn without_a_cache_messages_go_out_alone_at_their_interval() {
    let (slack, sandbox) = set_up();
    slack.set_lenient_rate();
    let cache = sandbox.write("not-a-directory/x", "").with_file_name("");
    let cache = cache.to_str().expect("a plain path").trim_end_matches('/');
    let lines: Vec<Value> = (0..50)
        .map(|index| json!({"agent_id": if index % 2 == 0 { "a" } else { "b" }, "progress": index}))
        .collect();
    let output = stream(&sandbox, &["--cache", cache, "--json"], &lines).run().success();
    assert_eq!(output.json_lines().len(), 50);
    let mut shown: Vec<_> =
        slack.messages(CHANNEL).iter().filter_map(|message| progress(&message.text)).collect();
    shown.sort_unstable();
    assert_eq!(shown, [0, 1, 48, 49], "the first state of each, and the last");
    // What Slack refuses then is nowhere.
    slack.script("chat.postMessage", vec![Fault::ErrorName("is_archived")]);
    let output = stream(&sandbox, &["--cache", cache], &lines[..1]).run().code(1);
    output.stderr_has("neither recorded nor known to be delivered: 1");
}

#[test]
fn a_destination_that_cannot_be_used_is_said_once_and_its_messages_wait() {
    let (slack, sandbox) = set_up();
    sandbox.env("SLACK_BOT_TOKEN", "file:/nowhere/token");
    let lines = [json!({"agent_id": "a"}), json!({"agent_id": "b"})];
    let output = stream(&sandbox, &["--json"], &lines).run().success();
    for receipt in output.json_lines() {
        assert_eq!(receipt["delivery"], "queued");
        assert!(receipt["error"].as_str().is_some_and(|error| error.contains("/nowhere/token")), "{receipt}");
    }
    assert_eq!(output.stderr.matches("/nowhere/token").count(), 1, "{output}");
    stream(&sandbox, &["--strict"], &lines).run().code(78);
    sandbox.slack(&slack).cmd(["flush"]).run().success();
    assert_eq!(deliveries(&sandbox, "b"), ["sent", "sent"]);
}

#[test]
fn streams_at_the_same_time_share_a_task() {
    let (slack, sandbox) = set_up();
    slack.set_lenient_rate();
    let mut streams: Vec<_> = (0..4).map(|_| talk(&sandbox, &[])).collect();
    for round in 0..10 {
        for (index, talk) in streams.iter_mut().enumerate() {
            talk.say(&json!({"action": format!("{round} of {index}")}));
        }
    }
    for mut talk in streams {
        for line in 1..=10 {
            assert_eq!(talk.hear()["line"], line);
        }
        // What another one has just recorded may still be on its way.
        assert_eq!(talk.end().0, Some(0));
    }
    let deliveries = deliveries(&sandbox, "bot");
    assert_eq!((deliveries.len(), &deliveries[39]), (40, &json!("sent")));
    assert_eq!(slack.roots().len(), 1);
}

#[test]
fn what_is_recorded_in_a_new_cache_is_sent_as_well() {
    let (slack, sandbox) = set_up();
    let mut talk = talk(&sandbox, &[]);
    talk.ask(&json!({"action": "before"}));
    wait_for("a message", || slack.roots().pop());
    for file in ["cache.db", "cache.db-wal", "cache.db-shm"] {
        fs::remove_file(sandbox.cache_path().with_file_name(file)).expect("a file");
    }
    talk.ask(&json!({"action": "after"}));
    wait_for("the first message of a new thread", || (slack.roots().len() == 2).then_some(()));
    assert_eq!(talk.end(), (Some(0), String::new()));
}
