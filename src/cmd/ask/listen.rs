//! Hearing of clicks: by Socket Mode where there is an app-level token, by looking otherwise.
//!
//! Slack gives each click to one of an app's connections, so that of all who share the cache one listens, under a lease:
//! it puts every click into the cache, whoever asked. When it ends, the next one takes over.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::checkpoint::outbox::Credential;
use crate::cmd::interact::{self, Debt, Ears, Owed, Reply};
use crate::cmd::{BUSY_MAX, courier, now, open_quietly};
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::config::database::Audit;
use crate::delivery::http::Http;
use crate::interaction::open::Access;
use crate::interaction::socket::{Ack, Notice, Socket};
use crate::interaction::wire::Interaction;
use crate::store::{Owner, Store, StoreError};
use crate::ui::Ui;

/// What ends sooner than that is cancelled by nobody, and Slack limits how often a socket is opened.
pub(in crate::cmd) const BRIEF: Duration = Duration::from_secs(1);
/// How long the lease lasts without a sign of life.
const LEASE: Duration = Duration::from_secs(20);
/// How often to look whether the one who listens still lives, and whether our lease is to be prolonged.
const LOOK: Duration = Duration::from_millis(500);
const STACK: usize = 512 * 1024;

/// Starts to hear of what people do with the cards, until this process ends, where Socket Mode tells of it.
pub(in crate::cmd) fn keep(config: &Arc<Config>, ui: &Ui, owed: &Owed) {
    let Some(mut listener) = Listener::new(config, ui) else { return };
    listener.owed = owed.clone();
    // Without it the command runs all the same.
    let _ = thread::Builder::new().name("listen".to_owned()).stack_size(STACK).spawn(move || {
        thread::sleep(BRIEF);
        // Without it the command runs all the same.
        let _ = listener.keep_on();
    });
}

/// The same in this thread; returns when Slack refuses for good.
#[cfg(feature = "serve")]
pub(in crate::cmd) fn listen(config: &Arc<Config>, ui: &Ui) -> Result<(), StoreError> {
    let Some(mut listener) = Listener::new(config, ui) else { return Ok(()) };
    listener.is_server = true;
    listener.keep_on()
}

/// Whether clicks can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Here, or by another process.
    Goes,
    /// Slack refuses for good.
    Over,
}

/// Listens, or sees to it that another one does.
pub(super) struct Listener {
    config: Arc<Config>,
    ui: Ui,
    /// We are `serve`, which sends whatever has changed.
    is_server: bool,
    /// What those are still to be told who were heard.
    owed: Owed,
    access: Access,
    app: Credential,
    owner: Owner,
    socket: Option<Socket>,
    taken: Instant,
    next: Instant,
}

impl Listener {
    /// `None` without an app-level token.
    pub(super) fn new(config: &Arc<Config>, ui: &Ui) -> Option<Self> {
        let access = config.socket_access()?;
        Some(Self {
            config: Arc::clone(config),
            ui: ui.clone(),
            is_server: false,
            owed: Owed::default(),
            app: Credential::app(access.token.reveal()),
            access,
            owner: Owner::current(now()),
            socket: None,
            taken: Instant::now(),
            next: Instant::now(),
        })
    }

    /// Returns when Slack refuses for good, or the cache cannot be used.
    fn keep_on(&mut self) -> Result<(), StoreError> {
        let Some(mut store) = open_quietly(&self.config, BUSY_MAX) else { return Ok(()) };
        loop {
            match self.tick(&mut store) {
                Ok(Hearing::Goes) => {}
                Ok(Hearing::Over) => return Ok(()),
                // Whoever keeps it so long ends at some time.
                Err(error) if error.busy => {
                    self.ui.detail(&format!("could not see who listens for clicks: {error}"));
                }
                Err(error) => return Err(error),
            }
            thread::sleep(LOOK);
        }
    }

