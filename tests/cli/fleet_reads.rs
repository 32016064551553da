//! `tasks`, `show` and `metrics` with `--fleet`: what the database of all machines tells.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cluster::{Cluster, PASSWORD, Pooler};
use crate::db::{OLD, migrate, with_lock};
use crate::support::{Output, Sandbox, wait_for};

/// Tells the database what a cache holds.
pub(crate) fn forward(cluster: &Cluster, database: &str, sandbox: &Sandbox) {
    let url = cluster.url("ana", database);
    sandbox.cmd(["flush"]).env("DATABASE_URL", url).run().success();
}

/// A database with the tables, and its URL.
pub(crate) fn prepared() -> (&'static Cluster, String, String) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    migrate(&url, &[]).success();
    (cluster, database, url)
}

/// What a command says with `--fleet`, on a machine that has recorded nothing.
fn fleet(url: &str, args: &[&str]) -> Output {
    let output = Sandbox::new().cmd([args, &["--fleet"]].concat()).env("DATABASE_URL", url).run();
    output.lacks(PASSWORD)
}

/// Does something again if midnight in UTC came in between.
pub(crate) fn on_one_day<T>(mut work: impl FnMut() -> T) -> T {
    let today = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a sound clock").as_secs() / 86_400;
    loop {
        let (day, value) = (today(), work());
        if today() == day {
            return value;
        }
    }
}

/// A machine on which some agents have worked.
pub(crate) fn machine() -> Sandbox {
    let sandbox = Sandbox::new();
    let emit = |line: &str| sandbox.shell(&format!("$BIN emit -q --no-post {line}")).run().success();
    emit("-a docs -s complete --thread C0TEAM00001:1750000000.000100 --tokens 20000");
    emit("-a lost -s error --error 'exit code 1' 'Uploading'");
    emit("-a stopped -s cancelled --meta why=late");
    emit("-a deploy-bot -t 'Deploy X' --repo acme/rocket --task-type deploy 'Reading files'");
    emit("-a deploy-bot -p 50 --tokens 150000 --meta step=2 --meta who='Ana B' 'Running\ntests'");
    emit("-a deploy-bot -p 60 --artifact LOG=https://ci.example/log --artifact out.txt");
    emit("-a deploy-bot --artifact PR=https://ci.example/1 \"It's \\$1 done\"");
    sandbox
}

/// Without what only a cache knows.
fn without_deliveries(mut task: Value) -> Value {
    for checkpoint in task["checkpoints"].as_array_mut().into_iter().flatten() {
        for field in ["delivery", "delivery_error", "message_ts"] {
            checkpoint[field] = Value::Null;
        }
    }
    task
}

/// With averages to the microsecond: the two divide in another order.
pub(crate) fn rounded(mut list: Value) -> Value {
    for item in list.as_array_mut().expect("a list") {
        if let Some(average) = item["avg_duration"].as_f64() {
            item["avg_duration"] = json!((average * 1e6).round());
        }
    }
    list
}

#[test]
fn each_command_answers_as_the_cache_does() {
    let (cluster, database, url) = prepared();
    let sandbox = machine();
    forward(cluster, &database, &sandbox);
    let pooler = Pooler::start(cluster);
    for url in [&url, &pooler.url(&database)] {
        for args in [
            &["tasks"][..],
            &["tasks", "--state", "failed"],
            &["tasks", "--limit", "2"],
            &["metrics", "--days", "2"],
        ] {
            let json = [args, &["--json"]].concat();
            let (ours, theirs) = on_one_day(|| {
                let ours = sandbox.cmd(&json).run().success().json();
                (ours, fleet(url, &json).success().stderr_is("").json())
            });
            assert_eq!(rounded(theirs), rounded(ours), "{args:?}");
        }
        let ids: Vec<Value> =
            fleet(url, &["tasks", "--json"]).success().json().as_array().expect("tasks").clone();
        let id = |agent: &str| {
            ids.iter().find(|task| task["agent_id"] == agent).expect("a task")["task_id"].clone()
        };
        for agent in ["docs", "lost", "stopped", "deploy-bot", id("lost").as_str().expect("an id")] {
            let json = ["show", agent, "--json"];
            let ours = without_deliveries(sandbox.cmd(json).run().success().json());
            assert_eq!(fleet(url, &json).success().stderr_is("").json(), ours, "{agent}");
        }
        let table = fleet(url, &["tasks"]).success().stderr_is("").stdout;
        assert_eq!(table.lines().next(), sandbox.cmd(["tasks"]).run().stdout.lines().next());
        assert_eq!(table.lines().count(), 5, "{table}");
        let (ours, theirs) = on_one_day(|| {
            let ours = sandbox.cmd(["metrics"]).run().success().stdout;
            (ours, fleet(url, &["metrics"]).success().stderr_is("").stdout)
        });
        assert_eq!(theirs, ours);
        let page = fleet(url, &["show", "deploy-bot"]).success().stderr_is("").stdout;
        let ours = sandbox.cmd(["show", "deploy-bot"]).run().stdout;
        assert_eq!(page, ours.replace("%  off          ", "%  -            ").replace("%  off\n", "%  -\n"));
    }
}

