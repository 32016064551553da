//! Settings that are wrong: what says so, what goes on all the same, and what waits until it is mended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::fake_slack::{FakeSlack, HUMAN, TOKEN};
use crate::support::{Run, Sandbox};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

fn with<'a>(run: Run<'a>, variables: &[(&str, &str)]) -> Run<'a> {
    variables.iter().fold(run, |run, (name, value)| run.env(name, value))
}

#[track_caller]
fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode");
}

#[test]
fn a_wrong_tuning_value_is_named_and_falls_back_to_its_default() {
    let number = "give a whole number from 0 to 100";
    let time = "give a length of time such as 30s, 5m or 1h30m";
    let limit = "give the size of the context window, such as 200000";
    for (key, value, reason, hint) in [
        ("min_interval", "soon", "is not a length of time", time),
        ("deadline", "-5s", "is negative", time),
        ("background", "later", "is not a valid value", "use one of auto, always, never"),
        ("context_limit", "0", "is not a context limit", limit),
        ("context_warn", "150", "is not between 0 and 100", number),
        ("context_alert", "high", "is not a whole number", number),
        ("no_post", "maybe", "is neither true nor false", "use true or false"),
        ("color", "red", "is not a valid value", "use one of auto, always, never"),
        ("task_name", "a\u{7}b", "holds a control character", "write it on one line of plain text"),
        ("repo", "b\u{7}", "holds a control character", "write it on one line of plain text"),
    ] {
        let variable = format!("AGENT_CHECKPOINT_{}", key.to_uppercase());
        let in_file = |sandbox: &Sandbox| format!("{key} in {}", sandbox.config_path().display());
        for from_file in [false, true] {
            let (slack, sandbox) = set_up();
            let name = if from_file {
                // Below a variable nobody would look into the file.
                sandbox.env_remove(&variable);
                let value = value.replace('\u{7}', "\\u0007").replace('\n', "\\n");
                sandbox.write(sandbox.config_path(), format!("{key} = \"{value}\"\n"));
                in_file(&sandbox)
            } else {
                sandbox.env(&variable, value);
                variable.clone()
            };
            // On one line, whatever it holds.
            let value = value.escape_default();
            let wrong =
                format!("agent-checkpoint: {name}: '{value}' {reason}; using the default\nhint: {hint}\n");
            let words =
                ["emit", "-a", "bot", "--json", "--background", "never", "--tokens", "140000", "Text"];
            let words = if key == "background" {
                // Not with a flag that wins, nor with a process left behind.
                vec!["emit", "-a", "bot", "--json", "--tokens", "140000", "--no-post", "Text"]
            } else {
                words.to_vec()
            };
            let output = sandbox.cmd(&words).run().success().stderr_has(&wrong);
            let receipt = output.json();
            let delivery = if key == "background" { "off" } else { "sent" };
            assert_eq!(receipt["delivery"], delivery, "{key}");
            assert_eq!(receipt["context_percent"], 70.0, "{key}");
            let warnings: Vec<&str> =
                receipt["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str).collect();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings[0].starts_with("context warning: 70.0%"), "{warnings:?}");
            assert!(
                warnings[1].starts_with(&name) && warnings[1].ends_with("using the default"),
                "{warnings:?}"
            );
            // The interval is the usual one.
            if key != "background" {
                let second = sandbox.cmd(&words).run().success().json();
                assert_eq!(second["delivery"], "coalesced", "{key}");
            }
            sandbox.cmd(words.iter().chain(&["--strict"])).run().code(78).stderr_has(&wrong);
            let shown = sandbox.cmd(["show", "--json", "bot"]).run().json();
            assert!(shown["checkpoint_count"].as_u64() >= Some(2), "{key}: {shown}");
            drop(slack);
        }
    }
}

#[test]
fn a_wrong_destination_waits_until_it_is_mended_and_is_never_replaced() {
    let thread = "give CHANNEL:TS as the receipt has them, such as C0123456789:1503435956.000247";
    let channel = "give a name such as #agent-supervisory or an id such as C0123456789";
    let token = "copy the Bot User OAuth Token, which begins with xoxb-";
    let hook = "copy the incoming webhook's URL, https://hooks.slack.com/services/…";
    let secret = "the value ";
    for (name, value, reason, hint) in [
        ("SLACK_BOT_TOKEN", "xoxb-two words", "the value is not a token", token),
        ("SLACK_BOT_TOKEN", "xapp-1-A1-1-abc", "the value is an app-level token", token),
        (
            "SLACK_BOT_TOKEN",
            "file:nowhere",
            "the value names the file 'nowhere', which could not be read: No such file or directory",
            "make the file readable",
        ),
        (
            "SLACK_BOT_TOKEN",
            "file:~/token",
            "the value names the file '~/token', which could not be read: No such file or directory",
            "write the whole path: nothing is expanded in it",
        ),
        (
            "SLACK_BOT_TOKEN",
            "file:.",
            "the value names the file '.', which could not be read: Is a directory",
            "make the file readable",
        ),
        (
            "SLACK_BOT_TOKEN",
            "file:empty",
            "the value names the file 'empty', which is empty",
            "write the secret into the file",
        ),
        ("SLACK_WEBHOOK_URL", "hooks.example.com/x", "the value is not a URL", hook),
        (
            "SLACK_WEBHOOK_URL",
            "https://hooks.slack.com/triggers/T1/2/abc",
            "the value is a Workflow Builder trigger, which takes no messages",
            hook,
        ),
        (
            "SLACK_API_URL",
            "slack",
            "'slack' is not a URL",
            "give a whole URL, such as https://example.com/path",
        ),
        (
            "SLACK_API_URL",
            "http://slack.example/api/",
            "'http://slack.example/api/' would send the token to slack.example unencrypted",
            "give a URL that begins with https://; http:// is for this machine only",
        ),
        (
            "SLACK_API_URL",
            "ftp://slack.com/api/",
            "'ftp://slack.com/api/' is not a web address",
            "give a URL such as https://slack.com/api/",
        ),
        ("SLACK_CHANNEL", "two words", "'two words' is not a channel", channel),
        ("AGENT_CHECKPOINT_THREAD", "C0AGENT000", "'C0AGENT000' is not a thread", thread),
    ] {
        let (slack, sandbox) = set_up();
        sandbox.write("empty", " \n");
        // Each of these would be a way out.
        sandbox
            .write(sandbox.config_path(), format!("channel = \"#general\"\nslack_bot_token = \"{TOKEN}\"\n"));
        set_mode(&sandbox.config_path(), 0o600);
        if name == "SLACK_WEBHOOK_URL" {
            sandbox
                .write(sandbox.config_path(), format!("slack_webhook_url = \"{}\"\n", slack.webhook_url()));
            sandbox.env_remove("SLACK_BOT_TOKEN");
        } else if name == "SLACK_BOT_TOKEN" {
            sandbox.webhook(&slack);
        }
        let wrong = format!("{name}: {reason}; messages wait until it is mended");
        let emit = |args: &[&str]| {
            let words = ["emit", "-a", "bot", "--json", "-s", "blocked", "Text"];
            with(sandbox.cmd(words.iter().chain(args)), &[(name, value)]).run()
        };
        let output = emit(&[]).success();
        let receipt = output.json();
        assert_eq!(receipt["delivery"], "queued", "{name}={value}");
        assert!(receipt["warnings"].to_string().contains("messages wait until it is mended"), "{receipt}");
        let output = output.stderr_has(&format!("agent-checkpoint: {wrong}\nhint: {hint}\n"));
        if reason.starts_with(secret) && !value.starts_with("file:") {
            output.lacks(value);
        }
        emit(&["--strict"]).code(78).stderr_has(&wrong);
        assert!(slack.requests().is_empty(), "{name}={value}: {:?}", slack.requests());
        with(sandbox.cmd(["flush"]), &[(name, value)]).run().code(78).stderr_has(&wrong);
        assert!(slack.requests().is_empty(), "{name}={value}: {:?}", slack.requests());

        // Mended, all of it arrives where it should.
        sandbox.cmd(["flush"]).run().success().stdout_is("2 sent, 0 refused, 0 still waiting\n");
        let place = if name == "SLACK_WEBHOOK_URL" { "agent-supervisory" } else { "general" };
        assert_eq!(slack.messages(place).len(), 2, "{name}={value}");
    }
}

#[test]
fn what_waits_for_its_channel_or_thread_does_not_go_to_another_agents() {
    for (name, value) in [("SLACK_CHANNEL", "two words"), ("AGENT_CHECKPOINT_THREAD", "nonsense")] {
        let (slack, sandbox) = set_up();
        let ts = slack.say("C0AGENT000", None, HUMAN, "Work here");
        let thread = format!("C0AGENT000:{ts}");
        let mine = |channel: &str| -> Vec<_> {
            let messages = slack.messages(channel);
            messages.into_iter().filter(|message| message.text.contains("Mine")).collect()
        };
        for agent in ["by-call", "by-flush"] {
            with(sandbox.cmd(["emit", "-a", agent, "Mine"]), &[(name, value)]).run().success();
        }
        let general = sandbox.cmd(["emit", "-a", "other", "-c", "#general", "Theirs"]);
        general.run().success().silent();
        let threaded = sandbox.cmd(["emit", "-a", "third", "-f", "Theirs too"]);
        threaded.env("AGENT_CHECKPOINT_THREAD", &thread).run().success().silent();
        assert_eq!((mine("general").len(), mine("agent-supervisory").len()), (0, 0), "after a wrong {name}");

        // The agent's own next call knows where it belongs, and so does who flushes.
        let own = sandbox.cmd(["emit", "-a", "by-call", "-f", "-c", "#general", "Mine again"]);
        own.run().success().silent();
        assert_eq!(mine("general").len(), 2, "after a wrong {name}");
        let flush = sandbox.cmd(["flush"]).env("AGENT_CHECKPOINT_THREAD", &thread).run();
        flush.success().stdout_is("1 sent, 0 refused, 0 still waiting\n");
        let flushed = mine("agent-supervisory");
        assert_eq!(flushed.len(), 1, "after a wrong {name}");
        assert_eq!(flushed[0].thread_ts.as_ref(), Some(&ts));
    }
}

#[test]
fn a_webhooks_message_waits_for_the_thread_it_was_meant_for() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    let ts = slack.say("C0AGENT000", None, HUMAN, "Work here");
    sandbox.cmd(["emit", "-a", "bot", "Mine"]).env("AGENT_CHECKPOINT_THREAD", "nonsense").run().success();
    sandbox.cmd(["emit", "-a", "other", "Theirs"]).run().success().silent();
    assert_eq!(slack.calls("webhook").len(), 1);
    let flush = sandbox.cmd(["flush"]).env("AGENT_CHECKPOINT_THREAD", format!("C0AGENT000:{ts}")).run();
    flush.success().stdout_is("1 sent, 0 refused, 0 still waiting\n");
    assert!(slack.thread(&ts)[1].text.contains("Mine"));
}

