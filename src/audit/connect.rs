//! The connection to PostgreSQL, every step of which ends by a deadline.
//!
//! `tokio-postgres` is driven by a runtime of our own, in this thread and only while a call waits. Its blocking wrapper,
//! the crate `postgres`, does the same, but has no deadline for TLS, authentication and queries: a server or a pooler
//! that accepts and stays silent would hold a caller for as long as it likes.
//!
//! A pooler may give each transaction another server. So nothing here sets session state, and no statement has a name:
//! use `simple_query`, `batch_execute`, `query_typed` and `execute_typed`, whose statements are unnamed as long as
//! parameters and columns have built-in types. `query`, `execute`, `prepare`, and `copy_in` as well, name theirs. Limits
//! belong into the transaction (`SET LOCAL statement_timeout`): when [`Client::run`] gives a query up, the server is not
//! told.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};
use tokio::net::lookup_host;
use tokio::runtime::{Builder, Runtime};
use tokio::task;
use tokio::time::timeout_at;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode, SslNegotiation};
use tokio_postgres::{Config, Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::trouble::{At, Trouble};
use super::{probe, tls};
use crate::config::database::{ChannelBinding, Database, Host, Place, Proof, Session, Tls};

/// After what time without an answer it is asked who else may listen there, if not before.
const DOUBT: Duration = Duration::from_secs(10);

/// How long the farewell to a server may take.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// A connection, with which one thing is done at a time.
pub(crate) struct Client {
    /// Taken out only at the end.
    open: Option<Open>,
    at: At,
    protection: Protection,
    server_version: String,
    took: Duration,
    /// What was given up may still be answered, and its answer taken for another's.
    is_spoilt: bool,
}

struct Open {
    runtime: Runtime,
    client: tokio_postgres::Client,
    connection: task::JoinHandle<Result<(), Error>>,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// It does not leave this machine.
    Socket,
    Nothing,
    Tls(Proof),
}

/// A connection that is being opened in a thread of its own, while the caller does something else.
pub(crate) struct Dial(JoinHandle<Result<Client, Trouble>>);

impl Dial {
    /// Begins to connect, as [`connect`] does, and does not wait. `None` where there is no thread to be had.
    pub(crate) fn begin(database: &Arc<Database>, deadline: Instant) -> Option<Self> {
        let database = Arc::clone(database);
        let dials = move || connect(&database, deadline);
        let dial = thread::Builder::new().name("dial".to_owned()).spawn(dials).ok()?;
        // It may have been put on our own core, where it would wait until we do, and the server would have nothing to do.
        thread::yield_now();
        Some(Self(dial))
    }

    /// Waits until it is open.
    ///
    /// # Errors
    /// As [`connect`].
    pub(crate) fn finish(self) -> Result<Client, Trouble> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Opens a connection to the first host that is as wanted.
///
/// Hosts and addresses are tried in order, each for `connect_timeout`, or without one for its share of the time that is
/// left. As with libpq the next is tried when one cannot be reached or is not ready, but not when it refuses us. Where
/// something answers that is no PostgreSQL server, it is said what.
///
/// # Errors
/// What failed at each host, and how to mend it; never a password.
pub(crate) fn connect(database: &Database, deadline: Instant) -> Result<Client, Trouble> {
    let began = Instant::now();
    let encrypted = database.encryption.tls != Tls::Never
        && database.hosts.iter().any(|host| matches!(host.place, Place::Tcp { .. }));
    let tls = if encrypted { tls::connector(&database.encryption, deadline)? } else { tls::unused() };
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| Trouble::no_runtime(&error))?;
    match wait(&runtime, first_or_stranger(database, &tls, deadline)) {
        Ok(Found { client, connection, server_version, at, protection }) => {
            let open = Some(Open { runtime, client, connection });
            Ok(Client { open, at, protection, server_version, took: began.elapsed(), is_spoilt: false })
        }
        Err(trouble) => {
            // A name that is still being looked up is not waited for.
            runtime.shutdown_background();
            Err(trouble)
        }
    }
}

impl Client {
    /// Does something with the connection.
    ///
    /// # Errors
    /// What failed, or that the deadline is over: the connection is then of no use any more.
    pub(crate) fn run<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut tokio_postgres::Client) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let began = Instant::now();
        let Some(open) = self.open.as_mut().filter(|_| !self.is_spoilt) else {
            return Err(Trouble::lost(&self.at));
        };
        // Dropped whole when the time is over.
        let Open { runtime, client, .. } = open;
        let done = wait(runtime, async { timeout_at(deadline.into(), work(client)).await });
        match done {
            Ok(result) => result.map_err(|error| self.trouble(&error)),
            Err(_) => {
                self.is_spoilt = true;
                Err(Trouble::late(&self.at, began.elapsed()))
            }
        }
    }

    /// Whether something may be done with it still, as far as is known: the other side may have gone without a word.
    #[cfg(feature = "serve")]
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_spoilt && self.open.as_ref().is_some_and(|open| !open.client.is_closed())
    }

    /// What an answer that cannot be read says of the server.
    pub(super) fn trouble(&self, error: &Error) -> Trouble {
        Trouble::of(&self.at, error)
    }

    /// The host that was chosen, as `db.example.com:5432`.
    pub(crate) fn place(&self) -> &str {
        &self.at.place
    }

    /// How long was waited for it: for one word to the server and its answer at least.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    pub(crate) fn protection(&self) -> Protection {
        self.protection
    }

    /// As the server or the pooler before it has it, such as `15.6`.
    pub(crate) fn server_version(&self) -> &str {
        &self.server_version
    }
}

