//! Shared threads: an agent goes on elsewhere in its task and its thread.

use std::thread;

use serde_json::{Value, json};

use crate::audit::{Machine, database};
use crate::cluster::Cluster;
use crate::db::with_lock;
use crate::fake_slack::{CHANNEL, FakeSlack, HUMAN};
use crate::support::wait_for;

/// Two machines with one database and one Slack.
struct Pair {
    cluster: &'static Cluster,
    database: String,
    slack: FakeSlack,
    ours: Machine,
    other: Machine,
}

impl Pair {
    #[track_caller]
    fn new() -> Self {
        let (cluster, slack) = (Cluster::shared(), FakeSlack::start());
        let (database, url) = database(cluster);
        let (ours, other) = (Machine::with_slack(&url, &slack), Machine::with_slack(&url, &slack));
        Self { cluster, database, slack, ours, other }
    }

    /// The tasks there, as `STATUS|THREAD`, the oldest first.
    #[track_caller]
    fn tasks(&self) -> Vec<String> {
        let sql = "SELECT status, slack_thread_ts FROM agent_tasks ORDER BY created_at, id";
        self.cluster.sql_in(&self.database, sql).lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn checkpoints(&self) -> String {
        self.cluster.sql_in(&self.database, "SELECT count(*), count(DISTINCT task_id) FROM agent_checkpoints")
    }
}

fn place(receipt: &Value) -> (&Value, &Value, &Value) {
    (&receipt["task_id"], &receipt["channel"], &receipt["thread_ts"])
}

#[test]
fn an_agent_that_continues_on_another_machine_finds_its_task_and_its_thread() {
    let pair = Pair::new();
    let words = ["-s", "starting", "-t", "Deploy", "-p", "20", "--tokens", "1000", "Begin"];
    let first = pair.ours.emit(words);
    let second = pair.other.emit(["-s", "blocked", "Stuck"]);
    assert_eq!(place(&first), place(&second));
    assert_eq!((&second["progress"], &second["audit"]), (&json!(20), &json!("sent")));
    // And back again, with what was said there.
    pair.other.emit(["-s", "working", "-p", "70", "-f", "On it"]);
    let third = pair.ours.emit(["-s", "blocked", "Stuck again"]);
    assert_eq!((place(&third), &third["progress"]), (place(&first), &json!(70)));
    assert_eq!(pair.slack.roots().len(), 1);
    let thread = pair.slack.thread(first["thread_ts"].as_str().expect("a thread"));
    assert_eq!(thread.len(), 4);
    assert!(
        thread[1].text.contains("Task: Deploy") && thread[1].text.contains("1,000"),
        "{}",
        thread[1].text
    );
    assert_eq!(pair.checkpoints(), "4|1");
}

#[test]
fn what_people_wrote_is_read_on_a_machine_where_the_agent_has_said_nothing_yet() {
    let pair = Pair::new();
    let replies = |agent: &str| pair.other.sandbox.cmd(["replies", "-a", agent]).run();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    pair.slack.person_replies(
        CHANNEL,
        first["thread_ts"].as_str().expect("a thread"),
        HUMAN,
        "Mind the cache",
    );
    replies("nobody").code(1).stderr_has("no agent 'nobody'");
    let told = replies("bot").success().stdout;
    assert!(told.ends_with(": Mind the cache\n"), "{told}");
    replies("bot").success().stdout_is("");
    // The agent goes on there as if it had not looked first.
    let second = pair.other.emit(["-s", "blocked", "Stuck"]);
    assert_eq!((place(&second), &second["audit"]), (place(&first), &json!("sent")));
    pair.ours.emit(["-s", "complete", "Done"]);
    let third = pair.other.emit(["-s", "starting", "Again", "-f"]);
    assert_ne!(third["task_id"], first["task_id"]);
    assert_eq!(pair.tasks().len(), 2);
}

#[test]
fn without_the_database_replies_says_where_the_agent_may_be() {
    let pair = Pair::new();
    pair.other.sandbox.env("DATABASE_URL", "postgres://127.0.0.1:1/nothing");
    let line = ["replies", "-a", "bot"];
    pair.other
        .sandbox
        .cmd(line)
        .run()
        .code(1)
        .stderr_has("'bot' is not in the cache, and the database cannot be");
}

#[test]
fn a_repeated_end_joins_the_task_that_was_closed_elsewhere() {
    let pair = Pair::new();
    pair.ours.emit(["-s", "starting", "Begin"]);
    let first = pair.ours.emit(["-s", "complete", "Done"]);
    let second = pair.other.emit(["-s", "complete", "Done too"]);
    assert_eq!(place(&first), place(&second));
    assert_eq!((pair.tasks().len(), pair.checkpoints()), (1, "3|1".to_owned()));
}

#[test]
fn a_task_that_was_ended_elsewhere_is_never_revived() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    pair.other.emit(["-s", "cancelled", "Enough"]);
    let next = pair.ours.emit(["-s", "blocked", "Go on"]);
    assert_ne!((&first["task_id"], &first["thread_ts"]), (&next["task_id"], &next["thread_ts"]));
    let states: Vec<String> =
        pair.tasks().iter().filter_map(|task| Some(task.split_once('|')?.0.to_owned())).collect();
    assert_eq!(states, ["cancelled", "running"]);
    assert_eq!(pair.slack.roots().len(), 2);
    // The card of the one that was ended stays as it was.
    let card = pair.slack.card(first["thread_ts"].as_str().expect("a thread"));
    assert!(card.text.contains("CANCELLED"), "{}", card.text);
}

