//! The thread of an agent that has said nothing on this machine yet, as the database knows it.

use std::time::Instant;

use crate::checkpoint::outbox::Credential;
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::{DAY, about_cache};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::store::Store;

/// Takes over the agent's task from the database where the cache knows none, so that its thread can be read; nothing
/// where the database does not know the agent either, or only a thread that is not for us.
pub(super) fn join(
    config: &Config,
    store: &mut Store,
    agent_id: &str,
    ours: &Credential,
) -> anyhow::Result<()> {
    let is_here = store
        .read(|tx| Ok(tx.find(agent_id)?.is_some()))
        .map_err(|error| about_cache(error.into(), config))?;
    let Some(forwarder) = (if is_here { None } else { Forwarder::new(config) }) else { return Ok(()) };
    let deadline = Instant::now() + config.deadline.min(DAY);
    let found = forwarder.open(store, Some(agent_id), deadline).and_then(|(session, found)| {
        session.close(store)?;
        Ok(found)
    });
    let found = forwarder.remember(store, found).map_err(|stop| away(config, agent_id, stop))?;
    let readable = found.filter(|theirs| {
        let is_ours =
            theirs.task.credential.as_ref().is_none_or(|recorded| ours.shares_threads_with(recorded));
        is_ours && theirs.task.thread_ts.is_some()
    });
    if let Some(theirs) = readable {
        store.write(|tx| tx.import(&theirs)).map_err(|error| about_cache(error.into(), config))?;
    }
    Ok(())
}

fn away(config: &Config, agent_id: &str, stop: Stop) -> anyhow::Error {
    let (why, hint) = match (stop.words(), stop) {
        (Some(words), _) => words,
        (None, Stop::Cache(error)) => return about_cache(error.into(), config),
        (None, _) => ("there was no turn in time".to_owned(), "try again".to_owned()),
    };
    let message = format!("agent '{agent_id}' is not in the cache, and the database cannot be asked: {why}");
    Failure::new(Exit::Failed, message).hint(hint).into()
}
