//! Sets a damaged cache aside, once, however many processes find it damaged at the same moment.
//!
//! The lock beside the cache also guards its creation and migration.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::checkpoint::time::Moment;
/// How often to look whether another process is done.
const POLL: Duration = Duration::from_millis(2);

/// Moves the file at `path` to `PATH.corrupt-TIME` if it is still the one with this inode, which was found damaged.
///
/// Returns where it went; `None` when another process has replaced it meanwhile.
pub(super) fn set_aside(
    path: &Path,
    damaged: Option<u64>,
    busy_timeout: Duration,
) -> io::Result<Option<PathBuf>> {
    let _guard = guard(path, busy_timeout)?;
    match fs::metadata(path) {
        Ok(metadata) if Some(metadata.ino()) == damaged => move_away(path).map(Some),
        _ => Ok(None),
    }
}

/// One process at a time creates, migrates or repairs; the kernel lets go when it ends, however it ends.
///
/// # Errors
/// Another process, which may have been stopped, does not let go within `busy_timeout`.
pub(super) fn guard(path: &Path, busy_timeout: Duration) -> io::Result<Flock<File>> {
    let since = Instant::now();
    let mut file = lock_file(&with_suffix(path, ".lock"), true)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) if since.elapsed() < busy_timeout => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "it is kept busy by another process"));
            }
            Err((_, errno)) => return Err(errno.into()),
        };
        thread::sleep(POLL);
    }
}

/// Opens a file that is there to be locked; with `make` it is made (mode 0600) if there is none.
pub(super) fn lock_file(path: &Path, make: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(make)
        .truncate(false)
        .write(true)
        .mode(0o600)
        // A pipe in its place has nobody who reads from it, and a link may lead to anybody's file.
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)?;
    if make && file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o600 != 0o600) {
        // Made just now, under a mask for new files that takes rights away that its owner needs.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
    Ok(file)
}

/// The log goes first: a log left beside a fresh database would be taken for the fresh one's.
fn move_away(path: &Path) -> io::Result<PathBuf> {
    let target = free_name(path);
    for companion in ["-wal", "-shm", ""] {
        match fs::rename(with_suffix(path, companion), with_suffix(&target, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(target)
}

/// `PATH.corrupt-TIME`, with a number behind it if that name is taken.
fn free_name(path: &Path) -> PathBuf {
    let first = with_suffix(path, &format!(".corrupt-{}", stamp(SystemTime::now())));
    (1..)
        .map(|n| if n == 1 { first.clone() } else { with_suffix(&first, &format!("-{n}")) })
        .find(|candidate| !candidate.exists())
        .unwrap_or(first)
}

/// A time in a file's name, such as `20260301T093000Z`.
fn stamp(at: SystemTime) -> String {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = Moment(0).plus(at).rfc3339();
    let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
    seconds.replace(['-', ':'], "") + "Z"
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
