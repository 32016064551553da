//! Brings a database up to the schema, a step at a time, whoever else does the same meanwhile.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, SimpleQueryMessage, Transaction};

use super::Trouble;
use super::connect::Client;
use super::schema::{self, STEPS, VERSIONS};

/// The advisory lock under which steps are applied: a number that means nothing but this.
const LOCK: i64 = 0x6167_656e_7463_6b70;

/// Rules of tables that exist from before and that stand in the way of ours, as the statements that drop them: that an
/// agent has one row for ever, and lists of states and statuses that lack some.
const IN_THE_WAY: &str = "
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
FROM pg_constraint
WHERE conrelid = to_regclass('agent_tasks')
    AND (contype = 'u' AND pg_get_constraintdef(oid) = 'UNIQUE (agent_id)'
        OR contype = 'c' AND pg_get_constraintdef(oid) LIKE '%status%'
            AND NOT (pg_get_constraintdef(oid) LIKE '%approved%' AND pg_get_constraintdef(oid) LIKE '%cancelled%'))
    OR conrelid = to_regclass('agent_checkpoints') AND contype = 'c'
        AND pg_get_constraintdef(oid) LIKE '%status%' AND pg_get_constraintdef(oid) NOT LIKE '%waiting_approval%'
UNION ALL
SELECT format('DROP INDEX %s', indexrelid::regclass)
FROM pg_index
WHERE indrelid = to_regclass('agent_tasks') AND indisunique AND NOT indisprimary AND indpred IS NULL
    AND pg_get_indexdef(indexrelid) LIKE '%(agent_id)'
    AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)";

/// How often others may be quicker; rows that break a rule of ours look the same, and stay.
const OVERTAKEN_MAX: u32 = 20;

/// Which step a database had last.
const NEWEST: &str = "SELECT coalesce(max(version), 0) FROM agent_checkpoint_schema";

/// What a migration did: the versions before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Migrated {
    pub(crate) from: i32,
    pub(crate) to: i32,
}

/// Applies the steps that the database has not had, each in a transaction of its own. A database of a newer schema is
/// left as it is. Nobody else's lock is waited for longer than `patience`.
///
/// # Errors
/// What the server says, or that the deadline is over; a step that failed has changed nothing.
pub(crate) fn migrate(
    client: &mut Client,
    patience: Duration,
    deadline: Instant,
) -> Result<Migrated, Trouble> {
    // Who may not make tables need not, once they are there. What else stands in the way of reading does so below too.
    match version(client, patience, deadline) {
        Ok(version) if usize::try_from(version).is_ok_and(|version| version >= STEPS.len()) => {
            return Ok(Migrated { from: version, to: version });
        }
        Err(trouble) if trouble.is_locked_out() || trouble.code.is_none() => return Err(trouble),
        _ => {}
    }
    let mut from = None;
    let mut locks = true;
    let mut overtaken = 0;
    loop {
        let mut at = Held::Another;
        let done = client.run(deadline, async |client| step(client, patience, locks, &mut at).await);
        match done.map_err(|trouble| at.told(trouble, client.place(), patience)) {
            Ok((version, is_last)) => {
                let from = *from.get_or_insert(version);
                if is_last {
                    return Ok(Migrated { from, to: version });
                }
            }
            // Not every engine has such locks. Without one, of two that do the same the second is refused.
            Err(trouble) if locks && lacks_locks(&trouble) => locks = false,
            Err(trouble) if overtaken < OVERTAKEN_MAX && was_overtaken(&trouble, locks) => overtaken += 1,
            Err(trouble) => return Err(trouble),
        }
    }
}

/// The version of a database's schema; 0 without one. Nobody else's lock is waited for longer than `patience`.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn version(client: &mut Client, patience: Duration, deadline: Instant) -> Result<i32, Trouble> {
    let found = client.run(deadline, async |client| {
        let transaction = begin(client, patience).await?;
        let version = newest(transaction.simple_query(NEWEST).await)?;
        transaction.commit().await?;
        Ok(version)
    });
    match found {
        Err(trouble) if trouble.code == Some(SqlState::UNDEFINED_TABLE) => Ok(0),
        found => found.map_err(|trouble| Held::Versions.told(trouble, client.place(), patience)),
    }
}