#[test]
fn a_task_that_begins_after_another_is_its_own_although_the_end_of_that_has_yet_to_be_told() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    pair.ours.emit_alone(["-s", "complete", "Done"]);
    pair.ours.record_much();
    let next = pair.ours.emit(["-s", "starting", "Again"]);
    assert_eq!(next["audit"], "sent");
    assert_ne!((&first["task_id"], &first["thread_ts"]), (&next["task_id"], &next["thread_ts"]));
    pair.ours.flush();
    let rows = "SELECT status, (SELECT count(*) FROM agent_checkpoints c WHERE c.task_id = t.id)
                FROM agent_tasks t WHERE agent_id = 'bot' ORDER BY created_at";
    assert_eq!(pair.cluster.sql_in(&pair.database, rows), "completed|2\nrunning|1");
}

#[test]
fn a_retry_whose_beginning_waits_behind_much_else_goes_on_in_the_task_that_failed_elsewhere() {
    let pair = Pair::new();
    let failed = pair.ours.emit(["-s", "error", "--error", "exit 1", "Broken"]);
    pair.other.record_much();
    pair.other.emit_alone(["-s", "working", "Again"]);
    let next = pair.other.emit(["-s", "blocked", "Stuck"]);
    assert_eq!(next["audit"], "sent");
    assert_eq!(next["task_id"], failed["task_id"]);
    pair.other.flush();
    let rows = "SELECT status, (SELECT count(*) FROM agent_checkpoints c WHERE c.task_id = t.id)
                FROM agent_tasks t WHERE agent_id = 'bot' ORDER BY created_at";
    assert_eq!(pair.cluster.sql_in(&pair.database, rows), "running|3");
}

