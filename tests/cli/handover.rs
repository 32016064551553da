//! Handing a thread on to later jobs of a CI run, by the files that these systems carry values in.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fake_slack::{CHANNEL, FakeSlack, Fault};
use crate::readme::{README, blocks, commands, line};
use crate::scene::{Scene, last_action, text};
use crate::support::Sandbox;

/// A scene in a step of GitHub Actions, and the file of its outputs, in which something stands already.
fn github() -> (Scene, PathBuf) {
    let scene = Scene::bot();
    let file = scene.sandbox.write("outputs", "version=1.2\n");
    scene.sandbox.env("GITHUB_ACTIONS", "true").env("GITHUB_OUTPUT", &file);
    (scene, file)
}

/// A scene in which later jobs are told by a dotenv file, which is not there yet.
fn gitlab() -> (Scene, PathBuf) {
    let scene = Scene::bot();
    let file = scene.sandbox.work().join("checkpoint.env");
    scene.sandbox.env("GITLAB_CI", "true").env("AGENT_CHECKPOINT_DOTENV", &file);
    (scene, file)
}

#[track_caller]
fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("a file")
}

/// What a later job gets of a key.
#[track_caller]
fn value(file: &Path, key: &str) -> String {
    let text = read(file);
    let found = text.lines().filter_map(|line| line.split_once('=')).rfind(|(name, _)| *name == key);
    found.unwrap_or_else(|| panic!("no {key} in {text}")).1.to_owned()
}

/// The last actions of a thread's messages after the first.
fn replies(scene: &Scene, ts: &str) -> Vec<String> {
    scene.slack.thread(ts).iter().skip(1).map(|message| last_action(&message.text)).collect()
}

#[test]
fn a_later_job_of_github_goes_on_in_the_thread_by_the_outputs_of_a_step() {
    let (scene, file) = github();
    let receipt = scene.sent(["--status", "starting", "one"]);
    let (ts, task) = (text(&receipt, "thread_ts"), text(&receipt, "task_id"));
    let expected = format!(
        "version=1.2\nagent_checkpoint_thread={CHANNEL}:{ts}\nagent_checkpoint_task_id={task}\n\
         agent_checkpoint_agent_id=bot\n"
    );
    assert_eq!(read(&file), expected);
    // Nor is that said again.
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!(read(&file), expected);

    let later = Sandbox::new();
    later.slack(&scene.slack).env("AGENT_CHECKPOINT_THREAD", value(&file, "agent_checkpoint_thread"));
    let agent = value(&file, "agent_checkpoint_agent_id");
    later.cmd(["emit", "-a", &agent, "-s", "blocked", "three"]).run().success().silent();
    assert_eq!(replies(&scene, ts), ["two", "three"]);
    assert_eq!(scene.slack.roots().len(), 1);
}

#[test]
fn a_later_job_of_gitlab_goes_on_in_the_thread_by_a_dotenv_report() {
    let (scene, file) = gitlab();
    // Also without --json, where the receipt is not looked up.
    scene.sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "one"]).run().success().silent();
    let ts = scene.root().ts;
    assert_eq!(read(&file), format!("AGENT_CHECKPOINT_THREAD={CHANNEL}:{ts}\n"));
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!(read(&file).lines().count(), 1);

    let inherits = Sandbox::new();
    inherits.slack(&scene.slack).env("AGENT_CHECKPOINT_THREAD", value(&file, "AGENT_CHECKPOINT_THREAD"));
    inherits.cmd(["emit", "-a", "deploy", "-s", "blocked", "three"]).run().success().silent();
    // Where a system carries only files.
    let reads = Sandbox::new();
    reads.slack(&scene.slack).write("checkpoint.env", read(&file));
    let line = "[ ! -f checkpoint.env ] || . ./checkpoint.env; export AGENT_CHECKPOINT_THREAD";
    assert!(README.contains("`[ ! -f checkpoint.env ] || . ./checkpoint.env`"));
    reads.shell(&format!("{line}; exec \"$BIN\" emit -a report -s blocked four")).run().success().silent();
    assert_eq!(replies(&scene, &ts), ["two", "three", "four"]);
    assert_eq!(scene.slack.roots().len(), 1);
}

