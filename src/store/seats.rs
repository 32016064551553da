//! The few places of those who speak with a database at once; each is an office as a courier's is.

use super::{Owner, StoreError, Tx};
use crate::checkpoint::time::Moment;

impl Tx<'_> {
    /// Takes one of a few places: so many processes speak with the database at once, and no more. It is given up as any
    /// office is.
    pub(crate) fn take_seat(
        &self,
        database: &str,
        seats: u32,
        owner: &Owner,
        (now, until): (Moment, Moment),
    ) -> Result<Option<String>, StoreError> {
        for name in seat_names(database, seats) {
            if self.appoint_courier(&name, owner, now, until)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether there is a place that nobody has; to look costs the others nothing.
    pub(crate) fn has_free_seat(
        &self,
        database: &str,
        seats: u32,
        owner: &Owner,
        now: Moment,
    ) -> Result<bool, StoreError> {
        for name in seat_names(database, seats) {
            if self.is_vacant(&name, owner, now)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn seat_names(database: &str, seats: u32) -> impl Iterator<Item = String> {
    (0..seats).map(move |seat| format!("{database}|{seat}"))
}
