//! The receipt of `emit`, the exit code that goes with it, and what the two streams carry.

use std::fs;

use serde_json::{Value, json};

use crate::fake_slack::{CHANNEL, FakeSlack, Fault};
use crate::support::{Output, Sandbox, wait_for};

const FIELDS: [&str; 14] = [
    "agent_id",
    "audit",
    "channel",
    "checkpoint_id",
    "context_percent",
    "delivery",
    "error",
    "message_ts",
    "progress",
    "retry_at",
    "status",
    "task_id",
    "thread_ts",
    "warnings",
];

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// A receipt that has all its fields and no other, ids that are UUIDs, and a time in UTC or none.
#[track_caller]
fn receipt(output: &Output) -> Value {
    let receipt = output.json();
    let fields: Vec<&str> = receipt.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, FIELDS, "{output}");
    for field in ["checkpoint_id", "task_id"] {
        let id = receipt[field].as_str().expect("an id");
        assert!(id.len() == 36 && id.as_bytes()[14] == b'7', "{field} is no UUIDv7: {id}");
    }
    if let Some(at) = receipt["retry_at"].as_str() {
        assert_utc(at);
    } else {
        assert_eq!(receipt["retry_at"], Value::Null);
    }
    receipt
}

/// `2026-03-01T09:30:00.000Z`.
#[track_caller]
fn assert_utc(at: &str) {
    let shape: String = at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

/// The fields that tell what became of the message.
fn outcome(receipt: &Value) -> Value {
    let mut outcome = receipt.clone();
    for field in ["agent_id", "audit", "checkpoint_id", "context_percent", "progress", "status", "task_id"] {
        outcome.as_object_mut().expect("an object").remove(field);
    }
    outcome
}

#[test]
fn sent_tells_where_the_message_is() {
    let (slack, sandbox) = set_up();
    let words = ["emit", "--json", "-a", "bot", "-s", "working", "-p", "50", "--tokens", "30000", "One"];
    let output = sandbox.cmd(words).run().success().stderr_is("");
    let first = receipt(&output);
    let root = slack.roots()[0].ts.clone();
    assert_eq!(
        first,
        json!({
            "checkpoint_id": first["checkpoint_id"], "task_id": first["task_id"], "agent_id": "bot",
            "status": "working", "progress": 50, "context_percent": 15.0, "delivery": "sent",
            "channel": "C0AGENT000", "thread_ts": root, "message_ts": root, "retry_at": null, "error": null,
            "audit": "off", "warnings": [],
        })
    );
    let output = sandbox.cmd(["emit", "--json", "-a", "bot", "-f", "Two"]).run().success().stderr_is("");
    let second = receipt(&output);
    let reply = slack.thread(&root)[1].ts.clone();
    assert_eq!(
        outcome(&second),
        json!({
            "delivery": "sent", "channel": "C0AGENT000", "thread_ts": root, "message_ts": reply,
            "retry_at": null, "error": null, "warnings": [],
        })
    );
    assert_eq!(second["task_id"], first["task_id"]);
    assert_ne!(second["checkpoint_id"], first["checkpoint_id"]);
    // The message carries the checkpoint's id, so that it can be found again.
    let metadata = slack.thread(&root)[1].metadata.clone().expect("metadata");
    assert!(metadata.to_string().contains(second["checkpoint_id"].as_str().expect("an id")), "{metadata}");
}

#[test]
fn coalesced_tells_when_a_later_message_is_due() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot", "One"]).run().success().silent();
    let root = slack.roots()[0].ts.clone();
    let output =
        sandbox.cmd(["emit", "--json", "--strict", "-a", "bot", "Two"]).run().success().stderr_is("");
    let coalesced = receipt(&output);
    assert!(coalesced["retry_at"].is_string());
    assert_eq!(
        outcome(&coalesced),
        json!({
            "delivery": "coalesced", "channel": "C0AGENT000", "thread_ts": root, "message_ts": null,
            "retry_at": coalesced["retry_at"], "error": null, "warnings": [],
        })
    );
    assert_eq!(slack.thread(&root).len(), 1);
}

