//! The audit trail: what is recorded is in the database, once, in order, whole.

use std::fs;
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::cluster::{Cluster, PASSWORD, Pooler};
use crate::fake_slack::FakeSlack;
use crate::run_terminal::Terminal;
use crate::support::{Sandbox, wait_for};

/// A machine whose rows go to a database.
pub(crate) struct Machine {
    pub(crate) sandbox: Sandbox,
    pub(crate) url: String,
}

impl Machine {
    pub(crate) fn of(url: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.env("DATABASE_URL", url);
        Self { sandbox, url: url.to_owned() }
    }

    pub(crate) fn with_slack(url: &str, slack: &FakeSlack) -> Self {
        let machine = Self::of(url);
        machine.sandbox.slack(slack);
        machine
    }

    /// `emit --json` of the agent `bot`, unless the words name another; its receipt.
    #[track_caller]
    pub(crate) fn emit<const N: usize>(&self, words: [&str; N]) -> Value {
        let mut line = vec!["emit", "--json"];
        if !words.contains(&"-a") {
            line.extend(["-a", "bot"]);
        }
        line.extend(words);
        self.sandbox.cmd(line).run().success().lacks(PASSWORD).json()
    }

    /// The same without the database.
    #[track_caller]
    pub(crate) fn emit_alone<const N: usize>(&self, words: [&str; N]) -> Value {
        self.sandbox.env("DATABASE_URL", "");
        let receipt = self.emit(words);
        self.sandbox.env("DATABASE_URL", &self.url);
        receipt
    }

    /// Records for other agents without the database: so much that a call does not take all of it along.
    #[track_caller]
    pub(crate) fn record_much(&self) {
        let lines: String =
            (0..250).map(|i| format!("{{\"agent_id\":\"other-{}\",\"action\":\"{i}\"}}\n", i % 5)).collect();
        let many = self.sandbox.cmd(["stream", "--no-post"]).env("DATABASE_URL", "").stdin(lines);
        many.run().success();
    }

    /// `flush --json`; its answer.
    #[track_caller]
    pub(crate) fn flush(&self) -> Value {
        self.sandbox.cmd(["flush", "--json"]).run().success().lacks(PASSWORD).json()
    }
}

/// A database with the tables, and its URL for the tables' owner.
#[track_caller]
pub(crate) fn database(cluster: &Cluster) -> (String, String) {
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    Sandbox::new().cmd(["db", "migrate"]).env("DATABASE_URL", &url).run().success();
    (database, url)
}

/// Checkpoints in the order of the trail, as `ACTION|PROGRESS`.
#[track_caller]
pub(crate) fn trail(cluster: &Cluster, database: &str) -> Vec<String> {
    let sql = "SELECT action_description, progress FROM agent_checkpoints
               ORDER BY created_at, (metadata -> 'agent_checkpoint' ->> 'seq')::int";
    cluster.sql_in(database, sql).lines().map(str::to_owned).collect()
}

#[test]
fn a_moment_at_infinity_in_a_row_of_another_program_holds_nothing_up() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let insert = "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, status, created_at, updated_at) VALUES
                  ('018bcfe5-6800-7000-8000-000000000001', 'bot', 'other', 'theirs', 'running', '-infinity', 'infinity')";
    cluster.sql_in(&database, insert);
    let machine = Machine::of(&url);
    assert_eq!(machine.emit(["-p", "5", "one"])["audit"], "sent");
    assert_eq!(machine.emit(["-a", "else", "-p", "6", "two"])["audit"], "sent");
    assert_eq!(trail(cluster, &database), ["one|5", "two|6"]);
    machine.sandbox.cmd(["tasks", "--fleet"]).run().success();
}

#[test]
fn columns_that_somebody_made_of_another_type_stop_no_caller() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    for (kind, audit) in [("bigint", "sent"), ("smallint", "sent"), ("text", "queued")] {
        cluster.sql_in(&database, &format!("ALTER TABLE agent_tasks ALTER progress TYPE {kind}"));
        // A machine that finds the task there, and one that begins a task.
        for agent in ["bot", kind] {
            let receipt = Machine::of(&url).emit(["-a", agent, "-s", "blocked", "-p", "40", kind]);
            assert_eq!(receipt["audit"], audit, "{receipt}");
        }
    }
}

