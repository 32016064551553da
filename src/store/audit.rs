//! The audit trail: how far a database has come, what it is to be told next, and what it told us.
//!
//! There is no entry for each row: keys are given out in the order of commits, so that one number says what a database
//! has. What it refuses for good is set aside by key.

use rusqlite::{OptionalExtension, params};

use super::rows;
use super::{StoreError, Tx};
use crate::checkpoint::audit::{
    AuditCheckpoint, AuditIntervention, AuditTask, ClockOffset, Request, SharedTask,
};
use crate::checkpoint::id::{CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::question::{Answer, Question, RequestId};
use crate::checkpoint::time::Moment;
use crate::pace;

/// How often it is written down that a database is in use, in milliseconds: a day.
const USED: i64 = 24 * 3600 * 1000;
/// How many tasks at once are told of again for nothing but their thread.
const NEWS_MAX: i64 = 500;

/// How far a database has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trail {
    /// This cache's name there.
    pub(crate) cache: String,
    /// It has every checkpoint up to this one.
    pub(crate) after: CheckpointKey,
    /// And every intervention up to this one.
    pub(crate) after_intervention: i64,
    /// By how much this machine's clock differed when that was measured last.
    pub(crate) offset: Option<ClockOffset>,
    /// When it was last told something.
    pub(crate) sent_at: Option<Moment>,
}

/// What a database is told at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Batch {
    pub(crate) tasks: Vec<AuditTask>,
    pub(crate) checkpoints: Vec<AuditCheckpoint>,
    pub(crate) interventions: Vec<AuditIntervention>,
    /// With this batch it has every intervention up to here, or to where it had them.
    pub(crate) up_to_intervention: i64,
    /// With this batch it has every checkpoint up to here; `None` for a batch that leaves a gap.
    pub(crate) up_to: Option<CheckpointKey>,
}

/// Rows that a database does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unsent {
    pub(crate) waiting: u64,
    /// When the oldest of them was recorded.
    pub(crate) since: Option<Moment>,
    pub(crate) refused: u64,
}

