//! Webhook mode: no threads and no card, and all else as with a bot token.

use serde_json::Value;

use crate::fake_slack::{Author, CHANNEL, Fault, HUMAN};
use crate::scene::{Scene, last_action, ran_out, side_by_side, text};

/// The last actions of the webhook's messages.
fn actions(scene: &Scene) -> Vec<String> {
    scene.slack.messages(CHANNEL).iter().map(|message| last_action(&message.text)).collect()
}

#[test]
fn messages_stand_alone_and_nothing_is_edited() {
    let scene = Scene::webhook();
    for (status, action) in [("starting", "one"), ("blocked", "two"), ("complete", "three")] {
        let receipt = scene.sent(["--status", status, action]);
        for field in ["thread_ts", "message_ts", "retry_at", "error"] {
            assert_eq!(receipt[field], Value::Null, "{field}: {receipt}");
        }
    }
    let messages = scene.slack.roots();
    assert_eq!(actions(&scene), ["one", "two", "three"]);
    assert!(messages.iter().all(|message| message.author == Author::Webhook && message.edits.is_empty()));
    assert!(messages.iter().all(|message| !message.attachments.is_empty() && message.metadata.is_some()));
    let calls = scene.slack.requests();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(call.name(), crate::fake_slack::WEBHOOK);
        assert_eq!(call.header("authorization"), None);
        assert_eq!(call.header("content-type"), Some("application/json; charset=utf-8"));
    }
}

#[test]
fn a_thread_that_is_given_is_used() {
    let scene = Scene::webhook();
    let ts = scene.slack.say(CHANNEL, None, HUMAN, "Please deploy");
    scene.sandbox.env("AGENT_CHECKPOINT_THREAD", format!("{CHANNEL}:{ts}"));
    for (status, action) in [("starting", "one"), ("blocked", "two")] {
        assert_eq!(text(&scene.sent(["--status", status, action]), "thread_ts"), ts);
    }
    let replies: Vec<_> = scene.slack.thread(&ts).iter().skip(1).map(|one| last_action(&one.text)).collect();
    assert_eq!(replies, ["one", "two"]);
}

#[test]
fn the_bot_token_wins_and_nothing_is_posted_twice() {
    let scene = Scene::bot();
    scene.sandbox.webhook(&scene.slack);
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!(scene.thread(), ["one", "two"]);
    assert!(scene.slack.calls("webhook").is_empty());

    // Nor does the webhook step in for a token that Slack refuses, or one that cannot be read.
    scene.slack.revoke_token();
    let receipt = scene.emit(["--status", "error", "three"]).run().success().json();
    assert_eq!(receipt["delivery"], "rejected");
    let missing = scene.emit(["--status", "error", "four"]).env("SLACK_BOT_TOKEN", "file:/nowhere");
    assert_eq!(missing.run().success().json()["delivery"], "queued");
    assert!(scene.slack.calls("webhook").is_empty());
}

#[test]
fn a_task_that_a_token_began_goes_on_in_its_thread_with_one_message_each() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    scene.sandbox.webhook(&scene.slack).env_remove("SLACK_BOT_TOKEN");
    scene.sent(["--status", "error", "three"]);
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    scene.flush().silent();
    // A webhook edits nothing; the next message by the token does.
    assert_eq!(last_action(&scene.root().text), "two");
    scene.sandbox.slack(&scene.slack).env_remove("SLACK_WEBHOOK_URL");
    scene.sent(["--status", "blocked", "four"]);
    assert_eq!(last_action(&scene.root().text), "four");
}

#[test]
fn the_interval_holds_back_as_with_a_bot_token() {
    let scene = Scene::webhook();
    scene.sent(["--status", "starting", "one"]);
    for action in ["two", "three"] {
        let receipt = scene.emit(["--status", "working", action]).run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "coalesced");
    }
    scene.sent(["--status", "blocked", "four"]);
    assert_eq!(actions(&scene), ["one", "four"]);
    let newest = scene.slack.roots().pop().expect("a message");
    assert!(newest.text.contains("Steps: one → two → three → four"), "{}", newest.text);
}