#[test]
fn a_row_whose_own_words_somebody_else_garbled_still_takes_a_checkpoint() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    for (agent, latest) in
        [("a", r#"{"key":"x","at_ms":"y","cache":"z"}"#), ("b", r#"{"key":1.5,"at_ms":1e30}"#)]
    {
        let metadata = format!(r#"{{"agent_checkpoint": {{"latest": {latest}}}}}"#);
        let insert = format!(
            "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, status, metadata)
             VALUES (gen_random_uuid(), '{agent}', 'other', 'theirs', 'running', '{metadata}')"
        );
        cluster.sql_in(&database, &insert);
        let receipt = Machine::of(&url).emit(["-a", agent, "-p", "5", "one"]);
        assert_eq!(receipt["audit"], "sent", "{receipt}");
    }
    assert_eq!(cluster.sql_in(&database, "SELECT DISTINCT progress FROM agent_tasks"), "5");
}

#[test]
fn a_cache_that_was_restored_from_a_backup_still_moves_its_tasks_on() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "-p", "5", "one"]);
    let backup = machine.sandbox.work().join("restored.db");
    for end in ["", "-wal"] {
        let of = |path: PathBuf| PathBuf::from(format!("{}{end}", path.display()));
        fs::copy(of(machine.sandbox.cache_path()), of(backup.clone())).expect("a copy");
    }
    for progress in ["10", "20", "30"] {
        machine.emit(["-p", progress, "later"]);
    }
    machine.flush();

    machine.sandbox.env("AGENT_CHECKPOINT_CACHE", &backup);
    machine.emit(["-p", "40", "on"]);
    machine.flush();
    let status = "SELECT status, progress FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, status), "running|40");
    machine.emit(["-s", "complete", "done"]);
    assert_eq!(cluster.sql_in(&database, status), "completed|100");
    assert_eq!(trail(cluster, &database).len(), 6);
}

#[test]
fn what_is_recorded_is_in_the_database_at_once() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    let first = machine.emit(["-s", "starting", "-t", "Deploy", "--repo", "acme/rocket", "Begin"]);
    assert_eq!(first["audit"], "sent");
    let words =
        ["-s", "error", "-p", "40", "--tokens", "150000", "--error", "exit 1", "--meta", "k=v", "Tests"];
    assert_eq!(machine.emit(words)["audit"], "sent");
    let words = ["-s", "complete", "--artifact", "PR=https://example.com/1", "--artifact", "out.txt", "Done"];
    assert_eq!(machine.emit(words)["audit"], "sent");

    let task =
        "SELECT id, agent_id, task_type, task_name, repo_scope, status, progress, completed_at IS NOT NULL,
                    result_summary, error_message, artifacts FROM agent_tasks";
    let id = first["task_id"].as_str().expect("an id");
    let artifacts = r#"[{"name": "PR", "target": "https://example.com/1"}, {"target": "out.txt"}]"#;
    assert_eq!(
        cluster.sql_in(&database, task),
        format!("{id}|bot|task|Deploy|acme/rocket|completed|100|t|Done||{artifacts}")
    );
    let checkpoints = "SELECT checkpoint_type, action_description, progress, tokens_used, context_limit, status,
                           error_message, retry_count, metadata ->> 'k' FROM agent_checkpoints ORDER BY created_at";
    assert_eq!(
        cluster.sql_in(&database, checkpoints).lines().collect::<Vec<_>>(),
        [
            "start|Begin|0||200000|starting||0|",
            "error|Tests|40|150000|200000|error|exit 1|0|v",
            "complete|Done|100|150000|200000|complete||0|",
        ]
    );
    let made = "SELECT artifact_type, artifact_name, artifact_url FROM task_artifacts ORDER BY artifact_url";
    assert_eq!(cluster.sql_in(&database, made), "url|PR|https://example.com/1\nfile||out.txt");
    let keys = "SELECT count(*) FROM (SELECT id FROM agent_tasks UNION SELECT id FROM agent_checkpoints
                    UNION SELECT id FROM task_artifacts) AS ids WHERE substr(id::text, 15, 1) = '7'";
    assert_eq!(cluster.sql_in(&database, keys), "6");
}

