//! What is wrong with the audit trail's database is said as it is, and with what mends it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::audit::{Machine, database, trail};
use crate::cluster::Cluster;
use crate::db::with_lock;
use crate::fake_slack::FakeSlack;
use crate::stream::Talk;
use crate::support::wait_for;

/// What `doctor` says of the database, as it prints it.
#[track_caller]
fn doctor(machine: &Machine) -> String {
    machine.sandbox.cmd(["doctor"]).run().code(78).stdout
}

#[test]
fn a_server_that_lets_nobody_write_is_named_as_such() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let sign = if url.contains('?') { '&' } else { '?' };
    let read_only = format!("{url}{sign}options=-c%20default_transaction_read_only%3Don");
    let machine = Machine::of(&read_only);
    let (said, hint) = ("lets nobody write, as a standby does", "target_session_attrs=read-write");
    let emit = machine.sandbox.cmd(["emit", "-a", "bot", "one"]).run().success();
    emit.stderr_has(said).stderr_has(hint);
    let flush = machine.sandbox.cmd(["flush", "--deadline", "1s"]).run().code(75);
    flush.stderr_has(said).stderr_has(hint);
    let told = doctor(&machine);
    assert!(told.contains("FAIL privileges   nothing can be written"), "{told}");
    assert!(!told.contains("all that are needed"), "{told}");
    machine.sandbox.env("DATABASE_URL", &url);
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(trail(cluster, &database), ["one|0"]);
}

#[test]
fn a_column_that_somebody_renamed_is_named_and_rows_wait_until_it_is_back() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "one"]);
    cluster.sql_in(&database, "ALTER TABLE agent_checkpoints RENAME action_description TO said");
    let emit = machine.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "two"]).run().success();
    let said = "not as db migrate makes it: column \"action_description\"";
    emit.stderr_has(said).stderr_has("hint: agent-checkpoint doctor names the columns");
    machine.sandbox.cmd(["flush"]).run().code(78).stderr_has(said).lacks("run agent-checkpoint db migrate");
    let told = doctor(&machine);
    let fail = "FAIL schema       version 1, but columns are missing: agent_checkpoints.action_description\n";
    assert!(told.contains(fail), "{told}");
    cluster.sql_in(&database, "ALTER TABLE agent_checkpoints RENAME said TO action_description");
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(trail(cluster, &database), ["one|0", "two|0"]);
}

#[test]
fn whoever_waits_for_a_locked_table_is_told_that_it_is_one() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "one"]);
    let (said, hint) = ("somebody holds a table", "see pg_stat_activity");
    with_lock(cluster, &database, || {
        let emit = ["emit", "-a", "bot", "--deadline", "9s", "-s", "blocked", "two"];
        machine.sandbox.cmd(emit).run().success().stderr_has(said).stderr_has(hint);
        let flush = machine.sandbox.cmd(["flush", "--deadline", "4s"]).run().code(75);
        flush.stderr_has(said).stderr_has(hint);
        let tasks = machine.sandbox.cmd(["tasks", "--fleet", "--deadline", "4s"]).run().code(1);
        tasks.stderr_has(said).stderr_has(hint);
    });
    // A courier may have been quicker.
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(trail(cluster, &database), ["one|0", "two|0"]);
}

#[test]
fn flush_says_what_it_waits_for() {
    let machine = Machine::of("postgres://ana@127.0.0.1:1/nowhere");
    machine.emit(["one"]);
    let flush = machine.sandbox.cmd(["flush", "--deadline", "3s"]).run().code(75);
    flush.stderr_has("waiting for the audit trail's database: 127.0.0.1:1 refused the connection");
}

#[test]
fn a_stream_that_posts_without_a_pause_tells_the_database_meanwhile() {
    const MANY: usize = 60;
    let (cluster, slack) = (Cluster::shared(), FakeSlack::start());
    let (database, url) = database(cluster);
    let machine = Machine::with_slack(&url, &slack);
    for number in 0..MANY {
        slack.add_channel(&format!("room-{number}"), &format!("C0ROOM{number:04}"), false, false, true);
    }
    // A slow Slack, so that there is always something left to post.
    slack.observe(|_| thread::sleep(Duration::from_millis(100)));
    let mut talk = Talk::start(machine.sandbox.cmd(["stream", "--deadline", "1m"]));
    for number in 0..MANY {
        let (agent, channel) = (format!("agent-{number}"), format!("C0ROOM{number:04}"));
        talk.say(&json!({ "agent_id": agent, "channel": channel, "status": "starting" }));
    }
    slack.wait_requests(1);
    talk.say(&json!({ "agent_id": "late", "status": "starting", "action": "Late" }));
    let late = "SELECT count(*) FROM agent_checkpoints WHERE agent_id = 'late'";
    wait_for("the row", || (cluster.sql_in(&database, late) == "1").then_some(()));
    let posted = slack.calls("chat.postMessage").len();
    assert!(posted < MANY, "not before all else was posted");
    assert_eq!(talk.end().0, Some(0));
}
