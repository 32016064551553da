//! What people do in Slack to a question, where the app is not told of it: reactions and replies.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ask::{Asker, Told};
use crate::fake_slack::people::{COLLEAGUE, DELETED, FOREIGNER, GUEST, OTHER_BOT};
use crate::fake_slack::{BOT_USER, CHANNEL, FakeSlack, Fault, HUMAN, Message};
use crate::scene::{Scene, side_by_side, text};
use crate::support::wait_for;

/// How often these tests look.
const INTERVAL: &str = "100ms";

/// A scene with a question that is looked after.
struct Asked {
    scene: Scene,
    asker: Asker,
    message: Message,
}

impl Asked {
    fn new(words: &[&str]) -> Self {
        let scene = Scene::people();
        scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", INTERVAL);
        let asker = Asker::start(&scene, &[&["Go on?"], words].concat());
        let message = Asker::message(&scene);
        Self { scene, asker, message }
    }

    fn slack(&self) -> &FakeSlack {
        &self.scene.slack
    }

    fn reacts(&self, user: &str, name: &str) {
        self.slack().person_reacts(CHANNEL, &self.message.ts, user, name);
    }

    fn replies(&self, user: &str, text: &str) {
        let root = self.message.thread_ts.clone().expect("a thread");
        self.slack().person_replies(CHANNEL, &root, user, text);
    }

    /// What was refused so far, once there are so many.
    fn refused(&self, count: usize) -> Vec<(String, String)> {
        wait_for("the interventions", || {
            let shown = self.scene.show("bot");
            let all = shown["interventions"].as_array().expect("a list");
            let refused: Vec<_> = all
                .iter()
                .filter(|one| one["action_details"]["refused"] != Value::Null)
                .map(|one| {
                    (text(one, "user_id").to_owned(), text(&one["action_details"], "refused").to_owned())
                })
                .collect();
            (refused.len() >= count).then_some(refused)
        })
    }

    /// The end; the answer as JSON, from another process.
    fn end(self) -> (Told, Value) {
        let id = self.asker.id.clone();
        let told = self.asker.end();
        let answer = self.scene.sandbox.cmd(["answer", &id, "--json"]).run().json();
        wait_for("the edit", || self.scene.slack.buttons(&self.message.ts).is_empty().then_some(()));
        (told, answer)
    }
}

#[test]
fn a_reaction_or_a_reply_answers() {
    type Deed = fn(&Asked);
    let rows: [(&[&str], Deed, i32, &str, Value); 5] = [
        (&[], |asked| asked.reacts(HUMAN, "white_check_mark"), 0, "approved", Value::Null),
        (&[], |asked| asked.reacts(HUMAN, "x"), 10, "rejected", Value::Null),
        (&[], |asked| asked.replies(HUMAN, "approve"), 0, "approved", Value::Null),
        (&[], |asked| asked.replies(HUMAN, "reject too &lt;risky&gt;"), 10, "rejected", json!("too <risky>")),
        (&["--choice", "a", "--choice", "b"], |asked| asked.replies(HUMAN, "2"), 0, "chosen", Value::Null),
    ];
    side_by_side(rows, |(options, deed, code, decision, comment)| {
        let asked = Asked::new(options);
        deed(&asked);
        let (told, answer) = asked.end();
        assert_eq!(told.code, Some(code), "{decision} {}", told.stderr);
        assert_eq!((&answer["decision"], &answer["comment"]), (&json!(decision), &comment));
        assert_eq!(answer["user_id"], HUMAN);
        assert_ne!(answer["user_name"], Value::Null);
    });
}

