//! What `emit` refuses on its command line and standard input, how it says so, and what it accepts all the same.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::fake_slack::FakeSlack;
use crate::support::{Output, Sandbox};

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// Exit code 64, one line, one hint, and no trace of the call.
#[track_caller]
fn assert_refused(slack: &FakeSlack, sandbox: &Sandbox, output: Output, line: &str, hint: &str) {
    output.code(64).stdout_is("").stderr_is(&format!("agent-checkpoint: {line}\nhint: {hint}\n"));
    assert!(!sandbox.cache_path().exists(), "recorded although refused: {line}");
    assert!(slack.requests().is_empty(), "posted although refused: {line}");
}

#[test]
fn a_wrong_value_is_quoted_with_one_hint_and_changes_nothing() {
    let (slack, sandbox) = set_up();
    let long_id = "x".repeat(256);
    let long_line = format!("--agent-id: '{long_id}' has 256 characters");
    let whole = "give a whole number from 0 to 100";
    let count = "give a count such as 150000";
    let limit = "give the size of the context window, such as 200000";
    let time = "give a length of time such as 30s, 5m or 1h30m";
    let url = "give a whole URL, such as https://example.com/path";
    let channel = "give a name such as #agent-supervisory or an id such as C0123456789";
    let thread = "give CHANNEL:TS as the receipt has them, such as C0123456789:1503435956.000247";
    let all = "use one of starting, planning, working, checkpoint, waiting_approval, blocked, error, complete, \
               cancelled";
    let most = format!("give at most {}", i64::MAX);
    let rows: &[(&[&str], &str, &str)] = &[
        (&["-p", "150"], "--progress: '150' is not between 0 and 100", whole),
        (&["--progress=-1"], "--progress: '-1' is not between 0 and 100", whole),
        (&["-p", "-1"], "--progress: '-1' is not between 0 and 100", whole),
        (&["-p", "half"], "--progress: 'half' is not a whole number", whole),
        (&["-p", "99.5"], "--progress: '99.5' is not a whole number", whole),
        (&["-s", "workign"], "--status: 'workign' is not a status", "did you mean 'working'?"),
        (&["-s", "done"], "--status: 'done' is not a status", all),
        (&["-a", ""], "--agent-id: '' is empty", "give the agent a name, such as deploy-bot"),
        (&["-a", " "], "--agent-id: ' ' is empty", "give the agent a name, such as deploy-bot"),
        (&["-a", &long_id], &long_line, "use at most 255 characters"),
        (
            &["-a", "a\nb"],
            r"--agent-id: 'a\nb' holds a control character",
            "write it on one line of plain text",
        ),
        (
            &["-a", "bot\u{200b}"],
            "--agent-id: 'bot\u{200b}' holds an invisible character (U+200B)",
            "two agents must not look alike: leave it out",
        ),
        (&["-p", "\u{202e}5"], r"--progress: '\u{202e}5' is not a whole number", whole),
        (
            &["-t", "\u{1b}[31mred"],
            r"--task-name: '\u{1b}[31mred' holds a control character",
            "write it on one line of plain text",
        ),
        (&["--tokens", "-5"], "--tokens: '-5' is negative", "give a count of 0 or more"),
        (&["--tokens", "many"], "--tokens: 'many' is not a whole number", count),
        (
            &["--tokens", "9223372036854775808"],
            "--tokens: '9223372036854775808' is too large for a count",
            &most,
        ),
        (&["--context-limit", "0"], "--context-limit: '0' is not a context limit", limit),
        (&["--context-limit", "-1"], "--context-limit: '-1' is negative", "give a count of 0 or more"),
        (&["--context-warn", "101"], "--context-warn: '101' is not between 0 and 100", whole),
        (&["--context-alert", "x"], "--context-alert: 'x' is not a whole number", whole),
        (
            &["--context-warn", "90", "--context-alert", "80"],
            "--context-warn: '90' lies above --context-alert, 80",
            "warn at a lower percentage than you alert at, such as 70 and 85",
        ),
        (&["--artifact", "https://"], "--artifact: 'https://' is a URL without a host", url),
        (&["--artifact", "PR=http://a b"], "--artifact: 'PR=http://a b' is a malformed URL", url),
        (&["--artifact", "http://a:b/"], "--artifact: 'http://a:b/' is a URL with a malformed port", url),
        (
            &["--artifact", "PR="],
            "--artifact: 'PR=' names no artifact",
            "give a URL or a path, with or without NAME= in front",
        ),
        (&["--meta", "x"], "--meta: 'x' is not KEY=VALUE", "write for example --meta commit=1a2b3c4"),
        (&["--min-interval", "soon"], "--min-interval: 'soon' is not a length of time", time),
        (&["--deadline=-1s"], "--deadline: '-1s' is negative", time),
        (&["--deadline", "-1s"], "--deadline: '-1s' is negative", time),
        (&["--min-interval", "-5"], "--min-interval: '-5' is negative", time),
        (&["--min-interval", "--json"], "--min-interval: '--json' is not a length of time", time),
        (&["--thread", "C0AGENT000"], "--thread: 'C0AGENT000' is not a thread", thread),
        (&["--thread", "#general:1.2"], "--thread: '#general:1.2' is not a thread", thread),
        (&["-c", "two words"], "--channel: 'two words' is not a channel", channel),
        (&["-c", ""], "--channel: '' is not a channel", channel),
        (
            &["--background", "later"],
            "--background: 'later' is not a valid value",
            "use one of auto, always, never",
        ),
        (&["--color", "red"], "--color: 'red' is not a valid value", "use one of auto, always, never"),
        (&["--progres", "5"], "unknown argument '--progres'", "did you mean '--progress'?"),
        (
            &["- Fixed the login"],
            "unknown argument '- '",
            "write -- in front of a text that begins with a dash",
        ),
        (&["-5 degrees"], "unknown argument '-5'", "write -- in front of a text that begins with a dash"),
        (&["two", "words"], "unknown argument 'words'", "quote a text of several words"),
        (&["-p", "1", "-p", "2"], "--progress was given more than once", "give it once"),
        (&["-p"], "--progress needs a value", "write --progress <PERCENT>"),
    ];
    for (args, line, hint) in rows {
        for global in [&[][..], &["--json"], &["--quiet"]] {
            let output = sandbox.cmd(["emit"].iter().chain(*args).chain(global)).run();
            // A value that is missing takes the next flag for itself.
            if !(args.len() == 1 && args[0] == "-p" && !global.is_empty()) {
                assert_refused(&slack, &sandbox, output, line, hint);
            }
        }
    }
}