impl Drop for Client {
    /// Says goodbye, so that the server need not notice by itself.
    fn drop(&mut self) {
        let Some(Open { runtime, client, connection }) = self.open.take() else { return };
        drop(client);
        if !self.is_spoilt {
            let by = Instant::now() + FAREWELL_MAX;
            // Timers are made where the runtime runs.
            let _ = wait(&runtime, async { timeout_at(by.into(), connection).await });
        }
        runtime.shutdown_background();
    }
}

/// Runs what is to be waited for. All of it goes the same way, so that the runtime's own loop is in the program once.
fn wait<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    fn drive(runtime: &Runtime, work: Pin<&mut dyn Future<Output = ()>>) {
        runtime.block_on(work);
    }
    let mut done = None;
    drive(runtime, pin!(async { done = Some(work.await) }));
    done.expect("it was waited for")
}

/// A connection that is as wanted.
struct Found {
    client: tokio_postgres::Client,
    connection: task::JoinHandle<Result<(), Error>>,
    server_version: String,
    at: At,
    protection: Protection,
}

/// Connects, and finds out who else listens there where that may be why it does not succeed. It takes no longer for that: a
/// server that answers at the last moment is as good as any.
async fn first_or_stranger(
    database: &Database,
    tls: &MakeRustlsConnect,
    deadline: Instant,
) -> Result<Found, Trouble> {
    let began = Instant::now();
    let patience = probe::patience(deadline.saturating_duration_since(began));
    let doubt = (began + DOUBT).min(deadline.checked_sub(probe::STEPS * patience).unwrap_or(began));
    let mut first = pin!(first(database, tls, deadline));
    let stranger = match timeout_at(doubt.into(), first.as_mut()).await {
        Ok(Err(trouble)) if trouble.is_odd() => {
            return Err(probe::stranger(database, patience, deadline).await.unwrap_or(trouble));
        }
        Ok(done) => return done,
        Err(_) => pin!(probe::stranger(database, patience, deadline)),
    };
    match select(first, stranger).await {
        Either::Left((Err(trouble), stranger)) if trouble.is_odd() => Err(stranger.await.unwrap_or(trouble)),
        Either::Left((done, _)) => done,
        // Another one may do.
        Either::Right((Some(stranger), first)) if database.hosts.len() > 1 => {
            first.await.map_err(|trouble| if trouble.is_odd() { stranger } else { trouble })
        }
        Either::Right((Some(stranger), _)) => Err(stranger),
        Either::Right((None, first)) => first.await,
    }
}

