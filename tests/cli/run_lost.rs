//! A wrapper that is killed without a word: its task does not stay "working", and silence alone is no end.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::gethostname;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::run_child::signal;
use crate::scene::{Scene, side_by_side, text};
use crate::support::wait_for;

/// A running wrapper of the agent `bot`; its command runs until its input is closed.
struct Wrapper {
    process: Child,
    _input: Option<ChildStdin>,
}

impl Wrapper {
    /// Starts one with these options, and waits until it is recorded.
    fn start(scene: &Scene, options: &[&str]) -> Self {
        let script = "echo ready; exec cat";
        let words = [&["run", "-a", "bot"], options, &["--", "sh", "-c", script]].concat();
        let mut process = scene.sandbox.cmd(words).spawn();
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        // `show` would look for lost ones.
        wait_for("the start", || {
            let cache = Connection::open(scene.sandbox.cache_path()).ok()?;
            let sql = "SELECT count(*) FROM tasks WHERE agent_id = 'bot' AND watcher IS NOT NULL";
            cache.query_row(sql, [], |row| row.get(0)).ok().filter(|count: &i64| *count == 1)
        });
        if !options.contains(&"--no-post") {
            wait_for("the card", || scene.slack.roots().pop());
            wait_for("its note in the cache", || {
                let cache = Connection::open(scene.sandbox.cache_path()).ok()?;
                cache
                    .query_row("SELECT card FROM tasks WHERE agent_id = 'bot'", [], |row| {
                        row.get::<_, String>(0)
                    })
                    .ok()
            });
        }
        Self { _input: process.stdin.take(), process }
    }

    /// Kills the wrapper alone: its command lives on.
    fn kill(&mut self) {
        signal(&self.process, Signal::SIGKILL);
        self.process.wait().expect("an end");
    }

    fn reason(&self) -> String {
        let host = gethostname().expect("a name").to_string_lossy().into_owned();
        format!("lost (process {} on {host} ended without a word)", self.process.id())
    }
}

#[test]
fn any_later_call_marks_the_task_of_a_killed_wrapper_and_says_so_once() {
    let rows: [&[&str]; 6] = [
        &["emit", "-a", "other", "Hello"],
        &["tasks"],
        &["show", "bot"],
        &["flush"],
        &["doctor"],
        &["run", "-a", "x", "--", "true"],
    ];
    side_by_side(rows, |words| {
        let scene = Scene::bot();
        let mut wrapper = Wrapper::start(&scene, &[]);
        let thread = scene.root().ts;
        scene.sandbox.cmd(words).run().success();
        assert_eq!(scene.slack.thread(&thread).len(), 1, "{words:?}: it lives");
        wrapper.kill();
        scene.sandbox.cmd(words).run().success();
        let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
        let state = "SELECT state FROM tasks WHERE agent_id = 'bot'";
        assert_eq!(cache.query_row(state, [], |row| row.get(0)), Ok("failed".to_owned()), "{words:?}");
        scene.sandbox.cmd(words).run().success();
        scene.flush();
        let shown = scene.show("bot");
        let said = ["state", "status", "error"].map(|field| text(&shown, field));
        assert_eq!(said, ["failed", "error", wrapper.reason().as_str()], "{words:?}");
        let messages = scene.slack.thread(&thread);
        assert_eq!(messages.len(), 2, "{words:?}");
        assert!(
            messages[1].text.contains(&format!("🔴 Error: {}", wrapper.reason())),
            "{}",
            messages[1].text
        );
        assert!(messages[0].text.contains("– ERROR\n"), "the card shows it: {}", messages[0].text);
    });
}

