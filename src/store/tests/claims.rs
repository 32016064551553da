//! Claiming: what goes first, and what keeps everyone back.

use super::*;
use crate::checkpoint::outbox::Delivery;
use crate::pace;

/// What a claim hands out: whose entry it is and what it does.
fn taken(claim: Claim) -> Option<(String, EntryKind, Status)> {
    match claim {
        Claim::Job(job) => Some((job.task.agent_id.clone(), job.kind, job.snapshot.status)),
        _ => None,
    }
}

fn wait(claim: Claim) -> Option<(Moment, Why)> {
    match claim {
        Claim::Wait { until, why } => Some((until, why)),
        _ => None,
    }
}

#[test]
fn posts_of_a_task_go_in_the_order_recorded_and_its_card_after_them() {
    let mut cache = Cache::new();
    for status in [Status::Starting, Status::Blocked, Status::Error, Status::Complete] {
        cache.say("a", status);
    }
    let mut order = Vec::new();
    while let Claim::Job(job) = cache.claim(&owner(1)) {
        order.push((job.kind, job.snapshot.status));
        match job.kind {
            EntryKind::Post => cache.posted(&job, &owner(1), &format!("{}.0", order.len())),
            EntryKind::Card | EntryKind::Note | EntryKind::File | EntryKind::Question => {
                cache.settle(&job, &owner(1), &Settlement::Edited)
            }
        }
        cache.pass(seconds(2));
    }
    assert_eq!(
        order,
        [
            (EntryKind::Post, Status::Starting),
            (EntryKind::Post, Status::Blocked),
            (EntryKind::Post, Status::Error),
            (EntryKind::Post, Status::Complete),
            // One edit, to the newest state, for all that was posted.
            (EntryKind::Card, Status::Complete),
        ]
    );
    assert!(cache.entries().is_empty());
}

#[test]
fn a_card_does_not_wait_for_a_post_that_is_held_back() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.say("a", Status::Blocked);
    let job = cache.job(&owner(1));
    cache.posted(&job, &owner(1), "2.0");
    cache.say("a", Status::Planning);
    assert_eq!(
        taken(cache.claim(&owner(1))),
        Some(("a".to_owned(), EntryKind::Card, Status::Planning)),
        "the card shows the newest state, the message for it waits"
    );
}

#[test]
fn no_post_overtakes_another_of_its_task() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.say("a", Status::Blocked);
    cache.say("a", Status::Error);
    let first = cache.job(&owner(1));
    let at = cache.now.plus(seconds(5));
    let again = Settlement::Retry { at, reason: "internal_error".to_owned(), maybe_sent: false, via: None };
    cache.settle(&first, &owner(1), &again);
    assert_eq!(wait(cache.claim(&owner(1))), Some((at, Why::NotDue)));
    cache.now = at;
    assert_eq!(cache.job(&owner(1)).entry, first.entry);
}

#[test]
fn a_routine_message_that_failed_makes_way_for_a_newer_one() {
    // (what was recorded while it was being sent, how it failed, what is sent next)
    let failed = |at| {
        Some(Settlement::Retry { at, reason: "internal_error".to_owned(), maybe_sent: false, via: None })
    };
    for (newer, outcome, next) in [
        (vec![], failed(NOW), Status::Working),
        (vec![Status::Planning], failed(NOW), Status::Planning),
        (vec![Status::Blocked], failed(NOW.plus(INTERVAL * 10)), Status::Blocked),
        (vec![Status::Blocked, Status::Planning], failed(NOW), Status::Blocked),
        // Its sender died.
        (vec![Status::Planning], None, Status::Planning),
        (vec![Status::Blocked], None, Status::Blocked),
    ] {
        let mut cache = Cache::new();
        let task = cache.threaded("a");
        cache.pass(INTERVAL);
        cache.say("a", Status::Working);
        let job = cache.job(&owner(1));
        let started_at = cache.now;
        cache.pass(seconds(1));
        for status in &newer {
            cache.say("a", *status);
        }
        if let Some(outcome) = &outcome {
            cache.settle(&job, &owner(1), outcome);
        }
        cache.pass(LEASE);
        let claim = cache.claim(&owner(2));
        if next == Status::Planning {
            let due_at = started_at.plus(INTERVAL);
            assert_eq!(wait(claim), Some((due_at, Why::NotDue)), "one routine message in an interval");
            cache.now = due_at;
            assert_eq!(cache.job(&owner(2)).snapshot.status, next);
        } else {
            assert_eq!(taken(claim).map(|(.., status)| status), Some(next), "{newer:?}");
        }
        let outdated = &cache.checkpoints(task)[1];
        let expected = if newer.is_empty() { Delivery::Queued } else { Delivery::Coalesced };
        assert_eq!((outdated.status, outdated.delivery), (Status::Working, expected), "{newer:?}");
    }
}

