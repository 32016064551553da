//! `ask` and `answer`: how a question looks, ends and is told; what people do in Slack is in `ask_people.rs`.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::fake_slack::{Fault, Message};
use crate::guard::guard;
use crate::run_child::signal;
use crate::scene::{Scene, side_by_side, text};
use crate::support::wait_for;

/// A running `ask` of the agent `bot`.
pub(crate) struct Asker {
    pub(crate) process: Child,
    pub(crate) id: String,
}

/// How an `ask` ended.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Asker {
    /// Starts one with these words; the request is known when this returns.
    pub(crate) fn start(scene: &Scene, words: &[&str]) -> Self {
        let mut words = [&["ask"], words].concat();
        if !words.contains(&"-a") {
            words.extend(["-a", "bot"]);
        }
        if !words.contains(&"--timeout") {
            // A test that goes wrong is not to wait for a quarter of an hour.
            words.extend(["--timeout", "30s"]);
        }
        let mut process = scene.sandbox.cmd(words).spawn();
        let mut stderr = process.stderr.take().expect("a pipe");
        let mut first = Vec::new();
        let mut byte = [0];
        while first.last() != Some(&b'\n') && stderr.read(&mut byte).expect("a byte") > 0 {
            first.push(byte[0]);
        }
        process.stderr = Some(stderr);
        let first = String::from_utf8(first).expect("text");
        let id = first.split_whitespace().nth(2).unwrap_or_else(|| panic!("{first}")).to_owned();
        assert!(first.contains("waits for an answer"), "{first}");
        Self { process, id }
    }

    /// The question's message, once it is in Slack.
    pub(crate) fn message(scene: &Scene) -> Message {
        wait_for("the question", || {
            let all = scene.slack.messages(crate::fake_slack::CHANNEL);
            all.into_iter().rev().find(|message| !scene.slack.buttons(&message.ts).is_empty())
        })
    }

    pub(crate) fn end(mut self) -> Told {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.process.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
        self.process.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        let code = self.process.wait().expect("an end").code();
        Told { code, stdout, stderr }
    }
}

fn edited(scene: &Scene, ts: &str) -> Message {
    wait_for("the edit", || {
        Some(scene.slack.card(ts)).filter(|card| scene.slack.buttons(&card.ts).is_empty())
    })
}

#[test]
fn a_question_stands_in_the_thread_and_in_the_channel_with_all_that_is_approved() {
    let scene = Scene::bot();
    let command = format!("./deploy.sh {}", "--flag=value ".repeat(600));
    let asker = Asker::start(
        &scene,
        &[
            "Deploy 1.4.2?",
            "--command",
            &command,
            "--details",
            "Two <migrations> & a restart",
            "--repo",
            "acme/rocket",
        ],
    );
    let message = Asker::message(&scene);
    let root = scene.root();
    assert_eq!(message.thread_ts.as_deref(), Some(root.ts.as_str()));
    assert!(message.broadcast, "it is shown in the channel as well");
    let blocks = serde_json::to_string(&message.blocks).expect("JSON");
    for part in ["Deploy 1.4.2?", "Two &lt;migrations&gt; &amp; a restart", "acme/rocket", &asker.id] {
        assert!(blocks.contains(part), "{part} in {blocks}");
    }
    let shown: String = message
        .blocks
        .iter()
        .filter_map(|block| block["elements"][0]["elements"][0]["text"].as_str())
        .collect();
    assert_eq!(shown.trim_end(), command.trim_end());
    assert_eq!(scene.slack.buttons(&message.ts), ["question:approve", "question:reject"]);
    let shown = scene.show("bot");
    assert_eq!(text(&shown, "status"), "waiting_approval");
    assert_eq!(shown["questions"][0]["request_id"], json!(asker.id));
    assert_eq!(shown["questions"][0]["decision"], Value::Null);
    scene.sandbox.cmd(["show", "bot"]).run().success().stdout_has(&asker.id);

    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    let told = asker.end();
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "approved\n"), "{}", told.stderr);
    let decided = edited(&scene, &message.ts);
    assert!(decided.text.contains("✅ approved by tester (at a terminal)"), "{}", decided.text);
    let shown = scene.show("bot");
    assert_eq!((text(&shown, "status"), text(&shown, "state")), ("working", "running"));
    assert_eq!(text(&shown, "action"), "approved by tester (at a terminal)");
    wait_for("the card", || scene.root().text.contains("– WORKING\n").then_some(()));
}

