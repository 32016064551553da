//! Questions, answers and requests between machines that share a database and no cache.

use std::time::{Duration, Instant};

#[cfg(feature = "serve")]
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::ask::Asker;
use crate::audit::database;
use crate::cluster::{Cluster, Pooler};
#[cfg(feature = "serve")]
use crate::fake_slack::clicks::{Heard, SIGNING_SECRET};
#[cfg(feature = "serve")]
use crate::fake_slack::people::{COLLEAGUE, Ephemeral};
use crate::fake_slack::{CHANNEL, HUMAN};
use crate::scene::{Scene, text};
#[cfg(feature = "serve")]
use crate::serve::Server;
use crate::support::{Sandbox, wait_for};

/// A machine that asks, and another one, with one Slack and one database.
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) database: String,
    pub(crate) ours: Scene,
    pub(crate) other: Sandbox,
}

impl World<'static> {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::on(Cluster::shared(), |_, url| url)
    }
}

impl<'a> World<'a> {
    #[track_caller]
    pub(crate) fn on(cluster: &'a Cluster, way: impl FnOnce(&str, String) -> String) -> Self {
        let (database, url) = database(cluster);
        let url = way(&database, url);
        let (ours, other) = (Scene::people(), Sandbox::new());
        ours.sandbox.env("DATABASE_URL", &url);
        other.env("DATABASE_URL", &url).slack(&ours.slack);
        Self { cluster, database, ours, other }
    }

    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        self.cluster.sql_in(&self.database, statement)
    }

    /// Whether the database is there for anybody.
    #[track_caller]
    pub(crate) fn allow_connections(&self, allowed: bool) {
        self.cluster.sql(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}", self.database));
    }

    /// An open question of ours that the other machine can find.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> Asker {
        let asker = Asker::start(&self.ours, &[&["Go on?"], words].concat());
        wait_for("the question in the database", || {
            (self.sql(&format!("SELECT count(*) FROM agent_checkpoints WHERE id = '{}'", asker.id)) == "1")
                .then_some(())
        });
        asker
    }

    /// What the database knows that people did, the first first.
    #[track_caller]
    pub(crate) fn acts(&self) -> Vec<Value> {
        let rows = self.sql(
            "SELECT json_build_object('kind', intervention_type, 'user', user_id, 'details', action_details::json)
             FROM human_interventions ORDER BY created_at, id",
        );
        rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The same once nothing waits for the asker any more.
    #[track_caller]
    pub(crate) fn settled(&self, count: usize) -> Vec<Value> {
        wait_for("the asker's word", || {
            let acts = self.acts();
            let settled = acts.iter().all(|act| act["details"]["passed_on"] != "waiting");
            (acts.len() == count && settled).then_some(acts)
        })
    }

    /// The other machine's server, which Slack tells of clicks.
    #[cfg(feature = "serve")]
    #[track_caller]
    pub(crate) fn serve_elsewhere(&self) -> Server {
        self.other.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
        let server = Server::start(&self.other);
        self.ours.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
        server
    }

    /// What somebody who types this after `/agent-task` is told. It is typed again where the database was not asked of it, as
    /// in the time that Slack leaves where a machine is too busy.
    #[cfg(feature = "serve")]
    #[track_caller]
    pub(crate) fn typed(&self, words: &str) -> String {
        let slack = &self.ours.slack;
        for _ in 0..20 {
            let before = slack.ephemerals().len();
            slack.command(CHANNEL, HUMAN, "/agent-task", words);
            let told = slack.wait_ephemerals(before + 1)[before].text.clone();
            if !told.ends_with("please try again later.") && !told.contains("_The database is away: ") {
                return told;
            }
        }
        panic!("the database is away");
    }

    /// Lets a person do something until it is passed on: where a machine is so busy that the database does not answer in
    /// the time that Slack leaves, the person is told to try again. Says what else was told meanwhile.
    #[cfg(feature = "serve")]
    #[track_caller]
    pub(crate) fn until_passed_on(&self, act: impl Fn() -> Heard) -> Vec<Ephemeral> {
        let is_away = |told: &Ephemeral| told.text.ends_with("please try again later.");
        let is_passed_on =
            |told: &Ephemeral| told.text.starts_with("Passed on to the machine that this is for.");
        for _ in 0..20 {
            let before = self.ours.slack.ephemerals().len();
            act();
            let told = wait_for("a word to the person", || {
                let told = self.ours.slack.ephemerals().split_off(before);
                told.iter().any(|told| is_away(told) || is_passed_on(told)).then_some(told)
            });
            if told.iter().any(is_passed_on) {
                return told.into_iter().filter(|told| !is_passed_on(told)).collect();
            }
        }
        panic!("the database is away");
    }
}

