//! What `emit` says of every way in which Slack can fail, and that the message arrives once in the end.

use std::time::Duration;

use serde_json::Value;

use crate::fake_slack::Fault;
use crate::scene::{Scene, last_action, ran_out, side_by_side, text};
use crate::support::Run;

/// A failure, the word for it, and what is said of it.
struct Row {
    fault: Fault,
    delivery: &'static str,
    error: &'static str,
    /// How many messages Slack has although the answer was no good.
    stored: usize,
}

fn row(fault: Fault, delivery: &'static str, error: &'static str, stored: usize) -> Row {
    Row { fault, delivery, error, stored }
}

/// Failures that pass by themselves.
fn passing() -> Vec<Row> {
    let lost = "unconfirmed";
    vec![
        row(Fault::Status(500), lost, "gave HTTP status 500", 0),
        row(Fault::Status(502), lost, "gave HTTP status 502", 0),
        row(Fault::Status(503), "queued", "gave HTTP status 503", 0),
        row(Fault::Html(503), "queued", "gave HTTP status 503", 0),
        row(Fault::Html(200), lost, "gave an answer that is not Slack's", 0),
        row(Fault::Garbage, lost, "gave an answer that is not Slack's", 0),
        row(Fault::NoText, lost, "gave an answer that is not Slack's", 0),
        row(Fault::ErrorName("service_unavailable"), "queued", "Slack answered service_unavailable", 0),
        row(Fault::ErrorName("request_timeout"), "queued", "Slack answered request_timeout", 0),
        row(Fault::ErrorName("internal_error"), lost, "Slack answered internal_error", 0),
        row(Fault::ErrorName("fatal_error"), lost, "Slack answered fatal_error", 0),
        row(Fault::ResetBeforeStoring, lost, "connection to 127.0.0.1:", 0),
        row(Fault::StatusAfterStoring(500), lost, "gave HTTP status 500", 1),
        row(Fault::StatusAfterStoring(504), lost, "gave HTTP status 504", 1),
        row(Fault::ResetAfterStoring, lost, "connection to 127.0.0.1:", 1),
        row(Fault::TruncatedJson, lost, "connection to 127.0.0.1:", 1),
        row(Fault::Hang, lost, "did not answer within ", 0),
        row(Fault::HangAfterStoring, lost, "did not answer within ", 1),
        row(Fault::SlowBody, lost, "did not answer within ", 1),
    ]
}

#[test]
fn a_failure_that_passes_is_told_and_the_message_arrives_once() {
    side_by_side([0, 1, 2, 3], |first| {
        for Row { fault, delivery, error, stored } in passing().into_iter().skip(first).step_by(4) {
            let scene = Scene::bot();
            scene.slack.script("chat.postMessage", vec![fault]);
            let output = scene.once(fault, ["--status", "starting", "one"]).run().success();
            let receipt = output.json();
            assert_eq!(receipt["delivery"], delivery, "{fault:?}: {receipt}");
            assert!(text(&receipt, "error").contains(error), "{fault:?}: {receipt}");
            if error.ends_with(" within ") {
                assert!(ran_out(text(&receipt, "error"), error), "{receipt}");
            }
            assert!(!text(&receipt, "retry_at").is_empty(), "{receipt}");
            assert_eq!(receipt["message_ts"], Value::Null, "{receipt}");
            let output = output
                .stderr_has(&format!("recorded, but not in Slack yet ({delivery}): "))
                .stderr_has(error)
                .stderr_has("\nhint: it is sent as soon as that is possible\n");
            assert_eq!(output.stderr.lines().count(), 2, "{output}");

            scene.flush();
            assert_eq!(last_action(&scene.root().text), "one", "{fault:?}");
            // What is there already is not sent again.
            assert_eq!(scene.slack.calls("chat.postMessage").len(), 2 - stored, "{fault:?}");
            let shown = scene.show("bot");
            assert_eq!(shown["thread_ts"], scene.root().ts.as_str(), "{fault:?}");
            assert_eq!(shown["checkpoints"][0]["delivery"], "sent", "{fault:?}");
            assert_eq!(shown["checkpoints"][0]["delivery_error"], Value::Null, "{fault:?}");
        }
    });
}

