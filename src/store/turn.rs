//! A turn within Slack's limits for a message that stands in no outbox, such as `doctor`'s.

use rusqlite::{OptionalExtension, params};

use super::{StoreError, Tx};
use crate::checkpoint::outbox::{Credential, EntryKind};
use crate::checkpoint::time::Moment;
use crate::pace;

impl Tx<'_> {
    /// Takes the next turn to post into a channel.
    ///
    /// The inner error is the moment of that turn when it comes after `latest`; nothing is taken then.
    pub(crate) fn turn(
        &self,
        credential: &Credential,
        channel: &str,
        now: Moment,
        latest: Moment,
    ) -> Result<Result<Moment, Moment>, StoreError> {
        let known = "SELECT id FROM conversations WHERE credential = ?1 AND name = ?2";
        let id: Option<String> = self
            .connection
            .query_row(known, params![credential.as_str(), channel], |row| row.get(0))
            .optional()?;
        let name = pace::bucket(credential, EntryKind::Post, id.as_deref().unwrap_or(channel));
        let mut bucket = self.pace(&name)?;
        bucket.hold_until = bucket.hold_until.max(self.post_hold(credential, now)?);
        match pace::reserve(bucket, pace::limit(EntryKind::Post), now, latest) {
            Ok((start_at, next)) => self.spend(&name, next).map(|()| Ok(start_at)),
            Err(at) => Ok(Err(at)),
        }
    }

    /// Until when Slack asked everyone not to post.
    pub(crate) fn post_hold(&self, credential: &Credential, now: Moment) -> Result<Moment, StoreError> {
        let held = self.pace(&pace::method_hold(credential, EntryKind::Post))?;
        Ok(pace::believable(held.hold_until, now))
    }

    /// Keeps everyone from posting until then, as Slack asked.
    pub(crate) fn hold_posts(
        &self,
        credential: &Credential,
        until: Moment,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.hold(&pace::method_hold(credential, EntryKind::Post), until, now)
    }
}
