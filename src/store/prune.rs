//! Retention: deletes a little of what is old with every write, so that no call ever has to delete much.

use rusqlite::{OptionalExtension, params};

use super::{StoreError, Tx};
use crate::checkpoint::time::Moment;

/// How many rows of a table one call may delete; more than it adds, so that pruning keeps up.
const ROWS: i64 = 8;
/// How many rows of a table one call may look at.
const WINDOW: i64 = 64;

/// Before every key: tasks of other machines that are over come before all others.
const FIRST: i64 = i64::MIN;

/// A table whose rows grow old in the order of their keys.
struct Table {
    name: &'static str,
    /// When a row was made.
    born: &'static str,
    /// Which of the rows made before `?3` may go.
    settled: &'static str,
    /// A database that refused a row did so under its key times this.
    refused_by: Option<i64>,
}

/// Checkpoints first: a task goes only after its last checkpoint.
const TABLES: [Table; 6] = [
    Table {
        name: "checkpoints",
        born: "created_at_ms",
        settled: "created_at_ms < ?3 AND delivery NOT IN ('queued', 'unconfirmed')
             AND key < (SELECT max(key) FROM checkpoints)
             AND NOT EXISTS (SELECT 1 FROM audits WHERE after < checkpoints.key AND used_at_ms >= ?3)
             AND NOT EXISTS (SELECT 1 FROM entries
                             WHERE task = checkpoints.task AND checkpoint = checkpoints.key AND state < 2)",
        refused_by: Some(1),
    },
    // What was refused for good and never sent again.
    Table {
        name: "entries",
        born: "created_at_ms",
        settled: "created_at_ms < ?3 AND state = 2",
        refused_by: None,
    },
    Table {
        name: "questions",
        born: "created_at_ms",
        settled: "created_at_ms < ?3 AND answer IS NOT NULL",
        refused_by: None,
    },
    Table {
        name: "interventions",
        born: "created_at_ms",
        settled: "created_at_ms < ?3 AND key < (SELECT max(key) FROM interventions)
             AND NOT EXISTS (SELECT 1 FROM audits WHERE after_intervention < interventions.key AND used_at_ms >= ?3)",
        refused_by: Some(-1),
    },
    // A request stands until its task ends.
    Table {
        name: "requests",
        born: "created_at_ms",
        settled: "created_at_ms < ?3 AND NOT EXISTS (SELECT 1 FROM tasks WHERE key = requests.task AND state = 'running')",
        refused_by: None,
    },
    // An agent that fell silent without an end is forgotten with the last of its checkpoints.
    Table {
        name: "tasks",
        born: "started_at_ms",
        settled: "updated_at_ms < ?3
             AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE task = tasks.key)
             AND NOT EXISTS (SELECT 1 FROM interventions WHERE task = tasks.key)
             AND NOT EXISTS (SELECT 1 FROM entries WHERE task = tasks.key AND state < 2)",
        refused_by: None,
    },
];

