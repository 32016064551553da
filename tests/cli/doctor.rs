//! `doctor`: what it checks, what it says, and how it exits.

use serde_json::{Value, json};

use crate::fake_slack::sockets::APP_TOKEN;
use crate::fake_slack::{FakeSlack, Fault};
use crate::support::{Output, Sandbox};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// The verdict and message of a check.
#[track_caller]
fn check(output: &Output, name: &str) -> (String, String) {
    let report = output.json();
    let found = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().rev().find(|check| check["check"] == name));
    let found = found.unwrap_or_else(|| panic!("no check '{name}' in {report}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    if text("verdict") != "ok" {
        assert!(!text("hint").is_empty(), "a finding without a hint: {found}");
    }
    (text("verdict"), text("message"))
}

#[track_caller]
fn assert_check(output: &Output, name: &str, verdict: &str, words: &str) {
    let (found, message) = check(output, name);
    assert_eq!(found, verdict, "{name}: {message}");
    assert!(message.contains(words), "{name}: {message}");
}

#[test]
fn a_sound_set_up_passes_every_check_and_changes_nothing() {
    let (slack, sandbox) = set_up();
    let output = sandbox.cmd(["doctor", "--json"]).run();
    for name in
        ["settings", "identity", "cache", "outbox", "network", "clock", "credentials", "scopes", "channel"]
    {
        assert_eq!(check(&output, name).0, "ok", "{name}");
    }
    assert_eq!(output.json()["ok"], true);
    output.success().stderr_is("");
    assert!(slack.calls("chat.postMessage").is_empty());
    let text = sandbox.cmd(["doctor"]).run().success().stderr_is("");
    text.stdout_has("ok   channel      #agent-supervisory (C0AGENT000), the bot is a member")
        .lacks(slack.token());
}

#[test]
fn an_app_level_token_is_tried_without_taking_clicks_from_others() {
    let (slack, sandbox) = set_up();
    let doctor = |token: &str| sandbox.cmd(["doctor", "--json"]).env("SLACK_APP_TOKEN", token).run();
    let output = doctor(APP_TOKEN);
    assert_check(&output, "socket", "ok", "127.0.0.1");
    output.success().lacks(APP_TOKEN);
    assert_eq!(slack.sockets_opened(), 0);
    let output = doctor("xapp-other");
    assert_check(&output, "socket", "fail", "Slack refused the app-level token: invalid_auth");
    output.code(78).lacks("xapp-other");
    slack.script("apps.connections.open", vec![Fault::RateLimited { retry_after: Some(7) }]);
    let output = doctor(APP_TOKEN);
    assert_check(&output, "socket", "warn", "retry after 7 s");
    output.success();
    let output = doctor("xoxb-fake-token");
    assert_check(&output, "settings", "fail", "SLACK_APP_TOKEN: the value is a bot token");
    output.code(78);
    let alone = Sandbox::new();
    let output = alone.cmd(["doctor", "--json"]).env("SLACK_APP_TOKEN", APP_TOKEN).run();
    assert_check(&output, "socket", "warn", "no buttons to click");
}

#[test]
fn every_setting_is_shown_with_its_origin_and_no_secret() {
    let (slack, sandbox) = set_up();
    sandbox.write(sandbox.config_path(), "min_interval = \"1m\"\n");
    let env_file = sandbox.write("extra.env", "AGENT_CHECKPOINT_CONTEXT_WARN=60\n");
    let output = sandbox
        .cmd(["doctor", "--json", "--channel", "#general", "--env-file", "extra.env"])
        .env("AGENT_CHECKPOINT_DEADLINE", "5s")
        .run();
    let report = output.json();
    let origin = |name: &str| {
        let settings = report["settings"].as_array().expect("settings");
        let found = settings.iter().find(|setting| setting["setting"] == name).expect("the setting");
        (
            found["value"].as_str().expect("value").to_owned(),
            found["origin"].as_str().expect("origin").to_owned(),
        )
    };
    let path = |path: &std::path::Path| path.display().to_string();
    assert_eq!(origin("channel"), ("#general".into(), "flag".into()));
    assert_eq!(origin("deadline"), ("5s".into(), "environment".into()));
    assert_eq!(origin("context_warn"), ("60".into(), path(&env_file)));
    assert_eq!(origin("min_interval"), ("1m".into(), path(&sandbox.config_path())));
    assert_eq!(origin("context_alert"), ("85".into(), "default".into()));
    assert_eq!(origin("slack_bot_token"), ("(set)".into(), "environment".into()));
    output.lacks(slack.token());
}

