//! A lost answer is not a failure to send: the message is looked for before it is sent again.

use rusqlite::Connection;
use serde_json::Value;

use crate::fake_slack::{CHANNEL, Fault, HUMAN};
use crate::scene::{Scene, last_action, side_by_side, text};
use crate::support::wait_for;

/// Every way to lose the answer of a call that took effect.
const LOST: [Fault; 5] = [
    Fault::ResetAfterStoring,
    Fault::HangAfterStoring,
    Fault::TruncatedJson,
    Fault::SlowBody,
    Fault::StatusAfterStoring(502),
];

/// How often a method was called.
fn count(scene: &Scene, method: &str) -> usize {
    scene.slack.calls(method).len()
}

#[test]
fn a_first_message_whose_answer_was_lost_is_found_in_the_channel() {
    side_by_side(LOST, |fault| {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![fault]);
        let words = ["--status", "starting", "one"];
        let receipt = scene.once(fault, words).run().success().json();
        assert_eq!(receipt["delivery"], "unconfirmed", "{fault:?}");
        let root = scene.root();

        scene.flush();
        assert_eq!(count(&scene, "chat.postMessage"), 1, "{fault:?}");
        let shown = scene.show("bot");
        assert_eq!(text(&shown["checkpoints"][0], "message_ts"), root.ts);
        assert_eq!((text(&shown, "thread_ts"), text(&shown, "card_ts")), (&*root.ts, &*root.ts));

        // The task goes on as if nothing had been lost.
        let receipt = scene.sent(["--status", "blocked", "two"]);
        assert_eq!((text(&receipt, "thread_ts"), text(&receipt, "channel")), (&*root.ts, CHANNEL));
        assert_eq!(scene.thread(), ["one", "two"]);
        assert_eq!(last_action(&scene.root().text), "two");
    });
}

#[test]
fn a_reply_whose_answer_was_lost_is_found_in_its_thread() {
    side_by_side(LOST, |fault| {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        let root = scene.root().ts;
        scene.slack.script("chat.postMessage", vec![fault]);
        let receipt = scene.once(fault, ["--status", "blocked", "two"]).run().success().json();
        assert_eq!(receipt["delivery"], "unconfirmed", "{fault:?}");
        assert_eq!(receipt["thread_ts"], root.as_str(), "{fault:?}");

        scene.flush();
        assert_eq!(count(&scene, "chat.postMessage"), 2, "{fault:?}");
        assert_eq!(scene.slack.calls("conversations.replies")[0].args["ts"], root.as_str());
        assert_eq!(scene.thread(), ["one", "two"], "{fault:?}");
        assert_eq!(last_action(&scene.root().text), "two", "{fault:?}");
        assert_eq!(scene.deliveries("bot")[1], ("two".into(), "sent".into()));
    });
}

#[test]
fn what_may_be_in_slack_is_told_although_the_cache_could_not_be() {
    let rows = [
        (Fault::Ok, "sent", ""),
        (Fault::ResetAfterStoring, "unconfirmed", "connection to 127.0.0.1:"),
        (Fault::Status(503), "queued", "gave HTTP status 503"),
    ];
    side_by_side(rows, |(fault, delivery, error)| {
        let scene = Scene::bot();
        scene.slack.hold();
        scene.slack.script("chat.postMessage", vec![fault]);
        let output = std::thread::scope(|scope| {
            let run = scene.emit(["--deadline", "5s", "--status", "starting", "one"]);
            let call = scope.spawn(|| run.run());
            scene.slack.wait_requests(1);
            let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
            cache.execute_batch("BEGIN IMMEDIATE").expect("a lock");
            scene.slack.release();
            call.join().expect("an end")
        });
        let output = output.success().stderr_has("could not write to cache").stderr_has(error);
        let receipt = output.json();
        assert_eq!(text(&receipt, "delivery"), delivery, "{output}");
        assert!(text(&receipt, "error").contains(error), "{output}");
        scene.flush();
        assert_eq!(last_action(&scene.root().text), "one", "{fault:?}");
        assert_eq!(scene.deliveries("bot"), [("one".into(), "sent".into())], "{fault:?}");
    });
}

#[test]
fn the_last_word_of_a_command_is_unconfirmed_when_nobody_answers_until_the_deadline() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::Ok, Fault::HangAfterStoring]);
    let words = ["run", "-a", "bot", "--deadline", "3s", "--json", "--", "sh", "-c", "read line; exit 5"];
    let mut child = scene.sandbox.cmd(words).spawn();
    let started = || {
        let found = scene.sandbox.cmd(["show", "--json", "bot"]).run();
        (found.code == Some(0) && found.json()["checkpoints"][0]["delivery"] == "sent").then_some(())
    };
    wait_for("the start", started);
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("an end");
    let receipt: Value = serde_json::from_slice(&output.stdout).expect("a receipt");
    assert_eq!(text(&receipt, "delivery"), "unconfirmed", "{receipt}");
    assert!(text(&receipt, "error").contains("answer"), "{receipt}");
    assert_eq!(scene.thread().len(), 2);
}

