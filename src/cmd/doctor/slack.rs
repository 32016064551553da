//! Whether Slack answers, and what the bot may do there.

use std::time::{Duration, UNIX_EPOCH};

use super::super::now;
#[cfg(feature = "serve")]
use super::launch;
use super::report::{Report, Verdict};
use crate::checkpoint::parse::is_conversation_id;
use crate::checkpoint::time::{Moment, spoken};
use crate::config::Config;
use crate::delivery::Retry;
use crate::delivery::bot::{Bot, Channel};
use crate::delivery::http::Answer;

/// How far this machine's clock may be off before messages and audit rows are ordered wrongly.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// The bot scopes we use, whether nothing works without them, and what each is for.
const SCOPES: &[(&str, bool, &str)] = &[
    ("chat:write", true, "post messages and edit the live card"),
    ("chat:write.public", false, "post in public channels without joining them"),
    ("channels:read", false, "check public channels by name"),
    ("groups:read", false, "check private channels by name"),
    ("channels:history", false, "find a message whose answer was lost, instead of sending it twice"),
    ("groups:history", false, "the same in private channels"),
    ("reactions:read", false, "see reactions that answer a question"),
    ("users:read", false, "tell bots from people who answer a question or write in a thread"),
    ("files:write", false, "attach the output of a failed command that a message has no room for"),
    ("commands", false, "hear what people type after /agent-task"),
    ("app_mentions:read", false, "hear what people say who mention the bot"),
];

pub(super) fn check(report: &mut Report, config: &Config, bot: &mut Bot<'_>) {
    let host = crate::delivery::http::host(bot.api_url).to_owned();
    let (reply, answer) = match bot.auth_test() {
        Ok(found) => found,
        Err(Retry { reason, .. }) => {
            report.fail(
                "network",
                format!("Slack did not answer: {reason}"),
                "check the connection, HTTPS_PROXY and SSL_CERT_FILE",
            );
            return;
        }
    };
    report.ok("network", format!("{host} answers"));
    check_clock(report, &answer);
    if !reply.ok {
        let reason = reply.reason();
        report.fail("credentials", format!("Slack refused the token: {reason}"), mend(&reason));
        return;
    }
    // What stands in for Slack may not say whose token it is.
    let known = !reply.user.is_empty() && !reply.team.is_empty();
    let whose = || format!("{} in {}", reply.user, reply.team);
    report.ok("credentials", if known { whose() } else { "the token is accepted".to_owned() });
    let Some(scopes) = &answer.scopes else {
        report.warn("scopes", "Slack did not say what the token may do", "run doctor --post to try it");
        return check_channel(report, config, bot);
    };
    let held: Vec<&str> = scopes.split(',').map(str::trim).collect();
    let missing = || SCOPES.iter().filter(|(scope, ..)| !held.contains(scope));
    for (scope, needed, purpose) in missing() {
        let verdict = if *needed { Verdict::Fail } else { Verdict::Warn };
        let hint = "add it to the app (doctor --manifest has them all) and install the app again".to_owned();
        report.add("scopes", verdict, format!("{scope} is missing: {purpose}"), Some(hint));
    }
    if missing().next().is_none() {
        report.ok("scopes", "all that are used");
    }
    #[cfg(feature = "serve")]
    launch::check_scopes(report, config, &held);
    check_channel(report, config, bot);
}

fn check_clock(report: &mut Report, answer: &Answer) {
    let Some(theirs) = answer.date.as_deref().and_then(http_date) else { return };
    let ours = now();
    let skew = ours.since(theirs).max(theirs.since(ours));
    if skew > CLOCK_SKEW_MAX {
        let direction = if ours > theirs { "ahead" } else { "behind" };
        let message = format!("this machine's clock is {} {direction}", spoken(skew));
        report.warn("clock", message, "set the clock, for example with a time synchronisation service");
    } else {
        report.ok("clock", "agrees with Slack's");
    }
}

/// The moment that an HTTP `Date` header names (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Moment> {
    let at = httpdate::parse_http_date(text).ok()?;
    Some(Moment(0).plus(at.duration_since(UNIX_EPOCH).ok()?))
}

fn check_channel(report: &mut Report, config: &Config, bot: &mut Bot<'_>) {
    let named = config
        .thread
        .as_ref()
        .map(|thread| thread.channel.clone())
        .or_else(|| config.default_channel.clone());
    let Some(name) = named else { return };
    let found = if is_conversation_id(&name) { bot.channel_info(&name) } else { bot.find_channel(&name) };
    match found {
        Err(Retry { reason, .. }) => {
            report.warn("channel", format!("{name} could not be checked: {reason}"), "try again")
        }
        Ok(Err(reason)) if reason.is_empty() || reason.starts_with("channel_not_found") => report.fail(
            "channel",
            format!("{name} is not there, or private without the bot in it"),
            "check the name, or invite the bot with /invite @agent-checkpoint",
        ),
        Ok(Err(reason)) => {
            report.warn("channel", format!("{name} could not be checked: {reason}"), mend(&reason))
        }
        Ok(Ok(channel)) => judge_channel(report, &name, &channel),
    }
}

fn judge_channel(report: &mut Report, name: &str, channel: &Channel) {
    if channel.is_archived {
        report.fail("channel", format!("{name} is archived"), mend("is_archived"));
    } else if channel.is_member {
        report.ok("channel", format!("{name} ({}), the bot is a member", channel.id));
    } else if channel.is_private {
        report.fail(
            "channel",
            format!("{name} is private and the bot is not a member"),
            mend("not_in_channel"),
        );
    } else {
        report.warn(
            "channel",
            format!("{name} ({}) is public and the bot is not a member: it can post, but not look for lost messages", channel.id),
            mend("not_in_channel"),
        );
    }
}

/// How to mend what Slack refused.
pub(super) fn mend(reason: &str) -> &'static str {
    match reason.split([' ', '(']).next().unwrap_or_default() {
        "not_authed" | "invalid_auth" | "account_inactive" | "token_revoked" | "token_expired" => {
            "copy a fresh Bot User OAuth Token from the app's OAuth & Permissions page into SLACK_BOT_TOKEN"
        }
        "not_allowed_token_type" => "use a bot token, which begins with xoxb-",
        "missing_scope" => "add the scope to the app (doctor --manifest has them all) and install it again",
        "channel_not_found" => "check the channel's name; invite the bot if it is private",
        "not_in_channel" => "invite the bot with /invite @agent-checkpoint",
        "is_archived" | "channel_is_archived" => "unarchive the channel or name another with SLACK_CHANNEL",
        "no_service" | "no_active_hooks" | "invalid_token" => {
            "make a new incoming webhook and set SLACK_WEBHOOK_URL"
        }
        _ => "see Slack's description of the error",
    }
}
