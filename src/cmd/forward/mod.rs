//! Forwarding: what the cache has and the audit trail's database has not goes there, in batches.
//!
//! The same for `emit`, `flush`, the courier and the worker, which differ in when they do it and how long they wait. A
//! database may lag and never blocks: after a failure everyone who shares the cache leaves it alone for a while.

mod news;
pub(in crate::cmd) mod people;
pub(super) mod resolve;
mod session;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

pub(in crate::cmd) use self::session::Session;
use super::interact::elsewhere::Rules;
use super::now;
use crate::audit::Trouble;
use crate::audit::connect::{Dial, connect};
use crate::checkpoint::audit::{ClockOffset, SharedTask};
use crate::checkpoint::id::CheckpointKey;
use crate::checkpoint::time::Moment;
use crate::config::Config;
use crate::config::database::{Audit, Database};
use crate::delivery::retry;
use crate::store::{Seat, Seats, Store, StoreError, Trail, Tx, Unsent};

/// How soon to look whether one of them is done, and how often in the end.
const POLL: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(40);
/// Whoever waited for a place, or for a slow disk, and has less time left than this leaves it to others.
const HURRY: Duration = Duration::from_millis(100);
/// How many checkpoints a batch has at most, and about how many bytes.
const BATCH: (usize, usize) = (2000, 4 * 1024 * 1024);
/// How many of them a call takes along that has something of its own to tell.
const ALONG: (usize, usize) = (200, 256 * 1024);
/// How long what is not urgent waits for company, so that a busy agent is no connection for each checkpoint.
pub(super) const REST: Duration = Duration::from_secs(10);
/// How often one process connects at most, whatever there is to tell.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it asks after a thread that somebody else is about to open.
const LOOK: Duration = Duration::from_secs(1);
/// How much the measured clock may differ from the one before by chance, beside the time that its answer took.
const CLOCK_NOISE: Duration = Duration::from_millis(50);
/// How long a connection may take: Slack waits meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Among how many refused rows reasons are looked for, and how many of them are told.
const REASONS_LOOK: u64 = 100;
const REASONS_MAX: usize = 3;
/// How often a batch is told again since somebody else was quicker with something.
const OVERTAKEN_MAX: u32 = 20;

/// Forwards rows to one database.
#[derive(Debug)]
pub(super) struct Forwarder {
    database: Arc<Database>,
    /// What the cache knows the database by; holds no secret.
    name: String,
    /// By which what people did elsewhere is judged.
    rules: Rules,
    /// When this process last told everything.
    passed_at: Cell<Option<Moment>>,
    /// Up to which of what people did elsewhere it has looked.
    heard_up_to: Cell<Option<Uuid>>,
}

/// A seat among the few processes of a cache that speak with the database at once.
pub(super) struct Departure {
    seat: Seat,
    since: Instant,
    /// The connection, where it was begun already.
    dial: Option<Dial>,
}

/// The same, with what the cache knows of the database.
pub(super) struct Place {
    departure: Departure,
    trail: Trail,
    /// By when everything is to be told.
    deadline: Instant,
}

impl Place {
    /// The same with another deadline, where it turned out how long everything else takes.
    pub(super) fn by(self, deadline: Instant) -> Self {
        Self { deadline, ..self }
    }
}

/// Why forwarding stopped.
#[derive(Debug)]
pub(super) enum Stop {
    Cache(StoreError),
    Database(Trouble),
    /// Others are speaking with the database already, and time is over, or they have found that it is away.
    Crowded,
}

/// What became of rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Checkpoints and interventions that the database has now.
    pub(super) sent: u64,
    /// Those that it refused for good.
    pub(super) refused: u64,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Cache(error)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Database(trouble)
    }
}

impl Stop {
    /// Whether it stays as it is until somebody mends it.
    pub(super) fn needs_somebody(&self) -> bool {
        matches!(self, Self::Database(trouble) if trouble.needs_somebody())
    }

    /// What failed and how to mend it, where it is the database.
    pub(super) fn words(&self) -> Option<(String, String)> {
        match self {
            Self::Database(trouble) if trouble.is_about_schema() => {
                let message = format!("the database lacks the audit trail's tables: {}", trouble.message);
                Some((message, "run agent-checkpoint db migrate".to_owned()))
            }
            Self::Database(Trouble { message, hint, .. }) => Some((message.clone(), hint.clone())),
            Self::Cache(_) | Self::Crowded => None,
        }
    }
}

