//! The few seats of those who speak with a database at once.
//!
//! Each is a file beside the cache that is locked by whoever has it: a lock goes with its process, however that ends, and
//! can be had before the cache is open. A file of its own says until when everybody leaves the database alone, for those
//! who would set out before they have read that in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{followed, repair};
use crate::checkpoint::time::{Moment, millis};

/// How many processes that share a cache speak with a database at once.
const SEATS: u32 = 4;
/// How many there are at most, were all the others held by processes that were stopped.
const SEATS_MAX: u32 = 64;
/// Whoever has a seat for longer than this is not counted: it was stopped, or has very much to tell.
const HELD_MAX: Duration = Duration::from_secs(15);
/// Before somebody is found to have a seat for too long it is looked at twice: it is locked first and dated then.
const SECOND_LOOK: Duration = Duration::from_millis(1);
/// A time further ahead than this was written by a clock that has since been set back.
const HORIZON: Duration = Duration::from_secs(600);

/// The seats of a cache.
#[derive(Debug)]
pub(crate) struct Seats {
    cache: PathBuf,
}

/// One of them, until this is dropped. It has no lock where none can be had: then nobody is counted.
#[derive(Debug)]
pub(crate) struct Seat {
    #[cfg_attr(not(test), expect(dead_code, reason = "it is held, and no more"))]
    lock: Option<Flock<File>>,
}

impl Seats {
    /// Those of the cache at this path, which need not be there.
    pub(crate) fn of(cache: &Path) -> Self {
        Self { cache: followed(cache).into_owned() }
    }

    /// Takes one; `None` when others have them all.
    pub(crate) fn take(&self) -> Option<Seat> {
        self.free(&|path| repair::lock_file(path, true)).unwrap_or(Some(Seat { lock: None }))
    }

    /// The same before the cache is open: nothing is made there, and nothing is taken while the database is to be left
    /// alone.
    pub(crate) fn take_early(&self, now: Moment) -> Option<Seat> {
        if self.is_held(now) {
            None
        } else {
            self.free(&|path| repair::lock_file(path, false)).ok().flatten()
        }
    }

    /// Nobody sets out early until then. What cannot be written is read in the cache.
    pub(crate) fn hold(&self, until: Moment) {
        let until = UNIX_EPOCH + Duration::from_millis(u64::try_from(until.0).unwrap_or(0));
        let _ = repair::lock_file(&self.mark(), true).and_then(|file| file.set_modified(until));
    }

    /// Everybody may set out early again.
    pub(crate) fn lift(&self) {
        let _ = fs::remove_file(self.mark());
    }

    fn is_held(&self, now: Moment) -> bool {
        let until = fs::symlink_metadata(self.mark()).and_then(|mark| mark.modified());
        until.is_ok_and(|until| {
            let until = until.duration_since(UNIX_EPOCH).map_or(0, |until| millis(until).cast_signed());
            until > now.0 && until < now.plus(HORIZON).0
        })
    }

    fn mark(&self) -> PathBuf {
        repair::with_suffix(&self.cache, ".away")
    }

    /// The first that nobody has.
    ///
    /// # Errors
    /// One that cannot be opened, or not locked.
    fn free(&self, open: &dyn Fn(&Path) -> std::io::Result<File>) -> std::io::Result<Option<Seat>> {
        let mut counted = 0;
        for number in 1..=SEATS_MAX {
            let file = open(&repair::with_suffix(&self.cache, &format!(".seat-{number}")))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    let _ = file.set_modified(SystemTime::now());
                    return Ok(Some(Seat { lock: Some(file) }));
                }
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => counted += u32::from(is_counted(&file)),
                Err((_, errno)) => return Err(errno.into()),
            }
            if counted == SEATS {
                break;
            }
        }
        Ok(None)
    }
}

/// Whether whoever has this seat has it for a short while.
fn is_counted(file: &File) -> bool {
    let is_recent = || {
        let since = file.metadata().and_then(|metadata| metadata.modified());
        since.is_ok_and(|since| {
            let now = SystemTime::now();
            let apart = now.duration_since(since).unwrap_or_else(|ahead| ahead.duration());
            apart <= HELD_MAX
        })
    };
    is_recent() || {
        thread::sleep(SECOND_LOOK);
        is_recent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_800_000_000_000);

    /// As if the seat had been taken so long ago, or ahead of now by a clock that was set back.
    fn date(seat: &Seat, at: SystemTime) {
        seat.lock.as_ref().expect("a file").set_modified(at).expect("our own file");
    }

    #[test]
    fn so_many_have_a_seat_at_once_and_whoever_leaves_makes_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let seats = Seats::of(&dir.path().join("cache.db"));
        assert!(seats.take_early(NOW).is_none(), "nothing is made before the cache is open");
        assert_eq!(fs::read_dir(dir.path()).expect("a listing").count(), 0);
        let mut all: Vec<_> = (0..SEATS).map(|_| seats.take().expect("a seat")).collect();
        assert!(seats.take().is_none());
        assert!(seats.take_early(NOW).is_none());
        drop(all.remove(1));
        let early = seats.take_early(NOW).expect("the seat that was left");
        assert!(seats.take().is_none());
        drop(early);
        assert!(seats.take().is_some());
    }

    #[test]
    fn whoever_has_a_seat_for_too_long_keeps_nobody_else_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let seats = Seats::of(&dir.path().join("cache.db"));
        let all: Vec<_> = (0..SEATS).map(|_| seats.take().expect("a seat")).collect();
        for (seat, at) in
            [(&all[0], SystemTime::now() - HELD_MAX * 2), (&all[3], SystemTime::now() + HELD_MAX * 2)]
        {
            date(seat, at);
        }
        let more: Vec<_> = (0..2).map(|_| seats.take().expect("a seat more")).collect();
        assert!(seats.take().is_none());
        drop(more);
        drop(all);
        let again: Vec<_> = (0..SEATS).map(|_| seats.take().expect("a seat")).collect();
        assert!(seats.take().is_none(), "{again:?}");
    }

    #[test]
    fn nobody_sets_out_early_for_a_database_that_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let seats = Seats::of(&dir.path().join("cache.db"));
        drop(seats.take());
        let can = |at: Moment| seats.take_early(at).is_some();
        assert!(can(NOW));
        seats.hold(NOW.plus(HELD_MAX));
        assert!(!can(NOW));
        assert!(can(NOW.plus(HELD_MAX)));
        assert!(can(NOW.minus(HORIZON)), "as after a clock was set back");
        assert!(seats.take().is_some(), "whoever has read the cache knows better");
        seats.lift();
        assert!(can(NOW));
    }

    #[test]
    fn where_nothing_can_be_locked_nobody_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [dir.path().join("none/cache.db"), PathBuf::from("/dev/null/cache.db")] {
            let seats = Seats::of(&path);
            assert!(seats.take_early(NOW).is_none());
            let all: Vec<_> = (0..=SEATS).map(|_| seats.take().expect("a seat")).collect();
            assert_eq!(all.len() as u32, SEATS + 1);
        }
    }
}
