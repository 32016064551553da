//! `tasks`: the table, the filters and the JSON.

use serde_json::{Value, json};

use crate::fake_slack::{CHANNEL, FakeSlack, Fault};
use crate::run_terminal::Terminal;
use crate::support::{Output, Sandbox};

/// Five agents, one in each of the ways a task can stand; the latest is listed first.
fn fleet() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_MIN_INTERVAL", "1h");
    let emit = |line: &str| sandbox.shell(&format!("$BIN emit -q {line}")).run().success();
    emit("-a deploy-bot -t 'Deploy X' -s starting --tokens 150000 'Reading files'");
    emit("-a deploy-bot -s working -p 60 'Running tests'");
    emit("-a docs -s complete --no-post");
    emit("-a lost -c '#secret' -s error -p 5 --error 'exit code 1'");
    emit("-a stopped -s cancelled --no-post");
    emit("-a asking -s waiting_approval -p 100 --tokens 190000 --no-post");
    (slack, sandbox)
}

/// A table with every age as it is in the first second.
fn young(text: &str) -> String {
    let is_age = |word: &str| {
        word.strip_suffix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let words = text.split_inclusive(' ').map(|word| match word.strip_suffix(' ') {
        Some(age) if is_age(age) => format!("{:<width$} ", "0s", width = age.len()),
        _ => word.to_owned(),
    });
    words.collect()
}

/// The agents of a table or of a list in JSON.
fn agents(output: &Output) -> Vec<String> {
    match serde_json::from_str::<Value>(&output.stdout) {
        Ok(tasks) => {
            let tasks = tasks.as_array().expect("an array").clone();
            tasks.iter().map(|task| task["agent_id"].as_str().expect("an id").to_owned()).collect()
        }
        Err(_) => {
            let rows = output.stdout.lines().skip(1);
            rows.filter_map(|row| row.split_whitespace().nth(1).map(str::to_owned)).collect()
        }
    }
}

#[test]
fn the_table_shows_where_every_agent_stands_and_what_waits() {
    let (_slack, sandbox) = fleet();
    let output = sandbox.cmd(["tasks"]).run().success().stderr_is("");
    let table = young(&output.stdout);
    let (others, last) = table.trim_end().rsplit_once('\n').expect("lines");
    assert_eq!(
        others,
        "STATUS            AGENT       TASK      PROGRESS         CONTEXT  AGE  WAITING
waiting_approval  asking      -         ▓▓▓▓▓▓▓▓▓▓ 100%  95.0%    0s   -
cancelled         stopped     -         ░░░░░░░░░░ 0%    0.0%     0s   -
error             lost        -         ░░░░░░░░░░ 5%    0.0%     0s   1 refused: channel_not_found
complete          docs        -         ▓▓▓▓▓▓▓▓▓▓ 100%  0.0%     0s   -",
        "{output}"
    );
    let waits = "working           deploy-bot  Deploy X  ▓▓▓▓▓▓░░░░ 60%   75.0%    0s   1 waiting: inside the interval, due in ";
    assert!(last.starts_with(waits), "{output}");
}

#[test]
fn filters_pick_by_state_by_what_waits_and_the_latest() {
    let (_slack, sandbox) = fleet();
    for (line, found) in [
        ("", "asking stopped lost docs deploy-bot"),
        ("--state running", "asking deploy-bot"),
        ("--state failed", "lost"),
        ("--state completed", "docs"),
        ("--state cancelled", "stopped"),
        ("--waiting", "lost deploy-bot"),
        ("--waiting --state running", "deploy-bot"),
        ("--limit 2", "asking stopped"),
        ("--limit 1 --state running", "asking"),
        ("--limit 0", ""),
    ] {
        let args: Vec<&str> = ["tasks"].into_iter().chain(line.split_whitespace()).collect();
        let table = sandbox.cmd(&args).run().success();
        let list = sandbox.cmd(args.iter().chain(&["--json"])).run().success().stderr_is("");
        let found: Vec<&str> = found.split_whitespace().collect();
        assert_eq!(agents(&list), found, "{line}\n{list}");
        assert_eq!(agents(&table), found, "{line}\n{table}");
    }
    let wrong = sandbox.cmd(["tasks", "--state", "done"]).run().code(64).stdout_is("");
    wrong.stderr_is(
        "agent-checkpoint: --state: 'done' is not a task state\n\
         hint: use one of running, failed, completed, cancelled, pending, approved\n",
    );
}

#[test]
fn json_has_every_field_of_a_task() {
    let (slack, sandbox) = fleet();
    let tasks = sandbox.cmd(["tasks", "--json"]).run().success().json();
    let mut task = tasks[4].clone();
    let root = &slack.messages(CHANNEL)[0];
    let time = |value: &Value| {
        let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}")).to_owned();
        assert!(text.len() == 24 && text.ends_with('Z') && text.contains('T'), "{text}");
        text
    };
    assert!(time(&task["started_at"]) <= time(&task["updated_at"]));
    assert!(time(&task["waiting"]["since"]) < time(&task["waiting"]["due_at"]));
    assert_eq!(task["task_id"].as_str().map(str::len), Some(36));
    for field in ["task_id", "started_at", "updated_at", "elapsed_seconds"] {
        task.as_object_mut().expect("an object").remove(field).expect(field);
    }
    for field in ["since", "due_at"] {
        task["waiting"].as_object_mut().expect("an object").remove(field).expect(field);
    }
    assert_eq!(
        task,
        json!({
            "agent_id": "deploy-bot",
            "task_name": "Deploy X",
            "task_type": "task",
            "repo": null,
            "state": "running",
            "status": "working",
            "progress": 60,
            "tokens": 150_000,
            "context_limit": 200_000,
            "context_percent": 75.0,
            "action": "Running tests",
            "error": null,
            "channel": CHANNEL,
            "thread_ts": root.ts,
            "card_ts": root.ts,
            "seen_at": null,
            "ended_at": null,
            "checkpoint_count": 2,
            "waiting": { "count": 1, "reason": null },
            "rejected": null,
        })
    );
    let lost = &tasks[2];
    assert_eq!(
        (&lost["rejected"]["count"], &lost["rejected"]["reason"], &lost["waiting"], &lost["error"]),
        (&json!(1), &json!("channel_not_found"), &Value::Null, &json!("exit code 1"))
    );
    time(&tasks[3]["ended_at"]);
}

