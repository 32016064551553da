//! Questions in the store: decided once, edited where there is something to edit, and kept while they are open.

use rusqlite::params;

use super::*;
use crate::checkpoint::outbox::{EntryKind, Priority};
use crate::checkpoint::question::{Answer, Decision, Question, Vote, Word};
use crate::store::{Intervention, Put, Shown, Watcher};

/// A question whose message waits, of an agent `a`.
fn put(cache: &mut Cache, asker: Option<&Watcher>) -> Put {
    let recorded = cache.say("a", Status::WaitingApproval);
    let now = cache.now;
    let question = Question { asked_at: now, expires_at: now.plus(seconds(60)), ..Question::sample() };
    cache
        .store
        .write(|tx| {
            tx.put_question(&question, recorded.task, recorded.entry, asker, false)?;
            Ok(tx.question(question.id)?.expect("the question"))
        })
        .expect("a question")
}

fn claimed(cache: &mut Cache) -> Option<Job> {
    match cache.claim(&owner(1)) {
        Claim::Job(job) => Some(*job),
        _ => None,
    }
}

#[test]
fn the_message_carries_the_question_and_its_place_is_kept() {
    let mut cache = Cache::new();
    let question = put(&mut cache, None).asked.question;
    let job = claimed(&mut cache).expect("the message");
    assert_eq!(job.kind, EntryKind::Post);
    assert_eq!(job.asked.as_ref().map(|asked| asked.question.id), Some(question.id));
    cache.posted(&job, &owner(1), "7.7");
    let put = cache.store.read(|tx| tx.question(question.id)).expect("a read").expect("the question");
    assert_eq!(put.asked.message.as_ref().map(|(_, ts)| ts.as_str()), Some("7.7"));
    assert_eq!(cache.store.read(|tx| tx.shown(&put)).expect("a read"), Shown::Posted);
}

#[test]
fn it_is_decided_once_and_its_message_is_edited_after_it_was_posted() {
    let mut cache = Cache::new();
    let put = put(&mut cache, None);
    let now = cache.now;
    let decide = |cache: &mut Cache, decision| {
        let answer = Answer::bare(decision, now);
        cache.store.write(|tx| tx.decide(put.key, &answer, now)).expect("a write")
    };
    assert!(decide(&mut cache, Decision::Approved));
    assert!(!decide(&mut cache, Decision::Rejected));
    let answer = cache.store.read(|tx| tx.answer(put.asked.question.id)).expect("a read");
    assert_eq!(answer.map(|answer| answer.decision), Some(Decision::Approved));
    let job = claimed(&mut cache).expect("the message");
    assert_eq!(job.kind, EntryKind::Post, "there is nothing to edit yet");
    assert!(job.asked.as_ref().is_some_and(|asked| asked.answer.is_some()), "it comes without buttons");
    cache.posted(&job, &owner(1), "7.7");
    let kinds: Vec<EntryKind> = std::iter::from_fn(|| {
        let job = claimed(&mut cache)?;
        cache.settle(&job, &owner(1), &Settlement::Edited);
        Some(job.kind)
    })
    .collect();
    assert!(kinds.contains(&EntryKind::Question), "{kinds:?}");
}

#[test]
fn what_was_not_posted_is_not_edited() {
    let mut cache = Cache::new();
    let put = put(&mut cache, None);
    let job = claimed(&mut cache).expect("the message");
    cache.settle(&job, &owner(1), &Settlement::Rejected { reason: "channel_not_found".to_owned() });
    let shown = cache.store.read(|tx| tx.shown(&put)).expect("a read");
    assert_eq!(shown, Shown::Refused("channel_not_found".to_owned()));
    let now = cache.now;
    cache.store.write(|tx| tx.decide(put.key, &Answer::withdrawn("why", now), now)).expect("a write");
    assert!(claimed(&mut cache).is_none());
}

#[test]
fn votes_are_the_words_that_count_and_several_edits_are_one() {
    let mut cache = Cache::new();
    let put = put(&mut cache, None);
    let now = cache.now;
    let note = |cache: &mut Cache, user: &str, counts: bool| {
        let vote = Vote { word: Word::Approve, user_id: Some(user.to_owned()) };
        let intervention = Intervention {
            id: uuid::Uuid::new_v4(),
            kind: "approve".to_owned(),
            source: "click".to_owned(),
            user_id: Some(user.to_owned()),
            user_name: None,
            details: serde_json::json!({}),
            at: now,
        };
        let vote = counts.then_some(&vote);
        let noted = cache.store.write(|tx| {
            tx.note_intervention(put.task, Some(put.key), &intervention, vote)?;
            tx.edit_question(put.key, Priority::Routine, now)
        });
        noted.expect("a write");
    };
    note(&mut cache, "U1", true);
    note(&mut cache, "U2", false);
    note(&mut cache, "U3", true);
    let (votes, all, edits) = cache
        .store
        .read(|tx| {
            let votes = tx.question(put.asked.question.id)?.map(|put| put.asked.votes).unwrap_or_default();
            let edits: i64 =
                tx.connection
                    .query_row("SELECT count(*) FROM entries WHERE kind = 4", [], |row| row.get(0))?;
            Ok((votes, tx.interventions(put.task)?.len(), edits))
        })
        .expect("a read");
    let users: Vec<_> = votes.iter().filter_map(|vote| vote.user_id.as_deref()).collect();
    assert_eq!((users, all, edits), (vec!["U1", "U3"], 3, 1));
}

