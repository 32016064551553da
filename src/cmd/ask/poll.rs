//! Looking for answers where Slack does not tell them: reactions on the question's message, replies in its thread.
//!
//! A thread of its own, with its own connections: a call may take long, and the end of the wait does not wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::checkpoint::outbox::Credential;
use crate::checkpoint::parse;
use crate::checkpoint::question::reading;
use crate::checkpoint::question::rules::{Kind, Voter};
use crate::checkpoint::question::{RequestId, Word};
use crate::checkpoint::time::Moment;
use crate::cmd::interact::{self, Heard, Hearing};
use crate::cmd::{BUSY_MAX, jitter, now, record};
use crate::config::{Config, Target};
use crate::delivery::bot::Bot;
use crate::delivery::conversation::{Account, Identity, Said, order};
use crate::delivery::http::Http;
use crate::delivery::{Cause, Destination, Retry, retry};
use crate::render::question::puts_question;
use crate::secret::Secret;
use crate::store::{Put, Store, StoreError};
use crate::ui::Ui;

/// How often to look whether the message is posted.
const POSTED: Duration = Duration::from_millis(100);
/// The longest that one look takes.
const CALL: Duration = Duration::from_secs(30);
/// The stack: it speaks TLS.
const STACK: usize = 512 * 1024;

const REPLIES: &str = "replies";
const REACTIONS: &str = "reactions";

/// Starts to look for answers to a question, until it is answered or this process ends.
pub(super) fn start(config: &Arc<Config>, ui: &Ui, put: &Put) {
    let Some(mut look) = Look::new(config, ui, put) else { return };
    let thread = thread::Builder::new().name("poll".to_owned()).stack_size(STACK);
    if let Err(error) = thread.spawn(move || look.keep()) {
        ui.warn(&format!("could not start a thread: {error}; reactions and replies are not seen"), None);
    }
}

