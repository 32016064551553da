//! `run` inside `run`: agents of their own, linked to the one they were started from.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use crate::fake_slack::{Fault, Message};
use crate::scene::{Scene, text};
use crate::support::wait_for;

/// The card of an agent's only task.
fn card(scene: &Scene, agent: &str) -> Option<Message> {
    scene.slack.roots().into_iter().find(|root| root.text.contains(&format!("Agent `{agent}` –")))
}

/// The lines in an agent's thread that lead to another agent's card.
fn notes(scene: &Scene, parent: &str, child: &str) -> Vec<String> {
    let (Some(parent), Some(child)) = (card(scene, parent), card(scene, child)) else { return Vec::new() };
    let link =
        format!("<https://fake.slack.invalid/archives/{}/p{}>", child.channel, child.ts.replace('.', ""));
    let thread = scene.slack.thread(&parent.ts);
    thread.into_iter().map(|message| message.text).filter(|text| text.contains(&link)).collect()
}

/// The agents of all tasks.
fn agents(scene: &Scene) -> BTreeSet<String> {
    let tasks = scene.sandbox.cmd(["tasks", "--json"]).run().success().json();
    let tasks = tasks.as_array().expect("tasks").clone();
    tasks.iter().map(|task| text(task, "agent_id").to_owned()).collect()
}

#[test]
fn nested_runs_are_agents_of_their_own_with_lines_in_the_parents_thread() {
    for background in ["auto", "never"] {
        let scene = Scene::bot();
        scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", background);
        // Another channel takes as many messages again.
        scene.slack.add_channel("builds", "C0BUILDS00", false, false, true);
        let line = r#""$BIN" run -a deploy -- sh -c '"$BIN" run -a build -c C0BUILDS00 -- sh -c "exit 3"'"#;
        scene.sandbox.shell(line).run().code(3);
        wait_for("the parent's card to show the child and its own end", || {
            let card = card(&scene, "deploy")?;
            let shows =
                card.text.contains("`deploy` – ERROR") && card.text.contains("• ❌ `build` – error 0%");
            shows.then_some(())
        });
        let notes = wait_for("a line at its start and one at its end", || {
            Some(notes(&scene, "deploy", "build")).filter(|notes| notes.len() == 2)
        });
        assert!(notes[0].starts_with("🚀 Agent `build` – STARTING"), "{notes:?}");
        assert!(notes[1].starts_with("❌ Agent `build` – ERROR"), "{notes:?}");
        assert_eq!(scene.slack.roots().len(), 2);
        // Start, two notes and end; the child's thread has its own two alone.
        let lengths = ["deploy", "build"]
            .map(|agent| scene.slack.thread(&card(&scene, agent).expect("a card").ts).len());
        assert_eq!(lengths, [4, 2], "{background}");
    }
}

#[test]
fn a_parents_card_that_can_be_edited_no_longer_is_not_posted_again() {
    let scene = Scene::bot();
    scene.slack.add_channel("builds", "C0BUILDS00", false, false, true);
    scene.slack.script("chat.update", vec![Fault::ErrorName("edit_window_closed")]);
    let line = r#""$BIN" run -a deploy --heartbeat 0 -- sh -c '"$BIN" emit -s blocked two &&
        "$BIN" run -a build -c C0BUILDS00 -- true'"#;
    scene.sandbox.shell(line).run().success();
    scene.flush();
    // Start, two, the two notes and the end.
    let thread = scene.slack.thread(&card(&scene, "deploy").expect("a card").ts);
    assert_eq!(thread.len(), 5, "{thread:#?}");
    assert_eq!(notes(&scene, "deploy", "build").len(), 2);
}

#[test]
fn a_nested_command_is_named_after_its_parent_and_itself() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_NO_POST", "true");
    scene.sandbox.write("build.sh", "\"$BIN\" run -- true && \"$BIN\" run -- /bin/ls -a\n");
    let line = r#""$BIN" run -a bot -- sh -c '"$BIN" run -- sh ./build.sh && "$BIN" run -a own -- true'"#;
    scene.sandbox.shell(line).run().success().stderr_is("");
    let expected = ["bot", "bot/sh", "bot/sh/ls", "bot/sh/true", "own"];
    assert_eq!(agents(&scene), expected.map(str::to_owned).into());
}

