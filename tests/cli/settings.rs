//! Where settings come from, and which of several wins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::fake_slack::{Author, FakeSlack, TOKEN};
use crate::support::{Run, Sandbox};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

#[track_caller]
fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode");
}

/// A setting, its value without any source, the name each source knows it by, and how a dry run shows it.
struct Layered {
    default: &'static str,
    values: [&'static str; 4],
    file: &'static str,
    env: &'static str,
    flag: &'static str,
    shown: fn(&Value) -> String,
}

fn field(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_default().to_owned()
}

/// What stands behind a label in the message.
fn line(json: &Value, label: &str) -> String {
    let text = json["message"]["text"].as_str().unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default().to_owned()
}

#[test]
fn flag_comes_before_environment_before_env_file_before_config_file_before_default() {
    let rows = [
        Layered {
            default: "#agent-supervisory",
            values: ["#file", "#env-file", "#env", "#flag"],
            file: "channel",
            env: "SLACK_CHANNEL",
            flag: "--channel",
            shown: |json| field(json, "channel"),
        },
        Layered {
            default: "",
            values: ["C1:1.000001", "C1:1.000002", "C1:1.000003", "C1:1.000004"],
            file: "thread",
            env: "AGENT_CHECKPOINT_THREAD",
            flag: "--thread",
            shown: |json| match field(json, "thread_ts") {
                ts if ts.is_empty() => ts,
                ts => format!("{}:{ts}", field(json, "channel")),
            },
        },
        Layered {
            default: "session",
            values: ["file", "env-file", "env", "flag"],
            file: "agent_id",
            env: "AGENT_CHECKPOINT_AGENT_ID",
            flag: "--agent-id",
            shown: |json| field(json, "agent_id").replace("claude:", ""),
        },
        Layered {
            default: "claude:session",
            values: ["File", "Env-file", "Env", "Flag"],
            file: "task_name",
            env: "AGENT_CHECKPOINT_TASK_NAME",
            flag: "--task-name",
            shown: |json| line(json, "Task: "),
        },
        Layered {
            default: "",
            values: ["a/file", "a/env-file", "a/env", "a/flag"],
            file: "repo",
            env: "AGENT_CHECKPOINT_REPO",
            flag: "--repo",
            shown: |json| line(json, "Repo: "),
        },
        Layered {
            default: "50,000 / 200,000 (25.0%)",
            values: [
                "50,000 / 400,000 (12.5%)",
                "50,000 / 500,000 (10.0%)",
                "50,000 / 800,000 (6.2%)",
                "50,000 / 100,000 (50.0%)",
            ],
            file: "context_limit",
            env: "AGENT_CHECKPOINT_CONTEXT_LIMIT",
            flag: "--context-limit",
            shown: |json| line(json, "Context: "),
        },
        Layered {
            default: "calm",
            values: ["warn", "calm", "warn", "calm"],
            file: "context_warn",
            env: "AGENT_CHECKPOINT_CONTEXT_WARN",
            flag: "--context-warn",
            shown: |json| if line(json, "Context: ").contains("⚠️") { "warn" } else { "calm" }.to_owned(),
        },
        Layered {
            default: "calm",
            values: ["alert", "calm", "alert", "calm"],
            file: "context_alert",
            env: "AGENT_CHECKPOINT_CONTEXT_ALERT",
            flag: "--context-alert",
            shown: |json| {
                if line(json, "⚠️ *Context Warning*").is_empty() { "calm" } else { "alert" }.to_owned()
            },
        },
    ];
    for Layered { default, values, file, env, flag, shown } in rows {
        let (_slack, sandbox) = set_up();
        sandbox.env("CLAUDE_CODE_SESSION_ID", "session");
        // What to write so that a value is shown.
        let typed = values.map(|value| match file {
            "context_limit" => value.split(['/', '(']).nth(1).expect("a limit").trim().replace(',', ""),
            "context_warn" | "context_alert" => if value == "calm" { "90" } else { "20" }.to_owned(),
            _ => value.to_owned(),
        });
        let words = ["emit", "--dry-run", "--json", "--tokens", "50000"];
        let check = |run: Run<'_>, expected: &str, source: &str| {
            let json = run.run().success().stderr_is("").json();
            assert_eq!(shown(&json), expected, "{file} from {source}");
        };
        check(sandbox.cmd(words), default, "default");
        sandbox.write(sandbox.config_path(), format!("{file} = \"{}\"\n", typed[0]));
        check(sandbox.cmd(words), values[0], "config file");
        let env_file = sandbox.write("extra.env", format!("# comment\nexport {env}='{}'\n", typed[1]));
        sandbox.env("AGENT_CHECKPOINT_ENV_FILE", env_file);
        check(sandbox.cmd(words), values[1], "env-file");
        sandbox.env(env, &typed[2]);
        check(sandbox.cmd(words), values[2], "environment");
        check(sandbox.cmd(words.iter().chain(&[flag, &typed[3]])), values[3], "flag");
    }
}

