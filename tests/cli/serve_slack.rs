//! Clicks that come to `serve`, over HTTP or by its socket.

#[cfg(feature = "postgres")]
use std::net::TcpListener;
#[cfg(feature = "postgres")]
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ask::Asker;
use crate::fake_slack::HUMAN;
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::COLLEAGUE;
use crate::scene::Scene;
use crate::serve::Server;
use crate::support::wait_for;

/// A server that Slack tells what people do.
fn set_up() -> (Scene, Server) {
    let scene = Scene::people();
    scene.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let server = Server::start(&scene.sandbox);
    scene.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    (scene, server)
}

fn interventions(scene: &Scene) -> Vec<Value> {
    scene.show("bot")["interventions"].as_array().expect("a list").clone()
}

#[test]
fn a_click_is_the_answer_of_a_waiting_ask() {
    for (button, code, answer) in
        [("question:approve", 0, "approved\n"), ("question:reject", 10, "rejected\n")]
    {
        let (scene, _server) = set_up();
        let asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        let since = Instant::now();
        let heard = scene.slack.click(&message.ts, button, HUMAN);
        assert_eq!((heard.acked, heard.status, heard.times), (true, Some(200), 1), "{heard:?}");
        let told = asker.end();
        assert_eq!((told.code, told.stdout.as_str()), (Some(code), answer), "{}", told.stderr);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        wait_for("the edit", || scene.slack.buttons(&message.ts).is_empty().then_some(()));
        let all = interventions(&scene);
        assert_eq!((all.len(), &all[0]["user_id"], &all[0]["source"]), (1, &json!(HUMAN), &json!("click")));
    }
}

#[test]
fn a_click_counts_although_nobody_waits_and_its_message_is_edited() {
    let (scene, _server) = set_up();
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    let server = Server::start(&scene.sandbox);
    scene.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    let asked = scene.sandbox.cmd(["ask", "-a", "bot", "--no-wait", "Go on?"]).run().success();
    let id = asked.stdout.trim().to_owned();
    let message = Asker::message(&scene);
    scene.sandbox.cmd(["answer", &id]).run().code(75);
    assert!(scene.slack.click(&message.ts, "question:approve", HUMAN).acked);
    scene.sandbox.cmd(["answer", &id]).run().success().stdout_is("approved\n");
    wait_for("the edit", || scene.slack.buttons(&message.ts).is_empty().then_some(()));
    // One who is slow to see that is told, and nobody else.
    assert!(scene.slack.click_as_seen(&message, "question:reject", HUMAN).acked);
    assert!(scene.slack.wait_ephemerals(1)[0].text.contains("pproved"), "{:?}", scene.slack.ephemerals());
    scene.sandbox.cmd(["answer", &id]).run().success().stdout_is("approved\n");
}

#[test]
fn whoever_reads_finds_out_that_a_question_is_over_and_its_buttons_go() {
    let (scene, _server) = set_up();
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    let server = Server::start(&scene.sandbox);
    scene.sandbox.cmd(["ask", "-a", "bot", "--no-wait", "--timeout", "1s", "Go on?"]).run().success();
    let message = Asker::message(&scene);
    wait_for("the edit", || {
        assert_eq!(server.get("/tasks").status, 200);
        scene.slack.buttons(&message.ts).is_empty().then_some(())
    });
}

#[test]
fn a_server_that_nobody_asks_finds_out_as_well() {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    let _server = Server::start(&scene.sandbox);
    scene.sandbox.cmd(["ask", "-a", "bot", "--no-wait", "--timeout", "1s", "Go on?"]).run().success();
    let message = Asker::message(&scene);
    wait_for("the edit", || scene.slack.buttons(&message.ts).is_empty().then_some(()));
}

#[test]
fn what_slack_says_twice_counts_once() {
    let (scene, _server) = set_up();
    let asker = Asker::start(&scene, &["Go on?", "--quorum", "2"]);
    let message = Asker::message(&scene);
    let payload = scene.slack.click_payload(&message, "question:approve", HUMAN);
    for _ in 0..3 {
        assert!(scene.slack.interact(&payload).acked);
    }
    let all = interventions(&scene);
    assert_eq!(all.len(), 1, "{all:?}");
    scene.slack.click(&message.ts, "question:reject", HUMAN);
    assert_eq!(asker.end().code, Some(10));
}

#[test]
fn show_tells_people_who_was_refused_and_why() {
    let (scene, _server) = set_up();
    let asker = Asker::start(&scene, &["Go on?", "--approver", HUMAN]);
    let message = Asker::message(&scene);
    assert!(scene.slack.click(&message.ts, "question:approve", COLLEAGUE).acked);
    scene.slack.click(&message.ts, "question:reject", HUMAN);
    assert_eq!(asker.end().code, Some(10));
    let page = scene.sandbox.cmd(["show", "bot"]).run().success();
    let all = interventions(&scene);
    let (who, at) = (&all[0]["user_name"], &all[0]["created_at"]);
    let line = format!(
        "refused   approve by @{} at {}: not among the approvers\n",
        who.as_str().expect("a name"),
        at.as_str().expect("a time")
    );
    assert_eq!(page.stdout.lines().filter(|line| line.starts_with("refused ")).count(), 1, "{page}");
    page.stdout_has(&line);
}

