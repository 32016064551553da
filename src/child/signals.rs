//! The signals we watch for the child, where they came from, and which of them it still needs to be given.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
#[cfg(target_os = "linux")]
use signal_hook::low_level::siginfo::Cause;
use signal_hook::low_level::siginfo::Origin;

/// Those that mean the child, or its end.
const WATCHED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCHLD,
    Signal::SIGWINCH,
];

/// One that arrived, before anything is decided about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) signal: Signal,
    /// Typed at the terminal, or the terminal's end; otherwise a process sent it.
    pub(super) from_terminal: bool,
    pub(super) sender: Option<Pid>,
}

/// Where a child stands towards our terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In our process group: what is typed at the terminal reaches both.
    Beside,
    /// In a process group of its own: only we can reach it.
    Apart,
}

impl Arrived {
    /// Whether the child must be given it. `moved`: the child has left our process group.
    ///
    /// What the terminal sends goes to the whole group in front, which has the child in it unless it has moved. What a
    /// process sends is meant for the command, and only we got it; but not what the child itself sends to its group.
    pub(super) fn is_for_the_child(self, child: Pid, place: Place, moved: bool) -> bool {
        if matches!(self.signal, Signal::SIGCHLD | Signal::SIGWINCH) || self.sender == Some(child) {
            return false;
        }
        !self.from_terminal || place == Place::Apart || moved
    }
}

/// Watches signals from its making on. Each arrival wakes the reader of the stream that `bell` writes to.
#[derive(Debug)]
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
}

impl Signals {
    /// Watches nothing yet.
    pub(super) fn new(wake: UnixStream, bell: UnixStream) -> io::Result<Self> {
        let delivery = SignalDelivery::with_pipe(wake, bell, WithOrigin::default(), [0i32; 0])?;
        Ok(Self { delivery })
    }

    /// Watches all but those that were ignored when we were started.
    pub(super) fn watch(&self, ignored: u64) -> io::Result<()> {
        let mut heard = WATCHED.into_iter().filter(|signal| {
            // Without this one we would never learn of the child's end.
            *signal == Signal::SIGCHLD || ignored & (1 << (*signal as u32 - 1)) == 0
        });
        heard.try_for_each(|signal| self.delivery.handle().add_signal(signal as i32))
    }

    pub(super) fn wake(&self) -> &UnixStream {
        self.delivery.get_read()
    }

    /// Those that have arrived since the last look; empties the wake stream.
    pub(super) fn arrived(&mut self) -> Vec<Arrived> {
        self.delivery.pending().filter_map(|origin| arrived(&origin)).collect()
    }
}

fn arrived(origin: &Origin) -> Option<Arrived> {
    let signal = Signal::try_from(origin.signal).ok()?;
    let sender = origin.process.map(|process| Pid::from_raw(process.pid));
    Some(Arrived { signal, from_terminal: is_from_terminal(origin), sender })
}

/// Linux says whether the kernel or a process sent it.
#[cfg(target_os = "linux")]
fn is_from_terminal(origin: &Origin) -> bool {
    origin.cause == Cause::Kernel
}

/// Elsewhere the cause is not reliable: the terminal sends to the group in front, so it was not the terminal if we are
/// not in that group.
#[cfg(not(target_os = "linux"))]
fn is_from_terminal(origin: &Origin) -> bool {
    let typed = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP]
        .iter()
        .any(|signal| *signal as i32 == origin.signal);
    let in_front = || {
        let terminal = std::fs::File::open("/dev/tty").ok()?;
        let group = rustix::termios::tcgetpgrp(terminal).ok()?;
        Some(group.as_raw_nonzero().get() == nix::unistd::getpgrp().as_raw())
    };
    typed && in_front() == Some(true)
}

/// The signals that were ignored when we were started, as bits from signal 1 on: nohup(1) means us. None where the
/// system does not say.
pub(crate) fn ignored_signals() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

/// From now on a write beyond the largest file allowed (`ulimit -f`) fails, as on a full disk, instead of ending us.
///
/// A handler does that, and no handler outlives exec: to a child the signal means what it would without us. So for
/// whoever has one (`for_child`), a signal that is ignored already, which comes to the same for us, stays ignored.
pub(crate) fn outlive_file_limit(for_child: bool) {
    let signal = Signal::SIGXFSZ as i32;
    let is_ignored = || ignored_signals().is_some_and(|ignored| ignored & (1 << (signal - 1)) != 0);
    if !(for_child && is_ignored()) {
        // Without it a limit ends us, as it does most programs.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}
