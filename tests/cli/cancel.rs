//! Cancel: the button on the live card of a `run`, and what other callers of `emit` hear of it.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ask::Asker;
use crate::fake_slack::people::{COLLEAGUE, FOREIGNER};
use crate::fake_slack::{HUMAN, Message};
use crate::scene::{Scene, text};
use crate::stream::Talk;
use crate::support::wait_for;

/// With an app-level token.
fn scene() -> Scene {
    let scene = Scene::people();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    scene
}

/// A `run` of the agent `bot` whose script has said `ready`, and its card with the button.
fn running(scene: &Scene, options: &[&str], script: &str) -> (Child, Message) {
    let words = [&["run", "-a", "bot"], options, &["--", "sh", "-c", script]].concat();
    let mut process = scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).spawn();
    let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let card = wait_for("the card", || {
        scene.slack.roots().into_iter().find(|root| root.text.contains("Agent `bot`"))
    });
    scene.slack.wait_sockets(1);
    (process, card)
}

#[test]
fn a_click_on_the_card_of_a_run_ends_its_command() {
    let scene = scene();
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut process, card) = running(&scene, &[], script);
    assert_eq!(scene.slack.buttons(&card.ts), ["task:cancel"]);
    let confirm = serde_json::to_string(&card.attachments).expect("JSON");
    assert!(confirm.contains("Cancel this task?") && confirm.contains("bot is told to stop."), "{confirm}");
    assert!(scene.slack.click(&card.ts, "task:cancel", HUMAN).acked);
    assert_eq!(process.wait().expect("an end").code(), Some(3));
    let told = scene.slack.wait_ephemerals(1);
    assert_eq!(told[0].text, "bot is told to stop.");
    scene.flush();
    let shown = scene.show("bot");
    assert_eq!((text(&shown, "state"), text(&shown, "status")), ("cancelled", "cancelled"));
    let action = text(&shown, "action").to_owned();
    assert!(action.starts_with("cancelled by @"), "{action}");
    assert_eq!(shown["interventions"][0]["intervention_type"], "cancel");
    assert_eq!(shown["interventions"][0]["user_id"], HUMAN);
    let card = scene.slack.card(&card.ts);
    assert!(card.text.contains("– CANCELLED\n"), "{}", card.text);
    assert!(scene.slack.buttons(&card.ts).is_empty(), "there is nothing left to cancel");
}

#[test]
fn a_command_that_does_not_heed_it_is_killed() {
    let scene = scene();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut process, card) = running(&scene, &["--kill-after", "300ms"], script);
    let since = Instant::now();
    scene.slack.click(&card.ts, "task:cancel", HUMAN);
    assert_eq!(process.wait().expect("an end").code(), Some(137));
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(text(&scene.show("bot"), "state"), "cancelled");
}