#[test]
fn wrong_settings_are_refused_with_78() {
    let (_slack, sandbox) = set_up();
    let output = sandbox.cmd(["doctor", "--json"]).env("AGENT_CHECKPOINT_DEADLINE", "soon").run();
    assert_check(&output, "settings", "fail", "'soon' is not a length of time");
    output.code(78).stderr_is("");
}

#[test]
fn a_refused_token_is_explained() {
    let (slack, sandbox) = set_up();
    slack.revoke_token();
    let output = sandbox.cmd(["doctor", "--json"]).run();
    assert_check(&output, "credentials", "fail", "Slack refused the token");
    output.code(78);
}

#[test]
fn missing_scopes_are_named_with_what_they_are_for() {
    let (slack, sandbox) = set_up();
    slack.set_scopes(&["chat:write", "channels:read"]);
    let output = sandbox.cmd(["doctor"]).run().success();
    output.stdout_has("warn scopes       channels:history is missing: find a message whose answer was lost");
    slack.set_scopes(&["channels:read"]);
    sandbox.cmd(["doctor"]).run().code(78).stdout_has("FAIL scopes       chat:write is missing");
}

#[test]
fn the_channel_is_looked_up() {
    let (_slack, sandbox) = set_up();
    for (channel, verdict, words) in [
        ("#general", "warn", "public and the bot is not a member"),
        ("#nowhere", "fail", "not there, or private"),
        ("#old", "fail", "archived"),
        ("C0AGENT000", "ok", "the bot is a member"),
        ("C0NOWHERE0", "fail", "not there, or private"),
    ] {
        let output = sandbox.cmd(["doctor", "--json", "--channel", channel]).run();
        assert_check(&output, "channel", verdict, words);
        output.code(if verdict == "fail" { 78 } else { 0 });
    }
}

#[test]
fn a_wrong_clock_and_a_dead_network_are_noticed() {
    let (slack, sandbox) = set_up();
    slack.set_date_skew(-7200);
    assert_check(&sandbox.cmd(["doctor", "--json"]).run(), "clock", "warn", "2h 0m ahead");
    drop(slack);
    let output = sandbox.cmd(["doctor", "--json"]).run();
    assert_check(&output, "network", "fail", "connection refused");
    output.code(78);
}

#[test]
fn a_deadline_beyond_all_clocks_is_no_deadline() {
    let (_slack, sandbox) = set_up();
    sandbox.cmd(["doctor", "--post", "--deadline", "1e19"]).run().success();
}

#[test]
fn what_waits_and_what_was_refused_is_told_with_the_way_out() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "a", "-c", "#secret", "one"]).run().success();
    sandbox.cmd(["emit", "-a", "b", "--deadline", "0", "two"]).run().success();
    let output = sandbox.cmd(["doctor", "--json"]).run().code(78);
    let report = output.json();
    let outbox: Vec<&Value> = report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["check"] == "outbox")
        .collect();
    assert_eq!(outbox.len(), 2, "{report}");
    assert_eq!(outbox[0]["verdict"], "warn");
    assert!(outbox[0]["message"].as_str().is_some_and(|text| text.starts_with("1 waiting")), "{report}");
    assert_eq!(outbox[1]["message"], "1 refused by Slack: channel_not_found");
    assert!(outbox[1]["hint"].as_str().is_some_and(|text| text.contains("flush --rejected")), "{report}");
    drop(slack);
}

