//! `metrics`: per-day totals of what is in the cache.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Output, Sandbox};

const DAY_MS: i64 = 86_400_000;

/// What `metrics` says of the fleet, with no midnight in between.
fn metrics(args: &[&str]) -> Output {
    let today = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a sound clock").as_secs() / 86_400;
    loop {
        let day = today();
        let output = fleet().cmd([&["metrics"], args].concat()).run().success().stderr_is("");
        if today() == day {
            return output;
        }
    }
}

/// Seven tasks, one of them started yesterday and one last year.
fn fleet() -> Sandbox {
    let sandbox = Sandbox::new();
    let emit = |line: &str| sandbox.shell(&format!("$BIN emit -q --no-post {line}")).run().success();
    emit("-a done --tokens 150000");
    emit("-a done -s complete");
    emit("-a broken -s error --tokens 5000 --error 'exit code 1'");
    emit("-a stopped -s cancelled");
    emit("-a busy -p 50");
    emit("-a old -s complete");
    emit("-a ancient -s complete");
    let cache = Connection::open(sandbox.cache_path()).expect("the cache");
    let change = |sql: &str| cache.execute(sql, []).expect("a change");
    change("UPDATE tasks SET ended_at_ms = started_at_ms + 90500 WHERE agent_id = 'done'");
    change("UPDATE tasks SET ended_at_ms = started_at_ms + 30500 WHERE agent_id = 'broken'");
    // A clock that was set back in between.
    change("UPDATE tasks SET ended_at_ms = started_at_ms - 5000 WHERE agent_id = 'stopped'");
    let past = |agent: &str, days: i64| {
        let by = days * DAY_MS;
        change(&format!(
            "UPDATE tasks SET started_at_ms = started_at_ms - {by}, ended_at_ms = started_at_ms - {by} + 60000
             WHERE agent_id = '{agent}'"
        ));
    };
    past("old", 1);
    past("ancient", 365);
    sandbox
}

#[test]
fn each_day_has_a_row_that_counts_the_tasks_started_on_it() {
    let days = metrics(&["--days", "3", "--json"]).json();
    let days = days.as_array().expect("an array").clone();
    let counts = |day: &Value| ["total", "completed", "failed", "cancelled"].map(|name| day[name].clone());
    assert_eq!(days.len(), 3);
    assert_eq!(counts(&days[0]), [0, 0, 0, 0].map(|n| json!(n)));
    assert_eq!((&days[0]["avg_duration"], &days[0]["tokens"]), (&json!(null), &json!(0)));
    assert_eq!((counts(&days[1]), &days[1]["avg_duration"]), ([1, 1, 0, 0].map(|n| json!(n)), &json!(60.0)));
    assert_eq!(counts(&days[2]), [4, 1, 1, 1].map(|n| json!(n)));
    let average = days[2]["avg_duration"].as_f64().expect("a number");
    assert!((average - (90.5 + 30.5 + 0.0) / 3.0).abs() < 0.001, "{average}");
    assert_eq!(days[2]["tokens"], 155_000);
    let dates: Vec<&str> = days.iter().filter_map(|day| day["date"].as_str()).collect();
    assert!(dates.is_sorted() && dates.iter().all(|date| date.len() == 10), "{dates:?}");
}

#[test]
fn the_table_shows_a_week_unless_told_otherwise() {
    let output = metrics(&[]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0], "      DATE  TOTAL  COMPLETED  FAILED  CANCELLED  AVG DURATION   TOKENS");
    assert!(lines[1].ends_with("      0          0       0          0             -        0"), "{output}");
    assert!(lines[7].ends_with("      4          1       1          1           40s  155,000"), "{output}");
    Sandbox::new().cmd(["metrics", "--days", "0"]).run().code(64).stderr_has("'0' is not a number of days");
}