#[test]
fn a_wrong_command_line_never_ends_with_2() {
    let sandbox = Sandbox::new();
    for (args, line) in [
        (&[][..], "no command was given"),
        (&["db"], "no command was given\nhint: see agent-checkpoint db --help"),
        (&["emti"], "unknown command 'emti'\nhint: did you mean 'emit'?"),
        (&["--bogus"], "unknown argument '--bogus'"),
        (&["emit", "--bogus"], "unknown argument '--bogus'"),
        (&["show"], "<AGENT> is missing"),
        (&["tasks", "--state", "x"], "--state: 'x' is not a task state"),
        (&["completions", "x"], "'x' is not a valid value"),
        (&["emit", "--config", "missing.toml"], "could not read config file: "),
        (&["emit", "--env-file", "missing.env"], "could not read env file: "),
    ] {
        sandbox.cmd(args).run().code(64).stdout_is("").stderr_has(line).stderr_has("\nhint: ");
    }
    assert!(!sandbox.cache_path().exists());
    for args in [&["--help"][..], &["emit", "--help"], &["emit", "-h"], &["--version"]] {
        sandbox.cmd(args).run().success().stderr_is("");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_where_they_name_something() {
    let (slack, sandbox) = set_up();
    let raw = OsStr::from_bytes(b"caf\xe9");
    for flag in [
        "--agent-id",
        "--task-name",
        "--task-type",
        "--repo",
        "--channel",
        "--thread",
        "--artifact",
        "--meta",
    ] {
        // The text before it may be anything.
        let args: [&OsStr; 4] = ["emit".as_ref(), raw, flag.as_ref(), raw];
        let line = format!("{flag}: 'caf\u{fffd}' is not valid UTF-8");
        assert_refused(&slack, &sandbox, sandbox.cmd(args).run(), &line, "write it in UTF-8");
    }
    for flag in ["--heartbeat", "--timeout", "--kill-after", "--tail", "--progress-regex", "--meta"] {
        let args: [&OsStr; 5] = ["run".as_ref(), flag.as_ref(), raw, "--".as_ref(), "true".as_ref()];
        let line = format!("{flag}: 'caf\u{fffd}' is not valid UTF-8");
        assert_refused(&slack, &sandbox, sandbox.cmd(args).run(), &line, "write it in UTF-8");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_accepted_in_what_is_told() {
    let (slack, sandbox) = set_up();
    let raw = OsStr::from_bytes(b"caf\xe9 closed");
    let mut error = OsString::from("--error=");
    error.push(raw);
    let args: [&OsStr; 7] =
        ["emit".as_ref(), "-a".as_ref(), "bot".as_ref(), "-s".as_ref(), "error".as_ref(), &error, raw];
    sandbox.cmd(args).run().success().silent();
    sandbox.cmd(["emit", "-a", "bot", "-f", "-"]).stdin(b"from a pipe: \xff\xfe\n").run().success().silent();
    let shown = sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    assert_eq!(shown["checkpoints"][0]["action"], "caf\u{fffd} closed");
    assert_eq!(shown["checkpoints"][0]["error"], "caf\u{fffd} closed");
    assert_eq!(shown["checkpoints"][1]["action"], "from a pipe: \u{fffd}\u{fffd}");
    assert!(
        slack.thread(&slack.roots()[0].ts)[1].text.contains("Last Action: from a pipe: \u{fffd}\u{fffd}\n")
    );
}

#[test]
fn a_dash_reads_the_action_from_standard_input() {
    let sandbox = Sandbox::new();
    for (agent, input, action) in [
        ("a", "Committed 1a2b3c4\n", Some("Committed 1a2b3c4")),
        ("b", "  two\nlines \n\n", Some("two\nlines")),
        ("c", "", None),
        ("d", "\n", None),
        ("e", "-", Some("-")),
    ] {
        sandbox.cmd(["emit", "-a", agent, "-"]).stdin(input).run().success().stderr_is("");
        let shown = sandbox.cmd(["show", "--json", agent]).run().success().json();
        assert_eq!(shown["checkpoints"][0]["action"].as_str(), action, "{input:?}");
    }
    sandbox
        .cmd(["emit", "-a", "f", "--", "- Fixed the login"])
        .run()
        .success()
        .stdout_has(" · - Fixed the login · ");
    // Without it standard input is left alone: nobody waits for a pipe that stays open.
    let sandbox = Sandbox::new();
    let mut child = sandbox.cmd(["emit", "-a", "bot", "Text"]).spawn();
    assert!(child.wait().expect("its end").success());
}

#[test]
fn a_standard_input_that_cannot_be_read_is_named_with_a_hint() {
    let (slack, sandbox) = set_up();
    let output = sandbox.shell(r#""$BIN" emit -a bot - </"#).run();
    let line = "could not read ACTION from standard input: Is a directory";
    let hint = "give it a file or a pipe, or ACTION as an argument";
    assert_refused(&slack, &sandbox, output, line, hint);
}

#[test]
fn a_nul_byte_is_refused() {
    let (slack, sandbox) = set_up();
    let output = sandbox.cmd(["emit", "-a", "bot", "-"]).stdin("a\0b").run();
    let hint = r"remove it, for example with tr -d '\000'";
    assert_refused(&slack, &sandbox, output, "ACTION: the text holds a NUL byte", hint);
}

/// The characters of a kind in a text, and how many more a note says were cut.
fn shown_and_cut(text: &str, of: char) -> (usize, usize) {
    let shown = text.chars().filter(|c| *c == of).count();
    let cut = text.split("… (+").nth(1).and_then(|rest| rest.split(' ').next());
    (shown, cut.map_or(0, |cut| cut.replace(',', "").parse().expect("a number")))
}

#[test]
fn overlong_text_is_kept_whole_and_shortened_in_the_message_which_says_so() {
    let (slack, sandbox) = set_up();
    // Letters that no label of a message holds.
    let action = "ж".repeat(300_000);
    let error = "ф".repeat(50_000);
    let long_name = "ю".repeat(5_000);
    let target = format!("https://example.com/{}", "я".repeat(5_000));
    let words =
        ["emit", "-a", "bot", "-s", "error", "-t", &long_name, "--error", &error, "--artifact", &target, "-"];
    sandbox.cmd(words).stdin(&action).run().success().silent();
    let shown = sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    assert!(shown["checkpoints"][0]["action"] == action);
    assert!(shown["checkpoints"][0]["error"] == error);
    assert!(shown["artifacts"][0]["target"] == target);
    assert!(shown["task_name"] == long_name);

    let message = slack.roots()[0].clone();
    let blocks = message.attachments[0]["blocks"].as_array().expect("blocks").clone();
    let in_blocks = |label: &str| {
        let texts = blocks.iter().filter_map(|block| block["text"]["text"].as_str());
        texts.flat_map(str::lines).find(|line| line.contains(label)).expect(label).to_owned()
    };
    let in_text =
        |label: &str| message.text.lines().find(|line| line.starts_with(label)).expect(label).to_owned();
    for (letter, length, line) in [
        ('ж', 300_000, in_text("Last Action: ")),
        ('ж', 300_000, in_blocks("*Last Action:* ")),
        ('ф', 50_000, in_text("🔴 Error: ")),
        ('ф', 50_000, in_blocks("🔴 *Error:* ")),
        ('ю', 5_000, in_text("Task: ")),
        ('ю', 5_000, in_blocks("*Task:* ")),
    ] {
        let (kept, cut) = shown_and_cut(&line, letter);
        assert!(kept > 100 && cut > 0, "{letter}: {kept} shown, {cut} cut");
        assert_eq!(kept + cut, length, "{letter}: {kept} shown, {cut} cut");
    }
    // Printed, it is one line of a bearable length that says so too.
    let sandbox = Sandbox::new();
    let output = sandbox.cmd(["emit", "-a", "bot", "-"]).stdin("ж".repeat(5_000)).run().success();
    assert_eq!(shown_and_cut(&output.stdout, 'ж'), (200, 4_800));
}