#[test]
fn each_day_counts_the_tasks_started_on_it() {
    let days = on_one_day(three_days);
    let brief = |day: &Value| {
        ["total", "completed", "failed", "cancelled", "avg_duration", "tokens"].map(|name| day[name].clone())
    };
    let days: Vec<_> = days.as_array().expect("days").iter().map(brief).collect();
    assert_eq!(
        json!(days),
        json!([
            [0, 0, 0, 0, null, 0],
            [1, 1, 0, 0, 60.0, 0],
            [4, 1, 1, 1, (90.5 + 30.5) / 3.0, 9_000_100_000_u64]
        ])
    );
}

/// What `metrics` says of seven tasks, some of them started before today.
fn three_days() -> Value {
    let (cluster, database, url) = prepared();
    let task = |agent: &str, state: &str, started: &str, ended: &str, tokens: &str| {
        format!(
            "INSERT INTO agent_tasks (id, agent_id, task_type, status, started_at, completed_at, metadata) VALUES \
             (gen_random_uuid(), '{agent}', 'task', '{state}', {started}, {ended}, {tokens})"
        )
    };
    let tokens = |count: &str| format!("'{{\"agent_checkpoint\":{{\"snapshot\":{{\"tokens\":{count}}}}}}}'");
    // Noon, so that no midnight is near; the server's day is what counts.
    let noon = "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '12 hours'";
    let at = |time: &str| format!("{noon} {time}");
    let both = |agent, state, start: &str, end: &str, count| task(agent, state, &at(start), &at(end), count);
    let sql = [
        both("a", "completed", "", "+ interval '90.5 seconds'", &tokens("100000")),
        both("b", "failed", "", "+ interval '30.5 seconds'", &tokens("9000000000")),
        // A clock that was set back in between.
        both("c", "cancelled", "", "- interval '5 seconds'", "NULL"),
        task("d", "running", &at(""), "NULL", &tokens("\"many\"")),
        both("e", "completed", "- interval '1 day'", "- interval '1 day' + interval '1 minute'", "'[1]'"),
        both("f", "completed", "- interval '3 days'", "", "NULL"),
        task("g", "pending", "NULL", "NULL", "NULL"),
    ];
    cluster.sql_in(&database, &sql.join(";"));
    // Nothing depends on the zone of a session.
    let url = format!("{url}?options=-ctimezone%3DAsia/Tokyo");
    fleet(&url, &["metrics", "--days", "3", "--json"]).success().stderr_is("").json()
}