#[test]
fn printed_and_off_go_nowhere() {
    let nowhere = json!({
        "channel": null, "thread_ts": null, "message_ts": null, "retry_at": null, "error": null, "warnings": [],
    });
    let with = |delivery: &str| {
        let mut outcome = nowhere.clone();
        outcome["delivery"] = delivery.into();
        outcome
    };
    let sandbox = Sandbox::new();
    let output = sandbox.cmd(["emit", "--json", "--strict", "-a", "a", "One"]).run().success().stderr_is("");
    assert_eq!(outcome(&receipt(&output)), with("printed"));
    let output = sandbox.cmd(["emit", "--json", "--strict", "-a", "b", "--no-post", "One"]).run().success();
    assert_eq!(outcome(&receipt(&output)), with("off"));
    sandbox.cmd(["emit", "-a", "b", "--no-post", "Two"]).run().success().silent();

    let (slack, sandbox) = set_up();
    let output = sandbox.cmd(["emit", "--json", "--strict", "-a", "a", "--no-post", "One"]).run().success();
    assert_eq!(outcome(&receipt(&output)), with("off"));
    assert!(slack.requests().is_empty());
}

#[test]
fn queued_by_background_always_never_touches_the_network() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let words = ["emit", "--json", "-a", "bot", "--background", "always", "One"];
    let output = sandbox.cmd(words).run().success().stderr_is("");
    let queued = receipt(&output);
    assert!(queued["retry_at"].is_string());
    assert_eq!(
        outcome(&queued),
        json!({
            "delivery": "queued", "channel": "#agent-supervisory", "thread_ts": null, "message_ts": null,
            "retry_at": queued["retry_at"], "error": null, "warnings": [],
        })
    );
    slack.release();
    wait_for("the message", || slack.roots().pop());
    let sent = || sandbox.cmd(["show", "--json", "bot"]).run().success().json()["checkpoints"][0].clone();
    wait_for("the outcome", || (sent()["delivery"] == "sent").then_some(()));
}

#[test]
fn queued_by_a_deadline_of_nothing_says_so_and_is_75_when_strict() {
    let (slack, sandbox) = set_up();
    for (args, code) in [(&[][..], 0), (&["--strict"], 75)] {
        let words = ["emit", "--json", "-a", "bot", "-f", "--deadline", "0", "One"];
        let output = sandbox.cmd(words.iter().chain(args)).run().code(code);
        let receipt = receipt(&output);
        assert_eq!((&receipt["delivery"], &receipt["message_ts"]), (&"queued".into(), &Value::Null));
        assert_eq!(receipt["warnings"].as_array().map(Vec::len), Some(1));
        output.stderr_has("recorded, but not in Slack yet (queued)").stderr_has("\nhint: ");
    }
    assert!(slack.requests().is_empty());
}

#[test]
fn queued_by_a_broken_destination_says_what_is_wrong_with_it() {
    let (slack, sandbox) = set_up();
    sandbox.env("SLACK_BOT_TOKEN", "file:/nowhere/token");
    let output = sandbox.cmd(["emit", "--json", "-a", "bot", "One"]).run().success();
    let queued = receipt(&output);
    let why = queued["error"].as_str().expect("a reason");
    assert!(why.starts_with("SLACK_BOT_TOKEN: the value names the file '/nowhere/token'"), "{why}");
    assert_eq!(
        outcome(&queued),
        json!({
            "delivery": "queued", "channel": "#agent-supervisory", "thread_ts": null, "message_ts": null,
            "retry_at": queued["retry_at"], "error": why, "warnings": [why],
        })
    );
    output.stderr_is(&format!("agent-checkpoint: {why}\nhint: make the file readable\n"));
    assert!(slack.requests().is_empty());
}

