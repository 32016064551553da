//! The card of a task that several machines speak for: it shows the newest that anybody said, and keeps its button.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Instant;

use crate::ask_elsewhere::World;
#[cfg(feature = "serve")]
use crate::fake_slack::HUMAN;
#[cfg(feature = "serve")]
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::{FakeSlack, Message};
use crate::scene::last_action;
use crate::support::{Sandbox, wait_for};

impl World<'_> {
    /// A `run` of ours, until its input is closed, whose thread the database knows.
    #[track_caller]
    fn running_here(&self, heartbeat: &str) -> Child {
        let script = "echo ready; exec cat";
        let words = ["run", "-a", "bot", "--heartbeat", heartbeat, "--", "sh", "-c", script];
        let mut process = self.ours.sandbox.cmd(words).spawn();
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        let told = "SELECT count(*) FROM agent_tasks WHERE slack_thread_ts IS NOT NULL";
        wait_for("the thread in the database", || (self.sql(told) == "1").then_some(()));
        process
    }

    #[track_caller]
    fn say_there(&self, status: &str, action: &str) {
        says(&self.other, &["-f", "-s", status, action]);
    }

    #[track_caller]
    fn card(&self) -> Message {
        self.ours.root()
    }
}

/// An `emit` of a machine that the database hears of at once.
#[track_caller]
fn says(machine: &Sandbox, words: &[&str]) {
    let out = machine.cmd([&["emit", "-a", "bot", "--json"], words].concat()).run().success();
    assert_eq!(out.json()["audit"], "sent", "{}", out.stderr);
}

/// The last action that each edit of the card so far has shown.
fn shown(slack: &FakeSlack) -> Vec<String> {
    let edits = slack.calls("chat.update");
    edits.iter().map(|edit| last_action(edit.args["text"].as_str().unwrap_or_default())).collect()
}

#[cfg(feature = "serve")]
#[test]
fn the_button_of_a_run_stays_on_a_card_that_another_machine_edits_and_still_ends_the_command() {
    let world = World::new();
    let _server = world.serve_elsewhere();
    world.ours.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let mut process = world.running_here("0");
    let open = process.stdin.take();
    let secret = |card: &Message| {
        world.ours.slack.click_payload(card, "task:cancel", HUMAN)["actions"][0]["value"].clone()
    };
    let before = secret(&world.card());
    for status in ["blocked", "working"] {
        world.say_there(status, status);
        let card = world.card();
        assert_eq!(last_action(&card.text), status);
        assert_eq!(world.ours.slack.buttons(&card.ts), ["task:cancel"]);
        assert_eq!(secret(&card), before);
    }
    assert!(world.ours.slack.click(&world.card().ts, "task:cancel", HUMAN).acked);
    assert_eq!(process.wait().expect("an end").code(), Some(143));
    drop(open);
    world.ours.flush();
    assert!(world.ours.slack.buttons(&world.card().ts).is_empty(), "there is nothing left to cancel");
    world.say_there("complete", "Over");
    assert!(world.ours.slack.buttons(&world.card().ts).is_empty());
}

#[cfg(feature = "serve")]
#[test]
fn a_card_has_no_button_any_more_once_nobody_would_hear_of_it() {
    let world = World::new();
    world.ours.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let mut process = world.running_here("0");
    world.say_there("blocked", "Before");
    assert_eq!(world.ours.slack.buttons(&world.card().ts), ["task:cancel"]);
    process.kill().expect("a live process");
    process.wait().expect("an end");
    world.ours.sandbox.cmd(["flush"]).run().success();
    for machine in [&world.other, &world.ours.sandbox] {
        says(machine, &["-f", "-s", "working", "By hand"]);
        let card = world.card();
        assert_eq!(last_action(&card.text), "By hand");
        assert!(world.ours.slack.buttons(&card.ts).is_empty(), "nobody would hear of it");
    }
}

#[test]
fn a_heartbeat_puts_nothing_older_on_the_card_than_another_machine_has_said() {
    let world = World::new();
    let mut process = world.running_here("200ms");
    let begun = shown(&world.ours.slack).len();
    wait_for("a heartbeat", || (shown(&world.ours.slack).len() > begun).then_some(()));
    for status in ["blocked", "error", "working"] {
        world.say_there(status, status);
        let edits = shown(&world.ours.slack);
        let since = edits.iter().rposition(|action| action == status).expect("its edit");
        wait_for("two more heartbeats", || {
            let edits = shown(&world.ours.slack);
            let edits = &edits[since..];
            assert!(edits.iter().all(|action| action == status), "{status}: {edits:?}");
            (edits.len() > 2).then_some(())
        });
        assert!(world.card().text.contains(&format!("– {}\n", status.to_uppercase())), "{:?}", world.card());
    }
    drop(process.stdin.take());
    assert_eq!(process.wait().expect("an end").code(), Some(0));
    assert!(world.card().text.contains("– COMPLETE\n"), "{:?}", world.card());
}

#[test]
fn the_heartbeats_of_all_who_share_a_cache_ask_the_database_once() {
    let world = World::new();
    let runs = ["a", "b", "c", "d"].map(|agent| {
        let words = ["run", "-a", agent, "--heartbeat", "200ms", "--", "cat"];
        world.ours.sandbox.cmd(words).spawn()
    });
    let told = "SELECT count(*) FROM agent_tasks WHERE slack_thread_ts IS NOT NULL";
    wait_for("the threads in the database", || (world.sql(told) == "4").then_some(()));
    let asked = || {
        let said = world.cluster.statements(&world.database);
        said.iter().filter(|said| said.ends_with("JOIN agent_tasks t ON t.id = g.id::uuid")).count()
    };
    let (before, began) = (asked(), Instant::now());
    wait_for("questions", || (asked() >= before + 3).then_some(()));
    // One every two seconds.
    let (count, most) = (asked() - before, began.elapsed().as_millis() / 2000 + 2);
    assert!(count as u128 <= most, "{count} of at most {most}");
    for mut run in runs {
        drop(run.stdin.take());
        run.wait().expect("an end");
    }
}

#[test]
fn what_was_held_back_is_told_in_the_thread_later_and_leaves_the_card_as_somebody_has_brought_it_up_to_date()
{
    let world = World::new();
    says(&world.ours.sandbox, &["-s", "starting", "Begin"]);
    world.say_there("blocked", "There");
    world.other.cmd(["emit", "-a", "bot", "-s", "working", "Held back"]).run().success();
    says(&world.ours.sandbox, &["-s", "blocked", "Here"]);
    world.other.cmd(["flush"]).run().success();
    assert_eq!(world.ours.thread(), ["Begin", "There", "Here", "Held back"]);
    assert_eq!(last_action(&world.card().text), "Here");
    let there = world.other.cmd(["show", "--json", "bot"]).run().success().json();
    assert_eq!(there["action"], "Here");
    // What comes next there is the newest again.
    world.say_there("working", "On");
    assert_eq!(last_action(&world.card().text), "On");
}
