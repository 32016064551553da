//! Real processes that race: nothing is lost, nothing fails, and nothing is said twice.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use serde_json::Value;

use crate::fake_slack::{FakeSlack, Message};
use crate::support::{Sandbox, wait_for};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// Waits for racers, of which each must succeed and say nothing; what they answered comes back.
#[track_caller]
fn all_well(children: Vec<Child>) -> Vec<String> {
    let mut answers = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("a child");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        answers.push(text(&output.stdout));
    }
    answers
}

#[track_caller]
fn show(sandbox: &Sandbox, agent: &str) -> Value {
    sandbox.cmd(["show", agent, "--json"]).run().success().stderr_is("").json()
}

/// A field of each checkpoint of a task.
fn each<'a>(task: &'a Value, field: &str) -> Vec<&'a str> {
    let checkpoints = task["checkpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    checkpoints.iter().filter_map(|checkpoint| checkpoint[field].as_str()).collect()
}

#[track_caller]
fn tasks(sandbox: &Sandbox) -> usize {
    let listed = sandbox.cmd(["tasks", "--json", "--limit", "1000"]).run().success().json();
    listed.as_array().expect("a list").len()
}

/// The checkpoint that each message stands for. A message that was sent twice is there twice.
fn checkpoints(messages: &[Message]) -> Vec<String> {
    let id = |message: &Message| {
        let payload = &message.metadata.as_ref().expect("metadata")["event_payload"];
        payload["checkpoint_id"].as_str().expect("an id").to_owned()
    };
    messages.iter().map(id).collect()
}