#[test]
fn nobody_answers_but_a_person_of_the_workspace() {
    let asked = Asked::new(&[]);
    for user in [BOT_USER, OTHER_BOT, DELETED, FOREIGNER] {
        asked.reacts(user, "white_check_mark");
    }
    asked.replies(FOREIGNER, "approve");
    let mut refused = asked.refused(5);
    refused.sort();
    let mut expected = [
        (BOT_USER, "own_token"),
        (OTHER_BOT, "bot"),
        (DELETED, "bot"),
        (FOREIGNER, "foreign"),
        (FOREIGNER, "foreign"),
    ]
    .map(|(user, why)| (user.to_owned(), why.to_owned()));
    expected.sort();
    assert_eq!(refused, expected);
    assert_eq!(asked.slack().calls("users.info").len(), 4, "each is looked up once");
    // A guest is a person.
    asked.reacts(GUEST, "white_check_mark");
    let (told, answer) = asked.end();
    assert_eq!((told.code, &answer["user_id"]), (Some(0), &json!(GUEST)));
}

#[test]
fn only_those_who_are_named_may_answer_and_others_are_told_so() {
    let asked = Asked::new(&["--approver", COLLEAGUE, "--approver", FOREIGNER]);
    asked.reacts(HUMAN, "white_check_mark");
    asked.replies(HUMAN, "reject");
    assert_eq!(asked.refused(2), vec![(HUMAN.to_owned(), "not_allowed".to_owned()); 2]);
    let told = asked.slack().wait_ephemerals(1);
    assert_eq!(told[0].user, HUMAN);
    assert!(told[0].text.starts_with("You are not among those who may answer this"), "{:?}", told[0]);
    asked.reacts(COLLEAGUE, "white_check_mark");
    let (told, answer) = asked.end();
    assert_eq!((told.code, &answer["user_id"]), (Some(0), &json!(COLLEAGUE)));
}

#[test]
fn the_setting_names_approvers_as_well() {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_APPROVERS", format!("{COLLEAGUE}, {GUEST}"));
    scene.sandbox.cmd(["ask", "-a", "bot", "Go?", "--no-wait"]).run().success();
    let shown = scene.show("bot");
    assert_eq!(shown["questions"][0]["approvers"], json!([COLLEAGUE, GUEST]));
    scene.sandbox.cmd(["ask", "-a", "bot", "Go?", "--no-wait", "--approver", HUMAN]).run().success();
    assert_eq!(scene.show("bot")["questions"][1]["approvers"], json!([HUMAN]));
}

#[test]
fn a_quorum_needs_several_people_and_shows_who_agrees() {
    let asked = Asked::new(&["--quorum", "2"]);
    asked.reacts(HUMAN, "white_check_mark");
    let words = format!("*Answered so far:* <@{HUMAN}>");
    wait_for("the edit", || {
        let card = asked.slack().card(&asked.message.ts);
        serde_json::to_string(&card.blocks).expect("JSON").contains(&words).then_some(())
    });
    assert!(!asked.slack().buttons(&asked.message.ts).is_empty());
    asked.replies(HUMAN, "approve");
    assert_eq!(asked.refused(1), [(HUMAN.to_owned(), "again".to_owned())]);
    asked.reacts(COLLEAGUE, "white_check_mark");
    let (told, answer) = asked.end();
    assert_eq!((told.code, &answer["user_id"]), (Some(0), &json!(COLLEAGUE)));
}

#[test]
fn a_reply_is_for_the_question_asked_last() {
    let first = Asked::new(&[]);
    let scene = &first.scene;
    let second = Asker::start(scene, &["And this?"]);
    wait_for("the second question", || {
        (scene.slack.newest_with("question:approve")?.ts != first.message.ts).then_some(())
    });
    first.replies(HUMAN, "approve");
    let id = second.id.clone();
    assert_eq!(second.end().code, Some(0));
    scene.sandbox.cmd(["answer", &first.asker.id]).run().code(75);
    scene.sandbox.cmd(["answer", &id]).run().code(0);
    first.replies(HUMAN, "reject");
    // Whoever was asked last has an answer, but the reply came after it was asked.
    first.reacts(HUMAN, "x");
    let (told, _) = first.end();
    assert_eq!(told.code, Some(10));
}

