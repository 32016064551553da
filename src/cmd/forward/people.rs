//! Connections for what people do on other machines: short ones, beside those that tell rows.

use std::time::Instant;

use super::{CONNECT_MAX, Forwarder, Session, Stop};
use crate::audit::connect::{Client, connect};
use crate::checkpoint::id::TaskKey;
use crate::cmd::interact::elsewhere;
use crate::config::Config;
use crate::store::Store;

impl Forwarder {
    /// Connects, to ask or to say something of people.
    pub(in crate::cmd) fn call(&self, deadline: Instant) -> Result<Client, Stop> {
        Ok(connect(&self.database, deadline.min(Instant::now() + CONNECT_MAX))?)
    }

    /// The office of whoever looks for what was passed on to this cache.
    pub(in crate::cmd) fn ears(&self) -> String {
        format!("{}|people", self.name)
    }
}

impl Session<'_> {
    /// Takes what was passed on to a task, unless it is known already that nothing was.
    pub(in crate::cmd) fn hear_people(
        &mut self,
        store: &mut Store,
        config: &Config,
        task: TaskKey,
    ) -> Result<(), Stop> {
        if !self.people_wait {
            return Ok(());
        }
        let id = store.read(|tx| tx.task(task))?.id;
        elsewhere::take(store, config, &mut self.client, &[(task, id)], self.deadline)?;
        Ok(())
    }
}