#[test]
fn without_tasks_it_says_how_to_make_one() {
    let sandbox = Sandbox::new();
    sandbox.cmd(["tasks"]).run().success().stdout_is("").stderr_is(
        "agent-checkpoint: warning: no tasks\n\
         hint: agent-checkpoint emit --status starting \"Hello\" makes one\n",
    );
    sandbox.cmd(["tasks", "--quiet"]).run().success().silent();
    sandbox.cmd(["tasks", "--json"]).run().success().stdout_is("[]\n").stderr_is("");
}

#[test]
fn where_no_task_fits_it_says_which_was_looked_for() {
    let sandbox = Sandbox::new();
    sandbox.cmd(["emit", "Hello"]).run().success();
    for (line, words) in [
        ("--waiting", "no task has messages that wait or were refused"),
        ("--waiting --state running", "no running task has messages that wait or were refused"),
        ("--state failed", "no failed tasks"),
        ("--limit 0", "no tasks"),
    ] {
        let args = ["tasks"].into_iter().chain(line.split(' '));
        let output = sandbox.cmd(args).run().success().stdout_is("");
        output.stderr_is(&format!("agent-checkpoint: warning: {words}\n"));
    }
}

#[test]
fn colour_is_only_used_where_it_is_wanted() {
    let (_slack, sandbox) = fleet();
    sandbox.env_remove("NO_COLOR").env("TERM", "xterm");
    let plain = sandbox.cmd(["tasks", "--color", "never"]).run().success();
    sandbox.cmd(["tasks"]).run().success().lacks("\u{1b}");
    let coloured = sandbox.cmd(["tasks", "--color", "always"]).run().success();
    for cell in
        ["\u{1b}[33mwaiting_approval\u{1b}[0m", "\u{1b}[31merror\u{1b}[0m", "\u{1b}[31m95.0%\u{1b}[0m"]
    {
        assert!(coloured.stdout.contains(cell), "{cell:?}\n{coloured}");
    }
    // Colour changes no width.
    let mut bare = coloured.stdout.clone();
    for code in ["0", "2", "31", "32", "33"] {
        bare = bare.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(young(&bare).lines().count(), plain.stdout.lines().count());
    let columns = |text: &str| text.lines().map(|line| line.find("  ")).collect::<Vec<_>>();
    assert_eq!(columns(&bare), columns(&plain.stdout));
}

#[test]
fn on_a_terminal_the_table_fits_and_in_a_pipe_nothing_is_cut() {
    let (_slack, sandbox) = fleet();
    let (agent, name) = ("a".repeat(36), "Deploy the rocket to the moon");
    sandbox.cmd(["emit", "-a", &agent, "-t", name, "--no-post"]).run().success();
    sandbox
        .cmd(["emit", "-a", "部署机器人部署机器人", "-t", "部署机器人部署机器人", "--no-post"])
        .run()
        .success();
    let piped = sandbox.cmd(["tasks"]).run().success();
    assert!(piped.stdout.contains(&agent) && piped.stdout.contains(name), "{piped}");
    for columns in [200, 100, 80, 60, 40, 10] {
        let (code, shown) = Terminal::run_in(&sandbox, columns, "$BIN tasks");
        assert_eq!((code, shown.lines().count()), (Some(0), 8), "{shown}");
        for line in shown.lines() {
            // Those letters take two columns, all other characters here one.
            let wide = line.chars().filter(|c| "部署机器人".contains(*c)).count();
            assert!(line.chars().count() + wide <= usize::from(columns), "{columns}: {line}\n{shown}");
        }
        let has = |words: &str| shown.contains(words);
        match columns {
            200 => assert!(has(&agent) && has(name) && has("▓▓▓▓▓▓▓▓▓▓ 100%"), "{shown}"),
            80.. => assert!(has("Deploy") && has("aaaaa…") && has("1 refused:"), "{shown}"),
            60.. => assert!(has("aaaaaaa…") && has("  100%  ") && has("  95.0%  "), "{shown}"),
            _ => assert!(has("working"), "{shown}"),
        }
    }
}

#[test]
fn names_stay_in_their_column() {
    let sandbox = Sandbox::new();
    let long = "n".repeat(60);
    sandbox.cmd(["emit", "-a", &long, "-t", "a\u{202e}b", "--no-post"]).run().success();
    let output = sandbox.cmd(["tasks"]).run().success();
    let row = output.stdout.lines().nth(1).unwrap_or_default();
    let cells: Vec<&str> = row.split("  ").filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[1], format!("{}…", "n".repeat(35)), "{output}");
    assert_eq!(cells[2].trim(), "ab", "{output}");
}

#[test]
fn a_pause_that_is_imposed_on_everyone_is_told_with_its_end() {
    let (slack, sandbox) = (FakeSlack::start(), Sandbox::new());
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_DEADLINE", "1s");
    slack.script("chat.postMessage", vec![Fault::RateLimited { retry_after: Some(90) }]);
    for agent in ["first", "second"] {
        let receipt = sandbox.cmd(["emit", "--json", "-a", agent, "One"]).run().success().json();
        assert_eq!(receipt["delivery"], "queued", "{receipt}");
    }
    let pause = "Slack asked everyone to wait; next try in 1m ";
    sandbox.cmd(["tasks"]).run().success().stdout_has(pause).lacks("due now");
    sandbox.cmd(["show", "second"]).run().success().stdout_has(pause);
    sandbox.cmd(["doctor"]).run().stdout_has(pause);
    let waiting = &sandbox.cmd(["show", "--json", "second"]).run().success().json()["waiting"];
    let time = |name: &str| waiting[name].as_str().unwrap_or_default().to_owned();
    assert!(time("due_at") > time("since"), "{waiting}");
}