#[test]
fn only_those_who_may_can_cancel() {
    let scene = scene();
    // The one who listens knows of no approvers.
    let asker = Asker::start(&scene, &["Go on?", "-a", "asker", "--timeout", "60s"]);
    scene.slack.wait_sockets(1);
    scene.sandbox.env("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
    let script = "echo ready; while :; do sleep 0.05; done";
    let (mut process, card) = running(&scene, &[], script);
    scene.slack.click(&card.ts, "task:cancel", HUMAN);
    scene.slack.click(&card.ts, "task:cancel", FOREIGNER);
    let mut forged = scene.slack.click_payload(&card, "task:cancel", COLLEAGUE);
    let task = text(&scene.show("bot"), "task_id").to_owned();
    forged["actions"][0]["value"] = json!(format!("{task}:{}", "0".repeat(32)));
    scene.slack.interact(&forged);
    let told = scene.slack.wait_ephemerals(3);
    assert!(told[..2].iter().all(|one| one.text.starts_with("You are not among those")), "{told:?}");
    assert!(told[2].text.starts_with("This task is not known"), "{told:?}");
    assert!(process.try_wait().expect("a process").is_none());
    assert_eq!(scene.show("bot")["interventions"].as_array().map(Vec::len), Some(2));
    scene.slack.click(&card.ts, "task:cancel", COLLEAGUE);
    assert_eq!(process.wait().expect("an end").code(), Some(143));
    assert_eq!(scene.slack.sockets_opened(), 1);
    drop(asker);
}

#[test]
fn a_list_of_approvers_that_cannot_be_read_lets_nobody_cancel() {
    let scene = scene();
    scene.sandbox.env("AGENT_CHECKPOINT_APPROVERS", "bob");
    let doctor = scene.sandbox.cmd(["doctor"]).run().code(78);
    doctor.stdout_has("FAIL settings     AGENT_CHECKPOINT_APPROVERS: 'bob'").lacks("anybody in the channel");
    let mut process = scene.sandbox.cmd(["run", "-a", "bot", "--", "cat"]).spawn();
    let card = wait_for("the card", || scene.slack.roots().pop());
    assert_eq!(scene.slack.buttons(&card.ts), [""; 0]);
    drop(process.stdin.take());
    assert_eq!(process.wait().expect("an end").code(), Some(0));
}

#[test]
fn a_stream_hears_of_it_with_each_line_until_the_task_ends() {
    let scene = scene();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut process, card) = running(&scene, &["--kill-after", "60s"], script);
    let mut talk = Talk::start(scene.sandbox.cmd(["stream", "--json"]));
    let line = |agent: &str, status: &str| json!({ "agent_id": agent, "status": status });
    let receipt = talk.ask(&line("bot", "working"));
    assert!(receipt.get("requests").is_none(), "{receipt}");
    scene.slack.click(&card.ts, "task:cancel", HUMAN);
    let wants = |receipt: &Value| {
        let request = &receipt["requests"][0];
        assert_eq!((&request["type"], &request["user_id"]), (&json!("cancel"), &json!(HUMAN)), "{receipt}");
    };
    wants(&talk.ask(&line("bot", "working")));
    // Lines that are recorded together.
    let lines = [("bot", "working"), ("other", "working"), ("bot", "working"), ("bot", "cancelled")];
    talk.say_text(&lines.map(|(agent, status)| format!("{}\n", line(agent, status))).concat());
    wants(&talk.hear());
    assert!(talk.hear().get("requests").is_none());
    wants(&talk.hear());
    assert!(talk.hear().get("requests").is_none());
    assert!(talk.ask(&line("bot", "starting")).get("requests").is_none());
    process.kill().expect("a live process");
    process.wait().expect("an end");
}

#[test]
fn an_emit_hears_of_it_until_the_task_ends() {
    let scene = scene();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut process, card) = running(&scene, &["--kill-after", "60s"], script);
    let receipt = scene.emit(["Nothing yet", "--obey"]).run().success().json();
    assert!(receipt.get("requests").is_none(), "{receipt}");
    scene.slack.click(&card.ts, "task:cancel", HUMAN);
    for _ in 0..2 {
        let receipt = scene.emit(["Still here"]).run().success().json();
        let request = &receipt["requests"][0];
        assert_eq!((&request["type"], &request["user_id"]), (&json!("cancel"), &json!(HUMAN)), "{receipt}");
        scene.sandbox.cmd(["emit", "-a", "bot", "--obey", "And here"]).run().code(20);
    }
    scene.sandbox.cmd(["emit", "-a", "other", "--obey", "Not me"]).run().success();
    let receipt = scene.emit(["-s", "cancelled", "Stopped", "--obey"]).run().success().json();
    assert!(receipt.get("requests").is_none(), "{receipt}");
    process.kill().expect("a live process");
    process.wait().expect("an end");
}

#[test]
fn without_anybody_to_hear_of_it_there_is_no_button() {
    let scene = Scene::people();
    let words = ["run", "-a", "bot", "--", "sh", "-c", "echo ready; sleep 0.1"];
    scene.sandbox.cmd(words).run().success();
    let card = scene.root();
    assert!(!serde_json::to_string(&card.attachments).expect("JSON").contains("task:cancel"));
    assert!(card.edits.iter().all(|text| !text.contains("cancel")));
}