#[test]
fn run_hands_the_thread_on_at_its_end_wherever_its_command_has_gone() {
    let (scene, outputs) = github();
    scene.sandbox.env("AGENT_CHECKPOINT_DOTENV", "checkpoint.env");
    let line = "mkdir deep && cd deep && \"$BIN\" emit -s blocked inside";
    let run = format!("exec \"$BIN\" run -a bot -- sh -c '{line}'");
    scene.sandbox.shell(&run).run().success();
    let thread = format!("{CHANNEL}:{}", scene.root().ts);
    assert_eq!(value(&outputs, "agent_checkpoint_thread"), thread);
    assert_eq!(read(&outputs).lines().count(), 4);
    assert_eq!(
        read(&scene.sandbox.work().join("checkpoint.env")),
        format!("AGENT_CHECKPOINT_THREAD={thread}\n")
    );
    assert!(!scene.sandbox.work().join("deep/checkpoint.env").exists());

    // By itself, too.
    fs::write(&outputs, "").expect("a file");
    scene.sandbox.cmd(["run", "-a", "bot", "--new", "--", "true"]).run().success();
    assert_ne!(value(&outputs, "agent_checkpoint_thread"), thread);
}

#[test]
fn a_thread_is_handed_on_without_a_cache() {
    let (scene, file) = github();
    scene.sandbox.write("no-cache", "");
    let run = scene.emit(["--cache", "no-cache/cache.db", "--status", "starting", "one"]).run().success();
    assert_eq!(run.json()["task_id"], Value::Null);
    assert_eq!(value(&file, "agent_checkpoint_thread"), format!("{CHANNEL}:{}", scene.root().ts));
    assert!(!read(&file).contains("task_id"));
}

#[test]
fn nothing_is_written_where_no_job_asks_or_no_thread_is_known() {
    // The file's name alone is no step of GitHub's.
    let (scene, file) = github();
    scene.sandbox.env_remove("GITHUB_ACTIONS");
    scene.sent(["--status", "starting", "one"]);
    assert_eq!(read(&file), "version=1.2\n");

    let (scene, file) = gitlab();
    scene.emit(["--dry-run", "one"]).run().success();
    scene.emit(["--no-post", "two"]).run().success();
    scene.slack.script("chat.postMessage", vec![Fault::Status(503)]);
    scene.once(Fault::Status(503), ["--status", "starting", "three"]).run().success();
    assert!(!file.exists());
    // Once there is one, a routine checkpoint that is held back tells of it as well.
    scene.flush();
    scene.emit(["four"]).run().success();
    assert_eq!(value(&file, "AGENT_CHECKPOINT_THREAD"), format!("{CHANNEL}:{}", scene.root().ts));

    // Messages of a webhook stand alone.
    let scene = Scene::webhook();
    scene.sandbox.env("AGENT_CHECKPOINT_DOTENV", "checkpoint.env");
    scene.emit(["--status", "starting", "one"]).run().success();
    assert!(!scene.sandbox.work().join("checkpoint.env").exists());
}

#[test]
fn a_thread_that_slack_refuses_is_not_handed_on() {
    let (scene, file) = gitlab();
    scene.emit(["--thread", &format!("{CHANNEL}:1503435956.000247"), "one"]).run();
    assert!(!file.exists());
}

