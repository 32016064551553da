//! Tasks that were started from another: notes, files and lists; and the processes that answer for tasks.

use super::*;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::snapshot::ChildTask;
use crate::checkpoint::{Card, Parent};

/// The first checkpoint of an agent that was started from another's task.
fn start_of(cache: &mut Cache, agent_id: &str, parent: TaskKey) -> Recorded {
    let parent = Some(Parent { task: cache.task(parent).id, agent_id: None });
    cache.record(Draft { parent, ..Draft::of(agent_id, Status::Starting) })
}

fn kinds(cache: &mut Cache) -> Vec<EntryKind> {
    cache.rows().iter().map(|row| row.kind).collect()
}

fn retry(at: Moment) -> Settlement {
    Settlement::Retry { at, reason: "why".to_owned(), maybe_sent: true, via: None }
}

/// Takes what can be sent and lets it arrive, until an entry of this kind comes.
#[track_caller]
fn until(cache: &mut Cache, kind: EntryKind) -> Job {
    for number in 1..20 {
        let job = cache.job(&owner(1));
        if job.kind == kind {
            return job;
        }
        match job.kind {
            EntryKind::Card => cache.settle(&job, &owner(1), &Settlement::Edited),
            _ => cache.posted(&job, &owner(1), &format!("{number}.9")),
        }
        cache.pass(seconds(2));
    }
    panic!("no {kind:?} in {:?}", cache.rows());
}

#[test]
fn a_note_goes_once_both_threads_have_begun_and_leads_to_the_childs_card() {
    let mut cache = Cache::new();
    let parent = cache.say("parent", Status::Starting).task;
    let child = start_of(&mut cache, "child", parent);
    assert_eq!(kinds(&mut cache), [EntryKind::Post, EntryKind::Post, EntryKind::Note]);
    let by = owner(1);
    for later in [1, 2] {
        // Neither of the two messages arrives at first.
        for agent_id in ["parent", "child"].into_iter().skip(later - 1) {
            let job = cache.job(&by);
            assert_eq!((job.kind, job.task.agent_id.as_str()), (EntryKind::Post, agent_id));
            let at = cache.now.plus(seconds(5));
            cache.settle(&job, &by, &retry(at));
        }
        assert!(matches!(cache.claim(&by), Claim::Wait { .. }), "a note overtook what it belongs to");
        cache.pass(seconds(6));
        let job = cache.job(&by);
        assert_eq!(job.kind, EntryKind::Post);
        cache.posted(&job, &by, &format!("{later}.0"));
    }
    let job = until(&mut cache, EntryKind::Note);
    let note = job.note.clone().expect("what it says");
    assert_eq!((note.agent_id.as_str(), note.status), ("child", Status::Starting));
    assert_eq!(note.card, Some(("C0AGENTS".to_owned(), "2.0".to_owned())));
    assert_eq!((job.task.key, job.task.thread_ts.as_deref()), (Some(parent), Some("1.0")));
    assert_eq!(job.checkpoint, cache.checkpoints(child.task)[0].id);
}

#[test]
fn what_becomes_of_a_note_or_a_file_changes_neither_thread_nor_card_nor_checkpoints() {
    for kind in [EntryKind::Note, EntryKind::File] {
        let mut cache = Cache::new();
        let parent = cache.threaded("parent");
        let tail = (kind == EntryKind::File).then(|| "line\n".repeat(2000));
        cache.record(Draft { tail, ..Draft::of("parent", Status::Error) });
        if kind == EntryKind::Note {
            start_of(&mut cache, "child", parent);
        }
        let job = until(&mut cache, kind);
        let before = (cache.task(parent), cache.checkpoints(parent), cache.entries().len());
        let now = cache.now;
        cache.settle(&job, &owner(1), &retry(now));
        assert_eq!((cache.task(parent), cache.checkpoints(parent), cache.entries().len()), before);
        let again = until(&mut cache, kind);
        assert_eq!((again.entry, again.attempts, again.maybe_sent), (job.entry, 1, true));
        let (task, checkpoints, entries) =
            (cache.task(parent), cache.checkpoints(parent), cache.entries().len());
        let posted = Settlement::Posted {
            channel_id: Some("C1".to_owned()),
            ts: Some("7.7".to_owned()),
            thread_ts: None,
        };
        let outcome = if kind == EntryKind::Note {
            posted
        } else {
            Settlement::Rejected { reason: "missing_scope".to_owned() }
        };
        cache.settle(&again, &owner(1), &outcome);
        let after = cache.task(parent);
        assert_eq!(Task { last_message_at: task.last_message_at, ..after }, task, "{kind:?}");
        assert_eq!(
            (cache.checkpoints(parent), cache.entries().len()),
            (checkpoints, entries - 1),
            "{kind:?}"
        );
    }
}

