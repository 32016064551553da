//! The courier: a detached process that sends what waits as soon as it may, and ends. One for each cache.
//!
//! More exactly one for each link: two programs that share a cache and post to different workspaces cannot send each
//! other's messages, and one whose proxy is broken would send nobody's.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{close, setsid};
use uuid::Uuid;

use super::deliver::{PATIENCE, Sender};
use super::forward::{Forwarder, Stop};
use super::{BUSY_MAX, configure, now};
use crate::args::{BackgroundChoice, CourierArgs, GlobalArgs};
use crate::checkpoint::outbox::{Job, Link};
use crate::checkpoint::time::Moment;
use crate::config::{Config, Flags, Target};
use crate::exit::{Exit, cause};
use crate::store::{Claim, Owner, Scope, Store, StoreError, Tx, Why};
use crate::ui::Ui;

/// The longest that a courier lives; what it leaves is sent by the next call.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long an appointed courier may take to start.
const START_MAX: Duration = Duration::from_secs(15);
/// How long its office lasts without a sign of life.
const OFFICE: Duration = Duration::from_secs(120);
/// How often a waiting courier looks whether something was recorded that may be due earlier than what it knew.
const LOOK: Duration = Duration::from_millis(250);
/// How often it looks whether the process that is sending for a task still lives.
const HELD: Duration = Duration::from_secs(1);
/// How long the database may keep messages to Slack waiting.
const PASS_MAX: Duration = Duration::from_secs(15);
/// The longest that it waits without claiming anew, which prolongs its office.
const REST_MAX: Duration = Duration::from_secs(20);

/// An office in the cache that the courier takes over when it starts.
#[derive(Debug)]
pub(super) struct Office(String);

impl Office {
    fn owner(&self) -> Owner {
        // Not a process: nobody takes it for dead before its time is over.
        Owner::stored(format!("courier/{}", self.0))
    }
}

/// Appoints a courier that is yet to be started; `None` when the caller wants none, one is at work, or nothing waits.
pub(super) fn appoint(
    tx: &Tx<'_>,
    config: &Config,
    (link, forwarder): (Option<&Link>, Option<&Forwarder>),
    now: Moment,
) -> Result<Option<Office>, StoreError> {
    if config.background == BackgroundChoice::Never {
        return Ok(None);
    }
    let slack_waits = link.is_some_and(|link| tx.anything_waits(link.credential()).unwrap_or(true));
    let waits = slack_waits || forwarder.map_or(Ok(None), |forwarder| forwarder.due(tx, now))?.is_some();
    let (Some(name), true) = (link.map(Link::as_str).or(forwarder.map(Forwarder::name)), waits) else {
        return Ok(None);
    };
    let office = Office(Uuid::new_v4().simple().to_string());
    let appointed = tx.appoint_courier(name, &office.owner(), now, now.plus(START_MAX))?;
    Ok(appointed.then_some(office))
}

/// The ways on which what waits can go.
#[derive(Debug)]
pub(super) struct Links {
    link: Option<Link>,
    forwarder: Option<Forwarder>,
}

impl Links {
    pub(super) fn of(config: &Config) -> Self {
        let link = match &config.target {
            Target::Slack(destination) if !config.no_post => Some(destination.link(&config.network)),
            _ => None,
        };
        Self { link, forwarder: Forwarder::new(config) }
    }

    pub(super) fn ways(&self) -> (Option<&Link>, Option<&Forwarder>) {
        (self.link.as_ref(), self.forwarder.as_ref())
    }
}