#[test]
fn post_sends_one_test_message() {
    let (slack, sandbox) = set_up();
    let output = sandbox.cmd(["doctor", "--post", "--json"]).run();
    assert_check(&output, "post", "ok", "a test message is in C0AGENT000");
    output.success();
    assert_eq!(slack.roots().len(), 1);
    sandbox.cmd(["tasks", "--json"]).run().success().stdout_is("[]\n");

    let output = sandbox.cmd(["doctor", "--post", "--json", "-c", "#secret"]).run();
    assert_check(&output, "post", "fail", "channel_not_found");
    output.code(78);
}

#[test]
fn post_waits_for_its_turn_within_slacks_limits() {
    let (slack, sandbox) = set_up();
    for agent in ["a", "b", "c"] {
        sandbox.cmd(["emit", "-a", agent, "Hello"]).run().success().silent();
    }
    for channel in ["#agent-supervisory", "C0AGENT000"] {
        let output = sandbox.cmd(["doctor", "--post", "--json", "-c", channel]).run();
        assert_check(&output, "post", "ok", "a test message is in C0AGENT000");
        output.success();
    }
    assert_eq!((slack.roots().len(), slack.rate_violations().len()), (5, 0));
}

#[test]
fn post_obeys_a_pause_that_slack_asked_for_and_tells_of_one_that_is_too_long() {
    let (slack, sandbox) = set_up();
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(1) }]);
    assert_check(
        &sandbox.cmd(["doctor", "--post", "--json"]).run().success(),
        "post",
        "ok",
        "a test message",
    );
    assert_eq!((slack.calls("chat.postMessage").len(), slack.rate_violations().len()), (2, 0));

    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(600) }]);
    for calls in [3, 3] {
        let output = sandbox.cmd(["doctor", "--post", "--json"]).run().code(78);
        assert_check(&output, "post", "fail", "Slack's limits leave no room for a message before 20");
        assert_eq!(slack.calls("chat.postMessage").len(), calls);
    }
    // Everyone else waits as well.
    let output = sandbox.cmd(["emit", "-a", "a", "--json", "Hello"]).run().success();
    assert_eq!(
        (output.json()["delivery"].as_str(), slack.calls("chat.postMessage").len()),
        (Some("queued"), 3)
    );
}

#[test]
fn a_webhook_is_tried_by_posting_only() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    let output = sandbox.cmd(["doctor", "--json"]).run().success();
    assert_check(&output, "webhook", "warn", "messages stand alone");
    assert_check(&output, "answers", "warn", "agent-checkpoint answer alone");
    output.lacks("posts to the channel that it was made for");
    let output = sandbox.cmd(["doctor", "--json"]).env("SLACK_CHANNEL", "#agents").run().success();
    assert_check(&output, "channel", "warn", "#agents is not used: a webhook posts to the channel");
    assert!(slack.requests().is_empty());
    let output = sandbox.cmd(["doctor", "--json", "--post"]).run().success();
    assert_check(&output, "post", "ok", "the webhook's channel");
    output.lacks("secret");
}

#[test]
fn it_warns_while_anybody_may_answer_what_is_asked() {
    let (_slack, sandbox) = set_up();
    let doctor = |approvers: &str| {
        sandbox.cmd(["doctor", "--json"]).env("AGENT_CHECKPOINT_APPROVERS", approvers).run()
    };
    assert_check(&doctor(""), "approvers", "warn", "anybody in the channel may answer");
    assert_check(&doctor("U0HUMAN000"), "approvers", "ok", "one person");
    assert_check(&doctor("U0HUMAN000, <@U0COLLEAG0>"), "approvers", "ok", "2 people");
    assert_check(&doctor("@maria"), "settings", "fail", "'@maria' is not the id of a Slack user");
}

#[test]
fn without_a_destination_it_says_what_to_set() {
    let sandbox = Sandbox::new();
    let output = sandbox.cmd(["doctor", "--json"]).run().success();
    assert_check(&output, "destination", "warn", "recorded and printed");
    sandbox.cmd(["doctor", "--post"]).run().code(78);
}

