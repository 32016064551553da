//! What `serve` does with what people do in Slack, by whichever way it comes: into the cache with it, and only then is it
//! acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::super::ask::listen;
use super::super::interact::{self, Ears, Reply};
use super::super::{courier, now};
use crate::config::Config;
use crate::delivery::http::Http;
use crate::interaction::socket::Ack;
use crate::interaction::wire::Interaction;
use crate::serve::Slack;
use crate::ui::Ui;

/// How long a turn of the cache is waited for, of the three seconds that Slack waits.
const TURN: Duration = Duration::from_secs(2);

/// What is done once an interaction is stored, when nobody waits for it any more.
struct Rest {
    interaction: Interaction,
    reply: Reply,
}

/// How Slack is listened to over HTTP.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn slack(config: &Arc<Config>, ui: &Ui) -> io::Result<Slack> {
    let rest = afterwards(config, ui)?;
    let ears = Ears::new(config, TURN);
    let hear = move |interaction: Interaction| match ears.hear(&interaction) {
        Some(reply) => {
            // Only once this process ends there is nobody to take it.
            let _ = rest.send(Rest { interaction, reply });
            Ack::Taken(None)
        }
        None => Ack::NotTaken,
    };
    Ok(Slack { signing_secret: config.signing_secret.clone(), hear: Arc::new(hear), now })
}

/// Listens by Socket Mode as well, where there is an app-level token; for as long as this process lives.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn socket(config: &Arc<Config>, ui: &Ui) -> io::Result<()> {
    if config.socket_access().is_none() {
        if config.app_token.is_some() {
            let message =
                "SLACK_APP_TOKEN is not used: without a bot token no clicks are heard by Socket Mode";
            ui.warn(message, Some("set SLACK_BOT_TOKEN"));
        }
        return Ok(());
    }
    let (config, ui) = (Arc::clone(config), ui.clone());
    thread::Builder::new().name("listen".to_owned()).spawn(move || {
        if let Err(error) = listen::listen(&config, &ui) {
            ui.wrong(&format!("could not listen for clicks: {error}"), None);
        }
    })?;
    Ok(())
}

/// A thread that tells people what they alone are to hear, and has sent what has changed: who asked need not be waiting.
fn afterwards(config: &Arc<Config>, ui: &Ui) -> io::Result<Sender<Rest>> {
    let (sender, rests) = mpsc::channel::<Rest>();
    let (config, ui) = (Arc::clone(config), ui.clone());
    thread::Builder::new().name("mouth".to_owned()).spawn(move || {
        let mut http = Http::new(config.network.clone());
        if let Some(witness) = ui.witness() {
            http.watch(witness);
        }
        for Rest { interaction, reply } in rests {
            if reply.task.is_some() {
                courier::have_sent(&config, &ui);
            }
            if let Some(words) = reply.words(&config) {
                interact::tell(&mut http, &config, &interaction, &words);
            }
        }
    })?;
    Ok(sender)
}
