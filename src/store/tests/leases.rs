//! Leases: one sender for a task, whatever becomes of it.

use super::*;

/// A process that ended: no system gives a process the highest number there is.
fn dead() -> Owner {
    let this = owner(1).to_string();
    let (namespace, _) = this.split_once('/').expect("namespace and pid");
    Owner::stored(format!("{namespace}/{}/1", i32::MAX))
}

/// A process in a container of its own: nobody here can tell whether it lives.
fn elsewhere() -> Owner {
    Owner::stored(format!("pid:[1]/{}/1", i32::MAX))
}

/// A word for a claim's answer.
fn answer(claim: Claim, now: Moment) -> String {
    match claim {
        Claim::Job(job) if job.maybe_sent => "looks for it first".to_owned(),
        Claim::Job(_) => "sends".to_owned(),
        Claim::Wait { until, why } => format!("{why:?} {}", until.since(now).as_secs()),
        Claim::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn a_process_knows_what_it_is_sending_itself() {
    for (by, ours) in [(owner(1), true), (dead(), false), (elsewhere(), false)] {
        let mut cache = Cache::new();
        let recorded = cache.say("a", Status::Working);
        let is_ours = |cache: &mut Cache| {
            cache.store.read(|tx| tx.is_being_sent_by_us(recorded.checkpoint)).expect("an answer")
        };
        assert!(!is_ours(&mut cache), "before {by}");
        let job = cache.job(&by);
        assert_eq!(is_ours(&mut cache), ours, "{by}");
        cache.posted(&job, &by, "1.1");
        assert!(!is_ours(&mut cache), "after {by}");
    }
}

#[test]
fn a_task_is_sent_for_by_one_process_at_a_time() {
    let (alive, other) = (owner(1), owner(2));
    // (who claimed it before, seconds later, what a second process hears)
    for (holder, later, heard) in [
        (alive.clone(), 0, "Held 15"),
        (alive.clone(), 14, "Held 1"),
        (alive.clone(), 15, "looks for it first"),
        (dead(), 0, "looks for it first"),
        (elsewhere(), 0, "Held 15"),
        (elsewhere(), 14, "Held 1"),
        (elsewhere(), 15, "looks for it first"),
        // The same process goes on with what it began.
        (other.clone(), 0, "looks for it first"),
    ] {
        let mut cache = Cache::new();
        cache.say("a", Status::Working);
        let _ = cache.job(&holder);
        cache.pass(seconds(later));
        let now = cache.now;
        assert_eq!(answer(cache.claim(&other), now), heard, "{holder} {later}");
    }
}

#[test]
fn a_lease_runs_from_the_moment_at_which_the_message_may_start() {
    let mut cache = Cache::new();
    for agent in ["a", "b", "c", "d"] {
        cache.say(agent, Status::Working);
    }
    let latest = cache.now.plus(seconds(10));
    let starts: Vec<u64> = (1..=4)
        .map(|number| match cache.claim_as(&owner(number), |want| want.latest = latest) {
            Claim::Job(job) => job.start_at.since(NOW).as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(starts, [0, 0, 0, 1]);
    cache.pass(seconds(15));
    // Three leases are over, the fourth lasts a second longer.
    let now = cache.now;
    let heard: Vec<_> = (5..9).map(|number| answer(cache.claim(&owner(number)), now)).collect();
    assert_eq!(heard, ["looks for it first", "looks for it first", "looks for it first", "Held 1"]);
}

#[test]
fn a_lease_that_was_given_up_keeps_nobody_out() {
    let mut cache = Cache::new();
    let task = cache.say("a", Status::Working).task;
    cache.say("a", Status::Blocked);
    let job = cache.job(&owner(1));
    // Only its holder can give it up.
    cache.write(|tx| tx.release(task, &owner(2)));
    let now = cache.now;
    assert_eq!(answer(cache.claim(&owner(2)), now), "Held 15");
    cache.posted(&job, &owner(1), "1.1");
    assert_eq!(answer(cache.claim(&owner(2)), now), "sends");
}

#[test]
fn what_was_being_sent_when_its_sender_died_stays_uncertain_until_it_is_settled() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let _ = cache.job(&dead());
    let job = cache.job(&owner(1));
    assert!(job.maybe_sent);
    assert_eq!(job.attempts, 0, "an attempt without an outcome is not counted as a failure");
    // A second attempt that surely did not arrive says nothing of the first.
    let again =
        Settlement::Retry { at: cache.now, reason: "refused".to_owned(), maybe_sent: false, via: None };
    cache.settle(&job, &owner(1), &again);
    let job = cache.job(&owner(1));
    assert!(job.maybe_sent);
    assert_eq!(job.attempts, 1);
}

#[test]
fn a_process_that_lost_its_lease_does_not_hold_others_back() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let late = owner(1);
    let job = cache.job(&late);
    cache.pass(LEASE);
    let taken_over = cache.job(&owner(2));
    assert_eq!(taken_over.entry, job.entry);
    let task = job.task.key.expect("a stored task");
    cache.write(|tx| tx.release(task, &late));
    let now = cache.now;
    assert_eq!(answer(cache.claim(&owner(3)), now), "Held 15", "the lease is the second one's");
}

#[test]
fn a_sender_that_slept_through_its_lease_settles_nothing_that_is_not_its_own() {
    let posted = Settlement::Posted { channel_id: None, ts: Some("9.9".to_owned()), thread_ts: None };
    let why = || "why".to_owned();
    for late in [
        posted,
        Settlement::Edited,
        Settlement::Retry { at: NOW, reason: why(), maybe_sent: true, via: None },
        Settlement::Rejected { reason: why() },
        Settlement::CardGone,
        Settlement::CardFrozen,
        Settlement::ThreadGone,
        Settlement::Released { at: NOW },
    ] {
        let mut cache = Cache::new();
        let task = cache.say("a", Status::Working).task;
        let slept = cache.job(&owner(1));
        cache.pass(LEASE);
        // Another one took over, and what was recorded next stands where the first message stood.
        let job = cache.job(&owner(2));
        cache.posted(&job, &owner(2), "1.1");
        let next = cache.say("a", Status::Blocked);
        assert_eq!(next.entry, Some(slept.entry), "SQLite gives a free key out again");
        let before = (cache.task(task), cache.checkpoints(task), cache.entries());
        cache.settle(&slept, &owner(1), &late);
        assert_eq!((cache.task(task), cache.checkpoints(task), cache.entries()), before, "{late:?}");
    }
}

#[test]
fn a_late_answer_for_the_same_message_still_counts() {
    let mut cache = Cache::new();
    let task = cache.say("a", Status::Working).task;
    let slept = cache.job(&owner(1));
    cache.pass(LEASE);
    let job = cache.job(&owner(2));
    cache.posted(&slept, &owner(1), "1.1");
    assert!(cache.entries().is_empty(), "it is in Slack, whoever sent it");
    let failed =
        Settlement::Retry { at: cache.now, reason: "timed out".to_owned(), maybe_sent: true, via: None };
    cache.settle(&job, &owner(2), &failed);
    assert!(cache.entries().is_empty());
    assert_eq!(cache.checkpoints(task)[0].delivery.name(), "sent");
}

#[test]
fn a_late_answer_does_not_count_for_what_an_entry_carries_by_now() {
    // A routine message that was sent twice, failed, and took up a newer checkpoint.
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    cache.pass(seconds(30));
    cache.say("a", Status::Working);
    let slept = cache.job(&owner(1));
    cache.pass(LEASE);
    let job = cache.job(&owner(2));
    let failed =
        Settlement::Retry { at: cache.now, reason: "timed out".to_owned(), maybe_sent: false, via: None };
    cache.settle(&job, &owner(2), &failed);
    let next = cache.say("a", Status::Planning);
    assert_eq!(next.entry, Some(slept.entry), "the message waits for its turn with the newest state");
    let before = (cache.task(task), cache.checkpoints(task), cache.entries());
    cache.posted(&slept, &owner(1), "9.9");
    assert_eq!((cache.task(task), cache.checkpoints(task), cache.entries()), before);

    // An edit of the card that came through, and another that became due since.
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    let reply = |cache: &mut Cache, ts| {
        cache.say("a", Status::Blocked);
        loop {
            let job = cache.job(&owner(2));
            match job.kind {
                EntryKind::Post => break cache.posted(&job, &owner(2), ts),
                EntryKind::Card | EntryKind::Note | EntryKind::File | EntryKind::Question => {
                    cache.settle(&job, &owner(2), &Settlement::Edited)
                }
            }
        }
    };
    reply(&mut cache, "2.2");
    let slept = cache.job(&owner(1));
    assert_eq!(slept.kind, EntryKind::Card);
    cache.pass(LEASE);
    let job = cache.job(&owner(2));
    cache.settle(&job, &owner(2), &Settlement::Edited);
    cache.pass(seconds(1));
    let now = cache.now;
    // As if the key of the first edit were given to the second.
    cache.write(|tx| {
        tx.insert_entry(task, EntryKind::Card, Priority::Routine, None, None, now, now)?;
        Ok(tx.connection.execute("UPDATE entries SET key = ?1", [slept.entry.0])?)
    });
    let before = cache.entries();
    cache.settle(&slept, &owner(1), &Settlement::Edited);
    assert_eq!(cache.entries(), before, "the newest state is still to be shown");
}
