//! Whether clicks can be heard by Socket Mode. No connection is made: it would get clicks that others wait for.

use std::time::Instant;

use super::Report;
use crate::config::Config;
use crate::delivery::http::host;
use crate::interaction::open::{Refusal, open};

pub(super) fn check(report: &mut Report, config: &Config, deadline: Instant) {
    let Some(access) = config.socket_access() else {
        if config.app_token.is_some() {
            let message = "SLACK_APP_TOKEN is not used: without a bot token there are no buttons to click";
            report.warn("socket", message, "set SLACK_BOT_TOKEN");
        }
        return;
    };
    match open(&access, deadline) {
        Ok(_) => report.ok("socket", format!("{} opens sockets for the app", host(&access.api_url))),
        Err(Refusal::Final(failure)) => {
            report.fail("socket", failure.message, failure.hint.unwrap_or_default());
        }
        Err(Refusal::Limited(after)) => {
            let message = format!("Slack's rate limit is reached (retry after {} s)", after.as_secs());
            report.warn("socket", message, "run doctor again later");
        }
        Err(Refusal::Passing(why)) => {
            report.fail("socket", why, "check the connection, HTTPS_PROXY and SSL_CERT_FILE");
        }
    }
}
