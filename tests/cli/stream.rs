//! `stream`: what its lines mean, what is answered to each and when, and what becomes of wrong ones.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::support::{Output, Run, Sandbox};

/// A conversation with a running stream.
pub(crate) struct Talk {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    #[track_caller]
    pub(crate) fn start(run: Run<'_>) -> Self {
        let mut child = run.spawn();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, stdin, stdout }
    }

    #[track_caller]
    pub(crate) fn say(&mut self, line: &Value) {
        self.say_text(&format!("{line}\n"));
    }

    #[track_caller]
    pub(crate) fn say_text(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("an open input");
        stdin.write_all(text.as_bytes()).expect("somebody who reads");
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a readable output");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no receipt: {error}: {line:?}"))
    }

    /// Whether there is an answer within that time.
    pub(crate) fn answers_within(&self, wait: Duration) -> bool {
        let mut streams = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
        let wait = Timespec::try_from(wait).expect("a short time");
        poll(&mut streams, Some(&wait)).expect("a pipe") > 0
    }

    /// Says a line and waits for its receipt.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &Value) -> Value {
        self.say(line);
        self.hear()
    }

    /// Ends the input and waits: exit code, and what was said on stderr.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        drop(self.stdout);
        let output = self.child.wait_with_output().expect("its end");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Runs a stream of these lines.
pub(crate) fn stream<'a>(sandbox: &'a Sandbox, args: &[&str], lines: &[Value]) -> Run<'a> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    sandbox.cmd([&["stream"], args].concat()).stdin(text)
}

#[track_caller]
fn show(sandbox: &Sandbox, agent: &str) -> Value {
    sandbox.cmd(["show", agent, "--json"]).run().success().json()
}

#[track_caller]
pub(crate) fn checkpoints(sandbox: &Sandbox, agent: &str) -> Vec<Value> {
    show(sandbox, agent)["checkpoints"].as_array().expect("a list").clone()
}

#[test]
fn a_line_means_what_the_flags_of_emit_mean() {
    let sandbox = Sandbox::new();
    let line = json!({
        "agent_id": "line", "status": "Waiting-Approval", "progress": 40.0, "action": " Asking \n twice ",
        "tokens": "1_000", "context_limit": 50_000, "error": "it\u{7}", "task_name": "Deploy", "task_type": "deploy",
        "repo": "shop", "channel": "dev", "force": true, "new": false, "thread": null,
        "artifacts": ["PR=https://example.com/pull/1", "out.txt", {"name": "log", "target": "a=b.txt"}],
        "meta": {"commit": "1a2b", "try": 2, "dry": true, "note": "a=b"},
    });
    stream(&sandbox, &[], &[line]).run().success().stderr_is("");
    let flags = [
        "emit",
        "-a",
        "flags",
        "-s",
        "waiting_approval",
        "-p",
        "40",
        " Asking \n twice ",
        "--tokens",
        "1000",
        "--context-limit",
        "50000",
        "--error",
        "it\u{7}",
        "-t",
        "Deploy",
        "--task-type",
        "deploy",
        "--repo",
        "shop",
        "-c",
        "dev",
        "-f",
        "--artifact",
        "PR=https://example.com/pull/1",
        "--artifact",
        "out.txt",
        "--artifact",
        "log=a=b.txt",
        "--meta",
        "commit=1a2b",
        "--meta",
        "try=2",
        "--meta",
        "dry=true",
        "--meta",
        "note=a=b",
    ];
    sandbox.cmd(flags).run().success();
    let shown = |agent: &str| {
        let mut shown = show(&sandbox, agent);
        for field in ["agent_id", "task_id", "started_at", "updated_at", "elapsed_ms"] {
            shown.as_object_mut().expect("an object").remove(field);
        }
        for list in ["checkpoints", "artifacts"] {
            for entry in shown[list].as_array_mut().expect("a list") {
                let entry = entry.as_object_mut().expect("an object");
                entry.retain(|name, _| !name.contains("checkpoint_id") && !name.ends_with("_at"));
            }
        }
        shown
    };
    let (line, flags) = (shown("line"), shown("flags"));
    assert_eq!(line, flags);
    assert_eq!(line["artifacts"].as_array().map(Vec::len), Some(3), "{line:#}");
    assert_eq!(line["checkpoints"][0]["meta"]["note"], "a=b", "{line:#}");
}

