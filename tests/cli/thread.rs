//! Where a task's messages go: channels, and threads that others have opened.

use std::time::Duration;

use serde_json::Value;

use crate::fake_slack::{CHANNEL, HUMAN};
use crate::scene::{Scene, last_action, text};

/// A person's thread in the default channel, as `--thread` names it, and its `ts`.
fn discussion(scene: &Scene) -> (String, String) {
    let ts = scene.slack.say(CHANNEL, None, HUMAN, "Please deploy");
    (format!("{CHANNEL}:{ts}"), ts)
}

/// The last actions of the replies in a thread, as they look now.
fn replies(scene: &Scene, ts: &str) -> Vec<String> {
    scene.slack.thread(ts).iter().skip(1).map(|message| last_action(&message.text)).collect()
}

#[test]
fn a_task_joins_the_thread_it_is_given() {
    for by_flag in [true, false] {
        let scene = Scene::bot();
        let (thread, ts) = discussion(&scene);
        let (other, _) = discussion(&scene);
        let receipt = if by_flag {
            // The flag wins.
            scene.sandbox.env("AGENT_CHECKPOINT_THREAD", other);
            let receipt = scene.sent(["--thread", &thread, "--status", "starting", "one"]);
            scene.sandbox.env_remove("AGENT_CHECKPOINT_THREAD");
            receipt
        } else {
            scene.sandbox.env("AGENT_CHECKPOINT_THREAD", &thread);
            scene.sent(["--status", "starting", "one"])
        };
        assert_eq!((text(&receipt, "thread_ts"), text(&receipt, "channel")), (&*ts, CHANNEL));
        assert_ne!(text(&receipt, "message_ts"), ts);
        // The first message of ours is the card, the person's is not touched.
        scene.sent(["--status", "blocked", "two"]);
        assert_eq!(replies(&scene, &ts), ["two", "two"]);
        assert_eq!(scene.slack.card(&ts).text, "Please deploy");
        assert_eq!(scene.slack.roots().len(), 2);
    }
}

#[test]
fn several_agents_share_a_thread() {
    let scene = Scene::bot();
    let (thread, ts) = discussion(&scene);
    scene.sandbox.env("AGENT_CHECKPOINT_THREAD", thread);
    for agent in ["a", "b"] {
        scene.sent(["-a", agent, "--status", "starting", agent]);
    }
    assert_eq!(replies(&scene, &ts), ["a", "b"]);
}

#[test]
fn a_thread_that_is_not_there_is_refused_and_nothing_is_posted_elsewhere() {
    let scene = Scene::bot();
    let words = ["--thread", "C0AGENT000:1700000000.000100", "--status", "starting", "--strict", "one"];
    let receipt = scene.emit(words).run().code(78).json();
    assert_eq!(receipt["delivery"], "rejected");
    assert!(text(&receipt, "error").starts_with("thread_not_found"), "{receipt}");
    assert_eq!(scene.slack.roots().len(), 0);
}

#[test]
fn a_given_thread_that_is_deleted_is_not_replaced_by_one_of_our_own() {
    let scene = Scene::bot();
    let (thread, _) = discussion(&scene);
    scene.sent(["--thread", &thread, "--status", "starting", "one"]);
    for message in scene.slack.messages(CHANNEL) {
        scene.slack.delete_message(CHANNEL, &message.ts);
    }
    let receipt = scene.emit(["--status", "blocked", "two"]).run().success().json();
    assert_eq!(receipt["delivery"], "rejected");
    assert_eq!(scene.slack.roots().len(), 0);
}

#[test]
fn a_running_task_keeps_its_thread_and_says_so() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    let kept = scene.root().ts;
    let (thread, asked) = discussion(&scene);
    for _ in 0..2 {
        let output = scene.emit(["--thread", &thread, "--status", "blocked", "two"]).run().success();
        assert_eq!(text(&output.json(), "thread_ts"), kept);
        output.stderr_is(&format!(
            "agent-checkpoint: warning: the task already has thread {kept}; thread {asked} was not used\n\
             hint: use --new to join another thread\n"
        ));
    }
    // The same thread again is no news.
    scene.sent(["--thread", &format!("{CHANNEL}:{kept}"), "--status", "error", "three"]);
    let receipt = scene.sent(["--new", "--thread", &thread, "four"]);
    assert_eq!(text(&receipt, "thread_ts"), asked);
}