#[test]
fn a_tail_too_long_for_its_message_follows_it_as_a_file() {
    let mut cache = Cache::new();
    cache.record(Draft { tail: Some("short".to_owned()), ..Draft::of("a", Status::Error) });
    assert_eq!(kinds(&mut cache), [EntryKind::Post]);
    let tail = "a line of output\n".repeat(500);
    cache.record(Draft { tail: Some(tail.clone()), ..Draft::of("b", Status::Error) });
    assert_eq!(kinds(&mut cache), [EntryKind::Post, EntryKind::Post, EntryKind::File]);
    let first = until(&mut cache, EntryKind::Post);
    cache.posted(&first, &owner(1), "1.0");
    let message = until(&mut cache, EntryKind::Post);
    let at = cache.now.plus(seconds(5));
    cache.settle(&message, &owner(1), &retry(at));
    assert!(matches!(cache.claim(&owner(1)), Claim::Wait { .. }), "the file overtook its message");
    cache.pass(seconds(6));
    let message = until(&mut cache, EntryKind::Post);
    cache.posted(&message, &owner(1), "2.0");
    let file = until(&mut cache, EntryKind::File);
    assert_eq!((file.file, file.task.thread_ts.as_deref()), (Some(tail), Some("2.0")));
}

#[test]
fn a_parents_card_follows_its_children_and_its_thread_hears_of_start_and_end() {
    let mut cache = Cache::new();
    let parent = cache.threaded("parent");
    let child = start_of(&mut cache, "child", parent).task;
    let note = until(&mut cache, EntryKind::Note);
    cache.settle(&note, &owner(1), &Settlement::Posted { channel_id: None, ts: None, thread_ts: None });
    assert_eq!(kinds(&mut cache), [], "its start is told");
    cache.record(Draft { progress: Some(40), ..Draft::of("child", Status::Working) });
    let card =
        |cache: &mut Cache| cache.entries().iter().filter(|(_, row)| row.kind == EntryKind::Card).count();
    assert_eq!(
        (card(&mut cache), kinds(&mut cache).contains(&EntryKind::Note)),
        (1, false),
        "progress is no news"
    );
    let edit = until(&mut cache, EntryKind::Card);
    assert_eq!(edit.task.key, Some(parent));
    let shown = ChildTask { agent_id: "child".to_owned(), status: Status::Working, progress: 40 };
    assert_eq!(edit.snapshot.children, [shown]);
    cache.settle(&edit, &owner(1), &Settlement::Edited);
    for status in [Status::Error, Status::Complete] {
        cache.pass(seconds(40));
        cache.say("child", status);
        let job = until(&mut cache, EntryKind::Note);
        assert_eq!(job.note.as_ref().map(|note| note.status), Some(status));
        cache.posted(&job, &owner(1), "8.8");
        assert!(!kinds(&mut cache).contains(&EntryKind::Note), "one for each end");
    }
    assert_eq!(cache.task(child).parent, Some(parent));
}

#[test]
fn a_card_lists_the_latest_twenty_children_in_the_order_started() {
    let mut cache = Cache::new();
    let parent = cache.threaded("parent");
    for number in 1..=23 {
        start_of(&mut cache, &format!("child{number}"), parent);
    }
    let listed = cache.write(|tx| tx.children(parent));
    let names: Vec<&str> = listed.iter().map(|child| child.agent_id.as_str()).collect();
    assert_eq!((names.len(), names.first(), names.last()), (20, Some(&"child4"), Some(&"child23")));
    // The children's children are not its own.
    let child = cache.store.read(|tx| tx.stored(&Draft::of("child23", Status::Working))).expect("a read");
    let child = child.task.and_then(|task| task.key).expect("a stored task");
    start_of(&mut cache, "grandchild", child);
    assert_eq!(cache.write(|tx| tx.children(parent)).len(), 20);
}

