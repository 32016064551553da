//! `flush`: everything that waits goes out, and what does not is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use crate::fake_slack::{CHANNEL, FakeSlack, Fault};
use crate::support::Sandbox;

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_MIN_INTERVAL", "1h");
    (slack, sandbox)
}

/// Records a checkpoint without time to send it.
fn leave(sandbox: &Sandbox, agent: &str, action: &str) {
    sandbox.cmd(["emit", "-q", "-a", agent, "--deadline", "0", action]).run().success();
}

fn delivery(sandbox: &Sandbox, agent: &str) -> Vec<String> {
    let task = sandbox.cmd(["show", agent, "--json"]).run().success().json();
    let checkpoints = task["checkpoints"].as_array().expect("an array").clone();
    checkpoints.iter().map(|found| found["delivery"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn held_back_states_are_sent_at_once() {
    let (slack, sandbox) = set_up();
    for action in ["one", "two", "three"] {
        sandbox.cmd(["emit", "-a", "bot", action]).run().success();
    }
    assert_eq!(slack.messages(CHANNEL).len(), 1);
    sandbox.cmd(["flush"]).run().success().stderr_is("").stdout_is("1 sent, 0 refused, 0 still waiting\n");
    let messages = slack.messages(CHANNEL);
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].thread_ts.as_ref(), Some(&messages[0].ts));
    for message in &messages {
        assert!(message.text.contains("Last Action: three"), "{}", message.text);
    }
    assert!(messages[1].text.contains("one → two → three"), "{}", messages[1].text);
    assert_eq!(slack.rate_violations(), []);
    sandbox.cmd(["flush"]).run().success().silent();
}

#[test]
fn what_could_not_be_sent_before_is_sent_now() {
    let (slack, sandbox) = set_up();
    leave(&sandbox, "a", "one");
    leave(&sandbox, "b", "two");
    assert!(slack.requests().is_empty());
    let output = sandbox.cmd(["flush", "--json"]).run().success().stderr_is("");
    assert_eq!(output.json(), json!({ "sent": 2, "rejected": 0, "waiting": 0, "audit": null }));
    assert_eq!(slack.roots().len(), 2);
    assert_eq!(
        (delivery(&sandbox, "a"), delivery(&sandbox, "b")),
        (vec!["sent".into()], vec!["sent".into()])
    );
    let output = sandbox.cmd(["flush", "--json"]).run().success().stderr_is("");
    assert_eq!(output.json(), json!({ "sent": 0, "rejected": 0, "waiting": 0, "audit": null }));
}

#[test]
fn a_wrong_default_channel_can_be_mended_for_what_was_refused() {
    let (slack, sandbox) = set_up();
    for (agent, said) in [("flagged", Some("#typo")), ("silent", None)] {
        let words = ["emit", "-q", "-a", agent, "Hello"].into_iter();
        let words = words.chain(said.into_iter().flat_map(|channel| ["-c", channel]));
        sandbox.cmd(words).env("SLACK_CHANNEL", "#typo").run().success();
        assert_eq!(delivery(&sandbox, agent), ["rejected"]);
    }
    // The task that named no channel goes on where the setting now says.
    sandbox.cmd(["emit", "-q", "-a", "silent", "--force", "Again"]).run().success();
    assert_eq!(delivery(&sandbox, "silent"), ["rejected", "sent"]);
    assert_eq!(slack.roots().len(), 1);

    sandbox.cmd(["flush", "--channel", CHANNEL]).run().code(64).stderr_has("--rejected");
    let output = sandbox.cmd(["flush", "--rejected", "--channel", CHANNEL, "--json"]).run().success();
    assert_eq!(output.stderr_is("").json(), json!({ "sent": 2, "rejected": 0, "waiting": 0, "audit": null }));
    // What has a thread stays in it.
    assert_eq!((slack.roots().len(), slack.messages(CHANNEL).len()), (2, 3));
}

#[test]
fn it_ends_although_more_is_recorded_all_the_while() {
    let (slack, sandbox) = set_up();
    leave(&sandbox, "quiet", "one");
    for number in 0..10 {
        slack.add_channel(&format!("busy-{number}"), &format!("C0BUSY000{number}"), false, false, true);
    }
    // Each message leads to another one that is due at once, in a channel where there is room for it.
    let (sandbox, count) = (Arc::new(sandbox), AtomicU32::new(0));
    let theirs = Arc::clone(&sandbox);
    slack.observe(move |_| {
        let channel = format!("C0BUSY000{}", count.fetch_add(1, Ordering::Relaxed) % 10);
        let words = ["emit", "-q", "-a", "busy", "--new", "-c", &channel, "--deadline", "0", "more"];
        theirs.cmd(words).run().success();
    });
    sandbox.cmd(["flush"]).run().success().stdout_is("1 sent, 0 refused, 0 still waiting\n");
    assert_eq!(delivery(&sandbox, "quiet"), ["sent"]);
}

#[test]
fn rejected_messages_are_sent_again_only_when_asked() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-q", "-a", "bot", "-c", "#later", "Hello"]).run().success();
    assert_eq!(delivery(&sandbox, "bot"), ["rejected"]);
    let calls = slack.requests().len();
    sandbox.cmd(["flush"]).run().success().silent();
    assert_eq!(slack.requests().len(), calls);

    let output = sandbox.cmd(["flush", "--rejected"]).run().code(78);
    output.stdout_is("0 sent, 1 refused, 0 still waiting\n").stderr_is(
        "agent-checkpoint: Slack refused a message of bot for good: channel_not_found\n\
             hint: run agent-checkpoint doctor; once the cause is mended, flush --rejected\n",
    );

    slack.add_channel("later", "C0LATER000", false, false, true);
    let output = sandbox.cmd(["flush", "--rejected", "--json"]).run().success().stderr_is("");
    assert_eq!(output.json(), json!({ "sent": 1, "rejected": 0, "waiting": 0, "audit": null }));
    assert_eq!(slack.messages("later").len(), 1);
    assert_eq!(delivery(&sandbox, "bot"), ["sent"]);
}

