//! The cache: tasks, checkpoints and the outbox in one SQLite file that any number of processes share.
//!
//! The rules that keep it safe: WAL with `synchronous=FULL`, so that what was committed survives power loss; every
//! writer begins `IMMEDIATE`, so that writers queue instead of failing half-way; no transaction ever waits for
//! the network. Callers compose what they need inside one [`Store::write`].

#[cfg(feature = "postgres")]
mod audit;
mod claim;
mod couriers;
#[cfg(feature = "postgres")]
mod elsewhere;
mod error;
mod family;
mod flush;
mod interventions;
mod launches;
mod lease;
mod listeners;
mod metrics;
mod prune;
mod questions;
mod record;
#[cfg(feature = "postgres")]
mod refusals;
mod repair;
mod report;
mod requests;
#[cfg(feature = "serve")]
mod roll;
mod room;
mod rows;
mod schema;
#[cfg(feature = "postgres")]
mod seats;
mod seen;
mod settle;
#[cfg(feature = "postgres")]
mod shared;
mod statements;
#[cfg(test)]
mod tests;
mod turn;
#[cfg(feature = "postgres")]
mod untold;
mod watch;

use std::borrow::Cow;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::exit::cause;
#[cfg(feature = "postgres")]
pub(crate) use audit::{Batch, Trail, Unsent};
pub(crate) use claim::{Claim, ClaimFor, Scope, Why};
use error::{FULL, Failure, NOT_A_FILE, is_busy, unusable};
pub(crate) use error::{OpenError, StoreError};
pub(crate) use interventions::Intervention;
#[cfg(feature = "serve")]
pub(crate) use launches::Start;
pub(crate) use lease::Owner;
pub(crate) use questions::{Forsaken, Put, QuestionKey, Shown};
pub(crate) use record::Recorded;
pub(crate) use report::{Filter, Problems, TaskReport, Wait};
pub(crate) use requests::Request;
#[cfg(feature = "serve")]
pub(crate) use roll::Roll;
#[cfg(feature = "postgres")]
pub(crate) use seats::{Seat, Seats};
pub(crate) use settle::Standing;
use statements::Statements;
pub(crate) use watch::{Orphan, Watcher};

/// How large the write-ahead log may grow, in bytes, before a writer moves it into the database.
///
/// Every process that opens the cache alone reads the log through once, so it is kept much shorter than SQLite's
/// default of 1000 pages; moving it costs two more syncs, so it is not kept shorter still.
const WAL_MAX: u64 = 64 * 4120;

/// How often a writer looks whether the others are done: they take a few milliseconds each.
const BUSY_POLL: Duration = Duration::from_millis(5);

/// How much of the file a process keeps that reads all of it once, in KiB.
const READ_THROUGH_KIB: u32 = 512;

/// How many links are followed, as many as Linux does.
const LINKS_MAX: u32 = 40;

/// The longest path that SQLite takes, in bytes.
const PATH_MAX: usize = 510;

/// How often a cache may be replaced under somebody who opens it.
const OPEN_TRIES: u32 = 10;

/// An open cache.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    inode: u64,
    busy_timeout: Duration,
    /// The log was not there before we came: its name is not yet safe from a power loss.
    log_is_new: bool,
    /// Whether statements are kept for the next transaction.
    keeps: bool,
}

/// A transaction that writes; its methods are in the files of this folder, by subject.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    connection: Statements<'a>,
}

