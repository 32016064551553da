//! Reports: which tasks are found, and what is said of their messages.

use super::*;
use crate::checkpoint::outbox::EntryKind;
use crate::checkpoint::status::TaskState;
use crate::pace;

fn agents(cache: &mut Cache, filter: Filter) -> Vec<String> {
    let found = cache.store.read(|tx| tx.list(&filter)).expect("a list");
    found.into_iter().map(|report| report.task.agent_id).collect()
}

/// Agents whose names say how their tasks stand.
fn filled() -> Cache {
    let mut cache = Cache::new();
    cache.threaded("running");
    for (agent, status) in
        [("failed", Status::Error), ("completed", Status::Complete), ("cancelled", Status::Cancelled)]
    {
        cache.say(agent, status);
        let job = cache.job(&owner(1));
        cache.posted(&job, &owner(1), "1.1");
        cache.pass(seconds(10));
    }
    cache.say("waiting", Status::Blocked);
    cache.pass(seconds(10));
    cache.record(Draft { channel: Some("#old".to_owned()), ..Draft::of("refused", Status::Working) });
    let by = owner(1);
    let refused = cache.entries().len() as i64;
    let task = cache.store.read(|tx| tx.find("refused")).expect("a search").expect("a task").task.key;
    assert!(refused > 0);
    let Claim::Job(job) = cache.claim_as(&by, |want| want.scope = Scope::Task(task.expect("stored"))) else {
        panic!("nothing to send")
    };
    cache.settle(&job, &by, &Settlement::Rejected { reason: "is_archived".to_owned() });
    cache
}

#[test]
fn lists_the_latest_change_first_and_filters() {
    let mut cache = filled();
    let all = Filter { state: None, waiting: false, limit: 100 };
    assert_eq!(
        agents(&mut cache, all),
        ["refused", "waiting", "cancelled", "completed", "failed", "running"]
    );
    for state in TaskState::ALL {
        let found = agents(&mut cache, Filter { state: Some(state), ..all });
        let expected = match state {
            TaskState::Running => vec!["refused", "waiting", "running"],
            // No cache has such.
            TaskState::Pending | TaskState::Approved => Vec::new(),
            other => vec![other.name()],
        };
        assert_eq!(found, expected, "{state:?}");
    }
    assert_eq!(agents(&mut cache, Filter { limit: 2, ..all }), ["refused", "waiting"]);
    assert_eq!(agents(&mut cache, Filter { limit: 0, ..all }), [""; 0]);
    assert_eq!(agents(&mut cache, Filter { limit: u64::MAX, ..all }).len(), 6);
    assert_eq!(agents(&mut cache, Filter { waiting: true, ..all }), ["refused", "waiting"]);
    let both = Filter { waiting: true, state: Some(TaskState::Completed), ..all };
    assert_eq!(agents(&mut cache, both), [""; 0]);
}

#[test]
fn finds_an_agents_latest_task_or_any_task_by_its_id() {
    let mut cache = Cache::new();
    let first = cache.say("a", Status::Complete).task;
    let second = cache.say("a", Status::Starting).task;
    let find = |cache: &mut Cache, text: &str| {
        cache.store.read(|tx| tx.find(text)).expect("a search").and_then(|report| report.task.key)
    };
    assert_eq!(find(&mut cache, "a"), Some(second));
    let id = cache.task(first).id.to_string();
    assert_eq!(find(&mut cache, &id), Some(first));
    for nobody in ["", "b", "A", "%", "a' OR '1'='1"] {
        assert_eq!(find(&mut cache, nobody), None, "{nobody}");
    }
    // An agent that calls itself like a task goes first: that is what was typed.
    let third = cache.say(&id, Status::Starting).task;
    assert_eq!(find(&mut cache, &id), Some(third));
}

