//! Watchers: the process that reports a task's end, and how to tell that it never will.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, gethostname};
use rusqlite::{OptionalExtension, params};

use super::lease::namespace;
use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::Task;
use crate::checkpoint::id::{TaskId, TaskKey};
use crate::checkpoint::outbox::Waiting;
use crate::checkpoint::time::Moment;

/// Of a task that nobody answers for any more: nobody hears of its button either.
const UNWATCHED: &str = "watcher = NULL, snapshot = json_remove(snapshot, '$.cancel')";

/// A process that no other process can be taken for: `HOST|BOOT|PROCESS-NAMESPACE|PID|START`.
///
/// A pid is given to another process sooner or later, so that the time it started belongs to it; both begin anew with
/// the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watcher(String);

/// A running task whose watcher has ended.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) task: Task,
    pub(crate) waiting: Vec<Waiting>,
    /// In words, for people.
    pub(crate) reason: String,
}

impl Watcher {
    /// This process.
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        let start = match look(&pid.to_string()) {
            Sight::Alive { start } => start,
            Sight::Ended | Sight::Nothing => String::new(),
        };
        let Here { host, boot, namespace } = Here::look();
        Self(format!("{host}|{boot}|{namespace}|{pid}|{start}"))
    }

    /// A process as the cache keeps it.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Why the process is certain to have ended; `None` if it lives, or lived where we cannot see.
    pub(super) fn obituary(&self, here: &Here) -> Option<String> {
        let parts: Vec<&str> = self.0.split('|').collect();
        let [on, booted, place, pid, start] = parts[..] else { return None };
        if on != here.host {
            return None;
        }
        if booted != here.boot {
            return Some(format!("{on} was restarted"));
        }
        if place != here.namespace {
            return None;
        }
        let is_gone = match look(pid) {
            Sight::Alive { start: now } => now != start,
            Sight::Ended => true,
            Sight::Nothing => {
                pid.parse().is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
            }
        };
        is_gone.then(|| format!("process {pid} on {on} ended without a word"))
    }
}

/// Where this process runs. Not looked up again for each of many watchers.
pub(super) struct Here {
    host: String,
    /// What tells one run of this machine from the next; the same for all, where the system does not say.
    boot: String,
    namespace: String,
}

impl Here {
    pub(super) fn look() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            host: gethostname().map(|name| name.to_string_lossy().replace('|', "_")).unwrap_or_default(),
            boot: boot.map(|id| id.trim().to_owned()).unwrap_or_default(),
            namespace: namespace(),
        }
    }
}

/// What the system shows of a process.
enum Sight {
    /// It runs, and started then, in ticks since boot.
    Alive { start: String },
    /// It only waits to be collected by its parent.
    Ended,
    /// It is not there, or not for us to see, or the system does not say.
    Nothing,
}

/// proc_pid_stat(5): the third field is the state, the 22nd the start, counted behind the name, which may itself hold
/// anything.
fn look(pid: &str) -> Sight {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    match (fields.first(), fields.get(19)) {
        (Some(&"Z" | &"X"), _) => Sight::Ended,
        (Some(_), Some(start)) => Sight::Alive { start: (*start).to_owned() },
        _ => Sight::Nothing,
    }
}

