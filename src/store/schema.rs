//! The cache's schema: an append-only list of migrations under SQLite's `user_version`.
//!
//! Rules: a migration that has been released is never edited; a new one goes to the end of [`MIGRATIONS`]. A file
//! whose version is newer than this list is left untouched. Times are milliseconds since 1970 UTC (`_ms`).

use rusqlite::{Connection, TransactionBehavior};

/// Each brings a cache from the version of its index to the next.
pub(super) const MIGRATIONS: &[&str] = &[
    // 1: tasks, their checkpoints, and the outbox to Slack with its pacing and leases.
    "
    CREATE TABLE tasks (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        task_type TEXT NOT NULL,
        state TEXT NOT NULL,
        snapshot TEXT NOT NULL,
        channel TEXT,
        channel_id TEXT,
        thread_ts TEXT,
        card TEXT,
        credential TEXT,
        last_message_at_ms INTEGER,
        started_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        ended_at_ms INTEGER,
        lease_owner TEXT,
        lease_until_ms INTEGER
    );
    CREATE INDEX tasks_by_agent ON tasks (agent_id, key);
    CREATE INDEX tasks_by_id ON tasks (id);
    CREATE TABLE checkpoints (
        key INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        id TEXT NOT NULL,
        status TEXT NOT NULL,
        progress INTEGER NOT NULL,
        tokens INTEGER,
        context_limit INTEGER NOT NULL,
        action TEXT,
        error TEXT,
        artifacts TEXT,
        meta TEXT,
        elapsed_ms INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        delivery TEXT NOT NULL,
        delivery_error TEXT,
        message_ts TEXT
    );
    CREATE INDEX checkpoints_by_task ON checkpoints (task, key);
    CREATE TABLE entries (
        key INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        state INTEGER NOT NULL,
        checkpoint INTEGER,
        frozen TEXT,
        due_at_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        maybe_sent INTEGER NOT NULL DEFAULT 0,
        reason TEXT,
        created_at_ms INTEGER NOT NULL
    );
    CREATE INDEX entries_open ON entries (task, kind, key) WHERE state < 2;
    CREATE TABLE paces (
        name TEXT PRIMARY KEY,
        full_at_ms INTEGER NOT NULL,
        hold_until_ms INTEGER NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE couriers (
        credential TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        until_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    ",
    // 2: how far pruning has come in each table.
    "
    CREATE TABLE prunings (
        name TEXT PRIMARY KEY,
        after INTEGER NOT NULL
    ) WITHOUT ROWID;
    ",
    // 3: whose thread it is; wrapped commands: what they wrote last, who reports their end, and which task started
    // which.
    "
    ALTER TABLE tasks ADD COLUMN joined INTEGER NOT NULL DEFAULT 0;
    UPDATE tasks SET joined = 1 WHERE thread_ts IS NOT NULL AND card IS NOT thread_ts;
    ALTER TABLE tasks ADD COLUMN parent INTEGER;
    ALTER TABLE tasks ADD COLUMN watcher TEXT;
    ALTER TABLE tasks ADD COLUMN seen_at_ms INTEGER;
    CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent IS NOT NULL;
    CREATE INDEX tasks_watched ON tasks (seen_at_ms) WHERE watcher IS NOT NULL;
    ALTER TABLE checkpoints ADD COLUMN tail TEXT;
    ALTER TABLE entries ADD COLUMN about INTEGER;
    CREATE INDEX entries_refused ON entries (task, kind) WHERE state = 2;
    ",
    // 4: which way an entry failed on, since not everyone takes the same; whether a task's channel is only the default;
    // which conversation a name stands for, since its limits are the same by either.
    "
    ALTER TABLE entries ADD COLUMN failed_via TEXT;
    ALTER TABLE couriers RENAME COLUMN credential TO link;
    ALTER TABLE tasks ADD COLUMN channel_is_default INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE conversations (
        credential TEXT NOT NULL,
        name TEXT NOT NULL,
        id TEXT NOT NULL,
        PRIMARY KEY (credential, name)
    ) WITHOUT ROWID;
    ",
    // 5: the audit trail: how far each database has come and what it refused; as what a task is known there, whether it
    // came from there, which of its threads is known there, and how long somebody else may take to open it.
    "
    CREATE TABLE audits (
        database TEXT PRIMARY KEY,
        cache TEXT NOT NULL,
        after INTEGER NOT NULL,
        after_intervention INTEGER NOT NULL DEFAULT 0,
        clock_offset_ms INTEGER,
        sent_at_ms INTEGER,
        used_at_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE audit_refusals (
        database TEXT NOT NULL,
        checkpoint INTEGER NOT NULL,
        reason TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        PRIMARY KEY (database, checkpoint)
    ) WITHOUT ROWID;
    ALTER TABLE tasks ADD COLUMN shared_id TEXT;
    ALTER TABLE tasks ADD COLUMN opened_anew INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN is_import INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN shared_thread_ts TEXT;
    ALTER TABLE tasks ADD COLUMN opener_until_ms INTEGER;
    CREATE INDEX tasks_by_shared_id ON tasks (shared_id) WHERE shared_id IS NOT NULL;
    CREATE INDEX tasks_with_news ON tasks (key) WHERE thread_ts IS NOT NULL AND thread_ts IS NOT shared_thread_ts;
    CREATE INDEX tasks_awaiting_thread ON tasks (key) WHERE opener_until_ms IS NOT NULL AND thread_ts IS NULL;
    ",
    // 6: questions and what people said to them or asked for; which of it was heard already, who listens, and how far an
    // agent has read its thread.
    "
    ALTER TABLE tasks ADD COLUMN cancel TEXT;
    CREATE TABLE questions (
        key INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        id TEXT NOT NULL,
        content TEXT NOT NULL,
        asker TEXT,
        channel_id TEXT,
        message_ts TEXT,
        answer TEXT,
        expires_at_ms INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX questions_by_id ON questions (id);
    CREATE INDEX questions_by_task ON questions (task, key);
    CREATE INDEX questions_open ON questions (key) WHERE answer IS NULL;
    CREATE TABLE interventions (
        key INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        question INTEGER,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        user_id TEXT,
        user_name TEXT,
        details TEXT NOT NULL,
        vote TEXT,
        created_at_ms INTEGER NOT NULL
    );
    CREATE INDEX interventions_by_task ON interventions (task, key);
    CREATE TABLE requests (
        key INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        type TEXT NOT NULL,
        user_id TEXT,
        user_name TEXT,
        created_at_ms INTEGER NOT NULL
    );
    CREATE INDEX requests_by_task ON requests (task, key);
    CREATE TABLE listeners (
        app TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        until_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE seen (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        at_ms INTEGER NOT NULL
    );
    CREATE TABLE looks (
        task INTEGER PRIMARY KEY,
        ts TEXT NOT NULL
    );
    ",
];

/// The version that this program writes.
pub(super) fn version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version that a file has.
pub(super) fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings the file up to [`version`] in one exclusive transaction, whatever other processes do meanwhile.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    apply(connection, MIGRATIONS)
}

/// Brings the file up to the last of these migrations, or leaves it as it is.
pub(super) fn apply(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    // Outside the transaction, as SQLite demands. WAL is remembered in the file; it is set on creation only.
    connection.pragma_update(None, "journal_mode", "wal")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Read again: another process may have been quicker.
    let from = version_of(&transaction)?;
    for migration in migrations.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    let to = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    transaction.pragma_update(None, "user_version", to.max(from))?;
    transaction.commit()
}
