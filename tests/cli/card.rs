//! The live card: a task's first message, edited to the newest state.

use std::time::Duration;

use crate::fake_slack::{CHANNEL, Fault, HUMAN};
use crate::scene::{Scene, last_action, side_by_side, text};

#[test]
fn the_first_message_is_the_card_and_shows_the_newest_state() {
    let scene = Scene::bot();
    let receipt = scene.sent(["--status", "starting", "one"]);
    let card = scene.root();
    for field in ["thread_ts", "message_ts"] {
        assert_eq!(text(&receipt, field), card.ts, "{receipt}");
    }
    for (status, progress, action) in [("blocked", "30", "two"), ("complete", "100", "three")] {
        let receipt = scene.sent(["--status", status, "--progress", progress, action]);
        assert_eq!(text(&receipt, "thread_ts"), card.ts);
        assert_ne!(text(&receipt, "message_ts"), card.ts);
        let now = scene.slack.card(&card.ts);
        assert!(now.text.contains(&status.to_uppercase()), "{}", now.text);
        assert!(now.text.contains(&format!(" {progress}%")), "{}", now.text);
        assert_eq!(last_action(&now.text), action);
        // The blocks say the same.
        assert!(now.attachments[0].to_string().contains(&format!("*Last Action:* {action}")), "{now:?}");
        assert!(now.metadata.is_some());
    }
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    // Only the card is ever edited.
    let replies: Vec<_> = scene.slack.thread(&card.ts).into_iter().skip(1).collect();
    assert!(replies.iter().all(|reply| reply.edits.is_empty()), "{replies:?}");
}

#[test]
fn what_is_held_back_leaves_the_card_alone() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.emit(["--status", "working", "two"]).run().success().stderr_is("");
    assert!(scene.slack.calls("chat.update").is_empty());
    assert_eq!(last_action(&scene.root().text), "one");
}

#[test]
fn reply_and_card_go_over_one_connection() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    let calls: Vec<_> = scene.slack.requests();
    let names: Vec<&str> = calls.iter().map(|call| call.name()).collect();
    assert_eq!(names, ["chat.postMessage", "chat.postMessage", "chat.update"]);
    assert_ne!(calls[0].connection, calls[1].connection);
    assert_eq!(calls[1].connection, calls[2].connection);
}

#[test]
fn a_card_deleted_with_replies_is_posted_anew_once() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    let first = scene.root().ts;
    scene.sent(["--status", "blocked", "two"]);
    scene.slack.delete_message(CHANNEL, &first);
    scene.sent(["--status", "error", "three"]);
    // It counts among the channel's messages, so it may have to wait.
    scene.flush();
    // The thread lives on below the tombstone, and the new card stands in it.
    let card = text(&scene.show("bot"), "card_ts").to_owned();
    assert_ne!(card, first);
    assert_eq!(scene.slack.card(&card).thread_ts.as_deref(), Some(&*first));
    scene.sent(["--status", "complete", "four"]);
    scene.flush();
    assert_eq!(last_action(&scene.slack.card(&card).text), "four");
    let shown: Vec<_> = scene.slack.thread(&first).iter().map(|one| last_action(&one.text)).collect();
    assert_eq!(shown, ["two", "three", "four", "four"]);
    assert_eq!(scene.slack.rate_violations(), []);
    assert_eq!(scene.slack.roots().len(), 0);
}