impl Forwarder {
    /// For the configured database; `None` when there is none that can be used.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let Audit::Database(database) = &config.audit else { return None };
        Some(Self {
            name: format!("audit|{}", database.fingerprint()),
            database: Arc::clone(database),
            rules: Rules::of(config),
            passed_at: Cell::new(None),
            heard_up_to: Cell::new(None),
        })
    }

    /// What the cache knows the database by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn hold(&self) -> String {
        format!("{}|hold", self.name)
    }

    /// Until when everybody leaves the database alone.
    pub(super) fn held_until(&self, tx: &Tx<'_>, at: Moment) -> Result<Option<Moment>, StoreError> {
        let until = tx.held_until(&self.hold(), at)?;
        Ok((until > at).then_some(until))
    }

    /// When the database is to be told what waits for it; `None` if nothing does.
    pub(super) fn due(&self, tx: &Tx<'_>, at: Moment) -> Result<Option<Moment>, StoreError> {
        let held_until = self.held_until(tx, at)?.unwrap_or(at);
        let Some(trail) = tx.known_trail(&self.name)? else { return Ok(Some(held_until)) };
        let after = |moment: Option<Moment>, rest| moment.map_or(at, |moment| moment.min(at).plus(rest));
        let due_at = if tx.trail_waits(&trail)? {
            // A moment that a clock wrote which was set back since is not waited for.
            let rest = if tx.has_urgent_audit(&trail)? { Duration::ZERO } else { REST };
            after(trail.sent_at, rest).max(after(self.passed_at.get(), PAUSE))
        } else if tx.awaited_threads(at)?.is_empty() {
            return Ok(None);
        } else {
            after(self.passed_at.get(), LOOK)
        };
        Ok(Some(due_at.max(held_until)))
    }

    /// Whether a checkpoint is in the database.
    pub(super) fn has(&self, tx: &Tx<'_>, checkpoint: CheckpointKey) -> Result<bool, StoreError> {
        tx.is_audited(&self.name, checkpoint)
    }

    /// Whether the database lacks anything, what it refused included with `rejected`, or knows what we wait for.
    pub(super) fn is_behind(&self, store: &mut Store, rejected: bool) -> Result<bool, StoreError> {
        store.read(|tx| {
            let refused = if rejected { tx.audit_refusals(&self.name, 1)?.len() } else { 0 };
            Ok(refused > 0 || self.due(tx, now())?.is_some())
        })
    }

    /// Tells everything that waits, what was refused included with `rejected`, and hears what became of tasks elsewhere
    /// and what people want of them. `progress` is told how many rows are through.
    pub(super) fn pass(
        &self,
        store: &mut Store,
        rejected: bool,
        deadline: Instant,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Told, Stop> {
        self.passed_at.set(Some(now()));
        let passed = self.open(store, None, deadline).and_then(|(mut session, _)| {
            let told = session.tell_all(store, rejected, progress);
            let heard = session.hear(store);
            // What cannot be asked now is asked with what is told next.
            let taken = session.hear_people(store).unwrap_or_default();
            let closed = session.close(store);
            self.rules.tell(store, &taken, Some(deadline));
            closed?;
            let told = told?;
            heard?;
            Ok(told)
        });
        self.remember(store, passed)
    }

    /// Why rows were refused: the first few reasons, each once.
    pub(super) fn refusals(&self, store: &mut Store) -> Result<Vec<String>, StoreError> {
        let found = store.read(|tx| tx.audit_refusals(&self.name, REASONS_LOOK))?;
        let mut reasons: Vec<String> = Vec::new();
        for (_, reason) in found {
            if reasons.len() < REASONS_MAX && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Ok(reasons)
    }

    /// Why a checkpoint was refused.
    pub(super) fn refusal(
        &self,
        store: &mut Store,
        checkpoint: CheckpointKey,
    ) -> Result<Option<String>, StoreError> {
        store.read(|tx| tx.audit_refusal(&self.name, checkpoint))
    }

    /// How many rows the database lacks.
    pub(super) fn unsent(&self, store: &mut Store) -> Result<Unsent, StoreError> {
        store.read(|tx| tx.unsent_audit(&self.name))
    }

    /// After a failure nobody who shares the cache tries for a while; after a success everybody may.
    pub(super) fn remember<T>(&self, store: &mut Store, done: Result<T, Stop>) -> Result<T, Stop> {
        let hold = self.hold();
        match &done {
            Ok(_) => {
                if store.read(|tx| tx.failures(&hold))? > 0 {
                    Seats::of(store.path()).lift();
                    store.write_relaxed(|tx| tx.lift(&hold))?;
                }
            }
            Err(Stop::Database(_)) => {
                let until = store.write_relaxed(|tx| {
                    let at = now();
                    // Those who set out together fail together: that is one failure.
                    if let Some(until) = self.held_until(tx, at)? {
                        return Ok(until);
                    }
                    let until = retry::network_rest(tx.failures(&hold)?, at);
                    tx.rest(&hold, until, at)?;
                    Ok(until)
                })?;
                Seats::of(store.path()).hold(until);
            }
            Err(Stop::Cache(_) | Stop::Crowded) => {}
        }
        done
    }

    /// Connects, and asks for an agent's latest task on the way.
    pub(super) fn open(
        &self,
        store: &mut Store,
        agent_id: Option<&str>,
        deadline: Instant,
    ) -> Result<(Session<'_>, Option<SharedTask>), Stop> {
        let mut session = self.enter(store, deadline)?;
        match session.greet(agent_id) {
            Ok(found) => Ok((session, found)),
            Err(trouble) => {
                session.close(store)?;
                Err(Stop::Database(trouble))
            }
        }
    }

    /// Connects, without a word yet.
    pub(super) fn enter(&self, store: &mut Store, deadline: Instant) -> Result<Session<'_>, Stop> {
        let place = self.take_place(store, deadline)?;
        self.arrive(store, place)
    }

    /// The same for whoever may be told to leave the database alone while all seats are taken.
    ///
    /// # Errors
    /// The database is to be left alone by now, beside what [`enter`](Self::enter) returns.
    pub(super) fn enter_unless_held(
        &self,
        store: &mut Store,
        deadline: Instant,
    ) -> Result<Session<'_>, Stop> {
        let place = self.take_place(store, deadline)?;
        if store.read(|tx| self.held_until(tx, now()))?.is_some() {
            return Err(Stop::Crowded);
        }
        self.arrive(store, place)
    }

    /// Begins to connect before the cache is open, for what is told whatever is in it. `None` where others have all seats,
    /// the database is to be left alone, or this cache has never had to do with one.
    pub(super) fn depart(&self, cache: &Path, deadline: Instant) -> Option<Departure> {
        Seats::of(cache).take_early(now()).map(|seat| self.dial(seat, deadline))
    }

    /// The same in a transaction that records something to be told: the database gets ready while that is written to the
    /// disk. Goes on with what was begun before.
    pub(super) fn set_out(
        &self,
        (tx, store): (&Tx<'_>, &Path),
        at: Moment,
        deadline: Instant,
        before: Option<Departure>,
    ) -> Result<Option<Place>, StoreError> {
        let begin = || Seats::of(store).take().map(|seat| self.dial(seat, deadline));
        let Some(departure) = before.or_else(begin) else { return Ok(None) };
        Ok(Some(Place { departure, trail: tx.trail(&self.name, at)?, deadline }))
    }

    fn dial(&self, seat: Seat, deadline: Instant) -> Departure {
        let since = Instant::now();
        Departure { seat, since, dial: Dial::begin(&self.database, deadline.min(since + CONNECT_MAX)) }
    }

    /// Connects from a place that was taken, without a word yet.
    pub(super) fn arrive(
        &self,
        store: &mut Store,
        Place { departure: Departure { seat, since, dial }, trail, deadline }: Place,
    ) -> Result<Session<'_>, Stop> {
        let now = Instant::now();
        // A slow disk may have taken the time.
        let left = deadline.saturating_duration_since(now);
        let is_late = left.is_zero() || dial.is_some() && left < HURRY && left < since.elapsed();
        let greet_by = deadline.min(now + CONNECT_MAX);
        // Read while the server gets ready.
        let waiting = dial.as_ref().and_then(|_| store.read(|tx| Session::along(tx, &trail)).ok());
        let client = match dial {
            // What is not even tried says nothing of the database.
            _ if is_late => Err(Stop::Crowded),
            Some(dial) => dial.finish().map_err(Stop::Database),
            None => connect(&self.database, greet_by).map_err(Stop::Database),
        };
        let client = client?;
        Ok(Session {
            forwarder: self,
            latency: client.took() / 2,
            client,
            seat,
            offset: trail.offset.unwrap_or(ClockOffset(0)),
            trail,
            judged: None,
            waiting,
            advanced: None,
            looked_at: BTreeSet::new(),
            waits_for: Vec::new(),
            cancels: Vec::new(),
            greet_by,
            deadline,
        })
    }

    fn take_place(&self, store: &mut Store, deadline: Instant) -> Result<Place, Stop> {
        let seat = take_seat(&Seats::of(store.path()), deadline).ok_or(Stop::Crowded)?;
        let trail = store.write_relaxed(|tx| tx.trail(&self.name, now()))?;
        Ok(Place { departure: Departure { seat, since: Instant::now(), dial: None }, trail, deadline })
    }
}

