//! One stream wakes the supervisor, whoever has something for it.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rung by the threads that copy and by the caller. Signals write to the same stream by themselves.
#[derive(Debug)]
pub(super) struct Bell {
    stream: UnixStream,
    /// Somebody rang since the last answer, so that there is no need to write again.
    rung: AtomicBool,
    /// The caller rang.
    woken: AtomicBool,
}

impl Bell {
    /// The stream must not block.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, rung: AtomicBool::new(false), woken: AtomicBool::new(false) })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // A full stream wakes as well.
            let _ = (&self.stream).write(&[1]);
        }
    }

    /// Before looking for what the ringing was about.
    pub(super) fn answer(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    pub(super) fn was_woken(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }
}

/// Wakes the supervisor from another thread: its next event is then [`super::Event::Woken`].
#[derive(Debug)]
pub(crate) struct Waker(pub(super) Arc<Bell>);

impl Waker {
    /// Several before the event is taken count as one.
    pub(crate) fn wake(&self) {
        self.0.woken.store(true, Ordering::SeqCst);
        self.0.ring();
    }
}