impl Tx<'_> {
    /// Deletes a few of the rows from before `before`, sparing all that still waits; says whether there are any.
    pub(crate) fn prune(&self, before: Moment) -> Result<bool, StoreError> {
        // The oldest rows have the lowest keys, so that one look at the first tells whether there is any work.
        let oldest: Option<i64> = self
            .connection
            .query_row("SELECT created_at_ms FROM checkpoints ORDER BY key LIMIT 1", [], |row| row.get(0))
            .optional()?;
        let is_due = oldest.is_some_and(|created_at| created_at < before.0);
        if is_due {
            for table in &TABLES {
                self.prune_table(table, before)?;
            }
        }
        Ok(is_due)
    }

    /// Goes on where the last call stopped, and begins again once it meets what is not old yet: rows that must stay
    /// hold up nothing behind them.
    fn prune_table(&self, table: &Table, before: Moment) -> Result<(), StoreError> {
        let Table { name, born, settled, refused_by } = table;
        let after: i64 = self
            .connection
            .query_row("SELECT after FROM prunings WHERE name = ?1", [name], |row| row.get(0))
            .optional()?
            .unwrap_or(FIRST);
        let window = format!("SELECT key, {born} FROM {name} WHERE key > ?1 ORDER BY key LIMIT ?2");
        let mut statement = self.connection.prepare(&window)?;
        let window: Vec<(i64, i64)> = statement
            .query_map(params![after, WINDOW], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let Some(&(last, _)) = window.last() else { return self.prune_after(name, after, FIRST) };
        let delete = format!(
            "DELETE FROM {name} WHERE key IN
                 (SELECT key FROM {name} WHERE key > ?1 AND key <= ?2 AND {settled} ORDER BY key LIMIT ?4)
             RETURNING key"
        );
        let deleted: Vec<i64> = self
            .connection
            .prepare(&delete)?
            .query_map(params![after, last, before.0, ROWS], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        // Not before: without it a row that is there would count as one that the database has.
        let forget =
            "DELETE FROM audit_refusals WHERE database IN (SELECT database FROM audits) AND checkpoint = ?1";
        for key in deleted.iter().filter_map(|key| Some(key * (*refused_by)?)) {
            self.connection.execute(forget, [key])?;
        }
        let has_more = i64::try_from(deleted.len()) == Ok(ROWS);
        let at_the_end = (window.len() as i64) < WINDOW || window.iter().any(|(_, born)| *born >= before.0);
        let next = match () {
            () if has_more => after,
            () if at_the_end => FIRST,
            () => last,
        };
        self.prune_after(name, after, next)
    }

    fn prune_after(&self, name: &str, after: i64, next: i64) -> Result<(), StoreError> {
        if next != after {
            self.connection.execute(
                "INSERT INTO prunings (name, after) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET after = ?2",
                params![name, next],
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Store;

    const OLD: i64 = 1_000;
    const BEFORE: Moment = Moment(5_000);
    const YOUNG: i64 = 9_000;

    /// A cache with these tasks (started at, updated at) and checkpoints (task, delivery, created at), keys from 1.
    fn cache(tasks: &[(i64, i64)], checkpoints: &[(i64, &str, i64)]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Store::open_at(&dir.path().join("cache.db"), Duration::from_secs(5)).expect("a cache");
        let mut store = opened.store;
        let filled = store.write(|tx| {
            for (started_at, updated_at) in tasks {
                tx.connection.execute(
                    "INSERT INTO tasks (id, agent_id, task_type, state, snapshot, started_at_ms, updated_at_ms)
                     VALUES ('t', 'a', 'task', 'running', '{}', ?1, ?2)",
                    params![started_at, updated_at],
                )?;
            }
            for (task, delivery, created_at) in checkpoints {
                tx.connection.execute(
                    "INSERT INTO checkpoints (task, id, status, progress, context_limit, elapsed_ms, delivery,
                         created_at_ms)
                     VALUES (?1, 'c', 'working', 0, 1, 0, ?2, ?3)",
                    params![task, delivery, created_at],
                )?;
            }
            Ok(())
        });
        filled.expect("rows");
        (dir, store)
    }

    fn prune(store: &mut Store, times: usize) {
        for _ in 0..times {
            store.write(|tx| tx.prune(BEFORE)).expect("pruned");
        }
    }

    fn keys(store: &mut Store, table: &str) -> Vec<i64> {
        let found = store.read(|tx| {
            let mut statement =
                tx.connection.prepare(&format!("SELECT key FROM {table} ORDER BY key")).expect("a table");
            let keys = statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>()?;
            Ok(keys)
        });
        found.expect("keys")
    }

    #[test]
    fn old_rows_go_a_few_at_a_time_and_young_ones_stay() {
        let mut checkpoints = vec![(1, "sent", OLD); 20];
        checkpoints.push((2, "sent", YOUNG));
        let (_dir, mut store) = cache(&[(OLD, OLD), (OLD, YOUNG)], &checkpoints);
        prune(&mut store, 1);
        assert_eq!(keys(&mut store, "checkpoints"), (9..=21).collect::<Vec<_>>());
        assert_eq!(keys(&mut store, "tasks"), [1, 2], "a task stays as long as its checkpoints");
        prune(&mut store, 2);
        assert_eq!((keys(&mut store, "checkpoints"), keys(&mut store, "tasks")), (vec![21], vec![2]));
    }

    #[test]
    fn what_must_stay_holds_up_nothing_behind_it() {
        let mut checkpoints = vec![(1, "queued", OLD); 200];
        checkpoints.extend([(2, "sent", OLD); 30]);
        checkpoints.push((3, "sent", YOUNG));
        let (_dir, mut store) = cache(&[(OLD, OLD), (OLD, OLD), (OLD, YOUNG)], &checkpoints);
        prune(&mut store, 30);
        assert_eq!(keys(&mut store, "checkpoints"), (1..=200).chain([231]).collect::<Vec<_>>());
        assert_eq!(keys(&mut store, "tasks"), [1, 3]);
        // Once it is settled it goes as well.
        store
            .write(|tx| {
                Ok(tx.connection.execute("UPDATE checkpoints SET delivery = 'sent'", []).map(|_| ())?)
            })
            .expect("settled");
        prune(&mut store, 60);
        assert_eq!(keys(&mut store, "checkpoints"), [231]);
    }

    #[test]
    fn the_latest_checkpoint_stays_so_that_no_later_one_gets_its_key() {
        let (_dir, mut store) = cache(&[(OLD, OLD)], &[(1, "sent", OLD), (1, "sent", OLD)]);
        prune(&mut store, 5);
        assert_eq!(keys(&mut store, "checkpoints"), [2]);
    }

    #[test]
    fn what_a_database_in_use_does_not_have_waits_for_it() {
        let rows = vec![(1, "sent", OLD); 20];
        let audits = |used_at: i64| {
            format!(
                "INSERT INTO audits (database, cache, after, used_at_ms) VALUES ('d', 'c', 10, {used_at})"
            )
        };
        for (used_at, left) in [(YOUNG, (11..=20).collect::<Vec<i64>>()), (OLD, vec![20])] {
            let (_dir, mut store) = cache(&[(OLD, OLD)], &rows);
            store.write(|tx| Ok(tx.connection.execute(&audits(used_at), []).map(|_| ())?)).expect("a trail");
            prune(&mut store, 9);
            assert_eq!(keys(&mut store, "checkpoints"), left, "used at {used_at}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_row_that_a_database_refused_counts_as_refused_as_long_as_it_is_there() {
        let (_dir, mut store) =
            cache(&[(OLD, OLD)], &[(1, "queued", OLD), (1, "sent", OLD), (1, "sent", YOUNG)]);
        let trail = "INSERT INTO audits (database, cache, after, used_at_ms) VALUES ('d', 'c', 3, 9000)";
        let refuse = "INSERT INTO audit_refusals (database, checkpoint, reason, created_at_ms)
            VALUES ('d', 1, 'no', 1000), ('d', 2, 'no', 1000), ('d', 3, 'no', 1000)";
        for sql in [trail, refuse] {
            store.write(|tx| Ok(tx.connection.execute(sql, []).map(|_| ())?)).expect("refusals");
        }
        prune(&mut store, 3);
        assert_eq!(keys(&mut store, "checkpoints"), [1, 3]);
        let said = store.read(|tx| {
            let has = [1, 3].map(|key| tx.is_audited("d", crate::checkpoint::id::CheckpointKey(key)));
            Ok((has.map(|has| has.expect("an answer")), tx.unsent_audit("d")?.refused))
        });
        assert_eq!(said.expect("an answer"), ([false, false], 2));
    }

    #[test]
    fn what_was_refused_is_forgotten_and_what_waits_is_not() {
        let (_dir, mut store) = cache(&[(OLD, OLD)], &[(1, "rejected", OLD), (1, "coalesced", OLD)]);
        let entries =
            "INSERT INTO entries (task, kind, priority, state, checkpoint, due_at_ms, created_at_ms) VALUES
            (1, 0, 0, 2, 1, 0, 1000), (1, 0, 0, 0, 2, 0, 1000)";
        store.write(|tx| Ok(tx.connection.execute(entries, []).map(|_| ())?)).expect("entries");
        prune(&mut store, 3);
        assert_eq!(keys(&mut store, "entries"), [2]);
        assert_eq!(keys(&mut store, "checkpoints"), [2]);
        assert_eq!(keys(&mut store, "tasks"), [1]);
    }
}
