//! `run` while its command runs: the heartbeat, and progress read from the output.

use std::io::{BufRead, BufReader};
use std::process::Child;

use serde_json::Value;

use crate::scene::{Scene, text};
use crate::support::wait_for;

/// A command of the agent `bot` that runs until its input is closed, with what it prints.
fn start(scene: &Scene, options: &[&str], script: &str) -> Child {
    let words = [&["run", "-a", "bot"], options, &["--", "sh", "-c", script]].concat();
    scene.sandbox.cmd(words).spawn()
}

fn end(mut child: Child) -> Option<i32> {
    drop(child.stdin.take());
    child.wait().expect("an end").code()
}

#[test]
fn a_heartbeat_edits_the_card_and_posts_nothing() {
    let scene = Scene::bot();
    let child = start(&scene, &["--heartbeat", "300ms"], "cat");
    // Whichever second an edit shows.
    wait_for("the card to show the time that passes", || {
        let root = scene.slack.roots().pop()?;
        (root.text.contains("\nElapsed: ") && !root.text.contains("\nElapsed: 0s")).then_some(())
    });
    let root = scene.root();
    assert_eq!(scene.slack.thread(&root.ts).len(), 1);
    assert!(root.text.starts_with("🚀 Agent `bot` – STARTING\n") && !root.edits.is_empty(), "{root:?}");
    let shown = scene.show("bot");
    assert!(shown["seen_at"].as_str() > shown["updated_at"].as_str(), "{shown}");
    assert_eq!(shown["checkpoint_count"], 1);
    assert_eq!(end(child), Some(0));
}

#[test]
fn a_heartbeat_of_zero_is_none() {
    let scene = Scene::bot();
    let child = start(&scene, &["--heartbeat", "0"], "sleep 1.3");
    assert_eq!(end(child), Some(0));
    let edits = scene.slack.calls("chat.update");
    assert_eq!(edits.len(), 1, "the end's alone");
    assert!(edits[0].args["text"].as_str().expect("a text").contains("COMPLETE"));
}

#[test]
fn progress_in_the_output_is_shown() {
    struct Row<'a> {
        options: &'a [&'a str],
        /// As printf(1) takes it.
        line: &'a str,
        bar: &'a str,
        progress: u8,
        action: Option<&'a str>,
    }
    let counted = r"\[(?P<done>\d+)/(?P<total>\d+)\] (?P<action>\w+)";
    let percent = "(?P<percent>[0-9]+)%";
    let rows = [
        Row {
            options: &["--progress-regex", percent],
            line: "downloading 42%%",
            bar: "▓▓▓▓░░░░░░ 42%",
            progress: 42,
            action: None,
        },
        Row {
            options: &["--progress-regex", counted],
            line: "[3/4] linking all",
            bar: "▓▓▓▓▓▓▓░░░ 75%",
            progress: 75,
            action: Some("linking"),
        },
        Row {
            options: &[], line: r"\033]9;4;1;30\007", bar: "▓▓▓░░░░░░░ 30%", progress: 30, action: None
        },
        Row {
            options: &["--tail", "0", "--progress-regex", percent],
            line: "5%%",
            bar: "░░░░░░░░░░ 5%",
            progress: 5,
            action: None,
        },
    ];
    crate::scene::side_by_side(rows, |row| {
        let scene = Scene::bot();
        let options = [row.options, &["--min-interval", "0"]].concat();
        let mut child = start(&scene, &options, &format!("printf '{}\\n'; cat", row.line));
        wait_for("the card to show it", || {
            let root = scene.slack.roots().pop()?;
            (root.text.contains(row.bar) && root.text.contains("– WORKING\n")).then_some(())
        });
        // What passes is not changed.
        let mut output = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut output).expect("a line");
        let line = row.line.replace("%%", "%").replace(r"\033", "\u{1b}").replace(r"\007", "\u{7}");
        assert_eq!(output, line + "\n");
        assert_eq!(end(child), Some(0));
        let told = &scene.show("bot")["checkpoints"][1];
        assert_eq!(
            (told["progress"].as_u64(), told["action"].as_str()),
            (Some(row.progress.into()), row.action)
        );
    });
}