#[test]
fn between_tasks_immediate_messages_go_before_routine_ones_and_older_before_newer() {
    let mut cache = Cache::new();
    // Each in a channel of its own, so that nothing but the order decides.
    let said = |agent: &str, status| Draft { channel: Some(format!("#{agent}")), ..Draft::of(agent, status) };
    for agent in ["a", "b"] {
        cache.record(said(agent, Status::Working));
        let job = cache.job(&owner(1));
        cache.posted(&job, &owner(1), "1.1");
    }
    cache.pass(INTERVAL * 2);
    for (agent, status) in
        [("b", Status::Planning), ("a", Status::Planning), ("c", Status::Working), ("d", Status::Blocked)]
    {
        cache.record(said(agent, status));
        cache.pass(seconds(1));
    }
    // What was put back is as old as the moment at which it is due again.
    let b = cache.store.read(|tx| tx.find("b")).expect("a search").and_then(|report| report.task.key);
    let claim = cache.claim_as(&owner(1), |want| want.scope = Scope::Task(b.expect("a stored task")));
    let Claim::Job(job) = claim else { panic!("nothing to send") };
    let at = cache.now;
    cache.settle(&job, &owner(1), &Settlement::Released { at });
    let order: Vec<_> = (1..=4)
        .map(|number| taken(cache.claim(&owner(number))).map(|(agent, ..)| agent).unwrap_or_default())
        .collect();
    assert_eq!(order, ["c", "d", "a", "b"]);
}

#[test]
fn a_caller_with_a_task_of_its_own_takes_no_other() {
    let mut cache = Cache::new();
    let a = cache.say("a", Status::Working).task;
    let b = cache.say("b", Status::Working).task;
    let of =
        |cache: &mut Cache, task| taken(cache.claim_as(&owner(1), |want| want.scope = Scope::Task(task)));
    assert_eq!(of(&mut cache, b).map(|(agent, ..)| agent).as_deref(), Some("b"));
    assert_eq!(of(&mut cache, TaskKey(99)), None);
    assert_eq!(of(&mut cache, a).map(|(agent, ..)| agent).as_deref(), Some("a"));
}

#[test]
fn an_immediate_message_shows_its_own_moment_and_a_routine_one_the_newest() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.say("a", Status::Blocked);
    cache.say("a", Status::Working);
    cache.say("a", Status::Planning);
    let job = cache.job(&owner(1));
    assert_eq!((job.snapshot.status, job.task.snapshot.status), (Status::Blocked, Status::Planning));
    let checkpoints = cache.checkpoints(job.task.key.expect("a stored task"));
    assert_eq!(job.checkpoint, checkpoints[1].id);
    cache.posted(&job, &owner(1), "2.0");
    cache.pass(INTERVAL);
    let job = cache.job(&owner(1));
    assert_eq!((job.snapshot.status, job.checkpoint), (Status::Planning, checkpoints[3].id));
}

#[test]
fn only_a_post_starts_the_interval() {
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    assert_eq!(cache.task(task).last_message_at, Some(NOW));
    cache.say("a", Status::Blocked);
    let job = cache.job(&owner(1));
    let posted_at = cache.now;
    cache.posted(&job, &owner(1), "2.0");
    cache.pass(seconds(1));
    assert_eq!(cache.job(&owner(1)).kind, EntryKind::Card);
    assert_eq!(cache.task(task).last_message_at, Some(posted_at));
}

#[test]
fn all_processes_share_the_limit_of_a_channel() {
    let mut cache = Cache::new();
    for agent in ["a", "b", "c", "d", "e"] {
        cache.say(agent, Status::Working);
    }
    for number in 1..=3 {
        assert!(matches!(cache.claim(&owner(number)), Claim::Job(_)), "a burst of three");
    }
    let next = NOW.plus(seconds(1));
    assert_eq!(wait(cache.claim(&owner(4))), Some((next, Why::Paced)));
    // What has time takes a turn ahead of time, so that nothing less urgent gets it.
    let Claim::Job(job) = cache.claim_as(&owner(4), |want| want.latest = next) else { panic!("a slot") };
    assert_eq!(job.start_at, next);
    assert_eq!(wait(cache.claim(&owner(5))), Some((NOW.plus(seconds(2)), Why::Paced)));
    // Another channel has its own.
    cache.record(Draft { channel: Some("#quiet".to_owned()), ..Draft::of("f", Status::Working) });
    assert_eq!(taken(cache.claim(&owner(6))).map(|(agent, ..)| agent).as_deref(), Some("f"));
}