#[test]
fn the_manifest_asks_for_what_is_used_and_no_more() {
    let sandbox = Sandbox::new();
    let manifest = sandbox.cmd(["doctor", "--manifest"]).run().success().stderr_is("").json();
    let scopes = manifest["oauth_config"]["scopes"]["bot"].as_array().expect("scopes").clone();
    let slack = FakeSlack::start();
    sandbox.slack(&slack);
    let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
    slack.set_scopes(&scopes);
    assert_check(&sandbox.cmd(["doctor", "--json"]).run(), "scopes", "ok", "");
    for scope in &scopes {
        let rest: Vec<&str> = scopes.iter().copied().filter(|other| other != scope).collect();
        slack.set_scopes(&rest);
        sandbox.cmd(["doctor"]).run().stdout_has(&format!("{scope} is missing"));
    }
}

#[test]
fn the_manifests_app_hears_clicks_commands_and_mentions_by_a_socket_or_at_a_public_address() {
    let sandbox = Sandbox::new();
    let doctor = |words: &[&str]| sandbox.cmd([&["doctor", "--manifest"], words].concat()).run();
    let socket = doctor(&[]).success().json();
    let public = doctor(&["--url", "https://agents.example.com/hooks/"]).success().json();
    let heard = |manifest: &Value| {
        let settings = &manifest["settings"];
        assert_eq!(manifest["features"]["slash_commands"][0]["command"], "/agent-task");
        assert_eq!(settings["event_subscriptions"]["bot_events"], json!(["app_mention"]));
        assert_eq!(settings["interactivity"]["is_enabled"], true);
        let urls = [
            &manifest["features"]["slash_commands"][0]["url"],
            &settings["event_subscriptions"]["request_url"],
            &settings["interactivity"]["request_url"],
        ];
        (settings["socket_mode_enabled"].clone(), urls.map(|url| url.as_str().map(str::to_owned)))
    };
    assert_eq!(heard(&socket), (json!(true), [None, None, None]));
    let at = |path: &str| Some(format!("https://agents.example.com/hooks/slack/{path}"));
    assert_eq!(heard(&public), (json!(false), [at("commands"), at("events"), at("interactions")]));
    assert_eq!(public["oauth_config"], socket["oauth_config"]);
    let wrong = doctor(&["--url", "http://agents.example.com"]).code(64);
    wrong.stderr_has("'http://agents.example.com'").stderr_has("https://agents.example.com");
    let unreachable = doctor(&["--url", "https://127.0.0.1:3001"]).code(64).stdout_is("");
    unreachable.stderr_has("cannot reach from the internet").stderr_has("https://agents.example.com");
    sandbox.cmd(["doctor", "--url", "https://agents.example.com"]).run().code(64);
    // It says what it does not do: nothing is checked or sent beside a manifest.
    doctor(&["--post"]).code(64).stdout_is("").stderr_has("--manifest").stderr_has("--post");
    doctor(&["--channel", "#agents"]).code(64).stdout_is("").stderr_has("--channel");
}

#[test]
fn a_token_is_accepted_although_nobody_says_whose_it_is() {
    let (slack, sandbox) = (FakeSlack::start(), Sandbox::new());
    sandbox.slack(&slack);
    slack.script("auth.test", vec![Fault::Answer(r#"{"ok":true}"#)]);
    sandbox.cmd(["doctor"]).run().stdout_has("the token is accepted").lacks(" in \n");
}

#[cfg(not(feature = "postgres"))]
#[test]
fn a_program_without_postgres_says_that_the_database_is_not_used() {
    let sandbox = Sandbox::new();
    let url = "postgres://ana:plain-password-words@db.example.com/audit";
    let output = sandbox.cmd(["doctor", "--json"]).env("DATABASE_URL", url).run().success();
    assert_check(&output, "database", "warn", "it is not used: this program was built without Postgres");
    output.lacks("plain-password-words");
}
