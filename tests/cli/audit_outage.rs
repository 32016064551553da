//! The audit trail when its database is away, slow, full or of another opinion: nobody waits for it and nothing is lost.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;

use crate::audit::{Machine, database, trail};
use crate::cluster::{Cluster, PASSWORD};
use crate::fake_slack::FakeSlack;
use crate::support::{Sandbox, wait_for};

/// Nothing listens there.
const NOBODY: &str = "postgres://ana@127.0.0.1:1/nowhere";

#[test]
fn without_a_server_a_checkpoint_is_recorded_and_posted() {
    let slack = FakeSlack::start();
    let machine = Machine::with_slack(NOBODY, &slack);
    let receipt = machine.emit(["-s", "starting", "Begin"]);
    assert_eq!((&receipt["audit"], &receipt["delivery"]), (&json!("queued"), &json!("sent")));
    // It is asked once, though there would be more to tell when the thread is open.
    let warned = "recorded, but not in the audit trail yet (queued): 127.0.0.1:1 refused the connection";
    assert_eq!(receipt["warnings"], json!([warned]));
    machine.sandbox.prolong_rests();
    // Within the back-off nobody tries, so nobody warns either; to a strict caller it is not done.
    let receipt = machine.emit(["-s", "blocked", "Go on"]);
    assert_eq!((&receipt["audit"], &receipt["warnings"]), (&json!("queued"), &json!([])));
    machine.sandbox.cmd(["emit", "-a", "bot", "--strict", "-f", "Strictly"]).run().code(75);
    let flush = machine.sandbox.cmd(["flush", "--json", "--deadline", "1s"]).run().code(75);
    assert_eq!(flush.json()["audit"], json!({ "sent": 0, "rejected": 0, "waiting": 3 }));
}

#[test]
fn a_server_that_answers_with_something_else_than_was_asked_for_ends_no_caller() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("postgres://u@{}/d?sslmode=disable", server.local_addr().expect("its address"));
    thread::spawn(move || {
        let message = |kind: u8, body: &[u8]| {
            let length = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
            [&[kind], &length[..], body].concat()
        };
        let [ok, ready, within] =
            [(b'R', &[0; 4][..]), (b'Z', b"I"), (b'Z', b"T")].map(|(k, b)| message(k, b));
        let done = |words: &[u8]| message(b'C', words);
        // One column of no value, whatever was asked.
        let column = message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        let row = message(b'D', b"\0\x01\xff\xff\xff\xff");
        let answer = [
            [done(b"BEGIN\0"), done(b"SET\0"), done(b"SET\0"), within.clone()].concat(),
            [message(b'1', b""), message(b'2', b""), column, row].concat(),
            [done(b"SELECT 1\0"), within, done(b"COMMIT\0"), ready.clone()].concat(),
        ]
        .concat();
        while let Ok((mut client, _)) = server.accept() {
            let mut asked = [0; 65536];
            let _ = client.read(&mut asked);
            let _ = client.write_all(&[ok.clone(), ready.clone()].concat());
            while client.read(&mut asked).is_ok_and(|length| length > 0) {
                let _ = client.write_all(&answer);
            }
        }
    });
    let machine = Machine::of(&url);
    let receipt = machine.emit(["-s", "starting", "one"]);
    assert_eq!(receipt["audit"], "queued");
    let warned = receipt["warnings"][0].as_str().unwrap_or_default();
    assert!(warned.contains("answers with something else than was asked for"), "{receipt}");
}

#[test]
fn a_call_that_has_no_time_does_not_try_the_database() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let machine = Machine::of(&format!("postgres://ana@127.0.0.1:{port}/silent"));
    let receipt = machine.emit(["--background", "never", "--deadline", "0s", "-s", "starting", "Begin"]);
    assert_eq!((&receipt["audit"], &receipt["warnings"]), (&json!("queued"), &json!([])));
    server.set_nonblocking(true).expect("a listener that does not wait");
    assert_eq!(server.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
}

#[test]
fn while_a_database_is_left_alone_nobody_knocks_however_urgent_it_is() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    server.set_nonblocking(true).expect("a listener that does not wait");
    let url = format!("postgres://ana@{}/silent?sslmode=disable", server.local_addr().expect("an address"));
    let machine = Machine::of(&url);
    let knocks = || std::iter::from_fn(|| server.accept().ok()).count();
    machine.emit(["--background", "never", "--deadline", "1s", "-s", "starting", "Begin"]);
    assert!(knocks() > 0);
    machine.sandbox.prolong_rests();
    for status in ["blocked", "error", "complete"] {
        assert_eq!(machine.emit(["--background", "never", "-s", status, "Go on"])["audit"], "queued");
        assert_eq!(knocks(), 0, "{status}");
    }
}