/// What is refused, and why.
pub(crate) fn refused(acts: &[Value]) -> Vec<&str> {
    acts.iter().map(|act| text(&act["details"], "refused")).collect()
}

#[test]
fn a_question_and_its_answer_are_told_on_another_machine() {
    let rows: [(&[&str], &[&str], i32, &str); 3] = [
        (&[], &["--approve", "--comment", "Fine"], 0, "approved\n"),
        (&[], &["--reject"], 10, "rejected\n"),
        (&["--choice", "eu", "--choice", "us"], &["--choice", "us"], 0, "us\n"),
    ];
    for (question, said, code, told) in rows {
        let world = World::new();
        let asker = world.ask(question);
        let open = world.other.cmd(["answer", &asker.id, "--json"]).run().code(75).json();
        let here = world.ours.sandbox.cmd(["answer", &asker.id, "--json"]).run().code(75).json();
        let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!((keys(&open), &open["decision"]), (keys(&here), &Value::Null));
        world.other.cmd(["answer", &asker.id]).run().code(75).stdout_is("open\n");
        let waiting = world.other.cmd(["answer", &asker.id, "--wait"]).spawn();
        let words = [&["answer", asker.id.as_str()], said].concat();
        world.ours.sandbox.cmd(words).run().code(code).stdout_is(told);
        let waited = waiting.wait_with_output().expect("an output");
        assert_eq!(
            (waited.status.code(), String::from_utf8_lossy(&waited.stdout).as_ref()),
            (Some(code), told)
        );
        let id = asker.id.clone();
        assert_eq!(asker.end().code, Some(code));
        world.ours.flush();
        let mut there = world.other.cmd(["answer", &id, "--json"]).run().code(code).json();
        let mut here = world.ours.sandbox.cmd(["answer", &id, "--json"]).run().code(code).json();
        // Clocks are corrected, which is not exact.
        for told in [&mut there, &mut here] {
            assert!(told["answered_at"].take().is_string() && told["waited_seconds"].take().is_u64());
        }
        assert_eq!(there, here);
        // Who comes too late hears what was decided.
        let late = world.other.cmd(["answer", &id, "--approve"]);
        if question.is_empty() {
            late.run().code(code).stdout_is(told).stderr_has("it was answered before");
        }
    }
}

#[test]
fn what_nobody_asked_is_known_nowhere() {
    let world = World::new();
    let id = "018bcfe5-6800-7000-8000-000000000001";
    world.other.cmd(["answer", id]).run().code(1).stderr_has(&format!("no question {id}"));
    // A checkpoint that asks nothing is no question.
    let receipt = world.ours.emit(["-s", "starting", "Begin"]).run().success().json();
    world.other.cmd(["answer", text(&receipt, "checkpoint_id"), "--approve"]).run().code(1);
}

#[test]
fn a_question_that_was_withdrawn_or_timed_out_says_so_on_another_machine() {
    let world = World::new();
    let asker = world.ask(&[]);
    let id = asker.id.clone();
    crate::run_child::signal(&asker.process, nix::sys::signal::Signal::SIGINT);
    assert_eq!(asker.end().code, Some(130));
    world.ours.flush();
    world.other.cmd(["answer", &id]).run().code(1).stdout_is("withdrawn\n");
    let asker = world.ask(&["--timeout", "1s", "--on-timeout", "reject"]);
    let id = asker.id.clone();
    assert_eq!(asker.end().code, Some(10));
    world.ours.flush();
    world.other.cmd(["answer", &id, "--wait"]).run().code(10).stdout_is("timed_out\n");
}

#[test]
fn only_sockets_of_machines_without_a_database_are_warned_of() {
    let world = World::new();
    world.ours.sandbox.env("SLACK_APP_TOKEN", world.ours.slack.app_token());
    world.other.env("SLACK_APP_TOKEN", world.ours.slack.app_token());
    let asker = world.ask(&[]);
    world.ours.slack.wait_sockets(1);
    let second = ["ask", "Which?", "-a", "second", "--timeout", "2s"];
    world.other.cmd(second).run().code(124).lacks("sockets");
    let told = world.other.cmd(second).env("DATABASE_URL", "").run().code(124);
    told.stderr_has("the app has 2 sockets").stderr_has("one cache, or one DATABASE_URL");
    crate::run_child::signal(&asker.process, nix::sys::signal::Signal::SIGINT);
    assert_eq!(asker.end().code, Some(130));
}

