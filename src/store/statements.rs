//! Statements: a long-lived process runs the same few again and again, so it can have them prepared once.

use std::ops::{Deref, DerefMut};

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, Params, Row, Statement};

/// How many prepared statements a connection keeps at most: more than there are.
const KEPT: usize = 96;

/// A connection, as the files of this folder use it inside a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statements<'a> {
    connection: &'a Connection,
    kept: bool,
}

/// Has each prepared once. SQLite would otherwise do it anew for some when their parameters are known, in case another
/// plan suits these better.
pub(super) fn settle_plans(connection: &Connection) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
}

/// Has the connection keep all of them.
pub(super) fn make_room(connection: &Connection) {
    connection.set_prepared_statement_cache_capacity(KEPT);
}

impl<'a> Statements<'a> {
    /// Each is prepared when it is run, which is the cheapest for a process that runs it once.
    pub(super) fn of(connection: &'a Connection) -> Self {
        Self { connection, kept: false }
    }

    /// With `kept`, each is prepared once and kept with the connection.
    pub(super) fn kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    pub(super) fn prepare(self, sql: &str) -> rusqlite::Result<Prepared<'a>> {
        Ok(if self.kept {
            Prepared::Kept(self.connection.prepare_cached(sql)?)
        } else {
            Prepared::Once(self.connection.prepare(sql)?)
        })
    }

    /// Runs a statement that returns no rows; says how many it changed.
    pub(super) fn execute(self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    /// Reads the first row.
    pub(super) fn query_row<T>(
        self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.prepare(sql)?.query_row(params, read)
    }

    /// The key of the row that was inserted last.
    pub(super) fn last_insert_rowid(self) -> i64 {
        self.connection.last_insert_rowid()
    }
}

/// A statement that is ready to run.
pub(super) enum Prepared<'a> {
    Once(Statement<'a>),
    Kept(CachedStatement<'a>),
}

impl<'a> Deref for Prepared<'a> {
    type Target = Statement<'a>;

    fn deref(&self) -> &Statement<'a> {
        match self {
            Self::Once(statement) => statement,
            Self::Kept(statement) => statement,
        }
    }
}

impl<'a> DerefMut for Prepared<'a> {
    fn deref_mut(&mut self) -> &mut Statement<'a> {
        match self {
            Self::Once(statement) => statement,
            Self::Kept(statement) => statement,
        }
    }
}