#[test]
fn much_progress_becomes_few_checkpoints_and_the_last_one_counts() {
    let scene = Scene::bot();
    let script = "for i in $(seq 0 90); do echo $i%; sleep 0.005; done; exit 1";
    let child = start(&scene, &["--no-post", "--progress-regex", "(?P<percent>[0-9]+)%"], script);
    assert_eq!(end(child), Some(1));
    let shown = scene.show("bot");
    let checkpoints = shown["checkpoints"].as_array().expect("checkpoints");
    let count = checkpoints.len();
    // One a second at most, beside the first and the last two.
    let seconds = checkpoints[count - 1]["elapsed_seconds"].as_u64().expect("a time");
    assert!(
        (3..=3 + seconds).contains(&u64::try_from(count).expect("a small number")),
        "{count} in {seconds} s"
    );
    let last: Vec<_> =
        checkpoints[count - 2..].iter().map(|one| (text(one, "status"), &one["progress"])).collect();
    assert_eq!(last, [("working", &Value::from(90)), ("error", &Value::from(90))]);
}

#[test]
fn what_the_command_says_of_itself_is_not_undone_by_a_heartbeat() {
    let scene = Scene::bot();
    let script = r#""$BIN" emit -s waiting_approval -p 60 "May I?"; echo said; cat"#;
    let line = format!(r#"exec "$BIN" run -a bot --heartbeat 200ms -- sh -c '{script}'"#);
    let mut child = scene.sandbox.shell(&line).spawn();
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("said"));
    let edits = scene.slack.calls("chat.update").len();
    wait_for("two more edits", || (scene.slack.calls("chat.update").len() >= edits + 2).then_some(()));
    let root = scene.root();
    assert!(root.text.contains("– WAITING_APPROVAL\n") && root.text.contains("60%"), "{}", root.text);
    assert_eq!(scene.slack.thread(&root.ts).len(), 2);
    assert_eq!(end(child), Some(0));
}

#[test]
fn the_settings_of_run_come_from_the_environment_and_the_config_file_too() {
    let config = "heartbeat = \"250ms\"\ntail = 1\ntimeout = \"3s\"\nkill_after = \"100ms\"\n\
                  progress_regex = '(?P<percent>[0-9]+)%'\n";
    let variables = [
        ("AGENT_CHECKPOINT_HEARTBEAT", "250ms"),
        ("AGENT_CHECKPOINT_TAIL", "1"),
        ("AGENT_CHECKPOINT_TIMEOUT", "3s"),
        ("AGENT_CHECKPOINT_KILL_AFTER", "100ms"),
        ("AGENT_CHECKPOINT_PROGRESS_REGEX", "(?P<percent>[0-9]+)%"),
    ];
    crate::scene::side_by_side([true, false], |by_file| {
        let scene = Scene::bot();
        if by_file {
            scene.sandbox.write(scene.sandbox.config_path(), config);
        } else {
            for (name, value) in variables {
                scene.sandbox.env(name, value);
            }
        }
        let script = "trap '' TERM; echo 7%; echo two; while :; do sleep 0.02; done";
        let child = start(&scene, &["--no-post"], script);
        assert_eq!(end(child), Some(124));
        let shown = scene.show("bot");
        assert!(text(&shown, "error").starts_with("stopped: its time was over after "), "{shown}");
        assert_eq!(shown["progress"], 7);
        assert_eq!(text(&shown["checkpoints"][2], "tail"), "… 1 line before\ntwo");
        assert!(shown["seen_at"].as_str() > shown["started_at"].as_str(), "a heartbeat: {shown}");
        // Flags go first.
        let child = start(&scene, &["--no-post", "--tail", "0", "--timeout", "1m"], "echo 9%; exit 1");
        assert_eq!(end(child), Some(1));
        assert_eq!(
            scene.show("bot")["checkpoints"].as_array().expect("some").last().expect("one")["tail"],
            Value::Null
        );
    });
}

#[test]
fn settings_that_make_no_sense_are_named_and_replaced_by_their_defaults() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_TAIL", "many").env("AGENT_CHECKPOINT_PROGRESS_REGEX", "x");
    let words = ["run", "-a", "bot", "--no-post", "--", "sh", "-c", "echo out; exit 1"];
    let output = scene.sandbox.cmd(words).run().code(1).stdout_is("out\n");
    output
        .stderr_has("AGENT_CHECKPOINT_TAIL: 'many'")
        .stderr_has("AGENT_CHECKPOINT_PROGRESS_REGEX: 'x' has no group");
    assert_eq!(scene.show("bot")["checkpoints"][1]["tail"], "out");
}