    /// To be called again and again; does something twice a second at most.
    pub(super) fn tick(&mut self, store: &mut Store) -> Result<Hearing, StoreError> {
        if self.next > Instant::now() {
            return Ok(Hearing::Goes);
        }
        self.next = Instant::now() + LOOK;
        let app = self.app.as_str();
        if self.socket.as_ref().is_some_and(Socket::is_over) {
            store.write(|tx| tx.leave_listening(app, &self.owner))?;
            return Ok(Hearing::Over);
        }
        if self.socket.is_some() && self.taken.elapsed() <= LEASE / 2 {
            return Ok(Hearing::Goes);
        }
        let at = now();
        let is_taken = store.read(|tx| tx.is_listened_to(app, &self.owner, at))?;
        if is_taken || !store.write(|tx| tx.take_listening(app, &self.owner, at, at.plus(LEASE)))? {
            // Ours, if we had it, was taken while we slept.
            self.socket = None;
            return Ok(Hearing::Goes);
        }
        self.taken = Instant::now();
        if self.socket.is_none() {
            match connect((&self.config, &self.ui), &self.access, self.is_server, &self.owed) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => self.ui.detail(&format!("could not listen for clicks: {error}")),
            }
        }
        Ok(Hearing::Goes)
    }
}

/// Opens the socket; what it hears is in the cache before it is acknowledged.
fn connect(
    (config, ui): (&Arc<Config>, &Ui),
    access: &Access,
    is_server: bool,
    owed: &Owed,
) -> io::Result<Socket> {
    let (theirs, witness, owed) = (Arc::clone(config), ui.clone(), owed.clone());
    let ears = Ears::new(config, BUSY_MAX);
    // Mostly there is nothing to say.
    let mouth: Mutex<Option<Sender<(Interaction, Reply, Debt)>>> = Mutex::default();
    let hear = move |interaction: Interaction| {
        let debt = owed.owe();
        let Some(mut reply) = ears.hear(&interaction) else { return Ack::NotTaken };
        reply.is_unattended |= is_server;
        if reply.is_said() || reply.is_unattended && reply.task.is_some() {
            let mut mouth = mouth.lock().unwrap_or_else(PoisonError::into_inner);
            if mouth.is_none() {
                *mouth = open_mouth(&theirs, &witness).ok();
            }
            if let Some(mouth) = &*mouth {
                let _ = mouth.send((interaction, reply, debt));
            }
        }
        Ack::Taken(None)
    };
    let ui = ui.clone();
    let mut is_first = true;
    #[cfg(feature = "postgres")]
    let passes_on = matches!(config.audit, Audit::Database(_));
    #[cfg(not(feature = "postgres"))]
    let passes_on = false;
    let note = move |notice| match notice {
        Notice::Listening { connections } => {
            if std::mem::take(&mut is_first) && connections > 1 {
                let message = format!("the app has {connections} sockets: some clicks go to another program");
                if passes_on {
                    ui.detail(&format!("{message}, which passes them on if it has the same database"));
                } else {
                    ui.warn(&message, Some("let all who use the app share one cache, or one DATABASE_URL"));
                }
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

/// A thread that tells people what they alone are to hear, and has sent what nobody else sends, so that no
/// acknowledgement waits for it.
fn open_mouth(config: &Arc<Config>, ui: &Ui) -> io::Result<Sender<(Interaction, Reply, Debt)>> {
    let (mouth, replies) = mpsc::channel::<(Interaction, Reply, Debt)>();
    let (config, ui) = (Arc::clone(config), ui.clone());
    thread::Builder::new().name("mouth".to_owned()).stack_size(STACK).spawn(move || {
        let mut http = Http::new(config.network.clone());
        if let Some(witness) = ui.witness() {
            http.watch(witness);
        }
        for (interaction, reply, _debt) in replies {
            if reply.is_unattended && reply.task.is_some() {
                courier::have_sent(&config, &ui);
            }
            if let Some(words) = reply.words(&config) {
                interact::tell(&mut http, &config, &interaction, &words);
            }
        }
    })?;
    Ok(mouth)
}
