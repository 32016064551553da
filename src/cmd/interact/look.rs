//! What somebody wants to see who asks in words: how agents stand, on all machines that share a database, or on this one.
//!
//! It is looked up once Slack has its acknowledgement, which waits for no database.

#[cfg(feature = "postgres")]
use std::time::{Duration, Instant};

use crate::checkpoint::Task;
use crate::checkpoint::status::TaskState;
#[cfg(feature = "postgres")]
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::{BUSY_MIN, now, open_quietly};
use crate::config::Config;
use crate::render::told;
use crate::store::{Filter, Store, StoreError};

/// How many agents are compared with a name that none has.
pub(super) const KNOWN: usize = 200;
/// How many running tasks are looked at: one more than are listed.
const LISTED: u64 = told::LISTED as u64 + 1;
/// How long the database may take: somebody sits there and waits.
#[cfg(feature = "postgres")]
const LOOK_MAX: Duration = Duration::from_millis(1500);
/// What is said where it is configured and away.
#[cfg(feature = "postgres")]
const AWAY: &str = "_The database is away: this is only what the machine knows that answers you._";

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cmd) enum Look {
    List,
    Show(String),
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
            Ok(None) => "",
            Err(_) => AWAY,
        };
        #[cfg(not(feature = "postgres"))]
        let note = "";
        let words =
            self.here(&mut store).unwrap_or_else(|error| format!("The cache cannot be read: {error}"));
        if note.is_empty() { words } else { format!("{words}\n{note}") }
    }

    /// By the cache.
    fn here(&self, store: &mut Store) -> Result<String, StoreError> {
        store.read(|tx| match self {
            Self::List => {
                let running = Filter { state: Some(TaskState::Running), waiting: false, limit: LISTED };
                let tasks: Vec<Task> = tx.list(&running)?.into_iter().map(|found| found.task).collect();
                Ok(told::list(&tasks, "agent-checkpoint tasks", now()))
            }
            Self::Show(agent) => Ok(match tx.find(agent)? {
                Some(found) => told::show(&found.task),
                None => told::unknown(agent, &tx.latest_agents(KNOWN)?),
            }),
        })
    }

    /// By the database; `None` without one, or if this machine may know more.
    #[cfg(feature = "postgres")]
    fn everywhere(&self, store: &mut Store, config: &Config) -> Result<Option<String>, Stop> {
        use crate::audit::report;

        let Some(forwarder) = Forwarder::new(config) else {
            return if config.has_broken_audit() { Err(Stop::Crowded) } else { Ok(None) };
        };
        if store.read(|tx| forwarder.held_until(tx, now()))?.is_some() {
            return Err(Stop::Crowded);
        }
        let deadline = Instant::now() + LOOK_MAX;
        // That it cannot be reached is for others to know; that it is slow to tell this is not.
        let client = forwarder.call(deadline);
        let mut client = forwarder.remember(store, client)?;
        let list = |client: &mut _, limit| -> Result<_, Stop> {
            let (found, now) = report::list(client, Some(TaskState::Running), limit, deadline)?;
            Ok((found.into_iter().map(|listed| listed.task).collect::<Vec<Task>>(), now))
        };
        match self {
            Self::List => {
                let (tasks, now) = list(&mut client, LISTED)?;
                Ok(Some(told::list(&tasks, "agent-checkpoint tasks --fleet", now)))
            }
            Self::Show(agent) => {
                if let Some((found, _)) = report::find_brief(&mut client, agent, deadline)? {
                    return Ok(Some(told::show(&found.task)));
                }
                // It may not have been told of yet.
                if let Some(found) = store.read(|tx| tx.find(agent))? {
                    return Ok(Some(told::show(&found.task)));
                }
                let (tasks, _) = list(&mut client, KNOWN as u64)?;
                let mut known: Vec<String> = tasks.into_iter().map(|task| task.agent_id).collect();
                known.extend(store.read(|tx| tx.latest_agents(KNOWN))?);
                Ok(Some(told::unknown(agent, &known)))
            }
        }
    }
}