#[test]
fn what_is_held_back_after_the_end_elsewhere_begins_a_task_of_its_own() {
    let own = ["-a", "bot", "-s", "working", "-p", "40", "Two"];
    // By whoever tells everything, by the next call that is told at once, and by another agent's.
    for next in [&[&own[..]][..], &[&["-a", "bot", "-s", "blocked", "Two"]], &[&own, &["-a", "other"]]] {
        let pair = Pair::new();
        let first = pair.ours.emit(["-s", "starting", "-t", "Deploy", "Begin"]);
        pair.other.emit(["-s", "blocked", "Stuck"]);
        pair.ours.emit(["-s", "complete", "Done"]);
        let held = pair.other.emit(["-s", "working", "-p", "30", "One"]);
        assert_eq!((&held["delivery"], &held["audit"]), (&json!("coalesced"), &json!("queued")));
        for words in next {
            pair.other.sandbox.cmd([&["emit"], *words].concat()).run().success();
        }
        pair.other.flush();
        let rows = "SELECT status, task_name, (SELECT string_agg(action_description, ' ' ORDER BY c.created_at, c.id)
                        FROM agent_checkpoints c WHERE c.task_id = t.id)
                    FROM agent_tasks t WHERE agent_id = 'bot' ORDER BY created_at";
        let expected = "completed|Deploy|Begin Stuck Done\nrunning|Deploy|One Two";
        assert_eq!(pair.cluster.sql_in(&pair.database, rows), expected, "{next:?}");
        // Who heard what people want of the agent before, hears it still.
        let listening =
            "SELECT string_agg((metadata::text LIKE '%\"listens\": true%')::text, ' ') FROM agent_tasks
                         WHERE agent_id = 'bot'";
        assert_eq!(pair.cluster.sql_in(&pair.database, listening), "true true", "{next:?}");
        let shown = pair.other.sandbox.cmd(["show", "--json", "bot"]).run().success().json();
        assert_ne!(shown["task_id"], first["task_id"]);
        assert_eq!((&shown["state"], &shown["action"]), (&json!("running"), &json!("Two")));
        let roots = pair.slack.roots();
        let roots: Vec<_> = roots.iter().filter(|root| root.text.contains("Agent `bot`")).collect();
        assert_eq!(roots.len(), 2, "{roots:#?}");
        assert!(roots.iter().any(|root| root.text.contains("COMPLETE")), "{roots:#?}");
        assert!(roots.iter().any(|root| root.text.contains("Last Action: Two")), "{roots:#?}");
    }
}

#[test]
fn what_is_said_after_the_end_elsewhere_goes_on_in_the_task_that_the_agent_has_had_since_unless_that_is_over()
{
    for is_over in [false, true] {
        let pair = Pair::new();
        pair.other.emit(["-s", "starting", "Begin"]);
        pair.ours.emit(["-s", "complete", "Done"]);
        let since = pair.ours.emit(["-s", "starting", "Anew"]);
        if is_over {
            pair.ours.emit(["-s", "complete", "Over"]);
        }
        let held = pair.other.emit(["-s", "working", "One"]);
        assert_eq!((&held["delivery"], &held["audit"]), (&json!("coalesced"), &json!("queued")));
        let said = pair.other.emit(["-s", "blocked", "Two"]);
        assert_eq!((&said["delivery"], &said["audit"]), (&json!("sent"), &json!("sent")));
        pair.other.flush();
        let rows = "SELECT status, (SELECT string_agg(action_description, ' ' ORDER BY c.created_at, c.id)
                        FROM agent_checkpoints c WHERE c.task_id = t.id)
                    FROM agent_tasks t ORDER BY created_at";
        let expected = match is_over {
            false => "completed|Begin Done\nrunning|Anew One Two",
            true => "completed|Begin Done\ncompleted|Anew Over\nrunning|One Two",
        };
        assert_eq!(pair.cluster.sql_in(&pair.database, rows), expected);
        assert_eq!(said["task_id"] == since["task_id"], !is_over);
        assert_eq!(said["thread_ts"] == since["thread_ts"], !is_over);
        assert_eq!(pair.slack.roots().len(), if is_over { 3 } else { 2 });
    }
}

#[test]
fn what_is_held_back_after_the_end_elsewhere_is_told_in_one_task_by_however_many_at_once() {
    let pair = Pair::new();
    pair.other.emit(["-s", "starting", "Begin"]);
    pair.ours.emit(["-s", "complete", "Done"]);
    let held = pair.other.emit_alone(["-s", "working", "On"]);
    // They have read what there is to tell before any of them hears of the end.
    let mut flushes = Vec::new();
    with_lock(pair.cluster, &pair.database, || {
        flushes.extend((0..4).map(|_| pair.other.sandbox.cmd(["flush"]).spawn()));
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
            pair.database
        );
        wait_for("all of them", || (pair.cluster.sql(&waiting) == "4").then_some(()));
    });
    for mut flush in flushes {
        assert_eq!(flush.wait().expect("an end").code(), Some(0));
    }
    let shown = pair.other.sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    let row = format!("SELECT task_id FROM agent_checkpoints WHERE id = {}", held["checkpoint_id"]);
    let there = pair.cluster.sql_in(&pair.database, &row.replace('"', "'"));
    assert_eq!(shown["task_id"], json!(there));
    let states =
        "SELECT status, (SELECT count(*) FROM agent_checkpoints c WHERE c.task_id = t.id) FROM agent_tasks t
                  ORDER BY created_at";
    assert_eq!(pair.cluster.sql_in(&pair.database, states), "completed|2\nrunning|1");
}

