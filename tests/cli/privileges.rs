//! What a user of the database must be allowed, and what `doctor` says of what is missing.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::db::migrate;
use crate::readme::block;
use crate::support::Sandbox;

const TABLES: [&str; 4] = ["agent_tasks", "agent_checkpoints", "human_interventions", "task_artifacts"];

/// A database with the tables, in which the user `trusted` may do nothing, and its URL for that user.
fn closed() -> (&'static Cluster, String, String) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    migrate(&cluster.url("ana", &database), &[]).success();
    cluster.sql_in(&database, "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO ana");
    let url = cluster.url("trusted", &database);
    (cluster, database, url)
}

/// Grants the user what the README says.
fn grant(cluster: &Cluster, database: &str) {
    let documented = block("### Privileges", "sql").replace("TO agents;", "TO trusted;");
    assert_eq!(documented.matches("TO trusted;").count(), documented.lines().count(), "{documented}");
    cluster.sql_in(database, &documented);
}

/// What `doctor` says of the tables, as verdict, message and hint.
#[track_caller]
fn doctor(url: &str) -> Vec<(String, String, String)> {
    let output = Sandbox::new().cmd(["doctor", "--json"]).env("DATABASE_URL", url).run();
    let report = output.json();
    let about_tables = |check: &&Value| check["check"] == "privileges" || check["check"] == "schema";
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let said = |check: &Value| (text(check, "verdict"), text(check, "message"), text(check, "hint"));
    let found: Vec<_> =
        report["checks"].as_array().expect("checks").iter().filter(about_tables).map(said).collect();
    let failed = found.iter().any(|(verdict, ..)| verdict == "fail");
    assert_eq!(output.code, Some(if failed { 78 } else { 0 }), "{output}");
    found
}

/// A task of somebody.
const A_TASK: &str = "INSERT INTO agent_tasks (id, agent_id, task_type, task_name, status)
    VALUES ('01980000-0000-7000-8000-000000000001', 'bot', 'task', 'Tests', 'running') ON CONFLICT DO NOTHING";

/// It says what works and what does not where everything can be read and nothing written.
#[track_caller]
fn assert_reads_only(message: &str, why: &str) {
    let said = message.strip_prefix(why).unwrap_or_else(|| panic!("{message}"));
    assert!(said.contains("--fleet work") && said.contains("not told to the database"), "{message}");
}

fn is_sound(said: &[(String, String, String)]) -> bool {
    let ends_well = said.last().is_some_and(|(_, message, _)| message == "all that are needed");
    said.len() == 2 && ends_well && said.iter().all(|(verdict, ..)| verdict == "ok")
}

#[test]
fn the_documented_privileges_are_all_that_is_needed() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    let said = doctor(&url);
    assert!(is_sound(&said), "{said:?}");
    let id = "01980000-0000-7000-8000-000000000001";
    let run = |sql: &str| cluster.try_in(&database, &format!("SET ROLE trusted; {sql}"));
    run(&format!(
        "INSERT INTO agent_tasks (id, agent_id, task_type, status) VALUES ('{id}', 'bot', 'task', 'running');
         INSERT INTO agent_checkpoints (id, task_id, agent_id, checkpoint_type, status)
             VALUES ('{id}', '{id}', 'bot', 'start', 'starting') ON CONFLICT (id) DO UPDATE SET status = 'working';
         INSERT INTO human_interventions (id, task_id, agent_id, intervention_type) VALUES ('{id}', '{id}', 'bot', 'x');
         INSERT INTO task_artifacts (id, task_id, agent_id) VALUES ('{id}', '{id}', 'bot');
         SELECT 1 FROM agent_tasks FOR UPDATE"
    ))
    .expect("rows");
    for table in TABLES {
        run(&format!("DELETE FROM {table}")).expect_err("nothing is ever deleted");
    }
    for args in [&["tasks", "--fleet"][..], &["show", "bot", "--fleet"], &["metrics", "--fleet"]] {
        Sandbox::new().cmd(args).env("DATABASE_URL", &url).run().success().stderr_is("").stdout_has("");
    }
}

#[test]
fn who_may_not_make_tables_may_migrate_where_there_is_nothing_to_do() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    let current = migrate(&url, &[]).success();
    current.stderr_is("").stdout_has("already");
    cluster.sql_in(&database, "DELETE FROM agent_checkpoint_schema");
    migrate(&url, &[]).code(1).stderr_has("does not let user 'trusted'");
}

#[test]
fn doctor_names_each_privilege_that_is_missing_and_the_statement_that_grants_it() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    let mut needed: Vec<(&str, &str)> = TABLES
        .iter()
        .flat_map(|table| ["SELECT", "INSERT", "UPDATE"].map(|privilege| (*table, privilege)))
        .collect();
    needed.push(("agent_checkpoint_schema", "SELECT"));
    for (table, privilege) in needed {
        cluster.sql_in(&database, &format!("REVOKE {privilege} ON {table} FROM trusted"));
        let said = doctor(&url);
        let (verdict, message, hint) = said.last().expect("a check");
        assert_eq!(
            (verdict.as_str(), message.as_str()),
            ("fail", format!("user trusted may not {privilege} on {table}").as_str()),
            "{said:?}"
        );
        let statement = hint.strip_prefix("let the tables' owner run ").expect("a statement");
        cluster.sql_in(&database, &format!("SET ROLE ana; {statement}"));
        assert!(is_sound(&doctor(&url)), "{table} {privilege}");
    }
}