#[test]
fn a_channel_has_one_limit_by_its_name_and_its_id() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let job = cache.job(&owner(1));
    cache.posted(&job, &owner(1), "1.1");
    cache.record(Draft { channel: Some("C0AGENTS".to_owned()), ..Draft::of("b", Status::Working) });
    for agent in ["c", "d"] {
        cache.say(agent, Status::Working);
    }
    for number in 1..=2 {
        assert!(matches!(cache.claim(&owner(number)), Claim::Job(_)), "the rest of a burst of three");
    }
    assert_eq!(wait(cache.claim(&owner(4))), Some((NOW.plus(seconds(1)), Why::Paced)));
}

#[test]
fn a_routine_message_takes_no_turn_ahead_of_time() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.pass(INTERVAL);
    for agent in ["b", "c", "d"] {
        cache.say(agent, Status::Working);
        let job = cache.job(&owner(1));
        cache.posted(&job, &owner(1), "1.1");
    }
    cache.say("a", Status::Planning);
    let latest = cache.now.plus(seconds(10));
    let claim = cache.claim_as(&owner(1), |want| want.latest = latest);
    assert_eq!(wait(claim), Some((cache.now.plus(seconds(1)), Why::Paced)));
}

#[test]
fn what_one_process_is_told_to_wait_holds_all_of_them() {
    let (ours, until) = (workspace(1), NOW.plus(seconds(60)));
    // (what is held, what a post hears, what an edit hears)
    for (name, post, edit) in [
        (pace::network_hold(&link(1)), Some(Why::NotDue), Some(Why::NotDue)),
        (pace::method_hold(&ours, EntryKind::Post), Some(Why::Paced), None),
        (pace::method_hold(&ours, EntryKind::Card), None, Some(Why::Paced)),
        (pace::network_hold(&link(2)), None, None),
        (pace::network_hold(&Link::new(workspace(1), "another proxy")), None, None),
        (pace::method_hold(&workspace(2), EntryKind::Post), None, None),
    ] {
        let mut cache = Cache::new();
        let task = cache.say("a", Status::Working).task;
        let now = cache.now;
        cache.write(|tx| tx.hold(&name, until, NOW));
        let mut heard = |kind| cache.store.read(|tx| held_until(tx, kind, false)).expect("a moment") == until;
        assert_eq!(
            (heard(EntryKind::Post), heard(EntryKind::Card)),
            (post.is_some(), edit.is_some()),
            "{name}"
        );

        let claim = cache.claim(&owner(1));
        assert_eq!(wait(claim), post.map(|why| (until, why)), "{name}");
        let edits_alone = |tx: &Tx<'_>| {
            tx.connection.execute("DELETE FROM entries", [])?;
            tx.connection.execute("UPDATE tasks SET lease_owner = NULL, card = '1.1'", [])?;
            tx.insert_entry(task, EntryKind::Card, Priority::Routine, None, None, now, now)
        };
        cache.write(edits_alone);
        assert_eq!(wait(cache.claim(&owner(1))), edit.map(|why| (until, why)), "{name}");

        cache.write(|tx| tx.lift(&name));
        assert!(wait(cache.claim(&owner(1))).is_none_or(|(_, why)| why == Why::Held), "{name}");
    }
}

