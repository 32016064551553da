//! Hearing of clicks: by Socket Mode where there is an app-level token, by looking otherwise.
//!
//! Slack gives each click to one of an app's connections, so that of all who share the cache one listens, under a lease:
//! it puts every click into the cache, whoever asked. When it ends, the next one takes over.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::poll;
use crate::checkpoint::outbox::Credential;
use crate::cmd::interact::{self, Reply};
use crate::cmd::{BUSY_MAX, now};
use crate::config::Config;
use crate::delivery::http::Http;
use crate::interaction::open::Access;
use crate::interaction::socket::{Ack, Notice, Socket};
use crate::interaction::wire::Interaction;
use crate::store::{Owner, Put, Store, StoreError};
use crate::ui::Ui;

/// How long the lease lasts without a sign of life.
const LEASE: Duration = Duration::from_secs(20);
/// How often to look whether the one who listens still lives, and whether our lease is to be prolonged.
const LOOK: Duration = Duration::from_millis(500);
const STACK: usize = 512 * 1024;

/// Starts to hear of answers to a question, until this process ends.
pub(super) fn start(config: &Arc<Config>, ui: &Ui, put: &Put) {
    let Some(access) = config.socket_access() else { return poll::start(config, ui, put) };
    let (config, theirs, ui, put) = (Arc::clone(config), Arc::clone(config), ui.clone(), put.clone());
    let words = ui.clone();
    let started = thread::Builder::new().name("listen".to_owned()).stack_size(STACK).spawn(move || {
        match listen(&theirs, &ui, &access) {
            // What Socket Mode cannot tell us is looked for.
            Ok(()) => poll::start(&theirs, &ui, &put),
            Err(error) => ui.warn(&format!("could not listen for clicks: {error}"), None),
        }
    });
    if let Err(error) = started {
        words.warn(&format!("could not start a thread: {error}; clicks are not heard"), None);
    }
    drop(config);
}

/// Listens, or sees to it that another one does; returns when Slack refuses for good.
pub(in crate::cmd) fn listen(config: &Arc<Config>, ui: &Ui, access: &Access) -> Result<(), StoreError> {
    let app = Credential::app(access.token.reveal());
    let owner = Owner::current(now());
    let Some(mut store) = open(config) else { return Ok(()) };
    let mut socket: Option<Socket> = None;
    let mut taken = Instant::now();
    loop {
        if socket.as_ref().is_some_and(Socket::is_over) {
            store.write(|tx| tx.leave_listening(app.as_str(), &owner))?;
            return Ok(());
        }
        let is_due = socket.is_none() || taken.elapsed() > LEASE / 2;
        if is_due && !store.read(|tx| tx.is_listened_to(app.as_str(), &owner, now()))? {
            let at = now();
            let took = store.write(|tx| tx.take_listening(app.as_str(), &owner, at, at.plus(LEASE)))?;
            if took {
                taken = Instant::now();
                if socket.is_none() {
                    match connect(config, ui, access) {
                        Ok(connected) => socket = Some(connected),
                        Err(error) => ui.detail(&format!("could not listen for clicks: {error}")),
                    }
                }
            }
        } else if is_due {
            // Ours was taken while we slept.
            socket = None;
        }
        thread::sleep(LOOK);
    }
}

fn open(config: &Config) -> Option<Store> {
    let mut store = Store::open_at(config.cache.as_ref()?, BUSY_MAX).ok()?.store;
    store.keep_statements();
    Some(store)
}

/// Opens the socket; what it hears is in the cache before it is acknowledged.
fn connect(config: &Arc<Config>, ui: &Ui, access: &Access) -> io::Result<Socket> {
    let mouth = mouth(config, ui)?;
    let theirs = Arc::clone(config);
    let mut store = None;
    let hear = move |interaction: Interaction| {
        if store.as_ref().is_none_or(|store: &Store| !store.is_in_place()) {
            store = open(&theirs);
        }
        let Some(store) = &mut store else { return Ack::NotTaken };
        match interact::handle(store, &theirs, &interaction, now()) {
            Ok(Reply { words, .. }) => {
                if let Some(words) = words {
                    let _ = mouth.send((interaction, words));
                }
                Ack::Taken(None)
            }
            Err(_) => Ack::NotTaken,
        }
    };
    let ui = ui.clone();
    let mut is_first = true;
    let note = move |notice| match notice {
        Notice::Listening { connections } => {
            if std::mem::take(&mut is_first) && connections > 1 {
                let message = format!("the app has {connections} sockets: some clicks go to another program");
                ui.warn(&message, Some("let all who use the app share one cache or one serve"));
            }
        }
        Notice::Interrupted(why) => ui.detail(&format!("clicks are not heard at the moment: {why}")),
        Notice::Unreadable(what) => ui.detail(&format!("something came that cannot be read: {what}")),
        Notice::Ended(failure) => {
            let message = format!("clicks are not heard: {}", failure.message);
            ui.warn(&message, failure.hint.as_deref());
        }
    };
    Socket::listen(access.clone(), hear, note)
}

/// A thread that tells people what they alone are to hear, so that no acknowledgement waits for it.
fn mouth(config: &Arc<Config>, ui: &Ui) -> io::Result<Sender<(Interaction, String)>> {
    let (mouth, words) = mpsc::channel::<(Interaction, String)>();
    let (config, ui) = (Arc::clone(config), ui.clone());
    thread::Builder::new().name("mouth".to_owned()).stack_size(STACK).spawn(move || {
        let mut http = Http::new(config.network.clone());
        if let Some(witness) = ui.witness() {
            http.watch(witness);
        }
        for (interaction, words) in words {
            interact::tell(&mut http, &config, &interaction, &words);
        }
    })?;
    Ok(mouth)
}
