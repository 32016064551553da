//! The list of tasks for somebody who asks again and again: what changed since is looked at, not every task.
//!
//! There is no index of the latest changes, which every `emit` would pay for. But whatever changes a task's state or
//! its time adds a checkpoint, and keys of checkpoints grow.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, params};

use super::rows;
use super::{StoreError, TaskReport, Tx};
use crate::checkpoint::Task;
use crate::checkpoint::status::TaskState;

/// How many checkpoints may have come in between; more are not looked through.
const NEW_MAX: i64 = 2000;
/// How many tasks are known beyond those that were asked for, since some will end.
const SPARE: usize = if cfg!(test) { 2 } else { 100 };
/// When all tasks are looked at again in any case.
const LIFE: Duration = Duration::from_secs(30);

/// The latest tasks of a state, as they were.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    /// The latest change first.
    places: Vec<Place>,
    /// Whether there were no others.
    is_whole: bool,
    /// The newest checkpoint then, and when that was; `None` when it was not read yet.
    read: Option<(i64, Instant)>,
}

/// Where a task stands in the list: the later, and of equals the newer, the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    updated_at_ms: Reverse<i64>,
    key: Reverse<i64>,
}

impl Tx<'_> {
    /// The same as [`Tx::list`] gives, for somebody who keeps a roll for each state.
    pub(crate) fn list_by(
        &self,
        roll: &mut Roll,
        state: Option<TaskState>,
        limit: u64,
    ) -> Result<Vec<TaskReport>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut tasks = if self.catch_up(roll, state)? { self.first(roll, limit)? } else { None };
        if tasks.is_none() {
            self.call(roll, state, limit.saturating_add(SPARE))?;
            tasks = self.first(roll, limit)?;
        }
        tasks.unwrap_or_default().into_iter().map(|task| self.report(task)).collect()
    }

    /// Looks at every task.
    fn call(&self, roll: &mut Roll, state: Option<TaskState>, room: usize) -> Result<(), StoreError> {
        let newest = self.newest_checkpoint()?;
        let mut statement = self.connection.prepare(
            "SELECT updated_at_ms, key FROM tasks WHERE ?1 IS NULL OR state = ?1
             ORDER BY updated_at_ms DESC, key DESC LIMIT ?2",
        )?;
        let room_column = i64::try_from(room).unwrap_or(i64::MAX);
        let places: Vec<Place> = statement
            .query_map(params![state.map(TaskState::name), room_column], |row| {
                Ok(Place { updated_at_ms: Reverse(row.get(0)?), key: Reverse(row.get(1)?) })
            })?
            .collect::<Result<_, _>>()?;
        let is_whole = places.len() < room;
        *roll = Roll { places, is_whole, read: Some((newest, Instant::now())) };
        Ok(())
    }

    /// Puts those that have changed since in their places; false if that is not known, or not worth it.
    fn catch_up(&self, roll: &mut Roll, state: Option<TaskState>) -> Result<bool, StoreError> {
        let Some((seen, since)) = roll.read else { return Ok(false) };
        let newest = self.newest_checkpoint()?;
        if since.elapsed() > LIFE || !(seen..=seen.saturating_add(NEW_MAX)).contains(&newest) {
            return Ok(false);
        }
        let changed: Vec<i64> = self
            .connection
            .prepare("SELECT DISTINCT task FROM checkpoints WHERE key > ?1")?
            .query_map([seen], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        // Beyond the last one it is not known who would stand there.
        let last = roll.places.last().copied().filter(|_| !roll.is_whole);
        roll.places.retain(|place| !changed.contains(&place.key.0));
        let sql = "SELECT updated_at_ms FROM tasks WHERE key = ?1 AND (?2 IS NULL OR state = ?2)";
        for key in changed {
            let found =
                self.connection.query_row(sql, params![key, state.map(TaskState::name)], |row| row.get(0));
            let Some(updated_at_ms) = found.optional()? else { continue };
            let place = Place { updated_at_ms: Reverse(updated_at_ms), key: Reverse(key) };
            if roll.is_whole || last.is_some_and(|last| place < last) {
                let index = roll.places.partition_point(|other| *other < place);
                roll.places.insert(index, place);
            }
        }
        roll.read = Some((newest, since));
        Ok(true)
    }

    /// The first of the roll; `None` if there may be more than it has.
    fn first(&self, roll: &mut Roll, limit: usize) -> Result<Option<Vec<Task>>, StoreError> {
        let sql = format!("SELECT {} FROM tasks WHERE key = ?1", rows::TASK);
        let mut tasks = Vec::new();
        while tasks.len() < limit {
            let Some(place) = roll.places.get(tasks.len()) else {
                return Ok(roll.is_whole.then_some(tasks));
            };
            match self.connection.query_row(&sql, [place.key.0], rows::task).optional()? {
                Some(task) => tasks.push(task),
                // Pruned.
                None => drop(roll.places.remove(tasks.len())),
            }
        }
        // What grew too long is known only as far as it is needed.
        let room = limit.saturating_add(2 * SPARE);
        if roll.places.len() > room {
            roll.places.truncate(room);
            roll.is_whole = false;
        }
        Ok(Some(tasks))
    }

    fn newest_checkpoint(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(key), 0) FROM checkpoints";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }
}
