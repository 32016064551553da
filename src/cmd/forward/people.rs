//! Connections for what people do on other machines: short ones, beside those that tell rows.

use std::time::Instant;

use uuid::Uuid;

use super::{CONNECT_MAX, Forwarder, Session, Stop};
use crate::audit::connect::{Client, connect};
use crate::cmd::interact::elsewhere::{self, Rules, Taken};
use crate::store::Store;

impl Forwarder {
    /// Connects, to ask or to say something of people.
    pub(in crate::cmd) fn call(&self, deadline: Instant) -> Result<Client, Stop> {
        Ok(connect(&self.database, deadline.min(Instant::now() + CONNECT_MAX))?)
    }

    /// By which what people did elsewhere is judged.
    pub(in crate::cmd) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Up to which of what waits this process has looked; at first anywhere, so that each begins elsewhere.
    pub(in crate::cmd) fn heard_up_to(&self) -> Uuid {
        self.heard_up_to.get().unwrap_or_else(Uuid::new_v4)
    }

    pub(in crate::cmd) fn hear_up_to(&self, last: Uuid) {
        self.heard_up_to.set(Some(last));
    }

    /// The office of whoever looks for what was passed on to this cache.
    pub(in crate::cmd) fn ears(&self) -> String {
        format!("{}|people", self.name)
    }
}

impl Session<'_> {
    /// Takes what was passed on to the tasks that were told of: the database has said of which something waits.
    pub(in crate::cmd) fn hear_people(&mut self, store: &mut Store) -> Result<Vec<Taken>, Stop> {
        let tasks = std::mem::take(&mut self.waits_for);
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        elsewhere::take(store, self.forwarder, &mut self.client, &tasks, self.deadline)
    }
}