/// An opened cache, and what had to be done to open it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// Where a damaged file was put, when one was found.
    pub(crate) set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens the cache at `path`, making it (mode 0600, in directories of mode 0700) if there is none, migrating an
    /// older one and setting a damaged one aside.
    ///
    /// Waits at most `busy_timeout` for other processes, here and in every later transaction.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open_at(path: &Path, busy_timeout: Duration) -> Result<Opened, OpenError> {
        let path = &*followed(path);
        // Looked at before, so that nothing is set aside that another process has put there meanwhile.
        let inode = fs::metadata(path).map(|metadata| metadata.ino()).ok();
        match Self::connect(path, busy_timeout) {
            Ok(store) => Ok(Opened { store, set_aside: None }),
            Err(Failure::Corrupt(_)) => Self::open_afresh(path, inode, busy_timeout),
            Err(failure) => Err(failure.into_open_error(path)),
        }
    }

    /// Sets this damaged cache aside and opens a fresh one in its place.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn start_afresh(self) -> Result<Opened, OpenError> {
        let Self { connection, path, inode, busy_timeout, .. } = self;
        drop(connection);
        Self::open_afresh(&path, Some(inode), busy_timeout)
    }

    fn open_afresh(path: &Path, damaged: Option<u64>, busy_timeout: Duration) -> Result<Opened, OpenError> {
        let set_aside = repair::set_aside(path, damaged, busy_timeout).map_err(|error| {
            unusable(path, &format!("it is damaged and cannot be set aside: {}", cause(&error)))
        })?;
        match Self::connect(path, busy_timeout) {
            Ok(store) => Ok(Opened { store, set_aside }),
            Err(failure) => Err(failure.into_open_error(path)),
        }
    }

    fn connect(path: &Path, busy_timeout: Duration) -> Result<Self, Failure> {
        let log_is_new = !repair::with_suffix(path, "-wal").exists();
        let (mut connection, inode) = open_file(path, busy_timeout)?;
        if room::is_lacking(path) {
            return Err(Failure::Other(FULL.to_owned()));
        }
        connection.busy_timeout(busy_timeout)?;
        // The last process to close would otherwise move the log and sync twice, on every single call.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        statements::settle_plans(&connection)?;
        // Where a plain sync leaves the drive's own cache unwritten, as on macOS, SQLite must ask for more.
        connection.execute_batch("PRAGMA fullfsync = ON")?;
        let found = schema::version_of(&connection)?;
        room::fill(path);
        if found > schema::version() {
            return Err(Failure::Newer(found));
        }
        if found < schema::version() {
            // One at a time: switching a file to WAL fails at once, without waiting, when two try it together.
            let _guard = repair::guard(path, busy_timeout).map_err(Failure::Io)?;
            // Read again: another process may have been quicker.
            let found = schema::version_of(&connection)?;
            if found == 0 && has_tables(&connection)? {
                return Err(Failure::Other("it is another program's database".to_owned()));
            }
            if found < schema::version() {
                schema::migrate(&mut connection)?;
                sync_directory(path).map_err(Failure::Io)?;
                // The whole schema is in the log now, and every call would read it through.
                move_log(&connection, busy_timeout);
            }
        }
        // SQLite's own way leaves the log as long as it is, and the next process would read all of it again.
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self { connection, path: path.to_owned(), inode, busy_timeout, log_is_new, keeps: false })
    }

    /// From now on statements are prepared once and kept: for a process that writes again and again.
    pub(crate) fn keep_statements(&mut self) {
        statements::make_room(&self.connection);
        self.keeps = true;
    }

    /// From now on little of what was read is kept: for a process that reads everything once, so that it needs no more
    /// memory for more rows.
    pub(crate) fn read_through(&self) {
        // What cannot be set costs memory and nothing else.
        let _ = self.connection.execute_batch(&format!("PRAGMA cache_size = -{READ_THROUGH_KIB}"));
    }

    /// Runs `work` in one transaction that is durable when this returns.
    ///
    /// # Errors
    /// Whatever SQLite reports; nothing is changed then.
    pub(crate) fn write<T>(
        &mut self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.begin()?;
        let value = work(&Tx { connection: Statements::of(&transaction).kept(self.keeps) })?;
        transaction.commit()?;
        if std::mem::take(&mut self.log_is_new) {
            // What was committed is in the log, whatever becomes of its name.
            let _ = sync_directory(&self.path);
        }
        self.trim_log();
        Ok(value)
    }

    /// Begins a transaction that writes, as soon as no other process has one.
    ///
    /// SQLite's own way of waiting sleeps the longer the longer it has waited, so that whoever came first goes last and
    /// may never go while others keep coming. Here everybody looks equally often.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        let since = Instant::now();
        self.connection.busy_timeout(Duration::ZERO)?;
        let begun = loop {
            match Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate) {
                Err(error) if is_busy(&error) && since.elapsed() < self.busy_timeout => {
                    thread::sleep(BUSY_POLL)
                }
                begun => break begun,
            }
        };
        self.connection.busy_timeout(self.busy_timeout)?;
        begun
    }

    /// Like [`Store::write`], but a power loss may undo it: for what is merely done again then, such as an edit of a
    /// card. It becomes durable with the next write.
    ///
    /// # Errors
    /// Whatever SQLite reports; nothing is changed then.
    pub(crate) fn write_relaxed<T>(
        &mut self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let written = self.write(work);
        self.connection.execute_batch("PRAGMA synchronous = FULL")?;
        written
    }

    /// Moves the write-ahead log into the database once it is long. Whoever else uses the cache goes first: a log that
    /// cannot be moved now is moved by the next writer.
    fn trim_log(&self) {
        let log = repair::with_suffix(&self.path, "-wal");
        if !fs::metadata(log).is_ok_and(|metadata| metadata.len() > WAL_MAX) {
            return;
        }
        move_log(&self.connection, self.busy_timeout);
    }

    /// Looks into an existing cache without changing anything, not even an old schema.
    ///
    /// # Errors
    /// Whatever SQLite reports, an unknown schema included.
    pub(crate) fn peek<T>(
        path: &Path,
        look: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            // To open a pipe is to wait for somebody who writes to it.
            return Err(StoreError::not_a_file());
        }
        if room::is_lacking(path) {
            return Err(StoreError::full());
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        look(&Tx { connection: Statements::of(&connection) })
    }

    /// From now on a transaction waits at most this long for other processes.
    pub(crate) fn wait_at_most(&mut self, busy_timeout: Duration) {
        self.busy_timeout = busy_timeout;
    }

    /// A number that changes when another process has written, cheap to look at again and again.
    ///
    /// # Errors
    /// Whatever SQLite reports.
    pub(crate) fn version_of_data(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Whether the file that is open is still the one at its path; false once it was deleted or replaced.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Where the cache is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The schema version that this program writes, for `doctor`.
pub(crate) fn schema_version() -> i64 {
    schema::version()
}

/// Moves the log into the database, as far as nobody is in the way: what was committed is safe in the log as well.
fn move_log(connection: &Connection, busy_timeout: Duration) {
    let moved = || {
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    let _ = moved();
    let _ = connection.busy_timeout(busy_timeout);
}

/// The file that a link leads to, there or not: SQLite puts its log beside that one, so our lock and whatever else
/// belongs to it have their place there too.
fn followed(path: &Path) -> Cow<'_, Path> {
    let mut path = Cow::Borrowed(path);
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        path = Cow::Owned(path.parent().unwrap_or(Path::new("")).join(target));
    }
    path
}