/// A failure, the word for it, and what is said of it.
struct Row(Fault, &'static str, &'static str);

#[test]
fn every_failure_is_told_and_what_may_pass_is_sent_later() {
    let lost = "unconfirmed";
    let rows = [
        Row(Fault::Status(500), lost, "gave HTTP status 500"),
        Row(Fault::Status(503), "queued", "gave HTTP status 503"),
        Row(Fault::Html(502), lost, "gave HTTP status 502"),
        Row(Fault::ErrorName("rollup_error"), lost, "gave HTTP status 500"),
        Row(Fault::RateLimited { retry_after: Some(1) }, "queued", "(retry after 1 s)"),
        Row(Fault::RateLimited { retry_after: None }, "queued", "Slack's rate limit is reached"),
        Row(Fault::Garbage, lost, "gave an answer that is not Slack's"),
        Row(Fault::Html(200), lost, "gave an answer that is not Slack's"),
        Row(Fault::ResetBeforeStoring, lost, "connection to 127.0.0.1:"),
        Row(Fault::Hang, lost, "did not answer within "),
    ];
    side_by_side(rows, |Row(fault, delivery, error)| {
        let scene = Scene::webhook();
        scene.sent(["--status", "starting", "one"]);
        scene.slack.script("webhook", vec![fault]);
        // Nothing urgent: nobody waits for what Slack asks to wait for.
        let run = scene.once(fault, ["--status", "working", "--min-interval", "0", "two"]);
        let output = run.run().success().stderr_has(error).lacks("B000");
        let receipt = output.json();
        assert_eq!(receipt["delivery"], delivery, "{fault:?}");
        if error.ends_with(" within ") {
            assert!(ran_out(text(&receipt, "error"), error), "{receipt}");
        }
        scene.flush();
        assert_eq!(actions(&scene), ["one", "two"], "{fault:?}");
        let sent = ["one", "two"].map(|action| (action.to_owned(), "sent".to_owned()));
        assert_eq!(scene.deliveries("bot"), sent, "{fault:?}");
    });
}

#[test]
fn a_lost_answer_may_make_a_duplicate_and_never_a_loss() {
    for fault in [Fault::ResetAfterStoring, Fault::TruncatedJson] {
        let scene = Scene::webhook();
        scene.slack.script("webhook", vec![fault]);
        let run = scene.once(fault, ["--status", "starting", "one"]);
        assert_eq!(run.run().success().json()["delivery"], "unconfirmed", "{fault:?}");
        scene.flush();
        assert_eq!(actions(&scene), ["one", "one"], "{fault:?}");
        assert_eq!(scene.slack.calls("webhook").len(), scene.slack.requests().len());
    }
}

#[test]
fn what_answers_otherwise_than_slack_gets_no_endless_copies() {
    side_by_side(["", "accepted", r#"{"success":true}"#], |body| {
        let scene = Scene::webhook();
        scene.slack.script("webhook", vec![Fault::Answer(body); 4]);
        let output = scene.emit(["--status", "starting", "one"]).run().success();
        assert_eq!(output.json()["delivery"], "rejected", "{output}");
        output.stderr_has(
            "gave an answer that is not Slack's, again and again; the message may have arrived\n",
        );
        scene.flush();
        assert_eq!(scene.slack.calls("webhook").len(), 3, "{body}");
    });
}

#[test]
fn a_refusal_is_told_in_slacks_own_word() {
    let names = [
        "action_prohibited",
        "posting_to_general_channel_denied",
        "invalid_token",
        "channel_not_found",
        "no_service",
        "no_service_id",
        "no_team",
        "team_disabled",
        "no_active_hooks",
        "channel_is_archived",
        "user_not_found",
    ];
    side_by_side(names, |name| {
        let scene = Scene::webhook();
        scene.slack.script("webhook", vec![Fault::ErrorName(name)]);
        let output = scene.emit(["--strict", "one"]).run().code(78).stderr_is(&format!(
            "agent-checkpoint: warning: Slack refused the message for good: {name}\n\
             hint: run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected\n"
        ));
        assert_eq!(output.json()["delivery"], "rejected");
        scene.flush();
        assert_eq!(scene.slack.requests().len(), 1, "{name}");
        scene.sandbox.cmd(["flush", "--rejected"]).run().success();
        assert_eq!(actions(&scene), ["one"], "{name}");
    });
}