#[test]
fn tables_of_other_programs_are_read_as_they_are() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    cluster.sql_in(&database, &format!("SET ROLE ana; {OLD}"));
    cluster.sql_in(
        &database,
        "UPDATE agent_tasks SET started_at = now() - interval '1 hour', progress = 40;
         UPDATE agent_tasks SET completed_at = started_at + interval '5 minutes' WHERE agent_id = 'done';
         INSERT INTO agent_tasks (agent_id, task_type, task_name, error_message)
             VALUES ('queued', 'test', 'Later', 'not yet');
         INSERT INTO agent_checkpoints (task_id, agent_id, checkpoint_type, action_description, tokens_used, created_at)
             SELECT id, agent_id, 'start', 'Reading', 5000, now() - interval '1 hour' FROM agent_tasks
             WHERE agent_id = 'busy';",
    );
    migrate(&url, &[]).success();
    cluster.sql_in(
        &database,
        "INSERT INTO task_artifacts (id, agent_id, task_id, artifact_name, artifact_content, metadata)
             SELECT gen_random_uuid(), agent_id, id, 'notes', 'all well', '\"odd\"' FROM agent_tasks WHERE agent_id = 'busy';
         UPDATE agent_tasks SET metadata = '{\"owner\": \"Ana\"}';
         UPDATE agent_checkpoints SET metadata = '{\"try\": 2, \"host\": \"ci\"}' WHERE checkpoint_type = 'start';",
    );
    let table = fleet(&url, &["tasks"]).success().stderr_is("").stdout;
    assert!(table.contains("pending     queued  Later"), "{table}");
    let pending = fleet(&url, &["tasks", "--json", "--state", "pending"]).success().json();
    let brief = |task: &Value| json!([task["agent_id"], task["state"], task["status"], task["error"]]);
    assert_eq!(brief(&pending[0]), json!(["queued", "pending", "starting", "not yet"]));
    assert_eq!(pending.as_array().map(Vec::len), Some(1));

    let task = fleet(&url, &["show", "busy", "--json"]).success().stderr_is("").json();
    let brief: Vec<&Value> = ["task_name", "task_type", "state", "status", "progress", "tokens", "action"]
        .map(|field| &task[field])
        .into();
    assert_eq!(json!(brief), json!(["Tests", "test", "running", "checkpoint", 40, 5000, "Reading"]));
    let checkpoints = task["checkpoints"].as_array().expect("checkpoints");
    let brief =
        |c: &Value| json!([c["status"], c["progress"], c["action"], c["tokens"], c["meta"], c["delivery"]]);
    assert_eq!(
        checkpoints.iter().map(brief).collect::<Vec<_>>(),
        [
            json!(["starting", 0, "Reading", 5000, { "try": "2", "host": "ci" }, null]),
            json!(["checkpoint", 40, null, null, {}, null]),
        ]
    );
    let artifact = &task["artifacts"][0];
    assert_eq!(json!([artifact["name"], artifact["target"]]), json!(["notes", "all well"]));
    let days = fleet(&url, &["metrics", "--days", "2", "--json"]).success().json();
    let sum = |field: &str| {
        days.as_array().expect("days").iter().filter_map(|day| day[field].as_u64()).sum::<u64>()
    };
    assert_eq!((sum("total"), sum("completed"), sum("tokens")), (2, 1, 5000), "{days}");
}

#[test]
fn what_a_column_has_no_room_for_is_shown_whole() {
    let (cluster, database, url) = prepared();
    let (name, repo) = ("n".repeat(700), "r".repeat(300));
    let whole =
        json!({ "agent_checkpoint": { "whole": { "task_type": "t".repeat(60), "artifact_name": name } } });
    let snapshot = json!({ "agent_checkpoint": { "whole": { "task_type": "t".repeat(60) }, "snapshot": {
        "status": "working", "progress": 5, "name": name, "repo": repo, "tokens": null, "context_limit": 1000,
        "context": "calm", "context_told": "calm", "action": null, "error": null, "steps": [], "artifacts": [],
        "artifact_count": 0, "elapsed_ms": 4000 } } });
    let id = "01980000-0000-7000-8000-000000000001";
    cluster.sql_in(
        &database,
        &format!(
            "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, repo_scope, status, metadata) VALUES
                 ('{id}', 'a', '{}', '{}', '{}', 'running', '{snapshot}');
             INSERT INTO task_artifacts (id, task_id, agent_id, artifact_name, artifact_url, metadata) VALUES
                 (gen_random_uuid(), '{id}', 'a', '{}', 'https://x.example', '{whole}')",
            "t".repeat(50),
            "n".repeat(500),
            "r".repeat(255),
            "n".repeat(255),
        ),
    );
    let task = fleet(&url, &["show", "a", "--json"]).success().json();
    assert_eq!(task["task_name"], json!(name));
    assert_eq!(task["repo"], json!(repo));
    assert_eq!(task["task_type"], json!("t".repeat(60)));
    assert_eq!(task["artifacts"][0]["name"], json!(name));
}

