//! `serve` with a database: the same answers as of the cache, and what becomes of them when it is slow or away.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, PASSWORD, Pooler, encoded};
use crate::db::{migrate, with_lock};
use crate::fake_slack::clicks::{SIGNING_SECRET, sign};
use crate::fleet_reads::{forward, machine, on_one_day, prepared, rounded};
use crate::serve::{Reply, Server};
use crate::support::{Sandbox, wait_for};

const SCRAPER: &str = "Accept: text/plain\r\n";
const ROUTES: [&str; 3] = ["/tasks", "/tasks/deploy-bot", "/metrics"];

/// A server on a machine that has recorded nothing, which reads from this database.
fn server(sandbox: &Sandbox, url: &str) -> Server {
    Server::of(sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]).env("DATABASE_URL", url))
}

/// Checks that there was no answer, and that it was told well: why, what to do, when to ask again, and no secret.
#[track_caller]
fn unread(reply: &Reply, why: &str, hint: &str) {
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("application/json")), "{reply:?}");
    let body = reply.json();
    let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {reply:?}")).to_owned();
    assert!(text("error").starts_with("could not read from the database: "), "{reply:?}");
    assert!(text("error").contains(why) && text("hint").contains(hint), "{reply:?}");
    let again = reply.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(again.is_some_and(|seconds| (1..=30).contains(&seconds)), "{reply:?}");
    for secret in [PASSWORD, &encoded(PASSWORD)] {
        assert!(!reply.body.contains(secret), "{reply:?}");
    }
}

fn days_of(reply: &Reply) -> Value {
    rounded(reply.json())
}