#[test]
fn a_task_that_the_command_opened_after_its_first_is_lost_with_the_wrapper() {
    let scene = Scene::bot();
    let script = r#""$BIN" emit --new Second; echo ready; exec cat"#;
    let words = ["run", "-a", "bot", "--no-post", "--", "sh", "-c", script];
    let mut wrapper = scene.sandbox.cmd(words).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint")).spawn();
    let mut lines = BufReader::new(wrapper.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    assert_eq!(text(&scene.show("bot"), "state"), "running");
    signal(&wrapper, Signal::SIGKILL);
    wrapper.wait().expect("an end");
    assert!(text(&scene.show("bot"), "error").starts_with("lost (process "), "{}", scene.show("bot"));
}

#[test]
fn a_single_call_finds_a_lost_task_among_many_that_are_silent() {
    let scene = Scene::bot();
    let mut wrapper = Wrapper::start(&scene, &["--no-post"]);
    for number in 0..12 {
        scene.sandbox.cmd(["emit", "--no-post", "-a", &format!("other-{number}")]).run().success();
    }
    // Of processes elsewhere nobody knows, and these gave no sign of life for longer than the lost one.
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    let sql = "UPDATE tasks SET seen_at_ms = 0, watcher = 'elsewhere|1|1|1|1' WHERE agent_id LIKE 'other-%'";
    cache.execute(sql, []).expect("an update");
    wrapper.kill();
    scene.sandbox.cmd(["emit", "--no-post", "-a", "finder"]).run().success();
    let lost = "SELECT count(*) FROM tasks WHERE agent_id = 'bot' AND state = 'failed'";
    assert_eq!(cache.query_row(lost, [], |row| row.get(0)), Ok(1));
}

#[test]
fn a_wrapper_that_nobody_collected_is_lost_as_well() {
    let scene = Scene::bot();
    let wrapper = Wrapper::start(&scene, &["--no-post"]);
    signal(&wrapper.process, Signal::SIGKILL);
    wait_for("the loss", || (text(&scene.show("bot"), "error") == wrapper.reason()).then_some(()));
}

#[test]
fn a_host_that_was_restarted_has_lost_its_wrappers_and_another_host_has_not() {
    let scene = Scene::bot();
    let mut wrapper = Wrapper::start(&scene, &["--no-post"]);
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    let watcher: String =
        cache.query_row("SELECT watcher FROM tasks", [], |row| row.get(0)).expect("a watcher");
    let parts: Vec<&str> = watcher.split('|').collect();
    wrapper.kill();
    // A file that is shared between machines, or between containers.
    for part in [0, 2] {
        let mut other = parts.clone();
        other[part] = "elsewhere";
        cache.execute("UPDATE tasks SET watcher = ?1", [other.join("|")]).expect("an update");
        assert_eq!(text(&scene.show("bot"), "state"), "running", "{other:?}");
    }
    let mut earlier = parts.clone();
    earlier[1] = "an-earlier-boot";
    cache.execute("UPDATE tasks SET watcher = ?1", [earlier.join("|")]).expect("an update");
    let error = format!("lost ({} was restarted)", parts[0]);
    assert_eq!(text(&scene.show("bot"), "error"), error);
}

#[test]
fn a_command_that_outlives_its_wrapper_may_go_on_in_the_same_thread() {
    let scene = Scene::bot();
    let mut wrapper = Wrapper::start(&scene, &[]);
    wrapper.kill();
    scene.sandbox.cmd(["tasks"]).run().success().stdout_has("error");
    scene.sent(["-f", "-s", "working", "Still here"]);
    let shown = scene.show("bot");
    assert_eq!((text(&shown, "state"), &shown["error"]), ("running", &Value::Null));
    assert_eq!(
        scene.thread(),
        ["$ sh -c 'echo ready; exec cat'", "$ sh -c 'echo ready; exec cat'", "Still here"]
    );
}

#[test]
fn a_lost_agent_is_told_in_its_parents_thread_too() {
    let scene = Scene::bot();
    let script = r#""$BIN" run -a child -- sh -c 'echo $PPID; exec sleep 60' & wait"#;
    scene.sandbox.write("parent", script);
    let mut parent = scene.sandbox.shell(r#"exec "$BIN" run -a bot -- sh parent"#).spawn();
    let mut lines = BufReader::new(parent.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let pid: i32 = lines.next().expect("a line").parse().expect("a pid");
    wait_for("the child's card", || (scene.slack.roots().len() == 2).then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("a live process");
    wait_for("the loss", || {
        let roots = scene.slack.roots();
        let card = roots.iter().find(|root| root.text.contains("Agent `bot` –"))?;
        scene.sandbox.cmd(["tasks"]).run().success();
        scene.sandbox.cmd(["flush"]).run();
        let notes = scene.slack.thread(&card.ts);
        notes.iter().any(|note| note.text.starts_with("❌ Agent `child` – ERROR after")).then_some(())
    });
    signal(&parent, Signal::SIGTERM);
    parent.wait().expect("an end");
}

#[test]
fn silence_is_told_and_is_no_end() {
    let scene = Scene::bot();
    let mut wrapper = Wrapper::start(&scene, &["--no-post", "--heartbeat", "0"]);
    scene.sandbox.cmd(["emit", "-a", "quiet", "--no-post", "Hello"]).run().success();
    scene.sandbox.cmd(["emit", "-a", "done", "--no-post", "-s", "complete", "Bye"]).run().success();
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    let status = |agent: &str| {
        let table = scene.sandbox.cmd(["tasks"]).run().success().stdout;
        let line =
            table.lines().find(|line| line.contains(&format!(" {agent} "))).expect("a line").to_owned();
        line.split("  ").next().expect("a cell").to_owned()
    };
    let age = |column: &str, minutes: u64| {
        let by = i64::try_from(Duration::from_secs(minutes * 60).as_millis()).expect("a small number");
        cache.execute(&format!("UPDATE tasks SET {column} = {column} - ?1"), params![by]).expect("an update");
    };
    assert_eq!([status("bot"), status("quiet")], ["starting", "checkpoint"]);
    age("updated_at_ms", 12);
    // A heartbeat is a sign of life.
    assert_eq!(status("bot"), "starting");
    assert!(status("quiet").starts_with("checkpoint (silent for 12m"), "{}", status("quiet"));
    assert_eq!(status("done"), "complete");
    age("seen_at_ms", 7);
    assert!(status("bot").starts_with("starting (silent for 7m"), "{}", status("bot"));
    assert_eq!(text(&scene.show("bot"), "state"), "running");
    wrapper.kill();
}