#[test]
fn a_task_that_another_program_ended_is_never_revived_either() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    pair.cluster.sql_in(&pair.database, "UPDATE agent_tasks SET status = 'cancelled', completed_at = now()");
    let next = pair.ours.emit(["-s", "blocked", "Go on"]);
    assert_ne!((&first["task_id"], &first["thread_ts"]), (&next["task_id"], &next["thread_ts"]));
    let rows = "SELECT t.status, count(c.id) FROM agent_tasks t JOIN agent_checkpoints c ON c.task_id = t.id
                GROUP BY t.id ORDER BY t.created_at";
    assert_eq!(pair.cluster.sql_in(&pair.database, rows), "cancelled|1\nrunning|1");
    let shown = pair.ours.sandbox.cmd(["tasks", "--json"]).run().success().json();
    let states: Vec<&Value> = shown.as_array().expect("tasks").iter().map(|task| &task["state"]).collect();
    assert_eq!(states, ["running", "cancelled"]);
}

#[test]
fn whoever_tells_late_of_what_came_before_the_end_elsewhere_hears_of_the_end_and_undoes_nothing() {
    for said in ["blocked", "error"] {
        let pair = Pair::new();
        let first = pair.ours.emit(["-s", "starting", "Begin"]);
        pair.other.emit(["-s", "blocked", "Stuck"]);
        pair.other.emit_alone(["-s", said, "-p", "30", "Late"]);
        pair.ours.emit(["-s", "complete", "Done"]);
        pair.other.flush();
        let rows = "SELECT status, progress, (SELECT count(*) FROM agent_checkpoints) FROM agent_tasks";
        assert_eq!(pair.cluster.sql_in(&pair.database, rows), "completed|100|4", "{said}");
        let shown = pair.other.sandbox.cmd(["show", "--json", "bot"]).run().success().json();
        assert_eq!((&shown["task_id"], &shown["state"]), (&first["task_id"], &json!("completed")), "{said}");
    }
}

#[test]
fn an_error_on_one_machine_is_recovered_from_on_another() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "error", "--error", "exit 1", "Tests"]);
    let second = pair.other.emit(["-s", "working", "-f", "Again"]);
    assert_eq!(place(&first), place(&second));
    let third = pair.ours.emit(["-s", "complete", "Done"]);
    assert_eq!(place(&first), place(&third));
    assert_eq!(pair.tasks().len(), 1);
    assert!(pair.tasks()[0].starts_with("completed|"));
}

#[test]
fn a_new_task_replaces_one_that_runs_elsewhere() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    let second = pair.other.emit(["--new", "-s", "starting", "Afresh"]);
    assert_ne!(first["task_id"], second["task_id"]);
    let states: Vec<String> =
        pair.tasks().iter().filter_map(|task| Some(task.split_once('|')?.0.to_owned())).collect();
    assert_eq!(states, ["cancelled", "running"]);
    let third = pair.ours.emit(["-s", "blocked", "Where am I"]);
    assert_eq!(place(&second), place(&third));
}

#[test]
fn machines_that_open_an_agent_at_the_same_moment_get_one_task_and_one_thread() {
    let cluster = Cluster::shared();
    let slack = FakeSlack::start();
    let (database, url) = database(cluster);
    let machines: Vec<Machine> = (0..6).map(|_| Machine::with_slack(&url, &slack)).collect();
    for machine in &machines {
        machine.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    }
    thread::scope(|scope| {
        for (n, machine) in machines.iter().enumerate() {
            scope.spawn(move || machine.emit(["-s", "starting", &format!("from {n}")]));
        }
    });
    let sent = || slack.calls("chat.postMessage").len();
    wait_for("everybody's message", || (sent() >= 6).then_some(()));
    for machine in &machines {
        machine.flush();
    }
    assert_eq!(slack.roots().len(), 1, "{:#?}", slack.roots());
    let thread = slack.roots()[0].ts.clone();
    assert_eq!(slack.thread(&thread).len(), 6);
    let tasks = "SELECT count(*), min(slack_thread_ts) FROM agent_tasks";
    assert_eq!(cluster.sql_in(&database, tasks), format!("1|{thread}"));
    let rows = "SELECT count(*), count(DISTINCT task_id) FROM agent_checkpoints";
    assert_eq!(cluster.sql_in(&database, rows), "6|1");
}

