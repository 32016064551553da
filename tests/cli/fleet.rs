//! Many agents in one channel: fewer and newer messages instead of refusals.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake_slack::{FakeSlack, Fault};
use crate::support::{Output, Sandbox, wait_for};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// Records without a call to Slack.
#[track_caller]
fn record(sandbox: &Sandbox, agent: &str, args: &[&str]) {
    let fixed = ["emit", "-a", agent, "--deadline", "0", "--min-interval", "0"];
    sandbox.cmd([&fixed, args].concat()).run().success();
}

/// Flushes as long as that many messages take.
#[track_caller]
fn flush_for(sandbox: &Sandbox, deadline: &str) {
    let code = sandbox.cmd(["flush", "--deadline", deadline]).run().code;
    assert!(matches!(code, Some(0 | 75)), "{code:?}");
}

/// Whose a message is.
fn agent_of(text: &str) -> String {
    text.split('`').nth(1).unwrap_or_default().to_owned()
}

/// Whose messages were posted, in the order of the calls.
fn posted(slack: &FakeSlack) -> Vec<String> {
    let calls = slack.calls("chat.postMessage").into_iter();
    calls.map(|call| agent_of(call.args["text"].as_str().unwrap_or_default())).collect()
}

#[test]
fn two_hundred_agents_in_a_channel_never_call_too_often() {
    let (slack, sandbox) = set_up();
    // A courier sends what has no turn soon, within the same limits as the calls beside it.
    sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    let receipts = Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= 200 {
                        return;
                    }
                    let agent = format!("agent-{n}");
                    // No time to wait for a turn, or for a cache that a busy machine keeps busy: then it is said again.
                    let args = ["emit", "-a", &agent, "--deadline", "1s", "--json", "Hello"];
                    let call = || sandbox.cmd(args).run();
                    let is_nothing = |output: &Output| {
                        output.stderr.contains("neither recorded nor delivered")
                            && output.stderr.contains("kept busy by other processes")
                    };
                    let mut calls = std::iter::repeat_with(call).take(20);
                    let output = calls.find(|output| !is_nothing(output)).expect("a cache that is free");
                    receipts.lock().expect("no panic").insert(agent, output.success().json());
                }
            });
        }
    });
    slack.hold();
    let seconds = since.elapsed().as_secs();
    assert_eq!(slack.rate_violations(), []);
    let roots = slack.roots();
    let sent: HashSet<String> = roots.iter().map(|root| agent_of(&root.text)).collect();
    let count = sent.len();
    assert_eq!(roots.len(), count, "nothing is sent twice");
    assert!(count >= 3, "a burst of three goes at once, but {count} went");
    assert!(u64::try_from(count).is_ok_and(|count| count <= 3 + seconds + 1), "{count} in {seconds} s");

    // A courier that waits for an answer has written down what became of all that went before.
    wait_for("the courier's next call", || (slack.requests().last()?.status == 0).then_some(()));
    let receipts = receipts.into_inner().expect("no panic");
    let tasks = sandbox.cmd(["tasks", "--json", "--limit", "1000"]).run().success().json();
    let tasks = tasks.as_array().expect("a list");
    assert_eq!(tasks.len(), 200);
    for task in tasks {
        let agent = task["agent_id"].as_str().expect("an agent");
        let receipt = &receipts[agent];
        let is_sent = sent.contains(agent);
        match (is_sent, task["waiting"]["count"] == 1, receipt["delivery"].as_str()) {
            // Each of the others waits.
            (false, true, Some("queued" | "unconfirmed"))
            | (true, false, Some("queued" | "unconfirmed" | "sent")) => {}
            // Its caller had no time left for an answer, or for the cache to be free: then it is not said to wait.
            (true, true, Some("unconfirmed" | "sent")) => {}
            _ => panic!("in Slack: {is_sent}, but {receipt} and {task}"),
        }
    }
}

