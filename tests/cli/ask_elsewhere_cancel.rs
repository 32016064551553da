//! Cancels between machines: heard on one, they end what runs on another; one that one machine has taken holds on every
//! other one on which the agent goes on.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::ask_elsewhere::{World, refused};
#[cfg(feature = "serve")]
use crate::fake_slack::CHANNEL;
#[cfg(feature = "serve")]
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::COLLEAGUE;
use crate::fake_slack::{Fault, HUMAN};
use crate::run_child::signal;
#[cfg(feature = "serve")]
use crate::scene::text;
#[cfg(feature = "serve")]
use crate::serve::Server;
use crate::stream::Talk;
use crate::support::{Sandbox, wait_for};

impl World<'_> {
    /// Ours begins, and has taken a cancel of one who may; somebody else's is refused.
    #[track_caller]
    fn cancelled_here(&self) {
        self.approved_by_human();
        self.ours.emit(["-s", "starting", "Begin"]).run().success();
        self.cancel("bot", &[COLLEAGUE, HUMAN]);
        self.take_here(&[COLLEAGUE, HUMAN]);
    }

    fn approved_by_human(&self) {
        for machine in [&self.ours.sandbox, &self.other] {
            machine.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
        }
    }

    /// Ours takes what waits for it, and tells the database so.
    #[track_caller]
    fn take_here(&self, users: &[&str]) {
        let code = if users.contains(&HUMAN) { 20 } else { 0 };
        self.ours.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--obey", "Stuck"]).run().code(code);
        self.ours.flush();
        self.settled(users.len());
        self.ours.slack.wait_ephemerals(users.len());
    }

    /// The exit code of the agent's next `emit --obey` on the other machine.
    #[track_caller]
    fn obeys_there(&self, status: &str) -> Option<i32> {
        self.other.cmd(["emit", "-a", "bot", "-s", status, "--obey", "There"]).run().code
    }

    /// How many statements an `emit --obey` on the other machine is to the database, which exits so.
    #[track_caller]
    fn said_to_the_database(&self, code: i32) -> usize {
        let count = || self.cluster.statements(&self.database).len();
        let before = count();
        assert_eq!(self.obeys_there("blocked"), Some(code));
        count() - before
    }

    /// Nobody is told anything again, and each act is one row.
    #[track_caller]
    fn is_said_once(&self, acts: usize) {
        self.other.cmd(["flush"]).run().success();
        self.ours.flush();
        assert_eq!(self.settled(acts).len(), acts);
        assert_eq!(self.ours.slack.wait_ephemerals(acts).len(), acts);
    }

    /// A `run` on the other machine whose command has begun, as the database knows.
    #[track_caller]
    fn running_there(&self) -> Child {
        Self::running(&self.other)
    }

    fn running(machine: &Sandbox) -> Child {
        let script = "echo ready; exec sleep 90";
        let words = ["run", "-a", "bot", "--", "sh", "-c", script];
        let mut process = machine.cmd(words).env("AGENT_CHECKPOINT_BACKGROUND", "auto").spawn();
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        process
    }
}

#[test]
fn a_cancel_that_one_machine_has_taken_holds_where_another_goes_on() {
    let world = World::new();
    world.cancelled_here();
    // With the first one, which takes the task over, and with each that follows, whether it speaks with the database or not.
    for status in ["blocked", "working", "blocked"] {
        assert_eq!(world.obeys_there(status), Some(20), "{status}");
    }
    let receipt = world.other.cmd(["emit", "-a", "bot", "--json", "There"]).run().success().json();
    assert_eq!(receipt["requests"].as_array().map(Vec::len), Some(1), "{receipt}");
    let request = &receipt["requests"][0];
    assert_eq!((&request["type"], &request["user_id"]), (&json!("cancel"), &json!(HUMAN)));
    assert_eq!(request["user_name"], HUMAN, "{receipt}");
    world.is_said_once(2);
    // Until the task ends.
    assert_eq!(world.obeys_there("complete"), Some(0));
    assert_eq!(world.obeys_there("starting"), Some(0));
}