#[test]
fn says_what_waits_since_when_and_why() {
    let mut cache = filled();
    let report = |cache: &mut Cache, agent: &str| {
        let found = cache.store.read(|tx| tx.find(agent)).expect("a search").expect("a task");
        (found.checkpoints, found.waiting, found.rejected)
    };
    assert_eq!(report(&mut cache, "running"), (1, None, None));
    let wait = |count, due_at, since, reason: Option<&str>| Wait {
        count,
        kind: EntryKind::Post,
        due_at,
        since,
        reason: reason.map(str::to_owned),
    };
    let said = NOW.plus(seconds(40));
    assert_eq!(report(&mut cache, "waiting"), (1, Some(wait(1, said, said, None)), None));
    let refused = said.plus(seconds(10));
    let is_archived = wait(1, refused, refused, Some("is_archived"));
    assert_eq!(report(&mut cache, "refused"), (1, None, Some(is_archived.clone())));

    // A second message waits, and the first fails: the earliest moments and the latest reason are told.
    cache.say("waiting", Status::Error);
    let job = cache.job(&owner(1));
    let at = cache.now.plus(seconds(5));
    cache.settle(
        &job,
        &owner(1),
        &Settlement::Retry { at, reason: "timed out".to_owned(), maybe_sent: true, via: None },
    );
    let waiting = wait(2, cache.now, said, Some("timed out"));
    assert_eq!(report(&mut cache, "waiting"), (2, Some(waiting.clone()), None));

    let problems = cache.store.read(|tx| tx.problems()).expect("problems");
    assert_eq!((problems.waiting, problems.rejected), (Some(waiting), vec![is_archived]));
}

#[test]
fn an_empty_cache_has_nothing_to_tell() {
    let mut cache = Cache::new();
    assert_eq!(agents(&mut cache, Filter { state: None, waiting: false, limit: 100 }), [""; 0]);
    let problems = cache.store.read(|tx| tx.problems()).expect("problems");
    assert_eq!((problems.waiting, problems.rejected), (None, vec![]));
}

#[test]
fn refusals_are_told_by_reason_the_commonest_first() {
    let mut cache = Cache::new();
    for (agent, reason) in [("a", "is_archived"), ("b", "invalid_auth"), ("c", "invalid_auth")] {
        cache.say(agent, Status::Working);
        let job = cache.job(&owner(1));
        cache.settle(&job, &owner(1), &Settlement::Rejected { reason: reason.to_owned() });
    }
    let problems = cache.store.read(|tx| tx.problems()).expect("problems");
    let told: Vec<_> = problems
        .rejected
        .iter()
        .map(|wait| (wait.count, wait.reason.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(told, [(2, "invalid_auth"), (1, "is_archived")]);
}

#[test]
fn a_look_from_outside_changes_nothing_and_sees_what_was_committed() {
    let mut cache = Cache::new();
    cache.say("a", Status::Working);
    let before = fs::read(cache.path()).expect("the file");
    let found = Store::peek(&cache.path(), |tx| tx.stored(&Draft::of("a", Status::Working))).expect("a look");
    assert_eq!(found.task.map(|task| task.snapshot.status), Some(Status::Working));
    assert_eq!(fs::read(cache.path()).expect("the file"), before);
    assert!(
        Store::peek(&cache.dir.path().join("nowhere.db"), |tx| tx.stored(&Draft::of("a", Status::Working)))
            .is_err()
    );
    assert!(!cache.dir.path().join("nowhere.db").exists());
}

#[test]
fn what_holds_everyone_back_is_the_reason_while_it_lasts() {
    let mut cache = Cache::new();
    cache.say("waiting", Status::Working);
    let (now, until) = (cache.now, cache.now.plus(seconds(20)));
    let told = |cache: &mut Cache, now| {
        let wait = cache.store.read(|tx| {
            let mut wait = tx.problems()?.waiting.expect("a message that waits");
            tx.hold_back(&mut wait, &link(1), now)?;
            Ok(wait)
        });
        wait.map(|wait| (wait.due_at, wait.reason)).expect("a cache")
    };
    for (hold, why) in [
        (pace::network_hold(&link(1)), Some("Slack could not be reached")),
        (pace::method_hold(&workspace(1), EntryKind::Post), Some("Slack asked everyone to wait")),
        (pace::method_hold(&workspace(1), EntryKind::Card), None),
        (pace::network_hold(&link(2)), None),
    ] {
        cache.store.write(|tx| tx.hold(&hold, until, NOW)).expect("a hold");
        let due_at = if why.is_some() { until } else { now };
        assert_eq!(told(&mut cache, now), (due_at, why.map(str::to_owned)), "{hold}");
        assert_eq!(told(&mut cache, until), (now, None), "{hold}");
        cache.store.write(|tx| tx.lift(&hold)).expect("no hold");
    }
}
