//! Copying a stream of the child to our own, byte for byte and in order, and letting observers see it pass.
//!
//! The child writes into a pipe, or into a terminal of its own where our stream is one. A thread reads, writes to our
//! stream, and only then shows the bytes to the observers; it holds one buffer, so that a slow reader slows the child
//! down as it would without us. When our stream is closed, so is the child's.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::bell::Bell;
use super::progress::{Progress, Reader};
use super::spawn::words;
use super::tail::{Shown, Tail};

/// What is read at once. Also asked for as the size of pipes.
const CHUNK: usize = 256 * 1024;
/// A pipe holds no more, unless an administrator allows it.
const PIPE_MAX: usize = 1024 * 1024;
/// More than the little that a copying thread needs.
const STACK: usize = 128 * 1024;
/// How long descendants that outlive the child may go on writing through us.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// One of our own streams, as far as the child's is copied to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Stdout,
    Stderr,
}

impl Own {
    fn file(self) -> io::Result<File> {
        let fd = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
        };
        Ok(fd.into())
    }

    pub(super) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }
}

/// Whether both of our streams go to the same place, so that only one copy keeps their order.
pub(super) fn are_one() -> bool {
    let place = |own: Own| {
        let meta = own.file().and_then(|file| file.metadata()).ok()?;
        // Such as the null device, where order is no matter.
        let order_matters = !meta.file_type().is_char_device() || own.is_terminal();
        order_matters.then_some((meta.dev(), meta.ino()))
    };
    place(Own::Stdout).is_some_and(|out| place(Own::Stderr) == Some(out))
}

/// Tells the copying threads of the child's end.
#[derive(Debug)]
pub(super) struct Finish {
    over: AtomicBool,
    /// Closed with the child's end, which wakes those that wait for more.
    alive: Mutex<Option<io::PipeWriter>>,
    alive_end: io::PipeReader,
}

impl Finish {
    pub(super) fn new() -> io::Result<Self> {
        let (alive_end, alive) = io::pipe()?;
        Ok(Self { over: AtomicBool::new(false), alive: Mutex::new(Some(alive)), alive_end })
    }

