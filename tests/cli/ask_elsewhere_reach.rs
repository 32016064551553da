//! Whom it reaches what people did on another machine, and what that machine is told.

#[cfg(feature = "serve")]
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ask_elsewhere::{World, refused};
#[cfg(feature = "serve")]
use crate::cluster::Cluster;
#[cfg(feature = "serve")]
use crate::fake_slack::CHANNEL;
use crate::fake_slack::HUMAN;
#[cfg(feature = "serve")]
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::COLLEAGUE;
use crate::scene::text;
#[cfg(feature = "serve")]
use crate::serve::Server;
use crate::stream::Talk;
use crate::support::{Sandbox, wait_for};

impl World<'_> {
    /// What another machine passes on that heard `/agent-task cancel AGENT`.
    #[track_caller]
    pub(crate) fn cancel(&self, agent: &str, users: &[&str]) {
        for (n, user) in users.iter().enumerate() {
            let heard = format!("018bcfe5-6800-7000-8000-00000000000{n}");
            let details =
                json!({ "source": "command", "heard": heard, "user_name": user, "passed_on": "waiting" });
            self.sql(&format!(
                "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, user_id, action_details)
                 SELECT '{heard}', id, agent_id, 'cancel', '{user}', '{details}' FROM agent_tasks
                 WHERE agent_id = '{agent}'"
            ));
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_task(&self, agent: &str) {
        let sql = format!("SELECT count(*) FROM agent_tasks WHERE agent_id = '{agent}'");
        wait_for("the task in the database", || (self.sql(&sql) == "1").then_some(()));
    }
}

#[test]
fn a_stream_hears_of_a_cancel_from_another_machine_while_it_tells_the_database() {
    let world = World::new();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
    let mut talk = Talk::start(world.ours.sandbox.cmd(["stream", "--json", "--no-post"]));
    let line = |agent: &str| json!({ "agent_id": agent, "status": "blocked" });
    for agent in ["bot", "other"] {
        assert!(talk.ask(&line(agent)).get("requests").is_none());
        world.wait_for_task(agent);
    }
    world.cancel("bot", &[COLLEAGUE, HUMAN]);
    let receipt = wait_for("the request", || {
        assert!(talk.ask(&line("other")).get("requests").is_none());
        Some(talk.ask(&line("bot"))).filter(|receipt| receipt.get("requests").is_some())
    });
    assert_eq!(receipt["requests"].as_array().map(Vec::len), Some(1), "{receipt}");
    assert_eq!(
        (&receipt["requests"][0]["type"], &receipt["requests"][0]["user_id"]),
        (&json!("cancel"), &json!(HUMAN))
    );
    assert_eq!(refused(&world.settled(2)), ["not_allowed", ""]);
    assert_eq!(talk.end().0, Some(0));
}

#[test]
fn an_agent_that_leaves_the_network_to_a_courier_hears_of_a_cancel_from_another_machine() {
    let world = World::new();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN).env("AGENT_CHECKPOINT_BACKGROUND", "always");
    let emit = || -> Value { world.ours.emit(["-s", "blocked", "Stuck"]).run().success().json() };
    assert!(emit().get("requests").is_none());
    world.wait_for_task("bot");
    wait_for("its thread", || world.ours.show("bot")["thread_ts"].is_string().then_some(()));
    world.cancel("bot", &[HUMAN]);
    let receipt =
        wait_for("the request", || Some(emit()).filter(|receipt| receipt.get("requests").is_some()));
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
    assert_eq!(refused(&world.settled(1)), [""]);
    // Whoever asked for it hears what came of it.
    let told = world.ours.slack.wait_ephemerals(1);
    assert_eq!((told[0].text.as_str(), told[0].user.as_str()), ("bot is told to stop.", HUMAN));
}

#[test]
fn a_cancel_waits_for_the_machine_on_which_the_agent_goes_on() {
    let world = World::new();
    for machine in [&world.ours.sandbox, &world.other] {
        machine.env("AGENT_CHECKPOINT_APPROVERS", HUMAN).env("AGENT_CHECKPOINT_BACKGROUND", "never");
    }
    let there =
        || world.other.cmd(["emit", "-a", "bot", "-s", "blocked", "--json", "There"]).run().success().json();
    world.ours.emit(["-s", "starting", "Begin"]).run().success();
    world.ours.emit(["-s", "working", "Held back"]).run().success();
    assert!(there().get("requests").is_none());
    world.cancel("bot", &[HUMAN]);
    // It tells what it held back, of a task that goes on elsewhere.
    world.ours.flush();
    assert_eq!(world.sql("SELECT count(*) FROM agent_checkpoints"), "3");
    let receipt = there();
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
}

