//! What Slack sends: clicks, slash commands and events. Nothing of it is looked at before its signature was checked over
//! the bytes as they came.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::BODY_MAX;
use super::reply::{JSON, Refusal, TEXT, reply};
use super::routes::Shared;
use crate::checkpoint::time::Moment;
use crate::interaction::signature::{self, SIGNATURE, TIMESTAMP};
use crate::interaction::socket::Ack;
use crate::interaction::wire::{self, Call, Interaction, Malformed};
use crate::secret::Secret;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);
/// How long most bodies are at most, in bytes, and how many may be longer at once: whoever asks need not be Slack.
const SMALL: usize = 64 * 1024;
static LARGE: Semaphore = Semaphore::const_new(32);
/// How long storing may take: Slack waits three seconds, and says itself that there was no answer.
const HEAR_TIME: Duration = Duration::from_millis(2500);

/// What is done with what people do in Slack. It is stored when this returns; the same one may come again.
pub(crate) type Hear = Arc<dyn Fn(Interaction) -> Ack + Send + Sync>;

/// How Slack is listened to.
pub(crate) struct Slack {
    /// Without it nothing can be told from a forgery, and nothing is taken.
    pub(crate) signing_secret: Option<Secret>,
    pub(crate) hear: Hear,
    pub(crate) now: fn() -> Moment,
}

pub(super) async fn events(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    receive(desk.slack.as_ref(), request, wire::event_body).await
}

pub(super) async fn commands(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    receive(desk.slack.as_ref(), request, wire::command_form).await
}

pub(super) async fn interactions(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    receive(desk.slack.as_ref(), request, wire::interaction_form).await
}

async fn receive(
    slack: Option<&Slack>,
    request: Request,
    read: fn(&[u8]) -> Result<Call, Malformed>,
) -> Result<Response, Refusal> {
    let Some((slack, secret)) = slack.and_then(|slack| Some((slack, slack.signing_secret.as_ref()?))) else {
        let hint = "set SLACK_SIGNING_SECRET to the app's Signing Secret, under Basic Information";
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "without a signing secret nothing is taken from Slack",
            hint,
        ));
    };
    let (head, body) = request.into_parts();
    let body = whole(body).await?;
    let [timestamp, signature] = [TIMESTAMP, SIGNATURE].map(|name| one(&head.headers, name));
    signature::verify(secret, timestamp, signature, &body.bytes, (slack.now)()).map_err(|refusal| {
        let hint = "only Slack can ask this: see that the signing secret is this app's, and the clock right";
        Refusal::new(StatusCode::UNAUTHORIZED, refusal.to_string(), hint)
    })?;
    let call = read(&body.bytes).map_err(|malformed| {
        Refusal::new(StatusCode::BAD_REQUEST, malformed.to_string(), "send what Slack sends to this address")
    })?;
    match call {
        Call::Challenge(challenge) => Ok(reply(JSON, json!({ "challenge": challenge }).to_string())),
        Call::Nothing => Ok(reply(TEXT, Body::empty())),
        Call::Interaction(interaction) => {
            let hear = Arc::clone(&slack.hear);
            // Dropped when the time is over, it is stored all the same; the same one is then not heard twice.
            let heard = timeout(HEAR_TIME, spawn_blocking(move || hear(*interaction))).await;
            match heard {
                Ok(Ok(Ack::Taken(None))) => Ok(reply(TEXT, Body::empty())),
                Ok(Ok(Ack::Taken(Some(message)))) => Ok(reply(JSON, message.to_string())),
                Ok(Ok(Ack::NotTaken) | Err(_)) | Err(_) => Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "it could not be stored",
                    "send it again; agent-checkpoint doctor tells what is wrong with the cache",
                )),
            }
        }
    }
}

/// A header that is there once; two of them might be read differently by others.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// A body, and the right to hold as much.
struct Whole {
    bytes: Vec<u8>,
    place: Option<SemaphorePermit<'static>>,
}

async fn whole(mut body: Body) -> Result<Whole, Refusal> {
    let reading = async {
        let mut whole = Whole { bytes: Vec::new(), place: None };
        while let Some(frame) = body.frame().await {
            let broken = |_| Refusal::new(StatusCode::BAD_REQUEST, "the body breaks off", "send all of it");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = whole.bytes.len() + data.len();
            if length > BODY_MAX {
                return Err(Refusal::too_large(BODY_MAX));
            }
            if length > SMALL && whole.place.is_none() {
                let place = LARGE.try_acquire().map_err(|_| {
                    let error = "there are too many large bodies";
                    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, "send it again later")
                })?;
                whole.place = Some(place);
            }
            whole.bytes.extend_from_slice(&data);
        }
        Ok(whole)
    };
    timeout(BODY_TIME, reading).await.unwrap_or_else(|_| {
        let error = format!("the body did not come within {} s", BODY_TIME.as_secs());
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error, "send it at once"))
    })
}

#[cfg(test)]
mod tests;
