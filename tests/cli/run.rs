//! `run`: what people see in Slack, and what is kept, of a wrapped command.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;

use crate::fake_slack::{CHANNEL, HUMAN};
use crate::scene::{Scene, side_by_side, text};
use crate::support::{Output, wait_for};

/// The texts of a scene's one thread, as they were posted.
fn posted(scene: &Scene) -> Vec<String> {
    let messages = scene.slack.thread(&scene.root().ts);
    messages.iter().map(|message| message.edits.first().unwrap_or(&message.text).clone()).collect()
}

/// Runs a line of shell as the agent `bot`, with more options.
fn run(scene: &Scene, options: &[&str], script: &str) -> Output {
    let words = [&["run", "-a", "bot"], options, &["--", "sh", "-c", script]].concat();
    scene.sandbox.cmd(words).run()
}

/// The checkpoints that `show` has of the agent `bot`.
fn checkpoints(scene: &Scene) -> Vec<Value> {
    scene.show("bot")["checkpoints"].as_array().expect("checkpoints").clone()
}

/// The statuses of those.
fn statuses(scene: &Scene) -> Vec<String> {
    checkpoints(scene).iter().map(|one| text(one, "status").to_owned()).collect()
}

#[test]
fn a_command_that_ends_well_is_started_and_complete() {
    let scene = Scene::bot();
    let output = scene.sandbox.cmd(["run", "-a", "bot", "--repo", "factory", "--", "echo", "hi you"]).run();
    output.success().stdout_is("hi you\n").stderr_is("");
    assert_eq!(
        posted(&scene),
        [
            "🚀 Agent `bot` – STARTING\n\nTask: echo 'hi you'\nProgress: ░░░░░░░░░░ 0%\nRepo: factory\n\
             Context: 0 / 200,000 (0.0%)\nLast Action: $ echo 'hi you'\nElapsed: 0s",
            "✅ Agent `bot` – COMPLETE\n\nTask: echo 'hi you'\nProgress: ▓▓▓▓▓▓▓▓▓▓ 100%\nRepo: factory\n\
             Context: 0 / 200,000 (0.0%)\nLast Action: $ echo 'hi you'\nElapsed: 0s",
        ]
    );
    assert_eq!(scene.root().text, posted(&scene)[1], "the card shows the end");
    let shown = scene.show("bot");
    assert_eq!((text(&shown, "state"), text(&shown, "task_name")), ("completed", "echo 'hi you'"));
    assert_eq!(statuses(&scene), ["starting", "complete"]);
    assert_eq!(checkpoints(&scene)[1]["tail"], Value::Null, "a command that ends well shows no output");
}

#[test]
fn identity_and_meta_are_those_of_emit() {
    let scene = Scene::bot();
    let options = ["--task-name", "Nightly", "--task-type", "build", "--repo", "r", "--meta", "run=7"];
    run(&scene, &options, "exit 0").success().silent();
    let shown = scene.show("bot");
    let said = ["task_name", "task_type", "repo"].map(|field| text(&shown, field));
    assert_eq!(said, ["Nightly", "build", "r"]);
    assert_eq!(shown["checkpoints"][0]["meta"], serde_json::json!({ "run": "7" }));
    // Again: a new task, a new thread.
    scene.slack.add_channel("ops", "C0OPS00000", false, false, true);
    run(&scene, &["-c", "#ops"], "exit 0").success().silent();
    let roots = scene.slack.roots();
    assert_eq!(roots.len(), 2);
    assert_ne!(roots[0].channel, roots[1].channel);
}

#[test]
fn a_command_that_fails_says_how_and_shows_its_last_lines() {
    let rows = [
        ("exit 3", "exit code 3 after 0s", 3),
        ("kill -TERM $$", "ended by SIGTERM after 0s", 143),
        ("kill -KILL $$", "ended by SIGKILL after 0s", 137),
    ];
    for (end, error, code) in rows {
        let scene = Scene::bot();
        let script = format!("echo out; echo one >&2; echo two >&2; {end}");
        let output = run(&scene, &[], &script);
        output.code(code).stdout_is("out\n").stderr_is("one\ntwo\n");
        let last = posted(&scene).pop().expect("a message");
        assert!(last.starts_with("❌ Agent `bot` – ERROR\n"), "{last}");
        assert!(last.ends_with(&format!("\n🔴 Error: {error}\nLast output:\none\ntwo")), "{last}");
        let checkpoint = checkpoints(&scene).pop().expect("an end");
        let said = ["status", "error", "tail"].map(|field| text(&checkpoint, field));
        assert_eq!(said, ["error", error, "one\ntwo"]);
        assert_eq!(text(&scene.show("bot"), "state"), "failed");
    }
}

