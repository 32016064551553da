//! Between rows and domain values; the only place that knows the columns' order.

use std::fmt;

use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::checkpoint::id::{CheckpointId, CheckpointKey, TaskId, TaskKey};
use crate::checkpoint::outbox::{Credential, Delivery, EntryKind, Priority};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Card, Checkpoint, Task};

/// The columns that [`task`] reads, in its order.
pub(super) const TASK: &str = "key, coalesce(shared_id, id), agent_id, task_type, state, snapshot, channel, channel_id, thread_ts, card, \
     credential, last_message_at_ms, started_at_ms, updated_at_ms, ended_at_ms, parent, seen_at_ms, joined, \
     channel_is_default, opened_anew, cancel";

/// The columns that [`checkpoint`] reads, in its order.
pub(super) const CHECKPOINT: &str = "key, id, status, progress, tokens, context_limit, action, error, artifacts, meta, \
     elapsed_ms, created_at_ms, delivery, delivery_error, message_ts, tail";

/// The same columns of a table that goes by this name.
#[cfg(feature = "postgres")]
pub(super) fn qualified(columns: &str, table: &str) -> String {
    let columns: Vec<String> =
        columns.split(',').map(|column| format!("{table}.{}", column.trim())).collect();
    columns.join(", ")
}

/// An entry's state column.
pub(super) mod state {
    pub(in crate::store) const WAITING: i64 = 0;
    pub(in crate::store) const SENDING: i64 = 1;
    pub(in crate::store) const REJECTED: i64 = 2;
}

/// The card column's word for [`Card::Frozen`]; a `ts` never looks like it.
pub(super) const FROZEN: &str = "frozen";

pub(super) fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        key: Some(TaskKey(row.get(0)?)),
        id: TaskId(uuid(row, 1)?),
        agent_id: row.get(2)?,
        task_type: row.get(3)?,
        state: text(row, 4, |text| TaskState::parse(text).ok())?,
        snapshot: json(row, 5)?,
        channel: row.get(6)?,
        channel_id: row.get(7)?,
        thread_ts: row.get(8)?,
        card: match row.get::<_, Option<String>>(9)? {
            None => Card::Missing,
            Some(text) if text == FROZEN => Card::Frozen,
            Some(ts) => Card::At(ts),
        },
        credential: row.get::<_, Option<String>>(10)?.map(Credential::stored),
        last_message_at: row.get::<_, Option<i64>>(11)?.map(Moment),
        started_at: Moment(row.get(12)?),
        updated_at: Moment(row.get(13)?),
        ended_at: row.get::<_, Option<i64>>(14)?.map(Moment),
        parent: row.get::<_, Option<i64>>(15)?.map(TaskKey),
        seen_at: row.get::<_, Option<i64>>(16)?.map(Moment),
        joined: row.get(17)?,
        channel_is_default: row.get(18)?,
        opened_anew: row.get(19)?,
        cancel: optional_json(row, 20)?,
    })
}

pub(super) fn card_column(card: &Card) -> Option<&str> {
    match card {
        Card::Missing => None,
        Card::At(ts) => Some(ts),
        Card::Frozen => Some(FROZEN),
    }
}

pub(super) fn checkpoint(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        key: Some(CheckpointKey(row.get(0)?)),
        id: CheckpointId(uuid(row, 1)?),
        status: text(row, 2, |text| Status::parse(text).ok())?,
        progress: row.get(3)?,
        tokens: row.get::<_, Option<i64>>(4)?.map(i64::unsigned_abs),
        context_limit: row.get::<_, i64>(5)?.unsigned_abs(),
        action: row.get(6)?,
        error: row.get(7)?,
        artifacts: optional_json(row, 8)?,
        meta: optional_json(row, 9)?,
        elapsed_ms: row.get::<_, i64>(10)?.unsigned_abs(),
        created_at: Moment(row.get(11)?),
        delivery: text(row, 12, Delivery::parse)?,
        delivery_error: row.get(13)?,
        message_ts: row.get(14)?,
        tail: row.get(15)?,
    })
}

/// A number of rows.
pub(super) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(index)?.unsigned_abs())
}

pub(super) fn uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    text(row, index, |text| Uuid::parse_str(text).ok())
}

pub(super) fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<EntryKind> {
    match row.get(index)? {
        0 => Ok(EntryKind::Post),
        1 => Ok(EntryKind::Card),
        2 => Ok(EntryKind::Note),
        3 => Ok(EntryKind::File),
        4 => Ok(EntryKind::Question),
        _ => Err(damaged(index, "an entry's kind")),
    }
}

pub(super) fn kind_column(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Post => 0,
        EntryKind::Card => 1,
        EntryKind::Note => 2,
        EntryKind::File => 3,
        EntryKind::Question => 4,
    }
}

pub(super) fn priority(row: &Row<'_>, index: usize) -> rusqlite::Result<Priority> {
    match row.get(index)? {
        0 => Ok(Priority::Immediate),
        1 => Ok(Priority::Routine),
        _ => Err(damaged(index, "an entry's priority")),
    }
}

pub(super) fn priority_column(priority: Priority) -> i64 {
    match priority {
        Priority::Immediate => 0,
        Priority::Routine => 1,
    }
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

pub(super) fn optional_json<T: DeserializeOwned + Default>(
    row: &Row<'_>,
    index: usize,
) -> rusqlite::Result<T> {
    if row.get_ref(index)?.data_type() == Type::Null { Ok(T::default()) } else { json(row, index) }
}

pub(super) fn text<T>(
    row: &Row<'_>,
    index: usize,
    read: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    read(&text).ok_or_else(|| damaged(index, &text))
}

fn damaged(index: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(Damaged(what.to_owned())))
}

/// A value that this program never writes.
#[derive(Debug)]
struct Damaged(String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unexpected value in the cache: {}", self.0)
    }
}

impl std::error::Error for Damaged {}
