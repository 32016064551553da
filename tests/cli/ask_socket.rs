//! Clicks, heard by Socket Mode: each ends the question it belongs to, whoever hears it, and no other.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::ask::Asker;
use crate::fake_slack::people::{COLLEAGUE, FOREIGNER};
use crate::fake_slack::{CHANNEL, HUMAN, Message};
use crate::run_child::signal;
use crate::scene::{Scene, side_by_side, text};
use crate::support::wait_for;

/// With an app-level token.
fn scene() -> Scene {
    let scene = Scene::people();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    scene
}

/// A question that is open and listened for.
fn asked(scene: &Scene, words: &[&str]) -> (Asker, Message) {
    let asker = Asker::start(scene, &[&["Go on?"], words].concat());
    let id = asker.id.clone();
    let message = wait_for("the question", || {
        let all = scene.slack.messages(CHANNEL).into_iter();
        all.rev()
            .find(|message| serde_json::to_string(&message.blocks).is_ok_and(|blocks| blocks.contains(&id)))
    });
    scene.slack.wait_sockets(1);
    (asker, message)
}

fn interventions(scene: &Scene) -> Vec<Value> {
    scene.show("bot")["interventions"].as_array().expect("a list").clone()
}

#[test]
fn a_click_ends_the_wait_and_the_buttons() {
    let rows: [(&[&str], &str, i32, &str); 3] = [
        (&[], "question:approve", 0, "approved\n"),
        (&[], "question:reject", 10, "rejected\n"),
        (&["--choice", "a", "--choice", "b"], "question:choice:1", 0, "b\n"),
    ];
    side_by_side(rows, |(options, button, code, answer)| {
        let scene = scene();
        let (asker, message) = asked(&scene, options);
        let since = Instant::now();
        let heard = scene.slack.click(&message.ts, button, HUMAN);
        assert!(heard.acked, "{heard:?}");
        let told = asker.end();
        assert_eq!((told.code, told.stdout.as_str()), (Some(code), answer), "{}", told.stderr);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        wait_for("the edit", || scene.slack.buttons(&message.ts).is_empty().then_some(()));
        let all = interventions(&scene);
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0]["user_id"], &all[0]["source"]), (&json!(HUMAN), &json!("click")));
        assert_eq!(
            scene.slack.calls("reactions.get").len(),
            0,
            "nothing is looked for where clicks are told"
        );
    });
}

#[test]
fn of_two_who_ask_one_listens_for_both() {
    let scene = scene();
    let (first, one) = asked(&scene, &[]);
    let (second, other) = asked(&scene, &[]);
    scene.slack.click(&other.ts, "question:reject", HUMAN);
    assert_eq!(second.end().code, Some(10));
    assert_eq!(scene.slack.sockets_opened(), 1);
    scene.slack.click(&one.ts, "question:approve", HUMAN);
    assert_eq!(first.end().code, Some(0));
}

#[test]
fn when_the_listener_ends_the_next_one_takes_over() {
    for how in [Signal::SIGKILL, Signal::SIGTERM] {
        let scene = scene();
        let (mut first, _) = asked(&scene, &[]);
        let (second, other) = asked(&scene, &[]);
        assert_eq!(scene.slack.sockets_opened(), 1);
        signal(&first.process, how);
        first.process.wait().expect("an end");
        scene.slack.wait_sockets_opened(2);
        scene.slack.wait_sockets(1);
        scene.slack.click(&other.ts, "question:approve", HUMAN);
        assert_eq!(second.end().code, Some(0), "{how}");
    }
}

/// Longer than until a lease is prolonged and than a transaction waits, both of them ten seconds.
const BUSY: Duration = Duration::from_secs(22);

