//! What somebody else has said of a task, heard before its card is edited though nothing was said here.

use std::time::{Duration, Instant};

use super::{Forwarder, Stop, resolve};
use crate::audit::forward;
use crate::checkpoint::audit::ClockOffset;
use crate::checkpoint::id::TaskId;
use crate::checkpoint::time::Moment;
use crate::cmd::now;
use crate::store::Store;

/// How often all who share a cache ask together, at most, however many heartbeats there are.
const ASK: Duration = Duration::from_secs(2);

impl Forwarder {
    /// Hears what was said elsewhere of the tasks whose cards wait for that, and lets them go; while the database is away
    /// they wait for as long as they may. Says when to ask, if it is not time, as where somebody who shares the cache has
    /// just done so.
    pub(in crate::cmd) fn catch_up(
        &self,
        store: &mut Store,
        deadline: Instant,
    ) -> Result<Option<Moment>, Stop> {
        let (at, rest) = (now(), format!("{}|news", self.name));
        let (tasks, trail, not_before) = store.read(|tx| {
            let held_until = self.held_until(tx, at)?.unwrap_or(at);
            let not_before = tx.held_until(&rest, at)?.max(held_until);
            Ok((tx.tasks_to_edit(at)?, tx.known_trail(&self.name)?, not_before))
        })?;
        let Some(trail) = trail.filter(|_| !tasks.is_empty()) else { return Ok(None) };
        if not_before > at {
            return Ok(Some(not_before));
        }
        // All who waited come at the same moment: the first one asks for all.
        let taken_until = store.write_relaxed(|tx| {
            let until = tx.held_until(&rest, at)?;
            if until <= at {
                tx.rest(&rest, at.plus(ASK), at)?;
            }
            Ok((until > at).then_some(until))
        })?;
        if taken_until.is_some() {
            return Ok(taken_until);
        }
        let (cache, offset) = (&trail.cache, trail.offset.unwrap_or(ClockOffset(0)));
        let ids: Vec<TaskId> = tasks.iter().map(|(_, id)| *id).collect();
        let asked = self
            .call(deadline)
            .and_then(|mut client| Ok(forward::tasks(&mut client, &ids, Some(cache), deadline)?));
        let found = self.remember(store, asked)?;
        store.write_relaxed(|tx| {
            let at = now();
            for theirs in found.into_iter().map(|row| row.task(offset)) {
                let key = tasks.iter().find(|(_, id)| *id == theirs.task.id).map(|(key, _)| *key);
                key.map_or(Ok(()), |key| resolve::catch_up(tx, key, &theirs, None, cache, at))?;
            }
            tasks.iter().try_for_each(|(key, _)| tx.hasten_card(*key, at))
        })?;
        Ok(None)
    }
}
