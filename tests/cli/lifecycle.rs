//! Tasks over several calls: what opens, closes and continues one, and what a checkpoint inherits from it.

use rusqlite::Connection;
use serde_json::Value;

use crate::fake_slack::FakeSlack;
use crate::support::Sandbox;

/// An agent's tasks, oldest first, each with its state and the statuses of its checkpoints.
fn history(sandbox: &Sandbox, agent: &str) -> Vec<(String, Vec<String>)> {
    let list = sandbox.cmd(["tasks", "--json", "--limit", "1000"]).run().success().json();
    let tasks = list.as_array().expect("an array").iter().filter(|task| task["agent_id"] == agent);
    let mut tasks: Vec<(String, Vec<String>)> = tasks
        .map(|task| {
            let id = task["task_id"].as_str().expect("an id");
            let shown = sandbox.cmd(["show", "--json", id]).run().success().json();
            let checkpoints = shown["checkpoints"].as_array().expect("an array");
            let statuses = checkpoints.iter().map(|one| text(&one["status"])).collect();
            (text(&shown["state"]), statuses)
        })
        .collect();
    tasks.reverse();
    tasks
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn show(sandbox: &Sandbox, agent: &str) -> Value {
    sandbox.cmd(["show", "--json", agent]).run().success().json()
}

#[test]
fn a_status_opens_continues_or_closes_a_task() {
    let sandbox = Sandbox::new();
    let rows: [(&str, &[(&str, &str)]); 14] = [
        ("working checkpoint", &[("running", "working checkpoint")]),
        ("starting starting", &[("running", "starting starting")]),
        ("waiting_approval blocked planning", &[("running", "waiting_approval blocked planning")]),
        ("working complete", &[("completed", "working complete")]),
        ("complete", &[("completed", "complete")]),
        ("working cancelled", &[("cancelled", "working cancelled")]),
        ("working complete working", &[("completed", "working complete"), ("running", "working")]),
        ("cancelled blocked", &[("cancelled", "cancelled"), ("running", "blocked")]),
        ("complete error", &[("completed", "complete"), ("failed", "error")]),
        ("working complete complete", &[("completed", "working complete complete")]),
        ("working error", &[("failed", "working error")]),
        ("error error working", &[("running", "error error working")]),
        ("working error complete", &[("completed", "working error complete")]),
        ("working error starting", &[("failed", "working error"), ("running", "starting")]),
    ];
    for (said, expected) in rows {
        for status in said.split(' ') {
            sandbox.cmd(["emit", "-a", said, "--no-post", "-s", status]).run().success();
        }
        let found = history(&sandbox, said);
        let found: Vec<(&str, String)> =
            found.iter().map(|(state, statuses)| (state.as_str(), statuses.join(" "))).collect();
        let expected: Vec<(&str, String)> =
            expected.iter().map(|(state, statuses)| (*state, (*statuses).to_owned())).collect();
        assert_eq!(found, expected, "after {said}");
    }
}

#[test]
fn new_opens_a_task_always_and_closes_one_that_is_running_as_superseded() {
    let sandbox = Sandbox::new();
    for (before, closed) in [
        ("working", ("cancelled", "working cancelled")),
        ("error", ("failed", "error")),
        ("complete", ("completed", "complete")),
    ] {
        sandbox.cmd(["emit", "-a", before, "--no-post", "-s", before, "-p", "30"]).run().success();
        let old = text(&show(&sandbox, before)["task_id"]);
        sandbox.cmd(["emit", "-a", before, "--no-post", "-s", "complete", "--new", "Anew"]).run().success();
        let found = history(&sandbox, before);
        let found: Vec<(&str, String)> =
            found.iter().map(|(state, statuses)| (state.as_str(), statuses.join(" "))).collect();
        assert_eq!(found, [(closed.0, closed.1.to_owned()), ("completed", "complete".to_owned())]);
        if before == "working" {
            let shown = show(&sandbox, &old);
            assert_eq!(shown["action"], "superseded");
            assert_eq!(shown["progress"], 30);
            assert!(shown["ended_at"].is_string(), "{shown}");
        }
    }
}

#[test]
fn a_new_task_has_a_new_thread_and_the_old_thread_says_why_it_ends() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    sandbox.cmd(["emit", "-a", "bot", "-s", "working", "First"]).run().success().silent();
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "--new", "Second"]).run().success().silent();
    let roots = slack.roots();
    assert_eq!(roots.len(), 2, "{roots:?}");
    let old = slack.thread(&roots[0].ts);
    assert_eq!(old.len(), 2);
    assert!(old[1].text.contains("– CANCELLED\n") && old[1].text.contains("Last Action: superseded"));
    assert!(roots[0].text.contains("– CANCELLED\n"), "the old card: {}", roots[0].text);
    assert!(roots[1].text.contains("– STARTING\n"), "the new card: {}", roots[1].text);
    assert_eq!(slack.thread(&roots[1].ts).len(), 1);
}

