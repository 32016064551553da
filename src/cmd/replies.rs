//! `replies`: what people wrote in the agent's thread since it last looked.

#[cfg(feature = "postgres")]
mod elsewhere;

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    DAY, about_cache, configure, environment, jitter, now, open_or_fail, record, report_problems, wrapper,
};
use crate::args::{GlobalArgs, RepliesArgs};
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::outbox::Credential;
use crate::checkpoint::question::reading::unescaped;
use crate::checkpoint::time::Moment;
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Target};
use crate::delivery::bot::Bot;
use crate::delivery::conversation::{Said, order};
use crate::delivery::http::Http;
use crate::delivery::{Cause, Destination, Retry, retry};
use crate::exit::{Exit, Failure};
use crate::render::text::plain;
use crate::store::{Store, StoreError};
use crate::ui::Ui;

/// The method's name among the limits that all keep to together.
const METHOD: &str = "replies";
/// How often to look whether the thread has begun, and whether it is our turn to read.
const SOON: Duration = Duration::from_millis(100);

/// The agent's thread, and how far it was read.
struct Place {
    task: TaskKey,
    channel: String,
    thread_ts: String,
    since: String,
}

pub(super) fn run(global: &GlobalArgs, args: &RepliesArgs) -> anyhow::Result<Exit> {
    let flags = Flags { agent_id: args.agent_id.clone(), ..Flags::default() };
    let (config, ui) = configure(global, flags)?;
    config.insist()?;
    report_problems(&config, &ui);
    let mut store = open_or_fail(&config, &ui)?;
    record::bury_all(&mut store, &config, &ui);
    let Target::Slack(destination @ Destination::Bot { token, api_url }) = &config.target else {
        let hint = "set SLACK_BOT_TOKEN; a webhook gives nothing to read";
        return Err(Failure::new(Exit::Config, "there is no bot token, so that no thread can be read")
            .hint(hint)
            .into());
    };
    let mut http = Http::new(config.network.clone());
    if let Some(witness) = ui.witness() {
        http.watch(witness);
    }
    let agent_id = agent(&mut store, &config);
    let credential = destination.credential();
    #[cfg(feature = "postgres")]
    elsewhere::join(&config, &mut store, &agent_id, &credential)?;
    let patience = args.wait.map(|wait| Instant::now() + wait.min(DAY));
    let mut reader = Reader { config: &config, ui: &ui, names: HashMap::new(), me: None };
    loop {
        let left = patience.map(|until| until.saturating_duration_since(Instant::now()));
        let is_last = left.is_none_or(|left| left.is_zero());
        let place = place(&mut store, &agent_id).map_err(|error| about_cache(error, &config))?;
        let pause = match place {
            None => SOON,
            Some(place) => {
                let held =
                    turn(&mut store, &credential).map_err(|error| about_cache(error.into(), &config))?;
                if let Some(until) = held {
                    until.since(now()).max(SOON)
                } else {
                    let deadline = Instant::now() + config.deadline.min(DAY);
                    let mut bot = Bot { http: &mut http, token, api_url, deadline };
                    match reader.read(&mut bot, &place) {
                        Ok(said) => {
                            let any = reader.print(&mut bot, &said)?;
                            if let Some(latest) = said.last() {
                                store
                                    .write(|tx| tx.look_until(place.task, &latest.ts))
                                    .map_err(|error| about_cache(error.into(), &config))?;
                            }
                            if any {
                                return Ok(Exit::Done);
                            }
                        }
                        Err(Trouble::Refused(reason)) => {
                            let message = format!("could not read the thread: {reason}");
                            let hint = "run agent-checkpoint doctor";
                            return Err(Failure::new(Exit::Config, message).hint(hint).into());
                        }
                        Err(Trouble::Passing(reason)) if is_last => {
                            let message = format!("could not read the thread: {reason}");
                            return Err(Failure::new(Exit::Failed, message).hint("try again").into());
                        }
                        Err(Trouble::Limited(after)) => {
                            let at = now();
                            let until = retry::limited_until(after, jitter(), at);
                            store
                                .write(|tx| tx.hold_looks(&credential, METHOD, until, at))
                                .map_err(|error| about_cache(error.into(), &config))?;
                        }
                        Err(Trouble::Passing(reason)) => {
                            ui.detail(&format!("could not read the thread: {reason}"))
                        }
                    }
                    if is_last { Duration::ZERO } else { config.poll_interval }
                }
            }
        };
        if is_last && pause <= SOON {
            return Ok(Exit::Done);
        }
        // Without a wait a turn within Slack's limits is waited for as long as for any call.
        let most = left.unwrap_or(config.deadline);
        if patience.is_none() && pause > most {
            return Err(Failure::new(
                Exit::Failed,
                "could not read the thread: Slack asked everyone to wait",
            )
            .hint("try again later")
            .into());
        }
        thread::sleep(pause.min(most));
    }
}

