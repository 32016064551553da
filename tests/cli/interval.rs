//! When a message is sent: the interval, what goes at once, and the order.

use std::time::Duration;

use crate::fake_slack::{CHANNEL, Fault};
use crate::scene::{Scene, last_action, side_by_side, text};

/// What became of each action.
fn became(scene: &Scene) -> Vec<String> {
    scene.deliveries("bot").into_iter().map(|(action, delivery)| format!("{action} {delivery}")).collect()
}

/// The `Steps` of the newest message.
fn steps(scene: &Scene) -> String {
    let newest = scene.slack.thread(&scene.root().ts).pop().expect("a message");
    newest.text.lines().find_map(|line| line.strip_prefix("Steps: ")).unwrap_or_default().to_owned()
}

#[test]
fn one_routine_message_goes_in_an_interval_and_the_next_carries_the_steps_between() {
    let scene = Scene::bot();
    let first = scene.sent(["--status", "starting", "one"]);
    for (status, action) in [("planning", "two"), ("working", "three"), ("checkpoint", "four")] {
        let receipt = scene.emit(["--status", status, action]).run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "coalesced", "{status}");
        assert!(receipt["message_ts"].is_null() && receipt["error"].is_null(), "{receipt}");
        assert_eq!(receipt["thread_ts"], first["thread_ts"]);
        // It is due when the interval is over.
        let due = time(text(&receipt, "retry_at")) - time(&scene.root().ts);
        assert!((25..=35).contains(&due), "due {due} s after the first message");
    }
    assert_eq!(scene.thread(), ["one"]);
    scene.sent(["--status", "blocked", "five"]);
    assert_eq!(scene.thread(), ["one", "five"]);
    assert_eq!(steps(&scene), "one → two → three → four → five");
    let expected = ["one sent", "two coalesced", "three coalesced", "four coalesced", "five sent"];
    assert_eq!(became(&scene), expected);
}

/// Whole seconds since the epoch, of a `ts` or of an RFC 3339 time of this age.
fn time(text: &str) -> i64 {
    if let Some((seconds, _)) = text.split_once('.').filter(|_| !text.contains('T')) {
        return seconds.parse().expect("seconds");
    }
    let moment: jiff::Timestamp = text.parse().expect("a time");
    moment.as_second()
}

#[test]
fn after_the_interval_a_routine_message_goes_again() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "1s");
    scene.sent(["--status", "starting", "one"]);
    let mut last = String::new();
    crate::support::wait_for("a message after the interval", || {
        last.push('x');
        let receipt = scene.emit(["--status", "working", &last]).run().success().json();
        (receipt["delivery"] == "sent").then_some(())
    });
    let calls = scene.slack.calls("chat.postMessage");
    assert_eq!(calls.len(), 2);
    assert!(calls[1].at.duration_since(calls[0].at) >= Duration::from_millis(900));
    assert_eq!(scene.thread(), ["one", &*last]);
}

#[test]
fn without_an_interval_every_checkpoint_is_a_message() {
    let scene = Scene::bot();
    for action in ["one", "two", "three"] {
        scene.sent(["--status", "working", "--min-interval", "0", action]);
    }
    assert_eq!(scene.thread(), ["one", "two", "three"]);
}

#[test]
fn what_people_must_know_goes_at_once() {
    side_by_side(["waiting_approval", "blocked", "error", "complete", "cancelled"], |status| {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        scene.emit(["--status", "working", "two"]).run().success();
        scene.sent(["--status", status, "three"]);
        assert_eq!(scene.thread(), ["one", "three"], "{status}");
        assert_eq!(steps(&scene), "one → two → three", "{status}");
        assert_eq!(became(&scene), ["one sent", "two coalesced", "three sent"], "{status}");
    });
}

#[test]
fn a_first_checkpoint_goes_at_once_whatever_its_status() {
    for status in ["starting", "planning", "working", "checkpoint"] {
        let scene = Scene::bot();
        scene.sent(["--status", status, "one"]);
        scene.sent(["-a", "other", "--status", status, "one"]);
        scene.sent(["--new", "--status", status, "two"]);
    }
}

#[test]
fn force_goes_at_once() {
    let scene = Scene::bot();
    for action in ["one", "two", "three"] {
        scene.sent(["--status", "working", "--force", action]);
    }
    assert_eq!(scene.thread(), ["one", "two", "three"]);
}

#[test]
fn a_context_threshold_that_is_crossed_goes_at_once_and_once() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "--tokens", "1000", "one"]);
    for (tokens, action, delivery) in [
        ("139999", "two", "coalesced"),
        ("140000", "three", "sent"),
        ("150000", "four", "coalesced"),
        ("170000", "five", "sent"),
        ("190000", "six", "coalesced"),
    ] {
        let receipt = scene.emit(["--status", "working", "--tokens", tokens, action]).run().success().json();
        assert_eq!(receipt["delivery"], delivery, "{action}");
    }
    assert_eq!(scene.thread(), ["one", "three", "five"]);
}

#[test]
fn an_immediate_message_begins_the_interval_anew() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    let receipt = scene.emit(["--status", "working", "three"]).run().success().json();
    let due = time(text(&receipt, "retry_at")) - time(&scene.slack.thread(&scene.root().ts)[1].ts);
    assert!((25..=35).contains(&due), "due {due} s after the latest message");
}

#[test]
fn every_task_has_its_own_interval() {
    let scene = Scene::bot();
    for agent in ["a", "b"] {
        scene.sent(["-a", agent, "--status", "starting", "one"]);
        let receipt = scene.emit(["-a", agent, "--status", "working", "two"]).run().success().json();
        assert_eq!(receipt["delivery"], "coalesced", "{agent}");
    }
}