#[test]
fn nothing_that_slack_did_not_sign_is_taken() {
    let (scene, server) = set_up();
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    let address = format!("http://{}", server.address);
    scene.slack.interactivity(&address, "another-secret");
    let heard = scene.slack.click(&message.ts, "question:approve", HUMAN);
    assert_eq!((heard.acked, heard.status), (false, Some(401)), "{heard:?}");
    for path in ["/slack/interactions", "/slack/commands", "/slack/events"] {
        assert_eq!(server.ask(&format!("POST {path}"), "").status, 401, "{path}");
    }
    assert_eq!(interventions(&scene), [""; 0]);
    let unset = Server::of(
        scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]).env_remove("SLACK_SIGNING_SECRET"),
    );
    let refused = unset.ask("POST /slack/interactions", "");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["hint"].as_str().is_some_and(|hint| hint.contains("SLACK_SIGNING_SECRET")));
    scene.slack.interactivity(&address, SIGNING_SECRET);
    scene.slack.click(&message.ts, "question:reject", HUMAN);
    assert_eq!(asker.end().code, Some(10));
}

#[test]
fn what_cannot_be_stored_is_not_acknowledged() {
    let (scene, _server) = set_up();
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    let writer = rusqlite::Connection::open(scene.sandbox.cache_path()).expect("the cache");
    writer.execute_batch("BEGIN IMMEDIATE").expect("a turn");
    let heard = scene.slack.interact(&scene.slack.click_payload(&message, "question:approve", HUMAN));
    assert!(!heard.acked, "{heard:?}");
    writer.execute_batch("ROLLBACK").expect("an end");
    assert!(scene.slack.click(&message.ts, "question:approve", HUMAN).acked);
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn a_click_waits_for_a_busy_cache_nearly_as_long_as_slack_waits() {
    let (scene, _server) = set_up();
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    let writer = rusqlite::Connection::open(scene.sandbox.cache_path()).expect("the cache");
    writer.execute_batch("BEGIN IMMEDIATE").expect("a turn");
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1400));
        writer.execute_batch("ROLLBACK").expect("an end");
    });
    let heard = scene.slack.interact(&scene.slack.click_payload(&message, "question:approve", HUMAN));
    assert_eq!((heard.acked, heard.status), (true, Some(200)), "{heard:?}");
    ends.join().expect("no panic");
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn with_an_app_level_token_it_listens_by_a_socket_too() {
    let scene = Scene::people();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    let server = Server::start(&scene.sandbox);
    scene.slack.wait_sockets(1);
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    assert!(scene.slack.click(&message.ts, "question:approve", HUMAN).acked);
    assert_eq!(asker.end().code, Some(0));
    assert_eq!(scene.slack.sockets_opened(), 1);
    drop(server);
}

#[test]
fn an_app_level_token_that_cannot_be_used_alone_is_pointed_out() {
    let scene = Scene::people();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token()).env("SLACK_BOT_TOKEN", "");
    let server = Server::start(&scene.sandbox);
    let said = "warning: SLACK_APP_TOKEN is not used: without a bot token no clicks are heard by Socket Mode\nhint: set SLACK_BOT_TOKEN\n";
    wait_for("the warning", || server.said().contains(said).then_some(()));
}

#[cfg(feature = "postgres")]
#[test]
fn a_click_is_acknowledged_at_once_while_another_one_waits_for_the_database() {
    for by_socket in [false, true] {
        let scene = Scene::people();
        let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("postgres://u@{}/d?sslmode=disable", hanging.local_addr().expect("its address"));
        if by_socket {
            scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
        } else {
            scene.sandbox.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
        }
        let server =
            Server::of(scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]).env("DATABASE_URL", url));
        if by_socket {
            scene.slack.wait_sockets(1);
        } else {
            scene.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
        }
        let asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        // Of a question that only the database can know.
        let mut elsewhere = scene.slack.click_payload(&message, "question:reject", HUMAN);
        elsewhere["actions"][0]["value"] = json!("018bcfe5-6800-7000-8000-000000000000:secret");
        let ours = scene.slack.click_payload(&message, "question:approve", HUMAN);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| scene.slack.interact(&elsewhere));
            let _asked = hanging.accept().expect("a connection");
            let heard = scene.slack.interact(&ours);
            assert!(heard.acked && !waiting.is_finished(), "{heard:?}");
            let heard = waiting.join().expect("no panic");
            assert!(heard.acked && heard.took < Duration::from_secs(3), "{heard:?}");
        });
        assert_eq!(asker.end().code, Some(0));
        let told = scene.slack.wait_ephemerals(1)[0].text.clone();
        assert!(told.contains("the database that may know it is away"), "{told}");
    }
}