#[test]
fn a_config_file_that_others_can_read_is_warned_of_when_it_holds_a_secret() {
    let sandbox = Sandbox::new();
    let config = sandbox.config_path();
    let words = ["emit", "-a", "bot", "--no-post", "--strict", "Text"];
    let warning = format!(
        "agent-checkpoint: warning: {0} holds a secret and can be read by others\nhint: run chmod 600 {0}\n",
        config.display()
    );
    for (text, mode, warned) in [
        ("slack_bot_token = \"xoxb-abcdef\"\n", 0o644, true),
        ("slack_bot_token = \"xoxb-abcdef\"\n", 0o640, true),
        ("database_url = \"postgres://u:p@db/x\"\n", 0o644, true),
        ("slack_bot_token = \"xoxb-abcdef\"\n", 0o600, false),
        ("slack_bot_token = \"file:/run/secrets/none\"\n", 0o644, false),
        ("channel = \"#general\"\n", 0o644, false),
    ] {
        sandbox.write(&config, text);
        set_mode(&config, mode);
        let wrong = text.contains("file:");
        // What a database does not have is not done.
        let waits = cfg!(feature = "postgres") && text.contains("database");
        let code = if waits { 75 } else { 0 };
        let output = sandbox.cmd(words).run().code(if wrong { 78 } else { code });
        assert_eq!(output.stderr.starts_with(&warning), warned, "{text}{output}");
        assert!(waits || !warned || output.stderr == warning, "{text}{output}");
        assert!(warned || wrong || output.stderr.is_empty(), "{text}{output}");
        sandbox.cmd(words.iter().chain(&["-q"])).run().lacks("read by others");
    }
    fs::remove_file(&config).expect("to remove it");
    let env_file = sandbox.write("extra.env", "SLACK_WEBHOOK_URL=https://hooks.example.com/services/x\n");
    set_mode(&env_file, 0o644);
    let output = sandbox.cmd(words.iter().chain(&["--env-file", "extra.env"])).run().success();
    output.stderr_has("extra.env holds a secret and can be read by others");
}