#[test]
fn a_running_task_keeps_its_channel_and_says_so() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    let output = scene.emit(["-c", "#general", "--status", "blocked", "two"]).run().success();
    let receipt = output.json();
    assert_eq!(text(&receipt, "channel"), CHANNEL);
    let said = "the task's thread is in #agent-supervisory; channel #general was not used";
    assert_eq!(receipt["warnings"], serde_json::json!([said]));
    output.stderr_is(&format!("agent-checkpoint: warning: {said}\nhint: use --new to open a thread there\n"));
    assert!(scene.slack.messages("general").is_empty());
    // Its name and its id are the same channel.
    for same in ["#agent-supervisory", CHANNEL] {
        scene.sent(["-c", same, "--force", "three"]);
    }
    scene.sent(["--new", "-c", "#general", "four"]);
    assert_eq!(scene.slack.messages("general").len(), 1);
}

#[test]
fn a_channel_is_named_in_many_ways() {
    let scene = Scene::bot();
    for (number, (channel, id)) in [
        ("#general", "C0GENERAL0"),
        ("general", "C0GENERAL0"),
        ("C0GENERAL0", "C0GENERAL0"),
        (HUMAN, "D0HUMAN000"),
    ]
    .into_iter()
    .enumerate()
    {
        let agent = format!("agent-{number}");
        let receipt = scene.sent(["-a", &agent, "-c", channel, "--status", "starting", "one"]);
        assert_eq!(text(&receipt, "channel"), id, "{channel}");
    }
    // A card is edited where Slack put it: a person's id does not do.
    let receipt = scene.sent(["-a", "agent-3", "--status", "blocked", "two"]);
    assert_eq!(last_action(&scene.slack.card(text(&receipt, "thread_ts")).text), "two");
}

#[test]
fn the_channel_of_the_environment_is_used_unless_a_flag_names_one() {
    let scene = Scene::bot();
    scene.sandbox.env("SLACK_CHANNEL", "#general");
    assert_eq!(scene.sent(["-a", "a", "one"])["channel"], "C0GENERAL0");
    assert_eq!(scene.sent(["-a", "b", "-c", CHANNEL, "one"])["channel"], CHANNEL);
}

#[test]
fn a_wrong_thread_or_channel_waits_until_it_is_mended() {
    for (name, wrong, right) in [
        ("AGENT_CHECKPOINT_THREAD", "yesterday's", "C0GENERAL0"),
        ("SLACK_CHANNEL", "two words", "C0GENERAL0"),
    ] {
        let scene = Scene::bot();
        let ts = scene.slack.say(right, None, HUMAN, "hello");
        let output = scene
            .emit(["--deadline", "30s", "one"])
            .env(name, wrong)
            .run()
            .success()
            .stderr_has(&format!("'{wrong}'"))
            // Nothing mends it while the call waits.
            .within(Duration::from_secs(6));
        let receipt = output.json();
        assert_eq!((text(&receipt, "delivery"), &receipt["channel"]), ("queued", &Value::Null), "{receipt}");
        assert!(!text(&receipt, "error").is_empty(), "{receipt}");
        scene.emit(["--deadline", "30s", "two"]).env(name, wrong).run().success();
        scene.emit(["--deadline", "30s", "--strict", "three"]).env(name, wrong).run().code(78);
        assert_eq!(scene.slack.requests().len(), 0);

        let mended = if name == "SLACK_CHANNEL" { right.to_owned() } else { format!("{right}:{ts}") };
        scene.sandbox.env(name, mended);
        scene.flush();
        let messages = scene.slack.messages(right);
        assert_eq!(last_action(&messages[1].edits[0]), "one", "{messages:?}");
        assert_eq!(last_action(&messages[1].text), "three", "{messages:?}");
    }
}