#[test]
fn what_a_line_does_not_say_comes_from_the_options() {
    let sandbox = Sandbox::new();
    sandbox.env("AGENT_CHECKPOINT_REPO", "from-env").env("AGENT_CHECKPOINT_CONTEXT_LIMIT", "1000");
    let args = ["--json", "--no-post", "-a", "usual", "-t", "Usual task", "--task-type", "usual"];
    let lines = [json!({"tokens": 100}), json!({"agent_id": "other", "task_name": "Other", "repo": "own"})];
    let receipts = stream(&sandbox, &args, &lines).run().success().stderr_is("").json_lines();
    let agents: Vec<_> = receipts.iter().map(|receipt| &receipt["agent_id"]).collect();
    assert_eq!(agents, ["usual", "other"]);
    assert_eq!(receipts[0]["context_percent"], 10.0);
    let (usual, other) = (show(&sandbox, "usual"), show(&sandbox, "other"));
    let fields = |task: &Value| ["task_name", "task_type", "repo"].map(|field| task[field].clone());
    assert_eq!(fields(&usual), ["Usual task", "usual", "from-env"]);
    assert_eq!(fields(&other), ["Other", "usual", "own"]);
    assert_eq!(usual["checkpoints"][0]["status"], "checkpoint");
}

#[test]
fn new_opens_one_task_for_each_agent_and_a_line_has_the_last_word() {
    let sandbox = Sandbox::new();
    let line = |agent: &str| json!({"agent_id": agent});
    stream(&sandbox, &[], &[line("a"), line("b")]).run().success();
    let lines = [line("a"), line("b"), line("a"), json!({"agent_id": "a", "new": true}), line("a")];
    let receipts = stream(&sandbox, &["--new", "--json"], &lines).run().success().json_lines();
    let task = |index: usize| receipts[index]["task_id"].clone();
    assert_eq!(task(0), task(2));
    assert_eq!(task(3), task(4));
    let tasks: HashSet<String> = (0..5).map(|index| task(index).to_string()).collect();
    assert_eq!(tasks.len(), 3);
    let kept =
        stream(&sandbox, &["--new", "--json"], &[json!({"agent_id": "a", "new": false})]).run().json_lines();
    assert_eq!(kept[0]["task_id"], task(4));
}

#[test]
fn each_line_is_answered_by_a_receipt_in_order() {
    let sandbox = Sandbox::new();
    let lines: Vec<Value> = (0..500)
        .map(|index| json!({"agent_id": format!("agent-{}", index % 7), "progress": index % 100, "action": index}))
        .collect();
    let receipts = stream(&sandbox, &["--json"], &lines).run().success().stderr_is("").json_lines();
    assert_eq!(receipts.len(), lines.len());
    for (index, (receipt, line)) in receipts.iter().zip(&lines).enumerate() {
        assert_eq!((&receipt["agent_id"], &receipt["progress"]), (&line["agent_id"], &line["progress"]));
        assert_eq!((&receipt["line"], &receipt["delivery"]), (&json!(index + 1), &json!("printed")));
    }
    let tasks: HashSet<String> = receipts.iter().map(|receipt| receipt["task_id"].to_string()).collect();
    assert_eq!(tasks.len(), 7, "one task for each agent");
    let stored = checkpoints(&sandbox, "agent-3");
    let ours: Vec<_> = receipts.iter().filter(|receipt| receipt["agent_id"] == "agent-3").collect();
    let ids = |list: &mut dyn Iterator<Item = &Value>| -> Vec<Value> {
        list.map(|one| one["checkpoint_id"].clone()).collect()
    };
    assert_eq!(ids(&mut stored.iter()), ids(&mut ours.into_iter()));
    let first = receipts[0].as_object().expect("an object");
    let emitted = sandbox.cmd(["emit", "--json", "x"]).run().success().json();
    let names = |receipt: &serde_json::Map<String, Value>| receipt.keys().cloned().collect::<HashSet<_>>();
    let mut expected = names(emitted.as_object().expect("an object"));
    expected.insert("line".to_owned());
    assert_eq!(names(first), expected);
}

