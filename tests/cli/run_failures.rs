//! `run` when something fails: the command notices nothing of it, and what was written down is not lost.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;

use crate::fake_slack::Fault;
use crate::run_child::signal;
use crate::scene::{Scene, side_by_side, text};
use crate::support::{Output, Sandbox, wait_for};

/// What a command prints once it runs.
const READY: &str = "ready";

/// The lines of a process that was just started, from the first one that says that the command runs.
fn ready(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let stdout: ChildStdout = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some(READY));
    lines
}

/// The last checkpoint of the agent `bot`.
#[track_caller]
fn end(sandbox: &Sandbox) -> Value {
    let shown = sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    shown["checkpoints"].as_array().expect("checkpoints").last().expect("a checkpoint").clone()
}

#[test]
fn the_exit_code_and_output_are_the_commands_whatever_fails() {
    type Deed = fn(&Scene);
    let rows: [(&str, Deed); 12] = [
        ("nothing", |_| {}),
        ("Slack hangs", |scene| scene.slack.hold()),
        ("Slack refuses", |scene| scene.slack.revoke_token()),
        ("Slack fails", |scene| scene.slack.script("*", vec![Fault::Status(500); 40])),
        ("Slack is down", |scene| {
            scene.sandbox.env("SLACK_API_URL", "http://127.0.0.1:9/api/");
        }),
        ("the cache is no database", |scene| {
            scene
                .sandbox
                .write(scene.sandbox.cache_path(), "not a database, but long enough to be looked at");
        }),
        ("the cache is a directory", |scene| {
            scene.sandbox.write(scene.sandbox.cache_path().join("file"), "");
        }),
        ("the cache is newer", |scene| {
            scene.sandbox.cmd(["emit", "--no-post", "-a", "other"]).run().success();
            let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
            cache.pragma_update(None, "user_version", 999).expect("a version");
        }),
        ("the settings are wrong", |scene| {
            scene.sandbox.env("AGENT_CHECKPOINT_TAIL", "many").env("AGENT_CHECKPOINT_HEARTBEAT", "often");
            scene.sandbox.env("AGENT_CHECKPOINT_PROGRESS_REGEX", "(").env("AGENT_CHECKPOINT_TIMEOUT", "-1");
        }),
        ("the config file is broken", |scene| {
            scene.sandbox.write(scene.sandbox.config_path(), "tail = = 3");
        }),
        ("the config file is missing", |scene| {
            scene.sandbox.env("AGENT_CHECKPOINT_CONFIG", "/nonexistent/config.toml");
        }),
        ("the destination is wrong", |scene| {
            scene.sandbox.env("SLACK_CHANNEL", "no such name");
        }),
    ];
    side_by_side(rows, |(what, deed)| {
        let scene = Scene::bot();
        deed(&scene);
        for code in [0, 7] {
            let script = format!("cat; echo err >&2; exit {code}");
            let words = ["run", "-a", "bot", "-q", "--deadline", "300ms", "--", "sh", "-c", &script];
            let output = scene.sandbox.cmd(words).stdin("in and out").run();
            assert_eq!((output.code, output.stdout.as_str()), (Some(code), "in and out"), "{what}: {output}");
            assert!(output.stderr.contains("err\n"), "{what}: {output}");
            assert!(output.elapsed < Duration::from_secs(8), "{what}: {output}");
        }
    });
}

#[test]
fn the_command_starts_although_slack_hangs() {
    let scene = Scene::bot();
    scene.slack.hold();
    let words =
        ["run", "-a", "bot", "--deadline", "200ms", "--", "sh", "-c", "echo ready; read line; exit 5"];
    let mut child = scene.sandbox.cmd(words).spawn();
    let _lines = ready(&mut child);
    scene.slack.wait_requests(1);
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("an end").code(), Some(5));
    let end = end(&scene.sandbox);
    assert_eq!(text(&end, "status"), "error");
    assert!(text(&end, "error").starts_with("exit code 5 after "), "{end}");
    // What Slack did not take is sent later, to one thread.
    scene.slack.release();
    scene.flush();
    assert_eq!(scene.slack.thread(&scene.root().ts).len(), 2);
}