#[test]
fn what_went_apart_during_an_outage_is_one_again_with_a_line_that_leads_on() {
    let pair = Pair::new();
    let ours = pair.ours.emit(["-s", "starting", "-t", "Deploy", "-p", "30", "Here"]);
    // Over there the database is away, so that the agent opens a thread of its own.
    let theirs = pair.other.emit_alone(["-s", "working", "There"]);
    assert_ne!(ours["thread_ts"], theirs["thread_ts"]);
    assert_eq!(pair.slack.roots().len(), 2);
    pair.other.flush();
    let thread = ours["thread_ts"].as_str().expect("a thread");
    assert_eq!(pair.tasks(), [format!("running|{thread}")]);
    assert_eq!(pair.checkpoints(), "2|1");
    // From there a line leads on.
    let left = pair.slack.thread(theirs["thread_ts"].as_str().expect("a thread"));
    let line = &left.last().expect("a line").text;
    assert!(line.contains("goes on in") && line.contains(&thread.replace('.', "")), "{line}");
    // And what comes next stands where the task goes on, with what both said.
    let next = pair.other.emit(["-s", "blocked", "Together"]);
    assert_eq!((place(&next), &next["progress"]), (place(&ours), &json!(30)));
    let card = pair.slack.card(thread);
    assert!(card.text.contains("Deploy") && card.text.contains("Together"), "{}", card.text);
}

#[test]
fn a_new_task_that_was_opened_during_an_outage_still_replaces_the_other() {
    let pair = Pair::new();
    pair.ours.emit(["-s", "starting", "Here"]);
    let theirs = pair.other.emit_alone(["--new", "-s", "starting", "There"]);
    pair.other.flush();
    let states: Vec<String> =
        pair.tasks().iter().filter_map(|task| Some(task.split_once('|')?.0.to_owned())).collect();
    assert_eq!(states, ["cancelled", "running"]);
    let next = pair.ours.emit(["-s", "blocked", "Where"]);
    assert_eq!(next["task_id"], theirs["task_id"]);
}

#[test]
fn a_retry_that_began_during_an_outage_goes_on_in_the_task_that_failed_elsewhere() {
    let pair = Pair::new();
    pair.ours.emit(["-s", "starting", "-t", "Deploy", "-p", "30", "Here"]);
    let failed = pair.ours.emit(["-s", "error", "--error", "exit 1", "Broken"]);
    let theirs = pair.other.emit_alone(["-s", "working", "Again"]);
    pair.other.emit_alone(["-s", "complete", "Done"]);
    pair.other.flush();
    let thread = failed["thread_ts"].as_str().expect("a thread");
    assert_eq!(pair.tasks(), [format!("completed|{thread}")]);
    assert_eq!(pair.checkpoints(), "4|1");
    let left = pair.slack.thread(theirs["thread_ts"].as_str().expect("a thread"));
    assert!(left.last().expect("a line").text.contains("goes on in"), "{left:#?}");
    assert_eq!(pair.other.emit(["-s", "complete", "Twice"])["task_id"], failed["task_id"]);
}

#[test]
fn an_end_that_was_said_alone_joins_the_task_that_was_closed_elsewhere() {
    let pair = Pair::new();
    pair.ours.emit(["-s", "starting", "Here"]);
    pair.ours.emit(["-s", "complete", "Done"]);
    pair.other.emit_alone(["-s", "complete", "Done too"]);
    pair.other.flush();
    assert_eq!((pair.tasks().len(), pair.checkpoints()), (1, "3|1".to_owned()));
}

