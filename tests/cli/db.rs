//! `db`: the audit trail's schema in a real PostgreSQL.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use crate::cluster::{Cluster, PASSWORD, Pooler};
use crate::support::{Output, Sandbox};

/// The tables as other programs made them before: one row an agent, shorter lists of states, no way to keep a limit.
pub(crate) const OLD: &str = "
    CREATE FUNCTION old_id() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';
    CREATE TABLE agent_tasks (
        id UUID PRIMARY KEY DEFAULT old_id(), agent_id VARCHAR(255) UNIQUE NOT NULL, task_type VARCHAR(50) NOT NULL,
        task_name VARCHAR(500) NOT NULL, status VARCHAR(50) NOT NULL DEFAULT 'pending'
            CONSTRAINT known CHECK (status IN ('pending', 'running', 'completed', 'failed')),
        progress INTEGER DEFAULT 0, slack_channel VARCHAR(50), slack_thread_ts VARCHAR(50), requested_by VARCHAR(50),
        created_at TIMESTAMPTZ DEFAULT now(), started_at TIMESTAMPTZ, completed_at TIMESTAMPTZ,
        updated_at TIMESTAMPTZ DEFAULT now(), result_summary TEXT, error_message TEXT);
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.updated_at = now(); RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON agent_tasks FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE TABLE agent_checkpoints (
        id UUID PRIMARY KEY DEFAULT old_id(), task_id UUID REFERENCES agent_tasks (id) ON DELETE CASCADE,
        agent_id VARCHAR(255) NOT NULL, checkpoint_type VARCHAR(50) NOT NULL, action_description TEXT,
        progress INTEGER, tokens_used INTEGER, status VARCHAR(50), elapsed_seconds INTEGER, error_message TEXT,
        created_at TIMESTAMPTZ DEFAULT now());
    INSERT INTO agent_tasks (agent_id, task_type, task_name, status) VALUES ('busy', 'test', 'Tests', 'running');
    INSERT INTO agent_tasks (agent_id, task_type, task_name, status) VALUES ('done', 'docs', 'Docs', 'completed');
    INSERT INTO agent_checkpoints (task_id, agent_id, checkpoint_type, progress)
        SELECT id, agent_id, 'progress', 40 FROM agent_tasks;";

const TABLES: [&str; 4] = ["agent_tasks", "agent_checkpoints", "human_interventions", "task_artifacts"];

pub(crate) fn migrate(url: &str, args: &[&str]) -> Output {
    Sandbox::new().cmd([&["db", "migrate"], args].concat()).env("DATABASE_URL", url).run().lacks(PASSWORD)
}

/// The tables of a database, each with its columns.
fn columns(cluster: &Cluster, database: &str) -> String {
    cluster.sql_in(
        database,
        "SELECT table_name, string_agg(column_name, ' ' ORDER BY column_name) FROM information_schema.columns
         WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name",
    )
}

/// An agent may have ended tasks beside the open one, and no second open one; all states are known.
#[track_caller]
fn assert_sound(cluster: &Cluster, database: &str) {
    let insert = |status: &str| {
        cluster.try_in(
            database,
            &format!(
                "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, status)
                 VALUES (gen_random_uuid(), 'busy', 'test', 'Again', '{status}')"
            ),
        )
    };
    for status in ["completed", "failed", "cancelled", "cancelled"] {
        insert(status).expect("a task that has ended");
    }
    cluster.sql_in(database, "DELETE FROM agent_tasks WHERE status IN ('pending', 'approved', 'running')");
    insert("approved").expect("an open task");
    for status in ["pending", "approved", "running"] {
        let refused = insert(status).expect_err("a second open task");
        assert!(refused.contains("agent_tasks_one_open"), "{refused}");
    }
    let refused = insert("sleeping").expect_err("no such state");
    assert!(refused.contains("agent_tasks_status_check"), "{refused}");
}

#[test]
fn migrate_makes_the_tables_and_a_second_time_nothing() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    migrate(&url, &[]).success().stderr_is("").stdout_is("the schema was brought from version 0 to 1\n");
    let made = columns(cluster, &database);
    assert!(TABLES.iter().all(|table| made.contains(table)), "{made}");
    assert_sound(cluster, &database);
    migrate(&url, &[]).success().stderr_is("").stdout_is("the schema is at version 1 already\n");
    let output = migrate(&url, &["--json"]).success().stderr_is("");
    assert_eq!(output.json(), json!({ "from": 1, "to": 1 }));
    assert_eq!(columns(cluster, &database), made);
}

