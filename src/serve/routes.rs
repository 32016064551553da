//! Which request is answered by what.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use super::answers::{Answer, Answers};
use super::gate::Gate;
use super::query;
use super::reply::{JSON, Refusal, reply};
use super::slack::{self, Slack};
use super::{Ask, Form, Unread};
use crate::exit::one_line;

const TASKS: &str = "/tasks";

/// What every request needs.
pub(super) struct Desk {
    gate: Gate,
    answers: Answers,
    pub(super) slack: Option<Slack>,
}

pub(super) type Shared = State<Arc<Desk>>;

pub(super) fn router(gate: Gate, answers: Answers, slack: Option<Slack>) -> Router {
    let mut router = Router::new();
    if slack.is_some() {
        router = router
            .route("/slack/events", post(slack::events))
            .route("/slack/commands", post(slack::commands))
            .route("/slack/interactions", post(slack::interactions));
    }
    router
        .route("/health", get(health))
        .route(TASKS, get(tasks))
        .route("/tasks/{*agent}", get(task))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Desk { gate, answers, slack }))
}

/// Says no more than that we are there, so that whoever balances load needs no token.
async fn health() -> Response {
    reply(JSON, "{\"status\":\"ok\"}\n")
}

async fn tasks(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    let (request, _) = request.into_parts();
    desk.gate.check(&request)?;
    let ask = understood(query::tasks(question(&request)))?;
    told(JSON, desk.answers.get(ask).await, nothing)
}

async fn task(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    let (request, _) = request.into_parts();
    desk.gate.check(&request)?;
    let path = request.uri.path().strip_prefix(TASKS).and_then(|path| path.strip_prefix('/'));
    let agent = understood(query::agent(path.unwrap_or_default()))?;
    let missing = format!("no agent or task '{}'", one_line(&agent));
    told(JSON, desk.answers.read(Ask::Task(agent)).await, || {
        Refusal::new(StatusCode::NOT_FOUND, missing, "GET /tasks lists them")
    })
}

async fn metrics(State(desk): Shared, request: Request) -> Result<Response, Refusal> {
    let (request, _) = request.into_parts();
    desk.gate.check(&request)?;
    let accept = request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = query::form(accept);
    let ask = understood(query::metrics(question(&request), form))?;
    let kind = match form {
        Form::Json => JSON,
        Form::Text => "text/plain; version=0.0.4; charset=utf-8",
        Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    let mut response = told(kind, desk.answers.get(ask).await, nothing)?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn unknown(request: Request) -> Refusal {
    let error = format!("there is nothing at {}", one_line(request.uri().path()));
    Refusal::new(StatusCode::NOT_FOUND, error, "GET /health, /tasks, /tasks/AGENT or /metrics")
}

/// The methods that are there stand in `Allow`.
async fn wrong_method(request: Request) -> Refusal {
    let error = format!("{} is not answered here", request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error, "the header Allow names the methods that are")
}

fn question(request: &Parts) -> &str {
    request.uri.query().unwrap_or_default()
}

fn understood<T>(read: Result<T, (String, String)>) -> Result<T, Refusal> {
    read.map_err(|(error, hint)| Refusal::new(StatusCode::BAD_REQUEST, error, hint))
}

/// A list is never missing.
fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing", "GET /tasks lists what there is")
}

fn told(kind: &'static str, answer: Answer, missing: impl FnOnce() -> Refusal) -> Result<Response, Refusal> {
    match answer {
        Ok(Some(body)) => Ok(reply(kind, body)),
        Ok(None) => Err(missing()),
        Err(Unread { failure, rest }) => {
            let hint = failure.hint.unwrap_or_else(|| "run agent-checkpoint doctor".to_owned());
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, failure.message, hint).until(rest))
        }
    }
}
