//! Outward: hands one outbox entry to Slack within a deadline and says what became of it.
//!
//! Nothing in here knows the store: an entry comes in as a value and an outcome goes out.

pub(crate) mod bot;
pub(crate) mod conversation;
pub(crate) mod http;
mod note;
pub(crate) mod retry;
pub(crate) mod webhook;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checkpoint::Card;
use crate::checkpoint::outbox::{Credential, EntryKind, Job, Link};
use crate::checkpoint::parse::Thread;
use crate::checkpoint::status::TaskState;
use crate::render::question::{self, Means};
use crate::render::slack;
use crate::secret::Secret;
use http::{Answer, Http, Network, Trouble};

/// How often a message is handed to something that takes it, but does not answer as Slack does.
const LOOKALIKE_TRIES: u32 = 3;
/// The same for a web page, such as one that asks to log in or speaks of maintenance: it took nothing, and may go away.
const PAGE_TRIES: u32 = 20;

/// Where entries go, and with what right.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// Slack's Web API with a bot token: threads and a live card.
    Bot {
        token: Secret,
        /// The API's base, ending in a slash.
        api_url: String,
    },
    /// An incoming webhook: messages that stand alone.
    Webhook { url: Secret },
}

impl Destination {
    /// The fingerprint that entries are recorded under.
    pub(crate) fn credential(&self) -> Credential {
        match self {
            Self::Bot { token, .. } => Credential::bot(token.reveal()),
            Self::Webhook { url } => Credential::webhook(url.reveal()),
        }
    }

    /// The credential and the way to Slack.
    pub(crate) fn link(&self, network: &Network) -> Link {
        let api_url = match self {
            Self::Bot { api_url, .. } => api_url,
            // Its URL is the credential.
            Self::Webhook { .. } => "",
        };
        Link::new(self.credential(), &format!("{api_url}\n{}", network.way()))
    }

    /// The host that calls go to.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Bot { api_url, .. } => http::host(api_url),
            Self::Webhook { url } => http::host(url.reveal()),
        }
    }
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Slack has the message.
    Posted {
        channel_id: Option<String>,
        ts: Option<String>,
        /// The thread it stands in, when it is a reply.
        thread_ts: Option<String>,
    },
    /// The card shows the newest state.
    Edited,
    /// Worth trying again.
    Retry(Retry),
    /// Refused for good, in Slack's words.
    Rejected(String),
    /// The card was deleted.
    CardGone,
    /// The card can never be edited again.
    CardFrozen,
    /// The card stays as it is: it cannot be edited this way.
    CardLeft,
    /// The thread was deleted.
    ThreadGone,
}

/// A failure that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) cause: Cause,
    /// In words, without secrets.
    pub(crate) reason: String,
    /// Slack may have the message all the same.
    pub(crate) maybe_sent: bool,
}

/// Who has to wait because of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Slack said when to come back: everyone.
    Limited(Option<Duration>),
    /// Nothing answers: everyone, for a short while.
    Network,
    /// Slack failed over this message: this message.
    Server,
    /// What answered is not Slack, or does not speak like it: this message, which is given up after so many tries.
    Foreign { tries: u32 },
    /// Slack said when to read again: everyone who has to read before sending.
    Lookup(Option<Duration>),
}

impl Retry {
    /// The same failure, met while only reading: methods are limited one by one.
    fn while_reading(self) -> Self {
        match self.cause {
            Cause::Limited(after) => Self { cause: Cause::Lookup(after), ..self },
            Cause::Network | Cause::Server | Cause::Foreign { .. } | Cause::Lookup(_) => self,
        }
    }

    fn limited(after: Option<Duration>) -> Self {
        let reason = match after {
            Some(after) => format!("Slack's rate limit is reached (retry after {} s)", after.as_secs()),
            None => "Slack's rate limit is reached".to_owned(),
        };
        Self { cause: Cause::Limited(after), reason, maybe_sent: false }
    }
}

impl From<Trouble> for Retry {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::TooLate => Self { cause: Cause::Server, reason: trouble.words(), maybe_sent: false },
            Trouble::NotSent(reason) => Self { cause: Cause::Network, reason, maybe_sent: false },
            Trouble::AnswerLost(reason) => Self { cause: Cause::Network, reason, maybe_sent: true },
        }
    }
}

/// Where a task goes that was recorded while nobody could tell where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) channel: Option<String>,
    pub(crate) thread: Option<Thread>,
}

