//! Settling: what each outcome does to the entry, its checkpoint, the task and its card.

use super::*;
use crate::checkpoint::Card;
use crate::checkpoint::outbox::Delivery;
use crate::store::rows::state;

/// What an outcome leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    entries: Vec<Row>,
    delivery: Delivery,
    reason: Option<String>,
    message_ts: Option<String>,
    channel_id: Option<String>,
    thread_ts: Option<String>,
    card: Card,
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn at(ts: &str) -> Card {
    Card::At(ts.to_owned())
}

fn left(cache: &mut Cache, task: TaskKey) -> Left {
    let checkpoint = cache.checkpoints(task).pop().expect("a checkpoint");
    let Task { channel_id, thread_ts, card, .. } = cache.task(task);
    Left {
        entries: cache.rows(),
        delivery: checkpoint.delivery,
        reason: checkpoint.delivery_error,
        message_ts: checkpoint.message_ts,
        channel_id,
        thread_ts,
        card,
    }
}

fn row(kind: EntryKind, state: i64, due_at: Moment) -> Row {
    let priority = if kind == EntryKind::Post { Priority::Immediate } else { Priority::Routine };
    Row { kind, priority, state, due_at, attempts: 0, maybe_sent: false, reason: None }
}

fn posted(channel_id: Option<&str>, ts: Option<&str>, thread_ts: Option<&str>) -> Settlement {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Settlement::Posted { channel_id: owned(channel_id), ts: owned(ts), thread_ts: owned(thread_ts) }
}

#[test]
fn what_becomes_of_a_first_message() {
    let later = NOW.plus(seconds(7));
    let failed = |state, due_at, maybe_sent| Row {
        attempts: 1,
        maybe_sent,
        reason: text("why"),
        ..row(EntryKind::Post, state, due_at)
    };
    let nothing = || Left {
        entries: vec![],
        delivery: Delivery::Queued,
        reason: None,
        message_ts: None,
        channel_id: None,
        thread_ts: None,
        card: Card::Missing,
    };
    for (settlement, expected) in [
        (
            posted(Some("C1"), Some("1.1"), None),
            Left {
                delivery: Delivery::Sent,
                message_ts: text("1.1"),
                channel_id: text("C1"),
                thread_ts: text("1.1"),
                card: at("1.1"),
                ..nothing()
            },
        ),
        // A first message in a thread that was there before.
        (
            posted(Some("C1"), Some("1.2"), Some("1.1")),
            Left {
                delivery: Delivery::Sent,
                message_ts: text("1.2"),
                channel_id: text("C1"),
                thread_ts: text("1.1"),
                card: at("1.2"),
                ..nothing()
            },
        ),
        // A webhook tells nothing.
        (posted(None, None, None), Left { delivery: Delivery::Sent, ..nothing() }),
        (
            Settlement::Retry { at: later, reason: "why".to_owned(), maybe_sent: false, via: None },
            Left { entries: vec![failed(state::WAITING, later, false)], reason: text("why"), ..nothing() },
        ),
        (
            Settlement::Retry { at: later, reason: "why".to_owned(), maybe_sent: true, via: None },
            Left {
                entries: vec![failed(state::WAITING, later, true)],
                delivery: Delivery::Unconfirmed,
                reason: text("why"),
                ..nothing()
            },
        ),
        (
            Settlement::Rejected { reason: "why".to_owned() },
            Left {
                entries: vec![failed(state::REJECTED, NOW, false)],
                delivery: Delivery::Rejected,
                reason: text("why"),
                ..nothing()
            },
        ),
        (
            Settlement::ThreadGone,
            Left { entries: vec![row(EntryKind::Post, state::WAITING, NOW)], ..nothing() },
        ),
        (
            Settlement::Released { at: later },
            Left { entries: vec![row(EntryKind::Post, state::WAITING, later)], ..nothing() },
        ),
    ] {
        let mut cache = Cache::new();
        let task = cache.say("a", Status::Working).task;
        let job = cache.job(&owner(1));
        cache.settle(&job, &owner(1), &settlement);
        assert_eq!(left(&mut cache, task), expected, "{settlement:?}");
    }
}

