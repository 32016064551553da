//! What somebody wants to see who asks in words: how agents stand, on all machines that share a database, or on this one.
//!
//! It is looked up once Slack has its acknowledgement, which waits for no database.

#[cfg(feature = "postgres")]
use std::time::{Duration, Instant};

use crate::checkpoint::Task;
#[cfg(feature = "postgres")]
use crate::checkpoint::audit;
use crate::checkpoint::status::TaskState;
#[cfg(feature = "postgres")]
use crate::cmd::fleet::failure;
#[cfg(feature = "postgres")]
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::{BUSY_MIN, now, open_quietly};
use crate::config::Config;
use crate::render::told;
use crate::store::{Filter, Store, StoreError};

#[cfg(feature = "postgres")]
use super::harmless;

/// How many agents are compared with a name that none has.
pub(super) const KNOWN: usize = 200;
/// How many running tasks are looked at: one more than are listed.
const LISTED: u64 = told::LISTED as u64 + 1;
/// How long the database may take: somebody sits there and waits.
#[cfg(feature = "postgres")]
const LOOK_MAX: Duration = Duration::from_millis(1500);
/// What is said where nothing can be learnt from it, and why, where waiting does not mend that.
#[cfg(feature = "postgres")]
const AWAY: &str = "The database is away";
#[cfg(feature = "postgres")]
const BROKEN: &str =
    "The database cannot be used: run `agent-checkpoint doctor` on the machine that answers you";
#[cfg(feature = "postgres")]
const ONLY_HERE: &str = "this is only what the machine knows that answers you.";

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cmd) enum Look {
    List,
    /// What is said beside that there is no such agent.
    Show {
        agent: String,
        otherwise: String,
    },
}

impl Look {
    /// What there is to say of it.
    pub(super) fn words(&self, config: &Config) -> String {
        let Some(mut store) = open_quietly(config, BUSY_MIN) else {
            return "The cache of the machine that answers you cannot be read.".to_owned();
        };
        #[cfg(feature = "postgres")]
        let note = match self.everywhere(&mut store, config) {
            Ok(Some(words)) => return words,
            Ok(None) => String::new(),
            Err(why) => format!("\n_{why}: {ONLY_HERE}_"),
        };
        #[cfg(not(feature = "postgres"))]
        let note = "";
        let words =
            self.here(&mut store).unwrap_or_else(|error| format!("The cache cannot be read: {error}"));
        format!("{words}{note}")
    }

    /// By the cache.
    fn here(&self, store: &mut Store) -> Result<String, StoreError> {
        store.read(|tx| match self {
            Self::List => {
                let running = Filter { state: Some(TaskState::Running), waiting: false, limit: LISTED };
                let tasks: Vec<Task> = tx.list(&running)?.into_iter().map(|found| found.task).collect();
                Ok(told::list(&tasks, "agent-checkpoint tasks", now()))
            }
            Self::Show { agent, otherwise } => Ok(match tx.find(agent)? {
                Some(found) => told::show(&found.task),
                None => told::unknown(agent, &tx.latest_agents(KNOWN)?) + otherwise,
            }),
        })
    }

    /// By the database, and by the cache as far as it has not told the database yet; `None` without a database. Otherwise
    /// why nothing can be said of all machines.
    #[cfg(feature = "postgres")]
    fn everywhere(&self, store: &mut Store, config: &Config) -> Result<Option<String>, String> {
        let Some(forwarder) = Forwarder::new(config) else {
            return if config.has_broken_audit() { Err(BROKEN.to_owned()) } else { Ok(None) };
        };
        self.ask(store, &forwarder).map(Some).map_err(|stop| match stop {
            Stop::Database(trouble) if trouble.needs_somebody() => {
                let message = trouble.message.clone();
                let hint = failure(trouble).hint.map_or_else(String::new, |hint| format!(" ({hint})"));
                // It leaves this machine.
                let why = config.masker().mask(&format!("{message}{hint}"));
                format!("The database cannot be read: {}", harmless(&why))
            }
            _ => AWAY.to_owned(),
        })
    }

    #[cfg(feature = "postgres")]
    fn ask(&self, store: &mut Store, forwarder: &Forwarder) -> Result<String, Stop> {
        use crate::audit::report;

        let (is_held, untold) = store
            .read(|tx| Ok((forwarder.held_until(tx, now())?.is_some(), tx.untold(forwarder.name())?)))?;
        let deadline = Instant::now() + LOOK_MAX;
        // That it cannot be reached is for others to know; that it is slow to tell this is not. A person who waits may ask
        // one that others leave alone for a while, which they do no longer for it.
        let client = forwarder.call(deadline);
        let mut client =
            if is_held && client.is_err() { client? } else { forwarder.remember(store, client)? };
        let list = |client: &mut _, limit| -> Result<_, Stop> {
            let (found, now) = report::list(client, Some(TaskState::Running), limit, deadline)?;
            Ok((found.into_iter().map(|listed| listed.task).collect::<Vec<Task>>(), now))
        };
        match self {
            Self::List => {
                let (tasks, now) = list(&mut client, LISTED)?;
                Ok(told::list(&audit::running(tasks, untold), "agent-checkpoint tasks --fleet", now))
            }
            Self::Show { agent, otherwise } => {
                let theirs = report::find_brief(&mut client, agent, deadline)?;
                let ours = store.read(|tx| tx.find(agent))?;
                let ours =
                    ours.and_then(|found| untold.into_iter().find(|one| one.task.key == found.task.key));
                if let Some(task) = audit::latest(theirs.map(|(found, _)| found.task), ours) {
                    return Ok(told::show(&task));
                }
                // The database may have lost it, or been another one.
                if let Some(found) = store.read(|tx| tx.find(agent))? {
                    return Ok(told::show(&found.task));
                }
                let (tasks, _) = list(&mut client, KNOWN as u64)?;
                let mut known: Vec<String> = tasks.into_iter().map(|task| task.agent_id).collect();
                known.extend(store.read(|tx| tx.latest_agents(KNOWN))?);
                Ok(told::unknown(agent, &known) + otherwise)
            }
        }
    }
}