#[test]
fn after_a_terminal_status_the_next_task_has_its_own_thread() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    // The status, and the thread it stands in.
    for (status, thread) in [("complete", 0), ("complete", 0), ("working", 1)] {
        sandbox.cmd(["emit", "-a", "bot", "-s", status, "One step"]).run().success().silent();
        let roots = slack.roots();
        assert_eq!(roots.len(), thread + 1, "after {status}");
    }
    assert_eq!(slack.thread(&slack.roots()[0].ts).len(), 2);
}

#[test]
fn what_a_checkpoint_does_not_say_is_inherited_from_its_task_and_from_no_other() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    sandbox
        .cmd(["emit", "-a", "bot", "-s", "working", "-t", "Deploy", "--repo", "acme/rocket", "-p", "40"])
        .run()
        .success();
    let first = show(&sandbox, "bot");
    assert_eq!(first["context_limit"], 200_000);
    let said = ["--tokens", "50000", "--context-limit", "100000", "-c", "#agent-supervisory", "Testing"];
    sandbox.cmd(["emit", "-a", "bot", "--task-type", "release"].iter().chain(&said)).run().success();
    sandbox.cmd(["emit", "-a", "bot", "-s", "blocked"]).run().success();
    let shown = show(&sandbox, "bot");
    for (field, value) in [
        ("task_name", Value::from("Deploy")),
        ("task_type", "release".into()),
        ("repo", "acme/rocket".into()),
        ("progress", 40.into()),
        ("tokens", 50_000.into()),
        ("context_limit", 100_000.into()),
        ("context_percent", 50.0.into()),
        ("action", "Testing".into()),
        ("channel", "C0AGENT000".into()),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let newest = &slack.card(&text(&shown["card_ts"])).text;
    for line in
        ["Task: Deploy\n", "▓▓▓▓░░░░░░ 40%", "Repo: acme/rocket\n", "Context: 50,000 / 100,000 (50.0%)"]
    {
        assert!(newest.contains(line), "{line:?} is not in {newest}");
    }

    // The next task of the same agent begins with nothing.
    sandbox.cmd(["emit", "-a", "bot", "--new", "--no-post"]).run().success();
    let next = show(&sandbox, "bot");
    for field in ["task_name", "repo", "tokens", "action"] {
        assert_eq!(next[field], Value::Null, "{field}");
    }
    assert_eq!((&next["progress"], &next["context_limit"]), (&0.into(), &200_000.into()));
    assert_eq!(next["task_type"], "task");
}

#[test]
fn a_task_stays_in_the_channel_it_began_in() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    sandbox.cmd(["emit", "-a", "bot", "-c", "#general", "One"]).run().success().silent();
    sandbox.cmd(["emit", "-a", "bot", "-f", "Two"]).run().success().silent();
    assert_eq!(slack.messages("general").len(), 2);
    // A thread cannot move: it says so instead of starting another.
    let output =
        sandbox.cmd(["emit", "-a", "bot", "-f", "-c", "#agent-supervisory", "Three"]).run().success();
    output.stderr_has("the task's thread is in #general; channel #agent-supervisory was not used");
    assert_eq!(slack.messages("general").len(), 3);
    assert_eq!(slack.messages("agent-supervisory").len(), 0);
}

#[test]
fn an_existing_thread_is_joined() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    let ts = slack.say("C0AGENT000", None, "U0HUMAN000", "Please deploy");
    let thread = format!("C0AGENT000:{ts}");
    let receipt = sandbox.cmd(["emit", "-a", "bot", "--json", "--thread", &thread, "On it"]).run().success();
    let receipt = receipt.json();
    assert_eq!(receipt["thread_ts"], ts.as_str());
    assert_ne!(receipt["message_ts"], ts.as_str());
    // The next call need not say it again.
    sandbox.cmd(["emit", "-a", "bot", "-s", "complete", "Deployed"]).run().success().silent();
    assert_eq!(slack.roots().len(), 1);
    let thread = slack.thread(&ts);
    assert_eq!(thread.len(), 3);
    assert_eq!(thread[0].text, "Please deploy");
    // The live card is the task's own first message, not the one it hangs from.
    assert_eq!(thread[1].text, thread[2].text);
}