#[test]
fn calls_for_one_agent_on_a_fresh_cache_share_a_task_and_a_thread() {
    let (slack, sandbox) = set_up();
    let racers = 16;
    let spawn = |n: usize| sandbox.cmd(["emit", "-a", "bot", "--json", &format!("Step {n}")]).spawn();
    let answers = all_well((0..racers).map(spawn).collect());
    let receipts: Vec<Value> = answers.iter().map(|text| text.parse().expect("a receipt")).collect();
    let distinct =
        |field: &str| receipts.iter().map(|receipt| receipt[field].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(distinct("task_id").len(), 1);
    assert_eq!(distinct("checkpoint_id").len(), racers);
    let sent = receipts.iter().filter(|receipt| receipt["delivery"] == "sent").count();
    let coalesced = receipts.iter().filter(|receipt| receipt["delivery"] == "coalesced").count();
    assert_eq!((sent, coalesced), (1, racers - 1), "{receipts:?}");
    assert_eq!(slack.messages("agent-supervisory").len(), 1);

    sandbox.cmd(["flush"]).run().success();
    assert_eq!(tasks(&sandbox), 1);
    let task = show(&sandbox, "bot");
    let actions = each(&task, "action");
    assert_eq!(actions.iter().collect::<BTreeSet<_>>().len(), racers);
    let roots = slack.roots();
    assert_eq!(roots.len(), 1);
    let newest = format!("Last Action: {}", actions[racers - 1]);
    for message in slack.thread(&roots[0].ts) {
        assert!(message.text.contains(&newest), "{newest}: {}", message.text);
    }
    assert_eq!(slack.thread(&roots[0].ts).len(), 2, "all that was held back is one message");
}

#[test]
fn a_crowd_of_calls_is_recorded_to_the_last() {
    let sandbox = Sandbox::new();
    let spawn = |n: usize| sandbox.cmd(["emit", "-a", "bot", &format!("Step {n}")]).spawn();
    all_well((0..48).map(spawn).collect());
    let task = show(&sandbox, "bot");
    assert_eq!(each(&task, "action").into_iter().collect::<BTreeSet<_>>().len(), 48);
    assert_eq!(tasks(&sandbox), 1);
}

#[test]
fn many_agents_at_once_get_a_thread_each() {
    let (slack, sandbox) = set_up();
    let mut children = Vec::new();
    for agent in 0..8 {
        // A channel each, so that Slack's limits delay nobody.
        let channel = format!("channel-{agent}");
        slack.add_channel(&channel, &format!("C0CHANNEL{agent}"), false, false, true);
        for n in 0..3 {
            let args = ["-a", &format!("agent-{agent}"), "-c", &channel, &format!("Step {n}")];
            children.push(sandbox.cmd([&["emit"], &args[..]].concat()).spawn());
        }
    }
    all_well(children);
    assert_eq!(slack.roots().len(), 8);
    assert_eq!(tasks(&sandbox), 8);
    for agent in 0..8 {
        let messages = slack.messages(&format!("channel-{agent}"));
        assert_eq!(messages.len(), 1);
        assert!(messages[0].text.contains(&format!("Agent `agent-{agent}`")), "{}", messages[0].text);
        let task = show(&sandbox, &format!("agent-{agent}"));
        assert_eq!(each(&task, "action").into_iter().collect::<BTreeSet<_>>().len(), 3);
    }
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn only_one_call_opens_the_thread_however_slow_slack_is() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let first = sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Opens it"]).spawn();
    slack.wait_requests(1);
    let later = [("blocked", "One"), ("error", "Two"), ("working", "Three")];
    let spawn = |(status, text): &(&str, &str)| {
        let child = sandbox.cmd(["emit", "-a", "bot", "-s", status, text]).spawn();
        // One after the other, so that their order is known.
        wait_for("the record", || {
            (each(&show(&sandbox, "bot"), "action").last() == Some(text)).then_some(())
        });
        child
    };
    let mut children = vec![first];
    children.extend(later.iter().map(spawn));
    assert_eq!(slack.requests().len(), 1, "the others wait for the one that opens the thread");
    slack.release();
    all_well(children);
    let roots = slack.roots();
    assert_eq!(roots.len(), 1);
    let thread = slack.thread(&roots[0].ts);
    let shown: Vec<&str> = thread[1..].iter().map(|message| status_line(&message.text)).collect();
    assert_eq!(shown, ["🚧 Agent `bot` – BLOCKED", "❌ Agent `bot` – ERROR"]);
    assert_eq!(each(&show(&sandbox, "bot"), "delivery"), ["sent", "sent", "sent", "coalesced"]);
    assert_eq!(slack.rate_violations(), []);
}

fn status_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn flush_beside_emit_and_a_courier_sends_nothing_twice() {
    let (slack, sandbox) = set_up();
    for agent in ["a", "b", "c"] {
        slack.add_channel(agent, &format!("C0{}000000", agent.to_uppercase()), false, false, true);
        let args = ["emit", "-a", agent, "-c", agent, "--deadline", "0", "-s", "starting", "Waits"];
        sandbox.cmd(args).run().success();
    }
    slack.hold();
    let mut children = Vec::new();
    for agent in ["a", "b", "c"] {
        children.push(sandbox.cmd(["flush", "-q"]).spawn());
        let args = ["emit", "-a", agent, "-s", "blocked", "--background", "auto", "Now"];
        children.push(sandbox.cmd(args).spawn());
    }
    slack.wait_requests(1);
    slack.release();
    for child in children {
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    sandbox.cmd(["flush"]).run().success();
    wait_for("the courier's end", || sandbox.couriers().is_empty().then_some(()));
    for agent in ["a", "b", "c"] {
        let task = show(&sandbox, agent);
        assert_eq!(each(&task, "delivery"), ["sent", "sent"]);
        let messages = slack.messages(agent);
        // The card shows the newest checkpoint by now.
        let replies = checkpoints(&messages[1..]);
        assert_eq!(replies, each(&task, "checkpoint_id")[1..], "of {agent}: {messages:#?}");
    }
    assert_eq!(slack.roots().len(), 3);
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn processes_of_different_caches_do_not_wait_for_each_other() {
    let (slack, sandbox) = set_up();
    for cache in ["one.db", "two.db"] {
        sandbox.cmd(["emit", "-a", "bot", "--cache", cache, "-s", "starting"]).run().success().silent();
    }
    assert_eq!(slack.roots().len(), 2, "each knows only its own thread");
    let mut one = Connection::open(sandbox.work().join("one.db")).expect("a cache");
    let busy = one.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
    let emit = |cache| sandbox.cmd(["emit", "-a", "bot", "--cache", cache, "--deadline", "3s", "-f", "Hi"]);
    emit("two.db").run().success().silent();
    assert_eq!(slack.roots().len(), 2);
    // Nobody is made to wait longer than the deadline, nor is the message lost.
    emit("one.db")
        .run()
        .success()
        .stderr_has("one.db: it is kept busy by other processes; going on without state")
        .within(Duration::from_secs(5));
    assert_eq!(slack.roots().len(), 2, "where its thread is can still be read");
    drop(busy);
    emit("one.db").run().success();
    assert_eq!(slack.roots().len(), 2);
    assert_eq!(show_at(&sandbox, "one.db"), show_at(&sandbox, "two.db"));
}

#[track_caller]
fn show_at(sandbox: &Sandbox, cache: &str) -> usize {
    let shown = sandbox.cmd(["show", "bot", "--json", "--cache", cache]).run().success().json();
    shown["checkpoints"].as_array().expect("a list").len()
}

#[test]
fn readers_beside_writers_see_whole_tasks() {
    let sandbox = Sandbox::new();
    sandbox.cmd(["emit", "-a", "bot", "Step 0"]).run().success();
    let writer = "i=1; while [ $i -le 40 ]; do \"$BIN\" emit -a bot \"Step $i\" >/dev/null || exit 1; i=$((i+1)); done";
    let mut writer = sandbox.shell(writer).spawn();
    let mut seen = 0;
    while writer.try_wait().expect("a child").is_none() {
        let task = show(&sandbox, "bot");
        let actions = each(&task, "action");
        let wanted: Vec<String> = (0..actions.len()).map(|n| format!("Step {n}")).collect();
        assert_eq!(actions, wanted);
        assert_eq!(task["checkpoint_count"], actions.len());
        assert!(actions.len() >= seen, "what was seen stays");
        seen = actions.len();
    }
    all_well(vec![writer]);
    assert_eq!(each(&show(&sandbox, "bot"), "action").len(), 41);
}
