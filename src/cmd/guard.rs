//! The guard: a detached process that does nothing but wait for another one's end, and sees to what that one left behind
//! if it died without a word: a question with buttons, or a card.
//!
//! It reads from a pipe that nobody writes to and that only the other one holds. Until that is closed it has neither
//! read a setting nor opened the cache, so that it costs hardly any memory, and whoever ends in order just kills it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::{BUSY_MAX, configure, courier, record};
use crate::args::{BackgroundChoice, GlobalArgs, GuardArgs};
use crate::config::{Config, Flags};
use crate::exit::Exit;
use crate::store::{Store, Watcher};
use crate::ui::Ui;

/// The hidden command and its flag, which have to be the first words.
const NAME: &str = "guard";
const OVER: &str = "--over";
/// How long after the pipe's end the other process may still be seen: its files are closed before it is gone.
const DEATH_MAX: Duration = Duration::from_secs(5);
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(200);

/// Where the guard was started: settings may name files from there.
static STARTED_IN: OnceLock<PathBuf> = OnceLock::new();

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
    // Also an error is an end.
    while matches!(io::stdin().read(&mut [0]), Ok(1..)) {}
}

pub(super) fn run(global: &GlobalArgs, args: &GuardArgs) -> anyhow::Result<Exit> {
    let _ = STARTED_IN.get().map(std::env::set_current_dir);
    let (config, ui) = configure(global, Flags::default())?;
    // One that is gone is not made anew.
    let Some(path) = config.cache.as_deref().filter(|path| path.exists()) else { return Ok(Exit::Done) };
    let mut store = Store::open_at(path, BUSY_MAX)?.store;
    std::env::set_current_dir("/")?;
    let over = Watcher::stored(args.over.clone());
    let until = Instant::now() + DEATH_MAX;
    let mut pause = POLL_MIN;
    loop {
        record::bury_found(&mut store, &config)?;
        if Instant::now() >= until || !store.read(|tx| tx.answers_for_anything(&over))? {
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(POLL_MAX);
    }
    // It may also have died between an answer and its showing.
    courier::leave_the_rest(&mut store, &config, &ui);
    Ok(Exit::Done)
}