#[test]
fn a_parent_is_found_by_its_tasks_id_or_else_by_its_agent() {
    let mut cache = Cache::new();
    let old = cache.threaded("parent");
    let old_id = cache.task(old).id;
    let new = cache.record(Draft { new: true, ..Draft::of("parent", Status::Starting) }).task;
    let unknown = TaskId::new(NOW);
    let agent = |name: &str| Some(name.to_owned());
    for (task, agent_id, found) in [
        (old_id, None, Some(old)),
        (old_id, agent("parent"), Some(old)),
        (unknown, agent("parent"), Some(new)),
        (unknown, agent("nobody"), None),
        (unknown, None, None),
    ] {
        let parent = Some(Parent { task, agent_id });
        let draft = Draft { parent: parent.clone(), ..Draft::of("child", Status::Starting) };
        let stored = cache.store.read(|tx| tx.stored(&draft)).expect("a read");
        assert_eq!(stored.parent, found, "{parent:?}");
    }
    let agents = cache.write(|tx| Ok((tx.agent_of(old_id)?, tx.agent_of(unknown)?)));
    assert_eq!(agents, (agent("parent").map(|name| (name, false)), None));
}

#[test]
fn a_draft_within_a_task_finds_it_behind_a_later_one() {
    let mut cache = Cache::new();
    let old = cache.threaded("a");
    let within = Some(cache.task(old).id);
    let new = cache.record(Draft { new: true, ..Draft::of("a", Status::Starting) }).task;
    let mut found = |draft: Draft| {
        let stored = cache.store.read(|tx| tx.stored(&draft)).expect("a read");
        stored.task.and_then(|task| task.key)
    };
    assert_eq!(found(Draft::of("a", Status::Working)), Some(new));
    assert_eq!(found(Draft { within, ..Draft::of("a", Status::Working) }), Some(old));
    assert_eq!(found(Draft { within, ..Draft::of("b", Status::Working) }), Some(old));
    let unknown = Some(TaskId::new(NOW));
    assert_eq!(found(Draft { within: unknown, ..Draft::of("a", Status::Working) }), Some(new));
}

#[test]
fn a_beat_refreshes_the_card_that_there_is_and_nothing_else() {
    let mut cache = Cache::new();
    let task = cache.say("a", Status::Starting).task;
    let beat = |cache: &mut Cache| {
        let now = cache.now;
        cache.write(|tx| tx.beat(task, now, now));
    };
    beat(&mut cache);
    assert_eq!(kinds(&mut cache), [EntryKind::Post], "no card yet");
    let job = cache.job(&owner(1));
    cache.posted(&job, &owner(1), "1.0");
    let said = cache.task(task);
    cache.pass(seconds(65));
    beat(&mut cache);
    beat(&mut cache);
    let after = cache.task(task);
    assert_eq!(after.seen_at, Some(cache.now));
    assert_eq!(Task { seen_at: said.seen_at, ..after }, said);
    assert_eq!(cache.checkpoints(task).len(), 1);
    assert_eq!(kinds(&mut cache), [EntryKind::Card]);
    let job = cache.job(&owner(1));
    assert_eq!((job.snapshot.elapsed_ms, job.snapshot.status), (65_000, Status::Starting));
    cache.settle(&job, &owner(1), &Settlement::CardFrozen);
    beat(&mut cache);
    assert_eq!((kinds(&mut cache), cache.task(task).card), (vec![], Card::Frozen));
    // One that has ended shows how long it took.
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    cache.say("a", Status::Complete);
    cache.pass(seconds(100));
    let now = cache.now;
    cache.write(|tx| tx.beat(task, now, now));
    let card = until(&mut cache, EntryKind::Card);
    assert_eq!(card.snapshot.elapsed_ms, 10_000);
}

/// Lets a process answer for a task that has ended meanwhile.
fn leave_to_the_dead(cache: &mut Cache, task: TaskKey, seen_at: Moment) {
    cache.write(|tx| {
        tx.watch(task, &Watcher::current(), seen_at)?;
        let pid = format!("|{}|", std::process::id());
        let sql = "UPDATE tasks SET watcher = replace(watcher, ?2, ?3) WHERE key = ?1";
        tx.connection.execute(sql, rusqlite::params![task.0, pid, format!("|{}|", i32::MAX)])?;
        Ok(())
    });
}

