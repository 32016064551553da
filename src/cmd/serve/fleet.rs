//! What `serve` reads where a database is configured: the same that `tasks`, `show` and `metrics` read with `--fleet`.
//!
//! It keeps no more than [`PLACES`] connections, gives one that nobody needs back, and leaves a database alone for a while
//! that cannot be reached: whoever asks meanwhile is told so at once.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio_postgres::error::SqlState;

use super::super::fleet::{failure, unwaited};
use super::super::now;
use super::reader::{self, Cache};
use crate::audit::Trouble;
use crate::audit::connect::{Client, connect};
use crate::audit::report;
use crate::checkpoint::mask::Masker;
use crate::checkpoint::metrics::{every_day, first_of};
use crate::config::database::Database;
use crate::delivery::retry;
use crate::exit::Failure;
use crate::serve::{Ask, Source, Unread};
use crate::store::TaskReport;
use crate::ui::Ui;

/// How many connections there are at most, and so how many may read at once. The other threads are for Slack.
const PLACES: usize = 2;
/// How long an answer may take, with the connection if there is none. A scraper waits ten seconds.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// How long a connection is kept that nobody needs.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// How long to leave a database alone that lets nobody in until somebody mends it: to try could lock the user out.
const MENDING: Duration = Duration::from_secs(30);
/// When to ask one again that was reached and lacks something, such as the tables. It is mended with one command, and
/// whoever asks sooner gets an answer too.
const LACKING: Duration = Duration::from_secs(5);
/// What to do about a question that takes too long.
const BUSY: &str = "see in pg_stat_activity whether the server is busy or a table locked";
/// How often it is said at most that something could not be read; whoever asks is told each time.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The database as a few read it at once.
pub(super) struct Fleet {
    database: Arc<Database>,
    /// For what only this machine can find out.
    cache: Cache,
    ui: Ui,
    masker: Masker,
    desk: Mutex<Desk>,
    /// Rung when a connection was put back.
    bell: Condvar,
}

#[derive(Default)]
struct Desk {
    /// Connections that nobody is using, and since when; the one used last is used next.
    idle: Vec<(Client, Instant)>,
    away: Option<Away>,
    said_at: Option<Instant>,
}

/// A database that could not be reached.
struct Away {
    /// Until when nobody tries again; while somebody does, until that one must have come to an end.
    until: Instant,
    /// How often in a row, without the first time.
    failures: u32,
    failure: Failure,
}

/// Leave to ask the database.
struct Turn {
    client: Option<Client>,
    /// How often it could not be reached until now.
    failures: u32,
}