#[test]
fn whoever_was_heard_is_told_so_although_the_database_does_not_take_what_came_of_others() {
    let world = World::new();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
    let asker = world.ask(&[]);
    world.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON human_interventions FOR EACH ROW
             WHEN (NEW.action_details LIKE '%forged%') EXECUTE FUNCTION refuse()",
    );
    let heard = "018bcfe5-6800-7000-8000-000000000100";
    let click = json!({ "request_id": asker.id, "word": "approve", "source": "click", "heard": heard, "passed_on": "waiting" });
    world.sql(&format!(
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, action_details)
         SELECT '{heard}', id, agent_id, 'approve', '{click}' FROM agent_tasks"
    ));
    world.cancel("bot", &[COLLEAGUE]);
    assert_eq!(world.ours.slack.wait_ephemerals(1)[0].user, COLLEAGUE);
    world.ours.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn show_tells_on_another_machine_what_was_asked_and_who_wants_the_agent_to_stop() {
    let world = World::new();
    let asker =
        world.ask(&["--choice", "eu", "--choice", "us", "--approver", HUMAN, "--command", "./deploy"]);
    let questions = |machine: &Sandbox, args: &[&str]| {
        let shown = machine.cmd([&["show", "bot", "--json"], args].concat()).run().success().json();
        let mut question = shown["questions"][0].clone();
        // What only the cache knows, and what the clocks are too exact for.
        for field in ["message_ts", "waited_seconds"] {
            question[field] = Value::Null;
        }
        (shown["questions"].as_array().map(Vec::len), question)
    };
    let open = questions(&world.other, &["--fleet"]);
    assert_eq!(open, questions(&world.ours.sandbox, &[]));
    assert_eq!((text(&open.1, "request_id"), text(&open.1, "question")), (asker.id.as_str(), "Go on?"));
    world.cancel("bot", &[HUMAN]);
    let page = || world.other.cmd(["show", "bot", "--fleet"]).run().success();
    let told = page().stdout_has(&format!("request {}  open for another ", asker.id));
    told.stdout_has("          Go on?")
        .stdout_has(&format!("cancel    asked for by @{HUMAN} at 2"))
        .stdout_has(", not taken by its machine yet");
    world.ours.sandbox.cmd(["answer", &asker.id, "--choice", "us"]).run().success();
    assert_eq!(asker.end().code, Some(0));
    world.ours.flush();
    assert_eq!(questions(&world.other, &["--fleet"]), questions(&world.ours.sandbox, &[]));
    let ours = world.ours.sandbox.cmd(["show", "bot"]).run().success();
    for told in [page(), ours] {
        told.lacks("open for another")
            .lacks("not taken")
            .stdout_has("us")
            .stdout_has("cancel    asked for by @");
    }
    // The id that it tells is the one to give.
    let wrong = world.other.cmd(["answer", "bot"]).run().code(64);
    wrong.stderr_has("agent-checkpoint show AGENT --fleet");
}

#[test]
fn however_much_is_written_there_that_is_nothing_an_answer_is_found_among_it() {
    let world = World::new();
    let asker = world.ask(&[]);
    // Dated ahead, with ids before and after every other: what cannot be read, what is not what it says, and what proves
    // nothing.
    let click = json!({ "request_id": asker.id, "word": "approve", "source": "click", "heard": "x", "passed_on": "waiting" });
    world.sql(&format!(
        "INSERT INTO human_interventions (id, task_id, agent_id, intervention_type, action_details, created_at)
         SELECT (lpad(to_hex(n::bigint * 2860000), 8, '0') || '-0000-7000-8000-000000000000')::uuid, task_id, agent_id, 'approve',
             CASE WHEN n % 2 = 0 THEN '{click}' ELSE '\"passed_on\":\"waiting\"' END, now() + n * interval '1 hour'
         FROM agent_checkpoints, generate_series(1, 1500) AS n WHERE id = '{}'",
        asker.id
    ));
    let id = asker.id.clone();
    let approve = ["answer", &id, "--approve"];
    let answering = world.other.cmd(approve).spawn();
    let told = asker.end();
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "approved\n"), "{}", told.stderr);
    answering.wait_with_output().expect("an end");
}

#[test]
fn an_answer_from_another_machine_after_the_end_of_the_time_hears_that() {
    let world = World::new();
    world.ours.sandbox.cmd(["ask", "Go on?", "-a", "bot", "--timeout", "1s"]).run().code(124);
    let id = text(&world.ours.show("bot")["questions"][0], "request_id").to_owned();
    world.ours.flush();
    let late = world.other.cmd(["answer", &id, "--approve"]).run().code(124);
    late.stdout_is("timed_out\n").stderr_has("its time is over").lacks("answered before");
}

#[test]
fn an_answer_from_another_machine_that_comes_too_late_is_written_down() {
    let world = World::new();
    let asker = world.ask(&[]);
    let id = asker.id.clone();
    world.ours.sandbox.cmd(["answer", &id, "--reject"]).run().code(10);
    assert_eq!(asker.end().code, Some(10));
    world.ours.flush();
    let late = world.other.cmd(["answer", &id, "--approve", "--comment", "Please"]).env("USER", "ana");
    late.run().code(10).stdout_is("rejected\n").stderr_has("it was answered before");
    let acts = world.settled(2);
    assert_eq!((refused(&acts), text(&acts[1], "kind")), (vec!["", "late"], "approve"));
    let details = &acts[1]["details"];
    assert!(text(details, "user_name").starts_with("ana on "), "{details}");
    assert_eq!((text(details, "source"), text(details, "comment")), ("terminal", "Please"));
}