#[test]
fn what_is_left_at_the_deadline_is_told_with_75() {
    let (slack, sandbox) = set_up();
    leave(&sandbox, "bot", "Hello");
    slack.script("chat.postMessage", vec![Fault::Status(503); 9]);
    let output = sandbox.cmd(["flush", "--deadline", "3s"]).run().code(75);
    output
        .stdout_is("0 sent, 0 refused, 1 still waiting\n")
        .stderr_has("agent-checkpoint: 1 still waiting at the deadline: ")
        .stderr_has("503");
    let output = sandbox.cmd(["flush", "--deadline", "0", "--json"]).run().code(75);
    assert_eq!(output.json(), json!({ "sent": 0, "rejected": 0, "waiting": 1, "audit": null }));
    assert_eq!(delivery(&sandbox, "bot"), ["queued"]);
}

#[test]
fn without_a_deadline_it_goes_on_until_slack_takes_it() {
    let (slack, sandbox) = set_up();
    leave(&sandbox, "bot", "Hello");
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(1) }]);
    sandbox.cmd(["flush"]).run().success().stdout_is("1 sent, 0 refused, 0 still waiting\n");
    assert_eq!(slack.roots().len(), 1);
    assert_eq!(slack.unused_faults(), 0);
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn without_a_destination_it_refuses_only_if_something_waits() {
    let (_slack, sandbox) = set_up();
    let bare = |args: &[&str]| sandbox.cmd(args).env_remove("SLACK_BOT_TOKEN").run();
    bare(&["flush"]).success().silent();
    let output = bare(&["flush", "--json"]).success().stderr_is("");
    assert_eq!(output.json(), json!({ "sent": 0, "rejected": 0, "waiting": 0, "audit": null }));
    leave(&sandbox, "a", "one");
    leave(&sandbox, "b", "two");
    bare(&["flush"]).code(78).stdout_is("").stderr_is(
        "agent-checkpoint: 2 messages wait, but no Slack destination is configured\n\
         hint: set SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL\n",
    );
    assert_eq!(delivery(&sandbox, "a"), ["queued"]);
}

#[test]
fn messages_for_another_workspace_are_left_alone() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    let elsewhere = slack.webhook_url().replace("/T000/", "/T999/");
    let args = ["emit", "-q", "-a", "theirs", "--deadline", "0", "one"];
    sandbox.cmd(args).env("SLACK_WEBHOOK_URL", &elsewhere).run().success();
    leave(&sandbox, "ours", "two");
    let output = sandbox.cmd(["flush"]).run().success();
    output.stdout_is("1 sent, 0 refused, 0 still waiting\n").stderr_is(
        "agent-checkpoint: warning: 1 more wait for another workspace\n\
         hint: run flush with the token or webhook that they were recorded with\n",
    );
    let output = sandbox.cmd(["flush", "--json", "--rejected"]).run().success();
    assert_eq!(output.json(), json!({ "sent": 0, "rejected": 0, "waiting": 1, "audit": null }));
    assert_eq!(slack.roots().len(), 1);
    assert!(slack.roots()[0].text.contains("`ours`"), "{}", slack.roots()[0].text);
    assert_eq!(delivery(&sandbox, "theirs"), ["queued"]);
}

#[test]
fn verbose_tells_what_became_of_each_message() {
    let (slack, sandbox) = set_up();
    leave(&sandbox, "bot", "Hello");
    let output = sandbox.cmd(["flush", "-v"]).run().success();
    let ts = &slack.roots()[0].ts;
    output.stderr_is(&format!("agent-checkpoint: message of bot: posted {ts}\n")).lacks(slack.token());
}
