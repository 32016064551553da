//! What goes wrong with a cache, and what is said of it.

use std::path::{Path, PathBuf};
use std::{error, fmt};

use rusqlite::ErrorCode;
use rustix::process::{Resource, getrlimit};

use super::schema;
use crate::exit::cause;

/// What is said where nothing more can be written.
pub(super) const FULL: &str = "the disk is full";
/// What is said of a directory, a pipe or a device in the cache's place.
pub(super) const NOT_A_FILE: &str = "it is not a file";

/// Something that went wrong between us and the cache file.
#[derive(Debug)]
pub(crate) struct StoreError {
    /// The file's content is damaged: setting it aside helps.
    pub(crate) corrupt: bool,
    /// Other processes were writing all the time.
    pub(crate) busy: bool,
    message: String,
}

/// Why a cache cannot be used at all.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// A newer program wrote it; it was not touched.
    Newer { path: PathBuf, found: i64 },
    /// Missing rights, a full disk, another program's file, and the like.
    Unusable { path: PathBuf, reason: String },
}

impl StoreError {
    pub(super) fn full() -> Self {
        Self { corrupt: false, busy: false, message: FULL.to_owned() }
    }

    pub(super) fn not_a_file() -> Self {
        Self { corrupt: false, busy: false, message: NOT_A_FILE.to_owned() }
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

pub(super) fn unusable(path: &Path, reason: &str) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), reason: reason.to_owned() }
}

/// How opening failed, before it is decided what that means.
pub(super) enum Failure {
    Corrupt(String),
    Newer(i64),
    Io(std::io::Error),
    Other(String),
}

impl Failure {
    pub(super) fn into_open_error(self, path: &Path) -> OpenError {
        match self {
            Self::Newer(found) => OpenError::Newer { path: path.to_owned(), found },
            Self::Io(error) => unusable(path, &cause(&error)),
            Self::Corrupt(reason) | Self::Other(reason) => unusable(path, &reason),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let StoreError { corrupt, message, .. } = StoreError::from(error);
        if corrupt { Self::Corrupt(message) } else { Self::Other(message) }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let corrupt = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => {
                matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            }
            // A value of the wrong kind can only be damage: this program alone writes the file.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => true,
            _ => false,
        };
        let message = match &error {
            busy if is_busy(busy) => "it is kept busy by other processes".to_owned(),
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DiskFull => {
                FULL.to_owned()
            }
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::ReadOnly => {
                "it is read-only".to_owned()
            }
            rusqlite::Error::SqliteFailure(failure, _) if failure.code == ErrorCode::SystemIoFailure => {
                match getrlimit(Resource::Fsize).current {
                    Some(bytes) => format!("{error} (here a file may hold {bytes} bytes: ulimit -f)"),
                    None => error.to_string(),
                }
            }
            other => other.to_string(),
        };
        Self { corrupt, busy: is_busy(&error), message }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for StoreError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { path, found } => write!(
                f,
                "could not use cache {}: it has schema {found}, written by a newer agent-checkpoint (this one knows {})",
                path.display(),
                schema::version()
            ),
            Self::Unusable { path, reason } => write!(f, "could not use cache {}: {reason}", path.display()),
        }
    }
}

impl error::Error for OpenError {}