/// Takes a seat as soon as somebody leaves. `None` when the time is over before: a connection that others leave no time for
/// says nothing of the database.
fn take_seat(seats: &Seats, deadline: Instant) -> Option<Seat> {
    let mut poll = POLL;
    loop {
        if let Some(seat) = seats.take() {
            return Some(seat);
        }
        thread::sleep(poll);
        if deadline.saturating_duration_since(Instant::now()) < HURRY {
            return None;
        }
        poll = (poll * 2).min(POLL_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::net::TcpListener;

    use super::*;
    use crate::args::GlobalArgs;
    use crate::config::{Flags, resolve};

    /// A forwarder to a server that says nothing, and a cache of its own.
    fn connecting_to(silent: &TcpListener) -> (Forwarder, Store, tempfile::TempDir) {
        let url = format!("postgres://u@{}/d?sslmode=disable", silent.local_addr().expect("its address"));
        let env = |name: &str| (name == "DATABASE_URL").then(|| OsString::from(&url));
        let config = resolve(&GlobalArgs::default(), Flags::default(), &env).expect("settings");
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Store::open_at(&dir.path().join("cache.db"), Duration::from_secs(5));
        (Forwarder::new(&config).expect("a database"), opened.expect("a cache").store, dir)
    }

    #[test]
    fn whoever_gets_a_place_in_the_last_moment_says_nothing_of_the_database() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (forwarder, mut store, _dir) = connecting_to(&silent);
        let began = Instant::now();
        let seats = Seats::of(store.path());
        let mut all: Vec<_> = std::iter::from_fn(|| seats.take()).collect();
        let first = all.pop().expect("a seat");
        let leaves = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1000).saturating_sub(began.elapsed()));
            drop(first);
        });
        let stop =
            forwarder.enter(&mut store, began + Duration::from_millis(1090)).err().expect("no session");
        assert!(matches!(stop, Stop::Crowded), "{stop:?}");
        leaves.join().expect("an end");
    }

    #[test]
    fn whoever_is_left_hardly_any_time_by_a_slow_disk_says_nothing_of_the_database() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (forwarder, mut store, _dir) = connecting_to(&silent);
        let deadline = Instant::now() + Duration::from_millis(300);
        let path = store.path().to_owned();
        let place = store.write_relaxed(|tx| forwarder.set_out((tx, &path), now(), deadline, None));
        let place = place.expect("a transaction").expect("a place");
        // So long the transaction took.
        thread::sleep(Duration::from_millis(230));
        let stop = forwarder.arrive(&mut store, place).err().expect("no session");
        assert!(matches!(stop, Stop::Crowded), "{stop:?}");
        let seats = Seats::of(&path);
        let free: Vec<_> = std::iter::from_fn(|| seats.take()).collect();
        assert_eq!(free.len(), 4, "the seat is left");
    }
    #[test]
    fn those_who_fail_together_hold_the_database_back_as_one() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (forwarder, mut store, _dir) = connecting_to(&silent);
        let away = || Trouble::no_schema("db.example:5432", 0, 1);
        for _ in 0..4 {
            let failed: Result<(), _> = forwarder.remember(&mut store, Err(Stop::Database(away())));
            assert!(failed.is_err());
        }
        let hold = forwarder.hold();
        assert_eq!(store.read(|tx| tx.failures(&hold)).expect("a number"), 1);
    }

    #[test]
    fn whoever_waited_for_a_seat_leaves_a_database_alone_that_others_found_away() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        silent.set_nonblocking(true).expect("a socket");
        let (forwarder, mut store, _dir) = connecting_to(&silent);
        let hold = forwarder.hold();
        store.write(|tx| tx.rest(&hold, now().plus(PAUSE * 100), now())).expect("a hold");
        let deadline = Instant::now() + Duration::from_secs(5);
        let stop = forwarder.enter_unless_held(&mut store, deadline).err().expect("no session");
        assert!(matches!(stop, Stop::Crowded), "{stop:?}");
        assert!(silent.accept().is_err(), "nobody connected");
    }
}
