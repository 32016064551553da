//! `show`: one task with all of its checkpoints.

use serde_json::{Value, json};

use crate::fake_slack::{CHANNEL, FakeSlack};
use crate::support::Sandbox;

/// A task with a checkpoint for every way of being delivered that needs no fault.
fn told() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_MIN_INTERVAL", "1h");
    let emit = |line: &str| sandbox.shell(&format!("$BIN emit -q -a deploy-bot {line}")).run().success();
    emit("-s starting -t 'Deploy X' --repo acme/rocket --task-type deploy 'Reading files'");
    emit("-s working -p 50 --tokens 1000 --meta step=2 'Running\ntests'");
    emit(
        "-s checkpoint -p 60 --no-post --artifact LOG=https://ci.example/log --artifact https://ci.example/2",
    );
    emit("-s error --error 'exit code 1' 'Tests failed'");
    (slack, sandbox)
}

#[test]
fn the_page_tells_the_task_and_every_checkpoint() {
    let (slack, sandbox) = told();
    let output = sandbox.cmd(["show", "deploy-bot"]).run().success().stderr_is("");
    let task = sandbox.cmd(["show", "deploy-bot", "--json"]).run().success().json();
    let text = |field: &str| task[field].as_str().unwrap_or_default().to_owned();
    let (id, started, ended, thread) =
        (text("task_id"), text("started_at"), text("ended_at"), slack.messages(CHANNEL)[0].ts.clone());
    // Whole seconds may pass on a slow machine.
    let lines: Vec<String> = output
        .stdout
        .lines()
        .map(|line| match line.rsplit_once(" · ") {
            Some((line, _elapsed)) => line.to_owned(),
            None if line.starts_with("   ") && line.get(8..).is_some_and(|rest| rest.starts_with("  ")) => {
                line.get(10..).unwrap_or_default().to_owned()
            }
            None => line.to_owned(),
        })
        .collect();
    let artifacts = "LOG: https://ci.example/log · https://ci.example/2";
    let expected = format!(
        "❌ ERROR deploy-bot · Deploy X · ▓▓▓▓▓▓░░░░ 60% · Tests failed · 🔴 exit code 1 · {artifacts} · 1,000 / 200,000 (0.5%)
task      {id} (deploy, failed)
name      Deploy X
repo      acme/rocket
context   1,000 / 200,000 (0.5%)
channel   {CHANNEL}
thread    {thread}
started   {started}
ended     {ended}

starting            0%  sent         Reading files
working            50%  coalesced    Running tests
checkpoint         60%  off
LOG: https://ci.example/log
https://ci.example/2
error              60%  sent         Tests failed: exit code 1"
    );
    assert_eq!(lines.join("\n"), expected, "{output}");
}