#[test]
fn each_route_answers_from_the_database_as_it_does_from_the_cache() {
    let (cluster, database, url) = prepared();
    let one = machine();
    forward(cluster, &database, &one);
    let pooler = Pooler::start(cluster);
    let elsewhere = Sandbox::new();
    let theirs = Server::start(&one);
    for url in [&url, &pooler.url(&database)] {
        let ours = server(&elsewhere, url);
        assert_eq!(ours.get("/health").json(), json!({ "status": "ok" }));
        for path in [
            "/tasks",
            "/tasks?status=running&limit=50",
            "/tasks?state=failed",
            "/tasks?status=pending",
            "/tasks?limit=2",
            "/tasks?limit=0",
            "/tasks/deploy-bot",
            "/tasks/docs",
            "/tasks/nobody",
            "/tasks/01980000-0000-7000-8000-000000000001",
        ] {
            let (here, there) = (ours.get(path), theirs.get(path));
            assert_eq!((here.status, here.json()), (there.status, there.json()), "{path}");
        }
        let task = ours.get("/tasks/deploy-bot").json();
        assert_eq!(json!([task["checkpoints"], task["artifacts"]]), json!([4, 3]));
        let id = task["task"]["task_id"].as_str().expect("an id");
        assert_eq!(ours.get(&format!("/tasks/{id}")).json(), task);
        on_one_day(|| {
            for path in ["/metrics", "/metrics?days=2"] {
                assert_eq!(days_of(&ours.get(path)), days_of(&theirs.get(path)), "{path}");
            }
            let [here, there] = [&ours, &theirs].map(|server| server.ask("GET /metrics?days=1", SCRAPER));
            assert_eq!(here.header("content-type"), there.header("content-type"));
            let exact = |page: &Reply| -> Vec<String> {
                let lines = page.body.lines().filter(|line| !line.contains("duration_mean_seconds "));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(exact(&here), exact(&there));
        });
        assert!(ours.said().contains("tasks and metrics are read from the database\n"), "{}", ours.said());
    }
}

#[test]
fn what_another_machine_did_is_answered_as_soon_as_the_database_has_it() {
    let (cluster, database, url) = prepared();
    let (one, two) = (machine(), Sandbox::new());
    forward(cluster, &database, &one);
    let server = server(&one, &url);
    let names = || -> BTreeSet<String> {
        let tasks = server.get("/tasks").json();
        let tasks = tasks.as_array().expect("tasks").iter();
        tasks.map(|task| task["agent_id"].as_str().expect("a name").to_owned()).collect()
    };
    let total = || -> u64 {
        let days = server.get("/metrics?days=2").json();
        days.as_array().expect("days").iter().filter_map(|day| day["total"].as_u64()).sum()
    };
    assert_eq!((names().len(), total()), (4, 4));
    assert_eq!(server.get("/tasks/far").status, 404);
    two.cmd(["emit", "-q", "--no-post", "-a", "far", "-p", "7"]).run().success();
    forward(cluster, &database, &two);
    assert!(names().contains("far"), "{:?}", names());
    assert_eq!((names().len(), total()), (5, 5));
    assert_eq!(server.get("/tasks/far").json()["task"]["progress"], 7);
    let page = server.ask("GET /metrics?days=2", SCRAPER).body;
    assert!(page.contains("\nagent_checkpoint_tasks{state=\"running\"} 2\n"), "{page}");
}

#[test]
fn a_command_that_is_lost_here_is_found_out_by_asking() {
    let (_, _, url) = prepared();
    let sandbox = Sandbox::new();
    sandbox.env("DATABASE_URL", &url);
    let server = Server::start(&sandbox);
    let mut run = sandbox.cmd(["run", "-q", "-a", "lost", "--", "sleep", "60"]).spawn();
    let state = || server.get("/tasks/lost").json()["task"]["state"].clone();
    wait_for("the task", || (state() == "running").then_some(()));
    run.kill().expect("it runs");
    run.wait().expect("its end");
    wait_for("the loss in the cache", || {
        server.get("/tasks");
        let tasks = rusqlite::Connection::open(sandbox.cache_path()).expect("the cache");
        let state: String = tasks.query_row("SELECT state FROM tasks", [], |row| row.get(0)).expect("a task");
        (state == "failed").then_some(())
    });
    sandbox.cmd(["flush"]).run().success();
    assert_eq!(state(), "failed");
}

#[test]
fn a_database_that_dies_is_told_of_and_read_again_once_it_is_back() {
    let mut cluster = Cluster::start();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    migrate(&url, &[]).success();
    let one = machine();
    forward(&cluster, &database, &one);
    let sandbox = Sandbox::new();
    let server = server(&sandbox, &url);
    let before = server.get("/tasks").json();
    assert_eq!(before.as_array().map(Vec::len), Some(4));
    for _ in 0..2 {
        cluster.kill();
        for path in ROUTES {
            let since = Instant::now();
            unread(&server.get(path), "refused the connection", "that the server runs");
            assert!(since.elapsed() < Duration::from_secs(2), "{path}: {:?}", since.elapsed());
        }
        unread(&server.ask("GET /metrics", SCRAPER), "refused the connection", "that the server runs");
        assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
        cluster.restart();
        let after = wait_for("an answer", || Some(server.get("/tasks")).filter(|reply| reply.status == 200));
        assert_eq!(after.json(), before);
    }
    // A person finds in the log that it was away and is back, each time once.
    let said = server.said();
    assert_eq!(said.matches("could not read from the database: ").count(), 2, "{said}");
    assert_eq!(said.matches("the database is read again\n").count(), 2, "{said}");
    assert!(!said.contains(PASSWORD) && !said.contains(&encoded(PASSWORD)), "{said}");
}

#[test]
fn connections_that_the_server_ended_are_replaced_without_a_word() {
    let (cluster, database, url) = prepared();
    let sandbox = Sandbox::new();
    let server = server(&sandbox, &url);
    for _ in 0..3 {
        assert_eq!(server.get("/tasks").status, 200);
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
        );
        assert_eq!(cluster.sql(&end), "1");
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        wait_for("their end", || (cluster.sql(&left) == "0").then_some(()));
    }
    assert_eq!(server.get("/metrics").status, 200);
    assert!(!server.said().contains("could not"), "{}", server.said());
}

#[test]
fn while_one_waits_for_a_silent_database_the_others_are_told_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("an address");
    let sandbox = Sandbox::new();
    let server = server(&sandbox, &format!("postgres://ana@{at}/x?sslmode=disable"));
    let since = Instant::now();
    unread(&server.get("/tasks"), &format!("{at} did not answer within"), "no firewall is between");
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(wait_for("somebody who tries again", || {
        let times: Vec<Duration> = thread::scope(|scope| {
            let ask = |n: usize| {
                let since = Instant::now();
                unread(&server.get(&format!("/tasks/{n}")), "did not answer within", "");
                since.elapsed()
            };
            let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
            asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
        });
        let slow = times.iter().filter(|time| **time > Duration::from_secs(2)).count();
        (slow > 0).then_some(slow == 1)
    }));
}

