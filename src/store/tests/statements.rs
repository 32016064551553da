//! The cost of a call does not grow with what the cache holds: no statement on its way reads a history through.

use std::sync::{Arc, Mutex};

use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::*;
use crate::checkpoint::Parent;
#[cfg(feature = "postgres")]
use crate::checkpoint::audit::ClockOffset;
#[cfg(feature = "postgres")]
use crate::checkpoint::id::CheckpointKey;
use crate::pace;

impl Cache {
    /// The statements that `work` runs, with their parameters filled in.
    fn traced(&mut self, work: impl FnOnce(&mut Self)) -> Vec<String> {
        let statements = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&statements);
        let note = move |event: TraceEvent<'_>| {
            if let TraceEvent::Stmt(statement, _) = event {
                let sql = statement.expanded_sql().unwrap_or_else(|| statement.sql().into_owned());
                seen.lock().expect("no panic while it was held").push(sql);
            }
        };
        let connection = &mut self.store.connection;
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).expect("a trace");
        work(self);
        let connection = &mut self.store.connection;
        connection.trace_v2(TraceEventCodes::empty(), None::<fn(TraceEvent<'_>)>).expect("no trace");
        let statements = statements.lock().expect("no panic while it was held");
        statements.clone()
    }

    /// How SQLite goes about a statement, one line for each table that it reads.
    fn explain(&self, sql: &str) -> Vec<String> {
        let mut statement = self
            .store
            .connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .expect("a statement that ran");
        let lines = statement.query_map([], |row| row.get(3)).expect("a plan");
        lines.collect::<Result<_, _>>().expect("a plan")
    }
}

/// Everything that `emit` asks of the store but pruning, over a task's life.
fn a_life(cache: &mut Cache) {
    let (by, ours) = (owner(1), workspace(1));
    let send = |cache: &mut Cache, scope| {
        let latest = cache.now.plus(seconds(10));
        let claim = cache.claim_as(&by, |want| (want.scope, want.latest) = (scope, latest));
        let Claim::Job(job) = claim else { return };
        match job.kind {
            EntryKind::Post => cache.posted(&job, &by, "1.1"),
            EntryKind::Card | EntryKind::Note | EntryKind::File | EntryKind::Question => {
                cache.settle(&job, &by, &Settlement::Edited)
            }
        }
    };
    for (status, settles) in [
        (Status::Starting, None),
        (Status::Blocked, None),
        (Status::Working, None),
        (Status::Planning, None),
        (
            Status::Error,
            Some(Settlement::Retry { at: cache.now, reason: "why".to_owned(), maybe_sent: true, via: None }),
        ),
        (Status::Blocked, Some(Settlement::ThreadGone)),
        (Status::Blocked, Some(Settlement::Released { at: cache.now })),
        (Status::Blocked, Some(Settlement::Rejected { reason: "why".to_owned() })),
        (Status::Complete, None),
    ] {
        let tail = (status == Status::Error).then(|| "line\n".repeat(1000));
        let recorded =
            cache.record(Draft { channel: Some("#life".to_owned()), tail, ..Draft::of("life", status) });
        let within = Some(cache.task(recorded.task).id);
        let parent = Some(Parent { task: TaskId::new(cache.now), agent_id: Some("life".to_owned()) });
        cache.record(Draft { parent, ..Draft::of("child", status) });
        cache.record(Draft { within, ..Draft::of("life", status) });
        if let Some(settlement) = settles
            && let Claim::Job(job) = cache.claim_as(&owner(1), |want| want.scope = Scope::Task(recorded.task))
        {
            cache.settle(&job, &owner(1), &settlement);
        }
        send(cache, Scope::Task(recorded.task));
        send(cache, Scope::All);
        let (now, until) = (cache.now, cache.now.plus(seconds(30)));
        cache.write(|tx| {
            tx.delivery_of(recorded.checkpoint)?;
            tx.is_being_sent_by_us(recorded.checkpoint)?;
            tx.task(recorded.task)?;
            tx.anything_waits(&ours)?;
            tx.watch(recorded.task, &Watcher::current(), now)?;
            tx.beat(recorded.task, now, now)?;
            tx.anybody_is_answered_for()?;
            tx.orphans(2)?;
            tx.is_watched(recorded.task)?;
            tx.watched(&Watcher::current())?;
            tx.watched_of("life")?;
            tx.follow(TaskId::new(now), recorded.task, now)?;
            tx.leave(&Watcher::current())?;
            tx.agent_of(TaskId::new(now))?;
            tx.newest(recorded.task)?;
            tx.has_open_posts(Scope::Task(recorded.task))?;
            tx.unwatch(recorded.task)?;
            tx.appoint_courier(link(1).as_str(), &owner(2), now, until)?;
            tx.take_office(link(1).as_str(), &owner(2), &owner(3), until)?;
            tx.stay_in_office(link(1).as_str(), &owner(3), now, until)?;
            tx.leave_office(link(1).as_str(), &owner(3))?;
            tx.failures(&pace::network_hold(&link(1)))?;
            tx.hold(&pace::network_hold(&link(1)), now, NOW)?;
            held_until(tx, EntryKind::Post, true)?;
            tx.lift(&pace::network_hold(&link(1)))
        });
        #[cfg(feature = "postgres")]
        cache.write(|tx| {
            // What comes before is no checkpoint that anybody could read.
            let trail = Trail { after: CheckpointKey(2000), ..tx.trail("audit", now)? };
            tx.known_trail("audit")?;
            tx.trail_waits(&trail)?;
            tx.has_urgent_audit(&trail)?;
            let batch = tx.audit_batch(&trail, 2, 1000)?;
            tx.batch_again(&batch)?;
            tx.audit_of(&trail, recorded.checkpoint)?;
            tx.audited("audit", &batch, ClockOffset(1), now)?;
            tx.is_audited("audit", recorded.checkpoint)?;
            tx.has_news(recorded.task)?;
            tx.await_thread(recorded.task, until)?;
            tx.awaited_threads(now)?;
            tx.asking_tasks(now)?;
            tx.watched_tasks()?;
            tx.mark_passed_on(recorded.task, uuid::Uuid::nil(), "taken")?;
            tx.is_passed_on(recorded.task, uuid::Uuid::nil(), "taken")
        });
        cache.pass(seconds(5));
    }
    cache.record(Draft { new: true, ..Draft::of("life", Status::Starting) });
    cache.record(Draft { new: true, ..Draft::of("life", Status::Starting) });
}