#[test]
fn a_retry_over_a_stream_goes_on_in_the_task_that_failed_elsewhere() {
    let pair = Pair::new();
    let failed = pair.ours.emit(["-s", "error", "--error", "exit 1", "Broken"]);
    let lines =
        "{\"agent_id\":\"bot\",\"action\":\"Again\"}\n{\"agent_id\":\"bot\",\"status\":\"blocked\"}\n";
    pair.other.sandbox.cmd(["stream"]).stdin(lines).run().success();
    pair.other.flush();
    let thread = failed["thread_ts"].as_str().expect("a thread");
    assert_eq!(pair.tasks(), [format!("running|{thread}")]);
    assert_eq!(pair.checkpoints(), "3|1");
}

#[test]
fn what_begins_afresh_during_an_outage_stays_a_task_of_its_own_beside_one_that_failed() {
    let pair = Pair::new();
    for (agent, words) in [("a", ["-s", "starting"]), ("b", ["--new", "--status=working"])] {
        let failed = pair.ours.emit(["-a", agent, "-s", "error", "--error", "exit 1", "Broken"]);
        let [first, second] = words;
        let own = pair.other.emit_alone(["-a", agent, first, second, "Afresh"]);
        pair.other.flush();
        let next = pair.other.emit(["-a", agent, "-s", "blocked", "On"]);
        assert_eq!(next["task_id"], own["task_id"]);
        assert_ne!(next["task_id"], failed["task_id"]);
    }
    assert_eq!(pair.checkpoints(), "6|4");
}

#[test]
fn a_thread_of_another_workspace_is_left_alone() {
    let pair = Pair::new();
    pair.ours.sandbox.env("SLACK_BOT_TOKEN", "");
    // The task is known there without a thread; this machine opens one.
    let first = pair.ours.emit(["-s", "starting", "Here"]);
    assert_eq!(first["delivery"], "printed");
    let second = pair.other.emit(["-s", "blocked", "There"]);
    assert_eq!((&first["task_id"], &second["delivery"]), (&second["task_id"], &json!("sent")));
    assert!(second["thread_ts"].is_string());
}

#[test]
fn a_machine_that_cannot_post_in_the_shared_thread_keeps_its_own() {
    let pair = Pair::new();
    pair.other.sandbox.env("SLACK_BOT_TOKEN", "").webhook(&pair.slack);
    pair.ours.emit(["-s", "starting", "Here"]);
    let thread = ["--thread", "C0AGENT000:1700000000.000100"];
    let first = pair.other.emit([thread[0], thread[1], "-s", "blocked", "There"]);
    assert_eq!(first["thread_ts"], "1700000000.000100");
    pair.ours.emit(["-s", "blocked", "Here again"]);
    let next = pair.other.emit(["-s", "blocked", "There again"]);
    assert_eq!(place(&first), place(&next));
}

#[test]
fn a_thread_that_the_database_has_not_heard_of_yet_stays_the_tasks() {
    let pair = Pair::new();
    pair.slack.hold();
    let mut first = Value::Null;
    thread::scope(|scope| {
        let emitted = scope.spawn(|| pair.ours.emit(["-s", "starting", "Begin"]));
        wait_for("the message", || (pair.slack.calls("chat.postMessage").len() == 1).then_some(()));
        // The task is known there by now; its thread is not, as nobody gets at the table.
        crate::db::with_lock(pair.cluster, &pair.database, || {
            pair.slack.release();
            first = emitted.join().expect("a receipt");
        });
    });
    assert_eq!(first["delivery"], "sent");
    pair.other.emit(["-s", "blocked", "Elsewhere"]);
    // Past the back-off after the failure.
    let next = wait_for("the database", || {
        let next = pair.ours.emit(["-s", "blocked", "Go on"]);
        (next["audit"] == "sent").then_some(next)
    });
    assert_eq!(place(&first), place(&next));
    assert_eq!(pair.slack.roots().len(), 1);
}

#[test]
fn a_wrapped_command_goes_on_in_the_shared_task_as_well() {
    let pair = Pair::new();
    let first = pair.ours.emit(["-s", "starting", "Begin"]);
    let run = pair.other.sandbox.cmd(["run", "--json", "-a", "bot", "--", "true"]).run().success().json();
    assert_eq!(run["thread_ts"], first["thread_ts"]);
    assert_eq!(pair.slack.roots().len(), 1);
    pair.other.flush();
    assert_eq!(pair.tasks().len(), 1);
    assert!(pair.tasks()[0].starts_with("completed|"));
}