#[test]
fn show_has_the_latest_task_with_all_that_belongs_to_it_in_order() {
    let (cluster, database, url) = prepared();
    let id = |n: u32| format!("01980000-0000-7000-8000-{n:012}");
    let mut sql = Vec::new();
    for (n, state, age) in [(1, "completed", 3), (2, "running", 1), (3, "failed", 2)] {
        sql.push(format!(
            "INSERT INTO agent_tasks (id, agent_id, task_type, status, created_at) VALUES
                 ('{}', 'bot', 'task', '{state}', now() - interval '{age} hours')",
            id(n)
        ));
    }
    // Of one moment; their ids say nothing of their order.
    for (n, seq) in [(14, 1), (11, 2), (13, 3), (12, 10)] {
        sql.push(format!(
            "INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status, action_description, created_at,
                 metadata) VALUES ('{}', '{}', 'bot', 'progress', 'working', 'step {seq}', '2026-01-02T03:04:05.678Z',
                 '{{\"agent_checkpoint\":{{\"seq\":{seq}}}}}')",
            id(n),
            id(2)
        ));
    }
    for (n, details) in [
        (21, r#"'{"choice": "blue", "source": "click", "user_name": "Ana"}'"#),
        (22, "'go on'"),
        (23, "NULL"),
    ] {
        sql.push(format!(
            "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details, created_at)
                 VALUES ('{}', '{}', 'bot', 'approve', 'U0ANA', {details}, '2026-01-02T03:04:{n}Z')",
            id(n),
            id(2)
        ));
    }
    cluster.sql_in(&database, &sql.join(";"));
    let task = fleet(&url, &["show", "bot", "--json"]).success().json();
    assert_eq!(task["task_id"], json!(id(2)));
    let field = |list: &str, field: &str| -> Vec<Value> {
        task[list].as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
    };
    assert_eq!(field("checkpoints", "action"), ["step 1", "step 2", "step 3", "step 10"]);
    assert_eq!(task["checkpoints"][0]["created_at"], "2026-01-02T03:04:05.678Z");
    assert_eq!(
        field("interventions", "action_details"),
        [json!({ "choice": "blue" }), json!("go on"), Value::Null]
    );
    assert_eq!(
        task["interventions"][0],
        json!({ "intervention_id": id(21), "intervention_type": "approve", "source": "click", "user_id": "U0ANA",
            "user_name": "Ana", "action_details": { "choice": "blue" }, "created_at": "2026-01-02T03:04:21.000Z" })
    );
    let other = fleet(&url, &["show", &id(3), "--json"]).success().json();
    assert_eq!((&other["task_id"], &other["checkpoints"]), (&json!(id(3)), &json!([])));
    for unknown in ["nobody".to_owned(), id(9)] {
        let output = fleet(&url, &["show", &unknown]).code(1).stdout_is("");
        output
            .stderr_has(&format!("no agent or task '{unknown}'\n"))
            .stderr_has("hint: agent-checkpoint tasks --fleet");
    }
}

#[test]
fn a_large_fleet_is_read_by_its_indexes() {
    let (cluster, database, url) = prepared();
    cluster.sql_in(
        &database,
        "INSERT INTO agent_tasks (id, agent_id, task_type, status, created_at, started_at, updated_at)
             SELECT gen_random_uuid(), 'agent-' || n, 'task',
                 CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 200 = 1 THEN 'running' ELSE 'completed' END,
                 at, at, at FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, 20000) n) t;
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status, created_at, tokens_used)
             SELECT gen_random_uuid(), t.id, t.agent_id, 'progress', 'working', t.created_at, 7
             FROM agent_tasks t, generate_series(1, 2);
         ANALYZE",
    );
    let counts = |field: &str| -> Vec<u64> {
        let sql = format!(
            "SELECT {field} FROM pg_stat_user_tables WHERE relname IN ('agent_tasks', 'agent_checkpoints') ORDER BY relname"
        );
        cluster.sql_in(&database, &sql).lines().map(|line| line.parse().expect("a number")).collect()
    };
    // What was read is told by the server when a connection ends.
    for args in [
        &["tasks"][..],
        &["tasks", "--state", "failed"],
        &["tasks", "--state", "running", "--limit", "5"],
        &["show", "agent-7"],
        &["metrics", "--days", "1"],
    ] {
        let (scans, uses, before) = (counts("seq_scan"), counts("idx_scan"), counts("idx_tup_fetch"));
        fleet(&url, args).success().stderr_is("");
        let told = || counts("idx_scan").iter().zip(&uses).all(|(now, then)| now > then).then_some(());
        wait_for("the server's counts", told);
        assert_eq!(counts("seq_scan"), scans, "{args:?}");
        let read: Vec<u64> =
            counts("idx_tup_fetch").iter().zip(before).map(|(now, then)| now - then).collect();
        assert!(read.iter().all(|rows| *rows <= 3000), "{args:?}: {read:?} rows");
    }
}

#[test]
fn tasks_that_were_left_open_in_great_number_are_not_all_read() {
    let (cluster, database, url) = prepared();
    cluster.sql_in(
        &database,
        "INSERT INTO agent_tasks (id, agent_id, task_type, status, created_at, started_at, updated_at)
             SELECT gen_random_uuid(), 'agent-' || n, 'task', 'running', at, at, at + n * interval '1 second'
             FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, 30000) n) t;
         ANALYZE",
    );
    let count = |field: &str| -> u64 {
        let sql = format!("SELECT {field} FROM pg_stat_user_tables WHERE relname = 'agent_tasks'");
        cluster.sql_in(&database, &sql).parse().expect("a number")
    };
    for args in [&["tasks", "--limit", "5"][..], &["tasks", "--state", "running", "--limit", "5"]] {
        let (scans, before) = (count("seq_scan"), count("idx_tup_fetch"));
        let tasks = fleet(&url, &[args, &["--json"]].concat()).success().json();
        assert_eq!((tasks.as_array().map(Vec::len), &tasks[0]["agent_id"]), (Some(5), &json!("agent-1")));
        wait_for("the server's counts", || (count("idx_tup_fetch") > before).then_some(()));
        assert_eq!(count("seq_scan"), scans, "{args:?}");
        let read = count("idx_tup_fetch") - before;
        assert!(read <= 10_100, "{args:?}: {read} rows");
    }
}