/// Keeps everyone else from writing to the cache until it is dropped.
fn lock(sandbox: &Sandbox) -> Connection {
    sandbox.cmd(["emit", "--no-post", "-a", "other"]).run().success();
    let cache = Connection::open(sandbox.cache_path()).expect("a cache");
    cache.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    cache
}

#[test]
fn the_command_starts_although_the_cache_is_locked_and_is_recorded_once_it_is_free() {
    let scene = Scene::bot();
    let lock = lock(&scene.sandbox);
    let words = ["run", "-a", "bot", "--", "sh", "-c", "echo ready; read line; exit 5"];
    let mut child = scene.sandbox.cmd(words).spawn();
    let _lines = ready(&mut child);
    drop(lock);
    let recorded = || {
        let found = scene.sandbox.cmd(["show", "--json", "bot"]).run();
        (found.code == Some(0)).then_some(())
    };
    wait_for("the start", recorded);
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("an end").code(), Some(5));
    let end = end(&scene.sandbox);
    assert!(text(&end, "error").starts_with("exit code 5 after "), "{end}");
    assert_eq!(scene.slack.thread(&scene.root().ts).len(), 2);
}

#[test]
fn a_cache_that_stays_locked_costs_no_more_than_the_deadline_and_the_end_is_posted_without_it() {
    let scene = Scene::bot();
    let _lock = lock(&scene.sandbox);
    let words = ["run", "-a", "bot", "--deadline", "3s", "--json", "--", "sh", "-c", "echo out >&2; exit 5"];
    let output = scene.sandbox.cmd(words).run().code(5).within(Duration::from_secs(8));
    let output = output.stderr_has("it is kept busy by other processes; going on without state");
    let receipt = output.json();
    assert_eq!((text(&receipt, "delivery"), &receipt["task_id"]), ("sent", &Value::Null), "{output}");
    let root = scene.root();
    let last = scene.slack.thread(&root.ts).pop().expect("a message");
    assert_eq!((text(&receipt, "thread_ts"), text(&receipt, "message_ts")), (&*root.ts, &*last.ts));
    assert!(last.text.ends_with("🔴 Error: exit code 5 after 0s\nLast output:\nout"), "{}", last.text);
}

#[test]
fn an_end_that_can_be_posted_nowhere_is_recorded_once_the_cache_is_free() {
    side_by_side([Fault::Status(503), Fault::ErrorName("is_archived")], |fault| {
        let scene = Scene::bot();
        let lock = lock(&scene.sandbox);
        scene.slack.script("chat.postMessage", vec![fault; 50]);
        let words =
            ["run", "-a", "bot", "--deadline", "3s", "--json", "--", "sh", "-c", "echo ready; exit 5"];
        let mut child = scene.sandbox.cmd(words).spawn();
        let mut lines = ready(&mut child);
        // Before the cache was given up nothing is posted.
        scene.slack.wait_requests(1);
        drop(lock);
        let receipt: Value = serde_json::from_str(&lines.next().expect("a receipt")).expect("JSON");
        assert_eq!(child.wait().expect("an end").code(), Some(5));
        assert_eq!(
            (text(&receipt, "delivery"), receipt["task_id"].is_string()),
            ("queued", true),
            "{receipt}"
        );
        assert!(!receipt.to_string().contains("without state"), "{receipt}");
        assert!(text(&end(&scene.sandbox), "error").starts_with("exit code 5 after "));
    });
}