#[test]
fn psql_takes_the_printed_schema_as_often_as_one_likes() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let printed = sandbox.cmd(["db", "schema"]).run().success().stderr_is("").stdout;
    let (database, other) = (cluster.database(), cluster.database());
    for _ in 0..2 {
        cluster.sql_in(&database, &format!("SET ROLE ana; {printed}"));
    }
    migrate(&cluster.url("ana", &other), &[]).success();
    assert_eq!(columns(cluster, &database), columns(cluster, &other));
    assert_sound(cluster, &database);
    // What psql did counts.
    migrate(&cluster.url("ana", &database), &[]).success().stdout_is("the schema is at version 1 already\n");
    let json = sandbox.cmd(["db", "schema", "--json"]).run().success().json();
    assert_eq!(
        (&json["version"], json["sql"].as_str().map(str::trim_end)),
        (&json!(1), Some(printed.trim_end()))
    );
}

#[test]
fn tables_from_before_keep_every_row() {
    let cluster = Cluster::shared();
    let fresh = cluster.database();
    migrate(&cluster.url("ana", &fresh), &[]).success();
    for extra in [
        "",
        "DROP INDEX IF EXISTS other; ALTER TABLE agent_tasks DROP CONSTRAINT agent_tasks_agent_id_key;
                   CREATE UNIQUE INDEX other ON agent_tasks (agent_id);",
    ] {
        let database = cluster.database();
        cluster.sql_in(&database, &format!("SET ROLE ana; {OLD} {extra}"));
        migrate(&cluster.url("ana", &database), &[]).success().stderr_is("");
        let rows = "SELECT t.agent_id, t.status, c.progress, c.retry_count FROM agent_tasks t
                    JOIN agent_checkpoints c ON c.task_id = t.id ORDER BY 1";
        assert_eq!(cluster.sql_in(&database, rows), "busy|running|40|0\ndone|completed|40|0");
        assert_eq!(columns(cluster, &database), columns(cluster, &fresh));
        assert_sound(cluster, &database);
    }
}

#[test]
fn twenty_that_begin_together_are_one() {
    let cluster = Cluster::shared();
    for before in ["", OLD] {
        let database = cluster.database();
        cluster.sql_in(&database, &format!("SET ROLE ana; {before}"));
        let url = cluster.url("ana", &database);
        let outputs: Vec<Output> = thread::scope(|scope| {
            let migrates = || migrate(&url, &["--deadline", "50s"]).success();
            let all: Vec<_> = (0..20).map(|_| scope.spawn(migrates)).collect();
            all.into_iter().map(|one| one.join().expect("an output")).collect()
        });
        let said = |words: &str| outputs.iter().filter(|output| output.stdout == words).count();
        assert_eq!(said("the schema was brought from version 0 to 1\n"), 1);
        assert_eq!(said("the schema is at version 1 already\n"), 19);
        let versions = "SELECT version, count(*) FROM agent_checkpoint_schema GROUP BY 1";
        assert_eq!(cluster.sql_in(&database, versions), "1|1");
        assert_sound(cluster, &database);
    }
}

#[test]
fn a_pooler_is_good_enough() {
    let cluster = Cluster::shared();
    let (pooler, database) = (Pooler::start(cluster), cluster.database());
    migrate(&pooler.url(&database), &[]).success().stdout_is("the schema was brought from version 0 to 1\n");
    assert_sound(cluster, &database);
}

#[test]
fn doctor_tells_the_version_and_what_to_do() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    let said = || {
        let output = Sandbox::new().cmd(["doctor", "--json"]).env("DATABASE_URL", &url).run();
        let checks = output.json()["checks"].as_array().expect("checks").clone();
        let failed = checks.iter().any(|check| check["verdict"] == "fail");
        assert_eq!(output.code, Some(if failed { 78 } else { 0 }), "{output}");
        let check =
            checks.into_iter().find(|check| check["check"] == "schema").expect("a check of the schema");
        (check["verdict"].clone(), check["message"].clone(), check["hint"].clone())
    };
    let mend = json!("run agent-checkpoint db migrate");
    assert_eq!(said(), (json!("fail"), json!("the database has no tables of the audit trail"), mend));
    migrate(&url, &[]).success();
    assert_eq!(said(), (json!("ok"), json!("version 1"), json!(null)));
    cluster.sql_in(&database, "INSERT INTO agent_checkpoint_schema (version) VALUES (99)");
    let hint = json!("use a newer agent-checkpoint as well");
    assert_eq!(said(), (json!("warn"), json!("version 99, newer than this program's 1"), hint));
}

