//! Who may read: whoever shows the token, and without one only programs of this machine.

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version};
use subtle::ConstantTimeEq;

use super::reply::Refusal;
use crate::delivery::http::is_loopback;
use crate::secret::Secret;

/// What a proxy adds to what it hands on.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
const SET_TOKEN: &str = "set AGENT_CHECKPOINT_SERVE_TOKEN, and show it as Authorization: Bearer TOKEN";

/// Lets readers in.
#[derive(Debug)]
pub(crate) struct Gate {
    token: Option<Secret>,
}

impl Gate {
    /// Asks for this token; without one only this machine must be able to reach us.
    pub(crate) fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    /// # Errors
    /// Why this request must not read.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        match &self.token {
            Some(token) => check_token(token, &request.headers),
            None => check_place(request),
        }
    }
}

fn check_token(token: &Secret, headers: &HeaderMap) -> Result<(), Refusal> {
    let hint = "show AGENT_CHECKPOINT_SERVE_TOKEN as Authorization: Bearer TOKEN";
    let refused = |error: &str| Refusal::new(StatusCode::UNAUTHORIZED, error, hint);
    let Some(shown) = headers.get(AUTHORIZATION) else { return Err(refused("a token is needed")) };
    let shown = shown.as_bytes();
    let (scheme, shown) = shown.split_at_checked("Bearer ".len()).unwrap_or((shown, b""));
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    // How long it takes must not tell how much of it is right.
    if is_bearer && bool::from(shown.trim_ascii().ct_eq(token.reveal().as_bytes())) {
        return Ok(());
    }
    Err(refused("this is not the token"))
}

/// A web page may have the browser of somebody on this machine ask us, by a name of its own that stands for our address
/// (DNS rebinding). Then the name stands in the request. And what a proxy hands on may come from anywhere.
fn check_place(request: &Parts) -> Result<(), Refusal> {
    if let Some(name) = FORWARDED.into_iter().find(|name| request.headers.contains_key(*name)) {
        let error = format!("a proxy has handed this on ({name}): it may come from anywhere");
        return Err(Refusal::new(StatusCode::FORBIDDEN, error, SET_TOKEN));
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (None, None) if request.version == Version::HTTP_10 => return Ok(()),
        _ => {
            let hint = "name the host you ask, as HTTP/1.1 demands";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "there is not one header Host", hint));
        }
    };
    let named = request.uri.authority().map(|authority| authority.as_str());
    match [Some(host), named].into_iter().flatten().find(|host| !is_loopback(host)) {
        None => Ok(()),
        Some(host) => {
            let error = format!("this is not {host}: without a token only this machine is answered");
            Err(Refusal::new(StatusCode::FORBIDDEN, error, SET_TOKEN))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn status(gate: &Gate, request: axum::http::request::Builder) -> u16 {
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        gate.check(&parts).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_only_this_machine_is_answered() {
        let gate = Gate::new(None);
        for (host, expected) in [
            ("127.0.0.1:3001", 200),
            ("localhost", 200),
            ("[::1]:3001", 200),
            ("api.localhost:80", 200),
            ("evil.example", 403),
            ("127.0.0.1.evil.example:3001", 403),
            ("localhost.evil.example", 403),
            ("0.0.0.0:3001", 403),
            ("", 403),
        ] {
            assert_eq!(status(&gate, Request::get("/tasks").header("Host", host)), expected, "{host}");
        }
        let ours = || Request::get("/tasks").header("Host", "localhost");
        assert_eq!(status(&gate, ours().header("X-Forwarded-For", "10.0.0.1")), 403);
        assert_eq!(status(&gate, ours().header("Forwarded", "for=10.0.0.1")), 403);
        assert_eq!(status(&gate, ours().header("Host", "localhost")), 400);
        assert_eq!(status(&gate, Request::get("http://evil.example/tasks").header("Host", "localhost")), 403);
        assert_eq!(status(&gate, Request::get("/tasks")), 400);
        assert_eq!(status(&gate, Request::get("/tasks").version(Version::HTTP_10)), 200);
    }

    #[test]
    fn with_a_token_only_who_shows_it_is_answered() {
        let gate = Gate::new(Some(Secret::new("correct-horse".to_owned())));
        for (shown, expected) in [
            ("Bearer correct-horse", 200),
            ("bearer  correct-horse ", 200),
            ("Bearer correct-hors", 401),
            ("Bearer correct-horse-battery", 401),
            ("Bearer", 401),
            ("Bearer ", 401),
            ("Basic correct-horse", 401),
            ("correct-horse", 401),
            ("", 401),
        ] {
            let request = Request::get("/tasks").header("Authorization", shown);
            assert_eq!(status(&gate, request.header("Host", "any.example")), expected, "{shown}");
        }
        assert_eq!(status(&gate, Request::get("/tasks").header("Host", "localhost")), 401);
    }
}