#[test]
fn an_answer_at_another_machines_terminal_ends_the_wait() {
    let world = World::new();
    let asker = world.ask(&[]);
    let words = ["answer", &asker.id, "--reject", "--comment", "Not on Friday"];
    world.other.cmd(words).env("USER", "ana").run().code(10).stdout_is("rejected\n");
    let told = asker.end();
    assert_eq!((told.code, told.stdout.as_str()), (Some(10), "rejected\n"), "{}", told.stderr);
    assert!(told.stderr.contains("by ana on ") && told.stderr.contains("Not on Friday"), "{}", told.stderr);
    let acts = world.settled(1);
    let details = &acts[0]["details"];
    assert_eq!((text(details, "source"), text(details, "decision")), ("terminal", "rejected"));
    assert_eq!((text(details, "passed_on"), text(details, "refused")), ("taken", ""));
    assert_eq!(world.ours.show("bot")["interventions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn whoever_can_write_rows_answers_in_nobodys_name() {
    let world = World::new();
    let asker = world.ask(&[]);
    let heard = "018bcfe5-6800-7000-8000-000000000001";
    let details = json!({
        "request_id": asker.id, "word": "approve", "source": "terminal", "heard": heard,
        "user_name": format!("maria{}", " ".repeat(9_000)), "passed_on": "waiting",
    });
    world.sql(&format!(
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details)
         SELECT '{heard}', task_id, agent_id, 'approve', '{HUMAN}', '{details}' FROM agent_checkpoints
         WHERE id = '{}'",
        asker.id
    ));
    let told = asker.end();
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stderr.contains("(at a terminal elsewhere)"), "{}", told.stderr);
    let shown = &world.ours.show("bot")["interventions"][0];
    assert_eq!((&shown["user_id"], text(shown, "user_name").len() < 200), (&Value::Null, true), "{shown}");
}

#[test]
fn a_terminal_elsewhere_proves_nobodys_name_and_is_one_person() {
    let world = World::new();
    let asker = world.ask(&["--approver", HUMAN]);
    let told = world.other.cmd(["answer", &asker.id, "--approve"]).run().code(64);
    told.stderr_has("proves nobody's name").stderr_has("hint: answer in Slack");
    assert_eq!(refused(&world.settled(1)), ["not_allowed"]);
    // Nor does its name look like one of Slack's.
    let page = world.ours.sandbox.cmd(["show", "bot"]).run().success();
    let line = page.stdout.lines().find(|line| line.starts_with("refused ")).expect("a refusal");
    assert!(line.contains("(at a terminal elsewhere)") && !line.contains('@'), "{line}");
    let second = world.ask(&["-a", "second", "--quorum", "2"]);
    for words in ["others have to agree", "has said so before"] {
        world.other.cmd(["answer", &second.id, "--approve"]).run().code(75).stderr_has(words);
    }
    for asker in [asker, second] {
        world.ours.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
        assert_eq!(asker.end().code, Some(0));
    }
}