#[test]
fn a_reply_in_a_shared_thread_is_for_the_agent_that_asked_last() {
    // The other agent may have another cache, and its question may be answered before ours is looked after again.
    side_by_side([Some("other.db"), None], |cache| {
        let first = Asked::new(&["--timeout", "6s"]);
        let scene = &first.scene;
        let thread = format!("{CHANNEL}:{}", first.message.thread_ts.clone().expect("a thread"));
        let cache = cache.map_or(scene.sandbox.cache_path(), |name| scene.sandbox.path().join(name));
        let cache = cache.to_str().expect("text");
        let second =
            Asker::start(scene, &["Run the linter?", "-a", "linter", "--thread", &thread, "--cache", cache]);
        wait_for("the second question", || {
            (scene.slack.newest_with("question:approve")?.ts != first.message.ts).then_some(())
        });
        first.replies(HUMAN, "approve");
        assert_eq!(second.end().code, Some(0), "{cache}");
        let (told, _) = first.end();
        assert_eq!((told.code, told.stdout.as_str()), (Some(124), "timed_out\n"), "{cache}");
    });
}

#[test]
fn slack_asks_for_patience_and_gets_it() {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", INTERVAL);
    scene
        .slack
        .script("reactions.get", vec![Fault::RateLimited { retry_after: Some(2) }, Fault::Status(503)]);
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    wait_for("a refusal", || (!scene.slack.calls("reactions.get").is_empty()).then_some(()));
    scene.slack.person_reacts(CHANNEL, &message.ts, HUMAN, "white_check_mark");
    assert_eq!(asker.end().code, Some(0));
    let calls = scene.slack.calls("reactions.get");
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2), "{:?}", calls[1].at - calls[0].at);
}

#[test]
fn one_way_is_enough_where_the_other_may_not_be_used() {
    let rows: [(&[&str], bool); 2] = [
        (&["chat:write", "channels:history", "users:read"], true),
        (&["chat:write", "reactions:read", "users:read"], false),
    ];
    side_by_side(rows, |(scopes, by_reply)| {
        let scene = Scene::people();
        scene.slack.set_scopes(scopes);
        scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", INTERVAL);
        let asker = Asker::start(&scene, &["Go on?"]);
        let message = Asker::message(&scene);
        if by_reply {
            scene.slack.person_replies(CHANNEL, &scene.root().ts, HUMAN, "approve");
        } else {
            scene.slack.person_reacts(CHANNEL, &message.ts, HUMAN, "white_check_mark");
        }
        let told = asker.end();
        assert_eq!(told.code, Some(0));
        assert!(told.stderr.contains("cannot be read: missing_scope"), "{}", told.stderr);
    });
}

#[test]
fn whoever_waits_later_looks_for_answers_too() {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", INTERVAL);
    let id = scene.sandbox.cmd(["ask", "-a", "bot", "Go on?", "--no-wait"]).run().success().stdout;
    let message = Asker::message(&scene);
    let waiter = scene.sandbox.cmd(["answer", id.trim(), "--wait"]).spawn();
    scene.slack.person_reacts(CHANNEL, &message.ts, HUMAN, "white_check_mark");
    let output = waiter.wait_with_output().expect("an end");
    assert_eq!(output.stdout, b"approved\n");
}

#[test]
fn a_look_at_a_question_that_nobody_waits_for_finds_its_answer() {
    let scene = Scene::people();
    let id = scene.sandbox.cmd(["ask", "-a", "bot", "Go on?", "--no-wait"]).run().success().stdout;
    let message = Asker::message(&scene);
    scene.sandbox.cmd(["answer", id.trim()]).run().code(75).stdout_is("open\n");
    scene.slack.person_reacts(CHANNEL, &message.ts, HUMAN, "x");
    scene.sandbox.cmd(["answer", id.trim()]).run().code(10).stdout_is("rejected\n");
    assert_eq!(scene.slack.buttons(&message.ts), Vec::<String>::new());
}
