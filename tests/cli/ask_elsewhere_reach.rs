//! Whom it reaches what people did on another machine, and what that machine is told.

use serde_json::{Value, json};

use crate::ask_elsewhere::{World, refused};
use crate::fake_slack::HUMAN;
use crate::fake_slack::people::COLLEAGUE;
use crate::stream::Talk;
use crate::support::wait_for;

impl World<'_> {
    /// What another machine passes on that heard `/agent-task cancel AGENT`.
    #[track_caller]
    fn cancel(&self, agent: &str, users: &[&str]) {
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
    fn wait_for_task(&self, agent: &str) {
        let sql = format!("SELECT count(*) FROM agent_tasks WHERE agent_id = '{agent}'");
        wait_for("the task in the database", || (self.sql(&sql) == "1").then_some(()));
    }
}

#[test]
fn a_stream_hears_of_a_cancel_from_another_machine_while_it_tells_the_database() {
    let world = World::new();
    world.ours.sandbox.env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
    let mut talk = Talk::start(world.ours.sandbox.cmd(["stream", "--json"]));
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
    world.cancel("bot", &[HUMAN]);
    let receipt =
        wait_for("the request", || Some(emit()).filter(|receipt| receipt.get("requests").is_some()));
    assert_eq!(receipt["requests"][0]["user_id"], HUMAN, "{receipt}");
    assert_eq!(refused(&world.settled(1)), [""]);
}
