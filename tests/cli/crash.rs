//! `kill -9` at chosen and at random moments: the next call finds everything, and sends it once and in order.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake_slack::{FakeSlack, Fault, Message};
use crate::support::{Sandbox, wait_for};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// Ends a process without a chance to tidy up.
#[track_caller]
fn kill_hard(mut child: Child) {
    child.kill().expect("it lives");
    child.wait().expect("it was not waited for yet");
}

/// A field of each checkpoint of an agent, in the order recorded.
#[track_caller]
fn each(sandbox: &Sandbox, agent: &str, field: &str) -> Vec<Value> {
    let shown = sandbox.cmd(["show", agent, "--json"]).run().success().json();
    let checkpoints = shown["checkpoints"].as_array().expect("a list").iter();
    checkpoints.map(|checkpoint| checkpoint[field].clone()).collect()
}

/// Flushes, which must not have to wait for a lease of the dead to run out.
#[track_caller]
fn flush(sandbox: &Sandbox) {
    sandbox.cmd(["flush"]).run().success().stderr_is("").within(Duration::from_secs(9));
}

/// The last action that each message shows.
fn actions(messages: &[Message]) -> Vec<&str> {
    let action = |message: &'_ Message| {
        let from = message.text.find("Last Action: ").expect("an action") + "Last Action: ".len();
        from..from + message.text[from..].find('\n').expect("a line below it")
    };
    messages.iter().map(|message| &message.text[action(message)]).collect()
}

#[test]
fn a_post_in_flight_is_sent_by_the_next_flush() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let emit = sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "First"]).spawn();
    slack.wait_requests(1);
    kill_hard(emit);
    slack.release();
    assert_eq!(each(&sandbox, "bot", "delivery"), ["queued"]);
    flush(&sandbox);
    assert_eq!(actions(&slack.roots()), ["First"]);
    assert_eq!(each(&sandbox, "bot", "delivery"), ["sent"]);
    assert_eq!(each(&sandbox, "bot", "message_ts"), [json!(slack.roots()[0].ts)]);
}

#[test]
fn a_message_that_slack_stored_before_the_crash_is_found_and_not_sent_again() {
    // A first message, a reply, and the edit of a card.
    for (before, method) in [(0, "chat.postMessage"), (1, "chat.postMessage"), (1, "chat.update")] {
        let (slack, sandbox) = set_up();
        for n in 0..before {
            sandbox.cmd(["emit", "-a", "bot", &format!("Before {n}")]).run().success().silent();
        }
        let stored = Instant::now();
        slack.script(method, vec![Fault::HangAfterStoring]);
        let emit = sandbox.cmd(["emit", "-a", "bot", "-f", "Stored"]).spawn();
        wait_for("the message", || {
            let all = slack.messages("agent-supervisory");
            let wanted = if method == "chat.update" { 0 } else { before };
            all.get(wanted)?.text.contains("Action: Stored").then_some(())
        });
        kill_hard(emit);
        slack.release();
        flush(&sandbox);
        assert!(stored.elapsed() < Duration::from_secs(9));
        let all = slack.messages("agent-supervisory");
        assert_eq!(all.len(), before + 1, "{method} {all:#?}");
        assert!(all[0].text.contains("Action: Stored"), "the card shows the newest state");
        let last = &all[before];
        assert_eq!(each(&sandbox, "bot", "delivery").last(), Some(&json!("sent")));
        assert_eq!(each(&sandbox, "bot", "message_ts").last(), Some(&json!(last.ts)));
        assert_eq!(last.thread_ts.as_ref(), all[..before].first().map(|root| &root.ts));
    }
}

#[test]
fn what_was_recorded_but_not_yet_tried_is_sent_by_the_next_call() {
    let (slack, sandbox) = set_up();
    // Far more than it takes to record something and to be killed.
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(8) }]);
    sandbox.cmd(["emit", "-a", "other", "--deadline", "5s"]).run().success();
    sandbox.env("AGENT_CHECKPOINT_DEADLINE", "30s");
    // Slack has asked everyone to wait: the next one has its turn, but has not called yet.
    let emit = sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "Needs help"]).spawn();
    wait_for("the record", || {
        let shown = sandbox.cmd(["show", "bot"]).run();
        (shown.code == Some(0)).then_some(())
    });
    kill_hard(emit);
    assert_eq!(slack.requests().len(), 1);
    sandbox.cmd(["emit", "-a", "bot", "-s", "error", "--error", "no", "Gave up"]).run().success().silent();
    let roots = slack.roots();
    let thread = roots.iter().find(|root| root.text.contains("Agent `bot`")).expect("a thread");
    assert_eq!(actions(&slack.thread(&thread.ts)), ["Gave up", "Gave up"], "a card and one reply");
    assert!(thread.edits.iter().any(|text| text.contains("Needs help")), "{:?}", thread.edits);
    assert_eq!(each(&sandbox, "bot", "delivery"), ["sent", "sent"]);
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn order_is_kept_across_crashes() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot", "Opened"]).run().success().silent();
    slack.hold();
    let emit = sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "One"]).spawn();
    slack.wait_requests(2);
    kill_hard(emit);
    slack.release();
    for (status, text) in [("error", "Two"), ("working", "Three")] {
        sandbox.cmd(["emit", "-a", "bot", "-s", status, "--deadline", "0", text]).run().success();
    }
    flush(&sandbox);
    let root = &slack.roots()[0];
    assert_eq!(actions(&slack.thread(&root.ts)), ["Three", "One", "Two", "Three"], "the card, then replies");
    assert_eq!(each(&sandbox, "bot", "delivery"), ["sent", "sent", "sent", "sent"]);
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn a_courier_killed_while_it_sends_loses_nothing() {
    let (slack, sandbox) = set_up();
    slack.hold();
    for agent in ["a", "b"] {
        sandbox.cmd(["emit", "-a", agent, "--background", "always", "Hello"]).run().success().silent();
    }
    slack.wait_requests(1);
    let couriers = sandbox.couriers();
    assert_eq!(couriers.len(), 1);
    kill(Pid::from_raw(i32::try_from(couriers[0]).expect("a pid")), Signal::SIGKILL).expect("it lives");
    wait_for("its end", || sandbox.couriers().is_empty().then_some(()));
    slack.release();
    flush(&sandbox);
    assert_eq!(actions(&slack.roots()), ["Hello", "Hello"]);
    assert_eq!(sandbox.couriers(), [0_u32; 0]);
}

