//! Engines that speak like PostgreSQL and refuse some of what it takes: ours goes without.
//!
//! None of them runs here. A server of ours is made to refuse what their documentation says that they do.

use std::thread;

use serde_json::json;

use crate::audit::{Machine, trail};
use crate::cluster::Cluster;
use crate::db::{OLD, migrate};

/// A database in which functions, given with their arguments and result, are refused with a code.
#[track_caller]
fn without(cluster: &Cluster, functions: &[(&str, &str)], code: &str) -> (String, String) {
    let database = cluster.database();
    for (function, result) in functions {
        let refuse = format!(
            "CREATE FUNCTION public.{function} RETURNS {result} LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'unknown function: {function}' USING ERRCODE = '{code}'; END $$"
        );
        cluster.sql_in(&database, &refuse);
    }
    // Before the server's own.
    cluster.sql_in(&database, &format!("ALTER DATABASE {database} SET search_path = public, pg_catalog"));
    let url = cluster.url("ana", &database);
    (database, url)
}

#[test]
fn an_engine_without_advisory_locks_is_migrated_by_several_at_once() {
    let cluster = Cluster::shared();
    for (code, tables) in [("0A000", ""), ("42883", ""), ("42883", OLD)] {
        let (database, url) = without(cluster, &[("pg_advisory_xact_lock(bigint)", "void")], code);
        cluster.sql_in(&database, &format!("SET ROLE ana; {tables}"));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| migrate(&url, &[]).success());
            }
        });
        let applied = "SELECT count(*), max(version) FROM agent_checkpoint_schema";
        assert_eq!(cluster.sql_in(&database, applied), "1|1");
    }
}

#[test]
fn an_engine_without_some_functions_and_comparisons_takes_rows_and_answers() {
    let cluster = Cluster::shared();
    let missing = [
        ("isfinite(timestamptz)", "boolean"),
        ("to_timestamp(double precision)", "timestamptz"),
        ("pg_advisory_xact_lock(bigint)", "void"),
        ("less(jsonb, jsonb)", "boolean"),
    ];
    let (database, url) = without(cluster, &missing, "42883");
    let less = "CREATE OPERATOR public.< (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = public.less)";
    cluster.sql_in(&database, less);
    migrate(&url, &[]).success();
    let machine = Machine::of(&url);
    for (status, action) in [("starting", "one"), ("blocked", "two"), ("complete", "three")] {
        assert_eq!(machine.emit(["-s", status, action])["audit"], "sent", "{action}");
    }
    assert_eq!(trail(cluster, &database), ["one|0", "two|0", "three|100"]);
    for (words, said) in
        [(&["tasks"][..], "bot"), (&["show", "bot"], "three"), (&["metrics"], "  1          1  ")]
    {
        machine.sandbox.cmd([words, &["--fleet"]].concat()).run().success().stdout_has(said);
    }
    // What people do on other machines is heard, whenever they say that it was.
    assert_eq!(machine.emit(["-s", "starting", "four"])["audit"], "sent");
    let heard = "018bcfe5-6800-7000-8000-000000000000";
    let details = json!({ "source": "command", "heard": heard, "passed_on": "waiting" });
    let cancel = format!(
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details, created_at)
         SELECT '{heard}', id, agent_id, 'cancel', 'U0HUMAN', '{details}', '294276-12-31' FROM agent_tasks
         WHERE status = 'running'"
    );
    cluster.sql_in(&database, &cancel);
    let receipt = machine.emit(["-s", "blocked", "five"]);
    assert_eq!(receipt["requests"][0]["user_id"], "U0HUMAN", "{receipt}");
}