#[test]
fn a_yes_to_a_choice_of_another_machine_is_answered_with_the_option_to_give() {
    let world = World::new();
    let asker = world.ask(&["--choice", "eu-west", "--choice", "us-east"]);
    let told = world.other.cmd(["answer", &asker.id, "--approve"]).run().code(64);
    told.stderr_has("Choose one of: eu-west, us-east.").stderr_has("hint: give one with --choice");
    world.other.cmd(["answer", &asker.id, "--choice", "us-east"]).run().success().stdout_is("us-east\n");
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn what_somebody_else_wrote_there_by_halves_ends_no_wait() {
    let world = World::new();
    let asker = world.ask(&[]);
    let details = json!({ "source": "click", "heard": "x", "passed_on": "waiting" });
    world.sql(&format!(
        "ALTER TABLE human_interventions ALTER agent_id DROP NOT NULL;
         INSERT INTO human_interventions (id, task_id, intervention_type, action_details)
         SELECT gen_random_uuid(), task_id, 'approve', '{details}' FROM agent_checkpoints WHERE id = '{}'",
        asker.id
    ));
    world.other.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn nobody_who_asks_any_more_is_no_answer_yet_and_counts_later() {
    let world = World::new();
    let asked = world.ours.sandbox.cmd(["ask", "-a", "bot", "--no-wait", "Go on?"]).run().success();
    let id = asked.stdout.trim().to_owned();
    world.ours.flush();
    let told = world.other.cmd(["answer", &id, "--approve"]).run().code(75).stdout_is("open\n");
    told.stderr_has("nobody has taken it yet");
    world.ours.sandbox.cmd(["answer", &id]).run().success().stdout_is("approved\n");
    world.ours.flush();
    world.other.cmd(["answer", &id]).run().success().stdout_is("approved\n");
}

#[cfg(feature = "serve")]
#[test]
fn a_click_that_a_server_elsewhere_hears_ends_the_wait_and_is_one_row() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let asker = world.ask(&["--approver", HUMAN, "--quorum", "1"]);
    let message = Asker::message(&world.ours);
    let payload = world.ours.slack.click_payload(&message, "question:approve", HUMAN);
    // Slack says it again where an answer was lost.
    world.until_passed_on(|| {
        world.ours.slack.interact(&payload);
        world.ours.slack.interact(&payload)
    });
    let since = Instant::now();
    let told = asker.end();
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "approved\n"), "{}", told.stderr);
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    let told = world.ours.slack.ephemerals();
    let passed_on = told.iter().filter(|told| told.text == "Passed on to the machine that this is for.");
    assert_eq!(passed_on.count(), 1, "{told:?}");
    wait_for("the edit", || world.ours.slack.buttons(&message.ts).is_empty().then_some(()));
    let acts = world.settled(1);
    assert_eq!((text(&acts[0], "kind"), text(&acts[0], "user")), ("approve", HUMAN));
    assert_eq!(text(&acts[0]["details"], "source"), "click");
    let ours = world.ours.show("bot")["interventions"].clone();
    assert_eq!((ours.as_array().map(Vec::len), &ours[0]["user_id"]), (Some(1), &json!(HUMAN)));
    // One who is slow to see that is told at once.
    world.ours.flush();
    world.ours.slack.click_as_seen(&message, "question:reject", HUMAN);
    let before = told.len();
    assert!(world.ours.slack.wait_ephemerals(before + 1)[before].text.starts_with("Too late: approved"));
    assert_eq!(refused(&world.settled(2)), ["", "late"]);
}

#[test]
fn a_click_that_a_socket_elsewhere_hears_ends_the_wait_through_a_pooler() {
    let cluster = Cluster::shared();
    let pooler = Pooler::start(cluster);
    let world = World::on(cluster, |database, _| pooler.url(database));
    world.other.env("SLACK_APP_TOKEN", world.ours.slack.app_token());
    let mut listener = world.other.cmd(["run", "-a", "listener", "--", "sleep", "60"]).spawn();
    let asker = world.ask(&[]);
    let message = wait_for("the question", || world.ours.slack.newest_with("question:reject"));
    world.ours.slack.wait_sockets(1);
    world.ours.slack.repeat_next_envelope();
    assert!(world.ours.slack.click(&message.ts, "question:reject", HUMAN).acked);
    let told = asker.end();
    assert_eq!(told.code, Some(10), "{}", told.stderr);
    assert_eq!(world.settled(1).len(), 1);
    listener.kill().expect("a live process");
    listener.wait().expect("an end");
}

#[cfg(feature = "serve")]
#[test]
fn the_asker_alone_decides_who_may_and_whether_a_button_was_seen() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let asker = world.ask(&["--approver", HUMAN]);
    let message = Asker::message(&world.ours);
    world.until_passed_on(|| world.ours.slack.click(&message.ts, "question:approve", COLLEAGUE));
    // That it was passed on, and that it is refused: by two machines, of which either may be quicker.
    let refused_one = wait_for("the refusal", || {
        world
            .ours
            .slack
            .ephemerals()
            .into_iter()
            .find(|told| told.text.starts_with("You are not among those"))
    });
    assert_eq!(refused_one.user, COLLEAGUE);
    assert_eq!(refused(&world.settled(1)), ["not_allowed"]);
    let mut payload = world.ours.slack.click_payload(&message, "question:approve", HUMAN);
    payload["actions"][0]["value"] = json!(format!("{}:{}", asker.id, "0".repeat(32)));
    world.until_passed_on(|| world.ours.slack.interact(&payload));
    assert_eq!(refused(&world.settled(2)), ["not_allowed", "forged"]);
    // Copied into a message that asks something else.
    let mut payload = world.ours.slack.click_payload(&message, "question:approve", HUMAN);
    payload["container"]["message_ts"] = json!("1.000001");
    world.until_passed_on(|| world.ours.slack.interact(&payload));
    assert_eq!(refused(&world.settled(3))[2], "forged");
    // What somebody wrote there, in the name of one who may, without having seen the button.
    for (n, source) in ["click", "terminal", "carrier pigeon"].into_iter().enumerate() {
        let heard = format!("018bcfe5-6800-7000-8000-00000000000{n}");
        let details = json!({
            "request_id": asker.id, "word": "approve", "source": source, "heard": heard,
            "message_ts": message.ts, "proof": "0".repeat(64), "passed_on": "waiting",
        });
        world.sql(&format!(
            "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details)
             SELECT '{heard}', task_id, agent_id, 'approve', '{HUMAN}', '{details}' FROM agent_checkpoints
             WHERE id = '{}'",
            asker.id
        ));
    }
    assert_eq!(refused(&world.settled(6))[3..], ["forged", "not_allowed", "unknown"]);
    world.ours.sandbox.cmd(["answer", &asker.id]).run().code(75);
    world.until_passed_on(|| world.ours.slack.click(&message.ts, "question:approve", HUMAN));
    assert_eq!(asker.end().code, Some(0));
}