#[test]
fn what_becomes_of_a_reply() {
    // A task whose card and thread stand, and a reply that is being sent.
    let reply = |settlement: &Settlement| {
        let mut cache = Cache::new();
        let task = cache.threaded("a");
        cache.say("a", Status::Blocked);
        let job = cache.job(&owner(1));
        assert_eq!(job.task.card, at("1.1"));
        cache.settle(&job, &owner(1), settlement);
        left(&mut cache, task)
    };
    let after = NOW.plus(seconds(10));
    let sent = reply(&posted(Some("C0AGENTS"), Some("2.2"), Some("1.1")));
    assert_eq!(
        sent,
        Left {
            entries: vec![row(EntryKind::Card, state::WAITING, after)],
            delivery: Delivery::Sent,
            reason: None,
            message_ts: text("2.2"),
            channel_id: text("C0AGENTS"),
            thread_ts: text("1.1"),
            card: at("1.1"),
        }
    );
    let gone = reply(&Settlement::ThreadGone);
    assert_eq!((gone.thread_ts, gone.card, gone.delivery), (None, Card::Missing, Delivery::Queued));
    assert_eq!(gone.channel_id, text("C0AGENTS"), "the new thread is in the same channel");
    assert_eq!(gone.entries, [row(EntryKind::Post, state::WAITING, after)]);
}

#[test]
fn what_becomes_of_an_edit_of_the_card() {
    let later = NOW.plus(seconds(7));
    let card = |settlement: &Settlement| {
        let mut cache = Cache::new();
        let task = cache.threaded("a");
        cache.say("a", Status::Blocked);
        let reply = cache.job(&owner(1));
        cache.posted(&reply, &owner(1), "2.2");
        let job = cache.job(&owner(1));
        assert_eq!(job.kind, EntryKind::Card);
        let now = cache.now;
        cache.settle(&job, &owner(1), settlement);
        let left = left(&mut cache, task);
        // The messages themselves are in Slack whatever becomes of the card.
        assert_eq!(
            (left.delivery, left.message_ts.as_deref()),
            (Delivery::Sent, Some("2.2")),
            "{settlement:?}"
        );
        assert_eq!(
            left.thread_ts.as_deref(),
            if *settlement == Settlement::ThreadGone { None } else { Some("1.1") }
        );
        (left.card, left.entries, now)
    };
    let waits = |due_at| row(EntryKind::Card, state::WAITING, due_at);
    let (shown, entries, _) = card(&Settlement::Edited);
    assert_eq!((shown, entries), (at("1.1"), vec![]));
    let (shown, entries, now) = card(&Settlement::Rejected { reason: "why".to_owned() });
    let refused = Row { attempts: 1, reason: text("why"), ..row(EntryKind::Card, state::REJECTED, now) };
    assert_eq!(
        (shown, entries),
        (at("1.1"), vec![refused]),
        "kept, to be sent again with the next edit or by hand"
    );
    let (shown, entries, _) = card(&Settlement::CardFrozen);
    assert_eq!((shown, entries), (Card::Frozen, vec![]));
    let (shown, entries, now) = card(&Settlement::CardGone);
    assert_eq!((shown, entries), (Card::Missing, vec![waits(now)]));
    let (shown, entries, now) = card(&Settlement::ThreadGone);
    assert_eq!((shown, entries), (Card::Missing, vec![waits(now)]));
    let (shown, entries, _) =
        card(&Settlement::Retry { at: later, reason: "why".to_owned(), maybe_sent: false, via: None });
    assert_eq!((shown, entries), (at("1.1"), vec![Row { attempts: 1, reason: text("why"), ..waits(later) }]));
    let (shown, entries, _) = card(&Settlement::Released { at: later });
    assert_eq!((shown, entries), (at("1.1"), vec![waits(later)]));
}