/// Opens the file at `path`, making it if there is none; says which file it was.
fn open_file(path: &Path, busy_timeout: Duration) -> Result<(Connection, u64), Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if path.as_os_str().len() > PATH_MAX {
        // Told before directories are made for it, which may be thousands.
        return Err(Failure::Other(format!("its path has more than {PATH_MAX} bytes")));
    }
    let mut tries = 0;
    loop {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(path, busy_timeout).map_err(Failure::Io)?
            }
            Err(error) => return Err(Failure::Io(error)),
        };
        if !metadata.is_file() {
            return Err(Failure::Other(NOT_A_FILE.to_owned()));
        }
        let opened = Connection::open_with_flags(path, flags);
        let is_same = fs::metadata(path).is_ok_and(|now| now.ino() == metadata.ino());
        tries += 1;
        match opened {
            // Set aside or replaced by another process at this very moment.
            _ if !is_same && tries < OPEN_TRIES => {}
            opened => return Ok((opened?, metadata.ino())),
        }
    }
}

/// Makes an empty file that only its owner can read; SQLite gives its companions the same mode.
fn create(path: &Path, busy_timeout: Duration) -> std::io::Result<fs::Metadata> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let missing: Vec<&Path> = parent
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .collect();
        missing.into_iter().rev().try_for_each(create_directory)?;
    }
    // Several processes may start at once.
    let _guard = repair::guard(path, busy_timeout)?;
    if !path.exists() {
        // Companions of a cache that was deleted, perhaps under a process that goes on using them.
        for suffix in ["-wal", "-shm"] {
            match fs::remove_file(repair::with_suffix(path, suffix)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            // The mask for new files may have taken rights away that its owner needs.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.metadata()
        }
        // Another process was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => fs::metadata(path),
        Err(error) => Err(error),
    }
}

/// Makes a directory for its owner alone, whatever the mask for new files takes away.
fn create_directory(path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    sync_directory(path)
}

/// Makes a name, such as that of the cache or its log, survive a power loss; the content is SQLite's business.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master)", [], |row| row.get(0))
}