#[test]
fn unknown_names_in_a_config_file_are_pointed_out() {
    let sandbox = Sandbox::new();
    sandbox.write(
        sandbox.config_path(),
        "chanel = \"#general\"\nagent_id = \"bot\"\n[slack]\nchannel = \"#x\"\n",
    );
    let output = sandbox.cmd(["emit", "--json", "--strict", "--no-post", "Text"]).run().success();
    assert_eq!(output.json()["agent_id"], "bot");
    let path = sandbox.config_path();
    for name in ["chanel", "slack"] {
        output.clone().stderr_has(&format!(
            "agent-checkpoint: warning: unknown setting '{name}' in {}\n\
             hint: settings have the names of flags, in snake case, at the top level\n",
            path.display()
        ));
    }
}

#[test]
fn a_config_file_that_cannot_be_used_is_named_and_nothing_is_posted_elsewhere() {
    let hint = "name a file that you may read";
    for (content, message, hint) in [
        (None, "Is a directory", hint),
        (Some(&b"channel = caf\xe9\n"[..]), "it is not valid UTF-8", hint),
        (
            Some(b"deadline = \"5s\"\nslack_bot_token = xoxb-unquoted\n"),
            "line 2: ",
            "write settings as name = \"value\"",
        ),
        (Some(b"channel = [\"#general\"]\n"), "channel is a list", "write settings as name = \"value\""),
        (
            Some(b"[slack_bot_token]\nfile = 1\n"),
            "slack_bot_token is a table",
            "write settings as name = \"value\"",
        ),
    ] {
        let (slack, sandbox) = set_up();
        let config = sandbox.config_path();
        match content {
            Some(content) => drop(sandbox.write(&config, content)),
            None => fs::create_dir_all(&config).expect("a directory"),
        }
        let start = format!("could not read config file: {}: {message}", config.display());
        let output = sandbox.cmd(["emit", "-a", "bot", "--json", "Text"]).run().success();
        assert_eq!(output.json()["delivery"], "queued", "{message}");
        let end = format!("; messages wait until it is mended\nhint: {hint}\n");
        let output = output.stderr_has(&start).stderr_has(&end);
        output.lacks("xoxb-unquoted");
        sandbox.cmd(["emit", "-a", "bot", "--strict", "Text"]).run().code(78).stderr_has(&start);
        // By flag it is a wrong command line: nothing is recorded.
        let named = ["emit", "-a", "other", "--config"].map(std::ffi::OsStr::new);
        let output = sandbox.cmd(named.into_iter().chain([config.as_os_str()])).run().code(64);
        output.stdout_is("").stderr_has(&start);
        sandbox.cmd(["show", "other"]).env_remove("SLACK_BOT_TOKEN").run().code(1);
        assert!(slack.requests().is_empty(), "{message}");
    }
    // Nor is anything posted when an env-file is missing in which the channel may have stood.
    let (slack, sandbox) = set_up();
    sandbox.env("AGENT_CHECKPOINT_ENV_FILE", "missing.env");
    let thread = slack.say("C0AGENT000", None, HUMAN, "Work here");
    sandbox
        .write(sandbox.config_path(), format!("channel = \"#general\"\nthread = \"C0AGENT000:{thread}\"\n"));
    let output = sandbox.cmd(["emit", "-a", "bot", "--json", "Text"]).run().success();
    assert_eq!(output.json()["delivery"], "queued");
    output
        .stderr_has("could not read env file: ")
        .stderr_has("missing.env: No such file or directory; messages wait");
    assert!(slack.requests().is_empty());
    // The same without a token: it may have stood in the file.
    let sandbox = Sandbox::new();
    sandbox.env("AGENT_CHECKPOINT_CONFIG", "missing.toml");
    let output = sandbox.cmd(["emit", "-a", "bot", "--json", "Text"]).run().success();
    assert_eq!(output.json()["delivery"], "queued");
    output.stderr_has("missing.toml: No such file or directory; messages wait until it is mended\n");
}