#[test]
fn settings_of_delivery_follow_the_same_order() {
    let (_slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot", "First"]).run().success().silent();
    let delivery = |run: Run<'_>| field(&run.run().success().json(), "delivery");
    let words = ["emit", "-a", "bot", "--json", "Next"];
    assert_eq!(delivery(sandbox.cmd(words)), "coalesced");
    sandbox.write(sandbox.config_path(), "min_interval = 0\n");
    assert_eq!(delivery(sandbox.cmd(words)), "sent");
    sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "1h");
    assert_eq!(delivery(sandbox.cmd(words)), "coalesced");
    assert_eq!(delivery(sandbox.cmd(words.iter().chain(&["--min-interval", "0s"]))), "sent");

    let (_slack, sandbox) = set_up();
    let words = ["emit", "-a", "bot", "--json", "--min-interval", "0", "Next"];
    sandbox.write(sandbox.config_path(), "deadline = \"0s\"\nno_post = true\n");
    assert_eq!(delivery(sandbox.cmd(words)), "off");
    sandbox.env("AGENT_CHECKPOINT_NO_POST", "false");
    assert_eq!(delivery(sandbox.cmd(words)), "queued");
    sandbox.env("AGENT_CHECKPOINT_DEADLINE", "5s");
    assert_eq!(delivery(sandbox.cmd(words)), "sent");
    assert_eq!(delivery(sandbox.cmd(words.iter().chain(&["--deadline", "0"]))), "queued");
    assert_eq!(delivery(sandbox.cmd(words.iter().chain(&["--no-post"]))), "off");
}

#[test]
fn strict_and_json_can_be_settings() {
    let sandbox = Sandbox::new();
    sandbox.env("AGENT_CHECKPOINT_DEADLINE", "soon");
    let words = ["emit", "-a", "bot", "Next"];
    sandbox.cmd(words).run().success();
    sandbox.write(sandbox.config_path(), "strict = true\njson = true\n");
    assert_eq!(sandbox.cmd(words).run().code(78).json()["delivery"], "printed");
    sandbox.env("AGENT_CHECKPOINT_STRICT", "no").env("AGENT_CHECKPOINT_JSON", "off");
    sandbox.cmd(words).run().success().stdout_has("📍 CHECKPOINT bot");
    sandbox.cmd(words.iter().chain(&["--strict"])).run().code(78);
}

#[test]
fn the_cache_is_where_it_is_said_to_be() {
    let sandbox = Sandbox::new();
    let emit = |run: Run<'_>, made: &str| {
        run.run().success();
        let path = sandbox.work().join(made);
        assert!(path.exists(), "no {made}");
        fs::remove_file(path).expect("to remove it");
        assert!(!sandbox.cache_path().exists());
    };
    sandbox
        .write(sandbox.config_path(), format!("cache = \"{}\"\n", sandbox.work().join("file.db").display()));
    emit(sandbox.cmd(["emit", "-a", "bot", "Text"]), "file.db");
    sandbox.env("AGENT_CHECKPOINT_CACHE", "env.db");
    emit(sandbox.cmd(["emit", "-a", "bot", "Text"]), "env.db");
    emit(sandbox.cmd(["emit", "-a", "bot", "--cache", "deep/er/flag.db", "Text"]), "deep/er/flag.db");
}