#[test]
fn the_same_call_looks_before_it_tries_again() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::ResetAfterStoring]);
    let receipt = scene.sent(["--status", "starting", "one"]);
    assert_eq!(receipt["message_ts"], scene.root().ts.as_str());
    assert_eq!(count(&scene, "chat.postMessage"), 1);
}

#[test]
fn the_next_call_looks_before_it_tries_again() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::ResetAfterStoring]);
    scene.once(Fault::ResetAfterStoring, ["--status", "starting", "one"]).run().success();
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!(scene.thread(), ["one", "two"]);
}

#[test]
fn what_did_not_arrive_is_sent_after_it_was_looked_for() {
    let faults = [Fault::ResetBeforeStoring, Fault::Garbage, Fault::ErrorName("fatal_error")];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.slack.say(CHANNEL, None, HUMAN, "one");
        scene.slack.script("chat.postMessage", vec![fault]);
        scene.once(fault, ["--status", "starting", "one"]).run().success();
        scene.flush();
        assert_eq!(count(&scene, "conversations.history"), 1, "{fault:?}");
        assert_eq!(count(&scene, "chat.postMessage"), 2, "{fault:?}");
        assert_eq!(scene.slack.roots().len(), 2, "{fault:?}");
        assert_eq!(scene.deliveries("bot"), [("one".into(), "sent".into())]);
    });
}

#[test]
fn a_message_is_found_behind_a_page_of_others() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::ResetAfterStoring]);
    scene.once(Fault::ResetAfterStoring, ["--status", "starting", "one"]).run().success();
    for number in 0..150 {
        scene.slack.say(CHANNEL, None, HUMAN, &format!("small talk {number}"));
    }
    scene.flush();
    assert_eq!(count(&scene, "conversations.history"), 2);
    assert_eq!(count(&scene, "chat.postMessage"), 1);
    // What one page may hold is always said: Slack is stricter with those who do not.
    assert!(scene.slack.calls("conversations.history").iter().all(|call| call.args["limit"] == "100"));
}

#[test]
fn where_nothing_can_be_read_a_duplicate_is_possible_and_a_loss_is_not() {
    // (the scopes, the channel as the caller names it)
    let rows = [
        (vec!["chat:write"], CHANNEL),
        (vec!["chat:write"], "#agent-supervisory"),
        (vec!["chat:write", "channels:read", "groups:read"], "#agent-supervisory"),
        (vec!["chat:write", "channels:history", "groups:history"], "#agent-supervisory"),
    ];
    side_by_side(rows, |(scopes, channel)| {
        for fault in [Fault::ResetAfterStoring, Fault::ResetBeforeStoring] {
            let scene = Scene::bot();
            scene.slack.set_scopes(&scopes);
            scene.slack.script("chat.postMessage", vec![fault]);
            let words = ["-c", channel, "--status", "starting", "one"];
            scene.once(fault, words).run().success().stderr_has("(unconfirmed)");
            scene.flush();
            assert_eq!(count(&scene, "chat.postMessage"), 2, "{scopes:?}");
            assert_eq!(scene.deliveries("bot"), [("one".into(), "sent".into())]);
            // From here on there is one thread.
            let receipt = scene.sent(["--status", "blocked", "two"]);
            let newest = scene.slack.roots().pop().expect("a message");
            assert_eq!(receipt["thread_ts"], newest.ts.as_str());
        }
    });
}

#[test]
fn a_look_up_that_fails_is_tried_again() {
    let faults = [
        Fault::Status(503),
        Fault::RateLimited { retry_after: Some(1) },
        Fault::ResetBeforeStoring,
        Fault::ErrorName("internal_error"),
        Fault::ErrorName("service_unavailable"),
    ];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![Fault::ResetAfterStoring]);
        scene.slack.script("conversations.history", vec![fault]);
        scene.once(Fault::ResetAfterStoring, ["--status", "starting", "one"]).run().success();
        scene.flush();
        assert_eq!(count(&scene, "conversations.history"), 2, "{fault:?}");
        assert_eq!(count(&scene, "chat.postMessage"), 1, "{fault:?}");
        assert_eq!(scene.root().ts, text(&scene.show("bot"), "thread_ts"));
    });
}

#[test]
fn a_retry_after_on_looking_up_holds_every_look_up_back() {
    let scene = Scene::bot();
    for agent in ["a", "b", "c"] {
        scene.slack.script("chat.postMessage", vec![Fault::ErrorName("fatal_error")]);
        let words = ["-a", agent, "--deadline", "900ms", "one"];
        assert_eq!(scene.emit(words).run().success().json()["delivery"], "unconfirmed");
    }
    scene.slack.script("conversations.history", vec![Fault::RateLimited { retry_after: Some(2) }]);
    scene.flush().stdout_is("3 sent, 0 refused, 0 still waiting\n");
    assert_eq!(count(&scene, "conversations.history"), 4);
    assert_eq!(scene.slack.roots().len(), 3);
}