#[test]
fn strict_callers_are_told_by_the_exit_code() {
    let later = "hint: the next call or agent-checkpoint flush sends it\n";
    let rows = [
        (Fault::Ok, "10s", 0, ""),
        (Fault::Status(503), "700ms", 75, later),
        (Fault::ErrorName("fatal_error"), "700ms", 75, later),
        (Fault::ErrorName("not_in_channel"), "10s", 78, "hint: run agent-checkpoint doctor; once the cause"),
    ];
    side_by_side(rows, |(fault, deadline, code, hint)| {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![fault]);
        let words = ["--status", "starting", "--deadline", deadline, "--strict", "one"];
        scene.emit(words).run().code(code).stderr_has(hint);
    });
}

#[test]
fn a_strict_caller_is_content_with_what_the_interval_holds_back() {
    let scene = Scene::bot();
    scene.sent(["--strict", "one"]);
    let receipt = scene.emit(["--strict", "two"]).run().success().stderr_is("").json();
    assert_eq!(receipt["delivery"], "coalesced");
}

/// What no repetition mends: credentials, destinations, and words that nobody knows.
const REFUSALS: [&str; 40] = [
    "not_authed",
    "invalid_auth",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "missing_scope",
    "no_permission",
    "access_denied",
    "accesslimited",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "two_factor_setup_required",
    "is_bot",
    "app_access_restricted",
    "team_access_not_granted",
    "org_login_required",
    "insecure_request",
    "unknown_method",
    "method_deprecated",
    "feature_disabled",
    "channel_not_found",
    "not_in_channel",
    "is_archived",
    "is_inactive",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
    "restricted_action_non_threadable_channel",
    "restricted_action_thread_locked",
    "cannot_reply_to_message",
    "messages_tab_disabled",
    "posting_to_channel_denied",
    "team_not_found",
    "user_not_found",
    "user_disabled",
    "method_not_supported_for_channel_type",
    "slack_connect_file_link_sharing_blocked",
    "message_limit_exceeded",
    "a_word_of_the_year_2040",
];

#[test]
fn a_refusal_is_told_in_slacks_own_word_and_not_tried_again() {
    let scene = Scene::bot();
    for (number, name) in REFUSALS.into_iter().enumerate() {
        let (agent, channel) = (format!("agent-{number}"), format!("C0REFUSED{number}"));
        scene.slack.script("chat.postMessage", vec![Fault::ErrorName(name)]);
        let output = scene.emit(["-a", &agent, "-c", &channel, "one"]).run().success().stderr_is(&format!(
            "agent-checkpoint: warning: Slack refused the message for good: {name}\n\
             hint: run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected\n"
        ));
        let receipt = output.json();
        assert_eq!((text(&receipt, "delivery"), text(&receipt, "error")), ("rejected", name));
        assert_eq!(receipt["retry_at"], Value::Null, "{receipt}");
    }
    assert_eq!(scene.slack.requests().len(), REFUSALS.len());
    scene.flush().stdout_is("");
    assert_eq!(scene.slack.requests().len(), REFUSALS.len());
}

#[test]
fn what_was_refused_is_sent_once_when_the_cause_is_mended() {
    let scene = Scene::bot();
    scene.slack.set_scopes(&["channels:read"]);
    let reason = "missing_scope (needed: chat:write; provided: channels:read)";
    let output = scene.emit(["--status", "starting", "one"]).run().success().stderr_has(reason);
    assert_eq!(output.json()["error"], reason);
    scene.sandbox.cmd(["tasks"]).run().success().stdout_has("1 refused: missing_scope");

    scene.slack.set_scopes(&["chat:write"]);
    scene.flush();
    assert_eq!(scene.slack.roots().len(), 0);
    for sent in ["1 sent, 0 refused, 0 still waiting\n", ""] {
        scene.sandbox.cmd(["flush", "--rejected"]).run().success().stdout_is(sent);
        assert_eq!(last_action(&scene.root().text), "one");
    }
    assert_eq!(scene.deliveries("bot"), [("one".into(), "sent".into())]);
}

#[test]
fn refused_again_is_said_again() {
    let scene = Scene::bot();
    scene.slack.revoke_token();
    scene.emit(["one"]).run().success().stderr_has("for good: token_revoked");
    let output = scene.sandbox.cmd(["flush", "--rejected"]).run().code(78);
    output
        .stderr_is(
            "agent-checkpoint: Slack refused a message of bot for good: token_revoked\n\
             hint: run agent-checkpoint doctor; once the cause is mended, flush --rejected\n",
        )
        .stdout_is("0 sent, 1 refused, 0 still waiting\n");
}