#[test]
fn a_config_file_may_be_named_by_flag_or_environment() {
    let sandbox = Sandbox::new();
    let agent = |run: Run<'_>| field(&run.run().success().stderr_is("").json(), "agent_id");
    sandbox.write(sandbox.config_path(), "agent_id = \"usual\"\n");
    sandbox.write("env.toml", "agent_id = \"by-env\"\n");
    sandbox.write("flag.toml", "agent_id = \"by-flag\"\n");
    let words = ["emit", "--json", "Text"];
    assert_eq!(agent(sandbox.cmd(words)), "usual");
    sandbox.env("AGENT_CHECKPOINT_CONFIG", "env.toml");
    assert_eq!(agent(sandbox.cmd(words)), "by-env");
    assert_eq!(agent(sandbox.cmd(words.iter().chain(&["--config", "flag.toml"]))), "by-flag");
}

#[test]
fn a_bot_token_is_taken_from_where_it_is_said_first() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.env("SLACK_API_URL", slack.url()).env("AGENT_CHECKPOINT_BACKGROUND", "never");
    let bearer = |agent: &str| {
        sandbox.cmd(["emit", "-a", agent, "Text"]).run().success().lacks("xoxb-");
        let requests = slack.requests();
        let last = requests.last().expect("a request");
        last.header("authorization").expect("a token").trim_start_matches("Bearer ").to_owned()
    };
    let config = sandbox.write(sandbox.config_path(), "slack_bot_token = \"xoxb-config-file\"\n");
    set_mode(&config, 0o600);
    assert_eq!(bearer("a"), "xoxb-config-file");
    let env_file = sandbox.write("secrets.env", "SLACK_BOT_TOKEN=xoxb-env-file\n");
    set_mode(&env_file, 0o600);
    sandbox.env("AGENT_CHECKPOINT_ENV_FILE", env_file);
    assert_eq!(bearer("b"), "xoxb-env-file");
    sandbox.write("token", "xoxb-from-a-file\n");
    sandbox.env("SLACK_BOT_TOKEN", format!("file:{}", sandbox.work().join("token").display()));
    assert_eq!(bearer("c"), "xoxb-from-a-file");
    sandbox.env("SLACK_BOT_TOKEN", "xoxb-environment");
    assert_eq!(bearer("d"), "xoxb-environment");
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    let file = sandbox.write("hook", format!(" {}\n\n", slack.webhook_url()));
    sandbox.env("SLACK_WEBHOOK_URL", format!("file:{}", file.display()));
    sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "never");
    sandbox.cmd(["emit", "-a", "bot", "Text"]).run().success().silent();
    assert_eq!(slack.roots().len(), 1);

    let sandbox = Sandbox::new();
    sandbox.slack(&slack).env_remove("SLACK_BOT_TOKEN");
    let file = sandbox.write("token", format!("{TOKEN}\r\n"));
    sandbox.write(sandbox.config_path(), format!("slack_bot_token = \"file:{}\"\n", file.display()));
    sandbox.cmd(["emit", "-a", "bot", "Text"]).run().success().silent();
    assert_eq!(slack.roots().len(), 2);
}

#[test]
fn the_bot_token_wins_over_the_webhook_and_nothing_is_posted_twice() {
    let (slack, sandbox) = set_up();
    sandbox.webhook(&slack);
    sandbox.cmd(["emit", "-a", "bot", "One"]).run().success().silent();
    sandbox.cmd(["emit", "-a", "bot", "-s", "complete", "Two"]).run().success().silent();
    assert!(slack.calls("webhook").is_empty());
    let messages = slack.messages("agent-supervisory");
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.author == Author::Bot));
    assert!(messages[1].thread_ts.is_some());
}