#[cfg(feature = "serve")]
#[test]
fn the_secret_of_a_button_is_nowhere_in_the_database() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let asker =
        world.ask(&["--command", "./deploy.sh --all", "--details", "Two migrations", "--quorum", "2"]);
    let cache = Connection::open(world.ours.sandbox.cache_path()).expect("the cache");
    let nonce: String = cache
        .query_row("SELECT content ->> 'nonce' FROM questions", [], |row| row.get(0))
        .expect("a question");
    let message = Asker::message(&world.ours);
    assert!(serde_json::to_string(&message.blocks).is_ok_and(|blocks| blocks.contains(&nonce)));
    world.until_passed_on(|| world.ours.slack.click(&message.ts, "question:approve", HUMAN));
    let all = "SELECT (SELECT string_agg(t::text, '') FROM agent_tasks t)
                   || (SELECT string_agg(t::text, '') FROM agent_checkpoints t)
                   || (SELECT string_agg(t::text, '') FROM human_interventions t)";
    let waiting = world.sql(all);
    world.settled(1);
    world.until_passed_on(|| world.ours.slack.click(&message.ts, "question:approve", COLLEAGUE));
    assert_eq!(asker.end().code, Some(0));
    world.ours.flush();
    for rows in [waiting, world.sql(all)] {
        assert!(!rows.contains(&nonce), "{rows}");
        // Yet all that was approved is there.
        assert!(rows.contains("./deploy.sh --all") && rows.contains("Two migrations"), "{rows}");
    }
}

#[test]
fn while_the_database_is_away_a_question_is_answered_here_and_told_later() {
    let mut cluster = Cluster::start();
    let id = {
        let world = World::on(&cluster, |_, url| url);
        cluster.kill();
        let asker = Asker::start(&world.ours, &["Go on?"]);
        let away = world.other.cmd(["answer", &asker.id]).run().code(75).stdout_is("");
        away.stderr_has("the database cannot be asked");
        let since = Instant::now();
        world.ours.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
        let id = asker.id.clone();
        assert_eq!(asker.end().code, Some(0));
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        (id, world.ours, world.other)
    };
    cluster.restart();
    let (id, ours, other) = id;
    // Past the back-off after the failure.
    wait_for("the database", || (ours.sandbox.cmd(["flush"]).run().code == Some(0)).then_some(()));
    other.cmd(["answer", &id]).run().success().stdout_is("approved\n");
}

#[test]
fn whoever_waits_with_a_database_needs_little_memory_and_one_of_all_looks() {
    let world = World::new();
    let (first, second) = (world.ask(&[]), world.ask(&["-a", "second"]));
    let looks = || {
        let all = world.cluster.statements(&world.database).into_iter();
        all.filter(|statement| statement.contains("SELECT id::text, task_id::text, agent_id::text")).count()
    };
    wait_for("some looks", || (looks() >= 3).then_some(()));
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    wait_for("one connection, of whoever looks for both", || (world.sql(sessions) == "1").then_some(()));
    for asker in [&first, &second] {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", asker.process.id()));
        let kilobytes = smaps.ok().and_then(|smaps| {
            let line = smaps.lines().find(|line| line.starts_with("Private_Dirty:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        assert!(kilobytes.is_none_or(|kilobytes| kilobytes < 8 * 1024), "{kilobytes:?} kB");
    }
    for asker in [first, second] {
        world.other.cmd(["answer", &asker.id, "--approve"]).run().success();
        assert_eq!(asker.end().code, Some(0));
    }
    assert!(world.ours.slack.messages(CHANNEL).len() >= 2);
}