    pub(super) fn tell(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What has been seen of a stream so far.
#[derive(Debug)]
struct Seen {
    tail: Option<Tail>,
    reader: Option<Reader>,
    progress: Option<Progress>,
    /// Why our stream took no more, unless its reader has gone.
    write_error: Option<String>,
    done: bool,
}

/// A stream that is being copied.
#[derive(Debug)]
pub(super) struct Copy {
    seen: Arc<Mutex<Seen>>,
    /// Our terminal and the child's, where there are such.
    terminals: Option<(File, File)>,
    /// The child's end, until the child has it.
    child_end: Option<OwnedFd>,
}

impl Copy {
    /// Begins to copy; what the child is to write to is [`Copy::child_end`].
    pub(super) fn start(
        own: Own,
        tail: Option<Tail>,
        reader: Option<Reader>,
        bell: Arc<Bell>,
        finish: Arc<Finish>,
    ) -> io::Result<Self> {
        let to = own.file()?;
        let (from, child_end, terminals) = if own.is_terminal() {
            let (ours, childs) = open_terminal(&to)?;
            let terminals = Some((to.try_clone()?, ours.try_clone()?));
            (ours, childs, terminals)
        } else {
            let (ours, childs) = io::pipe()?;
            enlarge(&ours);
            (File::from(OwnedFd::from(ours)), OwnedFd::from(childs), None)
        };
        rustix::fs::fcntl_setfl(&from, rustix::fs::fcntl_getfl(&from)? | OFlags::NONBLOCK)?;
        let seen =
            Arc::new(Mutex::new(Seen { tail, reader, progress: None, write_error: None, done: false }));
        let shared = Arc::clone(&seen);
        thread::Builder::new().name("copy".to_owned()).stack_size(STACK).spawn(move || {
            copy(from, &to, &shared, &bell, &finish);
            let mut seen = lock(&shared);
            seen.observe(None);
            seen.done = true;
            drop(seen);
            bell.ring();
        })?;
        Ok(Self { seen, terminals, child_end: Some(child_end) })
    }

    pub(super) fn child_end(&self) -> Option<&OwnedFd> {
        self.child_end.as_ref()
    }

    /// The child has its end: let go of ours, so that its end is seen.
    pub(super) fn hand_over(&mut self) {
        self.child_end = None;
    }

    /// All that the child wrote has been passed on, or can no longer be.
    pub(super) fn is_done(&self) -> bool {
        lock(&self.seen).done
    }

    /// The newest progress, once.
    pub(super) fn take_progress(&self) -> Option<Progress> {
        lock(&self.seen).progress.take()
    }

    /// Why our stream took no more, such as a full disk, as a part of a sentence. A reader that has gone is no error.
    pub(super) fn write_error(&self) -> Option<String> {
        lock(&self.seen).write_error.clone()
    }

    pub(super) fn shown(&self) -> Option<Shown> {
        lock(&self.seen).tail.as_ref().map(Tail::shown)
    }

    /// Gives the child's terminal the size of ours. Says whether that changed it.
    pub(super) fn resize(&self) -> bool {
        let Some((ours, childs)) = &self.terminals else {
            return false;
        };
        let same = |a: &Winsize, b: &Winsize| (a.ws_row, a.ws_col) == (b.ws_row, b.ws_col);
        match (tcgetwinsize(ours), tcgetwinsize(childs)) {
            (Ok(new), Ok(old)) if !same(&new, &old) => tcsetwinsize(childs, new).is_ok(),
            _ => false,
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Shows the observers what has passed, or that nothing more will. Says whether there is new progress.
    fn observe(&mut self, bytes: Option<&[u8]>) -> bool {
        if let (Some(tail), Some(bytes)) = (&mut self.tail, bytes) {
            tail.push(bytes);
        }
        let (Some(reader), progress) = (&mut self.reader, &mut self.progress) else {
            return false;
        };
        let known = progress.is_some();
        let mut tell = |new: Progress| {
            // An action holds until there is another, a percentage too.
            let old = progress.take();
            let (percent, action) = old.map_or((None, None), |old| (old.percent, old.action));
            *progress = Some(Progress { percent: new.percent.or(percent), action: new.action.or(action) });
        };
        match bytes {
            Some(bytes) => reader.push_newest(bytes, &mut tell),
            None => reader.finish(&mut tell),
        }
        !known && self.progress.is_some()
    }
}

/// A terminal that changes nothing of what passes, as large as ours: our end and the child's.
fn open_terminal(ours: &File) -> io::Result<(File, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&master, rustix::io::FdFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
    let slave = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name)?;
    let mut modes = tcgetattr(&slave)?;
    modes.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    if let Ok(size) = tcgetwinsize(ours) {
        tcsetwinsize(&master, size)?;
    }
    Ok((master.into(), slave.into()))
}

/// Fewer and larger pieces; where the system refuses, smaller ones do.
fn enlarge(pipe: &io::PipeReader) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, CHUNK);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// Passes everything on until the child's stream ends, ours is closed, or the child has ended and what it left behind
/// has passed. Closes the child's stream by ending.
fn copy(mut from: File, to: &File, seen: &Mutex<Seen>, bell: &Bell, finish: &Finish) {
    let mut buffer = vec![0; CHUNK];
    // Since the child's end: until when others may write, and how much may still be the child's.
    let mut leave: Option<(Instant, usize)> = None;
    loop {
        if leave.is_none() && finish.over.load(Ordering::SeqCst) {
            leave = Some((Instant::now() + GRACE, PIPE_MAX));
        }
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let bytes = &buffer[..count];
                if let Err(error) = write_all(to, bytes) {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        lock(seen).write_error = Some(words(&error));
                    }
                    return;
                }
                if lock(seen).observe(Some(bytes)) {
                    bell.ring();
                }
                if let Some((until, owed)) = &mut leave {
                    *owed = owed.saturating_sub(count);
                    if *owed == 0 && Instant::now() >= *until {
                        return;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match leave {
                None => wait(&[from.as_fd(), finish.alive_end.as_fd()], PollFlags::IN, None),
                Some((until, _)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    wait(&[from.as_fd()], PollFlags::IN, Some(left));
                }
            },
            // A terminal says so when nobody has it open any more.
            Err(_) => return,
        }
    }
}

fn write_all(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares our stream has made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&[to.as_fd()], PollFlags::OUT, None)
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for one of them. May return early.
pub(super) fn wait(fds: &[BorrowedFd<'_>], flags: PollFlags, timeout: Option<Duration>) {
    let mut fds: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, flags)).collect();
    let timeout = timeout.and_then(|timeout| rustix::event::Timespec::try_from(timeout).ok());
    let _ = poll(&mut fds, timeout.as_ref());
}
