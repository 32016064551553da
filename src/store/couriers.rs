//! Couriers: which process looks after what waits, so that there is never more than one.

use rusqlite::{OptionalExtension, params};

use super::lease::Owner;
use super::{StoreError, Tx};
use crate::checkpoint::outbox::Credential;
use crate::checkpoint::time::Moment;

impl Tx<'_> {
    /// Whether anything waits that this credential may send.
    pub(crate) fn anything_waits(&self, credential: &Credential) -> Result<bool, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT t.credential FROM entries e JOIN tasks t ON t.key = e.task WHERE e.state < 2")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let recorded = row.get::<_, Option<String>>(0)?.map(Credential::stored);
            if credential.may_send(recorded.as_ref(), false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the caller the one courier for this link, unless another one lives.
    pub(crate) fn appoint_courier(
        &self,
        link: &str,
        owner: &Owner,
        now: Moment,
        until: Moment,
    ) -> Result<bool, StoreError> {
        if self.is_held("SELECT owner, until_ms FROM couriers WHERE link = ?1", link, owner, now)? {
            return Ok(false);
        }
        self.connection.execute(
            "INSERT INTO couriers (link, owner, until_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (link) DO UPDATE SET owner = ?2, until_ms = ?3",
            params![link, owner.as_str(), until.0],
        )?;
        Ok(true)
    }

    /// Passes a courier's office from the process that started it to the courier itself; false if it was lost.
    pub(crate) fn take_office(
        &self,
        link: &str,
        from: &Owner,
        to: &Owner,
        until: Moment,
    ) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE couriers SET owner = ?3, until_ms = ?4 WHERE link = ?1 AND owner = ?2",
            params![link, from.as_str(), to.as_str(), until.0],
        )?;
        Ok(changed > 0)
    }

    /// Prolongs a courier's office once half of it is over; false if it was lost to another one.
    pub(crate) fn stay_in_office(
        &self,
        link: &str,
        owner: &Owner,
        now: Moment,
        until: Moment,
    ) -> Result<bool, StoreError> {
        self.connection.execute(
            "UPDATE couriers SET until_ms = ?4 WHERE link = ?1 AND owner = ?2 AND until_ms < (?3 + ?4) / 2",
            params![link, owner.as_str(), now.0, until.0],
        )?;
        let held = self
            .connection
            .query_row(
                "SELECT 1 FROM couriers WHERE link = ?1 AND owner = ?2",
                [link, owner.as_str()],
                |_| Ok(()),
            )
            .optional()?;
        Ok(held.is_some())
    }

    /// Ends a courier's office.
    pub(crate) fn leave_office(&self, link: &str, owner: &Owner) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM couriers WHERE link = ?1 AND owner = ?2", params![link, owner.as_str()])?;
        Ok(())
    }
}