#[test]
fn a_file_that_cannot_be_read_does_not_stop_messages_whose_way_is_known_without_it() {
    let (slack, sandbox) = set_up();
    sandbox.env("AGENT_CHECKPOINT_CONFIG", "missing.toml");
    let output = sandbox.cmd(["emit", "-a", "bot", "-c", "#general", "Text"]).run().success();
    output.stderr_has("missing.toml: No such file or directory; going on without it\n");
    assert_eq!(slack.roots().len(), 1);
}

#[test]
fn a_file_without_end_does_not_fill_the_memory() {
    let (_slack, sandbox) = set_up();
    let reason = "/dev/zero: it is larger than 1 MiB";
    for flag in ["--config", "--env-file"] {
        sandbox.cmd(["emit", flag, "/dev/zero", "One"]).run().code(64).stderr_has(reason);
    }
    for variable in ["AGENT_CHECKPOINT_CONFIG", "AGENT_CHECKPOINT_ENV_FILE"] {
        let run = sandbox.cmd(["emit", "-a", "bot", "One"]).env(variable, "/dev/zero");
        run.run().success().stderr_has(reason);
    }
    let run = sandbox.cmd(["emit", "-a", "bot", "One"]).env("SLACK_BOT_TOKEN", "file:/dev/zero");
    run.run().success().stderr_has("could not be read: it is larger than 1 MiB");
}