#[test]
fn flush_sends_what_the_interval_holds_back() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    for action in ["two", "three"] {
        scene.emit(["--status", "working", action]).run().success();
    }
    scene.flush().stdout_is("1 sent, 0 refused, 0 still waiting\n");
    assert_eq!(scene.thread(), ["one", "three"]);
    assert_eq!(steps(&scene), "one → two → three");
    assert_eq!(last_action(&scene.root().text), "three");
    assert_eq!(became(&scene), ["one sent", "two coalesced", "three sent"]);
}

#[test]
fn messages_arrive_in_the_order_recorded_whatever_failed() {
    let faults = [Fault::Status(503), Fault::ResetAfterStoring, Fault::ErrorName("fatal_error")];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        scene.slack.script("chat.postMessage", vec![fault]);
        for (status, action) in [("blocked", "two"), ("error", "three"), ("complete", "four")] {
            scene.once(fault, ["--status", status, action]).run().success();
        }
        scene.flush();
        assert_eq!(scene.thread(), ["one", "two", "three", "four"], "{fault:?}");
        assert_eq!(last_action(&scene.root().text), "four", "{fault:?}");
    });
}

#[test]
fn many_processes_at_once_make_one_thread_in_order() {
    let scene = Scene::bot();
    let numbers = ["1", "2", "3", "4"];
    let children: Vec<_> =
        numbers.map(|number| scene.emit(["--force", number]).spawn()).into_iter().collect();
    for child in children {
        assert!(child.wait_with_output().expect("its end").status.success());
    }
    scene.flush();
    let recorded: Vec<String> = scene.deliveries("bot").into_iter().map(|(action, _)| action).collect();
    assert_eq!(recorded.len(), numbers.len());
    assert_eq!(scene.thread(), recorded);
    assert_eq!(last_action(&scene.root().text), recorded[3]);
}

#[test]
fn an_outdated_routine_message_is_replaced_and_an_immediate_one_never() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "0").env("AGENT_CHECKPOINT_DEADLINE", "0");
    for (status, action) in [
        ("starting", "one"),
        ("working", "two"),
        ("working", "three"),
        ("blocked", "four"),
        ("working", "five"),
        ("working", "six"),
        ("error", "seven"),
        ("working", "eight"),
        ("working", "nine"),
    ] {
        scene.emit(["--status", status, action]).run().success();
    }
    scene.flush().stdout_is("4 sent, 0 refused, 0 still waiting\n");
    assert_eq!(scene.thread(), ["one", "four", "seven", "nine"]);
    assert_eq!(steps(&scene), "five → six → seven → eight → nine");
    let expected = [
        "one sent",
        "two coalesced",
        "three coalesced",
        "four sent",
        "five coalesced",
        "six coalesced",
        "seven sent",
        "eight coalesced",
        "nine sent",
    ];
    assert_eq!(became(&scene), expected);
}

#[test]
fn an_immediate_message_shows_the_state_of_its_own_time() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_DEADLINE", "0");
    scene.emit(["--status", "starting", "--progress", "10", "one"]).run().success();
    scene.emit(["--status", "error", "--error", "E1", "--progress", "20", "two"]).run().success();
    scene.emit(["--status", "working", "--progress", "30", "three"]).run().success();
    scene.flush();
    let messages = scene.slack.thread(&scene.root().ts);
    let posted: Vec<&String> =
        messages.iter().map(|message| message.edits.first().unwrap_or(&message.text)).collect();
    for (text, progress, error) in
        [(posted[0], "10%", false), (posted[1], "20%", true), (posted[2], "30%", false)]
    {
        assert!(text.contains(progress), "{text}");
        assert_eq!(text.contains("🔴 Error: E1"), error, "{text}");
    }
}

#[test]
fn a_newer_routine_message_takes_the_place_of_one_that_failed() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "0");
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.postMessage", vec![Fault::Status(503)]);
    let words = ["--status", "working", "--deadline", "700ms", "two"];
    assert_eq!(scene.emit(words).run().success().json()["delivery"], "queued");
    scene.sent(["--status", "working", "three"]);
    assert_eq!(scene.thread(), ["one", "three"]);
    assert_eq!(became(&scene), ["one sent", "two coalesced", "three sent"]);
}

#[test]
fn immediate_messages_go_before_routine_ones_of_other_agents() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "0");
    for agent in ["a", "b"] {
        scene.sent(["-a", agent, "--status", "starting", "one"]);
    }
    for (agent, status) in [("a", "working"), ("b", "blocked")] {
        scene.emit(["-a", agent, "--status", status, "--deadline", "0", status]).run().success();
    }
    scene.flush();
    let messages = scene.slack.messages(CHANNEL);
    let replies: Vec<_> = messages.iter().skip(2).map(|message| last_action(&message.text)).collect();
    assert_eq!(replies, ["blocked", "working"]);
}

#[test]
fn a_busy_channel_gets_fewer_and_newer_messages() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "0");
    let agents = ["a", "b"];
    for agent in agents {
        scene.sent(["-a", agent, "--status", "starting", "0"]);
    }
    scene.sent(["-a", "other", "--status", "starting", "0"]);
    for action in ["1", "2", "3", "4"] {
        for agent in agents {
            scene.emit(["-a", agent, "--status", "working", "--deadline", "0", action]).run().success();
        }
    }
    scene.flush();
    for agent in agents {
        let shown = scene.show(agent);
        let thread = scene.slack.thread(text(&shown, "thread_ts"));
        assert_eq!(thread.len(), 2, "{thread:?}");
        assert_eq!(last_action(&thread[0].text), "4", "{agent}");
        assert_eq!(last_action(&thread[thread.len() - 1].text), "4", "{agent}");
    }
}