impl Tx<'_> {
    /// How far this database has come; begins with it if it is new.
    pub(crate) fn trail(&self, database: &str, now: Moment) -> Result<Trail, StoreError> {
        let find = "SELECT cache, after, clock_offset_ms, sent_at_ms, after_intervention, used_at_ms FROM audits WHERE database = ?1";
        let found = self
            .connection
            .query_row(find, [database], |row| Ok((trail(row)?, row.get::<_, i64>(5)?)))
            .optional()?;
        match found {
            Some((trail, used_at)) => {
                // A clock that was set back counts as well.
                if (now.0 - used_at).abs() > USED {
                    let sql = "UPDATE audits SET used_at_ms = ?2 WHERE database = ?1";
                    self.connection.execute(sql, params![database, now.0])?;
                }
                Ok(trail)
            }
            None => {
                let cache = uuid::Uuid::new_v4().to_string();
                self.connection.execute(
                    "INSERT INTO audits (database, cache, after, used_at_ms) VALUES (?1, ?2, 0, ?3)",
                    params![database, cache, now.0],
                )?;
                Ok(Trail {
                    cache,
                    after: CheckpointKey(0),
                    after_intervention: 0,
                    offset: None,
                    sent_at: None,
                })
            }
        }
    }

    /// The same of a database that may be new, of which nothing is written down then.
    pub(crate) fn known_trail(&self, database: &str) -> Result<Option<Trail>, StoreError> {
        let find = "SELECT cache, after, clock_offset_ms, sent_at_ms, after_intervention FROM audits WHERE database = ?1";
        Ok(self.connection.query_row(find, [database], trail).optional()?)
    }

    /// Takes another name at a database that has heard, under ours, of a later checkpoint of a task than there is: the
    /// cache was restored from a backup, or is a copy. Keys say nothing then of what is later. Says the name to go by.
    pub(crate) fn renamed_cache(
        &self,
        database: &str,
        ours: &str,
        theirs: &SharedTask,
    ) -> Result<Option<String>, StoreError> {
        let Some(latest) = theirs.latest.as_ref().filter(|latest| latest.cache == ours) else {
            return Ok(None);
        };
        let find = "SELECT coalesce(max(c.key), 0), (SELECT cache FROM audits WHERE database = ?2)
                    FROM checkpoints c JOIN tasks t ON t.key = c.task WHERE coalesce(t.shared_id, t.id) = ?1";
        let id = theirs.task.id.to_string();
        let (newest, cache): (i64, Option<String>) =
            self.connection.query_row(find, [id.as_str(), database], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if latest.key <= newest {
            return Ok(None);
        }
        // Somebody who shares the cache may have been quicker.
        if let Some(cache) = cache.filter(|cache| cache != ours) {
            return Ok(Some(cache));
        }
        let cache = uuid::Uuid::new_v4().to_string();
        let sql = "UPDATE audits SET cache = ?2 WHERE database = ?1";
        self.connection.execute(sql, [database, cache.as_str()])?;
        Ok(Some(cache))
    }

    /// Whether the database lacks anything that it is to have.
    pub(crate) fn trail_waits(&self, trail: &Trail) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM checkpoints WHERE key > ?1)
                       OR EXISTS (SELECT 1 FROM interventions WHERE key > ?2)
                       OR EXISTS (SELECT 1 FROM tasks WHERE thread_ts IS NOT NULL AND thread_ts IS NOT shared_thread_ts)";
        let after = [trail.after.0, trail.after_intervention];
        Ok(self.connection.query_row(sql, after, |row| row.get(0))?)
    }

    /// Whether anything waits that others should hear of without delay: a task that begins or ends, one that needs a
    /// person, a thread.
    pub(crate) fn has_urgent_audit(&self, trail: &Trail) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE thread_ts IS NOT NULL AND thread_ts IS NOT shared_thread_ts)
                OR EXISTS (SELECT 1 FROM interventions WHERE key > ?2)
                OR EXISTS (SELECT 1 FROM checkpoints c WHERE key > ?1
                       AND (status IN ('error', 'complete', 'cancelled', 'waiting_approval', 'blocked')
                            OR NOT EXISTS (SELECT 1 FROM checkpoints f WHERE f.task = c.task AND f.key < c.key)))";
        let after = [trail.after.0, trail.after_intervention];
        Ok(self.connection.query_row(sql, after, |row| row.get(0))?)
    }

    /// Until when everybody who shares the cache leaves something alone, as [`Tx::rest`] has it.
    pub(crate) fn held_until(&self, name: &str, now: Moment) -> Result<Moment, StoreError> {
        Ok(pace::believable_rest(self.pace(name)?.hold_until, now))
    }

    /// How many rows the database lacks; counts them.
    pub(crate) fn unsent_audit(&self, database: &str) -> Result<Unsent, StoreError> {
        let trail = self.known_trail(database)?;
        let after = trail.map_or([0, 0], |trail| [trail.after.0, trail.after_intervention]);
        let sql = "SELECT count(*), min(created_at_ms) FROM
                       (SELECT created_at_ms FROM checkpoints WHERE key > ?1
                        UNION ALL SELECT created_at_ms FROM interventions WHERE key > ?2)";
        let (waiting, since) = self.connection.query_row(sql, after, |row| {
            Ok((rows::count(row, 0)?, row.get::<_, Option<i64>>(1)?.map(Moment)))
        })?;
        let sql = "SELECT count(*) FROM audit_refusals WHERE database = ?1";
        let refused = self.connection.query_row(sql, [database], |row| rows::count(row, 0))?;
        Ok(Unsent { waiting, since, refused })
    }

    /// The next rows: at most `count` checkpoints and, beyond the first, `size` bytes of them; and tasks whose thread it
    /// does not know.
    pub(crate) fn audit_batch(&self, trail: &Trail, count: usize, size: usize) -> Result<Batch, StoreError> {
        let mut batch = Batch { up_to_intervention: trail.after_intervention, ..Batch::default() };
        let mut taken = 0;
        let sql = format!("{} WHERE c.key > ?1 ORDER BY c.key LIMIT ?2", checkpoints_with_tasks());
        let mut statement = self.connection.prepare(&sql)?;
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        for row in statement.query_map(params![trail.after.0, limit], checkpoint_with_task)? {
            let (task, checkpoint) = row?;
            taken += checkpoint.size();
            if !batch.checkpoints.is_empty() && taken > size {
                break;
            }
            batch.up_to = Some(checkpoint.key);
            batch.checkpoints.push(checkpoint);
            self.add_task(&mut batch, task)?;
        }
        let sql = "SELECT key FROM tasks WHERE thread_ts IS NOT NULL AND thread_ts IS NOT shared_thread_ts ORDER BY key DESC LIMIT ?1";
        let mut statement = self.connection.prepare(sql)?;
        let with_news: Vec<i64> =
            statement.query_map([NEWS_MAX], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for task in with_news {
            self.add_task(&mut batch, TaskKey(task))?;
        }
        for (task, told) in self.audit_interventions("i.key > ?1", trail.after_intervention)? {
            batch.up_to_intervention = told.key;
            batch.interventions.push(told);
            self.add_task(&mut batch, task)?;
        }
        Ok(batch)
    }

    fn audit_interventions(
        &self,
        condition: &str,
        key: i64,
    ) -> Result<Vec<(TaskKey, AuditIntervention)>, StoreError> {
        let sql = format!(
            "SELECT i.key, i.id, i.task, coalesce(t.shared_id, t.id), t.agent_id, i.kind, i.source, i.user_id, i.user_name,
                 i.details, i.created_at_ms
             FROM interventions i JOIN tasks t ON t.key = i.task WHERE {condition} ORDER BY i.key LIMIT {NEWS_MAX}"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let read = |row: &rusqlite::Row<'_>| {
            let mut details: serde_json::Value = rows::json(row, 9)?;
            if let Some(details) = details.as_object_mut() {
                // No column holds these.
                details.insert("source".to_owned(), row.get::<_, String>(6)?.into());
                details.insert("user_name".to_owned(), row.get::<_, Option<String>>(8)?.into());
            }
            let told = AuditIntervention {
                key: row.get(0)?,
                id: rows::uuid(row, 1)?,
                task: TaskId(rows::uuid(row, 3)?),
                agent_id: row.get(4)?,
                kind: row.get(5)?,
                user_id: row.get(7)?,
                details,
                at: Moment(row.get(10)?),
            };
            Ok((TaskKey(row.get(2)?), told))
        };
        let found = statement.query_map([key], read)?.collect::<Result<_, _>>()?;
        Ok(found)
    }

    /// What was refused, by the key that [`Batch::keys`] gave it, whatever goes before it.
    pub(crate) fn refused_batch(&self, trail: &Trail, row: CheckpointKey) -> Result<Batch, StoreError> {
        if row.0 >= 0 {
            return Ok(Batch { up_to: None, ..self.audit_of(trail, row)? });
        }
        let mut batch = Batch::default();
        for (task, told) in self.audit_interventions("i.key = ?1", -row.0)? {
            batch.interventions.push(told);
            self.add_task(&mut batch, task)?;
        }
        Ok(batch)
    }

    /// The same checkpoints as a batch has, and their tasks as they are now.
    pub(crate) fn batch_again(&self, batch: &Batch) -> Result<Batch, StoreError> {
        let mut again = Batch { up_to_intervention: batch.up_to_intervention, ..Batch::default() };
        again.up_to = batch.up_to;
        for told in &batch.interventions {
            for (task, told) in self.audit_interventions("i.key = ?1", told.key)? {
                again.interventions.push(told);
                self.add_task(&mut again, task)?;
            }
        }
        let sql = format!("{} WHERE c.key = ?1", checkpoints_with_tasks());
        let mut statement = self.connection.prepare(&sql)?;
        for told in &batch.checkpoints {
            // One may have been planned anew meanwhile: then its row is another.
            if let Some((task, told)) = statement.query_row([told.key.0], checkpoint_with_task).optional()? {
                again.checkpoints.push(told);
                self.add_task(&mut again, task)?;
            }
        }
        Ok(again)
    }

    /// One checkpoint and its task, whatever goes before it: only what began the task goes with it if that was not told
    /// either, since it says whether the task is one of its own at all.
    pub(crate) fn audit_of(&self, trail: &Trail, checkpoint: CheckpointKey) -> Result<Batch, StoreError> {
        let first = "SELECT min(f.key) FROM checkpoints f WHERE f.task = (SELECT task FROM checkpoints WHERE key = ?1)";
        let sql = format!(
            "{} WHERE c.key = ?1 OR c.key = ({first}) AND c.key > ?2 ORDER BY c.key",
            checkpoints_with_tasks()
        );
        let mut statement = self.connection.prepare(&sql)?;
        let keys = params![checkpoint.0, trail.after.0];
        let found: Vec<_> = statement.query_map(keys, checkpoint_with_task)?.collect::<Result<_, _>>()?;
        let mut batch = Batch::default();
        for (task, found) in found {
            let gap = "SELECT EXISTS (SELECT 1 FROM checkpoints WHERE key > ?1 AND key < ?2)";
            let has_gap: bool =
                self.connection.query_row(gap, params![trail.after.0, checkpoint.0], |row| row.get(0))?;
            batch.up_to = (!has_gap).then_some(checkpoint);
            batch.checkpoints.push(found);
            self.add_task(&mut batch, task)?;
        }
        Ok(batch)
    }

    /// A task as it is to be told.
    pub(crate) fn audit_task(&self, key: TaskKey) -> Result<AuditTask, StoreError> {
        let task = self.task(key)?;
        let sql =
            "SELECT shared_thread_ts, coalesce((SELECT max(key) FROM checkpoints WHERE task = tasks.key), 0),
                 (SELECT content FROM questions WHERE task = tasks.key ORDER BY key LIMIT 1)
             FROM tasks WHERE key = ?1";
        let (shared_thread_ts, newest, first): (_, _, Option<Question>) =
            self.connection.query_row(sql, [key.0], |row| {
                Ok((row.get(0)?, row.get(1)?, rows::optional_json(row, 2)?))
            })?;
        // A task that a person asked for begins with the question whether it may.
        let request = first.and_then(|Question { launch, command, .. }| {
            Some(Request { user_id: launch?.user_id, text: command })
        });
        Ok(AuditTask { task, newest: CheckpointKey(newest), shared_thread_ts, request })
    }

    fn add_task(&self, batch: &mut Batch, key: TaskKey) -> Result<(), StoreError> {
        if batch.tasks.iter().all(|known| known.task.key != Some(key)) {
            batch.add(self.audit_task(key)?);
        }
        Ok(())
    }

    /// The database has the batch.
    pub(crate) fn audited(
        &self,
        database: &str,
        batch: &Batch,
        offset: ClockOffset,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE audits SET after = max(after, ?2), clock_offset_ms = ?3, sent_at_ms = ?4,
                 after_intervention = max(after_intervention, ?5)
             WHERE database = ?1",
            params![database, batch.up_to.map_or(0, |key| key.0), offset.0, now.0, batch.up_to_intervention],
        )?;
        Ok(())
    }

    /// Whether the database has a checkpoint.
    pub(crate) fn is_audited(&self, database: &str, checkpoint: CheckpointKey) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM audits WHERE database = ?1 AND after >= ?2)
                       AND NOT EXISTS (SELECT 1 FROM audit_refusals WHERE database = ?1 AND checkpoint = ?2)";
        Ok(self.connection.query_row(sql, params![database, checkpoint.0], |row| row.get(0))?)
    }
}