#[test]
fn a_call_killed_while_it_sent_may_have_sent() {
    for (fault, posts) in [(Fault::HangAfterStoring, 1), (Fault::Hang, 2)] {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![fault]);
        let mut child = scene.emit(["--status", "starting", "one"]).spawn();
        scene.slack.wait_requests(1);
        child.kill().expect("a running process");
        child.wait().expect("its end");
        scene.slack.release();

        // Its lease ends with it: nobody waits for a dead process.
        scene.flush().stdout_is("1 sent, 0 refused, 0 still waiting\n");
        assert_eq!(count(&scene, "conversations.history"), 1, "{fault:?}");
        assert_eq!(count(&scene, "chat.postMessage"), posts, "{fault:?}");
        assert_eq!(last_action(&scene.root().text), "one", "{fault:?}");
        assert_eq!(scene.deliveries("bot"), [("one".into(), "sent".into())]);
    }
}

#[test]
fn a_reply_of_a_killed_call_is_looked_for_too() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.postMessage", vec![Fault::HangAfterStoring]);
    let before = scene.slack.requests().len();
    let mut child = scene.emit(["--status", "blocked", "two"]).spawn();
    scene.slack.wait_requests(before + 1);
    child.kill().expect("a running process");
    child.wait().expect("its end");
    scene.slack.release();
    scene.sent(["--status", "error", "three"]);
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}

#[test]
fn a_message_whose_answer_was_lost_keeps_its_place() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.postMessage", vec![Fault::ResetAfterStoring]);
    for action in ["two", "three"] {
        let words = ["--status", "blocked", action];
        scene.once(Fault::ResetAfterStoring, words).run().success();
    }
    scene.flush();
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    let waiting = &scene.show("bot")["waiting"];
    assert_eq!(*waiting, Value::Null);
}

#[test]
fn a_card_edit_whose_answer_was_lost_is_made_again() {
    for fault in [Fault::ResetAfterStoring, Fault::ResetBeforeStoring, Fault::HangAfterStoring] {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        scene.slack.script("chat.update", vec![fault]);
        let words = ["--status", "blocked", "two"];
        let receipt = scene.once(fault, words).run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "sent", "{fault:?}");
        scene.flush();
        assert_eq!(last_action(&scene.root().text), "two", "{fault:?}");
        assert_eq!(scene.thread(), ["one", "two"], "{fault:?}");
    }
}

#[test]
fn a_card_posted_anew_whose_answer_was_lost_is_found() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    let thread = scene.root().ts;
    scene.slack.script("chat.update", vec![Fault::ErrorName("message_not_found")]);
    scene.slack.script("chat.postMessage", vec![Fault::Ok, Fault::ResetAfterStoring]);
    scene.sent(["--status", "blocked", "two"]);
    scene.flush();
    assert_eq!(scene.thread(), ["one", "two", "two"]);
    let card = text(&scene.show("bot"), "card_ts").to_owned();
    assert_eq!(scene.slack.thread(&thread)[2].ts, card);
}

#[test]
fn a_message_that_stands_nobody_knows_where_is_looked_for() {
    let bodies = [
        r#"{"ok":true}"#,
        r#"{"ok":true,"channel":"C0AGENTS00"}"#,
        r#"{"ok":true,"channel":"C0AGENTS00","ts":""}"#,
        r#"{"ok":true,"ts":"1.2"}"#,
        r#"{"ok":true,"channel":{"id":"C0AGENTS00"},"ts":"1.2"}"#,
    ];
    side_by_side(bodies, |body| {
        let scene = Scene::bot();
        let fault = Fault::Answer(body);
        scene.slack.script("chat.postMessage", vec![fault]);
        let output = scene.once(fault, ["--status", "starting", "one"]).run().success();
        assert_eq!(output.json()["delivery"], "unconfirmed", "{output}");
        output.stderr_has("took the message, but did not say where it stands");
        scene.flush();
        assert_eq!(text(&scene.show("bot"), "thread_ts"), scene.root().ts, "{body}");
        scene.sent(["--status", "blocked", "two"]);
        assert_eq!(scene.thread(), ["one", "two"], "{body}");
    });
}

#[test]
fn what_takes_messages_without_being_slack_gets_no_endless_copies() {
    let scene = Scene::bot();
    scene.slack.set_scopes(&["chat:write"]);
    scene.slack.script("chat.postMessage", vec![Fault::Answer(r#"{"ok":true}"#); 4]);
    let output = scene.emit(["--status", "starting", "one"]).run().success();
    assert_eq!(output.json()["delivery"], "rejected", "{output}");
    output.stderr_has("again and again; the message may have arrived\n");
    scene.flush();
    assert_eq!(count(&scene, "chat.postMessage"), 3);
}