/// Leaves what waits to a courier, as far as one is wanted and needed.
///
/// Gives it to whoever goes on for so long that it has to notice its end.
pub(super) fn leave_the_rest(store: &mut Store, config: &Config, ui: &Ui) -> Option<Child> {
    let links = Links::of(config);
    let started = match store.write(|tx| appoint(tx, config, links.ways(), now())) {
        Ok(Some(office)) => start(config, &office).map(Some).map_err(|error| error.to_string()),
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    started.unwrap_or_else(|error| {
        let hint = "what waits is sent by the next call, or by agent-checkpoint flush";
        ui.warn(&format!("could not start a courier: {error}"), Some(hint));
        None
    })
}

/// The same for whoever goes on; notices its end.
pub(super) fn leave_and_go_on(store: &mut Store, config: &Config, ui: &Ui) {
    if let Some(mut courier) = leave_the_rest(store, config, ui) {
        let _ = thread::Builder::new().spawn(move || courier.wait());
    }
}

/// The same for whoever has no cache open.
pub(super) fn have_sent(config: &Config, ui: &Ui) {
    if let Some(mut opened) = config.cache.as_ref().and_then(|path| Store::open_at(path, BUSY_MAX).ok()) {
        leave_and_go_on(&mut opened.store, config, ui);
    }
}

/// Starts the appointed courier, which shares nothing with us but the environment.
pub(super) fn start(config: &Config, office: &Office) -> anyhow::Result<Child> {
    let mut command = this_program(config, &["courier", "--office", &office.0])?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// This program, to be called with these words, the same cache and the same settings.
///
/// # Errors
/// It cannot be found, or its settings cannot be read a second time.
pub(super) fn this_program(config: &Config, words: &[&str]) -> io::Result<Command> {
    // By this name the program is found even if its file was replaced since we started.
    let this = PathBuf::from("/proc/self/exe");
    let program = if this.exists() { this } else { std::env::current_exe()? };
    let mut command = Command::new(program);
    command.arg0("agent-checkpoint").args(words);
    for (flag, path) in
        [("--cache", &config.cache), ("--config", &config.config_file), ("--env-file", &config.env_file)]
    {
        if let Some(path) = path {
            if flag != "--cache" {
                is_readable_again(path)?;
            }
            command.args([OsStr::new(flag), path.as_os_str()]);
        }
    }
    Ok(command)
}

/// Whether settings can be read by another process as we have read them.
fn is_readable_again(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() => Ok(()),
        Ok(_) => Err(io::Error::other("its settings came by a pipe, which can be read only once")),
        Err(error) => {
            let (path, cause) = (path.display(), cause(&error));
            Err(io::Error::other(format!("its settings in {path} cannot be read any more: {cause}")))
        }
    }
}

pub(super) fn run(global: &GlobalArgs, args: &CourierArgs) -> anyhow::Result<Exit> {
    detach();
    let end = Instant::now() + LIFE;
    let (config, _) = configure(global, Flags::default())?;
    let sender = Sender::new(&config, false, Some(end));
    let forwarder = Forwarder::new(&config);
    let link = sender.as_ref().map(|sender| sender.link().as_str());
    let Some(link) = link.or(forwarder.as_ref().map(Forwarder::name)).map(str::to_owned) else {
        return Ok(Exit::Done);
    };
    let Some(path) = &config.cache else { return Ok(Exit::Done) };
    let mut store = Store::open_at(path, BUSY_MAX)?.store;
    let office = Office(args.office.clone());
    // Nothing of the caller's is kept: not even its directory.
    std::env::set_current_dir("/")?;

    let mut courier = Courier { link, owner: Owner::current(now()), sender, forwarder };
    let until = now().plus(OFFICE);
    if !store.write(|tx| tx.take_office(&courier.link, &office.owner(), &courier.owner, until))? {
        return Ok(Exit::Done);
    }
    loop {
        // Looked at before anything else: what is written in between must not be missed.
        let seen = store.version_of_data()?;
        let asks_at = courier.forward(&mut store, end)?;
        match store.write(|tx| courier.claim(tx, now()))? {
            Claim::Job(job) => courier.send(&mut store, *job)?,
            Claim::Wait { until, why } if store.is_in_place() && Instant::now() < end => {
                // The death of a process that holds a lease does not show in the file.
                let until = if why == Why::Held { until.min(now().plus(HELD)) } else { until };
                rest(&store, asks_at.map_or(until, |asks_at| asks_at.min(until)), seen)?;
            }
            // The office of a courier that has nothing to wait for is closed already.
            Claim::Nothing => return Ok(Exit::Done),
            Claim::Wait { .. } => {
                store.write(|tx| tx.leave_office(&courier.link, &courier.owner))?;
                return Ok(Exit::Done);
            }
        }
    }
}

/// A courier in its office.
struct Courier {
    link: String,
    owner: Owner,
    sender: Option<Sender>,
    forwarder: Option<Forwarder>,
}

impl Courier {
    /// Sends a message, and those that follow it.
    fn send(&mut self, store: &mut Store, job: Job) -> Result<(), StoreError> {
        let Some(mut sender) = self.sender.take() else { return Ok(()) };
        let mut job = Some(Box::new(job));
        let mut sent = Ok(());
        while let Some(present) = job.take() {
            // Who opens a thread is the database's to say: what it is to be told goes first.
            let claim = |sender: &Sender, tx: &Tx<'_>, at| match &self.forwarder {
                Some(_) => Ok(Claim::Nothing),
                None => self.claim_by(Some(sender), tx, at),
            };
            match sender.attempt(store, &present, claim).and_then(|(_, next)| next) {
                Ok(Claim::Job(next)) => job = Some(next),
                Ok(_) => {}
                Err(error) => sent = Err(error),
            }
        }
        self.sender = Some(sender);
        sent
    }

    /// Tells the database what it is to be told by now, and hears what others have said before a heartbeat shows; says
    /// when to ask, if it is not time.
    fn forward(&self, store: &mut Store, end: Instant) -> Result<Option<Moment>, StoreError> {
        let Some(forwarder) = &self.forwarder else { return Ok(None) };
        let at = now();
        let deadline = end.min(Instant::now() + PASS_MAX);
        if store.read(|tx| forwarder.due(tx, at))?.is_some_and(|due_at| due_at <= at) {
            match forwarder.pass(store, false, deadline, &mut |_| {}) {
                Err(Stop::Cache(error)) => return Err(error),
                // It is tried again when the others try.
                Ok(_) | Err(Stop::Database(_) | Stop::Crowded) => {}
            }
        }
        match forwarder.catch_up(store, deadline) {
            Ok(asks_at) => Ok(asks_at),
            Err(Stop::Cache(error)) => Err(error),
            Err(Stop::Database(_) | Stop::Crowded) => Ok(None),
        }
    }

    fn claim(&self, tx: &Tx<'_>, at: Moment) -> Result<Claim, StoreError> {
        self.claim_by(self.sender.as_ref(), tx, at)
    }

    /// Claims the next entry. When there is none, and the database has everything, the office is closed in the same
    /// transaction: whoever records something later finds it closed and appoints another courier.
    fn claim_by(&self, sender: Option<&Sender>, tx: &Tx<'_>, at: Moment) -> Result<Claim, StoreError> {
        if !tx.stay_in_office(&self.link, &self.owner, at, at.plus(OFFICE))? {
            return Ok(Claim::Nothing);
        }
        let claim = sender.map_or(Ok(Claim::Nothing), |sender| sender.claim(tx, Scope::All, PATIENCE, at))?;
        let due_at = self.forwarder.as_ref().map_or(Ok(None), |forwarder| forwarder.due(tx, at))?;
        match (claim, due_at) {
            (Claim::Wait { until, .. }, Some(due_at)) if due_at < until => {
                Ok(Claim::Wait { until: due_at, why: Why::NotDue })
            }
            (Claim::Nothing, Some(until)) => Ok(Claim::Wait { until, why: Why::NotDue }),
            (Claim::Nothing, None) => {
                tx.leave_office(&self.link, &self.owner)?;
                Ok(Claim::Nothing)
            }
            (claim, _) => Ok(claim),
        }
    }
}

/// Waits until then, or until the cache is no longer as it was seen.
fn rest(store: &Store, until: Moment, seen: i64) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        let left = until.since(now());
        thread::sleep(left.clamp(Duration::from_millis(5), LOOK));
        let is_over = until <= now() || begun.elapsed() > REST_MAX;
        if is_over || !store.is_in_place() || store.version_of_data()? != seen {
            return Ok(());
        }
    }
}

/// Leaves the caller's session and closes whatever descriptors it let us inherit: a pipe that stays open would keep
/// the caller's reader waiting.
pub(super) fn detach() {
    // Fails only for a process that leads a group already, which a child that was just started does not.
    let _ = setsid();
    let listing = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let inherited: Vec<i32> = fs::read_dir(listing)
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    for descriptor in inherited.into_iter().filter(|descriptor| *descriptor > 2) {
        // The listing's own descriptor is among them, and closed already.
        let _ = close(descriptor);
    }
}
