//! Credentials in what a caller says: masked before they are stored, sent or printed.

use std::fs;
use std::path::Path;

use crate::fake_slack::{FakeSlack, Fault, TOKEN};
use crate::support::{Output, Sandbox};

/// Well-known shapes, written in two halves so that scanners do not take this file for a leak.
const SHAPES: [(&str, &str); 13] = [
    ("xoxp-", "123456789012-123456789012-AbCdEfGhIjKl"),
    ("xapp-", "1-A0123456789-1234567890-abcdef"),
    ("https://hooks.slack.com/services/", "T0001/B0001/AbCdEfGhIjKl"),
    ("ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"),
    ("github_pat_", "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"),
    ("glpat-", "abcdefghij0123456789"),
    ("AKIA", "ABCDEFGHIJKLMNOP"),
    ("aws_secret_access_key=", "abcdefghij/klmnopqrst+uvwxyz0123456789AB"),
    ("sk-", "proj-abcdefghijklmnopqrstuvwxyz"),
    ("sk-ant-", "api03-abcdefghijklmnopqrstuvwxyz"),
    ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ"),
    ("postgres://ana:", "s3cretpassword@db/x"),
];

/// Which of them are which.
const GITHUB: usize = 3;
const KEY_BLOCK: usize = 11;

/// Every place in which a caller can say something, with this text in each.
fn everywhere(text: &str) -> Vec<String> {
    let flags = [
        ("--agent-id", format!("bot {text}")),
        ("--task-name", format!("Name {text}")),
        ("--task-type", format!("type {text}")),
        ("--repo", format!("repo {text}")),
        ("--error", format!("Error:\n{text}")),
        ("--artifact", format!("Name={text}")),
        ("--artifact", format!("path-{text}")),
        ("--meta", format!("key={text}")),
        ("--meta", if text.contains('=') { format!("x{text}") } else { format!("x{text}=value") }),
        ("--status", "error".to_owned()),
    ];
    flags
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain([format!("Did {text}")])
        .collect()
}

/// Whether bytes hold a text.
fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The files below a directory, whole.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).expect("a file")));
        }
    }
    found
}

/// The secret is in no file of the home, no body of a request and none of these outputs.
#[track_caller]
fn assert_nowhere(sandbox: &Sandbox, slack: &FakeSlack, outputs: &[Output], secret: &str) {
    let files = files(&sandbox.home());
    assert!(files.iter().any(|(name, _)| name.ends_with("cache.db")), "there is no cache");
    for (name, bytes) in files {
        assert!(!holds(&bytes, secret), "{secret} is in {name}");
    }
    let requests = slack.requests();
    for request in &requests {
        assert!(!holds(&request.body, secret), "{secret} was sent to {}", request.path);
    }
    for output in outputs {
        output.clone().lacks(secret);
    }
}

#[test]
fn well_known_shapes_are_masked_before_they_are_stored_sent_or_printed() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    let mut outputs = Vec::new();
    for (head, tail) in SHAPES {
        let words = everywhere(&format!("{head}{tail}"));
        for flags in [&["--dry-run"][..], &["--dry-run", "--json"], &["--json", "--no-post", "-vv"]] {
            let words = words.iter().map(String::as_str).chain(flags.iter().copied());
            outputs.push(sandbox.cmd(["emit"].into_iter().chain(words)).run().success());
        }
        let agent = outputs.last().expect("an output").json()["agent_id"].as_str().expect("an id").to_owned();
        assert!(agent.starts_with("bot ") && agent.contains("[masked]"), "{agent}");
        outputs.push(sandbox.cmd(["show", "--json", &agent]).run().success());
        outputs.push(sandbox.cmd(["show", &agent]).run().success());
    }
    outputs.push(sandbox.cmd(["tasks"]).run().success());
    // A key block without its end reaches to the end of the text, so it comes last.
    let mut all = SHAPES.map(|(head, tail)| format!("{head}{tail}"));
    all.swap(KEY_BLOCK, SHAPES.len() - 1);
    let text = all.join(" ");
    let words = ["emit", "-a", "bot", "-s", "error", "--error", &text, &format!("Did {text}")];
    outputs.push(sandbox.cmd(words).run().success());
    outputs.push(sandbox.cmd(["emit", "-a", "pipe", "-"]).stdin(format!("Piped {text}")).run().success());
    assert_eq!(slack.roots().len(), 2);
    for (_, tail) in SHAPES {
        let secret = tail.split('@').next().expect("a part");
        assert_nowhere(&sandbox, &slack, &outputs, secret);
    }
    // What stands around them is kept.
    assert!(slack.roots()[0].text.contains("Last Action: Did [masked] "), "{}", slack.roots()[0].text);
    assert!(slack.roots()[0].text.contains("postgres://ana:[masked]@db/x"), "{}", slack.roots()[0].text);

    // Nor is one printed where there is no Slack.
    let sandbox = Sandbox::new();
    let words = everywhere(&SHAPES.map(|(head, tail)| format!("{head}{tail}"))[GITHUB]);
    let output = sandbox.cmd(["emit"].into_iter().chain(words.iter().map(String::as_str))).run().success();
    assert_nowhere(&sandbox, &slack, &[output], SHAPES[GITHUB].1);
}