/// Columns that tables of ours lack, each as `table.column`: somebody has renamed or dropped them.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn missing_columns(client: &mut Client, deadline: Instant) -> Result<Vec<String>, Trouble> {
    let sql = "SELECT w.t || '.' || w.c FROM unnest($1::text[], $2::text[]) AS w (t, c)
         WHERE to_regclass(w.t) IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_attribute
             WHERE attrelid = to_regclass(w.t) AND attname = w.c AND attnum > 0 AND NOT attisdropped)";
    let (tables, columns): (Vec<&str>, Vec<&str>) = schema::columns().into_iter().unzip();
    client.run(deadline, async |client| {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&tables, Type::TEXT_ARRAY), (&columns, Type::TEXT_ARRAY)];
        let rows = client.query_typed(sql, &parameters).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    })
}

/// What a step waits for, which the server does not say when it was waited for in vain.
#[derive(Debug, Clone, Copy)]
enum Held {
    Another,
    Versions,
    Tables,
}

impl Held {
    /// Says what was held by somebody else, if that is the trouble.
    fn told(self, trouble: Trouble, place: &str, patience: Duration) -> Trouble {
        match self {
            _ if !trouble.is_locked_out() => trouble,
            Self::Another => trouble.held(place, "another db migrate is at work", patience),
            Self::Versions => {
                trouble.held(place, "somebody holds the table agent_checkpoint_schema locked", patience)
            }
            Self::Tables => trouble.held(place, "somebody holds a table of the audit trail locked", patience),
        }
    }
}

/// Begins a transaction that waits for nobody's lock longer than this.
async fn begin(client: &mut tokio_postgres::Client, patience: Duration) -> Result<Transaction<'_>, Error> {
    let transaction = client.transaction().await?;
    // Local to the transaction: behind a pooler, the next one on this connection may be anybody's.
    let wait = format!("SET LOCAL lock_timeout = {}", patience.as_millis().max(1));
    transaction.batch_execute(&wait).await?;
    Ok(transaction)
}

/// Applies the next step; says at what version the database stood, and whether there was none to apply.
async fn step(
    client: &mut tokio_postgres::Client,
    patience: Duration,
    locks: bool,
    at: &mut Held,
) -> Result<(i32, bool), Error> {
    let transaction = begin(client, patience).await?;
    if locks {
        transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    }
    *at = Held::Versions;
    transaction.batch_execute(VERSIONS).await?;
    let version = newest(transaction.simple_query(NEWEST).await)?;
    let Some(step) = usize::try_from(version).ok().and_then(|version| STEPS.get(version)) else {
        transaction.commit().await?;
        return Ok((version, true));
    };
    *at = Held::Tables;
    for statement in texts(transaction.simple_query(IN_THE_WAY).await?) {
        transaction.batch_execute(&statement).await?;
    }
    transaction.batch_execute(step).await?;
    let next = version + 1;
    let note = format!("INSERT INTO agent_checkpoint_schema (version) VALUES ({next})");
    transaction.batch_execute(&note).await?;
    transaction.commit().await?;
    Ok((version, false))
}

/// The version in the answer to [`NEWEST`].
fn newest(answer: Result<Vec<SimpleQueryMessage>, Error>) -> Result<i32, Error> {
    Ok(texts(answer?).first().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The first column of each row.
fn texts(messages: Vec<SimpleQueryMessage>) -> Vec<String> {
    let first = |message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.into_iter().filter_map(first).collect()
}

/// Whether an engine has no advisory locks: YugabyteDB refuses them as long as it is not told otherwise, CockroachDB did
/// not know the function before version 26.
fn lacks_locks(trouble: &Trouble) -> bool {
    let codes = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::UNDEFINED_FUNCTION];
    trouble.code.as_ref().is_some_and(|code| codes.contains(code))
}

/// Whether somebody else was quicker with the same step, so that it has to be begun again. An engine may say so whether
/// there are locks or not.
fn was_overtaken(trouble: &Trouble, locks: bool) -> bool {
    let codes = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_COLUMN,
        // PostgreSQL's word for two that change the same row of its catalogue.
        SqlState::INTERNAL_ERROR,
    ];
    let known = if locks { &codes[..2] } else { &codes[..] };
    trouble.code.as_ref().is_some_and(|code| known.contains(code))
}