async fn first(database: &Database, tls: &MakeRustlsConnect, deadline: Instant) -> Result<Found, Trouble> {
    let mut hosts: Vec<&Host> = database.hosts.iter().collect();
    if database.balance {
        let any = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
        let count = hosts.len();
        hosts.rotate_left((any + std::process::id()) as usize % count);
    }
    // A standby is preferred in a first round, and anything will do in a second.
    let rounds: &[Session] = match database.session {
        Session::PreferStandby => &[Session::Standby, Session::Any],
        ref other => std::slice::from_ref(other),
    };
    let mut troubles: Vec<Trouble> = Vec::new();
    let mut left = rounds.len() * hosts.len();
    for &wanted in rounds {
        for host in &hosts {
            let at =
                At { place: host.to_string(), user: database.user.clone(), database: database.name.clone() };
            match try_host(Try { database, tls, host, at, wanted }, share(deadline, left), deadline).await {
                Ok(found) => return Ok(found),
                Err(trouble) => {
                    let is_final = trouble.is_final();
                    troubles.push(trouble);
                    if is_final {
                        return Err(Trouble::all(troubles));
                    }
                }
            }
            left -= 1;
        }
    }
    Err(Trouble::all(troubles))
}

/// The end of an equal share of the time that is left.
fn share(deadline: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / parts
}

/// What is tried at a host.
struct Try<'a> {
    database: &'a Database,
    tls: &'a MakeRustlsConnect,
    host: &'a Host,
    at: At,
    wanted: Session,
}

async fn try_host(attempt: Try<'_>, its_share: Instant, deadline: Instant) -> Result<Found, Trouble> {
    let began = Instant::now();
    let limit = |share: Instant| match attempt.database.connect_timeout {
        Some(timeout) => deadline.min(Instant::now() + timeout),
        None => share,
    };
    let addresses: Vec<Option<IpAddr>> = match &attempt.host.place {
        Place::Socket(_) => vec![None],
        Place::Tcp { address: Some(address), .. } => vec![Some(*address)],
        Place::Tcp { name, .. } => {
            let lookup = lookup_host((name.as_str(), attempt.host.port));
            match timeout_at(limit(its_share).into(), lookup).await {
                Ok(Ok(found)) => found.map(|address| Some(address.ip())).collect(),
                Ok(Err(_)) => return Err(Trouble::unknown_host(name)),
                Err(_) => return Err(Trouble::late(&attempt.at, began.elapsed())),
            }
        }
    };
    let mut troubles = Vec::new();
    for (tried, address) in addresses.iter().enumerate() {
        let limit = limit(share(its_share, addresses.len() - tried));
        let began = Instant::now();
        let found = match timeout_at(limit.into(), attempt.address(*address)).await {
            Ok(found) => found,
            Err(_) => Err(Trouble::late(&attempt.at, began.elapsed())),
        };
        match found {
            Ok(found) => return Ok(found),
            Err(trouble) if trouble.is_final() => return Err(trouble),
            Err(trouble) => troubles.push(trouble),
        }
    }
    if troubles.is_empty() {
        troubles.extend(Trouble::nameless(&attempt.host.place));
    }
    Err(Trouble::all(troubles))
}