/// Looks once.
pub(in crate::cmd) fn once(config: &Arc<Config>, ui: &Ui, store: &mut Store, put: &Put) {
    let Some(mut look) = Look::new(config, ui, put) else { return };
    look.time = config.deadline.min(CALL);
    let looked = match look.place(store) {
        Ok(Some(Ok(place))) => look.look(store, &place),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = looked {
        ui.detail(&format!("could not look for answers: {error}"));
    }
}

struct Look {
    config: Arc<Config>,
    ui: Ui,
    request: RequestId,
    credential: Credential,
    token: Secret,
    api_url: String,
    http: Http,
    /// The longest that one call takes.
    time: Duration,
    me: Option<Identity>,
    /// Who was looked up; `None` for whom Slack does not tell of.
    known: HashMap<String, Option<Account>>,
    /// The latest reply up to which all were taken.
    oldest: String,
    /// The latest one that was read.
    latest: Option<String>,
    /// The first question after ours that was found in the thread, whoever put it.
    next: Option<String>,
    /// Whether replies, and reactions, cannot be read with this token.
    is_closed: [bool; 2],
}

/// Where to look.
struct Place {
    channel: String,
    ts: String,
    thread_ts: Option<String>,
    put: Put,
    /// Where the task's other questions are: a reply is for the one asked last in the thread.
    others: Vec<String>,
}

/// Something that may be an answer.
struct Found {
    id: String,
    source: &'static str,
    user: String,
    word: Word,
    comment: Option<String>,
}

impl Look {
    /// `None` where there is nothing to be looked for: a webhook tells of no message.
    fn new(config: &Arc<Config>, ui: &Ui, put: &Put) -> Option<Self> {
        let Target::Slack(destination @ Destination::Bot { token, api_url }) = &config.target else {
            return None;
        };
        let mut http = Http::new(config.network.clone());
        if let Some(witness) = ui.witness() {
            http.watch(witness);
        }
        Some(Self {
            config: Arc::clone(config),
            ui: ui.clone(),
            request: put.asked.question.id,
            credential: destination.credential(),
            token: token.clone(),
            api_url: api_url.clone(),
            http,
            time: CALL,
            me: None,
            known: HashMap::new(),
            oldest: String::new(),
            latest: None,
            next: None,
            is_closed: [false; 2],
        })
    }

    fn keep(&mut self) {
        let Some(mut store) = self.open() else { return };
        loop {
            let place = match self.place(&mut store) {
                Ok(Some(Ok(place))) => place,
                // Not posted yet.
                Ok(Some(Err(()))) => {
                    thread::sleep(POSTED);
                    continue;
                }
                Ok(None) => return,
                Err(error) => {
                    self.ui.detail(&format!("could not look for answers: {error}"));
                    thread::sleep(self.config.poll_interval);
                    continue;
                }
            };
            let began = Instant::now();
            if let Err(error) = self.look(&mut store, &place) {
                self.ui.detail(&format!("could not look for answers: {error}"));
            }
            if self.is_closed == [true; 2] {
                let hint = "add channels:history and reactions:read to the app, or answer with agent-checkpoint answer";
                self.ui.warn("neither replies nor reactions can be read", Some(hint));
                return;
            }
            thread::sleep(self.config.poll_interval.saturating_sub(began.elapsed()));
        }
    }

    fn open(&self) -> Option<Store> {
        let path = self.config.cache.as_ref()?;
        Store::open_at(path, BUSY_MAX).ok().map(|opened| opened.store)
    }

    /// Where the message is, as soon as it is anywhere; `None` once nobody waits for an answer.
    fn place(&self, store: &mut Store) -> Result<Option<Result<Place, ()>>, StoreError> {
        store.read(|tx| {
            let Some(put) = tx.question(self.request)?.filter(|put| put.asked.answer.is_none()) else {
                return Ok(None);
            };
            let Some((channel, ts)) = put.asked.message.clone() else { return Ok(Some(Err(()))) };
            let thread_ts = tx.task(put.task)?.thread_ts;
            let others = tx.questions_of(put.task)?.into_iter().filter(|other| other.key != put.key);
            let others = others.filter_map(|other| Some(other.asked.message?.1)).collect();
            Ok(Some(Ok(Place { channel, ts, thread_ts, put, others })))
        })
    }

    fn bot(&mut self) -> Bot<'_> {
        let deadline = Instant::now() + self.time;
        Bot { http: &mut self.http, token: &self.token, api_url: &self.api_url, deadline }
    }

    /// Looks once at reactions and replies, and takes what is new.
    fn look(&mut self, store: &mut Store, place: &Place) -> Result<(), StoreError> {
        if self.me.is_none() {
            match self.bot().identity() {
                Ok(me) => self.me = Some(me),
                Err(retry) => {
                    self.ui.detail(&format!("could not look for answers: {}", retry.reason));
                    return Ok(());
                }
            }
        }
        for (closed, method) in [REACTIONS, REPLIES].into_iter().enumerate() {
            if self.is_closed[closed] || !self.has_turn(store, method)? {
                continue;
            }
            let found = match method {
                REACTIONS => self.reactions(place),
                _ => self.replies(place),
            };
            match found {
                Ok(Ok(found)) => {
                    let mut all = true;
                    for one in found {
                        all &= self.take(store, place, one)?;
                    }
                    if let (true, REPLIES, Some(latest)) = (all, method, self.latest.take()) {
                        self.oldest = latest;
                    }
                }
                Ok(Err(reason)) => {
                    self.is_closed[closed] = true;
                    self.ui.warn(
                        &format!("{method} cannot be read: {reason}"),
                        Some("run agent-checkpoint doctor"),
                    );
                }
                Err(Retry { cause, reason, .. }) => {
                    if let Cause::Limited(after) | Cause::Lookup(after) = cause {
                        let at = now();
                        let until = retry::limited_until(after, jitter(), at);
                        store.write(|tx| tx.hold_looks(&self.credential, method, until, at))?;
                    }
                    self.ui.detail(&format!("{method} could not be read: {reason}"));
                }
            }
        }
        Ok(())
    }

    /// All who share the cache keep to Slack's limits together.
    fn has_turn(&self, store: &mut Store, method: &str) -> Result<bool, StoreError> {
        let at = now();
        let turn: Result<(), Moment> =
            store.write_relaxed(|tx| tx.look_turn(&self.credential, method, at))?;
        Ok(turn.is_ok())
    }

    fn reactions(&mut self, place: &Place) -> Result<Result<Vec<Found>, String>, Retry> {
        let question = &place.put.asked.question;
        Ok(self.bot().reactions(&place.channel, &place.ts)?.map(|reactions| {
            let mut found = Vec::new();
            for reaction in reactions {
                let Some(word) = reading::reaction(question, &reaction.name) else { continue };
                found.extend(reaction.users.into_iter().map(|user| Found {
                    id: format!("reaction:{}:{}:{user}:{}", place.channel, place.ts, reaction.name),
                    source: "reaction",
                    user,
                    word,
                    comment: None,
                }));
            }
            found
        }))
    }

    fn replies(&mut self, place: &Place) -> Result<Result<Vec<Found>, String>, Retry> {
        let Some(thread_ts) = place.thread_ts.clone() else { return Ok(Ok(Vec::new())) };
        if self.oldest.is_empty() {
            self.oldest.clone_from(&place.ts);
        }
        let oldest = self.oldest.clone();
        let said = match self.bot().replies(&place.channel, &thread_ts, &oldest)? {
            Ok(said) => said,
            Err(reason) => return Ok(Err(reason)),
        };
        self.latest = said.last().map(|said| said.ts.clone());
        if self.next.is_none() {
            self.next = said.iter().find(|said| self.is_another_question(said)).map(|said| said.ts.clone());
        }
        let is_ours = |ts: &str| {
            let later = |other: &String| order(other) > order(&place.ts) && order(other) < order(ts);
            !place.others.iter().chain(&self.next).any(later)
        };
        let found =
            said.into_iter().filter(|said| !said.is_automatic() && is_ours(&said.ts)).filter_map(|said| {
                let (word, comment) = reading::reply(&place.put.asked.question, &said.text)?;
                let id = format!("reply:{}:{}", place.channel, said.ts);
                Some(Found { id, source: "reply", user: said.user?, word, comment })
            });
        Ok(Ok(found.collect()))
    }

    /// Several agents may share a thread, and not all of them this cache. Whoever pretends to ask keeps words from
    /// counting at most.
    fn is_another_question(&self, said: &Said) -> bool {
        // Ours may have been posted twice.
        said.is_automatic() && puts_question(&said.text) && !said.text.contains(&self.request.to_string())
    }

    /// Puts a word into the cache, unless it was heard before; tells the person why it changes nothing. False if it is to
    /// be tried again.
    fn take(&mut self, store: &mut Store, place: &Place, found: Found) -> Result<bool, StoreError> {
        if store.read(|tx| tx.was_heard(&found.id))? {
            return Ok(true);
        }
        let Some(voter) = self.voter(&found.user) else { return Ok(false) };
        let heard = Heard {
            id: Some(found.id),
            source: found.source,
            voter,
            request: self.request,
            button: None,
            word: found.word,
            comment: found.comment,
        };
        let (policy, masker) = (record::policy(&self.config), self.config.masker());
        let hearing = Hearing { policy: &policy, masker: &masker, starts_here: false };
        let verdict = store.write(|tx| interact::vote(tx, &hearing, &heard, now()))?;
        if let Some(Ok(interact::Verdict { words: Some(words), .. })) = verdict
            && heard.voter.kind != Kind::Bot
        {
            let thread_ts = place.thread_ts.as_deref();
            self.bot().whisper(&place.channel, thread_ts, &found.user, &words);
        }
        Ok(true)
    }

    /// Who somebody is; `None` if that cannot be told now, but may be later.
    fn voter(&mut self, user: &str) -> Option<Voter> {
        let me = self.me.clone().unwrap_or_default();
        if !self.known.contains_key(user) {
            let account = match self.bot().account(user) {
                Ok(account) => account,
                Err(Retry { reason, .. }) => {
                    self.ui.detail(&format!("could not look up {user}: {reason}"));
                    return None;
                }
            };
            let account = account.map_err(|reason| {
                let hint = "add users:read to the app, so that bots can be told from people";
                self.ui.warn(&format!("who {user} is cannot be looked up: {reason}"), Some(hint));
            });
            self.known.insert(user.to_owned(), account.ok());
        }
        let account = self.known.get(user).and_then(Option::as_ref);
        let is_elsewhere = |team: &str| !team.is_empty() && !me.team_id.is_empty() && team != me.team_id;
        let kind = match account {
            _ if user == me.user_id => Kind::OurToken,
            _ if user == "USLACKBOT" => Kind::Bot,
            Some(account) if account.is_bot || account.deleted => Kind::Bot,
            Some(account) if is_elsewhere(&account.team_id) => Kind::Foreign,
            _ => Kind::Person,
        };
        let user_name = account.and_then(|account| parse::person(&account.name));
        Some(Voter { kind, user_id: Some(user.to_owned()), user_name })
    }
}