#[test]
fn rows_from_before_the_database_follow_and_go_once() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    for n in 0..5 {
        let receipt = machine.emit_alone(["-p", &n.to_string(), &format!("step {n}")]);
        assert_eq!(receipt["audit"], "off");
    }
    assert_eq!(machine.flush()["audit"], json!({ "sent": 5, "rejected": 0, "waiting": 0 }));
    let all = ["step 0|0", "step 1|1", "step 2|2", "step 3|3", "step 4|4"];
    assert_eq!(trail(cluster, &database), all);
    assert_eq!(machine.flush()["audit"], json!({ "sent": 0, "rejected": 0, "waiting": 0 }));
    // A cache that has forgotten how far it was tells all of it again, to no effect.
    let cache = machine.sandbox.cache_path();
    rusqlite::Connection::open(cache)
        .expect("the cache")
        .execute("DELETE FROM audits", [])
        .expect("forgotten");
    assert_eq!(machine.flush()["audit"]["sent"], 5);
    assert_eq!(trail(cluster, &database), all);
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM agent_tasks"), "1");
}

#[test]
fn a_receipt_tells_of_its_own_checkpoint_whatever_still_waits_before_it() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    // More than a call takes along.
    let lines = "{\"agent_id\":\"bot\",\"status\":\"working\"}\n".repeat(300);
    machine.sandbox.env("DATABASE_URL", "");
    machine.sandbox.cmd(["stream"]).stdin(lines).run().success();
    machine.sandbox.env("DATABASE_URL", &url);
    assert_eq!(machine.emit(["-s", "error", "Now"])["audit"], "sent");
    // With it goes what began the task.
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM agent_checkpoints"), "2");
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM agent_checkpoints"), "301");
}

#[test]
fn flush_shows_a_person_how_far_it_is_and_a_program_nothing_of_it() {
    let cluster = Cluster::shared();
    let (_, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit_alone(["One"]);
    let line = "env -u AGENT_CHECKPOINT_QUIET $BIN flush";
    let (code, shown) = Terminal::run_in(&machine.sandbox, 80, line);
    let bar = format!("\rforwarding {} 1 of 1\u{1b}[K\r\u{1b}[K", "▓".repeat(20));
    assert_eq!((code, shown), (Some(0), format!("{bar}audit trail: 1 sent, 0 refused, 0 still waiting\r\n")));
    machine.emit_alone(["Two"]);
    let said = "audit trail: 1 sent, 0 refused, 0 still waiting\n";
    machine.sandbox.cmd(["flush"]).run().success().stderr_is("").stdout_is(said);
}

#[test]
fn a_routine_checkpoint_opens_no_connection() {
    let (cluster, slack) = (Cluster::shared(), FakeSlack::start());
    let (database, url) = database(cluster);
    let machine = Machine::with_slack(&url, &slack);
    assert_eq!(machine.emit(["-s", "starting", "Begin"])["audit"], "sent");
    let before = cluster.statements(&database).len();
    for _ in 0..3 {
        let receipt = machine.emit(["-s", "working", "On it"]);
        assert_eq!((&receipt["audit"], &receipt["delivery"]), (&json!("queued"), &json!("coalesced")));
    }
    assert_eq!(cluster.statements(&database).len(), before);
    // What ends the task takes them along.
    assert_eq!(machine.emit(["-s", "complete", "Done"])["audit"], "sent");
    assert_eq!(trail(cluster, &database).len(), 5);
}

#[test]
fn a_courier_takes_what_was_held_back() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    assert_eq!(machine.emit(["-s", "starting", "Begin"])["audit"], "sent");
    assert_eq!(machine.emit(["-s", "working", "On it"])["audit"], "queued");
    wait_for("the courier's rows", || (trail(cluster, &database).len() == 2).then_some(()));
}