#[test]
fn a_name_that_somebody_wrote_into_the_database_is_one_short_line() {
    let world = World::new();
    // One that waits for us, and one that another machine has taken, as it says.
    for (agent, heard, passed_on) in [
        ("first", "018bcfe5-6800-7000-8000-000000000001", "waiting"),
        ("second", "018bcfe5-6800-7000-8000-000000000002", "taken"),
    ] {
        let emit = |status| {
            world.ours.sandbox.cmd(["emit", "-a", agent, "-s", status, "--json", "Here"]).run().success()
        };
        emit("starting");
        let user_name = "\u{1b}[2J\u{202e}ana\n\nFORGED: all is well";
        let details =
            json!({ "source": "command", "heard": heard, "user_name": user_name, "passed_on": passed_on });
        world.sql(&format!(
            "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details)
             SELECT '{heard}', id, agent_id, 'cancel', '{HUMAN}',
                 replace('{details}', 'all is well', repeat('x', 1000000)) FROM agent_tasks
             WHERE agent_id = '{agent}'"
        ));
        emit("blocked");
        let receipt = emit("blocked").json();
        let request = &receipt["requests"][0];
        assert_eq!(request["user_id"], HUMAN, "{agent}");
        let name = request["user_name"].as_str().expect("a name");
        let clean = "[2Jana  FORGED: ";
        assert_eq!(name, format!("{clean}{}", "x".repeat(100 - clean.len())), "{agent}");
    }
}

#[test]
fn a_cancel_was_asked_for_when_somebody_did_and_not_when_the_machine_looked() {
    let world = World::new();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    world.cancel("bot", &[HUMAN]);
    world.sql("UPDATE human_interventions SET created_at = '2026-01-02 03:04:05.5Z'");
    let receipt = world.ours.emit(["-s", "blocked", "Stuck"]).run().success().json();
    let at = receipt["requests"][0]["requested_at"].as_str().unwrap_or_default();
    assert!(at.starts_with("2026-01-02T03:04:05"), "{receipt}");
    assert!(world.ours.show("bot")["interventions"][0]["created_at"] == at, "{receipt}");
}

#[test]
fn a_cancel_that_was_refused_stops_nobody_on_another_machine() {
    let world = World::new();
    world.approved_by_human();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    world.cancel("bot", &[COLLEAGUE]);
    world.take_here(&[COLLEAGUE]);
    for status in ["blocked", "blocked"] {
        assert_eq!(world.obeys_there(status), Some(0));
    }
    assert_eq!(refused(&world.settled(1)), ["not_allowed"]);
    world.is_said_once(1);
}

#[test]
fn a_cancel_holds_where_the_agent_went_on_while_the_database_was_away() {
    let world = World::new();
    world.cancelled_here();
    world.allow_connections(false);
    assert_eq!(world.obeys_there("blocked"), Some(0));
    world.allow_connections(true);
    world.other.cmd(["flush"]).run().success();
    assert_eq!(world.sql("SELECT count(*) FROM agent_tasks"), "1");
    assert_eq!(world.obeys_there("working"), Some(20));
    world.is_said_once(2);
}

#[test]
fn a_cancel_that_is_taken_once_the_agent_is_elsewhere_reaches_it_there() {
    let world = World::new();
    world.approved_by_human();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    for status in ["blocked", "blocked"] {
        assert_eq!(world.obeys_there(status), Some(0));
    }
    let said = world.said_to_the_database(0);
    // As ours tells it that has heard of it by itself, and as somebody may have written it whose clock is none.
    let details = json!({ "task_id": "x", "source": "click", "user_name": "maria" });
    world.sql(&format!(
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details, created_at)
         SELECT gen_random_uuid(), id, agent_id, 'cancel', '{HUMAN}', '{details}', at FROM agent_tasks,
             (VALUES ('infinity'::timestamptz), (now()), ('-infinity'::timestamptz)) AS g (at)"
    ));
    for status in ["blocked", "working", "blocked"] {
        assert_eq!(world.obeys_there(status), Some(20), "{status}");
    }
    // And it is no word more to the database.
    assert_eq!(said, world.said_to_the_database(20));
}