#[test]
fn a_newer_schema_is_left_as_it_is() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    migrate(&url, &[]).success();
    cluster.sql_in(&database, "INSERT INTO agent_checkpoint_schema (version) VALUES (99)");
    let said = "the schema is at version 99, which is newer than this program\n";
    migrate(&url, &[]).success().stdout_is(said);
}

/// Holds the table of tasks locked until it is told to stop.
pub(crate) fn with_lock(cluster: &Cluster, database: &str, work: impl FnOnce()) {
    with_held(cluster, database, "LOCK TABLE agent_tasks", work);
}

/// Holds what a statement takes until it is told to stop.
fn with_held(cluster: &Cluster, database: &str, statement: &str, work: impl FnOnce()) {
    let (locked, is_locked) = mpsc::channel();
    let mut holder = Command::new("psql");
    holder.args(["-X", "-A", "-t", "-q", "-U", "postgres", "-d", database, "-h"]).arg(cluster.socket_dir());
    holder.args(["-p", &cluster.port().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("psql");
    let mut stdin = holder.stdin.take().expect("a pipe");
    let stdout = holder.stdout.take().expect("a pipe");
    let lock = format!("BEGIN; {statement}; SELECT 'locked';\n");
    std::io::Write::write_all(&mut stdin, lock.as_bytes()).expect("psql reads");
    let reader = thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
            let _ = locked.send(line.expect("a line"));
        }
    });
    assert_eq!(is_locked.recv().expect("an answer"), "locked");
    work();
    drop(stdin);
    holder.wait().expect("its end");
    reader.join().expect("the reader");
}

/// Whether it is said that a call gave up after so many seconds at most: half of what connecting had left of its deadline.
#[track_caller]
fn assert_gave_up(output: &Output, why: &str, most: f64) {
    let after = output.stderr.split_once(&format!("{why}; gave up after ")).map(|(_, rest)| rest);
    let seconds = after.and_then(|rest| rest.split_once(" s")?.0.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds <= most), "{output}");
}

#[test]
fn a_locked_table_is_waited_for_no_longer_than_told() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql_in(&database, &format!("SET ROLE ana; {OLD}"));
    let url = cluster.url("ana", &database);
    with_lock(cluster, &database, || {
        let output = migrate(&url, &["--deadline", "2s"]).code(1).stdout_is("");
        assert_gave_up(&output, "somebody holds a table of the audit trail locked", 1.0);
        output.stderr_has("hint: see pg_stat_activity");
    });
    migrate(&url, &[]).success();
    assert_sound(cluster, &database);
    // That of the versions, which is read first.
    with_held(cluster, &database, "LOCK TABLE agent_checkpoint_schema", || {
        let held = "somebody holds the table agent_checkpoint_schema locked";
        let output = migrate(&url, &["--deadline", "4s"]).code(1).stdout_is("");
        assert_gave_up(&output, held, 2.0);
        output.stderr_has("hint: see pg_stat_activity");
        let output = Sandbox::new().cmd(["doctor", "--deadline", "4s"]).env("DATABASE_URL", &url).run();
        output.code(78).stdout_has(&format!("{held}; gave up after")).stdout_has("see pg_stat_activity");
    });
}

#[test]
fn two_that_migrate_wait_for_each_other_no_longer_than_told() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    let other = "DO 'BEGIN PERFORM pg_advisory_xact_lock(7018690069353687920); END'";
    with_held(cluster, &database, other, || {
        let output = migrate(&url, &["--deadline", "2s"]).code(1).stdout_is("");
        assert_gave_up(&output, "another db migrate is at work", 1.0);
    });
    migrate(&url, &[]).success();
}

#[test]
fn whoever_may_not_make_tables_is_told_so() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql_in(&database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let output = migrate(&cluster.url("trusted", &database), &[]).code(1).stdout_is("");
    output.stderr_has("does not let user 'trusted'").stderr_has("hint: use the tables' owner");
}

#[test]
fn without_a_database_there_is_nothing_to_migrate() {
    let sandbox = Sandbox::new();
    let run = sandbox.cmd(["db", "migrate"]).run().code(78).stdout_is("");
    run.stderr_is("agent-checkpoint: no database is configured\nhint: set DATABASE_URL\n");
    let run = sandbox.cmd(["db", "migrate"]).env("DATABASE_URL", "mysql://x").run().code(78);
    run.stdout_is("").stderr_has("DATABASE_URL: the value is not a Postgres URL").stderr_has(
        "hint: write postgres://USER@HOST:5432/DATABASE, with :PASSWORD behind USER if there is one\n",
    );
    sandbox.cmd(["db"]).run().code(64).stdout_is("");
}
