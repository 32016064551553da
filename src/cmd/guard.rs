//! The guard: a detached process that does nothing but wait for another one's end, and sees to what that one left behind
//! if it died without a word: a question with buttons, or a card.
//!
//! It reads from a pipe that only the other one holds, and into which that writes nothing but an end that it could not
//! write down itself. Until the pipe is closed the guard has neither read a setting nor opened the cache, so that it costs
//! hardly any memory, and whoever ends in order just kills it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BUSY_MAX, configure, courier, now, record, wrapper};
use crate::args::{BackgroundChoice, GlobalArgs, GuardArgs};
use crate::checkpoint::Draft;
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::status::Status;
use crate::config::{Config, Flags};
use crate::exit::Exit;
use crate::store::{Store, StoreError, Watcher};
use crate::ui::Ui;

/// The hidden command and its flag, which have to be the first words.
const NAME: &str = "guard";
const OVER: &str = "--over";
/// How long after the pipe's end the other process may still be seen: its files are closed before it is gone.
const DEATH_MAX: Duration = Duration::from_secs(5);
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(200);
/// How long it goes on trying to write to a cache that cannot be written, and how often; then whoever comes next does.
const TRY_MAX: Duration = Duration::from_secs(600);
const TRY_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to read what is left to it.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// Where the guard was started: settings may name files from there.
static STARTED_IN: OnceLock<PathBuf> = OnceLock::new();

/// What was read from the pipe.
static WILL: OnceLock<Vec<u8>> = OnceLock::new();

/// How a wrapped command ended, where the wrapper could not write that down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Will {
    id: [u8; 16],
    status: Status,
    action: Option<String>,
    error: Option<String>,
    tail: Option<String>,
}

impl Will {
    pub(super) fn of(end: &Draft) -> Self {
        let Draft { id, status, action, error, tail, .. } = end.clone();
        Self { id: id.0.into_bytes(), status, action, error, tail }
    }
}

/// A guard over this process. Left alone it does its work.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Posts one; `None` where no process is wanted in the background, or none can be had: then whoever comes next does
    /// its work.
    pub(super) fn post(config: &Config, ui: &Ui) -> Option<Self> {
        if config.background == BackgroundChoice::Never {
            return None;
        }
        let over = Watcher::current();
        let started = courier::this_program(config, &[NAME, OVER, over.as_str()]).and_then(|mut guard| {
            guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        if let Err(error) = &started {
            ui.detail(&format!("could not start a guard: {error}"));
        }
        started.ok().map(Self)
    }

    /// It is to write that down once we have ended.
    pub(super) fn leave(mut self, will: &Will) {
        let (Some(mut pipe), Ok(text)) = (self.0.stdin.take(), serde_json::to_vec(will)) else { return };
        let (told, is_told) = mpsc::channel::<()>();
        let tell = move || {
            // One that is gone leaves it to the next call.
            let _ = pipe.write_all(&text);
            drop(told);
        };
        // One that was stopped reads nothing, and a pipe may hold less than this.
        if thread::Builder::new().name("will".to_owned()).spawn(tell).is_ok() {
            let _ = is_told.recv_timeout(LEAVE_MAX);
        }
    }

    /// Everything is in order: it goes before we do.
    pub(super) fn dismiss(self) {
        let Self(mut process) = self;
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// If this process is a guard, waits until it is called upon. To be called before anything else takes memory.
pub(crate) fn stand() {
    if !std::env::args_os().skip(1).take(2).eq([NAME, OVER]) {
        // Whoever only asks for help is not one.
        return;
    }
    courier::detach();
    if let Ok(here) = std::env::current_dir() {
        let _ = STARTED_IN.set(here);
    }
    // No directory is kept in use meanwhile.
    let _ = std::env::set_current_dir("/");
    let mut will = Vec::new();
    // Also an error is an end.
    let _ = io::stdin().read_to_end(&mut will);
    let _ = WILL.set(will);
}

pub(super) fn run(global: &GlobalArgs, args: &GuardArgs) -> anyhow::Result<Exit> {
    let _ = STARTED_IN.get().map(std::env::set_current_dir);
    let (config, ui) = configure(global, Flags::default())?;
    let Some(path) = &config.cache else { return Ok(Exit::Done) };
    std::env::set_current_dir("/")?;
    let over = Watcher::stored(args.over.clone());
    let mut will = WILL.get().and_then(|will| serde_json::from_slice(will).ok());
    let begun = Instant::now();
    let mut pause = POLL_MIN;
    // One that is gone is not made anew.
    while path.exists() {
        let (time, every) = match see_to(path, (&config, &ui), &over, &mut will) {
            Ok(true) => break,
            Ok(false) => (DEATH_MAX, POLL_MAX),
            // A full disk may have room again.
            Err(_) => (TRY_MAX, TRY_EVERY),
        };
        if begun.elapsed() >= time {
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(every);
    }
    Ok(Exit::Done)
}

/// Writes down what the other process left behind and has it sent; false while that is still to be seen.
fn see_to(
    path: &Path,
    (config, ui): (&Config, &Ui),
    over: &Watcher,
    will: &mut Option<Will>,
) -> anyhow::Result<bool> {
    let mut store = Store::open_at(path, BUSY_MAX)?.store;
    if let Some(left) = &*will {
        execute(&mut store, config, over, left)?;
        *will = None;
    }
    record::bury_found(&mut store, config)?;
    let is_done = !store.read(|tx| tx.answers_for_anything(over))?;
    if is_done {
        // It may also have died between an answer and its showing.
        courier::leave_the_rest(&mut store, config, ui);
    }
    Ok(is_done)
}

/// Writes down an end that the other process could not write down itself, unless somebody has ended its task meanwhile.
fn execute(store: &mut Store, config: &Config, over: &Watcher, will: &Will) -> Result<(), StoreError> {
    store.write(|tx| {
        let Some((task, id)) = tx.watched(over)? else { return Ok(()) };
        let task = tx.task(task)?;
        let Will { status, action, error, tail, .. } = will.clone();
        let end = Draft {
            within: Some(id),
            action,
            error,
            tail,
            ..Draft::bare(CheckpointId(Uuid::from_bytes(will.id)), task.agent_id.clone(), status)
        };
        if wrapper::says_more(Some(&task), &end) {
            let noted = record::append(tx, &end, &record::policy(config), now())?;
            if let Some(entry) = noted.recorded.entry {
                tx.look_before(entry)?;
            }
        }
        tx.leave(over)
    })
}
