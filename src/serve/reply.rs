//! Answers as HTTP has them: a body of a kind, or a refusal in words.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Kinds of body.
pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// A request that is not answered: why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) hint: String,
    /// When to ask again, where that helps.
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let (error, hint) = (error.into(), hint.into());
        Self { status, error, hint, retry_after: None }
    }

    /// One that stays the same for that long.
    pub(super) fn until(self, rest: Duration) -> Self {
        Self { retry_after: Some(rest), ..self }
    }

    pub(super) fn too_large(max: usize) -> Self {
        let hint = format!("send at most {} MiB", max / 1024 / 1024);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", hint)
    }

    /// The answer after which the connection is closed.
    pub(super) fn closing(self) -> Response {
        let mut response = self.into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "hint": self.hint }).to_string();
        let mut response = reply(JSON, body + "\n");
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer realm=\"agent-checkpoint\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
        }
        if let Some(rest) = self.retry_after {
            // Whole seconds, and never too early.
            let seconds = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        response
    }
}

/// An answer that nobody on the way keeps, and that is taken for nothing else.
pub(super) fn reply(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