#[test]
fn two_nested_commands_of_one_name_at_once_are_two_agents() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_NO_POST", "true");
    // Neither ends before both are recorded, and what each says joins its own task.
    let one = r#""$BIN" emit "I am one"; touch one; while [ ! -e two ]; do sleep 0.01; done"#;
    let two = r#""$BIN" emit "I am two"; touch two; while [ ! -e one ]; do sleep 0.01; done"#;
    scene.sandbox.write("one/job", one);
    scene.sandbox.write("two/job", two);
    scene
        .sandbox
        .write("both", "cd ..; \"$BIN\" run -- sh work/one/job & \"$BIN\" run -- sh work/two/job & wait\n");
    scene.sandbox.shell(r#"exec "$BIN" run -a bot -- sh both"#).run().success().stderr_is("");
    assert_eq!(agents(&scene), ["bot", "bot/sh", "bot/sh-2"].map(str::to_owned).into());
    for agent in ["bot/sh", "bot/sh-2"] {
        let shown = scene.show(agent);
        let said: Vec<&str> = shown["checkpoints"]
            .as_array()
            .expect("checkpoints")
            .iter()
            .map(|one| text(one, "action"))
            .collect();
        assert_eq!(said.len(), 3, "{agent}: {said:?}");
        let job = if said[0].contains("one/job") { "I am one" } else { "I am two" };
        assert_eq!(said[1], job, "{agent}: {said:?}");
    }
    // One after the other they are the same agent again.
    scene.sandbox.write("both", "\"$BIN\" run -- true; \"$BIN\" run -- true\n");
    scene.sandbox.shell(r#"exec "$BIN" run -a bot -- sh both"#).run().success();
    assert!(agents(&scene).contains("bot/true") && !agents(&scene).contains("bot/true-2"));
}

#[test]
fn a_call_that_is_as_young_as_its_task_waits_for_it_and_speaks_for_its_agent() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_NO_POST", "true");
    scene.sandbox.cmd(["emit", "-a", "bot-2", "Begun"]).run().success();
    // Still young for some time to come.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock") + Duration::from_secs(15);
    let task = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, since.as_secs(), 0)).to_string();
    let inside = scene.sandbox.cmd(["emit", "Inside"]).env("AGENT_CHECKPOINT_TASK", &task);
    let mut inside = inside.env("AGENT_CHECKPOINT_AGENT_ID", "bot").spawn();
    // A call of its own name does not wait.
    let own = scene.sandbox.cmd(["emit", "-a", "own", "Hello"]).env("AGENT_CHECKPOINT_TASK", &task);
    own.env("AGENT_CHECKPOINT_AGENT_ID", "bot").run().success().within(Duration::from_secs(8));
    assert_eq!(inside.try_wait().expect("a child"), None, "it waits");
    let cache = Connection::open(scene.sandbox.cache_path()).expect("a cache");
    cache.execute("UPDATE tasks SET id = ?1 WHERE agent_id = 'bot-2'", [&task]).expect("an update");
    assert_eq!(inside.wait().expect("an end").code(), Some(0));
    assert_eq!(scene.deliveries("bot-2").last().expect("a checkpoint").0, "Inside");
    assert_eq!(agents(&scene), ["bot-2", "own"].map(str::to_owned).into());
}

#[test]
fn the_environment_leads_to_the_task() {
    let scene = Scene::bot();
    scene.slack.add_channel("ops", "C0OPS00000", false, false, true);
    let root = scene.slack.say("ops", None, "U0HUMAN000", "A thread for it");
    let thread = format!("C0OPS00000:{root}");
    let cache = scene.sandbox.work().join("own.db");
    let config = scene.sandbox.write("own.toml", "min_interval = \"1s\"\n");
    let words = [
        "--cache", "own.db", "--config", "own.toml", "run", "-a", "bot", "-c", "#ops", "--thread", &thread,
        "--", "env",
    ];
    let output = scene.sandbox.cmd(words).run().success();
    let value = |name: &str| {
        output.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or("")
    };
    let shown = scene.sandbox.cmd(["--cache", "own.db", "show", "--json", "bot"]).run().success().json();
    assert_eq!(value("AGENT_CHECKPOINT_AGENT_ID"), "bot");
    assert_eq!(value("AGENT_CHECKPOINT_TASK"), text(&shown, "task_id"));
    assert_eq!(value("AGENT_CHECKPOINT_CACHE"), cache.to_str().expect("a path"));
    assert_eq!(value("AGENT_CHECKPOINT_CONFIG"), config.to_str().expect("a path"));
    assert_eq!(value("SLACK_CHANNEL"), "#ops");
    assert_eq!(value("AGENT_CHECKPOINT_THREAD"), thread);
    assert_eq!(scene.slack.thread(&root).len(), 3, "the thread has both messages");
}

#[test]
fn an_orchestrator_shows_its_three_agents() {
    let scene = Scene::bot();
    let script = r#"
        "$BIN" run -a test -c C0TESTS000 -- true && "$BIN" run -a build -c C0BUILDS00 -- sh -c 'exit 0' && "$BIN" run -a deploy -c C0DEPLOYS0 -- sh -c 'exit 4'"#;
    for (name, id) in [("tests", "C0TESTS000"), ("builds", "C0BUILDS00"), ("deploys", "C0DEPLOYS0")] {
        scene.slack.add_channel(name, id, false, false, true);
    }
    scene.sandbox.write("release.sh", script);
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    scene.sandbox.shell(r#"exec "$BIN" run -a release -- sh release.sh"#).run().code(4).stdout_is("");
    let list = "Agents:\n• ✅ `test` – complete 100%\n• ✅ `build` – complete 100%\n• ❌ `deploy` – error 0%";
    wait_for("the orchestrator's card to list all three", || {
        card(&scene, "release").filter(|card| card.text.contains("– ERROR") && card.text.contains(list))
    });
}

#[test]
fn by_a_webhook_no_line_stands_alone_beside_the_message_that_says_the_same() {
    let scene = Scene::webhook();
    let line = r#""$BIN" run -a deploy -- "$BIN" run -a build -- true"#;
    scene.sandbox.shell(line).run().success().silent();
    let texts: Vec<String> = scene.slack.roots().into_iter().map(|root| root.text).collect();
    assert_eq!(texts.len(), 4, "{texts:#?}");
    assert!(texts.iter().all(|text| text.contains("\nTask: ")), "{texts:#?}");
}

#[test]
fn a_parent_that_cannot_be_found_is_none() {
    let scene = Scene::bot();
    scene.sandbox.env("AGENT_CHECKPOINT_TASK", "0190b6a5-7d1c-7000-8000-000000000000");
    scene.sandbox.env("AGENT_CHECKPOINT_AGENT_ID", "gone");
    scene.sandbox.cmd(["run", "--", "true"]).run().success().silent();
    scene.sandbox.env("AGENT_CHECKPOINT_TASK", "rubbish");
    scene.sandbox.cmd(["run", "--", "true"]).run().success().silent();
    assert_eq!(agents(&scene), ["gone", "gone/true"].map(str::to_owned).into());
    assert_eq!(scene.show("gone")["waiting"], Value::Null);
}