#[test]
fn a_new_card_takes_the_place_of_one_that_is_gone() {
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    cache.say("a", Status::Blocked);
    let reply = cache.job(&owner(1));
    cache.posted(&reply, &owner(1), "2.2");
    let job = cache.job(&owner(1));
    cache.settle(&job, &owner(1), &Settlement::CardGone);
    let job = cache.job(&owner(1));
    assert_eq!((job.kind, &job.task.card), (EntryKind::Card, &Card::Missing));
    cache.posted(&job, &owner(1), "3.3");
    let task = cache.task(task);
    assert_eq!((task.card, task.thread_ts.as_deref()), (at("3.3"), Some("1.1")));
    assert!(cache.entries().is_empty());
}

#[test]
fn a_frozen_card_is_left_alone_and_replies_go_on() {
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    cache.say("a", Status::Blocked);
    let reply = cache.job(&owner(1));
    cache.posted(&reply, &owner(1), "2.2");
    let job = cache.job(&owner(1));
    cache.settle(&job, &owner(1), &Settlement::CardFrozen);
    cache.say("a", Status::Error);
    let job = cache.job(&owner(1));
    cache.posted(&job, &owner(1), "3.3");
    assert_eq!(cache.task(task).card, Card::Frozen);
    assert!(cache.entries().is_empty(), "no edit waits that could not be made");
}

#[test]
fn one_edit_of_the_card_waits_however_many_messages_were_posted() {
    let mut cache = Cache::new();
    cache.threaded("a");
    for status in [Status::Blocked, Status::Error, Status::Blocked] {
        cache.say("a", status);
        let job = cache.job(&owner(1));
        cache.posted(&job, &owner(1), "2.2");
        cache.pass(seconds(2));
    }
    assert_eq!(cache.rows().iter().map(|row| row.kind).collect::<Vec<_>>(), [EntryKind::Card]);
}

#[test]
fn every_failure_counts_and_the_latest_reason_is_kept() {
    let mut cache = Cache::new();
    let recorded = cache.say("a", Status::Working);
    for (attempts, reason) in [(0, "internal_error"), (1, "fatal_error"), (2, "ratelimited")] {
        let job = cache.job(&owner(1));
        assert_eq!((job.attempts, job.maybe_sent), (attempts, false));
        cache.pass(seconds(2));
        let at = cache.now;
        cache.settle(
            &job,
            &owner(1),
            &Settlement::Retry { at, reason: reason.to_owned(), maybe_sent: false, via: None },
        );
        let standing = cache.store.read(|tx| tx.delivery_of(recorded.checkpoint)).expect("a standing");
        assert_eq!(
            (standing.delivery, standing.reason.as_deref(), standing.due_at),
            (Delivery::Queued, Some(reason), Some(at))
        );
    }
    let job = cache.job(&owner(1));
    cache.posted(&job, &owner(1), "1.1");
    let standing = cache.store.read(|tx| tx.delivery_of(recorded.checkpoint)).expect("a standing");
    assert_eq!((standing.delivery, standing.reason, standing.due_at), (Delivery::Sent, None, None));
    assert_eq!(standing.message_ts.as_deref(), Some("1.1"));
}

#[test]
fn a_checkpoint_that_a_newer_message_covers_says_so() {
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    // The first is due but could not be sent, the second takes its place, the third is immediate.
    cache.pass(INTERVAL);
    cache.say("a", Status::Working);
    let job = cache.job(&owner(1));
    let again =
        Settlement::Retry { at: cache.now, reason: "timed out".to_owned(), maybe_sent: true, via: None };
    cache.settle(&job, &owner(1), &again);
    cache.say("a", Status::Planning);
    let [.., first, second] = &cache.checkpoints(task)[..] else { panic!("three checkpoints") };
    assert_eq!((first.delivery, first.delivery_error.clone()), (Delivery::Coalesced, None));
    assert_eq!(second.delivery, Delivery::Queued);
    assert!(!cache.rows()[0].maybe_sent, "what was never tried cannot have arrived");
    cache.say("a", Status::Blocked);
    let deliveries: Vec<_> = cache.checkpoints(task).iter().map(|checkpoint| checkpoint.delivery).collect();
    assert_eq!(deliveries, [Delivery::Sent, Delivery::Coalesced, Delivery::Coalesced, Delivery::Queued]);
    assert_eq!(cache.rows().len(), 1);
}