#[test]
fn a_cache_that_was_kept_busy_ends_no_wait_and_clicks_are_heard_again() {
    side_by_side([("ask", "question:approve", 0), ("run", "task:cancel", 143)], |(command, button, code)| {
        let scene = scene();
        let words: &[&str] = match command {
            "ask" => &["ask", "Go on?", "-a", "bot", "--timeout", "90s"],
            _ => &["run", "-a", "bot", "--", "sleep", "90"],
        };
        let mut process = scene.sandbox.cmd(words).spawn();
        let message = wait_for("the button", || scene.slack.newest_with(button));
        scene.slack.wait_sockets(1);
        let busy = Connection::open(scene.sandbox.cache_path()).expect("the cache");
        busy.busy_timeout(Duration::from_secs(10)).expect("a moment");
        busy.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        std::thread::sleep(BUSY);
        assert!(process.try_wait().expect("a state").is_none(), "{command} has ended");
        busy.execute_batch("ROLLBACK").expect("the end of it");
        scene.slack.wait_sockets(1);
        // It may end the process before there is an acknowledgement.
        wait_for("the click to be heard", || {
            let is_acked = scene.slack.click_as_seen(&message, button, HUMAN).acked;
            (is_acked || process.try_wait().expect("a state").is_some()).then_some(())
        });
        assert_eq!(process.wait().expect("an end").code(), Some(code), "{command}");
    });
}

#[test]
fn a_signal_ends_the_wait_while_the_cache_is_busy() {
    let scene = scene();
    let (asker, _) = asked(&scene, &[]);
    let id = asker.id.clone();
    let busy = Connection::open(scene.sandbox.cache_path()).expect("the cache");
    busy.busy_timeout(Duration::from_secs(10)).expect("a moment");
    busy.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    signal(&asker.process, Signal::SIGTERM);
    let told = asker.end();
    assert_eq!(told.code, Some(143), "{}", told.stderr);
    assert!(
        told.stderr.contains("the question is withdrawn by the next call at the latest"),
        "{}",
        told.stderr
    );
    busy.execute_batch("ROLLBACK").expect("the end of it");
    scene.sandbox.cmd(["answer", &id]).run().code(1).stdout_is("withdrawn\n");
}

#[test]
fn whoever_may_not_answer_and_whoever_comes_late_is_told_so_alone() {
    let scene = scene();
    let (asker, message) = asked(&scene, &["--approver", HUMAN]);
    scene.slack.click(&message.ts, "question:approve", COLLEAGUE);
    scene.slack.click(&message.ts, "question:approve", FOREIGNER);
    let told = scene.slack.wait_ephemerals(2);
    assert!(told.iter().all(|one| one.text.starts_with("You are not among those")), "{told:?}");
    assert_eq!(scene.sandbox.cmd(["answer", &asker.id]).run().code(75).stdout, "open\n");
    let (other, another) = asked(&scene, &[]);
    let seen = scene.slack.card(&message.ts);
    scene.slack.click(&message.ts, "question:approve", HUMAN);
    assert_eq!(asker.end().code, Some(0));
    // The first listener is gone with its question.
    scene.slack.wait_sockets_opened(2);
    scene.slack.wait_sockets(1);
    scene.slack.click_as_seen(&seen, "question:reject", HUMAN);
    let told = scene.slack.wait_ephemerals(3);
    let late = &told[2];
    assert!(late.text.starts_with("Too late: approved by @"), "{late:?}");
    assert_eq!(late.user, HUMAN);
    let refused: Vec<String> =
        interventions(&scene).iter().map(|one| text(&one["action_details"], "refused").to_owned()).collect();
    assert_eq!(refused, ["not_allowed", "not_allowed", "", "late"]);
    scene.slack.click(&another.ts, "question:approve", HUMAN);
    assert_eq!(other.end().code, Some(0));
}