#[test]
fn whoever_answers_at_a_terminal_reads_there_what_is_asked_and_all_of_it() {
    let scene = Scene::bot();
    let words = ["--command", "make\n  deploy", "--details", "one\n\ntwo", "--timeout", "1m"];
    let asker = Asker::start(
        &scene,
        &[&["Where?", "--choice", "eu-west", "--choice", "US East"], &words[..]].concat(),
    );
    Asker::message(&scene);
    let lines = ["Where?", "", "$ make", "  deploy", "", "one", "", "two", "choices: eu-west, US East"];
    let lines = lines.map(|line| format!("{:>10}{line}", "").trim_end().to_owned()).join("\n");
    let shown = || scene.sandbox.cmd(["show", "bot"]).run().success();
    shown().stdout_has(&format!("\n{lines}\n"));
    let question = &scene.show("bot")["questions"][0];
    assert_eq!((text(question, "command"), text(question, "details")), ("make\n  deploy", "one\n\ntwo"));
    scene.sandbox.cmd(["answer", &asker.id, "--choice", "us east"]).run().success();
    assert_eq!(asker.end().code, Some(0));
    shown().stdout_has("\n          Where?\n").lacks("make");
}

#[test]
fn each_answer_has_its_word_its_exit_code_and_its_json() {
    type Row<'a> = (&'a [&'a str], &'a [&'a str], i32, &'a str, Value);
    let rows: [Row<'_>; 4] = [
        (&[], &["--approve"], 0, "approved", json!(null)),
        (&[], &["--reject", "--comment", "Not on Friday"], 10, "rejected", json!(null)),
        (
            &["--choice", "eu-west", "--choice", "US East"],
            &["--choice", "us east"],
            0,
            "chosen",
            json!("US East"),
        ),
        (&["--quorum", "2"], &["--approve"], 0, "approved", json!(null)),
    ];
    side_by_side(rows, |(options, answer, code, decision, choice)| {
        for is_json in [false, true] {
            let scene = Scene::bot();
            let mut words = vec!["Go on?"];
            words.extend(options);
            if is_json {
                words.push("--json");
            }
            let asker = Asker::start(&scene, &words);
            Asker::message(&scene);
            let id = asker.id.clone();
            scene.sandbox.cmd([&["answer", &id], answer].concat()).run().code(code);
            let told = asker.end();
            assert_eq!(told.code, Some(code), "{options:?} {}", told.stderr);
            let comment = if code == 10 { json!("Not on Friday") } else { Value::Null };
            if is_json {
                let json: Value = serde_json::from_str(&told.stdout).expect("JSON");
                let at = text(&json, "answered_at").to_owned();
                assert_eq!(at.len(), "2026-03-01T09:30:00.000Z".len());
                let expected = json!({
                    "request_id": id, "decision": decision, "choice": choice, "user_id": null,
                    "user_name": "tester (at a terminal)", "comment": comment, "answered_at": at,
                    "waited_seconds": json["waited_seconds"],
                });
                assert_eq!(json, expected);
            } else {
                let word = choice.as_str().unwrap_or(decision);
                assert_eq!(told.stdout, format!("{word}\n"));
            }
            // Whoever asks later is told the same.
            let later = scene.sandbox.cmd(["answer", &id, "--json"]).run().code(code).json();
            assert_eq!((&later["decision"], &later["comment"]), (&json!(decision), &comment));
            let late = scene.sandbox.cmd(["answer", &id, "--reject"]).run().code(code);
            late.stderr_has("it was answered before");
        }
    });
}

#[test]
fn nobody_answers_in_time() {
    for (policy, code) in [("fail", 124), ("reject", 10), ("approve", 0)] {
        let scene = Scene::bot();
        let words = ["ask", "-a", "bot", "Go on?", "--timeout", "400ms", "--on-timeout", policy, "--json"];
        let answer = scene.sandbox.cmd(words).run().code(code).json();
        assert_eq!(answer["decision"], "timed_out", "{policy}");
        assert_eq!(answer["user_id"], Value::Null);
        let message = scene.slack.thread(&scene.root().ts).remove(1);
        let message = edited(&scene, &message.ts);
        assert!(message.text.ends_with("❌ nobody answered in time"), "{}", message.text);
        let id = text(&answer, "request_id");
        scene.sandbox.cmd(["answer", id]).run().code(code).stdout_is("timed_out\n");
        scene.sandbox.cmd(["answer", id, "--approve"]).run().code(code).stdout_is("timed_out\n");
    }
}

#[test]
fn a_signal_withdraws_the_question() {
    side_by_side([(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)], |(which, code)| {
        let scene = Scene::bot();
        let asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        let id = asker.id.clone();
        signal(&asker.process, which);
        let told = asker.end();
        assert_eq!((told.code, told.stdout.as_str()), (Some(code), ""), "{}", told.stderr);
        assert!(told.stderr.ends_with("the question is withdrawn\n"), "{}", told.stderr);
        assert!(edited(&scene, &message.ts).text.ends_with("❌ withdrawn: interrupted"));
        scene.sandbox.cmd(["answer", &id, "--json"]).run().code(1);
        let shown = scene.show("bot");
        assert_eq!(
            (text(&shown, "status"), text(&shown, "action")),
            ("checkpoint", "withdrawn: interrupted")
        );
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_askers_question_is_closed_by_the_next_call() {
    let rows: [&[&str]; 4] = [&["emit", "-a", "other", "Hello"], &["tasks"], &["flush"], &["show", "bot"]];
    side_by_side(rows, |words| {
        let scene = Scene::bot();
        let mut asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        wait_for("its place in the cache", || {
            let cache = Connection::open(scene.sandbox.cache_path()).ok()?;
            let sql = "SELECT count(*) FROM questions WHERE message_ts IS NOT NULL";
            cache.query_row(sql, [], |row| row.get(0)).ok().filter(|count: &i64| *count == 1)
        });
        scene.sandbox.cmd(words).run().success();
        assert!(!scene.slack.buttons(&message.ts).is_empty(), "{words:?}: it lives");
        signal(&asker.process, Signal::SIGKILL);
        asker.process.wait().expect("an end");
        scene.sandbox.cmd(words).run().success();
        scene.sandbox.cmd(["flush"]).run();
        let decided = edited(&scene, &message.ts);
        let words = format!("withdrawn: process {} on ", asker.process.id());
        assert!(decided.text.contains(&words), "{}", decided.text);
        scene.sandbox.cmd(["answer", &asker.id]).run().code(1).stdout_is("withdrawn\n");
        // A click that comes now decides nothing, and is kept all the same.
        scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().code(1);
        assert_eq!(scene.show("bot")["interventions"][0]["action_details"]["refused"], "late");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_askers_question_is_closed_by_whoever_lives_on() {
    let mut rows: Vec<&[&str]> = vec![
        &["ask", "-a", "other", "And this?"],
        &["run", "-a", "other", "--heartbeat", "300ms", "--", "cat"],
    ];
    if cfg!(feature = "serve") {
        rows.push(&["serve", "--listen", "127.0.0.1:0"]);
    }
    side_by_side(rows, |words| {
        let scene = Scene::bot();
        scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
        let mut asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        // Without whoever would be quicker.
        kill(guard(&scene), Signal::SIGKILL).expect("a live process");
        let mut other = scene.sandbox.cmd(words).spawn();
        signal(&asker.process, Signal::SIGKILL);
        asker.process.wait().expect("an end");
        let decided = edited(&scene, &message.ts);
        let withdrawn = format!("withdrawn: process {} on ", asker.process.id());
        assert!(decided.text.contains(&withdrawn), "{words:?}: {}", decided.text);
        other.kill().expect("a live process");
        other.wait().expect("an end");
    });
}

#[test]
fn without_waiting_the_id_is_printed_and_anybody_may_wait_later() {
    let scene = Scene::bot();
    let id = scene.sandbox.cmd(["ask", "-a", "bot", "Go on?", "--no-wait"]).run().success().stdout;
    let id = id.trim();
    let message = Asker::message(&scene);
    scene.sandbox.cmd(["answer", id]).run().code(75).stdout_is("open\n");
    let open = scene.sandbox.cmd(["answer", id, "--json"]).run().code(75).json();
    assert_eq!((&open["decision"], &open["request_id"]), (&Value::Null, &json!(id)));
    let waiter = scene.sandbox.cmd(["answer", id, "--wait"]).spawn();
    scene.sandbox.cmd(["answer", id, "--reject"]).run().code(10);
    let output = waiter.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(10), b"rejected\n".as_slice()));
    edited(&scene, &message.ts);
}

#[test]
fn a_question_in_a_running_task_joins_its_thread_and_another_question_too() {
    let scene = Scene::bot();
    scene.sent(["-s", "starting", "Begin"]);
    for number in 0..2 {
        let asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        assert_eq!(scene.slack.thread(&scene.root().ts).iter().filter(|one| one.ts == message.ts).count(), 1);
        scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
        assert_eq!(asker.end().code, Some(0), "{number}");
        // Nobody waits for a turn within Slack's limits who has an answer.
        scene.flush();
        edited(&scene, &message.ts);
    }
}

#[test]
fn inside_a_run_the_question_is_the_runs() {
    let scene = Scene::bot();
    let script = r#""$BIN" ask 'Go on?' --timeout 20s"#;
    let words = ["run", "-a", "bot", "--", "sh", "-c", script];
    let run = scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).spawn();
    let message = Asker::message(&scene);
    assert_eq!(message.thread_ts, Some(scene.root().ts));
    let id = text(&scene.show("bot")["questions"][0], "request_id").to_owned();
    scene.sandbox.cmd(["answer", &id, "--approve"]).run().success();
    let output = run.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"approved\n".as_slice()));
    assert_eq!(text(&scene.show("bot"), "state"), "completed");
}

#[test]
fn an_answer_before_the_message_leaves_no_buttons() {
    let scene = Scene::bot();
    scene.slack.script("chat.postMessage", vec![Fault::Status(503)]);
    let asker = Asker::start(&scene, &["Go on?"]);
    scene
        .sandbox
        .cmd(["answer", &asker.id, "--approve"])
        .env("SLACK_API_URL", "http://127.0.0.1:1/")
        .run()
        .success();
    assert_eq!(asker.end().code, Some(0));
    scene.flush();
    let messages = scene.slack.thread(&scene.root().ts);
    assert!(messages[1].text.contains("approved by tester (at a terminal)"), "{messages:#?}");
    assert!(messages[1].edits.iter().all(|text| !text.contains("--approve")), "{:?}", messages[1].edits);
    assert_eq!(scene.slack.buttons(&messages[1].ts), Vec::<String>::new());
}

#[test]
fn whoever_asks_while_slack_is_away_is_told_how_to_answer() {
    let scene = Scene::bot();
    let words =
        ["ask", "-a", "bot", "Where?", "--choice", "eu-west", "--choice", "us-east", "--timeout", "7s"];
    let told = scene.sandbox.cmd(words).env("SLACK_API_URL", "http://127.0.0.1:1/").run().code(124);
    let told = told.stderr_has("the question is not in Slack yet").stderr_has("--choice LABEL");
    assert_eq!(told.stderr.matches("is not in Slack yet").count(), 1, "{}", told.stderr);
}

#[test]
fn what_slack_refuses_to_show_is_not_asked() {
    let scene = Scene::bot();
    scene.slack.archive(crate::fake_slack::CHANNEL);
    let words = ["ask", "-a", "bot", "Go on?", "-c", crate::fake_slack::CHANNEL];
    scene
        .sandbox
        .cmd(words)
        .run()
        .code(1)
        .stdout_is("")
        .stderr_has("could not ask: Slack refused the question");
}

#[test]
fn nobody_can_be_asked_without_slack_or_with_wrong_settings() {
    let scene = Scene::bot();
    let ask = || scene.sandbox.cmd(["ask", "-a", "bot", "Go on?"]);
    ask().env_remove("SLACK_BOT_TOKEN").run().code(78).stderr_has("no Slack is configured");
    ask().env("SLACK_BOT_TOKEN", "xapp-1-A1-1-a").run().code(78).stderr_has("SLACK_BOT_TOKEN");
    ask().env("AGENT_CHECKPOINT_NO_POST", "1").run().code(78).stderr_has("nothing is to be posted");
    // A list that cannot be read is not one that lets everybody in.
    ask()
        .env("AGENT_CHECKPOINT_APPROVERS", "maria")
        .run()
        .code(78)
        .stderr_has("'maria' is not the id of a Slack user");
    assert_eq!(scene.slack.requests().len(), 0);
    let emit =
        scene.sandbox.cmd(["emit", "-a", "bot", "Hi"]).env("AGENT_CHECKPOINT_APPROVERS", "maria").run();
    emit.success().stderr_has("nobody can be asked until it is mended");
}

#[test]
fn a_wrong_command_line_asks_nobody() {
    let scene = Scene::bot();
    let many: Vec<String> = (0..26).map(|n| format!("--choice=c{n}")).collect();
    let many: Vec<&str> = std::iter::once("Which?").chain(many.iter().map(String::as_str)).collect();
    let rows: [(&[&str], &str); 9] = [
        (&[], "<QUESTION> is missing"),
        (&[" "], "QUESTION: '' is empty"),
        (&["Go?", "--quorum", "0"], "--quorum: '0' is not a number of people"),
        (
            &["Go?", "--quorum", "2", "--approver", "U0HUMAN000"],
            "--quorum: '2' is more than the 1 who may answer",
        ),
        (&["Go?", "--approver", "maria"], "--approver: 'maria' is not the id of a Slack user"),
        (&["Go?", "--timeout", "0"], "--timeout: '0s' leaves no time for an answer"),
        (&["Which?", "--choice", "a", "--choice", "A"], "--choice: 'A' was given twice"),
        (&["Go?", "--on-timeout", "maybe"], "--on-timeout: 'maybe' is not a valid value"),
        (&many, "--choice: 26 are too many"),
    ];
    for (words, message) in rows {
        let words = [&["ask", "-a", "bot"], words].concat();
        scene.sandbox.cmd(words).run().code(64).stdout_is("").stderr_has(message);
    }
    assert!(!scene.sandbox.cache_path().exists() || scene.slack.requests().is_empty());
    scene.sandbox.cmd(["answer", "nonsense"]).run().code(64).stderr_has("is not the id of a request");
    let unknown = "01a2b0f4-52b1-7cde-8a48-2e68e6d5fc32";
    scene.sandbox.cmd(["answer", unknown]).run().code(1).stderr_has(&format!("no question {unknown}"));
}

#[test]
fn a_secret_is_masked_in_all_of_a_question() {
    let scene = Scene::bot();
    let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let question = format!("Use {secret}?");
    let details = scene.sandbox.write("plan", format!("token: {secret}\n"));
    let line = format!(
        r#""$BIN" ask -a bot '{question}' --command 'curl -H {secret}' --choice '{secret} a' --choice b --details - --no-wait < {}"#,
        details.display()
    );
    scene.sandbox.shell(&line).run().success();
    let message = Asker::message(&scene);
    let stored = std::fs::read(scene.sandbox.cache_path()).expect("a cache");
    let log = std::fs::read(scene.sandbox.cache_path().with_extension("db-wal")).unwrap_or_default();
    let whole = format!("{message:?} {} {}", String::from_utf8_lossy(&stored), String::from_utf8_lossy(&log));
    assert!(!whole.contains("ghp_0123456789"));
}

#[test]
fn a_webhook_posts_the_question_and_says_how_to_answer() {
    let scene = Scene::webhook();
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = wait_for("the question", || scene.slack.messages(crate::fake_slack::CHANNEL).pop());
    assert!(
        message.text.contains(&format!("agent-checkpoint answer {} --approve", asker.id)),
        "{}",
        message.text
    );
    assert!(scene.slack.buttons(&message.ts).is_empty());
    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    let id = asker.id.clone();
    let ended = asker.end();
    assert_eq!(ended.code, Some(0));
    // Whoever looks at the terminal need not look at Slack to know.
    let warning = "a webhook hears no answer: only the command line can give it";
    let hint = format!("hint: run agent-checkpoint answer {id} --approve, or --reject");
    assert!(ended.stderr.contains(warning) && ended.stderr.contains(&hint), "{}", ended.stderr);
    let scene = Scene::bot();
    let ended = Asker::start(&scene, &["Go on?", "--timeout", "100ms"]).end();
    assert!(!ended.stderr.contains(warning), "{}", ended.stderr);
}

#[test]
fn an_answer_after_the_end_of_the_time_hears_that_and_not_that_somebody_answered() {
    let scene = Scene::bot();
    scene.sandbox.cmd(["ask", "Go on?", "-a", "bot", "--timeout", "1s"]).run().code(124);
    let id = text(&scene.show("bot")["questions"][0], "request_id").to_owned();
    let late = scene.sandbox.cmd(["answer", &id, "--approve"]).run().code(124);
    late.stdout_is("timed_out\n").stderr_has("its time is over").lacks("answered before");
}

#[test]
fn an_answer_that_comes_when_the_time_is_over_is_none_although_nobody_has_noted_that() {
    let scene = Scene::bot();
    let mut asker = Asker::start(&scene, &["Go on?", "--timeout", "4s"]);
    // It lives, and cannot close its question; it is stopped where it does not keep others from writing.
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    cache.busy_timeout(std::time::Duration::ZERO).expect("a time");
    wait_for("a moment in which it writes nothing", || {
        signal(&asker.process, Signal::SIGSTOP);
        let is_free = cache.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        if !is_free {
            signal(&asker.process, Signal::SIGCONT);
        }
        is_free.then_some(())
    });
    wait_for("the end of its time", || {
        (scene.show("bot")["questions"][0]["waited_seconds"].as_u64() >= Some(4)).then_some(())
    });
    let late = scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().code(124);
    late.stdout_is("timed_out\n").stderr_has("its time is over");
    asker.process.kill().expect("a live process");
    asker.process.wait().expect("an end");
}

#[test]
fn a_yes_to_a_choice_is_answered_with_the_choices() {
    let scene = Scene::bot();
    let asker = Asker::start(&scene, &["Where?", "--choice", "eu-west", "--choice", "us-east"]);
    for flag in ["--approve", "--reject"] {
        scene.sandbox.cmd(["answer", &asker.id, flag]).run().code(64).stderr_is(&format!(
            "agent-checkpoint: {flag}: the question offers choices\n\
             hint: give one with --choice: eu-west, us-east\n"
        ));
    }
    scene.sandbox.cmd(["answer", &asker.id, "--choice", "US-east"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn a_long_question_comes_whole_as_a_file_and_without_it_is_not_asked() {
    let scene = Scene::bot();
    let plan: String = (0..30_000).map(|n| format!("line {n}\n")).collect();
    let file = scene.sandbox.write("plan", &plan);
    let line = format!(r#""$BIN" ask -a bot 'Go on?' --details - --no-wait < {}"#, file.display());
    scene.sandbox.shell(&line).run().success();
    let message = Asker::message(&scene);
    assert!(serde_json::to_string(&message.blocks).expect("JSON").contains("`question.txt` in this thread"));
    let uploads = scene.slack.uploads();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].name, "question.txt");
    assert_eq!(uploads[0].content.as_deref(), Some(format!("Go on?\n\n{}", plan.trim_end()).as_str()));
    assert_eq!(uploads[0].thread_ts, Some(scene.root().ts));
    scene.slack.set_scopes(&["chat:write", "channels:read"]);
    scene.sandbox.shell(&line.replace("-a bot", "-a other")).run().code(1).stderr_has("could not ask");
}

#[test]
fn with_background_always_a_courier_asks() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "always");
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
    edited(&scene, &message.ts);
}

#[test]
fn a_reminder_stands_in_the_thread() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "300ms");
    let asker = Asker::start(&scene, &["Go on?", "--remind", "1ms", "--timeout", "20s"]);
    let root = wait_for("the card", || scene.slack.roots().pop());
    wait_for("a reminder", || {
        scene
            .slack
            .thread(&root.ts)
            .iter()
            .any(|one| one.text.contains("Still waiting for an answer, "))
            .then_some(())
    });
    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn a_waiting_ask_is_small_and_idle() {
    let scene = Scene::bot();
    let asker = Asker::start(&scene, &["Go on?"]);
    Asker::message(&scene);
    let pid = asker.process.id();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        fields.get(10).copied().unwrap_or(0) + fields.get(11).copied().unwrap_or(0)
    };
    if ticks() == 0 && !std::path::Path::new(&format!("/proc/{pid}/stat")).exists() {
        return;
    }
    let (before, since) = (ticks(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let used = ticks() - before;
    let took = since.elapsed();
    assert!(u128::from(used) <= took.as_millis() / 200, "{used} ticks in {took:?}");
    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn the_request_is_told_while_it_waits() {
    let scene = Scene::bot();
    let words = ["ask", "-a", "bot", "Go on?", "--timeout", "1h"];
    let mut process = scene.sandbox.cmd(words).spawn();
    let stderr = BufReader::new(process.stderr.take().expect("a pipe"));
    let line = stderr.lines().map_while(Result::ok).next().expect("a line");
    assert!(line.starts_with("agent-checkpoint: request 0") && line.ends_with("for 1h 0m at most"), "{line}");
    signal(&process, Signal::SIGTERM);
    process.wait().expect("an end");
}