#[test]
fn with_background_always_a_courier_does_it_all() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "always");
    assert_eq!(machine.emit(["-s", "starting", "Begin"])["audit"], "queued");
    wait_for("the courier's rows", || (trail(cluster, &database).len() == 1).then_some(()));
}

#[test]
fn run_and_stream_tell_the_database_too() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    let command = ["run", "--json", "-a", "runner", "--", "sh", "-c", "echo out >&2; exit 3"];
    let run = machine.sandbox.cmd(command).run().code(3);
    assert_eq!(run.json()["audit"], "sent");
    let lines =
        "{\"status\":\"starting\",\"agent_id\":\"s\"}\n{\"status\":\"complete\",\"agent_id\":\"s\"}\n";
    machine.sandbox.cmd(["stream", "--strict"]).stdin(lines).run().success();
    let sql = "SELECT agent_id, checkpoint_type, status FROM agent_checkpoints ORDER BY created_at,
                   (metadata -> 'agent_checkpoint' ->> 'seq')::int";
    assert_eq!(
        cluster.sql_in(&database, sql).lines().collect::<Vec<_>>(),
        ["runner|start|starting", "runner|error|error", "s|start|starting", "s|complete|complete"]
    );
    let tail =
        "SELECT metadata -> 'agent_checkpoint' ->> 'tail' FROM agent_checkpoints WHERE status = 'error'";
    assert_eq!(cluster.sql_in(&database, tail), "out");
}

#[test]
fn what_people_did_is_in_the_trail_as_well() {
    let (cluster, slack) = (Cluster::shared(), FakeSlack::start());
    let (database, url) = database(cluster);
    let machine = Machine::with_slack(&url, &slack);
    let asked = machine.sandbox.cmd(["ask", "-a", "bot", "--no-wait", "Deploy?"]).run().success();
    let request = asked.stdout.trim().to_owned();
    machine.sandbox.cmd(["answer", &request, "--approve", "--comment", "go"]).run().success();
    machine.flush();
    let sql = "SELECT i.agent_id, intervention_type, action_details::json ->> 'source', t.status
               FROM human_interventions i JOIN agent_tasks t ON t.id = i.task_id";
    assert_eq!(cluster.sql_in(&database, sql), "bot|approve|terminal|running");
    let shown = machine.sandbox.cmd(["show", "bot", "--json", "--fleet"]).run().success().json();
    assert_eq!(shown["interventions"][0]["intervention_type"], "approve", "{shown}");
    assert_eq!(machine.flush()["audit"], json!({ "sent": 0, "rejected": 0, "waiting": 0 }));
}

#[test]
fn an_older_checkpoint_that_comes_late_never_sets_a_task_back() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let (ours, other) = (Machine::of(&url), Machine::of(&url));
    ours.emit(["-s", "starting", "-p", "10", "Begin"]);
    ours.emit_alone(["-s", "working", "-p", "30", "Offline"]);
    // It goes on elsewhere meanwhile, and only then the row from before arrives.
    other.emit(["-s", "working", "-p", "60", "-f", "Elsewhere"]);
    assert_eq!(ours.flush()["audit"]["sent"], 1);
    let task = "SELECT progress, metadata -> 'agent_checkpoint' -> 'snapshot' -> 'action' ->> 'text' FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, task), "60|Elsewhere");
    assert_eq!(trail(cluster, &database), ["Begin|10", "Offline|30", "Elsewhere|60"]);
}

#[test]
fn machines_with_wrong_clocks_are_ordered_rightly() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let (ours, late, early) = (Machine::of(&url), Machine::of(&url), Machine::of(&url));
    for (machine, shift) in [(&late, "-2h"), (&early, "+2h")] {
        machine.sandbox.env("LD_PRELOAD", crate::support::faketime());
        machine.sandbox.env("FAKETIME", shift).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    ours.emit(["-s", "starting", "-p", "1", "one"]);
    early.emit(["-s", "working", "-f", "-p", "2", "two"]);
    late.emit(["-s", "working", "-f", "-p", "3", "three"]);
    ours.emit(["-s", "working", "-f", "-p", "4", "four"]);
    early.emit(["-s", "working", "-f", "-p", "5", "five"]);
    late.emit(["-s", "complete", "six"]);
    assert_eq!(trail(cluster, &database), ["one|1", "two|2", "three|3", "four|4", "five|5", "six|100"]);
    let task = "SELECT count(*), min(status), bool_and(abs(extract(epoch FROM completed_at - now())) < 60),
                    bool_and(abs(extract(epoch FROM started_at - now())) < 60) FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, task), "1|completed|t|t");
}