impl Batch {
    /// Tasks always in the same order, so that two who write the same ones never wait for each other; each once, the
    /// latest of those that turned out to be one.
    fn add(&mut self, told: AuditTask) {
        match self.tasks.binary_search_by_key(&told.task.id.0, |known| known.task.id.0) {
            Err(place) => self.tasks.insert(place, told),
            Ok(place) if self.tasks[place].task.key < told.task.key => self.tasks[place] = told,
            Ok(_) => {}
        }
    }

    /// What stands for each of its rows where it has to be set aside: a checkpoint's key, an intervention's below zero.
    pub(crate) fn keys(&self) -> impl Iterator<Item = CheckpointKey> {
        let interventions = self.interventions.iter().map(|told| CheckpointKey(-told.key));
        self.checkpoints.iter().map(|told| told.key).chain(interventions)
    }

    /// The only checkpoint, and its task as it leaves it, where there is nothing else to tell: nothing that begins, nothing
    /// made, and nothing of anybody else.
    pub(crate) fn alone(&self) -> Option<(&AuditTask, &AuditCheckpoint)> {
        let ([task], [told], true) = (&*self.tasks, &*self.checkpoints, self.interventions.is_empty()) else {
            return None;
        };
        let goes_on = !told.is_first && told.checkpoint.artifacts.is_empty();
        (goes_on && task.task.id == told.task && task.newest == told.key).then_some((task, told))
    }

