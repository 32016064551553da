//! `apps.connections.open`: an app-level token gets the address of a WebSocket, good for one connection.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::delivery::bot::{Class, class};
use crate::delivery::http::{Http, Network, host, is_loopback};
use crate::exit::{Exit, Failure, one_line};
use crate::secret::Secret;

/// What Slack's SDK for Python waits when a 429 names no time.
const UNNAMED: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is believed.
const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// With what right and by which way to listen.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// An app-level token, `xapp-…`.
    pub(crate) token: Secret,
    /// The Web API's base, ending in a slash.
    pub(crate) api_url: String,
    pub(crate) network: Network,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Trying again changes nothing.
    Final(Failure),
    /// Slack says when to come back.
    Limited(Duration),
    /// May pass; in words, without secrets.
    Passing(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    ok: bool,
    error: String,
    needed: String,
    url: String,
}

/// Asks for the address of a WebSocket. It holds a ticket, so it is a secret.
///
/// # Errors
/// See [`Refusal`].
pub(crate) fn open(access: &Access, deadline: Instant) -> Result<Secret, Refusal> {
    let mut http = Http::new(access.network.clone());
    let url = format!("{}apps.connections.open", access.api_url);
    let answer = http
        .post(&url, Some(&access.token), "{}", deadline)
        .map_err(|trouble| Refusal::Passing(trouble.words()))?;
    let limited = || Refusal::Limited(answer.retry_after.unwrap_or(UNNAMED).min(LONGEST_AFTER));
    let at = host(&access.api_url);
    if answer.status == 429 {
        return Err(limited());
    }
    let Ok(reply) = serde_json::from_str::<Reply>(&answer.body) else {
        return Err(Refusal::Passing(format!("{at} gave an answer that is not Slack's ({})", answer.status)));
    };
    if !reply.ok {
        return Err(match reply.error.as_str() {
            "ratelimited" | "rate_limited" => limited(),
            "" => Refusal::Passing(format!("{at} gave an answer that is not Slack's ({})", answer.status)),
            error if matches!(class(error), Class::Server { .. }) => {
                Refusal::Passing(format!("Slack could not open a socket: {error}"))
            }
            error => Refusal::Final(refused(error, &reply.needed)),
        });
    }
    let is_safe =
        reply.url.starts_with("wss://") || (reply.url.starts_with("ws://") && is_loopback(host(&reply.url)));
    if !is_safe {
        return Err(Refusal::Passing(format!("{at} named no socket that is encrypted")));
    }
    Ok(Secret::new(reply.url))
}

/// A refusal for good, in Slack's word, and how to mend it.
fn refused(error: &str, needed: &str) -> Failure {
    let hint = match error {
        "not_allowed_token_type" => "SLACK_APP_TOKEN must be an app-level token, which begins with xapp-",
        "missing_scope" | "no_permission" => {
            "make an app-level token with the scope connections:write (Basic Information, App-Level Tokens)"
        }
        "not_authed" | "missing_args" | "invalid_auth" | "token_revoked" | "token_expired"
        | "account_inactive" => {
            "copy a fresh app-level token (Basic Information, App-Level Tokens) into SLACK_APP_TOKEN"
        }
        _ => "see Slack's description of the error",
    };
    let needed = if needed.is_empty() { String::new() } else { format!(" (needs {})", one_line(needed)) };
    let message = format!("Slack refused the app-level token: {}{needed}", one_line(error));
    Failure::new(Exit::Config, message).hint(hint)
}

/// Socket Mode is switched off in the app.
pub(super) fn switched_off() -> Failure {
    Failure::new(Exit::Config, "Slack ended Socket Mode for this app (link_disabled)")
        .hint("switch Socket Mode on in the app's settings, or unset SLACK_APP_TOKEN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_to_mend_it() {
        let failure = refused("missing_scope", "connections:write");
        assert_eq!(failure.exit, Exit::Config);
        assert_eq!(
            failure.message,
            "Slack refused the app-level token: missing_scope (needs connections:write)"
        );
        assert!(failure.hint.is_some_and(|hint| hint.contains("App-Level Tokens")));
        // What stands in for Slack may say anything.
        assert_eq!(refused("a\nb", "").message, "Slack refused the app-level token: a\\nb");
    }
}
