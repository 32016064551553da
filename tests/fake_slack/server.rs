//! Connections: one thread accepts them, and each has one that reads calls, lets them take effect and answers.

use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::args;
use super::http::{Raw, Reply, Unreadable, Wire};
use super::methods;
use super::state::State;
use super::{Fault, Request};

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let mut state = self.lock();
            if state.stopping {
                return;
            }
            let Ok(stream) = stream else { continue };
            let _ = stream.set_nodelay(true);
            let stream = Arc::new(stream);
            state.connections += 1;
            let connection = state.connections;
            state.streams.insert(connection, Arc::clone(&stream));
            state.live += 1;
            drop(state);
            let shared = Arc::clone(self);
            let spawned = thread::Builder::new().name(format!("fake-slack-{connection}")).spawn(move || {
                let mut wire = Wire::new(stream);
                shared.converse(&mut wire, connection);
                shared.lock().streams.remove(&connection);
                drop(wire);
                shared.lock().live -= 1;
                shared.changed.notify_all();
            });
            if spawned.is_err() {
                let mut state = self.lock();
                state.streams.remove(&connection);
                state.live -= 1;
            }
        }
    }

    pub(super) fn converse(&self, wire: &mut Wire, connection: u64) {
        loop {
            match wire.read() {
                Ok(Some(raw)) if raw.path == "/link/" => return self.link(wire, &raw, connection),
                Ok(Some(raw)) => {
                    if !self.serve(wire, raw, connection) {
                        return;
                    }
                }
                Ok(None) | Err(Unreadable::Gone) => return,
                Err(Unreadable::Refused(status)) => {
                    let reply = Reply::text(status, "");
                    if wire.write(reply.head(self.clock(), false).as_bytes()).is_ok() {
                        wire.linger();
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn clock(&self) -> i64 {
        self.lock().now().div_euclid(1_000_000)
    }

    /// Answers one call; says whether the connection lives on.
    pub(super) fn serve(&self, wire: &mut Wire, raw: Raw, connection: u64) -> bool {
        let keep_alive = raw.keep_alive;
        let (args, complaint) = args::read(&raw);
        let Raw { method, path, headers, body, .. } = raw;
        let request =
            Request { method, path, headers, body, args, at: Instant::now(), connection, status: 0 };
        let mut state = self.lock();
        let number = state.requests.len();
        state.requests.push(request.clone());
        self.changed.notify_all();
        if state.held {
            state = self.wait_while(state, |state| state.held);
            if state.stopping {
                return false;
            }
            drop(state);
            if wire.abandoned() {
                return false;
            }
            state = self.lock();
        }
        let fault = state.next_fault(&request);
        let effect = |state: &mut State| methods::answer(state, &request, complaint);
        let reply = match fault {
            Fault::Hang => {
                self.hang(state);
                return false;
            }
            Fault::ResetBeforeStoring => return false,
            Fault::HangAfterStoring => {
                effect(&mut state);
                self.hang(state);
                return false;
            }
            Fault::ResetAfterStoring => {
                effect(&mut state);
                return false;
            }
            Fault::RateLimited { retry_after } => {
                if let Some(seconds) = retry_after {
                    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
                    state.penalties.insert(request.name().to_owned(), until);
                }
                methods::too_many(&request, retry_after)
            }
            Fault::Status(status) => Reply { status, ..Reply::text(status, "") },
            Fault::StatusAfterStoring(status) => {
                effect(&mut state);
                Reply { status, ..Reply::text(status, "") }
            }
            Fault::Html(status) => Reply::text(
                status,
                "<!DOCTYPE html><html><title>Server Error</title><body>Oh no.</body></html>",
            ),
            Fault::ErrorName(name) => methods::refusal(&request, name),
            Fault::Garbage => Reply::text(200, "}{ this is neither JSON nor the word a webhook says"),
            Fault::NoText => Reply { body: b"{\"ok\":\xff\xfe}".to_vec(), ..Reply::text(200, "") },
            Fault::Answer(body) => {
                effect(&mut state);
                Reply::text(200, body)
            }
            Fault::Ok | Fault::TruncatedJson | Fault::SlowBody => effect(&mut state),
        };
        if let Some(request) = state.requests.get_mut(number) {
            request.status = reply.status;
        }
        let date = state.now().div_euclid(1_000_000);
        let observer = state.observer.clone();
        drop(state);
        self.changed.notify_all();
        if let Some(observer) = observer {
            observer(&Request { status: reply.status, ..request });
        }
        let mut bytes = reply.head(date, keep_alive).into_bytes();
        match fault {
            Fault::TruncatedJson => {
                bytes.extend_from_slice(&reply.body[..reply.body.len() / 2]);
                let _ = wire.write(&bytes);
                false
            }
            Fault::SlowBody => wire.write(&bytes).is_ok() && self.drip(wire, &reply.body) && keep_alive,
            _ => {
                bytes.extend_from_slice(&reply.body);
                wire.write(&bytes).is_ok() && keep_alive
            }
        }
    }

    /// Waits until a condition holds; says whether it does.
    pub(super) fn wait_until(&self, patience: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let (state, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), patience, |state| !state.stopping && !holds(state))
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        !timeout.timed_out()
    }

    /// Waits while a condition holds and the fake runs.
    pub(super) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        holds: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, |state| !state.stopping && holds(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hang(&self, state: MutexGuard<'_, State>) {
        let before = state.releases;
        drop(self.wait_while(state, |state| state.releases == before));
    }

    pub(super) fn drip(&self, wire: &mut Wire, body: &[u8]) -> bool {
        for byte in body {
            if wire.write(&[*byte]).is_err() {
                return false;
            }
            let (state, _) = self
                .changed
                .wait_timeout_while(self.lock(), Duration::from_millis(100), |state| !state.stopping)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stopping {
                return false;
            }
        }
        true
    }
}