#[test]
fn a_question_is_forsaken_once_its_asker_is_dead_or_its_time_is_over() {
    let mut cache = Cache::new();
    let me = Watcher::current();
    let mine = put(&mut cache, Some(&me));
    let nobodys = put(&mut cache, None);
    let start = cache.now;
    let forsaken = |cache: &mut Cache, after: u64| {
        let found =
            cache.store.read(|tx| tx.forsaken(usize::MAX, start.plus(seconds(after)))).expect("a read");
        let mut found: Vec<_> = found.into_iter().map(|one| (one.key, one.answer.decision)).collect();
        found.sort_by_key(|(key, _)| *key);
        found
    };
    assert_eq!(forsaken(&mut cache, 30), []);
    // Whoever waits closes it, if there is anybody.
    assert_eq!(forsaken(&mut cache, 61), [(nobodys.key, Decision::TimedOut)]);
    let both = [(mine.key, Decision::TimedOut), (nobodys.key, Decision::TimedOut)];
    assert_eq!(forsaken(&mut cache, 90), both);
    let gone = me.as_str().replace(&format!("|{}|", std::process::id()), &format!("|{}|", i32::MAX));
    let killed = cache.store.write(|tx| {
        Ok(tx.connection.execute("UPDATE questions SET asker = ?1 WHERE asker IS NOT NULL", [gone])?)
    });
    assert_eq!(killed.expect("a write"), 1);
    assert_eq!(forsaken(&mut cache, 1), [(mine.key, Decision::Withdrawn)]);
}

#[cfg(feature = "postgres")]
#[test]
fn nobody_elsewhere_is_asked_after_a_question_that_is_long_over() {
    let mut cache = Cache::new();
    let put = put(&mut cache, None);
    let start = cache.now;
    let mut asking = |after: u64| {
        let found = cache.store.read(|tx| tx.asking_tasks(start.plus(seconds(after)))).expect("a read");
        found.into_iter().map(|(task, _)| task).collect::<Vec<_>>()
    };
    assert_eq!(asking(30), [put.task]);
    // Who came too late is told so.
    assert_eq!(asking(61), [put.task]);
    // Nobody has closed it.
    assert_eq!(asking(180), []);
}

#[test]
fn what_was_heard_is_not_heard_again_and_forgotten_after_a_week() {
    let mut cache = Cache::new();
    let mut hear = |id: &str, at: i64| cache.store.write(|tx| tx.hear(id, Moment(at))).expect("a write");
    let day = 24 * 3600 * 1000;
    assert!(hear("a", 0));
    assert!(!hear("a", day));
    assert!(hear("b", 6 * day));
    assert!(!hear("a", 6 * day));
    assert!(hear("c", 8 * day));
    assert!(hear("a", 8 * day));
    assert!(!hear("b", 8 * day));
}

#[test]
fn one_process_listens_for_an_app_until_its_lease_is_over_or_it_is_dead() {
    let mut cache = Cache::new();
    let start = cache.now;
    let mut take = |owner: &Owner, at: u64| {
        let now = start.plus(seconds(at));
        let taken = cache.store.write(|tx| tx.take_listening("app", owner, now, now.plus(seconds(20))));
        taken.expect("a write")
    };
    let (one, other) = (Owner::current(start), Owner::current(start.plus(seconds(1))));
    assert!(take(&one, 0));
    assert!(take(&one, 10), "it may be prolonged");
    assert!(!take(&other, 20));
    assert!(take(&other, 30), "it is over");
    assert!(!take(&one, 31));
    let dead = cache.store.write(|tx| {
        let gone = one.as_str().replace(&format!("/{}/", std::process::id()), &format!("/{}/", i32::MAX));
        Ok(tx.connection.execute("UPDATE listeners SET owner = ?1", params![gone])?)
    });
    assert_eq!(dead.expect("a write"), 1);
    let now = start.plus(seconds(32));
    assert!(
        cache.store.write(|tx| tx.take_listening("app", &one, now, now.plus(seconds(20)))).expect("a write")
    );
}