#[test]
fn a_clock_that_was_set_between_two_calls_is_noticed_with_the_second() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "one"]);
    machine.sandbox.env("LD_PRELOAD", crate::support::faketime());
    machine.sandbox.env("FAKETIME", "+2h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    machine.emit(["-s", "working", "-f", "two"]);
    let late = "SELECT count(*) FROM agent_checkpoints WHERE created_at > now() + interval '1 minute'";
    assert_eq!(cluster.sql_in(&database, late), "0");
    assert_eq!(trail(cluster, &database), ["one|0", "two|0"]);
}

#[test]
fn what_goes_on_in_a_known_task_is_told_in_one_breath() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "Begin"]);
    // What a machine of many tests holds up on its way is told the longer way, by which clocks are compared anew.
    assert!((0..20).any(|_| {
        let before = cluster.statements(&database).len();
        let receipt =
            machine.emit(["-s", "blocked", "-p", "40", "--tokens", "9", "--meta", "ticket=X-1", "Stuck"]);
        assert_eq!(receipt["audit"], "sent");
        cluster.statements(&database).len() == before + 1
    }));
    let said = cluster.statements(&database).pop().expect("a statement");
    assert!(said.starts_with("statement: SET LOCAL statement_timeout = "), "{said}");
    assert!(said.contains("SET LOCAL lock_timeout = "), "{said}");
    let row = "SELECT t.status, t.progress, c.checkpoint_type, c.status, c.progress, c.tokens_used, c.context_limit,
                   c.agent_id, c.metadata ->> 'ticket', t.metadata #>> '{agent_checkpoint,snapshot,action,text}',
                   t.updated_at = c.created_at, t.completed_at IS NULL
               FROM agent_tasks t JOIN agent_checkpoints c ON c.task_id = t.id ORDER BY c.created_at DESC LIMIT 1";
    assert_eq!(cluster.sql_in(&database, row), "running|40|progress|blocked|40|9|200000|bot|X-1|Stuck|t|t");
    // So does an end, of whichever task it is; a task that is over is no task that goes on.
    assert!((0..20).any(|_| {
        machine.emit(["-s", "working", "--new", "Once more"]);
        let before = cluster.statements(&database).len();
        machine.emit(["-s", "complete", "Done"]);
        cluster.statements(&database).len() == before + 1
    }));
    let ended = "SELECT status, progress, result_summary, completed_at = updated_at FROM agent_tasks
                 ORDER BY created_at DESC LIMIT 1";
    assert_eq!(cluster.sql_in(&database, ended), "completed|100|Done|t");
}

#[test]
fn whatever_an_agent_says_is_nothing_but_a_text_to_the_database() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    for strings in ["on", "off"] {
        let machine = Machine::of(&format!("{url}?options=-c%20standard_conforming_strings%3D{strings}"));
        let agent = format!("it's {strings}");
        machine.emit(["-a", &agent, "-s", "starting", "Begin"]);
        for said in [
            r"'); DROP TABLE agent_tasks; --",
            r"\'; SELECT 1; --",
            r"$1 $$ E'\x41' \\",
            "\"a\" {} ; '' \u{2019}",
        ] {
            let meta = format!("key={said}");
            let words = ["-a", &agent, "-s", "blocked", "--meta", &meta, said];
            // In one message, or, where something held it up, in the longer way.
            assert!((0..20).any(|_| {
                let before = cluster.statements(&database).len();
                assert_eq!(machine.emit(words)["audit"], "sent");
                cluster.statements(&database).len() == before + 1
            }));
            let newest = "SELECT action_description || E'\\n' || (metadata ->> 'key') FROM agent_checkpoints
                          ORDER BY created_at DESC, id DESC LIMIT 1";
            assert_eq!(cluster.sql_in(&database, newest), format!("{said}\n{said}"));
        }
    }
}