#[cfg(feature = "serve")]
#[test]
fn who_asks_in_slack_how_agents_stand_is_told_of_all_machines() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let typed = |words: &str| world.typed(words);
    assert_eq!(typed("list"), "No agent runs.");
    world.ours.emit(["-a", "build-bot", "-s", "starting", "Begin"]).run().success();
    world.other.cmd(["emit", "-a", "deploy-bot", "-s", "blocked", "Stuck"]).run().success();
    let told = typed("list");
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("`build-bot` STARTING 0%") && told.contains("`deploy-bot` BLOCKED"), "{told}");
    assert!(typed("show build-bot").contains("Last Action: Begin"));
    assert!(typed("show build-bto").contains("did you mean `build-bot`?"));
}

#[cfg(feature = "serve")]
#[test]
fn while_the_database_is_away_slack_is_told_what_the_machine_knows_that_hears_it() {
    let cluster = Cluster::start();
    let (ours, other) = {
        let world = World::on(&cluster, |_, url| url);
        world.ours.emit(["-a", "build-bot", "-s", "starting", "Begin"]).run().success();
        world.other.cmd(["emit", "-a", "deploy-bot", "-s", "blocked", "Stuck"]).run().success();
        (world.ours, world.other)
    };
    other.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let server = Server::start(&other);
    ours.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    cluster.kill();
    for (count, words) in [(1, "list"), (2, "show deploy-bot"), (3, "show build-bot")] {
        let since = Instant::now();
        assert!(ours.slack.command(CHANNEL, HUMAN, "/agent-task", words).acked);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        let told = ours.slack.wait_ephemerals(count)[count - 1].text.clone();
        assert!(
            told.ends_with("_The database is away: this is only what the machine knows that answers you._"),
            "{told}"
        );
        assert_eq!(
            (told.contains("BLOCKED"), told.contains("There is no agent `build-bot`")),
            (count < 3, count == 3),
            "{told}"
        );
    }
    // What may run on another machine is not said to run nowhere, nor to be here what may have gone on there.
    for (count, agent, said) in [
        (4, "build-bot", &[" is away: please try again later."][..]),
        (
            5,
            "deploy-bot",
            &[
                "is away. deploy-bot was last heard of on ",
                " ago: it is told to stop there, and if it has gone on elsewhere as soon as",
            ],
        ),
    ] {
        assert!(ours.slack.command(CHANNEL, HUMAN, "/agent-task", &format!("cancel {agent}")).acked);
        let told = ours.slack.wait_ephemerals(count)[count - 1].text.clone();
        assert!(said.iter().all(|said| told.contains(said)), "{told}");
    }
}

#[cfg(feature = "serve")]
#[test]
fn who_asks_in_slack_hears_of_what_the_database_has_not_been_told_yet() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    let typed = |words: &str| world.typed(words);
    let emit = |words: &[&str]| world.other.cmd([&["emit", "-a"], words].concat()).run().success();
    // As if it had been away.
    let untold = |words: &[&str]| {
        world.other.cmd([&["emit", "-a"], words].concat()).env_remove("DATABASE_URL").run().success()
    };
    world.ours.emit(["-a", "build-bot", "-s", "starting", "Begin"]).run().success();
    emit(&["deploy-bot", "-s", "starting", "Begin"]);
    untold(&["test-bot", "-s", "blocked", "Stuck"]);
    let told = typed("list");
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains("`test-bot` BLOCKED") && !told.contains("away"), "{told}");
    assert!(typed("show test-bot").contains("Last Action: Stuck"));
    untold(&["deploy-bot", "-s", "complete", "Done"]);
    untold(&["test-bot", "-s", "working", "-f", "Further"]);
    let told = typed("list");
    assert!(told.contains("WORKING") && !told.contains("deploy-bot"), "{told}");
    assert!(typed("show deploy-bot").contains("It is completed."));
    assert_eq!(world.sql("SELECT count(*) FROM agent_checkpoints"), "2");
}

#[cfg(feature = "serve")]
#[test]
fn who_asks_in_slack_is_told_what_keeps_the_database_from_being_read() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.other.cmd(["emit", "-a", "deploy-bot", "-s", "blocked", "Stuck"]).run().success();
    world.sql("ALTER TABLE agent_checkpoints RENAME TO gone");
    for words in ["list", "show deploy-bot"] {
        let told = world.typed(words);
        assert!(told.contains("BLOCKED"), "{told}");
        let (why, end) =
            (r#"relation "agent_checkpoints" does not exist"#, "the machine knows that answers you._");
        assert!(told.contains("\n_The database cannot be read: ") && told.contains(why), "{told}");
        assert!(told.contains("agent-checkpoint db migrate") && told.ends_with(end), "{told}");
    }
}