/// What says that the message is malformed or too large.
const COMPLAINTS: [&str; 17] = [
    "no_text",
    "msg_too_long",
    "msg_blocks_too_long",
    "invalid_blocks",
    "invalid_blocks_format",
    "block_mismatch",
    "invalid_attachments",
    "too_many_attachments",
    "attachment_payload_limit_exceeded",
    "markdown_text_conflict",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "metadata_too_large",
    "metadata_must_be_sent_from_app",
    "invalid_arguments",
    "invalid_arg_name",
    "invalid_array_arg",
];

#[test]
fn a_message_that_slack_finds_malformed_is_sent_as_plain_text() {
    let scene = Scene::bot();
    for (number, name) in COMPLAINTS.into_iter().enumerate() {
        let (agent, channel) = (format!("agent-{number}"), format!("plain-{number}"));
        scene.slack.add_channel(&channel, &format!("C0PLAIN{number:03}"), false, false, true);
        scene.slack.script("chat.postMessage", vec![Fault::ErrorName(name)]);
        scene.sent(["-a", &agent, "-c", &channel, "--status", "error", "--error", "E1", "one"]);
        let messages = scene.slack.messages(&channel);
        assert_eq!(messages.len(), 1, "{name}");
        assert!(
            messages[0].text.ends_with("Last Action: one\nElapsed: 0s\n🔴 Error: E1"),
            "{}",
            messages[0].text
        );
        assert!(messages[0].blocks.is_empty() && messages[0].attachments.is_empty(), "{name}");
    }
}

#[test]
fn a_message_refused_even_as_plain_text_keeps_the_first_reason() {
    let scene = Scene::bot();
    let faults = ["invalid_blocks", "msg_too_long"].map(Fault::ErrorName).to_vec();
    scene.slack.script("chat.postMessage", faults);
    let receipt = scene.emit(["one"]).run().success().json();
    assert_eq!((text(&receipt, "delivery"), text(&receipt, "error")), ("rejected", "invalid_blocks"));
}

#[test]
fn a_card_that_slack_finds_malformed_is_edited_as_plain_text() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.update", vec![Fault::ErrorName("invalid_attachments")]);
    scene.sent(["--status", "blocked", "two"]);
    let card = scene.root();
    assert_eq!(last_action(&card.text), "two");
    assert!(card.blocks.is_empty() && card.attachments.is_empty(), "{card:?}");
}

/// Where Slack is not.
fn nobody_there() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    format!("http://{}/api/", listener.local_addr().expect("its address"))
}

#[test]
fn what_cannot_be_reached_is_queued_and_arrives_later() {
    let gone = nobody_there();
    let scene = Scene::bot();
    for (agent, url, words) in
        [("a", gone.as_str(), "connection refused"), ("b", "https://slack.invalid/api/", "slack.invalid")]
    {
        // Another cache each: one that finds nobody makes the others wait.
        let cache = scene.sandbox.path().join(agent);
        let run = |run: Run<'_>| run.env("AGENT_CHECKPOINT_CACHE", &cache).run();
        let emit = scene.once(Fault::Ok, ["-a", agent, "one"]).env("SLACK_API_URL", url);
        let output = run(emit).success().stderr_has(words);
        assert_eq!(output.json()["delivery"], "queued", "{output}");
        run(scene.sandbox.cmd(["flush"])).success();
    }
    assert_eq!(scene.slack.roots().len(), 2);
}

#[test]
fn a_message_that_others_outage_holds_back_says_so() {
    let scene = Scene::bot();
    scene.sandbox.env("SLACK_API_URL", nobody_there());
    let emit = |agent| scene.emit(["-a", agent, "--deadline", "4s", "one"]).run().success();
    assert!(text(&emit("first").json(), "error").ends_with("connection refused"));
    scene.sandbox.prolong_rests();
    let output = emit("second").stderr_has("not in Slack yet (queued): Slack could not be reached\n");
    assert_eq!(text(&output.json(), "error"), "Slack could not be reached");
}

#[test]
fn the_deadline_is_kept_whatever_slack_does() {
    let faults = [Fault::Hang, Fault::SlowBody, Fault::RateLimited { retry_after: Some(30) }];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.slack.script("*", vec![fault; 9]);
        for (strict, code) in [(None, 0), (Some("--strict"), 75)] {
            let mut words = vec!["emit", "-a", "bot", "-s", "blocked", "--deadline", "500ms", "one"];
            words.extend(strict);
            scene.sandbox.cmd(words).run().code(code).within(Duration::from_secs(8));
        }
    });
}