#[test]
fn a_file_of_githubs_that_cannot_be_written_is_nobodys_trouble() {
    let (scene, _) = github();
    scene.sandbox.shell("mkfifo pipe && mkdir folder").run().success();
    scene.sandbox.write("large", vec![b'\n'; 1024 * 1024 + 1]);
    for (number, (name, reason)) in [
        ("missing", "No such file or directory"),
        ("folder", "Is a directory"),
        ("pipe", "it is not a regular file"),
        ("large", "it is larger than 1 MiB"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = scene.sandbox.work().join(name);
        scene.sandbox.env("GITHUB_OUTPUT", &path);
        let agent = format!("agent-{number}");
        scene.sent(["-a", &agent, "--status", "starting", "one"]);
        let output = scene.emit(["-a", &agent, "-v", "--status", "blocked", "two"]).run().success();
        output.stderr_has(&format!("could not write to GITHUB_OUTPUT, {}: {reason}", path.display()));
    }
    assert!(!scene.sandbox.work().join("missing").exists());
}

#[test]
fn a_dotenv_file_that_cannot_be_written_is_a_warning_and_no_failure() {
    let (scene, _) = gitlab();
    let file = scene.sandbox.work().join("nowhere/checkpoint.env");
    scene.sandbox.env("AGENT_CHECKPOINT_DOTENV", &file).env("AGENT_CHECKPOINT_STRICT", "true");
    let message = format!("could not hand on the thread in {}: No such file or directory", file.display());
    let output = scene.emit(["--status", "starting", "one"]).run().success();
    let output = output.stderr_has(&message).stderr_has("AGENT_CHECKPOINT_DOTENV");
    let receipt = output.json();
    assert_eq!((&receipt["delivery"], &receipt["warnings"][0]), (&"sent".into(), &message.into()));
    scene.sandbox.cmd(["run", "-a", "bot", "--", "true"]).run().success().stderr_has("could not hand on");
}

#[test]
fn an_output_that_captures_a_command_is_not_disturbed() {
    let (scene, file) = github();
    let line = "{ echo 'log<<END'; \"$BIN\" run -a bot -- echo fine; echo END; } >> \"$GITHUB_OUTPUT\"";
    scene.sandbox.shell(line).run().success();
    assert_eq!(read(&file), "version=1.2\nlog<<END\nfine\nEND\n");
    // After that there is room again, though the last line may not have ended.
    fs::write(&file, "log<<END\nfine\nEND").expect("a file");
    scene.sent(["--status", "blocked", "two"]);
    assert!(read(&file).starts_with("log<<END\nfine\nEND\nagent_checkpoint_thread="), "{}", read(&file));
}

#[test]
fn half_a_line_is_never_left_behind() {
    let (scene, file) = github();
    // Nine bytes short of the limit, which is 512.
    let full = "x=1\n".repeat(124) + "xxxx=1\n";
    fs::write(&file, &full).expect("a file");
    let line = "trap '' XFSZ; ulimit -f 1; exec \"$BIN\" emit -v -a bot -s blocked 'No room'";
    let output = scene.sandbox.shell(line).run().success();
    output.stderr_has("could not write to GITHUB_OUTPUT").stderr_has("there is no room for all of it");
    assert_eq!(read(&file), full);
}

/// What stands in a recipe between two texts.
#[track_caller]
fn between<'a>(recipe: &'a str, before: &str, after: &str) -> &'a str {
    let found = recipe.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("no {before} … {after} in {recipe}")).0
}

#[test]
fn the_recipes_of_the_readme_keep_two_jobs_in_one_thread() {
    let recipes = blocks("### One thread across jobs", "yaml");
    let [github, gitlab] = recipes[..] else { panic!("{recipes:?}") };
    let output = between(github, "thread: ${{ steps.begin.outputs.", " }}");
    let (before, _) = github.split_once(": ${{ needs.test.outputs.thread }}").expect("a variable");
    let passed_on = before.rsplit(' ').next().expect("its name");
    let report = format!("$CI_PROJECT_DIR/{}", between(gitlab, "dotenv: ", "\n"));
    assert_eq!(between(gitlab, "AGENT_CHECKPOINT_DOTENV: ", "\n"), report);
    for (recipe, ci, key, variable) in [
        (github, "GITHUB_ACTIONS", output, passed_on),
        // GitLab's variables keep their names.
        (gitlab, "GITLAB_CI", "AGENT_CHECKPOINT_THREAD", "AGENT_CHECKPOINT_THREAD"),
    ] {
        let slack = FakeSlack::start();
        slack.set_lenient_rate();
        let [begin, deploy] = &commands(recipe)[..] else { panic!("{recipe}") };
        let mut thread = None;
        for (command, job) in [(begin, "test"), (deploy, "deploy")] {
            let sandbox = Sandbox::new();
            let file = sandbox.write("values", "");
            sandbox.slack(&slack).env("SLACK_CHANNEL", "#agents").env(ci, "true");
            let run = ["GITHUB_RUN_ID", "CI_PIPELINE_ID"].into_iter().zip(["42", "7"]);
            for (name, value) in run.chain([("GITHUB_JOB", job), ("CI_JOB_NAME", job)]) {
                sandbox.env(name, value);
            }
            let names = if ci == "GITLAB_CI" { "AGENT_CHECKPOINT_DOTENV" } else { "GITHUB_OUTPUT" };
            sandbox.env(names, &file);
            if let Some(thread) = thread {
                sandbox.env(variable, thread);
            }
            line(&sandbox, command).run().success().stderr_is("");
            thread = Some(value(&file, key));
        }
        let messages = slack.messages("agents");
        assert_eq!(messages.iter().filter(|message| message.thread_ts.is_none()).count(), 1, "{messages:?}");
        assert!(messages.iter().any(|one| one.thread_ts.is_some() && one.text.contains("Deploying")));
    }
}