#[test]
fn orphans_are_running_tasks_whose_process_is_gone_the_longest_silent_first() {
    let mut cache = Cache::new();
    let [living, first, second, done, left] =
        ["living", "first", "second", "done", "left"].map(|agent| cache.say(agent, Status::Working).task);
    let now = cache.now;
    cache.write(|tx| tx.watch(living, &Watcher::current(), now.minus(seconds(500))));
    leave_to_the_dead(&mut cache, first, now.minus(seconds(90)));
    leave_to_the_dead(&mut cache, second, now.minus(seconds(60)));
    leave_to_the_dead(&mut cache, done, now.minus(seconds(300)));
    cache.say("done", Status::Complete);
    leave_to_the_dead(&mut cache, left, now.minus(seconds(400)));
    cache.write(|tx| tx.unwatch(left));
    let mut found = |limit: usize| -> Vec<String> {
        let orphans = cache.write(|tx| tx.orphans(limit));
        orphans.iter().map(|orphan| orphan.task.agent_id.clone()).collect()
    };
    assert_eq!(found(usize::MAX), ["first", "second"]);
    // The living are looked at as well.
    assert_eq!((found(0).len(), found(1).len()), (0, 0));
    assert_eq!(found(2), ["first"]);
    // Who leaves does not take from another process what that one has taken over.
    cache.write(|tx| tx.leave(&Watcher::current()));
    assert_eq!(cache.write(|tx| tx.orphans(2)).len(), 2);
    let watched = [living, first, left].map(|task| cache.write(|tx| tx.is_watched(task)));
    assert_eq!(watched, [false, false, false]);
    let orphan = cache.write(|tx| tx.orphans(2)).remove(0);
    assert!(orphan.reason.ends_with("ended without a word"), "{}", orphan.reason);
    assert_eq!(orphan.waiting.len(), 1);
}

#[test]
fn who_answers_for_a_task_answers_for_those_that_its_command_opens_after_it() {
    let mut cache = Cache::new();
    let me = Watcher::current();
    let first = cache.say("a", Status::Working).task;
    let (now, wrapped) = (cache.now, cache.task(first).id);
    cache.write(|tx| tx.watch(first, &me, now));
    let watched = |cache: &mut Cache| cache.write(|tx| tx.watched(&me));
    assert_eq!(watched(&mut cache), Some((first, wrapped)));
    let mut open = |inside| {
        let draft = Draft { new: true, ..Draft::of("a", Status::Working) };
        let task = cache.record(draft).task;
        cache.write(|tx| tx.follow(inside, task, now));
        task
    };
    let (second, third) = (open(wrapped), open(wrapped));
    open(TaskId::new(now));
    let id = cache.task(third).id;
    assert_eq!(watched(&mut cache), Some((third, id)));
    assert!(cache.write(|tx| tx.is_watched(second)));
    assert_eq!(cache.write(|tx| tx.watched_of("a")), Some((id, false)));
    cache.write(|tx| tx.leave(&me));
    assert_eq!((watched(&mut cache), cache.write(|tx| tx.watched_of("a"))), (None, None));
}

#[test]
fn a_lost_task_is_told_once_by_its_own_credential() {
    let mut cache = Cache::new();
    let task = cache.threaded("a");
    let now = cache.now;
    leave_to_the_dead(&mut cache, task, now);
    // Whoever finds it posts elsewhere, or nowhere.
    let policy = Policy { min_interval: INTERVAL, thresholds: Thresholds::default(), route: Route::Off };
    for count in [1, 0] {
        let buried = cache.write(|tx| {
            let orphans = tx.orphans(usize::MAX)?;
            for orphan in &orphans {
                let id = CheckpointId::new(now);
                let append = plan::lose(orphan.task.clone(), &orphan.waiting, "gone", &policy, id, now);
                tx.append(&append, now)?;
                tx.unwatch(task)?;
            }
            Ok(orphans.len())
        });
        assert_eq!(buried, count);
    }
    let last = cache.checkpoints(task).pop().expect("a checkpoint");
    assert_eq!(
        (last.status, last.error.as_deref(), last.delivery),
        (Status::Error, Some("lost (gone)"), Delivery::Queued)
    );
    let job = until(&mut cache, EntryKind::Post);
    assert_eq!((job.task.key, job.task.credential), (Some(task), Some(workspace(1))));
}