#[test]
fn doctor_has_one_line_for_a_user_who_may_only_read() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    let tables = "agent_checkpoints, agent_tasks, human_interventions, task_artifacts";
    cluster.sql_in(&database, &format!("REVOKE INSERT, UPDATE ON {tables} FROM trusted"));
    let [_, (verdict, message, hint)] = <[_; 2]>::try_from(doctor(&url)).expect("the schema and one line");
    assert_eq!(verdict, "warn");
    assert_reads_only(&message, "user trusted may only read: ");
    let grant = format!("let the tables' owner run GRANT INSERT, UPDATE ON {tables} TO trusted");
    assert_eq!(hint, format!("where that is not enough, {grant}"));
    // As it says.
    for args in [&["tasks", "--fleet"][..], &["show", "bot", "--fleet"], &["metrics", "--fleet"]] {
        cluster.sql_in(&database, A_TASK);
        Sandbox::new().cmd(args).env("DATABASE_URL", &url).run().success().stderr_is("").stdout_has("");
    }
    let emit = Sandbox::new().cmd(["emit", "-a", "bot", "--json", "One"]).env("DATABASE_URL", &url).run();
    assert_eq!(emit.success().json()["audit"], "queued");
    // Nor is the table of versions needed for that.
    cluster.sql_in(&database, "REVOKE SELECT ON agent_checkpoint_schema FROM trusted");
    let [(verdict, message, _)] = <[_; 1]>::try_from(doctor(&url)).expect("one line");
    assert_eq!(verdict, "warn");
    assert_reads_only(&message, "user trusted may only read: ");
    Sandbox::new().cmd(["tasks", "--fleet"]).env("DATABASE_URL", &url).run().success().stdout_has("bot");
    // Who may write by halves is not meant to be a reader.
    cluster.sql_in(&database, "GRANT INSERT ON agent_tasks TO trusted");
    let [(verdict, message, hint)] = <[_; 1]>::try_from(doctor(&url)).expect("one line");
    assert_eq!(verdict, "fail");
    assert!(
        message.ends_with(
            ", nor INSERT or UPDATE on agent_checkpoints, human_interventions and task_artifacts, nor UPDATE on \
             agent_tasks"
        ),
        "{message}"
    );
    assert!(message.starts_with("user trusted may not SELECT on agent_checkpoint_schema"), "{message}");
    let statements = hint.strip_prefix("let the tables' owner run ").expect("statements");
    cluster.sql_in(&database, &format!("SET ROLE ana; {statements}"));
    assert!(is_sound(&doctor(&url)));
}

#[test]
fn whoever_may_not_write_is_sent_to_doctor() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    cluster.sql_in(&database, "REVOKE INSERT ON agent_checkpoints FROM trusted");
    let sandbox = Sandbox::new();
    sandbox.cmd(["emit", "-a", "bot", "--background", "never", "Begin"]).run().success();
    let output = sandbox.cmd(["flush"]).env("DATABASE_URL", &url).run().code(78);
    output.stderr_has("does not let user 'trusted'").stderr_has("granted what agent-checkpoint doctor names");
}

#[test]
fn a_user_who_may_not_read_is_sent_to_doctor() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    cluster.sql_in(&database, "REVOKE SELECT ON agent_checkpoints FROM trusted");
    for args in [&["tasks", "--fleet"][..], &["metrics", "--fleet"]] {
        let output = Sandbox::new().cmd(args).env("DATABASE_URL", &url).run().code(1).stdout_is("");
        output
            .stderr_has("does not let user 'trusted'")
            .stderr_has("hint: agent-checkpoint doctor names the privileges");
    }
}

#[test]
fn tables_that_are_there_but_out_of_sight_are_told_from_missing_ones() {
    let (cluster, database, url) = closed();
    let [(verdict, message, hint)] = <[_; 1]>::try_from(doctor(&url)).expect("one check");
    assert_eq!(
        (verdict.as_str(), message.as_str()),
        ("fail", "user trusted may not use schema public, in which the tables are")
    );
    let statement = hint.strip_prefix("let its owner run ").expect("a statement");
    cluster.sql_in(&database, statement);
    let [(_, message, _)] = <[_; 1]>::try_from(doctor(&url)).expect("one line");
    assert!(message.contains("SELECT, INSERT or UPDATE on agent_checkpoints, agent_tasks"), "{message}");
    grant(cluster, &database);
    let said = doctor(&format!("{url}?options=-csearch_path%3Dpg_catalog"));
    let (_, message, hint) = said.first().expect("a check");
    assert_eq!(message, "the tables are in schema public, which is not in the search path of user trusted");
    assert_eq!(
        hint,
        "run ALTER ROLE trusted SET search_path = public, or agent-checkpoint db migrate for other tables"
    );
}

#[test]
fn a_database_in_which_nothing_can_be_written_is_told_of() {
    let (cluster, database, url) = closed();
    grant(cluster, &database);
    let said = doctor(&format!("{url}?options=-cdefault_transaction_read_only%3Don"));
    let (verdict, message, hint) = said.last().expect("a check");
    assert_eq!(
        (verdict.as_str(), message.as_str()),
        ("fail", "nothing can be written: the server or the session is read-only, as a standby is")
    );
    assert!(hint.contains("target_session_attrs=read-write"), "{hint}");
}