#[test]
fn a_run_that_goes_on_with_a_task_that_was_cancelled_elsewhere_ends() {
    let world = World::new();
    world.cancelled_here();
    let mut process = world.running_there();
    assert_eq!(process.wait().expect("an end").code(), Some(143));
    let shown = world.other.cmd(["show", "bot", "--json"]).run().success().json();
    assert_eq!(
        (&shown["state"], &shown["action"]),
        (&json!("cancelled"), &json!(format!("cancelled by @{HUMAN}")))
    );
    world.is_said_once(2);
}

#[test]
fn a_run_ends_by_a_cancel_that_another_machine_takes_meanwhile() {
    let world = World::new();
    world.approved_by_human();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    let mut process = world.running_there();
    wait_for("the run's checkpoint", || {
        (world.sql("SELECT count(*) FROM agent_checkpoints") == "2").then_some(())
    });
    // The same agent reports here as well.
    world.ours.emit(["-s", "blocked", "Here"]).run().success();
    // It does not look before ours has taken it.
    signal(&process, Signal::SIGSTOP);
    world.cancel("bot", &[HUMAN]);
    world.take_here(&[HUMAN]);
    signal(&process, Signal::SIGCONT);
    assert_eq!(process.wait().expect("an end").code(), Some(143));
    world.is_said_once(1);
}

#[test]
fn a_stream_and_a_courier_hear_of_a_cancel_that_was_taken_elsewhere() {
    let world = World::new();
    world.cancelled_here();
    let mut talk = Talk::start(world.other.cmd(["stream", "--json"]));
    let line = json!({ "agent_id": "bot", "status": "blocked" });
    let receipt =
        wait_for("the request", || Some(talk.ask(&line)).filter(|receipt| receipt.get("requests").is_some()));
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
    assert_eq!(talk.end().0, Some(0));
    world.is_said_once(2);

    let world = World::new();
    world.cancelled_here();
    world.other.env("AGENT_CHECKPOINT_BACKGROUND", "always");
    let emit = || -> Value {
        world.other.cmd(["emit", "-a", "bot", "-s", "blocked", "--json", "There"]).run().success().json()
    };
    assert!(emit().get("requests").is_none());
    let receipt =
        wait_for("the request", || Some(emit()).filter(|receipt| receipt.get("requests").is_some()));
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
    world.is_said_once(2);
}

#[cfg(feature = "serve")]
#[test]
fn a_button_of_another_machines_run_is_passed_on_by_one_whose_own_run_of_the_task_is_over() {
    let world = World::new();
    for machine in [&world.ours.sandbox, &world.other] {
        machine.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    }
    let server = Server::start(&world.ours.sandbox);
    world.ours.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    world.ours.sandbox.cmd(["run", "-a", "bot", "--", "false"]).run().code(1);
    world.ours.flush();
    world.ours.emit(["-s", "blocked", "By hand"]).run().success();
    let old = world.ours.slack.roots()[0].clone();
    let mut process = world.running_there();
    let card = wait_for("the other's button", || {
        world.ours.slack.newest_with("task:cancel").filter(|card| card.text != old.text)
    });
    world.until_passed_on(|| world.ours.slack.click(&card.ts, "task:cancel", HUMAN));
    assert_eq!(process.wait().expect("an end").code(), Some(143));
}

#[test]
fn a_run_that_was_cancelled_ends_once_whoever_did_it_is_told() {
    let world = World::new();
    world.approved_by_human();
    world.ours.slack.script("chat.postEphemeral", vec![Fault::Hang]);
    world.ours.sandbox.env("AGENT_CHECKPOINT_DEADLINE", "60s");
    let mut process = World::running(&world.ours.sandbox);
    // All is told by then, so that it is the looker who takes it.
    let told = "SELECT count(*) FROM agent_tasks WHERE slack_thread_ts IS NOT NULL";
    wait_for("the thread in the database", || (world.sql(told) == "1").then_some(()));
    world.cancel("bot", &[HUMAN]);
    wait_for("the end", || {
        world.ours.slack.roots().first().filter(|card| card.text.contains("CANCELLED")).map(|_| ())
    });
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        assert_eq!(process.try_wait().expect("a process"), None, "it ends, and nobody was told");
        std::thread::sleep(Duration::from_millis(20));
    }
    world.ours.slack.release();
    assert_eq!(process.wait().expect("an end").code(), Some(143));
}