#[test]
fn rejected_gives_slacks_reason_and_is_78_when_strict() {
    let (_slack, sandbox) = set_up();
    for (agent, args, code) in [("a", &[][..], 0), ("b", &["--strict"], 78)] {
        let words = ["emit", "--json", "-a", agent, "-c", "#secret", "One"];
        let output = sandbox.cmd(words.iter().chain(args)).run().code(code);
        let warning = "Slack refused the message for good: channel_not_found";
        assert_eq!(
            outcome(&receipt(&output)),
            json!({
                "delivery": "rejected", "channel": "#secret", "thread_ts": null, "message_ts": null,
                "retry_at": null, "error": "channel_not_found", "warnings": [warning],
            })
        );
        output
            .stderr_has(&format!("agent-checkpoint: warning: {warning}\nhint: "))
            .stderr_has("flush --rejected");
    }
}

#[test]
fn a_webhook_tells_neither_its_channel_nor_a_ts() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    for words in [["-a", "a", "One"], ["-fa", "a", "Two"]] {
        let output = sandbox.cmd(["emit", "--json"].iter().chain(&words)).run().success().stderr_is("");
        let sent = receipt(&output);
        assert_eq!(sent["delivery"], "sent");
        for field in ["channel", "thread_ts", "message_ts"] {
            assert_eq!(sent[field], Value::Null, "{field}");
        }
    }
    assert_eq!(slack.roots().len(), 2);
    let output = sandbox.cmd(["emit", "-a", "b", "--dry-run", "Three"]).run().success();
    output.stdout_has("\nwould be posted to the webhook's channel as a message of its own\n");
    // A thread that was given is known.
    let ts = &slack.roots()[0].ts;
    let thread = format!("C0AGENT000:{ts}");
    let output = sandbox.cmd(["emit", "--json", "-a", "c", "--thread", &thread, "Four"]).run().success();
    let sent = receipt(&output);
    assert_eq!((&sent["channel"], &sent["thread_ts"]), (&"C0AGENT000".into(), &ts.as_str().into()));
}

#[test]
fn the_stored_checkpoint_agrees_with_its_receipt() {
    let (_slack, sandbox) = set_up();
    for (agent, args) in [("a", &["One"][..]), ("b", &["--no-post", "One"]), ("c", &["-c", "#secret", "One"])]
    {
        let words = ["emit", "--json", "-a", agent];
        let receipt = receipt(&sandbox.cmd(words.iter().chain(args)).run().success());
        let shown = sandbox.cmd(["show", "--json", agent]).run().success().json();
        let stored = &shown["checkpoints"][0];
        for (field, name) in
            [("checkpoint_id", "checkpoint_id"), ("delivery", "delivery"), ("message_ts", "message_ts")]
        {
            assert_eq!(stored[name], receipt[field], "{agent}: {field}");
        }
        assert_eq!(stored["delivery_error"], receipt["error"], "{agent}");
        assert_eq!(shown["thread_ts"], receipt["thread_ts"], "{agent}");
        for at in [&shown["started_at"], &shown["updated_at"], &stored["created_at"]] {
            assert_utc(at.as_str().expect("a time"));
        }
    }
}

#[test]
fn a_successful_call_is_silent_with_slack_and_one_line_without() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot", "-s", "working", "-p", "50", "Running tests"]).run().success().silent();
    // Held back inside the interval.
    sandbox.cmd(["emit", "-a", "bot", "-s", "working", "-p", "60", "More tests"]).run().success().silent();
    assert_eq!(slack.roots().len(), 1);

    let sandbox = Sandbox::new();
    let words = ["emit", "-a", "bot", "-s", "working", "-p", "50", "Running tests"];
    let line = "⚙️ WORKING bot · ▓▓▓▓▓░░░░░ 50% · Running tests · 0s\n";
    sandbox.cmd(words).run().success().stdout_is(line).stderr_is("");
    // The answer is not talk.
    sandbox.cmd(words.iter().chain(&["--quiet"])).run().success().stdout_is(line).stderr_is("");
    let full = [
        "emit",
        "-a",
        "other",
        "-s",
        "error",
        "-t",
        "Deploy",
        "--error",
        "exit code 1",
        "--tokens",
        "1000",
        "--artifact",
        "PR=https://example.com/1",
        "Testing",
    ];
    sandbox.cmd(full).run().success().stderr_is("").stdout_is(
        "❌ ERROR other · Deploy · ░░░░░░░░░░ 0% · Testing · 🔴 exit code 1 · PR: https://example.com/1 · \
         1,000 / 200,000 (0.5%) · 0s\n",
    );
}