#[test]
fn a_flush_killed_half_way_is_taken_up_by_another() {
    let (slack, sandbox) = set_up();
    for agent in ["a", "b", "c"] {
        sandbox.cmd(["emit", "-a", agent, "--deadline", "0", agent]).run().success();
    }
    slack.script("chat.postMessage", vec![Fault::Ok, Fault::HangAfterStoring]);
    let first = sandbox.cmd(["flush"]).spawn();
    wait_for("a second message", || (slack.roots().len() == 2).then_some(()));
    kill_hard(first);
    slack.release();
    flush(&sandbox);
    let mut shown: Vec<String> = actions(&slack.roots()).iter().map(|&action| action.to_owned()).collect();
    shown.sort();
    assert_eq!(shown, ["a", "b", "c"]);
}

#[test]
fn calls_killed_at_random_moments_lose_nothing_that_they_accepted() {
    let (slack, sandbox) = set_up();
    slack.set_lenient_rate();
    let mut accepted = Vec::new();
    let mut killed = 0;
    for n in 0..60_u64 {
        let text = format!("Step {n}");
        let interval = if n % 3 == 0 { "0" } else { "1h" };
        let args = ["emit", "-a", "bot", "-s", "working", "--deadline", "200ms", "--min-interval", interval];
        let mut emit = sandbox.cmd([&args[..], &[&text]].concat()).spawn();
        // Somewhere in the few milliseconds that a call takes, spread evenly.
        thread::sleep(Duration::from_micros(n * 7919 % 12_000));
        emit.kill().expect("a child that was not waited for");
        if emit.wait().expect("it was not waited for yet").success() {
            accepted.push(text);
        } else {
            killed += 1;
        }
    }
    assert!(killed > 0, "nothing was put to the test");
    sandbox.cmd(["emit", "-a", "bot", "--deadline", "0", "The last"]).run().success();
    accepted.push("The last".to_owned());
    let recorded = each(&sandbox, "bot", "action");
    let mut rest = recorded.iter();
    for text in &accepted {
        assert!(rest.any(|action| action == text), "{text} of {accepted:?} is not in order in {recorded:?}");
    }
    sandbox.cmd(["flush"]).run().success().stderr_is("");
    let roots = slack.roots();
    assert_eq!(roots.len(), 1, "{roots:#?}");
    assert_eq!(actions(&roots), ["The last"], "the card");
    assert_eq!(actions(&slack.thread(&roots[0].ts)).last(), Some(&"The last"));
    let open = |delivery: &Value| ["queued", "unconfirmed"].iter().any(|word| delivery == word);
    let deliveries = each(&sandbox, "bot", "delivery");
    assert!(!deliveries.iter().any(open), "{deliveries:?}");
}

#[test]
fn calls_killed_while_they_create_the_cache_leave_one_that_works() {
    for n in 0..20_u64 {
        let sandbox = Sandbox::new();
        let emits: Vec<Child> = (0..3).map(|_| sandbox.cmd(["emit", "-a", "bot", "Early"]).spawn()).collect();
        thread::sleep(Duration::from_micros(n * 7919 % 12_000));
        emits.into_iter().for_each(kill_hard);
        sandbox.cmd(["emit", "-a", "bot", "--json", "Late"]).run().success().stderr_is("");
        assert_eq!(each(&sandbox, "bot", "action").last(), Some(&json!("Late")));
        let directory = sandbox.cache_path().with_file_name("");
        let files = fs::read_dir(directory).expect("a directory").flatten();
        let aside: Vec<_> =
            files.filter(|file| file.file_name().to_string_lossy().contains("corrupt")).collect();
        assert!(aside.is_empty(), "{aside:?}");
    }
}