#[cfg(feature = "serve")]
#[test]
fn a_cancel_while_the_database_is_away_claims_nothing_of_other_machines_and_holds_there_later() {
    let world = World::new();
    world.approved_by_human();
    world.ours.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    assert_eq!(world.obeys_there("blocked"), Some(0));
    world.allow_connections(false);
    let server = Server::start(&world.ours.sandbox);
    world.ours.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    assert!(world.ours.slack.command(CHANNEL, HUMAN, "/agent-task", "cancel bot").acked);
    let told = world.ours.slack.wait_ephemerals(1)[0].text.clone();
    assert!(
        told.starts_with("The database that knows of other machines is away. bot was last heard of on "),
        "{told}"
    );
    assert!(told.ends_with(" if it has gone on elsewhere as soon as the database is back."), "{told}");
    world.allow_connections(true);
    world.ours.flush();
    assert_eq!(world.obeys_there("blocked"), Some(20));
}

#[cfg(feature = "serve")]
#[test]
fn whoever_cancels_an_agent_that_has_ended_on_another_machine_is_told_that_and_not_that_there_is_none() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    world.ours.emit(["-s", "complete", "Done"]).run().success();
    world.ours.flush();
    for (agent, said) in [("bot", "bot has ended already."), ("bat", "There is no agent `bat`")] {
        let told = world.typed(&format!("cancel {agent}"));
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(refused(&world.settled(1)), ["late"]);
}

#[cfg(feature = "serve")]
#[test]
fn whoever_cancels_an_agent_that_has_ended_elsewhere_is_told_that_by_a_machine_that_has_not_heard_of_it() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.other.cmd(["emit", "-a", "bot", "-s", "starting", "Begin"]).run().success();
    world.ours.emit(["-s", "complete", "Done"]).run().success();
    assert_eq!(world.typed("cancel bot"), "bot has ended already.");
    assert_eq!(refused(&world.settled(1)), ["late"]);
}

#[cfg(feature = "serve")]
#[test]
fn whoever_cancels_an_agent_that_never_listens_is_told_so_and_when_it_is_over() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let emit = |status: &str| {
        world.ours.sandbox.cmd(["emit", "-a", "bot", "-s", status, "On it"]).run().success();
    };
    emit("starting");
    emit("blocked");
    let unheard = "It may never hear of it: so far its `emit` was given neither `--obey` nor `--json`.";
    assert_eq!(world.typed("cancel bot"), format!("Passed on to the machine that this is for. {unheard}"));
    let before = world.ours.slack.ephemerals().len();
    emit("blocked");
    emit("complete");
    assert_eq!(world.ours.slack.wait_ephemerals(before + 1)[before].text, "bot has ended already.");
    world.ours.flush();
    assert_eq!(refused(&world.settled(1)), ["late"]);
    // On the machine itself as well; once anybody listens, nothing of that is said.
    let here = |words: &[&str]| {
        world.other.cmd([&["emit", "-s", "blocked", "On it"], words].concat()).run().success();
    };
    here(&["-a", "deaf"]);
    here(&["-a", "keen", "--obey"]);
    here(&["-a", "keen"]);
    for (agent, said) in [("deaf", unheard), ("keen", "keen is told to stop.")] {
        let told = world.typed(&format!("cancel {agent}"));
        assert!(told.ends_with(said), "{told}");
    }
}

/// A `run` of ours that says `ready`.
#[cfg(feature = "serve")]
fn running(world: &World<'_>, script: &str) -> Child {
    let words = ["run", "-a", "bot", "--", "sh", "-c", script];
    let mut process = world.ours.sandbox.cmd(words).spawn();
    let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    process
}