    /// The two halves; `None` where no more than one row is left, or one task that has news of nothing but its thread.
    ///
    /// Such tasks come apart from the rows, so that a row answers for itself and its own task alone.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let has_rows = |told: &&AuditTask| {
            self.checkpoints.iter().any(|row| row.task == told.task.id)
                || self.interventions.iter().any(|row| row.task == told.task.id)
        };
        let (with_rows, alone): (Vec<&AuditTask>, Vec<&AuditTask>) = self.tasks.iter().partition(has_rows);
        let part =
            |checkpoints: &[AuditCheckpoint], interventions: &[AuditIntervention], tasks: &[&AuditTask]| {
                let is_named = |told: &&&AuditTask| {
                    checkpoints.iter().any(|row| row.task == told.task.id)
                        || interventions.iter().any(|row| row.task == told.task.id)
                };
                let tasks = with_rows.iter().filter(is_named).chain(tasks).map(|told| (*told).clone());
                Self {
                    tasks: tasks.collect(),
                    checkpoints: checkpoints.to_vec(),
                    interventions: interventions.to_vec(),
                    ..Self::default()
                }
            };
        match self.keys().count() {
            0 if alone.len() < 2 => None,
            0 => {
                let (first, second) = alone.split_at(alone.len() / 2);
                Some((part(&[], &[], first), part(&[], &[], second)))
            }
            1 if alone.is_empty() => None,
            1 => Some((part(&self.checkpoints, &self.interventions, &[]), part(&[], &[], &alone))),
            _ => {
                let (first, second) = self.checkpoints.split_at(self.checkpoints.len().div_ceil(2));
                let (third, fourth) = self.interventions.split_at(self.interventions.len() / 2);
                Some((part(first, third, &[]), part(second, fourth, &alone)))
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.checkpoints.is_empty() && self.interventions.is_empty()
    }
}