#[test]
fn immediate_messages_go_before_routine_ones() {
    // Where Slack takes both at once, and where both have to wait.
    for others in [0, 2] {
        let (slack, sandbox) = set_up();
        sandbox.cmd(["emit", "-a", "routine"]).run().success().silent();
        for other in 0..others {
            sandbox.cmd(["emit", "-a", &format!("other-{other}")]).run().success().silent();
        }
        let before = posted(&slack).len();
        assert_eq!(before, 1 + others);
        record(&sandbox, "routine", &["-s", "working", "One"]);
        record(&sandbox, "urgent", &["-s", "blocked", "Two"]);
        flush_for(&sandbox, "5s");
        assert_eq!(posted(&slack)[before..], ["urgent", "routine"]);
        assert_eq!(slack.rate_violations(), []);
    }
}

#[test]
fn what_waits_for_its_turn_is_replaced_by_newer_states_unless_it_is_immediate() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Start"]).run().success().silent();
    for (status, text) in [("working", "One"), ("working", "Two"), ("blocked", "Help"), ("working", "Four")] {
        record(&sandbox, "bot", &["-s", status, text]);
    }
    record(&sandbox, "bot", &["-s", "planning", "Five"]);
    flush_for(&sandbox, "10s");
    let root = &slack.roots()[0];
    let replies = &slack.thread(&root.ts)[1..];
    let texts: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(
        texts[0].contains("BLOCKED") && texts[0].contains("Steps: Start → One → Two → Help"),
        "{}",
        texts[0]
    );
    assert!(
        texts[1].contains("PLANNING") && texts[1].contains("Steps: One → Two → Help → Four → Five"),
        "{}",
        texts[1]
    );
    let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().json();
    let deliveries: Vec<&Value> =
        shown["checkpoints"].as_array().expect("a list").iter().map(|row| &row["delivery"]).collect();
    assert_eq!(deliveries, ["sent", "coalesced", "coalesced", "sent", "coalesced", "sent"]);
}

#[test]
fn a_retry_after_that_one_receives_holds_everyone_back() {
    let (slack, sandbox) = set_up();
    // Far more than the calls take.
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(8) }]);
    sandbox.cmd(["emit", "-a", "first", "--deadline", "5s"]).run().success().stderr_has("Slack");
    let told = slack.requests()[0].at;
    for agent in ["second", "third"] {
        // Also the most urgent one, and one with a cache that it opens anew.
        sandbox.cmd(["emit", "-a", agent, "-s", "error", "--deadline", "100ms"]).run().success();
    }
    assert_eq!(slack.requests().len(), 1, "nobody else calls meanwhile");
    flush_for(&sandbox, "40s");
    let posts = slack.calls("chat.postMessage");
    assert_eq!(posts.len(), 4);
    assert!(posts[1].at - told >= Duration::from_secs(8), "{:?}", posts[1].at - told);
    assert_eq!(slack.rate_violations(), []);
    assert_eq!(slack.roots().len(), 3);
}

#[test]
fn cards_are_edited_within_the_tier_and_end_with_the_newest_state() {
    let (slack, sandbox) = set_up();
    // Threads in channels of their own: only the edits share a limit, as they do in Slack.
    let agents: Vec<String> = (0..6).map(|n| format!("agent-{n}")).collect();
    for (n, agent) in agents.iter().enumerate() {
        slack.add_channel(agent, &format!("C0CHANNEL{n}"), false, false, true);
        sandbox.cmd(["emit", "-a", agent, "-c", agent, "-s", "starting"]).run().success().silent();
    }
    for text in ["One", "Two"] {
        for agent in &agents {
            record(&sandbox, agent, &["-f", text]);
        }
    }
    flush_for(&sandbox, "20s");
    assert_eq!(slack.rate_violations(), []);
    let edits = slack.calls("chat.update");
    assert_eq!(edits.len(), agents.len(), "one edit for both replies");
    // Five may come at once; a moment less than the pace, since slots are counted from the claim.
    assert!(edits[5].at - edits[0].at >= Duration::from_millis(1300), "{:?}", edits[5].at - edits[0].at);
    for root in slack.roots() {
        assert!(root.text.contains("Last Action: Two"), "{}", root.text);
        assert_eq!(slack.thread(&root.ts).len(), 3);
    }
}