#[cfg(feature = "serve")]
#[test]
fn a_click_on_cancel_that_a_server_elsewhere_hears_ends_the_command() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.ours.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let mut process = running(&world, "echo ready; exec sleep 90");
    let card = wait_for("the card", || world.ours.slack.newest_with("task:cancel"));
    wait_for("the task", || (world.sql("SELECT count(*) FROM agent_tasks") == "1").then_some(()));
    let mut forged = world.ours.slack.click_payload(&card, "task:cancel", HUMAN);
    let value = forged["actions"][0]["value"].as_str().expect("a value");
    let task = value.split_once(':').expect("a task and its secret").0.to_owned();
    forged["actions"][0]["value"] = json!(format!("{task}:{}", "0".repeat(32)));
    let told = world.until_passed_on(|| world.ours.slack.interact(&forged));
    assert!(told.is_empty(), "{told:?}");
    world.until_passed_on(|| world.ours.slack.click(&card.ts, "task:cancel", HUMAN));
    assert_eq!(process.wait().expect("an end").code(), Some(143));
    let told = world.ours.slack.ephemerals();
    let ruled: Vec<&str> = told
        .iter()
        .map(|told| told.text.as_str())
        .filter(|words| !words.contains(", and the database") && !words.starts_with("Passed on"))
        .collect();
    assert_eq!(ruled, ["bot is told to stop."], "before its end");
    world.ours.flush();
    let shown = world.ours.show("bot");
    assert_eq!((text(&shown, "state"), &shown["interventions"][0]["user_id"]), ("cancelled", &json!(HUMAN)));
    assert_eq!(shown["interventions"].as_array().map(Vec::len), Some(1));
    let taken: Vec<Value> =
        world.acts().into_iter().filter(|act| act["details"]["passed_on"] == "taken").collect();
    assert_eq!((taken.len(), text(&taken[0], "kind")), (1, "cancel"));
}

#[test]
fn an_emit_that_speaks_with_the_database_hears_of_a_cancel_from_elsewhere() {
    let world = World::new();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    for (n, user) in [COLLEAGUE, HUMAN].into_iter().enumerate() {
        let heard = format!("018bcfe5-6800-7000-8000-00000000000{n}");
        let details =
            json!({ "source": "command", "heard": heard, "user_name": user, "passed_on": "waiting" });
        world.sql(&format!(
            "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details)
             SELECT '{heard}', id, agent_id, 'cancel', '{user}', '{details}' FROM agent_tasks"
        ));
    }
    // A routine one opens no connection.
    let receipt = world.ours.emit(["On it"]).run().success().json();
    assert!(receipt.get("requests").is_none(), "{receipt}");
    world.ours.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--obey", "Stuck"]).run().code(20);
    // Both are told what came of it.
    let told = world.ours.slack.wait_ephemerals(2);
    let words_to = |user| told.iter().find(|told| told.user == user).map(|told| told.text.as_str());
    assert!(
        words_to(COLLEAGUE).is_some_and(|words| words.starts_with("You are not among those")),
        "{told:?}"
    );
    assert!(words_to(HUMAN).is_some_and(|words| words.contains("told to stop")), "{told:?}");
    let receipt = world.ours.emit(["Again"]).run().success().json();
    assert_eq!(receipt["requests"].as_array().map(Vec::len), Some(1));
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
    world.ours.flush();
    assert_eq!(refused(&world.settled(2)), ["not_allowed", ""]);
}

#[cfg(feature = "serve")]
#[test]
fn a_command_that_a_server_elsewhere_hears_cancels_an_agent_of_another_machine() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    for user in [COLLEAGUE, HUMAN] {
        let told =
            world.until_passed_on(|| world.ours.slack.command(CHANNEL, user, "/agent-task", "cancel bot"));
        assert!(told.is_empty(), "{told:?}");
    }
    let before = world.ours.slack.ephemerals().len();
    world.ours.slack.command(CHANNEL, HUMAN, "/agent-task", "cancel nobody");
    assert!(!world.ours.slack.wait_ephemerals(before + 1)[before].text.contains("Passed on"));
    world.ours.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--obey", "Stuck"]).run().code(20);
    world.ours.flush();
    assert_eq!(refused(&world.settled(2)), ["not_allowed", ""]);
}

#[cfg(feature = "serve")]
#[test]
fn an_agent_that_has_gone_on_elsewhere_is_cancelled_there() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.other.cmd(["emit", "-a", "bot", "-s", "starting", "Begin"]).run().success();
    world.other.cmd(["flush"]).run().success();
    world.ours.emit(["-s", "blocked", "Go on here"]).run().success();
    world.until_passed_on(|| world.ours.slack.command(CHANNEL, HUMAN, "/agent-task", "cancel bot"));
    world.ours.sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--obey", "Stuck"]).run().code(20);
}
