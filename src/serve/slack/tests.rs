//! Slack's addresses, asked as Slack and others ask.

use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::Request;
use hyper::body::{Body as HttpBody, Frame};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use ring::hmac;

use super::*;
use crate::serve::answers::Answers;
use crate::serve::{Ask, Gate, Source, Unread, routes};

const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
/// In seconds.
const NOW: i64 = 1_772_357_400;

const CLICK: &str = r#"{"type":"block_actions","user":{"id":"U1ANA"},"channel":{"id":"C0123456789"},
    "container":{"type":"message","message_ts":"1.2","channel_id":"C0123456789"},
    "actions":[{"type":"button","action_id":"question:approve","value":"v","action_ts":"3.4"}]}"#;
const COMMAND: &str = "command=%2Fagent-task&text=list&user_id=U1ANA&channel_id=C0123456789&trigger_id=7.8";
const MENTION: &str = r#"{"type":"event_callback","event_id":"Ev1","event":
    {"type":"app_mention","user":"U1ANA","channel":"C0123456789","ts":"1.2","text":"<@U0BOT> list"}}"#;

struct Nothing;

impl Source for Nothing {
    fn version(&self) -> Option<u64> {
        None
    }

    fn read(&self, _: &Ask) -> Result<Option<Bytes>, Unread> {
        Ok(None)
    }
}

/// Whatever was heard, by its id.
type Ids = Arc<Mutex<Vec<String>>>;

fn app(secret: Option<&str>, answer: impl Fn() -> Ack + Send + Sync + 'static) -> (Router, Ids) {
    let ids = Ids::default();
    let heard = Arc::clone(&ids);
    let hear = Arc::new(move |interaction: Interaction| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(interaction.id().to_owned());
        answer()
    });
    let signing_secret = secret.map(|secret| Secret::new(secret.to_owned()));
    let slack = Slack { signing_secret, hear, now: || Moment(NOW * 1000) };
    (routes::router(Gate::new(None), Answers::new(Arc::new(Nothing)), Some(slack)), ids)
}