#[test]
fn what_is_urgent_sets_out_before_the_cache_is_free() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "Begin"]);
    let writer = Connection::open(machine.sandbox.cache_path()).expect("a cache");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else uses it");
    let urgent = machine.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--json", "Stop"]).spawn();
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agent-checkpoint'
                         AND datname = current_database()";
    wait_for("its connection", || (cluster.sql_in(&database, connected) == "1").then_some(()));
    writer.execute_batch("ROLLBACK").expect("the end of a lock");
    let output = urgent.wait_with_output().expect("an output");
    let receipt: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(receipt["audit"], "sent");
    assert_eq!(trail(cluster, &database), ["Begin|0", "Stop|0"]);
}

#[test]
fn whoever_set_out_for_nothing_leaves_the_database_before_it_posts() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("postgres://ana@{}/any?sslmode=disable", server.local_addr().expect("an address"));
    let slack = FakeSlack::start();
    let machine = Machine::with_slack(&url, &slack);
    machine.emit_alone(["-s", "starting", "Begin"]);
    let (cache, posted) = (machine.sandbox.cache_path(), slack.requests().len());
    // As after a call with a database, and a newer program's.
    fs::write(cache.with_file_name("cache.db.seat-1"), "").expect("a seat");
    let newer = Connection::open(cache).expect("a cache");
    newer.pragma_update(None, "user_version", 99).expect("a version");
    slack.hold();
    let urgent = ["emit", "-a", "bot", "-s", "blocked", "--deadline", "60s", "Stop"];
    let mut urgent = machine.sandbox.cmd(urgent).spawn();
    let (mut client, _) = server.accept().expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let mut said = [0; 4096];
    let _ = client.read(&mut said).expect("who it is");
    client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").expect("to let it in");
    slack.wait_requests(posted + 1);
    let length = client.read(&mut said).expect("a goodbye while it posts");
    assert_eq!(said[..length], *b"X\0\0\0\x04");
    assert_eq!(urgent.try_wait().expect("a child"), None);
    slack.release();
    assert_eq!(urgent.wait().expect("an end").code(), Some(0));
}

#[test]
fn refused_rows_are_sent_again_though_the_server_was_away_at_first() {
    let mut cluster = Cluster::start();
    let (database, url) = database(&cluster);
    let rule = "ALTER TABLE agent_checkpoints ADD CONSTRAINT sober CHECK (action_description <> 'poison')";
    cluster.sql_in(&database, rule);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "poison"]);
    cluster.sql_in(&database, "ALTER TABLE agent_checkpoints DROP CONSTRAINT sober");
    cluster.kill();
    let nobody = TcpListener::bind(("127.0.0.1", cluster.port())).expect("the server's port");
    let flush = machine.sandbox.cmd(["flush", "--json", "--rejected"]).spawn();
    drop(nobody.accept().expect("a first try"));
    drop(nobody);
    cluster.restart();
    let output = flush.wait_with_output().expect("an output");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["audit"], json!({ "sent": 1, "rejected": 0, "waiting": 0 }));
    assert_eq!(trail(&cluster, &database), ["poison|0"]);
}

#[test]
fn what_waited_for_a_server_is_there_when_it_comes_back() {
    let mut cluster = Cluster::start();
    let (database, url) = database(&cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "Begin"]);
    cluster.kill();
    assert_eq!(machine.emit(["-s", "error", "-p", "50", "Alone"])["audit"], "queued");
    cluster.restart();
    // Back-off or not, flush tries.
    assert_eq!(machine.flush()["audit"], json!({ "sent": 1, "rejected": 0, "waiting": 0 }));
    assert_eq!(trail(&cluster, &database), ["Begin|0", "Alone|50"]);
    // And so does the next call, now that it is over.
    assert_eq!(machine.emit(["-s", "complete", "Done"])["audit"], "sent");
}

#[test]
fn a_server_that_is_killed_in_mid_batch_has_every_row_once_in_the_end() {
    let mut cluster = Cluster::start();
    let (database, url) = database(&cluster);
    let machine = Machine::of(&url);
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"agent_id\":\"a{}\",\"status\":\"working\",\"action\":\"step {n}\"}}\n", n % 7))
        .collect();
    machine.sandbox.env("DATABASE_URL", "");
    machine.sandbox.cmd(["stream"]).stdin(lines).run().success();
    machine.sandbox.env("DATABASE_URL", &url);
    let count = "SELECT count(*) FROM agent_checkpoints";
    let flush = machine.sandbox.cmd(["flush", "--json"]).spawn();
    wait_for("a first batch", || (cluster.sql_in(&database, count) != "0").then_some(()));
    cluster.kill();
    cluster.restart();
    let output = flush.wait_with_output().expect("an output");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &answer["audit"]["waiting"]), (Some(0), &json!(0)));
    assert_eq!(cluster.sql_in(&database, count), "20000");
    let tasks = "SELECT count(*), count(DISTINCT agent_id) FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, tasks), "7|7");
}