#[test]
fn a_locked_table_holds_up_neither_slack_nor_health() {
    let (cluster, database, url) = prepared();
    let sandbox = Sandbox::new();
    sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let server = server(&sandbox, &url);
    assert_eq!(server.get("/tasks").status, 200);
    with_lock(cluster, &database, || {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..20)
                .map(|n| {
                    let path = if n % 4 == 3 { format!("/tasks/{n}") } else { ROUTES[n % 4].to_owned() };
                    let server = &server;
                    scope.spawn(move || {
                        let since = Instant::now();
                        (server.get(&path), since.elapsed())
                    })
                })
                .collect();
            let waiting = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
            );
            wait_for("a query that waits", || (cluster.sql(&waiting) != "0").then_some(()));
            let mut quick = 0;
            while asked.iter().any(|asked| !asked.is_finished()) {
                let since = Instant::now();
                assert_eq!(server.get("/health").status, 200);
                assert_eq!(signed(&server).status, 200);
                assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
                quick += 1;
                thread::sleep(Duration::from_millis(50));
            }
            assert!(quick > 2, "nobody waited");
            for asked in asked {
                let (reply, time) = asked.join().expect("no panic");
                assert_eq!(reply.status, 503, "{reply:?}");
                assert!(reply.header("retry-after").is_some(), "{reply:?}");
                assert!(time < Duration::from_secs(11), "{time:?}");
            }
            unread(&server.get("/tasks"), "", "pg_stat_activity");
            wait_for("the end of what was given up", || (cluster.sql(&waiting) == "0").then_some(()));
        });
    });
    assert_eq!(server.get("/tasks").status, 200);
}

/// What Slack is told about a slash command, which is stored.
fn signed(server: &Server) -> Reply {
    let body = "token=x&team_id=T1&channel_id=C1&user_id=U1&command=%2Fagent-task&text=help&trigger_id=1.2";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let headers: String = sign(SIGNING_SECRET, i64::try_from(now.as_secs()).expect("a time"), body)
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let head = format!(
        "POST /slack/commands HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Reply::of(&server.raw((head + body).as_bytes()))
}

#[test]
fn a_wrong_password_and_missing_tables_are_named_without_secrets() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = cluster.url("ana", &database);
    let (sandbox, wrong) = (Sandbox::new(), "not-the-password");
    let refused = server(&sandbox, &url.replace(&encoded(PASSWORD), wrong));
    for path in ROUTES {
        let reply = refused.get(path);
        unread(&reply, "password", "");
        assert!(!reply.body.contains(wrong), "{reply:?}");
    }
    assert!(!refused.said().contains(wrong), "{}", refused.said());
    // It is not tried for each who asks: that could lock the user out.
    let tried = |cluster: &Cluster| {
        let log = std::fs::read_to_string(cluster.socket_dir().join("log")).expect("a log");
        let about = format!("{database} FATAL:  password authentication failed");
        log.lines().filter(|line| line.starts_with(&about)).count()
    };
    assert!((1..=2).contains(&tried(cluster)), "{}", tried(cluster));

    let empty = server(&sandbox, &url);
    for path in ROUTES {
        let reply = empty.get(path);
        unread(&reply, "does not exist", "agent-checkpoint db migrate");
        assert_eq!(reply.header("retry-after"), Some("5"), "it is mended within seconds");
    }
    migrate(&url, &[]).success();
    for path in ["/tasks", "/metrics"] {
        assert_eq!(empty.get(path).status, 200, "{path}");
    }
    sandbox
        .cmd(["serve", "--listen", "127.0.0.1:0"])
        .env("DATABASE_URL", "mysql://ana:s3cret@db/x")
        .run()
        .code(78)
        .stderr_has("DATABASE_URL: the value is not a Postgres URL")
        .lacks("s3cret");
}

#[test]
fn a_hundred_callers_share_two_connections_which_are_closed_when_nobody_asks() {
    let (cluster, database, url) = prepared();
    forward(cluster, &database, &machine());
    let sandbox = Sandbox::new();
    let server = server(&sandbox, &url);
    let pids = || -> BTreeSet<String> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}'");
        cluster.sql(&sql).lines().map(str::to_owned).collect()
    };
    wait_for("the end of what told the rows", || pids().is_empty().then_some(()));
    let start = Barrier::new(100);
    let mut seen = BTreeSet::new();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..100)
            .map(|n| {
                let (server, start) = (&server, &start);
                let paths = ["/tasks?limit=1", "/tasks", "/tasks/docs", "/tasks/deploy-bot", "/metrics"];
                scope.spawn(move || {
                    start.wait();
                    for turn in 0..4 {
                        let reply = server.get(paths[(n + turn) % paths.len()]);
                        assert_eq!(reply.status, 200, "{reply:?}");
                    }
                })
            })
            .collect();
        while callers.iter().any(|caller| !caller.is_finished()) {
            seen.extend(pids());
        }
    });
    assert!((1..=2).contains(&seen.len()), "{seen:?}");
    assert!(pids().is_subset(&seen));
    wait_for("the end of what nobody needs", || pids().is_empty().then_some(()));
    assert_eq!(server.get("/tasks").status, 200);
    assert_eq!(pids().len(), 1);
}
