//! `replies`: what people wrote in an agent's thread, once each.

use serde_json::{Value, json};

use crate::fake_slack::people::COLLEAGUE;
use crate::fake_slack::{BOT_USER, CHANNEL, Fault, HUMAN};
use crate::scene::{Scene, text};
use crate::support::{Run, wait_for};

fn scene() -> Scene {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", "100ms");
    scene.sent(["-s", "starting", "Begin"]);
    scene
}

fn replies<'a, const N: usize>(scene: &'a Scene, words: [&str; N]) -> Run<'a> {
    let mut line = vec!["replies", "-a", "bot"];
    line.extend(words);
    scene.sandbox.cmd(line)
}

#[test]
fn each_reply_is_told_once_and_only_those_of_people() {
    let scene = scene();
    let root = scene.root().ts;
    replies(&scene, []).run().success().stdout_is("").stderr_is("");
    scene.slack.person_replies(CHANNEL, &root, HUMAN, "Please use &lt;b&gt; &amp; c");
    scene.sent(["-f", "-s", "working", "On it"]);
    scene.slack.person_replies(CHANNEL, &root, BOT_USER, "I am a bot");
    let ts = scene.slack.person_replies(CHANNEL, &root, COLLEAGUE, "two\nlines \u{1b}[31mred");
    let told = replies(&scene, []).run().success().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with('@') && lines[0].ends_with(": Please use <b> & c"), "{told}");
    assert!(lines[1].ends_with(": two") && lines[2] == "lines red", "{told}");
    assert_eq!(lines.len(), 3, "{told}");
    replies(&scene, []).run().success().stdout_is("");
    let last = scene.slack.person_replies(CHANNEL, &root, HUMAN, "And this");
    let json = replies(&scene, ["--json"]).run().success().json();
    assert_eq!(
        json,
        json!({
            "ts": last, "user_id": HUMAN, "user_name": json["user_name"], "text": "And this", "said_at": json["said_at"],
        })
    );
    assert!(last > ts && text(&json, "said_at").ends_with('Z'), "{json}");
    assert_ne!(json["user_name"], Value::Null);
}

#[test]
fn more_replies_than_fit_a_page_come_in_order() {
    let scene = scene();
    let root = scene.root().ts;
    for number in 0..40 {
        scene.slack.person_replies(CHANNEL, &root, HUMAN, &format!("reply {number}"));
    }
    let told = replies(&scene, []).run().success().stdout;
    let numbers: Vec<&str> = told.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    let expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_wait_ends_with_the_first_reply_or_with_its_time() {
    let scene = scene();
    replies(&scene, ["--wait", "300ms"]).run().success().stdout_is("");
    let waiter = replies(&scene, ["--wait", "20s"]).spawn();
    let before = scene.slack.calls("conversations.replies").len();
    wait_for("a look", || (scene.slack.calls("conversations.replies").len() > before).then_some(()));
    scene.slack.person_replies(CHANNEL, &scene.root().ts, HUMAN, "Stop after this");
    let output = waiter.wait_with_output().expect("an end");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(": Stop after this\n"));
}

#[test]
fn what_cannot_be_read_is_said() {
    let scene = scene();
    scene.sandbox.cmd(["replies", "-a", "nobody"]).run().code(1).stderr_has("no agent 'nobody'");
    scene.slack.script("conversations.replies", vec![Fault::Status(503)]);
    replies(&scene, []).run().code(1).stderr_has("could not read the thread");
    scene.slack.set_scopes(&["chat:write"]);
    replies(&scene, []).run().code(78).stderr_has("missing_scope");
    replies(&scene, []).env_remove("SLACK_BOT_TOKEN").run().code(78).stderr_has("there is no bot token");
}

#[test]
fn inside_a_run_the_thread_is_the_runs() {
    let scene = scene();
    let script = r#"until "$BIN" replies --wait 20s | grep -q 'go on'; do :; done; echo seen"#;
    let words = ["run", "-a", "worker", "--", "sh", "-c", script];
    let run = scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).spawn();
    let root =
        wait_for("the card", || scene.slack.roots().into_iter().find(|root| root.text.contains("`worker`")));
    scene.slack.person_replies(CHANNEL, &root.ts, HUMAN, "go on");
    let output = run.wait_with_output().expect("an end");
    assert_eq!(output.stdout, b"seen\n");
}

#[test]
fn a_secret_in_a_reply_is_masked() {
    let scene = scene();
    let reply = "use ghp_0123456789abcdefghijABCDEFGHIJ012345 please";
    scene.slack.person_replies(CHANNEL, &scene.root().ts, HUMAN, reply);
    let told = replies(&scene, []).run().success().stdout;
    assert!(told.contains("use ") && !told.contains("ghp_0123456789"), "{told}");
}
