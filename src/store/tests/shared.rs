//! Tasks that other machines speak for as well: what they said since, their card, and its button.

use super::*;
use crate::checkpoint::Cancel;
use crate::checkpoint::audit::SharedTask;

/// The task as another machine has said a moment later.
fn said_there(cache: &mut Cache, key: TaskKey, status: Status) -> SharedTask {
    let mut task = cache.task(key);
    task.snapshot.status = status;
    task.updated_at = cache.now.plus(seconds(1));
    SharedTask { task, latest: None }
}

fn stand_as(cache: &mut Cache, key: TaskKey, theirs: &SharedTask) {
    let mine = cache.task(key);
    cache.write(|tx| tx.stand_as(key, &mine, theirs));
}

#[test]
fn what_waits_is_told_as_it_was_said_unless_something_newer_is_said_here() {
    for is_followed in [false, true] {
        let mut cache = Cache::new();
        let key = cache.threaded("a");
        cache.say("a", Status::Planning);
        let theirs = said_there(&mut cache, key, Status::Blocked);
        stand_as(&mut cache, key, &theirs);
        assert_eq!(cache.task(key).snapshot.status, Status::Blocked);
        if is_followed {
            cache.pass(seconds(2));
            cache.say("a", Status::Working);
        }
        cache.pass(INTERVAL);
        let job = cache.job(&owner(1));
        let told = if is_followed { Status::Working } else { Status::Planning };
        assert_eq!((job.kind, job.snapshot.status), (EntryKind::Post, told));
    }
}

#[test]
fn of_a_button_of_ours_we_know_whether_it_is_there_and_of_another_they_do() {
    let (ours, theirs) = (Some("ours".to_owned()), Some("theirs".to_owned()));
    // (here, there, then)
    for (here, there, then) in [
        (&ours, &None, &ours),
        (&ours, &ours, &ours),
        (&None, &ours, &None),
        (&ours, &theirs, &theirs),
        (&theirs, &None, &None),
        (&None, &None, &None),
    ] {
        let mut cache = Cache::new();
        let key = cache.threaded("a");
        let cancel = Cancel { nonce: "ours".to_owned(), approvers: Vec::new() };
        cache.write(|tx| tx.offer_cancel(key, &cancel));
        let mut known = said_there(&mut cache, key, Status::Working);
        let sql = "UPDATE tasks SET snapshot = json_set(snapshot, '$.cancel', ?1)";
        cache.store.connection.execute(sql, [here]).expect("a row");
        known.task.snapshot.cancel.clone_from(there);
        stand_as(&mut cache, key, &known);
        assert_eq!(&cache.task(key).snapshot.cancel, then, "{here:?} {there:?}");
    }
}

#[test]
fn a_heartbeat_that_may_wait_puts_off_no_edit_and_takes_back_no_retry() {
    let mut cache = Cache::new();
    let key = cache.threaded("a");
    let due = |cache: &mut Cache| -> Vec<(Moment, i64)> {
        cache.rows().iter().map(|row| (row.due_at, row.state)).collect()
    };
    let beat = |cache: &mut Cache, wait| {
        let (now, due_at) = (cache.now, cache.now.plus(seconds(wait)));
        cache.write(|tx| tx.beat(key, due_at, now));
    };
    let begun = cache.now;
    beat(&mut cache, 10);
    cache.pass(seconds(5));
    beat(&mut cache, 10);
    assert_eq!(due(&mut cache), [(begun.plus(seconds(10)), 0)], "a later beat does not put it off");
    let now = cache.now;
    cache.write(|tx| tx.hasten_card(key, now));
    assert_eq!(due(&mut cache), [(now, 0)]);
    let job = cache.job(&owner(1));
    beat(&mut cache, 10);
    let later = cache.now.plus(seconds(10));
    assert_eq!(due(&mut cache), [(now, 1), (later, 0)], "one that is on its way stays as it is");
    let at = cache.now.plus(seconds(60));
    let retry = Settlement::Retry { at, reason: "why".to_owned(), maybe_sent: false, via: None };
    cache.settle(&job, &owner(1), &retry);
    let failed = due(&mut cache)[0];
    cache.write(|tx| tx.hasten_card(key, now.plus(seconds(1))));
    beat(&mut cache, 0);
    assert_eq!(due(&mut cache)[0], failed, "Slack asked for that time");
}