#[test]
fn a_report_is_one_snapshot_that_changes_nothing_and_leaves_nothing_behind() {
    let (cluster, database, url) = prepared();
    let before = cluster.statements(&database).len();
    for args in [&["tasks"][..], &["metrics"], &["show", "nobody"]] {
        fleet(&url, args);
    }
    let said = cluster.statements(&database).split_off(before);
    let begins = |words: &str| said.iter().filter(|line| line.starts_with(words)).count();
    assert_eq!(
        begins("statement: START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
        3,
        "{said:#?}"
    );
    assert_eq!(begins("statement: SET LOCAL statement_timeout = "), 3, "{said:#?}");
    assert_eq!(begins("execute <unnamed>: SELECT "), 6, "{said:#?}");
    assert_eq!(begins("statement: COMMIT"), 3, "{said:#?}");
    assert_eq!(said.len(), 15, "{said:#?}");
}

#[test]
fn an_empty_database_is_told_of_with_what_may_still_wait_for_it() {
    let (_cluster, _database, url) = prepared();
    fleet(&url, &["tasks"]).success().stdout_is("").stderr_is(
        "agent-checkpoint: warning: no tasks\n\
         hint: what a machine has recorded before may still wait there: run agent-checkpoint flush on it\n",
    );
}

#[test]
fn without_a_usable_database_each_command_says_why() {
    let sandbox = Sandbox::new();
    for args in [&["tasks"][..], &["show", "bot"], &["metrics"]] {
        let run = || sandbox.cmd([args, &["--fleet"]].concat());
        let output = run().run().code(78).stdout_is("");
        output.stderr_is(
            "agent-checkpoint: no database is configured\n\
             hint: set DATABASE_URL, or leave out --fleet to read this machine's cache\n",
        );
        let output = run().env("DATABASE_URL", "mysql://x").run().code(78).stdout_is("");
        output
            .stderr_has("DATABASE_URL: the value is not a Postgres URL")
            .stderr_has("the database cannot be used");
        let output = run().env("DATABASE_URL", "postgres://ana@127.0.0.1:1/x").run().code(1).stdout_is("");
        output
            .stderr_has("could not read from the database: 127.0.0.1:1 refused the connection")
            .stderr_has("hint: check host and port");
        // The cache is read without it.
        sandbox.cmd([args, &["--deadline", "1s"]].concat()).run().code(64).stdout_is("");
    }
    let run = sandbox.cmd(["tasks", "--fleet", "--waiting"]).run().code(64).stdout_is("");
    run.stderr_has("--waiting cannot be used with --fleet");
    assert!(!sandbox.cache_path().exists(), "nothing was recorded here");
}

#[test]
fn missing_or_old_tables_are_told_of_with_the_way_out() {
    let cluster = Cluster::shared();
    for (before, message) in [("", "relation \"agent_tasks\" does not exist"), (OLD, "column")] {
        let database = cluster.database();
        let url = cluster.url("ana", &database);
        cluster.sql_in(&database, &format!("SET ROLE ana; {before}"));
        for args in [&["tasks"][..], &["show", "busy"], &["metrics"]] {
            let output = fleet(&url, args).code(1).stdout_is("");
            output.stderr_has(message).stderr_has("hint: run agent-checkpoint db migrate");
        }
        migrate(&url, &[]).success();
        for args in [&["tasks"][..], &["metrics"]] {
            fleet(&url, args).success();
        }
    }
}

#[test]
fn a_database_that_does_not_answer_is_waited_for_no_longer_than_told() {
    let (cluster, database, url) = prepared();
    with_lock(cluster, &database, || {
        for args in [&["tasks"][..], &["show", "bot"], &["metrics"]] {
            let output = fleet(&url, &[args, &["--deadline", "300ms"]].concat()).code(1).stdout_is("");
            output.stderr_has("could not read from the database: ");
        }
        // Nobody waits for the lock any more.
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        );
        wait_for("the end of what was given up", || (cluster.sql(&waiting) == "0").then_some(()));
    });
    fleet(&url, &["tasks"]).success();
}