#[test]
fn without_a_destination_each_checkpoint_is_printed() {
    let sandbox = Sandbox::new();
    let lines = [
        json!({"agent_id": "a", "status": "working", "progress": 50, "action": "Tests"}),
        json!({"agent_id": "b"}),
    ];
    let printed = stream(&sandbox, &[], &lines).run().success().stderr_is("").stdout;
    let expected: String = lines
        .iter()
        .map(|line| {
            let agent = line["agent_id"].as_str().expect("a text");
            let bare = Sandbox::new();
            let emit = ["emit", "-a", agent, "-s", line["status"].as_str().unwrap_or("checkpoint")];
            match line["action"].as_str() {
                Some(action) => bare.cmd([&emit[..], &["-p", "50", action]].concat()).run().success().stdout,
                None => bare.cmd(emit).run().success().stdout,
            }
        })
        .collect();
    assert_eq!(printed, expected);
    stream(&sandbox, &["--no-post"], &lines).run().success().silent();
}

#[test]
fn a_lone_line_is_acknowledged_at_once_while_the_input_stays_open() {
    let sandbox = Sandbox::new();
    let mut talk = Talk::start(sandbox.cmd(["stream", "--json"]));
    talk.ask(&json!({"agent_id": "a"}));
    let mut waits: Vec<Duration> = (0..20)
        .map(|index| {
            let since = Instant::now();
            let receipt = talk.ask(&json!({"agent_id": "a", "action": index}));
            assert_eq!(receipt["line"], index + 2);
            since.elapsed()
        })
        .collect();
    waits.sort();
    // Those that nothing else on the machine held up.
    assert!(waits[4] < Duration::from_millis(50), "{waits:?}");
    // Half a line is no line yet.
    talk.say_text("{\"agent_id\":");
    talk.say_text("\"b\"}\n\n");
    assert_eq!(talk.hear()["agent_id"], "b");
    assert_eq!(talk.end(), (Some(0), String::new()));
}

