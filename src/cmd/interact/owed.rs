//! What people are still to be told of what they did, so that whoever is ended by it tells them first.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Shared by all who hear for one process.
#[derive(Debug, Clone, Default)]
pub(in crate::cmd) struct Owed(Arc<(Mutex<usize>, Condvar)>);

/// Somebody who may have to be told something; paid when it is dropped.
#[derive(Debug)]
pub(in crate::cmd) struct Debt(Owed);

impl Owed {
    /// From before it is heard what somebody did, so that nobody sees what came of it before this.
    pub(in crate::cmd) fn owe(&self) -> Debt {
        *self.count() += 1;
        Debt(self.clone())
    }

    /// Waits until everybody is told, or the time is over.
    pub(in crate::cmd) fn await_paid(&self, by: Instant) {
        let left = by.saturating_duration_since(Instant::now());
        drop(self.0.1.wait_timeout_while(self.count(), left, |count| *count > 0));
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.0.1.notify_all();
    }
}