#[test]
fn a_locked_table_keeps_nobody_waiting_and_no_connection_is_left_behind() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let machine = Machine::of(&url);
    crate::db::with_lock(cluster, &database, || {
        let since = Instant::now();
        assert_eq!(machine.emit(["--deadline", "3s", "-s", "starting", "Begin"])["audit"], "queued");
        assert!(since.elapsed().as_secs() < 3, "{:?}", since.elapsed());
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agent-checkpoint'
                           AND datname = current_database()";
        wait_for("the end of what waited", || (cluster.sql_in(&database, waiting) == "0").then_some(()));
    });
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(trail(cluster, &database), ["Begin|0"]);
}

#[test]
fn what_somebody_has_to_mend_is_named_and_rows_wait_until_it_is() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let bare = cluster.database();
    let older = cluster.database();
    cluster.sql_in(&older, &format!("SET ROLE ana; {}", crate::db::OLD));
    let wrong = url.replace("s3cret", "wrong");
    for (url, words, hint) in [
        (wrong, "refused the password of user 'ana'", "mend user or password"),
        (cluster.url("ana", &bare), "lacks the audit trail's tables", "run agent-checkpoint db migrate"),
        (cluster.url("ana", &older), "lacks the audit trail's tables", "run agent-checkpoint db migrate"),
        (cluster.url("trusted", &database), "does not let user 'trusted'", "granted"),
    ] {
        let machine = Machine::of(&url);
        let output = machine.sandbox.cmd(["emit", "-a", "bot", "Hello"]).run().success().lacks(PASSWORD);
        output.stderr_has(words).stderr_has(hint);
        let output = machine.sandbox.cmd(["flush"]).run().code(78).lacks(PASSWORD);
        output.stderr_has(words).stderr_has(hint);
        machine.sandbox.env("DATABASE_URL", cluster.url("ana", &database));
        assert_eq!(machine.flush()["audit"]["waiting"], 0, "{words}");
    }
    assert_eq!(trail(cluster, &database).len(), 4);
}

#[test]
fn a_row_that_the_server_refuses_is_set_aside_and_the_rest_goes_on() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    cluster.sql_in(
        &database,
        "ALTER TABLE agent_checkpoints ADD CONSTRAINT sober CHECK (action_description NOT LIKE '%poison%')",
    );
    let machine = Machine::of(&url);
    for n in 0..50 {
        let action = if n % 20 == 7 { format!("poison {n}") } else { format!("step {n}") };
        machine.emit_alone(["-a", &format!("a{}", n % 3), &action]);
    }
    let output = machine.sandbox.cmd(["flush", "--json"]).run().code(78).stderr_has("refused 3 rows");
    assert_eq!(output.json()["audit"], json!({ "sent": 47, "rejected": 3, "waiting": 0 }));
    assert_eq!(trail(cluster, &database).len(), 47);
    // One that is refused at once is told of at once, and a strict caller hears that by waiting nothing is won.
    let receipt = machine.emit(["-a", "a0", "-f", "poison at once"]);
    let warned = receipt["warnings"][0].as_str().expect("a warning");
    assert!(warned.contains("refused it for good") && warned.contains("sober"), "{receipt}");
    machine.sandbox.cmd(["emit", "-a", "a0", "--strict", "-f", "poison again"]).run().code(78);
    let said = checks(&machine, "trail");
    assert_eq!(said[0], ("ok".to_owned(), "no row waits for the database".to_owned()));
    assert_eq!(said[1].0, "fail");
    assert!(
        said[1].1.starts_with("5 rows refused by the database: ") && said[1].1.contains("sober"),
        "{said:?}"
    );
    assert_eq!(machine.flush()["audit"], json!({ "sent": 0, "rejected": 0, "waiting": 0 }));
    cluster.sql_in(&database, "ALTER TABLE agent_checkpoints DROP CONSTRAINT sober");
    let again = machine.sandbox.cmd(["flush", "--json", "--rejected"]).run().success().json();
    assert_eq!(again["audit"], json!({ "sent": 5, "rejected": 0, "waiting": 0 }));
    assert_eq!(trail(cluster, &database).len(), 52);
}

