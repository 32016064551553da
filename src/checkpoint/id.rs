//! Ids: those that go out into the world, and the cache's own row keys.

use std::fmt;

use uuid::Uuid;

use super::time::Moment;

/// A task's id, made by the client (UUIDv7), the same in every database that the task reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TaskId(pub(crate) Uuid);

/// A checkpoint's id, made by the client (UUIDv7); also its idempotency key in Slack's message metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CheckpointId(pub(crate) Uuid);

/// A task's row in this machine's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskKey(pub(crate) i64);

/// A checkpoint's row in this machine's cache; grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CheckpointKey(pub(crate) i64);

/// An outbox entry's row in this machine's cache; among those that wait, the later one has the higher key. Once an entry
/// is settled its key may be given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryKey(pub(crate) i64);

impl TaskId {
    pub(crate) fn new(now: Moment) -> Self {
        Self(uuid_v7(now))
    }

    /// When it was made; long ago, if it does not say.
    pub(crate) fn begun_at(self) -> Moment {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        Moment(i64::try_from(seconds * 1000 + u64::from(nanos) / 1_000_000).unwrap_or(0))
    }
}

impl CheckpointId {
    pub(crate) fn new(now: Moment) -> Self {
        Self(uuid_v7(now))
    }
}

/// The id of what a person did, of what tells it from every other act: the same for whoever hears of it.
pub(crate) fn act_id(heard: &str) -> Uuid {
    // What was said at a terminal has an id of its own.
    Uuid::parse_str(heard).unwrap_or_else(|_| {
        let namespace = Uuid::from_bytes(*b"agent-checkpoint");
        Uuid::new_v5(&namespace, heard.as_bytes())
    })
}

pub(super) fn uuid_v7(now: Moment) -> Uuid {
    let ms = u64::try_from(now.0).unwrap_or(0);
    let nanos = u32::try_from(ms % 1000 * 1_000_000).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, ms / 1000, nanos))
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
