//! HTTP: what was recorded, for programs that ask for it.
//!
//! Knows no cache and no settings: it is given addresses, a [`Gate`] and a [`Source`]. One thread speaks with all
//! connections, and whatever may take a while is done beside it, by a few others. Nothing a caller does may make it grow
//! or wait: heads, bodies, times and connections have limits, which stand in `connection.rs` and here.

mod answers;
mod connection;
mod gate;
mod notify;
mod query;
mod reply;
mod routes;
mod slack;
mod steady;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as Pipe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::checkpoint::status::TaskState;
use crate::exit::Failure;
use answers::Answers;
pub(crate) use gate::Gate;
pub(crate) use notify::Notify;
pub(crate) use slack::Slack;

/// How many connections are looked after at once; another one is told that there are too many.
const CONNECTIONS: usize = 512;
/// How many refused or closed connections are still listened to, so that their callers can read what they were told.
const FAREWELLS: usize = 64;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How many threads there are for what may take a while: reading, and storing what comes from Slack.
const READERS: usize = 4;
/// How long requests have to be answered in once the end was asked for.
const GRACE: Duration = Duration::from_secs(5);
/// How long it is not tried to accept a connection when there was no room for one, as without a file descriptor.
const PAUSE: Duration = Duration::from_millis(50);

/// What somebody wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The latest tasks.
    Tasks {
        state: Option<TaskState>,
        limit: u64,
    },
    /// One, by its agent or its own id.
    Task(String),
    Metrics {
        days: u16,
        form: Form,
    },
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// The text that Prometheus has always read.
    Text,
    /// The same, as a standard has it.
    OpenMetrics,
}

/// Where answers come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// A number that stays the same as long as every answer does; `None` if that is not known. Does not wait.
    fn version(&self) -> Option<u64>;

    /// How many may read at once, which is fewer than there are threads if one may take long.
    fn places(&self) -> usize {
        READERS
    }

    /// The body of the answer; `None` if there is no such thing. May wait.
    ///
    /// # Errors
    /// What cannot be read, and how to mend it.
    fn read(&self, ask: &Ask) -> Result<Option<Bytes>, Unread>;

    /// Nothing is read any more.
    fn end(&self) {}
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) failure: Failure,
    /// For how long the answer stays this one.
    pub(crate) rest: Duration,
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Self {
        Self { failure, rest: Duration::ZERO }
    }
}

/// What else a server is given.
pub(crate) struct Setup {
    pub(crate) gate: Gate,
    pub(crate) source: Arc<dyn Source>,
    /// Without it there are no addresses for Slack.
    pub(crate) slack: Option<Slack>,
    /// Told of each request, where somebody wants to know.
    pub(crate) log: Option<Log>,
    pub(crate) notify: Notify,
}

/// Takes a line about each request.
pub(crate) type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Answers requests until a signal asks for the end, and then those that were already asked.
///
/// Listens on the first of the addresses that can be had; `ready` is told which once connections are accepted.
///
/// # Errors
/// None of the addresses can be had, or the system lacks something; which of them, and why.
pub(crate) fn serve(
    addresses: &[SocketAddr],
    setup: Setup,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), (Option<SocketAddr>, io::Error)> {
    let lacking = |error| (None, error);
    let stop = stop_signals().map_err(lacking)?;
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(READERS).build();
    let runtime = runtime.map_err(lacking)?;
    let source = Arc::clone(&setup.source);
    let served = runtime.block_on(async {
        let stop = UnixStream::from_std(stop).map_err(lacking)?;
        let (listener, address) = listen(addresses)?;
        let Setup { gate, source, slack, log, notify } = setup;
        let router = routes::router(gate, Answers::new(source), slack);
        let (end, ending) = watch::channel(());
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&room), router, log, ending));
        ready(address);
        notify.tell("READY=1");
        let _ = stop.readable().await;
        notify.tell("STOPPING=1");
        accepting.abort();
        // Once it is gone, nobody is let in any more.
        let _ = accepting.await;
        drop(end);
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        // Whoever is not done by then has had its time.
        let _ = timeout(GRACE, room.acquire_many(all)).await;
        Ok(())
    });
    // What is still being read is of no use to anybody.
    runtime.shutdown_background();
    source.end();
    served
}

/// Becomes readable once a signal has asked for the end.
fn stop_signals() -> io::Result<Pipe> {
    let (wake, bell) = Pipe::pair()?;
    wake.set_nonblocking(true)?;
    pipe::register(SIGTERM, bell.try_clone()?)?;
    pipe::register(SIGINT, bell)?;
    Ok(wake)
}

fn listen(addresses: &[SocketAddr]) -> Result<(TcpListener, SocketAddr), (Option<SocketAddr>, io::Error)> {
    let mut failed = (None, io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        let listening = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Without it a port cannot be had for a minute after a server has ended.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        match listening() {
            Ok(listening) => return Ok(listening),
            Err(error) => failed = (Some(*address), error),
        }
    }
    Err(failed)
}

/// Lets callers in, for ever.
async fn accept(
    listener: TcpListener,
    room: Arc<Semaphore>,
    router: Router,
    log: Option<Log>,
    ending: watch::Receiver<()>,
) {
    let farewells = Arc::new(Semaphore::new(FAREWELLS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The caller is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        // Answers are small, and are not waited for to become larger.
        let _ = stream.set_nodelay(true);
        let farewells = Arc::clone(&farewells);
        match Arc::clone(&room).try_acquire_owned() {
            Ok(place) => {
                let (router, log, ending) = (router.clone(), log.clone(), ending.clone());
                tokio::spawn(async move {
                    let left = connection::attend(stream, router, log, ending).await;
                    drop(place);
                    part(left, &farewells).await;
                });
            }
            Err(_) => {
                let _ = stream.try_write(connection::TOO_MANY);
                tokio::spawn(async move { part(stream, &farewells).await });
            }
        }
    }
}

/// Closes a connection so that its caller can read what it was told, unless too many are being closed.
async fn part(stream: TcpStream, farewells: &Semaphore) {
    if let Ok(_place) = farewells.try_acquire() {
        connection::part(stream).await;
    }
}