#[test]
fn json_has_every_checkpoint_in_order_with_its_delivery() {
    let (slack, sandbox) = told();
    let task = sandbox.cmd(["show", "deploy-bot", "--json"]).run().success().stderr_is("").json();
    let messages = slack.messages(CHANNEL);
    let checkpoints = task["checkpoints"].as_array().expect("an array");
    let brief = |checkpoint: &Value| {
        let part = |field: &str| checkpoint[field].clone();
        json!([
            part("status"),
            part("progress"),
            part("action"),
            part("error"),
            part("delivery"),
            part("message_ts")
        ])
    };
    assert_eq!(
        checkpoints.iter().map(brief).collect::<Vec<_>>(),
        [
            json!(["starting", 0, "Reading files", null, "sent", messages[0].ts]),
            json!(["working", 50, "Running\ntests", null, "coalesced", null]),
            json!(["checkpoint", 60, null, null, "off", null]),
            json!(["error", 60, "Tests failed", "exit code 1", "sent", messages[1].ts]),
        ]
    );
    assert_eq!(checkpoints[1]["meta"], json!({ "step": "2" }));
    assert_eq!(checkpoints[1]["tokens"], 1000);
    assert_eq!(checkpoints[1]["context_percent"], 0.5);
    let times: Vec<_> =
        checkpoints.iter().map(|found| found["created_at"].as_str().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let artifacts = task["artifacts"].as_array().expect("an array");
    let named: Vec<_> = artifacts.iter().map(|found| (&found["name"], &found["target"])).collect();
    assert_eq!(
        named,
        [(&json!("LOG"), &json!("https://ci.example/log")), (&Value::Null, &json!("https://ci.example/2"))]
    );
    assert_eq!(artifacts[0]["checkpoint_id"], checkpoints[2]["checkpoint_id"]);
    assert_eq!(task["interventions"], json!([]));
    assert_eq!((&task["checkpoint_count"], &task["state"]), (&json!(4), &json!("failed")));
}

#[test]
fn what_slack_refused_is_told_with_the_reason() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    sandbox.cmd(["emit", "-a", "lost", "-c", "#secret", "Hello"]).run().success();
    let task = sandbox.cmd(["show", "lost", "--json"]).run().success().json();
    let checkpoint = &task["checkpoints"][0];
    assert_eq!(
        (&checkpoint["delivery"], &checkpoint["delivery_error"]),
        (&json!("rejected"), &json!("channel_not_found"))
    );
    sandbox.cmd(["show", "lost"]).run().success().stdout_has("slack     1 refused: channel_not_found\n");
}

#[test]
fn an_agent_means_its_latest_task_and_a_task_id_that_task() {
    let sandbox = Sandbox::new();
    let first = sandbox.cmd(["emit", "-a", "bot", "-s", "complete", "--json", "one"]).run().success().json();
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "two"]).run().success();
    let action = |name: &str| sandbox.cmd(["show", name, "--json"]).run().success().json()["action"].clone();
    assert_eq!(action("bot"), "two");
    assert_eq!(action(first["task_id"].as_str().expect("an id")), "one");
}

#[test]
fn an_unknown_agent_is_not_found() {
    let sandbox = Sandbox::new();
    for args in [&["show", "nobody"][..], &["show", "nobody", "--json"]] {
        let output = sandbox.cmd(args).run().code(1).stdout_is("");
        output.stderr_is(
            "agent-checkpoint: no agent or task 'nobody'\nhint: agent-checkpoint tasks lists them\n",
        );
    }
}

#[cfg(feature = "postgres")]
#[test]
fn with_a_database_an_unknown_agent_may_be_another_machines() {
    let output = Sandbox::new().cmd(["show", "nobody"]).env("DATABASE_URL", "postgres://127.0.0.1:1/x").run();
    output.code(1).stderr_has("hint: agent-checkpoint tasks lists them; with --fleet ");
}

#[test]
fn the_last_lines_of_a_command_keep_their_indentation() {
    let sandbox = Sandbox::new();
    let script = "printf 'Traceback:\\n  File \"x\", line 1\\n    work()\\n' >&2; exit 1";
    sandbox.cmd(["run", "-a", "bot", "--", "sh", "-c", script]).run().code(1);
    let output = sandbox.cmd(["show", "bot"]).run().success();
    let margin = " ".repeat(10);
    output.stdout_has(&format!("\n{margin}Traceback:\n{margin}  File \"x\", line 1\n{margin}    work()\n"));
}

#[test]
fn no_text_of_an_agent_moves_the_cursor() {
    let sandbox = Sandbox::new();
    let nasty = "a\u{1b}[2J\u{1b}]0;title\u{7}b\r\nc\u{202e}d";
    sandbox
        .cmd(["emit", "-a", "bot", "-s", "error", "-t", "a\u{202e}b", "--error", nasty, nasty])
        .run()
        .success();
    let output = sandbox.cmd(["show", "bot"]).run().success();
    let odd = output.stdout.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
    assert_eq!(odd, None, "{output}");
}