fn trail(row: &rusqlite::Row<'_>) -> rusqlite::Result<Trail> {
    Ok(Trail {
        cache: row.get(0)?,
        after: CheckpointKey(row.get(1)?),
        offset: row.get::<_, Option<i64>>(2)?.map(ClockOffset),
        sent_at: row.get::<_, Option<i64>>(3)?.map(Moment),
        after_intervention: row.get(4)?,
    })
}

fn checkpoints_with_tasks() -> String {
    // The id of a question's end is the question's with another version; see `RequestId::ending`.
    let question = "substr(c.id, 1, 14) || '7' || substr(c.id, 16)";
    format!(
        "SELECT {}, c.task, coalesce(t.shared_id, t.id), t.agent_id, t.is_import = 0 AND NOT EXISTS
             (SELECT 1 FROM checkpoints f WHERE f.task = c.task AND f.key < c.key),
             CASE WHEN c.status = 'waiting_approval' THEN (SELECT content FROM questions WHERE id = c.id) END,
             CASE WHEN substr(c.id, 15, 1) = '8' THEN {question} END,
             CASE WHEN substr(c.id, 15, 1) = '8' THEN (SELECT answer FROM questions WHERE id = {question}) END
         FROM checkpoints c JOIN tasks t ON t.key = c.task",
        rows::qualified(rows::CHECKPOINT, "c")
    )
}

fn checkpoint_with_task(row: &rusqlite::Row<'_>) -> rusqlite::Result<(TaskKey, AuditCheckpoint)> {
    let checkpoint = rows::checkpoint(row)?;
    let request = row.get::<_, Option<String>>(21)?.and_then(|id| RequestId::parse(&id));
    let told = AuditCheckpoint {
        key: checkpoint.key.unwrap_or(CheckpointKey(0)),
        task: TaskId(rows::uuid(row, 17)?),
        agent_id: row.get(18)?,
        is_first: row.get(19)?,
        checkpoint,
        asks: rows::optional_json::<Option<Question>>(row, 20)?.map(Box::new),
        decides: request.zip(rows::optional_json::<Option<Answer>>(row, 22)?).map(Box::new),
    };
    Ok((TaskKey(row.get(16)?), told))
}