#[test]
fn a_cache_that_fails_meanwhile_keeps_neither_the_code_nor_the_last_message_back() {
    let scene = Scene::bot();
    let words =
        ["run", "-a", "bot", "--deadline", "2s", "--json", "--", "sh", "-c", "echo ready; read line; exit 5"];
    let mut child = scene.sandbox.cmd(words).spawn();
    let mut lines = ready(&mut child);
    wait_for("the first message", || (scene.slack.roots().len() == 1).then_some(()));
    wait_for("its note in the cache", || scene.show("bot")["thread_ts"].is_string().then_some(()));
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    cache.execute_batch("DROP TABLE checkpoints").expect("a damaged cache");
    drop(child.stdin.take());
    let receipt: Value = serde_json::from_str(&lines.next().expect("a receipt")).expect("JSON");
    assert_eq!(child.wait().expect("an end").code(), Some(5));
    assert_eq!(text(&receipt, "delivery"), "sent", "{receipt}");
    let thread = scene.slack.thread(&scene.root().ts);
    assert_eq!(thread.len(), 2, "in the thread that there is");
    assert!(thread[1].text.contains("exit code 5"), "{}", thread[1].text);
}

#[test]
fn a_full_disk_keeps_neither_the_code_nor_the_messages_back() {
    let scene = Scene::bot();
    let line = "trap '' XFSZ; ulimit -f 0; exec \"$BIN\" run -a bot -- sh -c 'echo err >&2; exit 5'";
    let output = scene.sandbox.shell(line).run().code(5).stderr_has("err\n");
    output.stderr_has("going on without state");
    let thread = scene.slack.thread(&scene.root().ts);
    assert_eq!(thread.len(), 2, "{thread:?}");
    assert!(thread[0].text.contains("STARTING") && thread[1].text.contains("exit code 5"), "{thread:?}");
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let sandbox = Sandbox::new();
    let output = sandbox.shell("exec \"$BIN\" run -- sh -c 'yes | head -c 1000000' >/dev/full").run();
    output.stdout_is("").stderr_has(
        "agent-checkpoint: warning: the command's output was cut off: \
         could not write to standard output: no space left on device\n",
    );
    // Whoever closed it knows.
    let line = "{ $BIN run -- yes; echo $? >code; } | head -1 && cat code";
    sandbox.shell(line).run().success().stdout_is("y\n141\n").stderr_is("");
}

#[test]
fn a_standard_output_that_takes_no_receipt_does_not_change_the_exit_code() {
    let sandbox = Sandbox::new();
    let output = sandbox.shell("exec \"$BIN\" run --json -- sh -c 'exit 3' >/dev/full").run().code(3);
    output.stderr_has("could not write to standard output: No space left on device");
}

#[cfg(target_os = "linux")]
#[test]
fn the_end_is_stored_whatever_the_signal() {
    for (name, code) in [("INT", 130), ("HUP", 129), ("QUIT", 131), ("TERM", 143)] {
        let scene = Scene::bot();
        // A process group of its own, as of a job without a terminal.
        let mut child = scene
            .sandbox
            .shell("exec setsid \"$BIN\" run -a bot -- sh -c 'echo ready; exec sleep 60'")
            .spawn();
        let _lines = ready(&mut child);
        signal(&child, format!("SIG{name}").parse().expect("a signal"));
        assert_eq!(child.wait().expect("an end").code(), Some(code), "{name}");
        let end = end(&scene.sandbox);
        assert_eq!((text(&end, "status"), text(&end, "delivery")), ("error", "sent"), "{name}");
        assert!(text(&end, "error").starts_with(&format!("ended by SIG{name}")), "{end}");
        assert!(scene.root().text.contains(text(&end, "error")), "{name}");
    }
}

#[test]
fn an_interrupt_during_the_last_delivery_ends_it_with_the_end_on_disk() {
    for name in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let scene = Scene::bot();
        scene.slack.hold();
        let words = ["run", "-a", "bot", "--deadline", "10m", "--", "sh", "-c", "echo ready; exit 6"];
        let mut child = scene.sandbox.cmd(words).spawn();
        let _lines = ready(&mut child);
        let stored = || {
            let found = scene.sandbox.cmd(["show", "--json", "bot"]).run();
            (found.code == Some(0) && found.json()["status"] == "error").then_some(())
        };
        wait_for("the end on disk", stored);
        let since = Instant::now();
        signal(&child, name);
        assert_eq!(child.wait().expect("an end").code(), Some(6), "{name}");
        assert!(since.elapsed() < Duration::from_secs(10), "{name}");
        scene.slack.release();
        scene.flush();
        assert!(scene.root().text.contains("exit code 6"));
    }
}