fn heard(ids: &Ids) -> Vec<String> {
    ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The status and the body that a request is answered with.
fn ask(router: &Router, request: Request<Body>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answered = runtime.block_on(async {
        let response = TowerToHyperService::new(router.clone()).call(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    });
    runtime.shutdown_background();
    answered
}

fn signature(at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, format!("v0:{at}:{body}").as_bytes());
    "v0=".to_owned() + &tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
}

fn signed(path: &str, body: &str) -> Request<Body> {
    let request = Request::post(path).header(TIMESTAMP, NOW.to_string());
    request.header(SIGNATURE, signature(NOW, body)).body(Body::from(body.to_owned())).expect("a request")
}

fn click() -> String {
    // As a form has it: only what would end a field is encoded.
    format!("payload={}", CLICK.replace('+', "%2B"))
}

#[test]
fn what_slack_sends_is_heard_and_acknowledged() {
    let (router, ids) = app(Some(SECRET), || Ack::Taken(None));
    for (path, body, id) in [
        ("/slack/interactions", click(), "click:C0123456789:1.2:3.4:U1ANA"),
        ("/slack/commands", COMMAND.to_owned(), "command:7.8"),
        ("/slack/events", MENTION.to_owned(), "event:Ev1"),
    ] {
        assert_eq!(ask(&router, signed(path, &body)), (200, String::new()), "{path}");
        assert_eq!(heard(&ids).last().map(String::as_str), Some(id));
        // The same again has the same id, by which whoever hears it knows.
        assert_eq!(ask(&router, signed(path, &body)), (200, String::new()), "{path}");
        assert!(heard(&ids).ends_with(&[id.to_owned(), id.to_owned()]), "{path}");
    }
    let challenge = r#"{"type":"url_verification","challenge":"3eZbrw1aB"}"#;
    let answered = ask(&router, signed("/slack/events", challenge));
    assert_eq!(answered, (200, r#"{"challenge":"3eZbrw1aB"}"#.to_owned()));
    assert_eq!(ask(&router, signed("/slack/commands", "ssl_check=1&token=x")).0, 200);
    assert_eq!(heard(&ids).len(), 6);
}

#[test]
fn what_was_stored_may_be_answered_and_what_was_not_is_to_be_sent_again() {
    let (router, _) = app(Some(SECRET), || Ack::Taken(Some(json!({ "text": "Nobody." }))));
    assert_eq!(ask(&router, signed("/slack/commands", COMMAND)), (200, r#"{"text":"Nobody."}"#.to_owned()));
    let (router, _) = app(Some(SECRET), || Ack::NotTaken);
    assert_eq!(ask(&router, signed("/slack/commands", COMMAND)).0, 503);
}

#[test]
fn what_is_not_signed_by_slack_is_refused_at_every_address_and_not_heard() {
    let (router, ids) = app(Some(SECRET), || Ack::Taken(None));
    for (path, body) in [
        ("/slack/interactions", click().as_str()),
        ("/slack/commands", COMMAND),
        ("/slack/events", MENTION),
        ("/slack/events", r#"{"type":"url_verification","challenge":"x"}"#),
    ] {
        let right = signature(NOW, body);
        let old = NOW - 301;
        let ask = |headers: &[(&str, &str)], sent: &str| {
            let mut request = Request::post(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            ask(&router, request.body(Body::from(sent.to_owned())).expect("a request")).0
        };
        let now = NOW.to_string();
        assert_eq!(ask(&[], body), 401, "{path}");
        assert_eq!(ask(&[(SIGNATURE, &right)], body), 401, "{path}");
        assert_eq!(ask(&[(TIMESTAMP, &now)], body), 401, "{path}");
        assert_eq!(ask(&[(TIMESTAMP, &now), (SIGNATURE, &right)], &body[1..]), 401, "{path}");
        assert_eq!(ask(&[(TIMESTAMP, &now), (SIGNATURE, &right[..60])], body), 401, "{path}");
        assert_eq!(ask(&[(TIMESTAMP, &now), (SIGNATURE, &right), (SIGNATURE, &right)], body), 401, "{path}");
        let stale = [(TIMESTAMP, &*old.to_string()), (SIGNATURE, &*signature(old, body))];
        assert_eq!(ask(&stale, body), 401, "{path}");
    }
    assert_eq!(heard(&ids), [""; 0]);
    assert_eq!(ask(&router, Request::get("/slack/events").body(Body::empty()).expect("a request")).0, 405);
}

#[test]
fn without_a_signing_secret_nothing_is_taken() {
    let (router, ids) = app(None, || Ack::Taken(None));
    for path in ["/slack/interactions", "/slack/commands", "/slack/events"] {
        let (status, body) = ask(&router, signed(path, COMMAND));
        assert_eq!(status, 503, "{path}");
        assert!(body.contains("set SLACK_SIGNING_SECRET"), "{body}");
    }
    assert_eq!(heard(&ids), [""; 0]);
}

#[test]
fn what_is_signed_but_cannot_be_read_is_refused_in_words() {
    let (router, ids) = app(Some(SECRET), || Ack::Taken(None));
    for (path, body) in [
        ("/slack/events", "not json"),
        ("/slack/events", "{}"),
        ("/slack/interactions", "payload=%zz"),
        ("/slack/interactions", "payload=[]"),
        ("/slack/interactions", ""),
        ("/slack/commands", "text=list"),
    ] {
        let (status, answer) = ask(&router, signed(path, body));
        assert!(status == 400 && answer.contains("\"hint\""), "{path} {body}: {status} {answer}");
    }
    assert_eq!(heard(&ids), [""; 0]);
}

/// A body that goes on, or stops in the middle.
struct Endless {
    is_silent: bool,
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_silent {
            Poll::Pending
        } else {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
        }
    }
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    let (router, ids) = app(Some(SECRET), || Ack::Taken(None));
    for (is_silent, expected) in [(false, 413), (true, 408)] {
        let request =
            Request::post("/slack/events").body(Body::new(Endless { is_silent })).expect("a request");
        assert_eq!(ask(&router, request).0, expected);
    }
    // However many are sent, what is held of them stays small.
    let places = LARGE.try_acquire_many(32).expect("nobody has any");
    let large = "x".repeat(SMALL + 1);
    assert_eq!(ask(&router, signed("/slack/events", &large)).0, 503);
    assert_eq!(ask(&router, signed("/slack/events", &large[1..])).0, 400);
    drop(places);
    assert_eq!(ask(&router, signed("/slack/events", &large)).0, 400);
    assert_eq!(heard(&ids), [""; 0]);
}

#[test]
fn slack_is_answered_within_three_seconds_whatever_takes_long() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (router, ids) = app(Some(SECRET), move || {
        let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
        Ack::Taken(None)
    });
    let since = Instant::now();
    assert_eq!(ask(&router, signed("/slack/commands", COMMAND)).0, 503);
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(heard(&ids), ["command:7.8"]);
    drop(release);
}