#[test]
fn a_pause_in_looking_up_holds_those_who_have_to_look_and_nobody_else() {
    let until = NOW.plus(seconds(60));
    for (maybe_sent, is_held) in [(false, false), (true, true)] {
        let mut cache = Cache::new();
        cache.say("a", Status::Working);
        let job = cache.job(&owner(1));
        let failed = Settlement::Retry { at: NOW, reason: "lost".to_owned(), maybe_sent, via: None };
        cache.settle(&job, &owner(1), &failed);
        cache.write(|tx| tx.hold(&pace::reading_hold(&workspace(1), EntryKind::Post), until, NOW));
        let held = cache.store.read(|tx| held_until(tx, EntryKind::Post, maybe_sent));
        assert_eq!(held.expect("a moment") == until, is_held);
        assert_eq!(wait(cache.claim(&owner(1))), is_held.then_some((until, Why::Paced)));
    }
    // A process that died while it sent may have sent as well.
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    cache.job(&Owner::stored("gone".to_owned()));
    cache.pass(LEASE);
    let until = cache.now.plus(seconds(60));
    cache.write(|tx| tx.hold(&pace::reading_hold(&workspace(1), EntryKind::Post), until, NOW));
    assert_eq!(wait(cache.claim(&owner(1))), Some((until, Why::Paced)));
}

#[test]
fn what_fails_on_one_way_is_tried_at_once_on_another() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let (job, at) = (cache.job(&owner(1)), NOW.plus(seconds(60)));
    let failed = |via| Settlement::Retry { at, reason: "no route".to_owned(), maybe_sent: false, via };
    let broken = Link::new(workspace(1), "a dead proxy");
    cache.settle(&job, &owner(1), &failed(Some(broken.clone())));
    assert_eq!(wait(cache.claim_by(&broken, &owner(1), |_| {})), Some((at, Why::NotDue)));
    let job = cache.job(&owner(2));
    // What Slack itself could not do holds on any way.
    cache.settle(&job, &owner(2), &failed(None));
    for link in [&broken, &link(1)] {
        assert_eq!(wait(cache.claim_by(link, &owner(1), |_| {})), Some((at, Why::NotDue)));
    }
}

#[test]
fn a_hold_from_before_a_clock_was_set_back_holds_nobody() {
    let ours = workspace(1);
    for name in [pace::network_hold(&link(1)), pace::method_hold(&ours, EntryKind::Post)] {
        let mut cache = Cache::new();
        cache.say("a", Status::Working);
        let before = NOW.plus(seconds(8 * 3600));
        cache.write(|tx| tx.hold(&name, before, before));
        let held = cache.store.read(|tx| held_until(tx, EntryKind::Post, false));
        assert!(held.expect("a moment") <= NOW, "{name}");
        // It does not keep a new one from holding.
        let until = NOW.plus(seconds(60));
        cache.write(|tx| tx.hold(&name, until, NOW));
        assert_eq!(wait(cache.claim(&owner(1))).map(|(until, _)| until), Some(until), "{name}");
        cache.write(|tx| tx.lift(&name).and_then(|()| tx.hold(&name, before, before)));
        assert!(matches!(cache.claim(&owner(1)), Claim::Job(_)), "{name}");
    }
}

#[test]
fn a_hold_is_never_shortened_and_counts_how_often_it_was_set() {
    let mut cache = Cache::new();
    let name = pace::network_hold(&link(1));
    let failures = |cache: &mut Cache| cache.store.read(|tx| tx.failures(&name)).expect("a count");
    assert_eq!(failures(&mut cache), 0);
    for (until, held, count) in [(60, 60, 1), (10, 60, 2), (90, 90, 3)] {
        cache.write(|tx| tx.hold(&name, NOW.plus(seconds(until)), NOW));
        let found = cache.store.read(|tx| held_until(tx, EntryKind::Post, false)).expect("a moment");
        assert_eq!((found, failures(&mut cache)), (NOW.plus(seconds(held)), count));
    }
    cache.write(|tx| tx.lift(&name));
    assert_eq!(failures(&mut cache), 0);
}

#[test]
fn what_was_recorded_for_another_workspace_is_left_alone() {
    let odd = Credential::bot("xoxb-test");
    // (recorded for, asked by a person, sent)
    for (recorded, explicit, sent) in [
        (workspace(1), false, true),
        (workspace(2), false, false),
        (workspace(2), true, false),
        (odd.clone(), false, false),
        (odd, true, true),
    ] {
        let mut cache = Cache::new();
        cache.credential = recorded.clone();
        let task = cache.say("a", Status::Working).task;
        let claim = cache.claim_as(&owner(1), |want| want.explicit = explicit);
        assert_eq!(taken(claim).is_some(), sent, "{recorded:?} {explicit}");
        let kept = if sent { workspace(1) } else { recorded };
        assert_eq!(cache.task(task).credential, Some(kept));
        let waits = cache.store.read(|tx| tx.anything_waits(&workspace(1))).expect("an answer");
        assert_eq!(waits, sent);
    }
}