#[test]
fn a_url_that_leads_elsewhere_is_told() {
    for fault in [Fault::Html(404), Fault::Html(410), Fault::Status(302)] {
        let scene = Scene::webhook();
        scene.slack.script("webhook", vec![fault]);
        let output = scene.emit(["one"]).run().success().stderr_has(": check SLACK_WEBHOOK_URL\n");
        assert_eq!(output.json()["delivery"], "rejected", "{fault:?}");
    }
}

#[test]
fn a_webhook_that_was_removed_is_told_as_slack_tells_it() {
    let scene = Scene::webhook();
    scene.slack.revoke_webhook();
    let receipt = scene.emit(["one"]).run().success().json();
    assert_eq!((text(&receipt, "delivery"), text(&receipt, "error")), ("rejected", "no_active_hooks"));

    let wrong = scene.slack.webhook_url().replace("secret", "guess");
    let receipt = scene.emit(["-a", "b", "one"]).env("SLACK_WEBHOOK_URL", wrong).run().success().json();
    assert_eq!((text(&receipt, "delivery"), text(&receipt, "error")), ("rejected", "invalid_token"));
}

#[test]
fn a_message_that_slack_finds_malformed_is_sent_as_plain_text() {
    for name in [
        "invalid_payload",
        "no_text",
        "too_many_attachments",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_attachments",
    ] {
        let scene = Scene::webhook();
        scene.slack.script("webhook", vec![Fault::ErrorName(name)]);
        scene.sent(["one"]);
        let message = scene.root();
        assert_eq!(last_action(&message.text), "one", "{name}");
        assert!(message.blocks.is_empty() && message.attachments.is_empty(), "{name}");
    }
}

#[test]
fn order_and_limits_are_kept_as_with_a_bot_token() {
    let scene = Scene::webhook();
    for action in ["one", "two", "three", "four", "five"] {
        scene.emit(["--status", "blocked", "--deadline", "0", action]).run().success();
    }
    scene.flush().stdout_is("5 sent, 0 refused, 0 still waiting\n");
    assert_eq!(actions(&scene), ["one", "two", "three", "four", "five"]);
}

#[test]
fn the_limit_is_that_of_the_webhooks_channel_whatever_the_tasks_say() {
    let scene = Scene::webhook();
    // More than may come at once; the scene looks for calls that came too early.
    for channel in ["#a", "#b", "#c", "#d", "#e", "#f"] {
        scene.emit(["-a", channel, "-c", channel, "--deadline", "0", "Hello"]).run().success();
    }
    scene.flush().stdout_is("6 sent, 0 refused, 0 still waiting\n");
}

#[test]
fn a_retry_after_holds_every_agent_back() {
    let scene = Scene::webhook();
    scene.slack.script("webhook", vec![Fault::RateLimited { retry_after: Some(8) }]);
    for agent in ["first", "second", "third"] {
        // Time enough for an answer, and not enough to wait.
        let words = ["-a", agent, "--deadline", "3s", "one"];
        assert_eq!(scene.emit(words).run().success().json()["delivery"], "queued");
    }
    assert_eq!(scene.slack.requests().len(), 1);
    scene.flush();
    assert_eq!(actions(&scene).len(), 3);
}

#[test]
fn a_workflow_trigger_is_no_webhook() {
    let scene = Scene::webhook();
    let url = "https://hooks.slack.com/triggers/T000/123/secret";
    let output = scene.emit(["--strict", "one"]).env("SLACK_WEBHOOK_URL", url).run().code(78);
    assert_eq!(output.json()["delivery"], "queued");
    output.stderr_has("is a Workflow Builder trigger").lacks("secret");
    scene.flush();
    assert_eq!(actions(&scene), ["one"]);
}