#[test]
fn a_row_that_was_refused_long_ago_never_counts_as_sent() {
    let cluster = Cluster::shared();
    let (database, url) = database(cluster);
    let rule = "ALTER TABLE agent_checkpoints ADD CONSTRAINT sober CHECK (action_description <> 'poison')";
    cluster.sql_in(&database, rule);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "old"]);
    machine.emit(["-s", "error", "poison"]);
    let cache = rusqlite::Connection::open(machine.sandbox.cache_path()).expect("the cache");
    let days = 40_i64 * 24 * 3600 * 1000;
    for table in ["checkpoints", "audit_refusals"] {
        let sql = format!("UPDATE {table} SET created_at_ms = created_at_ms - {days}");
        cache.execute(&sql, []).expect("forty days");
    }
    // What Slack has yet to hear of stays; the one before it goes.
    cache.execute("UPDATE checkpoints SET delivery = 'queued' WHERE action = 'poison'", []).expect("queued");
    machine.emit_alone(["-a", "other", "Prunes"]);
    let count = |sql: &str| cache.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    assert_eq!(count("SELECT count(*) FROM checkpoints WHERE action = 'old'"), 0);
    assert_eq!(count("SELECT count(*) FROM checkpoints WHERE action = 'poison'"), 1);
    let said = checks(&machine, "trail");
    assert!(said[1].1.starts_with("1 rows refused by the database: "), "{said:?}");
    cluster.sql_in(&database, "ALTER TABLE agent_checkpoints DROP CONSTRAINT sober");
    let again = machine.sandbox.cmd(["flush", "--json", "--rejected"]).run().success().json();
    assert_eq!(again["audit"], json!({ "sent": 2, "rejected": 0, "waiting": 0 }));
    assert!(trail(cluster, &database).contains(&"poison|0".to_owned()));
}

/// What `doctor` finds under a name: verdicts and messages.
#[track_caller]
fn checks(machine: &Machine, name: &str) -> Vec<(String, String)> {
    let report = machine.sandbox.cmd(["doctor", "--json"]).run().lacks(PASSWORD).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("checks").iter().filter(|check| check["check"] == name);
    checks.map(|check| (text(&check["verdict"]), text(&check["message"]))).collect()
}

#[test]
fn doctor_says_how_many_rows_wait_and_for_how_long() {
    let machine = Machine::of(NOBODY);
    machine.emit(["-s", "starting", "Begin"]);
    let said = checks(&machine, "trail");
    let words = "1 row waits for the database, the oldest for ";
    assert!(said[0].1.strip_prefix(words).is_some_and(|age| age.ends_with('s')), "{said:?}");
    machine.emit(["-s", "working", "Go on"]);
    let cache = rusqlite::Connection::open(machine.sandbox.cache_path()).expect("the cache");
    cache.execute("UPDATE checkpoints SET created_at_ms = created_at_ms - 7200000", []).expect("two hours");
    let said = checks(&machine, "trail");
    assert_eq!(said, [("warn".to_owned(), "2 rows wait for the database, the oldest for 2h 0m".to_owned())]);
}

#[test]
fn a_server_whose_disk_is_full_gets_the_rows_once_there_is_room() {
    let cluster = Cluster::start_with_little_room();
    let (database, url) = database(&cluster);
    let machine = Machine::of(&url);
    machine.emit(["-s", "starting", "Begin"]);
    machine.sandbox.env("DATABASE_URL", "");
    for n in 0..4_u64 {
        // Noise, which no compression makes small.
        let mut state = n + 1;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + u8::try_from(state >> 58).expect("six bits"))
        });
        let action: String = noise.take(1_500_000).collect();
        machine.sandbox.cmd(["emit", "-a", "bot", "-s", "working", "-"]).stdin(action).run().success();
    }
    machine.sandbox.env("DATABASE_URL", &url);
    let full = machine.sandbox.cmd(["flush", "--json", "--deadline", "4s"]).run().code(75);
    let left = full.stderr_has("refused").json()["audit"]["waiting"].as_u64().expect("a number");
    assert!(left > 0);
    cluster.make_room();
    assert_eq!(machine.flush()["audit"]["waiting"], 0);
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM agent_checkpoints"), "5");
}

#[test]
fn a_refused_setting_is_named_and_rows_wait() {
    let machine = Machine::of("mysql://somewhere");
    let output = machine.sandbox.cmd(["emit", "-a", "bot", "--json", "Hello"]).run().success();
    assert_eq!(output.stderr_has("DATABASE_URL").json()["audit"], "queued");
    Sandbox::new().cmd(["flush"]).env("DATABASE_URL", "mysql://somewhere").run().code(78);
}