#[test]
fn twenty_machines_at_once_lose_nothing() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machines: Vec<Machine> = (0..20).map(|_| Machine::of(&url)).collect();
    thread::scope(|scope| {
        for (n, machine) in machines.iter().enumerate() {
            scope.spawn(move || {
                machine.emit(["-a", &format!("own-{n}"), "-s", "starting", "alone"]);
                machine.emit(["-a", "common", "-s", "working", "-f", &format!("from {n}")]);
                machine.emit(["-a", &format!("own-{n}"), "-s", "complete", "done"]);
            });
        }
    });
    for machine in &machines {
        assert_eq!(machine.flush()["audit"]["waiting"], 0);
    }
    let count = |sql: &str| cluster.sql_in(&database, sql);
    assert_eq!(count("SELECT count(*), count(DISTINCT task_id) FROM agent_checkpoints"), "60|21");
    assert_eq!(
        count("SELECT status, count(*) FROM agent_tasks GROUP BY 1 ORDER BY 1"),
        "completed|20\nrunning|1"
    );
}

#[test]
fn a_pooler_between_is_good_enough() {
    let cluster = Cluster::shared();
    let pooler = Pooler::start(cluster);
    let (database, _) = database(cluster);
    let machine = Machine::of(&pooler.url(&database));
    machine.emit(["-s", "starting", "Begin"]);
    machine.emit_alone(["-s", "working", "Between"]);
    assert_eq!(machine.emit(["-s", "complete", "Done"])["audit"], "sent");
    assert_eq!(trail(cluster, &database), ["Begin|0", "Between|0", "Done|100"]);
    let named = cluster
        .statements(&database)
        .into_iter()
        .filter(|line| line.starts_with("execute ") && !line.starts_with("execute <unnamed>"));
    assert_eq!(named.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn long_values_are_cut_to_the_columns_and_kept_whole_beside() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    let (name, kind, repo) = ("é".repeat(600), "t".repeat(60), "r".repeat(300));
    let artifact = format!("{}=https://example.com/1", "a".repeat(300));
    let words = [
        "-t",
        &name,
        "--task-type",
        &kind,
        "--repo",
        &repo,
        "--artifact",
        &artifact,
        "--tokens",
        "9999999999",
    ];
    machine.emit(words);
    let widths = "SELECT length(task_name), length(task_type), length(repo_scope) FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, widths), "500|50|255");
    let whole = "SELECT w ->> 'task_name', w ->> 'task_type', w ->> 'repo_scope' FROM agent_tasks,
                     LATERAL (SELECT metadata -> 'agent_checkpoint' -> 'whole' AS w) AS o";
    assert_eq!(cluster.sql_in(&database, whole), format!("{name}|{kind}|{repo}"));
    let made =
        "SELECT length(artifact_name), length(metadata -> 'agent_checkpoint' -> 'whole' ->> 'artifact_name')
                FROM task_artifacts";
    assert_eq!(cluster.sql_in(&database, made), "255|300");
    assert_eq!(cluster.sql_in(&database, "SELECT tokens_used FROM agent_checkpoints"), "2147483647");
}

#[test]
fn a_database_from_before_takes_rows_and_keeps_its_own() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql_in(&database, &format!("SET ROLE ana; {}", crate::db::OLD));
    let url = cluster.url("ana", &database);
    let machine = Machine::of(&url);
    Sandbox::new().cmd(["db", "migrate"]).env("DATABASE_URL", &url).run().success();
    // An agent with a row that another program left open goes on in it.
    assert_eq!(machine.emit(["-a", "busy", "-s", "complete", "Done"])["audit"], "sent");
    machine.emit(["-a", "done", "-s", "starting", "Again"]);
    let tasks = "SELECT agent_id, task_name, status FROM agent_tasks ORDER BY 1, 3";
    assert_eq!(
        cluster.sql_in(&database, tasks),
        "busy|Tests|completed\ndone|Docs|completed\ndone|done|running"
    );
}