/// Whose thread it is: as for `emit` from the same place.
fn agent(store: &mut Store, config: &Config) -> String {
    if let Some(inside) = wrapper::inside(store, config.agent_id.as_deref()) {
        return inside.agent_id;
    }
    let dir = std::env::current_dir().unwrap_or_default();
    surroundings(config.agent_id.as_deref(), &environment, &dir).agent_id
}

/// Where the thread is; `None` while it has not begun.
fn place(store: &mut Store, agent_id: &str) -> anyhow::Result<Option<Place>> {
    let found = store.read(|tx| {
        let Some(report) = tx.find(agent_id)? else { return Ok(None) };
        let looked = report.task.key.map(|key| tx.looked_until(key)).transpose()?.flatten();
        Ok(Some((report.task, looked)))
    })?;
    let Some((task, looked)) = found else {
        return Err(Failure::new(Exit::Failed, format!("no agent '{agent_id}'"))
            .hint("agent-checkpoint tasks lists them")
            .into());
    };
    let (Some(key), Some(channel), Some(thread_ts)) = (task.key, task.channel_id, task.thread_ts) else {
        return Ok(None);
    };
    let began = format!("{}.000000", task.started_at.0.div_euclid(1000));
    // What stood in a thread before the agent joined it was not said to it.
    let since = looked.unwrap_or(if task.joined { began } else { thread_ts.clone() });
    Ok(Some(Place { task: key, channel, thread_ts, since }))
}

/// Takes a turn to read; until when there is none, if so.
fn turn(store: &mut Store, credential: &Credential) -> Result<Option<Moment>, StoreError> {
    Ok(store.write_relaxed(|tx| tx.look_turn(credential, METHOD, now()))?.err())
}

/// Why nothing could be read.
enum Trouble {
    /// For good, in Slack's words.
    Refused(String),
    Limited(Option<Duration>),
    Passing(String),
}

impl From<Retry> for Trouble {
    fn from(Retry { cause, reason, .. }: Retry) -> Self {
        match cause {
            Cause::Limited(after) | Cause::Lookup(after) => Self::Limited(after),
            _ => Self::Passing(reason),
        }
    }
}

struct Reader<'a> {
    config: &'a Config,
    ui: &'a Ui,
    /// What people call themselves, as far as Slack tells.
    names: HashMap<String, Option<String>>,
    /// The user of our token.
    me: Option<String>,
}

impl Reader<'_> {
    fn read(&mut self, bot: &mut Bot<'_>, place: &Place) -> Result<Vec<Said>, Trouble> {
        if self.me.is_none() {
            self.me = Some(bot.identity()?.user_id);
        }
        bot.replies(&place.channel, &place.thread_ts, &place.since)?.map_err(Trouble::Refused)
    }

    /// Prints what people said; false if it was nothing.
    fn print(&mut self, bot: &mut Bot<'_>, said: &[Said]) -> anyhow::Result<bool> {
        let masker = self.config.masker();
        let mut any = false;
        for one in said.iter().filter(|one| !one.is_automatic()) {
            let Some(user) = one.user.as_ref().filter(|user| Some(*user) != self.me.as_ref()) else {
                continue;
            };
            let Some(name) = self.name(bot, user) else { continue };
            let text = masker.mask(&unescaped(&one.text));
            let line = if self.config.json {
                let (seconds, micros) = order(&one.ts);
                let at = Moment(i64::try_from(seconds * 1000 + micros / 1000).unwrap_or(0));
                json!({ "ts": one.ts, "user_id": user, "user_name": name, "text": text, "said_at": at.rfc3339() })
                    .to_string()
            } else {
                format!("@{}: {}", plain(name.as_deref().unwrap_or(user), false), plain(&text, true))
            };
            self.ui.answer(&line)?;
            any = true;
        }
        Ok(any)
    }

    /// Somebody's name, where Slack tells it; `None` for a bot.
    fn name(&mut self, bot: &mut Bot<'_>, user: &str) -> Option<Option<String>> {
        if let Some(known) = self.names.get(user) {
            return Some(known.clone());
        }
        let account = bot.account(user).ok().and_then(Result::ok);
        if account.as_ref().is_some_and(|account| account.is_bot) {
            return None;
        }
        let name = account.map(|account| account.name).filter(|name| !name.is_empty());
        self.names.insert(user.to_owned(), name.clone());
        Some(name)
    }
}