#[test]
fn a_command_that_cannot_be_started_is_an_error_in_slack_too() {
    let scene = Scene::bot();
    let output = scene.sandbox.cmd(["run", "-a", "bot", "--", "nonesuch"]).run().code(127);
    output
        .stdout_is("")
        .stderr_is("agent-checkpoint: 'nonesuch' was not found\nhint: is it installed, and on the PATH?\n");
    let last = posted(&scene).pop().expect("a message");
    assert!(last.ends_with("\n🔴 Error: 'nonesuch' was not found"), "{last}");
    assert_eq!(statuses(&scene), ["starting", "error"]);
}

#[test]
fn a_command_that_takes_too_long_says_so() {
    let scene = Scene::bot();
    // Far more than it takes to say that.
    run(&scene, &["--timeout", "3s"], "echo working; exec sleep 60").code(124);
    let checkpoint = checkpoints(&scene).pop().expect("an end");
    assert!(text(&checkpoint, "error").starts_with("stopped: its time was over after "), "{checkpoint}");
    assert_eq!(text(&checkpoint, "tail"), "working");
}

#[test]
fn no_time_at_all_is_no_limit() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_TIMEOUT", "1ms");
    run(&scene, &["--timeout", "0"], "sleep 0.2; exit 7").code(7);
    run(&scene, &[], "exec sleep 60").code(124);
}

#[test]
fn the_tail_is_the_end_of_standard_error_or_else_of_standard_output() {
    let rows: [(&[&str], &str, Option<&str>); 7] = [
        (&[], "echo out; echo err >&2", Some("err")),
        (&[], "echo out", Some("out")),
        (&[], "echo out; echo ' ' >&2", Some("out")),
        (&["--tail", "2"], "seq 5 >&2", Some("… 3 lines before\n4\n5")),
        (&["--tail", "2"], "seq 3 >&2", Some("… 1 line before\n2\n3")),
        (&["--tail", "0"], "echo out; echo err >&2", None),
        (&[], "printf '\\033[31mred\\033[0m\\a\\tx\\r\\n10%%\\r20%%\\n' >&2", Some("red\tx\n20%")),
    ];
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_NO_POST", "true");
    for (options, script, tail) in rows {
        run(&scene, options, &format!("{script}; exit 1")).code(1);
        let checkpoint = checkpoints(&scene).pop().expect("an end");
        assert_eq!(checkpoint["tail"].as_str(), tail, "{script}");
    }
    assert_eq!(scene.slack.requests().len(), 0);
    // Twenty lines unless told otherwise.
    run(&scene, &[], "seq 30; exit 1").code(1);
    let tail = checkpoints(&scene).pop().expect("an end")["tail"].as_str().expect("a tail").to_owned();
    assert_eq!((tail.lines().count(), tail.lines().nth(1)), (21, Some("11")));
}

#[test]
fn nothing_in_the_tail_is_markup() {
    let scene = Scene::bot();
    let evil = "<!channel> <@U0HUMAN000> @here ``` *bold* <https://example.com|x> & </>";
    scene.sandbox.write("evil", format!("{evil}\n```\n<!here>\n"));
    run(&scene, &[], "cat evil >&2; exit 1").code(1);
    let checkpoint = checkpoints(&scene).pop().expect("an end");
    assert_eq!(text(&checkpoint, "tail"), format!("{evil}\n```\n<!here>"), "it is kept to the letter");
    let thread = scene.slack.thread(&scene.root().ts);
    let blocks = &thread.last().expect("a reply").attachments[0]["blocks"];
    let blocks = blocks.as_array().expect("blocks");
    let literal = blocks.iter().find(|block| block["type"] == "rich_text").expect("literal text");
    assert_eq!(literal["elements"][0]["type"], "rich_text_preformatted");
    assert_eq!(literal["elements"][0]["elements"][0]["text"], format!("{evil}\n```\n<!here>"));
    // That nobody was notified is looked at when the scene ends.
}

#[test]
fn a_tail_too_long_for_a_message_is_cut_from_the_front_and_attached_as_a_file() {
    for (has_files, count) in [(true, 1), (false, 0)] {
        let scene = Scene::bot();
        if !has_files {
            scene.slack.set_scopes(&["chat:write", "channels:read", "channels:history"]);
        }
        let script = "seq -f 'line number %g of a long output' 500 >&2; exit 1";
        run(&scene, &["--tail", "200"], script).code(1);
        let tail = text(&checkpoints(&scene).pop().expect("an end"), "tail").to_owned();
        assert!(tail.starts_with("… 300 lines before\nline number 301 "), "{tail}");
        let last = posted(&scene).pop().expect("a message");
        assert!(
            last.contains("Last output:\n(+") && last.ends_with("line number 500 of a long output"),
            "{last}"
        );
        let uploads = scene.slack.uploads();
        assert_eq!(uploads.len(), count, "{uploads:?}");
        for upload in uploads {
            assert_eq!(upload.content.as_deref(), Some(tail.as_str()));
            assert_eq!(upload.title.as_deref(), Some("Output of bot"));
            assert_eq!(upload.thread_ts, Some(scene.root().ts));
        }
        // Nothing is left to try.
        scene.flush();
        assert_eq!(scene.show("bot")["waiting"], Value::Null);
        assert_eq!(scene.slack.uploads().len(), count);
    }
}