impl Try<'_> {
    /// Tries one address, with TLS or without, or first the one and then the other.
    async fn address(&self, address: Option<IpAddr>) -> Result<Found, Trouble> {
        let ways: &[bool] = match (&self.host.place, self.database.encryption.tls) {
            (Place::Socket(_), _) | (_, Tls::Never) => &[false],
            (_, Tls::Require) => &[true],
            (_, Tls::Prefer) => &[true, false],
            (_, Tls::Allow) => &[false, true],
        };
        let mut outcome = self.way(address, ways[0]).await;
        if let (Err(trouble), [_, other]) = (&outcome, ways)
            && trouble.asks_for_the_other_way()
        {
            outcome = match self.way(address, *other).await {
                Err(second) if second.is_about_tls() => outcome,
                second => second,
            };
        }
        outcome
    }

    async fn way(&self, address: Option<IpAddr>, encrypted: bool) -> Result<Found, Trouble> {
        let mut config = self.config(address);
        config.ssl_mode(match self.database.encryption.tls {
            _ if !encrypted => SslMode::Disable,
            // A server without it says so, and the same connection goes on in the clear.
            Tls::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        let trouble = |error| Trouble::of(&self.at, &error);
        let (tls, is_encrypted) = tls::noting(self.tls);
        let (client, connection) = config.connect(tls).await.map_err(trouble)?;
        let server_version = connection.parameter("server_version").unwrap_or_default().to_owned();
        // It is served whenever the runtime runs.
        let connection = tokio::spawn(connection);
        self.check_session(&client).await?;
        let protection = match self.host.place {
            Place::Socket(_) => Protection::Socket,
            Place::Tcp { .. } if is_encrypted.load(Ordering::Relaxed) => {
                Protection::Tls(self.database.encryption.proof)
            }
            Place::Tcp { .. } => Protection::Nothing,
        };
        Ok(Found { client, connection, server_version, at: self.at.clone(), protection })
    }

    fn config(&self, address: Option<IpAddr>) -> Config {
        let Database { encryption, keepalive, .. } = self.database;
        let mut config = Config::new();
        match &self.host.place {
            Place::Socket(dir) => config.host_path(dir),
            Place::Tcp { name, .. } => config.host(name),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(self.host.port).user(&self.database.user).dbname(&self.database.name);
        config.application_name(&self.database.application_name);
        if let Some(password) = &self.host.password {
            config.password(password.reveal());
        }
        if let Some(options) = &self.database.options {
            config.options(options);
        }
        if encryption.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config.channel_binding(match self.database.channel_binding {
            ChannelBinding::Disable => Binding::Disable,
            ChannelBinding::Prefer => Binding::Prefer,
            ChannelBinding::Require => Binding::Require,
        });
        config.keepalives(keepalive.on);
        if let Some(idle) = keepalive.idle {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = keepalive.interval {
            config.keepalives_interval(interval);
        }
        if let Some(count) = keepalive.count {
            config.keepalives_retries(count);
        }
        if let Some(unacknowledged) = keepalive.unacknowledged {
            config.tcp_user_timeout(unacknowledged);
        }
        config
    }

    /// Asks a server what it is, where that matters.
    async fn check_session(&self, client: &tokio_postgres::Client) -> Result<(), Trouble> {
        let (question, answer, what) = match self.wanted {
            Session::Any | Session::PreferStandby => return Ok(()),
            Session::ReadWrite => ("SHOW transaction_read_only", "off", "read-write"),
            Session::ReadOnly => ("SHOW transaction_read_only", "on", "read-only"),
            Session::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f", "a primary"),
            Session::Standby => ("SELECT pg_catalog.pg_is_in_recovery()", "t", "a standby"),
        };
        let rows = client.simple_query(question).await.map_err(|error| Trouble::of(&self.at, &error))?;
        let said = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if said == Some(answer) { Ok(()) } else { Err(Trouble::other_session(&self.at, what)) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_begun_without_waiting_for_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!(
            "postgres://someone@{}/trail?sslmode=prefer",
            listener.local_addr().expect("it is bound")
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        let dial = Dial::begin(&Arc::new(Database::of(&url)), deadline).expect("there is a thread");
        // The server, which has not said a word, is asked already whether it speaks TLS.
        let mut asked = [0; 8];
        let (mut server, _) = listener.accept().expect("somebody connects");
        server.read_exact(&mut asked).expect("it asks");
        assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47]);
        drop(dial);
    }
}