#[test]
fn a_card_deleted_without_replies_begins_one_new_thread() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.delete_message(CHANNEL, &scene.root().ts);
    let receipt = scene.sent(["--status", "blocked", "two"]);
    let card = scene.root().ts;
    assert_eq!((text(&receipt, "thread_ts"), text(&receipt, "message_ts")), (&*card, &*card));
    scene.sent(["--status", "error", "three"]);
    assert_eq!(scene.thread(), ["two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}

#[test]
fn a_thread_deleted_whole_goes_on_in_one_new_thread() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    for message in scene.slack.messages(CHANNEL) {
        scene.slack.delete_message(CHANNEL, &message.ts);
    }
    scene.sent(["--status", "blocked", "three"]);
    scene.sent(["--status", "error", "four"]);
    assert_eq!(scene.thread(), ["three", "four"]);
    assert_eq!(last_action(&scene.root().text), "four");
}

#[test]
fn a_reply_that_slack_posts_into_the_channel_is_the_new_card() {
    let scene = Scene::bot();
    scene.slack.post_lost_replies_alone();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.delete_message(CHANNEL, &scene.root().ts);
    let receipt = scene.sent(["--status", "blocked", "two"]);
    let card = scene.root().ts;
    assert_eq!((text(&receipt, "thread_ts"), text(&receipt, "message_ts")), (&*card, &*card));
    scene.sent(["--status", "error", "three"]);
    assert_eq!(scene.thread(), ["two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
    assert_eq!(text(&scene.show("bot"), "card_ts"), card);
}

#[test]
fn a_card_deleted_in_a_given_thread_is_posted_anew_there() {
    let scene = Scene::bot();
    let thread = scene.slack.say(CHANNEL, None, HUMAN, "Please deploy");
    scene.sandbox.env("AGENT_CHECKPOINT_THREAD", format!("{CHANNEL}:{thread}"));
    let first = scene.sent(["--status", "starting", "one"]);
    scene.slack.delete_message(CHANNEL, text(&first, "message_ts"));
    scene.sent(["--status", "blocked", "two"]);
    let replies: Vec<_> =
        scene.slack.thread(&thread).iter().skip(1).map(|one| last_action(&one.text)).collect();
    assert_eq!(replies, ["two", "two"]);
}

#[test]
fn messages_that_wait_for_a_deleted_thread_go_to_the_new_one_in_order() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.delete_message(CHANNEL, &scene.root().ts);
    for action in ["two", "three"] {
        scene.emit(["--status", "blocked", "--deadline", "0", action]).run().success();
    }
    scene.flush();
    assert_eq!(scene.thread(), ["two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}

#[test]
fn a_card_that_can_be_edited_no_longer_is_left_as_it_is() {
    for name in ["edit_window_closed", "cant_update_message", "streaming_state_conflict"] {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        scene.slack.script("chat.update", vec![Fault::ErrorName(name)]);
        scene.sent(["--status", "blocked", "two"]);
        scene.sent(["--status", "error", "three"]);
        assert_eq!(scene.thread(), ["one", "two", "three"], "{name}");
        assert_eq!(last_action(&scene.root().text), "one", "{name}");
        assert_eq!(scene.slack.calls("chat.update").len(), 1, "{name}");
    }
}

#[test]
fn a_card_refused_for_another_reason_is_tried_again_with_the_next_message() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.update", vec![Fault::ErrorName("a_word_of_the_year_2040")]);
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!(last_action(&scene.root().text), "one");
    scene.sent(["--status", "error", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}

#[test]
fn an_edit_that_fails_is_made_later() {
    let faults =
        [Fault::Status(503), Fault::RateLimited { retry_after: Some(1) }, Fault::ErrorName("update_failed")];
    side_by_side(faults, |fault| {
        let scene = Scene::bot();
        scene.sent(["--status", "starting", "one"]);
        scene.slack.script("chat.update", vec![fault]);
        // The message itself is in Slack: the caller need not hear of its card.
        let receipt = scene.emit(["--status", "blocked", "two"]).run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "sent", "{fault:?}");
        scene.flush();
        assert_eq!(last_action(&scene.root().text), "two", "{fault:?}");
    });
}

#[test]
fn a_limit_on_edits_does_not_hold_messages_back() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.update", vec![Fault::RateLimited { retry_after: Some(60) }]);
    scene.sent(["--status", "blocked", "two"]);
    scene.sent(["--status", "error", "three"]);
    assert_eq!(scene.slack.calls("chat.update").len(), 1);
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    assert_eq!(last_action(&scene.root().text), "one");
}

#[test]
fn many_cards_keep_within_the_limit_on_edits_and_are_right_in_the_end() {
    let scene = Scene::bot();
    for number in 0..6 {
        let (agent, channel) = (format!("agent-{number}"), format!("cards-{number}"));
        scene.slack.add_channel(&channel, &format!("C0CARDS00{number}"), false, false, true);
        scene.sent(["-a", &agent, "-c", &channel, "--status", "starting", "one"]);
        scene.sent(["-a", &agent, "--status", "blocked", "two"]);
    }
    scene.flush();
    // A burst is edited at once; the others wait for their turn.
    let edits = scene.slack.calls("chat.update");
    assert_eq!(edits.len(), 6);
    assert!(edits[5].at.duration_since(edits[0].at) >= Duration::from_millis(1400));
    for card in scene.slack.roots() {
        assert_eq!(last_action(&card.text), "two", "{}", card.channel);
    }
}

#[test]
fn one_edit_covers_all_that_was_posted_meanwhile() {
    let scene = Scene::bot();
    for (action, status) in [("one", "starting"), ("two", "blocked"), ("three", "error")] {
        scene.emit(["--deadline", "0", "--status", status, action]).run().success();
    }
    scene.flush();
    assert_eq!(scene.thread(), ["one", "two", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
    assert_eq!(scene.slack.calls("chat.update").len(), 1);
}

#[test]
fn every_task_of_an_agent_has_its_own_card() {
    let scene = Scene::bot();
    scene.sent(["--status", "complete", "one"]);
    scene.sent(["--status", "starting", "two"]);
    scene.sent(["--status", "blocked", "three"]);
    let roots: Vec<_> = scene.slack.roots().iter().map(|root| last_action(&root.text)).collect();
    assert_eq!(roots, ["one", "three"]);
}

#[test]
fn a_thread_of_our_own_is_replaced_when_it_is_gone_even_if_its_card_was_frozen() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.slack.script("chat.update", vec![Fault::ErrorName("edit_window_closed")]);
    scene.sent(["--status", "blocked", "two"]);
    for message in scene.slack.messages(CHANNEL).iter().rev() {
        scene.slack.delete_message(CHANNEL, &message.ts);
    }
    scene.sent(["--status", "blocked", "three"]);
    assert_eq!(last_action(&scene.root().text), "three");
}