#[test]
fn quiet_silences_talk_but_not_what_is_wrong() {
    let sandbox = Sandbox::new();
    let words = ["emit", "-a", "bot", "--no-post", "--tokens", "150000", "--new"];
    sandbox.cmd(words).run().success().stderr_has("agent-checkpoint: warning: context warning: 75.0%");
    for flag in ["-q", "--quiet"] {
        sandbox.cmd(words.iter().chain(&[flag])).run().success().silent();
        let output = sandbox.cmd(words.iter().chain(&[flag])).env("AGENT_CHECKPOINT_DEADLINE", "soon").run();
        output.success().stderr_has("AGENT_CHECKPOINT_DEADLINE: 'soon'").lacks("context warning");
        sandbox.cmd(["emit", flag, "-p", "150"]).run().code(64).stderr_has("'150'");
    }
    sandbox.cmd(words).env("AGENT_CHECKPOINT_QUIET", "1").run().success().silent();
}

#[test]
fn verbose_tells_what_was_done_and_no_secret() {
    let (slack, sandbox) = set_up();
    for verbose in ["-v", "-vv", "-vvv"] {
        let output = sandbox.cmd(["emit", "-a", "bot", "-f", verbose, "One"]).run().success().stdout_is("");
        let output = output.stderr_has("message of bot: posted ").stderr_has(" of bot: sent\n");
        let output = output.lacks(slack.token()).lacks("Bearer");
        let answered = format!("request chat.postMessage: 200 from 127.0.0.1:{} (", slack.port());
        assert_eq!(output.stderr.contains(&answered), verbose != "-v", "{output}");
    }
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(60) }]);
    let output = sandbox.cmd(["emit", "-a", "bot", "-f", "-vv", "Two"]).run().success();
    output.stderr_has("request chat.postMessage: 429 from 127.0.0.1:").stderr_has(", retry after 60 s (");
    let output = sandbox.cmd(["doctor", "-vv"]).run().success();
    let output = output.stderr_has("request auth.test: 200 ").stderr_has("request conversations.list: 200 ");
    output.lacks(slack.token());
    let output =
        sandbox.cmd(["emit", "-a", "b", "--no-post", "One"]).env("AGENT_CHECKPOINT_VERBOSE", "1").run();
    output.success().stderr_has(" of b: off\n");

    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    let output = sandbox.cmd(["emit", "-a", "bot", "-vv", "One"]).run().success();
    let output = output.stderr_has("request webhook: 200 from 127.0.0.1:").stderr_has(" of bot: sent\n");
    output.lacks("/services/").lacks("secret");
    for words in [&["run", "-vv", "--", "true"][..], &["stream", "-vv"]] {
        let output = sandbox.cmd(words).stdin("{}\n").run().success();
        output.stderr_has("request webhook: 200 from 127.0.0.1:").lacks("/services/");
    }
    sandbox.cmd(["emit", "-a", "late", "--background", "never", "--deadline", "0", "One"]).run().success();
    sandbox
        .cmd(["flush", "-vv"])
        .run()
        .success()
        .stderr_has("request webhook: 200 from ")
        .lacks("/services/");
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let sandbox = Sandbox::new();
    let words = ["emit", "-a", "bot", "--no-post", "--tokens", "150000", "--new"];
    for (args, variables, coloured) in [
        (&[][..], &[][..], false),
        (&["--color", "auto"], &[], false),
        (&["--color", "never"], &[], false),
        (&["--color", "always"], &[], true),
        (&[], &[("AGENT_CHECKPOINT_COLOR", "always")], true),
        (&["--color", "never"], &[("AGENT_CHECKPOINT_COLOR", "always")], false),
    ] {
        let run = sandbox.cmd(words.iter().chain(args));
        let run = variables.iter().fold(run, |run, (name, value)| run.env(name, value));
        let output = run.run().success().stderr_has("context warning");
        assert_eq!(output.stderr.contains('\u{1b}'), coloured, "{args:?} {variables:?}\n{output}");
    }
}