#[test]
fn what_an_agent_or_a_command_line_says_forges_no_link_in_what_a_person_is_told() {
    let scene = scene();
    let link = "<https://evil.example|Log in> <!here>";
    let told = |count: usize| {
        let text = scene.slack.wait_ephemerals(count)[count - 1].text.clone();
        assert!(text.contains("&lt;https://evil.example|Log in&gt; &lt;!here&gt;"), "{text}");
        assert!(!text.contains('<'), "{text}");
    };
    let (asker, message) = asked(&scene, &[]);
    scene.sandbox.cmd(["answer", &asker.id, "--reject", "--comment", link]).run().code(10);
    assert_eq!(asker.end().code, Some(10));
    // Somebody else has to listen, and some client still shows the buttons.
    let mut process = scene.sandbox.cmd(["run", "-a", link, "--", "sleep", "90"]).spawn();
    let card = wait_for("the button", || scene.slack.newest_with("task:cancel"));
    scene.slack.wait_sockets(1);
    scene.slack.click_as_seen(&message, "question:approve", HUMAN);
    told(1);
    scene.slack.click(&card.ts, "task:cancel", HUMAN);
    told(2);
    process.wait().expect("an end");
}

#[test]
fn a_click_that_comes_twice_counts_once_and_a_forged_one_is_only_noted() {
    let scene = scene();
    let (asker, message) = asked(&scene, &["--quorum", "2"]);
    scene.slack.repeat_next_envelope();
    scene.slack.click(&message.ts, "question:approve", HUMAN);
    let mut payload = scene.slack.click_payload(&message, "question:approve", COLLEAGUE);
    payload["actions"][0]["value"] = json!(format!("{}:{}", asker.id, "0".repeat(32)));
    scene.slack.interact(&payload);
    payload["actions"][0]["value"] = json!(format!("{}:", asker.id));
    payload["actions"][0]["action_ts"] = json!("1.000010");
    scene.slack.interact(&payload);
    // Its bot's token is enough to put the same button into a message that asks something else.
    let mut payload = scene.slack.click_payload(&message, "question:approve", COLLEAGUE);
    payload["container"]["message_ts"] = json!("1.000001");
    scene.slack.interact(&payload);
    let kept = interventions(&scene);
    let refused: Vec<_> = kept.iter().map(|act| text(&act["action_details"], "refused")).collect();
    assert_eq!(refused, ["", "forged", "forged", "forged"], "{kept:?}");
    assert_eq!(text(&kept[1], "user_id"), COLLEAGUE);
    scene.sandbox.cmd(["answer", &asker.id]).run().code(75);
    scene.slack.click(&message.ts, "question:approve", COLLEAGUE);
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn a_click_is_heard_after_the_connection_was_renewed_or_lost() {
    type Blow = fn(&Scene);
    let rows: [Blow; 3] = [
        |scene| scene.slack.disconnect_sockets("warning"),
        |scene| scene.slack.disconnect_sockets("refresh_requested"),
        |scene| scene.slack.cut_sockets(),
    ];
    side_by_side(rows, |blow| {
        let scene = scene();
        let (asker, message) = asked(&scene, &[]);
        blow(&scene);
        scene.slack.wait_sockets_opened(2);
        // One that came by the old connection may be heard and end the question, though nothing was left to acknowledge it by.
        let is_heard = || {
            let has_button = scene.slack.has_button(&message.ts, "question:approve");
            !has_button || scene.slack.click_as_seen(&message, "question:approve", HUMAN).acked
        };
        wait_for("a click that is heard", || is_heard().then_some(()));
        assert_eq!(asker.end().code, Some(0));
    });
}

#[test]
fn without_a_socket_answers_are_looked_for() {
    let scene = scene();
    scene.slack.revoke_app_token();
    scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", "100ms");
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    scene.slack.person_reacts(CHANNEL, &message.ts, HUMAN, "white_check_mark");
    let told = asker.end();
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stderr.contains("clicks are not heard"), "{}", told.stderr);
}

/// How much memory a process has for itself, in kilobytes.
fn memory(process: &Child) -> Option<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.id())).ok()?;
    let line = smaps.lines().find(|line| line.starts_with("Private_Dirty:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn whoever_waits_needs_little_memory() {
    let scene = scene();
    let (asker, message) = asked(&scene, &[]);
    if memory(&asker.process).is_some() {
        // What it took to open the connection is given back.
        wait_for("little memory", || memory(&asker.process).filter(|kilobytes| *kilobytes < 8 * 1024));
    }
    scene.slack.click(&message.ts, "question:approve", HUMAN);
    assert_eq!(asker.end().code, Some(0));
}