#[test]
fn bad_lines_are_named_and_skipped_and_the_good_ones_are_recorded() {
    let hint = "write one object on each line, such as {\"status\":\"working\",\"progress\":50}";
    for (line, message, hint) in [
        ("hello", "'hello' is not JSON: expected value at column 1", hint),
        ("[1]", "'[1]' is not an object", hint),
        ("42", "'42' is not an object", hint),
        ("{} {}", "'{} {}' is not JSON: trailing characters at column 4", hint),
        (
            "{\"action\":\"a\0b\"}",
            "'{\"action\":\"a\\u{0}b\"}' is not JSON: control character (\\u0000-\\u001F) found while parsing a string at column 13",
            hint,
        ),
        (
            r#"{"progress":150}"#,
            "progress: '150' is not between 0 and 100",
            "give a whole number from 0 to 100",
        ),
        (r#"{"status":"workign"}"#, "status: 'workign' is not a status", "did you mean 'working'?"),
        (r#"{"agent_id":""}"#, "agent_id: '' is empty", "give the agent a name, such as deploy-bot"),
        (r#"{"tokens":-1}"#, "tokens: '-1' is negative", "give a count of 0 or more"),
        (
            r#"{"action":"a\u0000b"}"#,
            "action: 'a\\u{0}b' holds a NUL byte",
            "remove it, for example with tr -d '\\000'",
        ),
        (r#"{"force":1}"#, "force: '1' is neither true nor false", "use true or false"),
        (
            r#"{"status":"work"#,
            "'{\"status\":\"work' is not JSON: EOF while parsing a string at column 15",
            hint,
        ),
    ] {
        let sandbox = Sandbox::new();
        let text = format!("{{\"action\":\"before\"}}\n\n{line}\n{{\"action\":\"after\"}}\n");
        let run =
            sandbox.cmd(["stream", "-a", "a", "--no-post", "--quiet", "--json"]).stdin(text).run().code(65);
        let output =
            run.stderr_is(&format!("agent-checkpoint: line 3 was skipped: {message}\nhint: {hint}\n"));
        let lines: Vec<_> = output.json_lines().iter().map(|receipt| receipt["line"].clone()).collect();
        assert_eq!(lines, [1, 4], "{line}");
        let actions: Vec<_> = checkpoints(&sandbox, "a").iter().map(|one| one["action"].clone()).collect();
        assert_eq!(actions, ["before", "after"], "{line}");
    }
}

#[test]
fn the_last_line_needs_no_line_break_but_has_to_be_whole() {
    for (text, code, count) in
        [("{}\n{}", 0, 2), ("{}\r\n{}\r\n", 0, 2), ("{}\n{\"status\":", 65, 1), ("", 0, 0), (" \n\n", 0, 0)]
    {
        let sandbox = Sandbox::new();
        let output = sandbox.cmd(["stream", "--json", "-a", "a"]).stdin(text).run().code(code);
        assert_eq!(output.json_lines().len(), count, "{text:?}");
        assert_eq!(output.stderr.contains("line 2 was skipped"), code == 65, "{output}");
    }
}

#[test]
fn a_line_over_the_limit_is_skipped_and_a_long_one_kept_whole() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(1_000_000);
    let text = format!("{{\"action\":\"{long}\"}}\n{}\n{{}}\n", "y".repeat(16 * 1024 * 1024 + 1));
    let output = sandbox.cmd(["stream", "--json", "-a", "a"]).stdin(text).run().code(65);
    assert_eq!(output.json_lines().len(), 2);
    output.stderr_is(
        "agent-checkpoint: line 2 was skipped: it is longer than 16777216 bytes\n\
         hint: keep large output in a file and name it as an artifact\n",
    );
    assert_eq!(checkpoints(&sandbox, "a")[0]["action"], long.as_str());
}

#[test]
fn invalid_utf8_is_taken_in_free_text_and_refused_in_names() {
    let sandbox = Sandbox::new();
    let text = b"{\"agent_id\":\"a\",\"action\":\"caf\xe9\",\"error\":\"\xff\"}\n{\"agent_id\":\"a\xff\"}\n{\"agent_id\":\"a\",\"meta\":{\"k\":\"\xff\"}}\n";
    let output = sandbox.cmd(["stream", "--json", "--quiet"]).stdin(text).run().code(65);
    assert_eq!(output.json_lines().len(), 1);
    let hint = "hint: write all but action and error in UTF-8\n";
    output.stderr_is(&format!(
        "agent-checkpoint: line 2 was skipped: agent_id: '\"a\u{fffd}\"' is not valid UTF-8\n{hint}\
         agent-checkpoint: line 3 was skipped: meta: '{{\"k\":\"\u{fffd}\"}}' is not valid UTF-8\n{hint}"
    ));
    assert_eq!(checkpoints(&sandbox, "a")[0]["action"], "caf\u{fffd}");
}

#[test]
fn unknown_fields_are_named_once() {
    let sandbox = Sandbox::new();
    let lines = [json!({"later": 1}), json!({"later": 2, "strict": true}), json!({"later": null})];
    let output = stream(&sandbox, &["--json", "-a", "a"], &lines).run().success();
    assert_eq!(output.json_lines().len(), 3);
    output.stderr_is(
        "agent-checkpoint: warning: line 1: unknown field 'later' is ignored\n\
         hint: fields have the names of emit's flags, in snake case\n\
         agent-checkpoint: warning: line 2: unknown field 'strict' is ignored\n\
         hint: give it to stream as an option\n",
    );
}

#[test]
fn credentials_are_masked_wherever_a_line_carries_them() {
    let sandbox = Sandbox::new();
    let (own, shape) = ("own-secret-value-1234567890", format!("xoxb-{}", "123456789012-abcdefghijkl"));
    let aws = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12";
    sandbox.env("SLACK_SIGNING_SECRET", own);
    let good = json!({
        "agent_id": format!("a-{shape}"), "action": format!("{own} \u{1b}[1mxox\u{1b}[0mb-123456789012-abcdefghijkl"),
        "error": shape, "task_name": own, "task_type": own, "repo": own, "artifacts": [format!("k={own}"), {"name": "aws_secret_access_key", "target": aws}],
        "meta": {"aws_secret_access_key": aws, own: "x"},
    });
    let text = format!(
        "{good}\n{own} is no JSON\n{}\n{}\n{}\n",
        json!({ "status": own }),
        json!({ "channel": format!("# {own}") }),
        json!({ own: 1 }),
    );
    let output = sandbox.cmd(["stream", "--json", "-v"]).stdin(text).run().code(65);
    let bytes = [sandbox.cache_path(), sandbox.cache_path().with_file_name("cache.db-wal")]
        .iter()
        .flat_map(|path| fs::read(path).unwrap_or_default())
        .collect::<Vec<u8>>();
    for secret in [own, aws, &shape, "123456789012-abcdefghijkl"] {
        let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} is in the cache");
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{secret}\n{output}");
    }
    assert!(output.stderr.contains("'[masked]' is not a status"), "{output}");
}

#[test]
fn context_warnings_name_their_agent_and_stand_in_the_receipt() {
    let sandbox = Sandbox::new();
    let line = |agent: &str, tokens: u64| json!({"agent_id": agent, "tokens": tokens});
    let lines = [line("a", 10), line("b", 75_000), line("a", 90_000), line("b", 76_000)];
    let output = stream(&sandbox, &["--context-limit", "100000", "--json"], &lines).run().success();
    let warnings: Vec<usize> = output
        .json_lines()
        .iter()
        .map(|receipt| receipt["warnings"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(warnings, [0, 1, 1, 0]);
    output.stderr_is(
        "agent-checkpoint: warning: b: context warning: 75.0% of the context is used (75,000 of 100,000 tokens): consider summarising or pruning\n\
         agent-checkpoint: warning: a: context alert: 90.0% of the context is used (90,000 of 100,000 tokens): wrap up or compact now\n",
    );
}

#[test]
fn wrong_flags_are_refused_and_wrong_settings_are_not_a_reason_to_stop() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| stream(&sandbox, args, &[json!({})]);
    for args in [
        &["--deadline", "soon"][..],
        &["--agent-id", ""],
        &["--context-limit", "0"],
        &["extra"],
        &["--thread", "x"],
    ] {
        run(args).run().code(64).stdout_is("");
    }
    assert!(!sandbox.cache_path().exists());
    sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "soon");
    let wrong = |output: Output| output.stderr_has("'soon' is not a length of time");
    assert_eq!(wrong(run(&["--json"]).run().success()).json_lines().len(), 1);
    wrong(run(&["--strict"]).run().code(78));
    sandbox.env_remove("AGENT_CHECKPOINT_MIN_INTERVAL");
    let quiet = sandbox.env("AGENT_CHECKPOINT_JSON", "1").cmd(["stream"]).stdin("{}\n").run().success();
    assert_eq!(quiet.json_lines().len(), 1, "settings count for stream as well");
}

#[test]
fn an_input_that_cannot_be_read_is_said() {
    let sandbox = Sandbox::new();
    let output = sandbox.shell(r#""$BIN" stream < ."#).run().code(65);
    output.stderr_is("agent-checkpoint: could not read standard input: Is a directory\n");
}