impl Fleet {
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn new(
        database: &Arc<Database>,
        masker: Masker,
        cache: Cache,
        ui: Ui,
    ) -> io::Result<Arc<Self>> {
        let (database, desk, bell) = (Arc::clone(database), Mutex::default(), Condvar::new());
        let fleet = Arc::new(Self { database, cache, ui, masker, desk, bell });
        let tidied = Arc::clone(&fleet);
        thread::Builder::new().name("tidy".to_owned()).spawn(move || tidied.tidy())?;
        Ok(fleet)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that nobody needs, for as long as this process lives.
    fn tidy(&self) {
        let mut desk = self.desk();
        loop {
            let (now, idle) = (Instant::now(), std::mem::take(&mut desk.idle));
            let (old, kept): (Vec<_>, Vec<_>) =
                idle.into_iter().partition(|(_, since)| now.duration_since(*since) >= IDLE_MAX);
            desk.idle = kept;
            if !old.is_empty() {
                // A farewell may take a moment.
                drop(desk);
                drop(old);
                desk = self.desk();
                continue;
            }
            let wait = desk.idle.first().map(|(_, since)| (*since + IDLE_MAX).saturating_duration_since(now));
            desk = match wait {
                None => self.bell.wait(desk).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => self
                    .bell
                    .wait_timeout(desk, wait)
                    .map_or_else(|broken| broken.into_inner().0, |(desk, _)| desk),
            };
        }
    }

    /// Asks by a connection that is there, or by a new one.
    fn ask<T>(&self, question: impl Fn(&mut Client, Instant) -> Result<T, Trouble>) -> Result<T, Unread> {
        let deadline = Instant::now() + ANSWER_MAX;
        let turn = self.turn()?;
        if let Some(mut client) = turn.client {
            match question(&mut client, deadline) {
                // The server has closed it meanwhile, as it does when it is started anew.
                Err(_) if !client.is_usable() && Instant::now() < deadline => {}
                asked => return self.told(client, asked, deadline),
            }
        }
        let mut client = self.connect(deadline, turn.failures)?;
        let asked = question(&mut client, deadline);
        self.told(client, asked, deadline)
    }

    /// One at a time tries whether a database is back that was away; the others are told at once that it is not.
    fn turn(&self) -> Result<Turn, Unread> {
        let (mut desk, now) = (self.desk(), Instant::now());
        match &mut desk.away {
            Some(Away { until, failure, .. }) if *until > now => {
                Err(Unread { failure: failure.clone(), rest: until.duration_since(now) })
            }
            Some(away) => {
                away.until = now + ANSWER_MAX;
                Ok(Turn { client: None, failures: away.failures.saturating_add(1) })
            }
            None => Ok(Turn { client: desk.idle.pop().map(|(client, _)| client), failures: 0 }),
        }
    }

    fn connect(&self, deadline: Instant, failures: u32) -> Result<Client, Unread> {
        match connect(&self.database, deadline) {
            Ok(client) => {
                if self.desk().away.take().is_some() {
                    self.ui.note("the database is read again");
                }
                Ok(client)
            }
            Err(trouble) => {
                let needs_somebody = trouble.needs_somebody();
                let failure = self.words(trouble, None);
                let mut desk = self.desk();
                let is_first = desk.away.is_none();
                let rest = if needs_somebody { MENDING } else { rest(failures) };
                desk.away = Some(Away { until: Instant::now() + rest, failures, failure: failure.clone() });
                let lost = std::mem::take(&mut desk.idle);
                drop(desk);
                drop(lost);
                if is_first {
                    self.ui.wrong(&failure.message, failure.hint.as_deref());
                }
                Err(Unread { failure, rest })
            }
        }
    }

    /// Keeps a connection that can be used again, and says what could not be read.
    fn told<T>(&self, client: Client, asked: Result<T, Trouble>, deadline: Instant) -> Result<T, Unread> {
        if client.is_usable() {
            self.desk().idle.push((client, Instant::now()));
            self.bell.notify_one();
        }
        asked.map_err(|trouble| {
            let rest = if trouble.needs_somebody() { LACKING } else { rest(0) };
            let is_late = trouble.code == Some(SqlState::QUERY_CANCELED)
                || (trouble.code.is_none() && Instant::now() >= deadline);
            let failure = self.words(trouble, is_late.then_some(BUSY));
            let last = self.desk().said_at;
            if last.is_none_or(|last| last.elapsed() >= SAY_EVERY) {
                self.desk().said_at = Some(Instant::now());
                self.ui.wrong(&failure.message, failure.hint.as_deref());
            }
            Unread { failure, rest }
        })
    }

    /// What whoever asks should read. It leaves this machine, so that it is masked as what goes to a terminal is.
    fn words(&self, trouble: Trouble, hint: Option<&str>) -> Failure {
        let failure = failure(trouble);
        let hint = hint.or(failure.hint.as_deref()).map(|hint| self.masker.mask(hint));
        Failure { message: self.masker.mask(&failure.message), hint, ..failure }
    }

    fn answer(&self, ask: &Ask) -> Result<Option<String>, Unread> {
        match ask {
            Ask::Tasks { state, limit } => {
                let (found, _) = self.ask(|client, by| report::list(client, *state, *limit, by))?;
                let reports: Vec<TaskReport> = found.into_iter().map(unwaited).collect();
                Ok(Some(reader::list(&reports)))
            }
            Ask::Task(agent) => {
                let found = self.ask(|client, by| report::find_brief(client, agent, by))?;
                Ok(found.map(|(listed, artifacts)| reader::one(&unwaited(listed), artifacts)))
            }
            Ask::Metrics { days, form } => {
                let (found, now) = self.ask(|client, by| report::totals(client, *days, by))?;
                Ok(Some(reader::totals(&every_day(first_of(*days, now), &found, now), *form)))
            }
        }
    }
}

/// For how long a database is left alone that failed so often.
fn rest(failures: u32) -> Duration {
    let at = now();
    retry::network_rest(failures, at).since(at)
}

impl Source for Fleet {
    /// Others write it.
    fn version(&self) -> Option<u64> {
        None
    }

    fn places(&self) -> usize {
        PLACES
    }

    fn read(&self, ask: &Ask) -> Result<Option<Bytes>, Unread> {
        self.cache.look_for_lost();
        Ok(self.answer(ask)?.map(Bytes::from))
    }

    fn end(&self) {
        let idle = std::mem::take(&mut self.desk().idle);
        drop(idle);
    }
}
