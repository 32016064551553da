//! What a database is told, and what becomes of what it refuses.

use super::*;

#[test]
fn a_row_that_is_refused_answers_for_itself_alone() {
    let mut cache = Cache::new();
    for agent in ["a", "b", "c"] {
        cache.record(Draft::of(agent, Status::Starting));
    }
    let mut batch = cache.write(|tx| {
        let trail = tx.trail("audit", NOW)?;
        tx.audit_batch(&trail, 10, 1_000_000)
    });
    assert_eq!((batch.tasks.len(), batch.checkpoints.len()), (3, 3));
    // One has a row, the others only news of their threads.
    batch.checkpoints.truncate(1);
    let (row, news) = batch.halves().expect("two parts");
    assert_eq!((row.tasks.len(), row.checkpoints.len()), (1, 1));
    assert_eq!(row.tasks[0].task.id, row.checkpoints[0].task);
    assert_eq!((news.tasks.len(), news.checkpoints.len()), (2, 0));
    assert_eq!(row.halves(), None);
    let (first, second) = news.halves().expect("two parts");
    assert_eq!((first.tasks.len(), second.tasks.len(), first.halves()), (1, 1, None));
}

#[test]
fn every_row_is_in_one_half() {
    let mut cache = Cache::new();
    for n in 0..5 {
        cache.record(Draft::of(&format!("agent-{n}"), Status::Starting));
    }
    let batch = cache.write(|tx| {
        let trail = tx.trail("audit", NOW)?;
        tx.audit_batch(&trail, 10, 1_000_000)
    });
    let (first, second) = batch.halves().expect("two parts");
    let keys: Vec<_> = first.keys().chain(second.keys()).collect();
    assert_eq!(keys, batch.keys().collect::<Vec<_>>());
    assert_eq!(first.tasks.len() + second.tasks.len(), 5);
}