#[test]
fn an_interrupt_ends_the_report_of_a_command_that_could_not_be_started() {
    let rows = [
        (Signal::SIGINT, "./nonesuch", 127),
        (Signal::SIGTERM, "./plain.txt", 126),
        (Signal::SIGHUP, "./nonesuch", 127),
        (Signal::SIGQUIT, "./nonesuch", 127),
    ];
    side_by_side(rows, |(name, program, code)| {
        let scene = Scene::bot();
        scene.sandbox.write("plain.txt", "no program");
        scene.slack.hold();
        let mut child = scene.sandbox.cmd(["run", "-a", "bot", "--deadline", "10m", "--", program]).spawn();
        wait_for("the end on disk", || {
            let found = scene.sandbox.cmd(["show", "--json", "bot"]).run();
            (found.code == Some(0) && found.json()["status"] == "error").then_some(())
        });
        let since = Instant::now();
        signal(&child, name);
        assert_eq!(child.wait().expect("an end").code(), Some(code), "{name}");
        assert!(since.elapsed() < Duration::from_secs(10), "{name}");
        scene.slack.release();
        scene.flush();
        assert!(scene.root().text.contains(program), "{name}");
    });
}

#[test]
fn an_interrupt_after_the_end_does_not_wait_for_a_reader_that_never_reads() {
    let sandbox = Sandbox::new();
    // More than the test's pipe holds, and less than what is on its way in all.
    let script = "head -c 200000 /dev/zero; echo $? >written";
    let mut child = sandbox.cmd(["run", "-a", "bot", "--", "sh", "-c", script]).spawn();
    let is_stored = || {
        let found = sandbox.cmd(["show", "--json", "bot"]).run();
        (found.code == Some(0) && found.json()["status"] == "complete").then_some(())
    };
    wait_for("the end on disk", is_stored);
    assert_eq!(child.try_wait().expect("a child"), None, "its output is not read yet");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn the_deadline_holds_at_the_end() {
    for background in ["auto", "never"] {
        let scene = Scene::bot();
        scene.slack.hold();
        let words = ["run", "-a", "bot", "--deadline", "300ms", "--background", background, "--", "true"];
        let output = scene.sandbox.cmd(words).run().success().within(Duration::from_secs(6));
        output.stderr_has("agent-checkpoint: warning: recorded, but not in Slack yet (");
        assert_eq!(scene.sandbox.couriers().len(), usize::from(background == "auto"), "{background}");
        // What hangs now comes too late.
        scene.slack.release();
        if background == "auto" {
            wait_for("the courier to send the end", || {
                let roots = scene.slack.roots();
                roots.iter().any(|root| root.text.contains("COMPLETE")).then_some(())
            });
        } else {
            scene.flush();
        }
        assert_eq!(scene.slack.thread(&scene.root().ts).len(), 2, "{background}");
    }
}

#[test]
fn the_courier_or_nobody_sends_as_asked() {
    let scene = Scene::bot();
    let run = |options: &[&str]| -> Output {
        let words = [&["run", "-a", "bot"], options, &["--", "true"]].concat();
        scene.sandbox.cmd(words).run().success().silent()
    };
    run(&["--no-post"]);
    assert_eq!(text(&end(&scene.sandbox), "delivery"), "off");
    assert_eq!((scene.slack.requests().len(), scene.sandbox.couriers().len()), (0, 0));
    run(&["--background", "always"]);
    wait_for("the courier to send both", || {
        (scene.slack.roots().first().map(|root| scene.slack.thread(&root.ts).len()) == Some(2)).then_some(())
    });
    assert!(
        scene.root().text.contains("COMPLETE")
            || wait_for("the card", || { scene.root().text.contains("COMPLETE").then_some(true) })
    );
}

#[test]
fn a_strict_caller_hears_what_became_of_the_report_unless_the_command_failed() {
    type Deed = fn(&Scene);
    // Where something has to be sent there must be time for it, however busy the machine is.
    let rows: [(Deed, &str, i32); 4] = [
        (|_| {}, "20s", 0),
        (|scene| scene.slack.hold(), "300ms", 75),
        (|scene| scene.slack.revoke_token(), "20s", 78),
        (
            |scene| {
                scene.sandbox.env("SLACK_CHANNEL", "no such name");
            },
            "300ms",
            78,
        ),
    ];
    side_by_side(rows, |(deed, deadline, strict)| {
        for (options, code, expected) in
            [(&["--strict"][..], 0, strict), (&["--strict"][..], 9, 9), (&[][..], 0, 0)]
        {
            let scene = Scene::bot();
            deed(&scene);
            let script = format!("exit {code}");
            let words = [&["run", "--deadline", deadline], options, &["--", "sh", "-c", &script]].concat();
            scene.sandbox.cmd(words).run().code(expected);
        }
    });
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_happens() {
    let sandbox = Sandbox::new();
    let rows: [(&[&str], &str); 7] = [
        (&["run"], "CMD"),
        (&["run", "--"], "CMD"),
        (&["run", "--nonesuch", "--", "touch", "made"], "unknown argument '--nonesuch'"),
        (&["run", "--tail", "-1", "--", "touch", "made"], "--tail: '-1'"),
        (&["run", "--timeout", "soon", "--", "touch", "made"], "--timeout: 'soon'"),
        (
            &["run", "--progress-regex", "x", "--", "touch", "made"],
            "--progress-regex: 'x' has no group named",
        ),
        (&["run", "--status", "working", "--", "touch", "made"], "unknown argument '--status'"),
    ];
    for (words, said) in rows {
        sandbox.cmd(words).run().code(64).stdout_is("").stderr_has(said);
        assert!(!sandbox.work().join("made").exists() && !sandbox.cache_path().exists(), "{words:?}");
    }
    // Options behind the command are its own, with or without the two dashes.
    sandbox.cmd(["run", "echo", "--tail", "-a", "x"]).run().success().stdout_is("--tail -a x\n");
    sandbox.cmd(["run", "--", "echo", "--", "-q"]).run().success().stdout_is("-- -q\n");
}

#[test]
fn the_end_is_told_where_the_cache_was_deleted_meanwhile() {
    // Whether the command has said something since.
    side_by_side([false, true], |speaks| {
        let scene = Scene::bot();
        let cache = scene.sandbox.cache_path();
        let say = if speaks { "\"$BIN\" emit -s working Half; " } else { "" };
        let script = format!("echo {READY}; read line; {say}exit 3");
        let words = ["run", "-a", "bot", "-q", "--", "sh", "-c", &script];
        let mut run = scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).spawn();
        let _rest = ready(&mut run);
        wait_for("the thread", || {
            let shown = scene.sandbox.cmd(["show", "--json", "bot"]).run();
            (shown.code == Some(0) && !shown.json()["thread_ts"].is_null()).then_some(())
        });
        std::fs::remove_dir_all(cache.with_file_name("")).expect("a directory");
        drop(run.stdin.take());
        assert_eq!(run.wait().expect("its end").code(), Some(3));
        scene.flush();
        let end = end(&scene.sandbox);
        assert_eq!(text(&end, "status"), "error", "{end}");
        assert!(text(&end, "error").starts_with("exit code 3"), "{end}");
        assert_eq!(text(&end, "delivery"), "sent");
        if !speaks {
            let thread = scene.thread();
            assert_eq!(thread.len(), 2, "one thread: {thread:?}");
        }
    });
}