/// The conversation and thread that an entry goes to.
///
/// # Errors
/// Nobody could tell when it was recorded, and nobody can now: another place than was asked for is none.
fn whither<'a>(job: &'a Job, fallback: &'a Place) -> Result<(&'a str, Option<&'a str>), Retry> {
    let known = job.task.channel_id.as_deref().or(job.task.channel.as_deref());
    match (known, &fallback.thread, &fallback.channel) {
        (Some(channel), _, _) => Ok((channel, job.task.thread_ts.as_deref())),
        (None, Some(thread), _) => Ok((&thread.channel, Some(&thread.ts))),
        (None, None, Some(channel)) => Ok((channel, None)),
        (None, None, None) => {
            let reason = "the channel or thread could not be read when this was recorded".to_owned();
            Err(Retry { cause: Cause::Server, reason, maybe_sent: false })
        }
    }
}

/// Sends one entry.
pub(crate) fn deliver(
    http: &mut Http,
    destination: &Destination,
    job: &Job,
    fallback: &Place,
    deadline: Instant,
) -> Outcome {
    let outcome = match destination {
        Destination::Bot { token, api_url } => {
            bot::Bot { http, token, api_url, deadline }.deliver(job, fallback)
        }
        Destination::Webhook { url } => webhook::deliver(http, url, job, fallback, deadline),
    };
    give_up(outcome, job)
}

/// Gives a message up that something else than Slack takes again and again: each time may be one more duplicate.
fn give_up(outcome: Outcome, job: &Job) -> Outcome {
    match outcome {
        Outcome::Retry(Retry { cause: Cause::Foreign { tries }, reason, .. })
            if job.maybe_sent && job.attempts.saturating_add(1) >= tries =>
        {
            Outcome::Rejected(format!("{reason}, again and again; the message may have arrived"))
        }
        outcome => outcome,
    }
}

/// An answer that is no message of Slack's: from the edge, a proxy, or in mid-outage.
fn foreign_answer(host: &str, answer: &Answer) -> Retry {
    if !(200..=299).contains(&answer.status) {
        let reason = format!("{host} gave HTTP status {}", answer.status);
        // Whoever fails half-way, or waits in vain for the one behind it, may have handed the message on before; only
        // 503 says that nobody took it.
        let maybe_sent = answer.status >= 500 && answer.status != 503;
        return Retry { cause: Cause::Server, reason, maybe_sent };
    }
    let is_page = answer.body.trim_start().starts_with('<');
    let tries = if is_page { PAGE_TRIES } else { LOOKALIKE_TRIES };
    let reason = format!("{host} gave an answer that is not Slack's");
    Retry { cause: Cause::Foreign { tries }, reason, maybe_sent: true }
}

/// What a message shows: the task, or the question that is put.
fn rich(job: &Job, means: Means) -> Value {
    match &job.asked {
        Some(asked) => question::message(asked, means),
        None => {
            let mut message = slack::message(&job.task.agent_id, &job.snapshot);
            // As of now, whatever the message shows.
            if let (Some(nonce), true) = (&job.task.snapshot.cancel, is_live_card(job)) {
                slack::add_cancel(&mut message, &job.task.agent_id, &format!("{}:{nonce}", job.task.id));
            }
            message
        }
    }
}

/// Whether the message is, or becomes, the card of a task that runs.
fn is_live_card(job: &Job) -> bool {
    let becomes_card = job.kind == EntryKind::Post && job.task.card == Card::Missing;
    job.task.state == TaskState::Running && (job.kind == EntryKind::Card || becomes_card)
}

/// The same without blocks, for when Slack refuses them.
fn plain(job: &Job) -> Value {
    match &job.asked {
        Some(asked) => question::plain_message(asked),
        None => slack::plain_message(&job.task.agent_id, &job.snapshot),
    }
}

/// What every message carries beside its text and blocks.
///
/// The ids in the metadata are how a message is found again whose answer was lost; everyone in the workspace can
/// read them, so there is nothing else in there.
fn dress(mut message: Value, job: &Job) -> Value {
    message["metadata"] = json!({
        "event_type": bot::EVENT_TYPE,
        "event_payload": {
            "checkpoint_id": job.checkpoint.to_string(),
            "kind": bot::kind(job),
            "task_id": job.task.id.to_string(),
            "status": job.snapshot.status.name(),
        },
    });
    message["unfurl_links"] = json!(false);
    message["unfurl_media"] = json!(false);
    message
}