#[test]
fn what_the_command_says_of_itself_joins_its_task_and_thread() {
    let scene = Scene::bot();
    let emit = r#""$BIN" emit -s blocked -p 40 'Need a key'"#;
    let line = format!(r#""$BIN" run -a bot -- sh -c '{}'"#, emit.replace('\'', r"'\''"));
    scene.sandbox.shell(&line).run().success().silent();
    assert_eq!(statuses(&scene), ["starting", "blocked", "complete"]);
    assert_eq!(posted(&scene).len(), 3);
}

#[test]
fn the_commands_own_last_word_is_kept() {
    let rows: [(&str, i32, &[&str], &str); 5] = [
        ("complete", 0, &["starting", "complete"], "completed"),
        ("complete", 3, &["starting", "complete", "error"], "failed"),
        ("cancelled", 0, &["starting", "cancelled"], "cancelled"),
        ("cancelled", 3, &["starting", "cancelled"], "cancelled"),
        ("error", 0, &["starting", "error", "complete"], "completed"),
    ];
    for (said, code, expected, state) in rows {
        let scene = Scene::bot();
        let line = format!(r#""$BIN" run -a bot -- sh -c '"$BIN" emit -s {said} "Last word"; exit {code}'"#);
        // Well within the deadline: where nothing is left to say, nothing is waited for.
        scene.sandbox.shell(&line).run().code(code).within(Duration::from_secs(8));
        assert_eq!(statuses(&scene), expected, "{said} {code}");
        assert_eq!(text(&scene.show("bot"), "state"), state, "{said} {code}");
        assert_eq!(posted(&scene).len(), expected.len(), "{said} {code}");
    }
}

#[test]
fn a_task_that_the_command_opens_after_its_first_is_seen_to_and_ended_as_well() {
    let rows = [
        // (what the command says, its code, how the first task ends, how the last one does)
        ("emit --new -s working Second", 0, ("cancelled", ""), ("complete", "")),
        ("emit --new -s working Second", 3, ("cancelled", ""), ("error", "exit code 3")),
        (
            "emit -s complete First; $BIN emit -s working Second",
            3,
            ("complete", ""),
            ("error", "exit code 3"),
        ),
        ("emit --new Between; $BIN emit --new Second", 3, ("cancelled", ""), ("error", "exit code 3")),
        (
            r#"emit First; echo '{"new":true,"action":"Second"}' | $BIN stream"#,
            3,
            ("cancelled", ""),
            ("error", "exit code 3"),
        ),
        // By itself ended, so all is said.
        ("emit --new Second; $BIN emit -s cancelled Bye", 3, ("cancelled", ""), ("cancelled", "")),
        // Of another name, so not ours.
        ("emit --new -a other Second", 3, ("error", "exit code 3"), ("error", "exit code 3")),
    ];
    let outcome = |task: &Value| {
        let reason = text(task, "error").split(" after").next().unwrap_or_default().to_owned();
        (text(task, "status").to_owned(), reason)
    };
    let owned = |(status, error): (&str, &str)| (status.to_owned(), error.to_owned());
    side_by_side(rows, |(said, code, first, last)| {
        let scene = Scene::bot();
        let script = format!("$BIN {said} && exit {code}");
        let words = ["run", "-a", "bot", "--json", "--", "sh", "-c", &script];
        let output =
            scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).run().code(code);
        let receipt: Value =
            serde_json::from_str(output.stdout.lines().last().expect("a receipt")).expect("JSON");
        let shown = scene.show("bot");
        assert_eq!(receipt["task_id"], shown["task_id"], "{said}");
        assert_eq!(outcome(&shown), owned(last), "{said}");
        let tasks = scene.sandbox.cmd(["tasks", "--json"]).run().success().json();
        let mut tasks: Vec<&Value> = tasks.as_array().expect("tasks").iter().collect();
        tasks.retain(|task| task["agent_id"] == "bot");
        tasks.sort_by_key(|task| text(task, "task_id"));
        assert_eq!(outcome(tasks[0]), owned(first), "{said}");
        assert!(tasks.iter().all(|task| task["state"] != "running"), "{said}");
        let roots = scene.slack.roots();
        assert!(roots.iter().any(|root| root.text.contains(&last.0.to_uppercase())), "{roots:#?}");
    });
}

#[test]
fn a_task_that_the_command_opens_has_a_thread_of_its_own_unless_it_is_told_to_join_one() {
    // Whether the command was told in time of the task in which the wrapper went on, or of one that was never opened.
    for (is_told, by_stream) in [(true, false), (true, true), (false, false)] {
        let scene = Scene::bot();
        scene.sent(["-s", "working", "First"]);
        let first = scene.root().ts;
        let mut wrapper =
            scene.sandbox.cmd(["run", "-a", "bot", "--", "sh", "-c", "echo up; cat; exit 3"]).spawn();
        let up = BufReader::new(wrapper.stdout.take().expect("a pipe")).lines().next();
        assert_eq!(up.expect("a line").expect("text"), "up");
        wait_for("the wrapper's start", || (checkpoints(&scene).len() == 2).then_some(()));
        let task = match is_told {
            true => text(&scene.show("bot"), "task_id").to_owned(),
            false => "0190b6a5-7d1c-7000-8000-000000000000".to_owned(),
        };
        let inside = |words: &[&str], input: &str| {
            let call = scene.sandbox.cmd(words).env("AGENT_CHECKPOINT_AGENT_ID", "bot");
            let call = call.env("AGENT_CHECKPOINT_TASK", &task).stdin(input);
            call.env("AGENT_CHECKPOINT_THREAD", format!("{CHANNEL}:{first}")).run().success().silent();
        };
        match by_stream {
            true => inside(&["stream"], r#"{"new":true,"action":"Second"}"#),
            false => inside(&["emit", "--new", "Second"], ""),
        }
        inside(&["emit", "--force", "Third"], "");
        drop(wrapper.stdin.take());
        assert_eq!(wrapper.wait().expect("an end").code(), Some(3));
        let shown = scene.show("bot");
        assert_eq!(text(&shown, "status"), "error", "{is_told}");
        let roots = scene.slack.roots();
        assert_eq!(roots.len(), 2, "{roots:#?}");
        let second = scene.slack.thread(text(&shown, "thread_ts"));
        assert_ne!(second[0].ts, first);
        assert!(second.iter().any(|message| message.text.contains("Last Action: Third")), "{second:#?}");
    }
    let scene = Scene::bot();
    let ts = scene.slack.say(CHANNEL, None, HUMAN, "Please deploy");
    let thread = format!("{CHANNEL}:{ts}");
    let words = ["run", "-a", "bot", "--thread", &thread, "--", "sh", "-c", "$BIN emit --new Second"];
    let program = env!("CARGO_BIN_EXE_agent-checkpoint");
    scene.sandbox.cmd(words).env("BIN", program).run().success().silent();
    assert_eq!(scene.slack.roots().len(), 1);
}

#[test]
fn with_json_the_receipt_is_the_last_line_of_standard_output() {
    let scene = Scene::bot();
    let output = run(&scene, &["--json"], "echo out; exit 4").code(4).stderr_is("");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "out"));
    let receipt: Value = serde_json::from_str(lines[1]).expect("a receipt");
    let thread = scene.slack.thread(&scene.root().ts);
    let end = checkpoints(&scene).pop().expect("an end");
    assert_eq!(receipt["checkpoint_id"], end["checkpoint_id"]);
    assert_eq!(receipt["task_id"], scene.show("bot")["task_id"]);
    assert_eq!(receipt["message_ts"], thread[1].ts.as_str());
    assert_eq!(receipt["thread_ts"], thread[0].ts.as_str());
    let said = ["agent_id", "status", "delivery", "channel", "audit"].map(|field| text(&receipt, field));
    assert_eq!(said, ["bot", "error", "sent", "C0AGENT000", "off"]);
    assert_eq!((&receipt["error"], &receipt["warnings"]), (&Value::Null, &serde_json::json!([])));
}

#[test]
fn talk_goes_to_standard_error_and_only_when_wanted() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_NO_POST", "true");
    for (options, talks) in
        [(&[][..], false), (&["-v"][..], true), (&["-v", "-q"][..], true), (&["-q"][..], false)]
    {
        let output = run(&scene, options, "echo out").success().stdout_is("out\n");
        assert_eq!(!output.stderr.is_empty(), talks, "{options:?} {output}");
    }
    // Without a destination too.
    scene.sandbox.env_remove("SLACK_BOT_TOKEN").env_remove("AGENT_CHECKPOINT_NO_POST");
    run(&scene, &[], "echo out").success().stdout_is("out\n").stderr_is("");
    let output = run(&scene, &["-v"], "exit 2").code(2).stdout_is("");
    output.stderr_has("❌ ERROR bot · sh -c 'exit 2'").stderr_has("🔴 exit code 2 after 0s");
}