#[test]
fn agents_do_not_share_tasks_or_threads() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    for agent in ["ana", "ben"] {
        sandbox.cmd(["emit", "-a", agent, "-t", agent, "Hello"]).run().success().silent();
    }
    let (ana, ben) = (show(&sandbox, "ana"), show(&sandbox, "ben"));
    assert_ne!(ana["task_id"], ben["task_id"]);
    assert_ne!(ana["thread_ts"], ben["thread_ts"]);
    assert_eq!((&ana["task_name"], &ben["task_name"]), (&"ana".into(), &"ben".into()));
    assert_eq!(slack.roots().len(), 2);
}

#[test]
fn complete_means_100_unless_it_says_otherwise() {
    let sandbox = Sandbox::new();
    for (agent, progress, shown) in [("a", None, 100), ("b", Some("90"), 90), ("c", Some("0"), 0)] {
        sandbox.cmd(["emit", "-a", agent, "--no-post", "-s", "working", "-p", "50"]).run().success();
        let mut args = vec!["emit", "-a", agent, "--no-post", "-s", "complete"];
        args.extend(progress.iter().flat_map(|progress| ["-p", progress]));
        sandbox.cmd(args).run().success();
        assert_eq!(show(&sandbox, agent)["progress"], shown, "{progress:?}");
    }
    // Nobody else's word is changed.
    sandbox.cmd(["emit", "-a", "d", "--no-post", "-s", "working", "-p", "50"]).run().success();
    sandbox.cmd(["emit", "-a", "d", "--no-post", "-s", "cancelled"]).run().success();
    assert_eq!(show(&sandbox, "d")["progress"], 50);
}

#[test]
fn elapsed_counts_from_the_tasks_first_checkpoint_across_processes() {
    let sandbox = Sandbox::new();
    sandbox.cmd(["emit", "-a", "bot", "-s", "working", "Begun"]).run().success();
    // As if that had been two hours, ten minutes and thirty seconds ago.
    let cache = Connection::open(sandbox.cache_path()).expect("the cache");
    cache.execute("UPDATE tasks SET started_at_ms = started_at_ms - 7830000", []).expect("an update");
    drop(cache);
    let output = sandbox.cmd(["emit", "-a", "bot", "-s", "complete", "Done"]).run().success();
    output.stdout_is("✅ COMPLETE bot · ▓▓▓▓▓▓▓▓▓▓ 100% · Done · 2h 10m\n");
    let shown = show(&sandbox, "bot");
    let elapsed = shown["checkpoints"][1]["elapsed_seconds"].as_u64().expect("a count");
    assert!((7830..7890).contains(&elapsed), "{elapsed}");
    // The next task counts anew.
    let output = sandbox.cmd(["emit", "-a", "bot", "-s", "working", "Again"]).run().success();
    output.stdout_is("⚙️ WORKING bot · ░░░░░░░░░░ 0% · Again · 0s\n");
}

#[test]
fn show_has_everything_whole_and_in_order() {
    let sandbox = Sandbox::new();
    let first = ["-s", "working", "-p", "10", "--tokens", "20000", "--artifact", "PR=https://example.com/1"];
    let second =
        ["-s", "error", "--error", "exit code 1", "--artifact", "out/log.txt", "--meta", "commit=1a2b"];
    for (args, action) in [(&first, "Reading"), (&second, "Testing")] {
        sandbox.cmd(["emit", "-a", "bot", action].iter().chain(args)).run().success();
    }
    let shown = show(&sandbox, "bot");
    let field = |list: &str, name: &str| -> Vec<Value> {
        shown[list].as_array().expect("an array").iter().map(|one| one[name].clone()).collect()
    };
    assert_eq!(field("checkpoints", "action"), ["Reading", "Testing"]);
    assert_eq!(field("checkpoints", "status"), ["working", "error"]);
    assert_eq!(field("checkpoints", "progress"), [10, 10]);
    assert_eq!(field("checkpoints", "tokens"), [20_000, 20_000]);
    assert_eq!(field("checkpoints", "error"), [Value::Null, "exit code 1".into()]);
    assert_eq!(field("checkpoints", "delivery"), ["printed", "printed"]);
    assert_eq!(shown["checkpoints"][1]["meta"]["commit"], "1a2b");
    assert_eq!(field("artifacts", "name"), [Value::from("PR"), Value::Null]);
    assert_eq!(field("artifacts", "target"), ["https://example.com/1", "out/log.txt"]);
    assert_eq!(field("artifacts", "checkpoint_id"), field("checkpoints", "checkpoint_id"));
    assert_eq!(shown["interventions"], Value::Array(Vec::new()));
}