#[test]
fn a_dry_run_shows_all_and_changes_nothing() {
    let (slack, sandbox) = set_up();
    let words = ["emit", "-a", "bot", "-s", "working", "-p", "50", "--dry-run", "Testing"];
    sandbox.cmd(words).run().success().stderr_is("").stdout_is(
        "⚙️ WORKING bot · ▓▓▓▓▓░░░░░ 50% · Testing · 0s\n\
         would be posted to #agent-supervisory as the first message of a thread\n\
         ⚙️ Agent `bot` – WORKING\n\nTask: bot\nProgress: ▓▓▓▓▓░░░░░ 50%\nContext: 0 / 200,000 (0.0%)\n\
         Last Action: Testing\nElapsed: 0s\n",
    );
    assert!(!sandbox.cache_path().exists(), "a dry run made a cache");

    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Starting"]).run().success().silent();
    let cache = || fs::read(sandbox.cache_path()).expect("the cache");
    let shown = || sandbox.cmd(["show", "--json", "bot"]).run().success().stdout;
    let (before, task) = (cache(), shown());
    let requests = slack.requests().len();
    let held = "would be held back: a message was posted inside the interval\n";
    let thread = "would be posted to #agent-supervisory in the task's thread\n";
    let first = "would be posted to #agent-supervisory as the first message of a thread\n";
    let off = "would be recorded and not posted\n";
    for (args, verdict) in
        [(&[][..], held), (&["--force"], thread), (&["--new"], first), (&["--no-post"], off)]
    {
        sandbox.cmd(words.iter().chain(args)).run().success().stderr_is("").stdout_has(verdict);
    }
    let json = sandbox.cmd(words.iter().chain(&["--json", "--force"])).run().success().stderr_is("").json();
    for (field, value) in [
        ("dry_run", json!(true)),
        ("new_task", json!(false)),
        ("agent_id", json!("bot")),
        ("status", json!("working")),
        ("progress", json!(50)),
        ("delivery", json!("queued")),
        ("channel", json!(CHANNEL)),
        ("retry_at", json!(null)),
        ("message_ts", json!(null)),
        ("thread_ts", json!(slack.roots()[0].ts)),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    let text = json["message"]["text"].as_str().expect("the message");
    assert!(text.contains("Steps: Starting → Testing"), "{text}");
    let new = sandbox.cmd(words.iter().chain(&["--json", "--new"])).run().success().json();
    assert_eq!(new["new_task"], true);
    assert_eq!((&new["delivery"], &new["thread_ts"]), (&json!("queued"), &Value::Null));
    let held = sandbox.cmd(words.iter().chain(&["--json"])).run().success().json();
    assert_eq!(held["delivery"], "coalesced");
    assert!(held["retry_at"].is_string() && held["message"]["text"].is_string(), "{held}");
    let off = sandbox.cmd(words.iter().chain(&["--json", "--no-post"])).run().success().json();
    assert_eq!(
        (&off["delivery"], &off["channel"], &off["message"]),
        (&json!("off"), &Value::Null, &Value::Null)
    );

    let wrong = sandbox.cmd(words).env("SLACK_BOT_TOKEN", "file:/nowhere").run().success();
    wrong.stdout_has("\nwould be recorded and wait until the destination is mended\n");

    assert!(cache() == before, "a dry run changed the cache");
    assert_eq!(shown(), task);
    assert_eq!(slack.requests().len(), requests);

    let sandbox = Sandbox::new();
    let output = sandbox.cmd(words).run().success().stderr_is("");
    output.stdout_has("would be recorded and printed: no destination is configured\n");
    let printed = sandbox.cmd(words.iter().chain(&["--json"])).run().success().json();
    assert_eq!((&printed["delivery"], &printed["channel"]), (&json!("printed"), &Value::Null));
}