#[test]
fn a_retry_after_holds_every_agent_and_process_back() {
    let scene = Scene::bot();
    // Far more than the calls take.
    scene.slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(8) }]);
    let first = scene.emit(["-a", "first", "--deadline", "5s", "one"]).run().success().json();
    assert_eq!(text(&first, "error"), "Slack's rate limit is reached (retry after 8 s)");
    for agent in ["second", "third"] {
        let words = ["-a", agent, "-c", "#general", "-s", "blocked", "--deadline", "2s", "one"];
        let receipt = scene.emit(words).run().success().json();
        assert_eq!(receipt["delivery"], "queued", "{receipt}");
        assert_eq!(text(&receipt, "error"), "Slack asked everyone to wait");
        assert!(text(&receipt, "retry_at") >= text(&first, "retry_at"), "{first} {receipt}");
    }
    assert_eq!(scene.slack.requests().len(), 1);
    // Whoever has the time waits for it.
    scene.sent(["-a", "fourth", "--status", "error", "--deadline", "30s", "one"]);
    scene.flush();
    assert_eq!(scene.slack.roots().len(), 4);
}

#[test]
fn a_rate_limit_that_names_no_time_is_waited_for_too() {
    let faults = [
        Fault::RateLimited { retry_after: None },
        Fault::ErrorName("ratelimited"),
        Fault::ErrorName("rate_limited"),
    ];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![fault]);
        let receipt = scene.emit(["--deadline", "900ms", "--strict", "one"]).run().code(75).json();
        assert_eq!(receipt["delivery"], "queued", "{fault:?}");
        scene.flush();
        assert_eq!(last_action(&scene.root().text), "one", "{fault:?}");
        let calls = scene.slack.calls("chat.postMessage");
        assert!(calls[1].at.duration_since(calls[0].at) >= Duration::from_millis(900), "{fault:?}");
    });
}

#[test]
fn a_caller_with_time_tries_again_by_itself() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::Status(503)]);
    scene.sent(["--status", "starting", "one"]);
    assert_eq!(scene.slack.calls("chat.postMessage").len(), 2);
    assert_eq!(scene.slack.roots().len(), 1);
}

#[test]
fn the_next_call_takes_along_what_an_earlier_one_could_not_send() {
    let scene = Scene::bot();
    scene.emit(["-a", "first", "--deadline", "0", "one"]).run().success();
    scene.emit(["-a", "second", "--deadline", "0", "one"]).run().success();
    assert_eq!(scene.slack.requests().len(), 0);
    scene.sent(["-a", "first", "--status", "error", "two"]);
    assert_eq!(scene.deliveries("first"), [("one".into(), "sent".into()), ("two".into(), "sent".into())]);
    assert_eq!(scene.deliveries("second"), [("one".into(), "sent".into())]);
    assert_eq!(scene.slack.roots().len(), 2);
}

#[test]
fn a_call_in_a_hurry_takes_nothing_along() {
    let scene = Scene::bot();
    scene.emit(["-a", "first", "--deadline", "0", "one"]).run().success();
    scene.emit(["-a", "second", "--deadline", "400ms", "one"]).run().success();
    let texts =
        scene.slack.calls("chat.postMessage").into_iter().map(|call| text(&call.args, "text").to_owned());
    assert!(texts.clone().all(|text| text.contains("`second`")), "{:#?}", texts.collect::<Vec<_>>());
}

#[test]
fn nothing_is_lost_while_slack_is_away() {
    let scene = Scene::bot();
    scene.slack.hold();
    for action in ["one", "two", "three"] {
        scene.emit(["--status", "blocked", "--deadline", "700ms", action]).run().success();
    }
    scene.slack.release();
    scene.flush().stdout_is("3 sent, 0 refused, 0 still waiting\n");
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}

#[test]
#[cfg(target_os = "linux")]
fn a_clock_that_was_an_hour_ahead_keeps_nobody_from_slack_once_it_is_right() {
    // What was sent, and what nothing answered.
    side_by_side([Fault::Ok, Fault::ResetBeforeStoring], |fault| {
        let scene = Scene::bot();
        scene.slack.script("chat.postMessage", vec![fault; 2]);
        let ahead = scene.emit(["--status", "starting", "one"]);
        let ahead = ahead.env("LD_PRELOAD", crate::support::faketime()).env("FAKETIME", "+1h");
        ahead.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").run().success();
        scene.sent(["--status", "blocked", "two"]);
        assert_eq!(scene.thread(), ["one", "two"]);
    });
}
