//! Listeners: which process holds an app's socket, so that there is one for each cache.
//!
//! Slack gives each click to only one of an app's connections: the one that hears it writes it into the cache, where its
//! asker finds it.

use rusqlite::params;

use super::lease::Owner;
use super::{StoreError, Tx};
use crate::checkpoint::time::Moment;

impl Tx<'_> {
    /// Whether another living process listens for this app.
    pub(crate) fn is_listened_to(&self, app: &str, owner: &Owner, now: Moment) -> Result<bool, StoreError> {
        self.is_held("SELECT owner, until_ms FROM listeners WHERE app = ?1", app, owner, now)
    }

    /// Makes the caller the listener for this app until then, or prolongs that; false while another one lives.
    pub(crate) fn take_listening(
        &self,
        app: &str,
        owner: &Owner,
        now: Moment,
        until: Moment,
    ) -> Result<bool, StoreError> {
        if self.is_listened_to(app, owner, now)? {
            return Ok(false);
        }
        self.connection.execute(
            "INSERT INTO listeners (app, owner, until_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (app) DO UPDATE SET owner = ?2, until_ms = ?3",
            params![app, owner.as_str(), until.0],
        )?;
        Ok(true)
    }

    /// Gives the lease up.
    pub(crate) fn leave_listening(&self, app: &str, owner: &Owner) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM listeners WHERE app = ?1 AND owner = ?2", params![app, owner.as_str()])?;
        Ok(())
    }
}