impl Tx<'_> {
    /// From now on this process answers for the task.
    pub(crate) fn watch(&self, task: TaskKey, watcher: &Watcher, now: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET watcher = ?2, seen_at_ms = ?3 WHERE key = ?1",
            params![task.0, watcher.0, now.0],
        )?;
        Ok(())
    }

    /// Who answers for a wrapped command's task, and whoever that one was started from, is the same for a task that
    /// the command has opened after it.
    pub(crate) fn follow(&self, wrapped: TaskId, task: TaskKey, now: Moment) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE tasks SET (watcher, parent, seen_at_ms) = (first.watcher, first.parent, ?3)
             FROM (SELECT watcher, parent FROM tasks
                   WHERE key = coalesce((SELECT key FROM tasks WHERE id = ?2), (SELECT key FROM tasks WHERE shared_id = ?2))) AS first WHERE key = ?1",
            params![task.0, wrapped.to_string(), now.0],
        )?;
        Ok(())
    }

    /// The latest task that the process answers for.
    pub(crate) fn watched(&self, watcher: &Watcher) -> Result<Option<(TaskKey, TaskId)>, StoreError> {
        let sql = "SELECT key, id FROM tasks WHERE watcher = ?1 ORDER BY +key DESC LIMIT 1";
        let found = self
            .connection
            .query_row(sql, [&watcher.0], |row| Ok((TaskKey(row.get(0)?), TaskId(rows::uuid(row, 1)?))));
        Ok(found.optional()?)
    }

    /// The latest task of the agent that somebody answers for, and whether it has joined somebody's thread.
    pub(crate) fn watched_of(&self, agent_id: &str) -> Result<Option<(TaskId, bool)>, StoreError> {
        let sql = "SELECT id, joined FROM tasks WHERE agent_id = ?1 AND watcher IS NOT NULL
                   ORDER BY key DESC LIMIT 1";
        let found =
            self.connection.query_row(sql, [agent_id], |row| Ok((TaskId(rows::uuid(row, 0)?), row.get(1)?)));
        Ok(found.optional()?)
    }

    /// The process no longer answers for any task; another one that has taken one over still does.
    pub(crate) fn leave(&self, watcher: &Watcher) -> Result<(), StoreError> {
        let sql = format!("UPDATE tasks SET {UNWATCHED} WHERE watcher = ?1");
        self.connection.execute(&sql, [&watcher.0])?;
        Ok(())
    }

    /// Nobody answers for the task any more.
    pub(crate) fn unwatch(&self, task: TaskKey) -> Result<(), StoreError> {
        let sql = format!("UPDATE tasks SET {UNWATCHED} WHERE key = ?1");
        self.connection.execute(&sql, [task.0])?;
        Ok(())
    }

    /// Whether the process answers for a running task, or for an open question of its own.
    pub(crate) fn answers_for_anything(&self, watcher: &Watcher) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE watcher = ?1 AND state = 'running')
                       OR EXISTS (SELECT 1 FROM questions WHERE answer IS NULL AND asker = ?1)";
        Ok(self.connection.query_row(sql, [&watcher.0], |row| row.get(0))?)
    }

    /// Whether another living process answers for the task.
    pub(crate) fn is_watched(&self, task: TaskKey) -> Result<bool, StoreError> {
        let watcher: Option<String> =
            self.connection
                .query_row("SELECT watcher FROM tasks WHERE key = ?1", [task.0], |row| row.get(0))?;
        Ok(watcher.is_some_and(|watcher| Watcher(watcher).obituary(&Here::look()).is_none()))
    }

    /// Whether any process answers for a running task, or any question is open: without either nothing can have been left
    /// behind.
    pub(crate) fn anybody_is_answered_for(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE watcher IS NOT NULL AND state = 'running')
                       OR EXISTS (SELECT 1 FROM questions WHERE answer IS NULL)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// Running tasks whose watcher has ended, among the `limit` that gave no sign of life for the longest time: the
    /// dead sink to that end of the list.
    pub(crate) fn orphans(&self, limit: usize) -> Result<Vec<Orphan>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT key, watcher FROM tasks WHERE watcher IS NOT NULL AND state = 'running'
             ORDER BY seen_at_ms LIMIT ?1",
        )?;
        let watched: Vec<(i64, String)> = statement
            .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        if watched.is_empty() {
            return Ok(Vec::new());
        }
        let here = Here::look();
        let mut orphans = Vec::new();
        for (key, watcher) in watched {
            let Some(reason) = Watcher(watcher).obituary(&here) else { continue };
            let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
            let task = self.connection.query_row(&sql, [key], rows::task)?;
            orphans.push(Orphan { task, waiting: self.waiting(TaskKey(key))?, reason });
        }
        Ok(orphans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_certain_to_have_ended_has_an_obituary() {
        let Watcher(me) = Watcher::current();
        let parts: Vec<&str> = me.split('|').collect();
        let with = |index: usize, value: &str| {
            let mut parts = parts.clone();
            parts[index] = value;
            Watcher(parts.join("|")).obituary(&Here::look())
        };
        assert_eq!(Watcher(me.clone()).obituary(&Here::look()), None);
        assert_eq!(with(0, "elsewhere"), None);
        assert_eq!(with(1, "an-earlier-boot"), Some(format!("{} was restarted", parts[0])));
        assert_eq!(with(2, "another-namespace"), None);
        let gone = i32::MAX.to_string();
        assert_eq!(with(3, &gone), Some(format!("process {gone} on {} ended without a word", parts[0])));
        #[cfg(target_os = "linux")]
        assert!(with(4, "1").is_some(), "another process has got the number");
        assert_eq!(Watcher("rubbish".to_owned()).obituary(&Here::look()), None);
    }
}
