//! Flushing: everything becomes due, and is counted until it is gone.

use super::*;
use crate::checkpoint::outbox::Delivery;
use crate::pace;
use crate::store::flush::Flushable;

impl Cache {
    fn hurry(&mut self, rejected: bool) -> Flushable {
        let now = self.now;
        self.write(|tx| tx.hurry(&link(1), rejected, now))
    }

    fn left(&mut self, began: Moment) -> (u64, u64) {
        let found = self.store.read(|tx| tx.left(&workspace(1), began)).expect("a count");
        (found.ours, found.foreign)
    }
}

#[test]
fn hurry_makes_everything_due_that_waits() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.say("a", Status::Planning);
    cache.say("b", Status::Working);
    let job = cache.job(&owner(1));
    let at = cache.now.plus(seconds(60));
    cache.settle(
        &job,
        &owner(1),
        &Settlement::Retry { at, reason: "timed out".to_owned(), maybe_sent: false, via: None },
    );
    assert!(matches!(cache.claim(&owner(1)), Claim::Wait { .. }));

    let now = cache.now;
    let found = cache.hurry(false);
    assert_eq!((found.ours, found.foreign), (2, 0));
    assert!(cache.rows().iter().all(|row| row.due_at == now));
    for waiting in [1, 0] {
        let job = cache.job(&owner(1));
        cache.posted(&job, &owner(1), "2.2");
        cache.pass(seconds(2));
        // The edit of the card follows from the first of them.
        let edits = cache.rows().iter().filter(|row| row.kind == EntryKind::Card).count();
        assert_eq!(cache.left(found.began), (waiting + u64::try_from(edits).expect("few"), 0));
    }
}

#[test]
fn hurry_keeps_slacks_own_limits_and_forgets_our_caution_about_the_network() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let (ours, until) = (workspace(1), cache.now.plus(seconds(60)));
    cache.write(|tx| tx.hold(&pace::network_hold(&link(1)), until, NOW));
    cache.hurry(false);
    assert!(matches!(cache.claim(&owner(1)), Claim::Job(_)));

    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    cache.write(|tx| tx.hold(&pace::method_hold(&ours, EntryKind::Post), until, NOW));
    cache.hurry(false);
    let Claim::Wait { until: heard, why: Why::Paced } = cache.claim(&owner(1)) else { panic!("held") };
    assert_eq!(heard, until);
}

#[test]
fn what_is_recorded_after_a_flush_began_is_not_waited_for() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let found = cache.hurry(false);
    cache.pass(seconds(1));
    cache.say("b", Status::Working);
    assert_eq!(cache.left(found.began), (1, 0));
    for agent in ["a", "b"] {
        let job = cache.job(&owner(1));
        assert_eq!(job.task.agent_id, agent);
        cache.posted(&job, &owner(1), "1.1");
        assert_eq!(cache.left(found.began), (0, 0));
    }
    // Not even when it stands where something stood that was waited for: a free key is given out again.
    cache.say("c", Status::Working);
    assert_eq!(cache.left(found.began), (0, 0));
}

#[test]
fn the_card_of_a_task_that_goes_on_is_not_waited_for() {
    let mut cache = Cache::new();
    cache.threaded("a");
    cache.say("a", Status::Blocked);
    let found = cache.hurry(false);
    let job = cache.job(&owner(1));
    cache.pass(seconds(1));
    cache.posted(&job, &owner(1), "2.2");
    assert_eq!(cache.left(found.began), (1, 0), "the card shows what was flushed");
    cache.say("a", Status::Error);
    assert_eq!(cache.left(found.began), (0, 0));
}

#[test]
fn what_was_recorded_before_a_clock_was_set_back_is_flushed_as_well() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    cache.now = NOW.minus(seconds(3600));
    let found = cache.hurry(false);
    assert_eq!((found.ours, cache.left(found.began)), (1, (1, 0)));
    let now = cache.now;
    assert_eq!(cache.rows()[0].due_at, now);
    assert_eq!(cache.job(&owner(1)).task.agent_id, "a");
}

#[test]
fn what_belongs_to_another_workspace_is_counted_apart() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    // A person who asks takes a token that tells no workspace for the old one's successor.
    cache.credential = Credential::bot("xoxb-test");
    cache.say("b", Status::Working);
    cache.credential = workspace(2);
    cache.say("c", Status::Working);
    let found = cache.hurry(false);
    assert_eq!((found.ours, found.foreign), (2, 1));
}

#[test]
fn what_was_refused_is_tried_again_only_when_asked_for() {
    let mut cache = Cache::new();
    for (agent, credential) in [("a", workspace(1)), ("b", workspace(2))] {
        cache.credential = credential.clone();
        cache.say(agent, Status::Working);
        let Claim::Job(job) = ({
            let now = cache.now;
            let by = owner(1);
            let want = ClaimFor {
                owner: &by,
                link: &Link::new(credential.clone(), ""),
                explicit: false,
                scope: Scope::All,
                now,
                latest: now,
                lease: LEASE,
            };
            cache.write(|tx| tx.claim(&want))
        }) else {
            panic!("nothing to send")
        };
        cache.settle(&job, &owner(1), &Settlement::Rejected { reason: "channel_not_found".to_owned() });
    }
    let found = cache.hurry(false);
    assert_eq!((found.ours, found.foreign), (0, 0));
    assert!(matches!(cache.claim(&owner(1)), Claim::Nothing));

    cache.pass(seconds(60));
    let found = cache.hurry(true);
    assert_eq!((found.ours, found.foreign), (1, 0), "the other workspace's stays refused");
    let job = cache.job(&owner(1));
    assert_eq!((job.task.agent_id.as_str(), job.attempts, job.maybe_sent), ("a", 0, false));
    let checkpoint = cache.checkpoints(job.task.key.expect("a stored task")).remove(0);
    assert_eq!((checkpoint.delivery, checkpoint.delivery_error), (Delivery::Queued, None));
}