#[test]
fn our_own_settings_are_masked_whatever_they_look_like() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    let file = sandbox.write("signing", "plain-signing-words\n");
    sandbox.env("SLACK_SIGNING_SECRET", format!("file:{}", file.display()));
    sandbox.env("SLACK_APP_TOKEN", "plain-app-words");
    sandbox.env("SLACK_WEBHOOK_URL", "https://chat.example.com/hooks/plain-hook-words");
    sandbox.env("DATABASE_URL", "postgres://ana:plain-password-words@db.example.com/audit");
    sandbox.env("HTTPS_PROXY", "http://ana:plain-proxy-words@proxy.example.com").env("NO_PROXY", "127.0.0.1");
    for said in [
        TOKEN,
        "plain-signing-words",
        "plain-app-words",
        "https://chat.example.com/hooks/plain-hook-words",
        "plain-password-words",
        "plain-proxy-words",
    ] {
        let words = everywhere(said);
        let words = ["emit", "--json", "--no-post"].into_iter().chain(words.iter().map(String::as_str));
        let output = sandbox.cmd(words).run().success();
        assert_nowhere(&sandbox, &slack, &[output], said);
    }
    sandbox.cmd(["emit", "-a", "bot", &format!("Using {TOKEN} for plain-password-words")]).run().success();
    assert!(slack.roots()[0].text.contains("Last Action: Using [masked] for [masked]\n"));
}

#[test]
fn a_wrong_value_is_quoted_without_the_credential_in_it() {
    let sandbox = Sandbox::new();
    let (head, tail) = SHAPES[GITHUB];
    // The quotation of the second is cut in the middle of the credential.
    for value in [format!("{head}{tail}"), format!("{}{head}{tail}", "x".repeat(60))] {
        for flag in ["--tokens", "--status", "--min-interval", "--thread", "--color", &format!("--{value}")] {
            sandbox.cmd(["emit", flag, &value]).run().code(64).lacks(&tail[..10]);
        }
        sandbox.cmd([&value]).run().code(64).lacks(&tail[..10]);
        for variable in ["MIN_INTERVAL", "CONTEXT_LIMIT", "BACKGROUND", "THREAD"] {
            let run = sandbox.cmd(["emit", "-a", "bot", "--json"]);
            let run = run.env(&format!("AGENT_CHECKPOINT_{variable}"), &value);
            run.run().success().stderr_has(variable).lacks(&tail[..10]);
        }
    }
}

#[test]
fn colours_inside_a_credential_do_not_hide_it() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    // As a search that marks what it found prints it.
    let (head, tail) = SHAPES[GITHUB];
    let text = format!("found \u{1b}[01;31m{head}\u{1b}[0m{tail} in .env");
    sandbox.cmd(["emit", "-a", "bot", "-s", "error", "--error", &text, &text]).run().success().silent();
    let shown = sandbox.cmd(["show", "bot"]).run().success();
    assert_nowhere(&sandbox, &slack, &[shown], tail);
    assert!(
        slack.roots()[0].text.contains("Last Action: found [masked] in .env\n"),
        "{}",
        slack.roots()[0].text
    );
}

#[test]
fn a_credential_that_slack_repeats_is_kept_nowhere() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    slack.script("chat.postMessage", vec![Fault::ErrorName("bad_token: xoxb-fake-token")]);
    let receipt = sandbox.cmd(["emit", "-a", "bot", "--json", "One"]).run().success();
    assert_eq!(receipt.json()["error"], "bad_token: [masked]", "{receipt}");
    let shown = ["tasks", "doctor"].map(|command| sandbox.cmd([command, "--json"]).run());
    let outputs = [vec![receipt, sandbox.cmd(["show", "bot"]).run().success()], Vec::from(shown)].concat();
    assert_nowhere(&sandbox, &slack, &outputs, TOKEN);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    // Of no known shape: only its place among the settings tells what it is.
    let secret = "8f742231b10e8888abcd99";
    let long = "0123456789abcdef".repeat(8);
    let sandbox = Sandbox::new();
    sandbox.env("SLACK_SIGNING_SECRET", secret).env("SLACK_APP_TOKEN", &long);
    sandbox.env("DATABASE_URL", "postgres://ana:pass8f7422@db/x");
    let dashed = format!("--{secret}");
    for value in [secret, &dashed, &long, "pass8f7422"] {
        let rows: [&[&str]; 9] = [
            &[value],
            &["emit", "one", value],
            &["emit", "--status", value],
            &["emit", "--progress", value],
            &["emit", "--deadline", value],
            &["emit", "--config", value],
            &["tasks", "--state", value],
            &["show", value],
            &["completions", value],
        ];
        for line in rows {
            let output = sandbox.cmd(line).run().stdout_is("");
            assert_ne!(output.code, Some(0), "{output}");
            assert!(
                !output.stderr.contains("8f7422") && !output.stderr.contains("6789abcdef0123"),
                "{output}"
            );
        }
    }
    sandbox.env("SLACK_API_URL", "http://127.0.0.1:1/").env("AGENT_CHECKPOINT_BACKGROUND", "never");
    sandbox.env("AGENT_CHECKPOINT_DEADLINE", "500ms");
    for value in [secret, &long] {
        for (name, value) in [
            ("SLACK_CHANNEL", format!("{value} x")),
            ("SLACK_API_URL", value.to_owned()),
            ("AGENT_CHECKPOINT_MIN_INTERVAL", value.to_owned()),
            ("AGENT_CHECKPOINT_AGENT_ID", value.to_owned()),
        ] {
            for line in [&["emit", "--json", "one"][..], &["doctor"], &["doctor", "--json"]] {
                let run = sandbox.cmd(line).env("SLACK_BOT_TOKEN", "xoxb-1").env(name, &value);
                run.run().lacks("8f742231").lacks("6789abcdef0123");
            }
        }
    }
}