#[test]
fn no_statement_of_a_call_reads_a_table_through() {
    let mut cache = Cache::new();
    // A history, so that the planner has no reason to think that a table is small; and its statistics, if it asks.
    let filled = cache.store.connection.execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO tasks (id, agent_id, task_type, state, snapshot, started_at_ms, updated_at_ms)
             SELECT 'id' || i, 'agent' || i, 'task', 'completed', '{}', 0, 0 FROM n;
             INSERT INTO checkpoints (task, id, status, progress, context_limit, elapsed_ms, created_at_ms, delivery)
             SELECT key, id, 'complete', 100, 1, 0, 0, 'sent' FROM tasks;
             INSERT INTO entries (task, kind, priority, state, checkpoint, due_at_ms, created_at_ms)
             SELECT task, 0, 0, 2, key, 0, 0 FROM checkpoints;",
        );
    filled.expect("a history");
    let statements = cache.traced(a_life);
    let mut explained = 0;
    for sql in &statements {
        let first = sql.split_whitespace().next().unwrap_or_default();
        if matches!(first, "BEGIN" | "COMMIT" | "PRAGMA") || sql.starts_with("--") {
            continue;
        }
        let lines = cache.explain(sql);
        explained += 1;
        for line in &lines {
            // Through an index that holds only what is open, or watched, a scan reads no more than that.
            let reads_all = line.starts_with("SCAN")
                && !line.contains("USING INDEX tasks_watched")
                && !line.contains("USING INDEX entries_open")
                && !line.contains("USING INDEX questions_open")
                && !line.contains("INDEX tasks_with_news")
                && !line.contains("INDEX tasks_awaiting_thread")
                && !line.contains("USING COVERING INDEX entries_open")
                && !line.starts_with("SCAN CONSTANT ROW");
            assert!(!reads_all, "{sql}\n{lines:#?}");
        }
    }
    // The life above touches all of it: recording, claiming, settling, pacing and offices.
    assert!(explained > 150, "{explained} statements");
    for part in [
        "INSERT INTO tasks",
        "UPDATE tasks SET task_type",
        "INSERT INTO checkpoints",
        "INSERT INTO entries",
        "UPDATE entries SET checkpoint",
        "DELETE FROM entries",
        "UPDATE checkpoints SET delivery",
        "UPDATE tasks SET lease_owner",
        "UPDATE tasks SET card = NULL, thread_ts = NULL",
        "INSERT INTO paces",
        "DELETE FROM paces",
        "INSERT INTO couriers",
    ] {
        assert!(statements.iter().any(|sql| sql.contains(part)), "{part} was not run");
    }
}
