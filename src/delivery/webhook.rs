//! A Slack incoming webhook: answers `ok` and no `ts`, so messages stand alone unless a thread was given.
//!
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>

use std::time::Instant;

use serde_json::json;

use super::http::{Answer, Http, host};
use super::{Outcome, Place, Retry, dress, foreign_answer, plain, rich, whither};
use crate::checkpoint::outbox::{EntryKind, Job};
use crate::render::question::Means;
use crate::render::slack;
use crate::secret::Secret;

/// Bodies that say that our message is malformed; anything plainer may pass.
const PAYLOAD: &[&str] = &[
    "invalid_payload",
    "no_text",
    "too_many_attachments",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
];

/// Posts the entry; as plain text if Slack refuses its blocks.
pub(super) fn deliver(
    http: &mut Http,
    url: &Secret,
    job: &Job,
    fallback: &Place,
    deadline: Instant,
) -> Outcome {
    if matches!(job.kind, EntryKind::Card | EntryKind::Question) {
        // A webhook edits nothing, and as a message of its own it would only say again what was said.
        return Outcome::CardLeft;
    }
    if job.file.is_some() {
        return Outcome::Rejected("a webhook takes no files".to_owned());
    }
    // The channel is the webhook's own.
    let thread_ts = match whither(job, fallback) {
        Ok((_, thread_ts)) => thread_ts,
        Err(retry) => return Outcome::Retry(retry),
    };
    let mut post = |message| {
        let mut message = dress(message, job);
        if let Some(thread_ts) = thread_ts {
            message["thread_ts"] = json!(thread_ts);
        }
        match http.post(url.reveal(), None, &message.to_string(), deadline) {
            Ok(answer) => classify(host(url.reveal()), &answer),
            Err(trouble) => Outcome::Retry(trouble.into()),
        }
    };
    if let Some(note) = &job.note {
        // Alone it would only say again what the message beside it says.
        let alone = || Outcome::Rejected("there is no thread".to_owned());
        return if thread_ts.is_some() { post(slack::note(note, None)) } else { alone() };
    }
    match post(rich(job, Means::Terminal)) {
        Outcome::Rejected(reason) if PAYLOAD.iter().any(|known| reason.starts_with(known)) => {
            post(plain(job))
        }
        outcome => outcome,
    }
}

/// Body first, status second.
fn classify(host: &str, answer: &Answer) -> Outcome {
    let body = answer.body.trim();
    // Slack's errors are single words; anything else is not Slack's.
    let is_word =
        !body.is_empty() && body.len() <= 80 && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match answer.status {
        200 if body == "ok" => Outcome::Posted { channel_id: None, ts: None, thread_ts: None },
        429 => Outcome::Retry(Retry::limited(answer.retry_after)),
        400..=499 if is_word => Outcome::Rejected(body.to_owned()),
        // No page of Slack's: the URL is wrong, and will be wrong again.
        300..=399 | 404 | 410 => {
            Outcome::Rejected(format!("HTTP status {}: check SLACK_WEBHOOK_URL", answer.status))
        }
        _ => Outcome::Retry(foreign_answer(host, answer)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::{Cause, LOOKALIKE_TRIES, PAGE_TRIES};

    fn outcome(status: u16, body: &str) -> Outcome {
        let retry_after = (status == 429).then(|| Duration::from_secs(3));
        classify("host", &Answer { status, retry_after, date: None, scopes: None, body: body.to_owned() })
    }

    #[test]
    fn classifies_by_body_then_status() {
        assert!(matches!(outcome(200, "ok"), Outcome::Posted { .. }));
        for (status, word) in [
            (400, "invalid_payload"),
            (403, "action_prohibited"),
            (404, "no_service"),
            (410, "channel_is_archived"),
        ] {
            assert_eq!(outcome(status, word), Outcome::Rejected(word.to_owned()));
        }
        let cause = |outcome| match outcome {
            Outcome::Retry(Retry { cause, maybe_sent, .. }) => Some((cause, maybe_sent)),
            _ => None,
        };
        assert_eq!(cause(outcome(429, "")), Some((Cause::Limited(Some(Duration::from_secs(3))), false)));
        assert_eq!(cause(outcome(500, "rollup_error")), Some((Cause::Server, true)));
        assert_eq!(cause(outcome(503, "<html>Server Error</html>")), Some((Cause::Server, false)));
        for (body, tries) in [
            ("<html>log in to the wifi</html>", PAGE_TRIES),
            ("", LOOKALIKE_TRIES),
            ("{\"ok\":true}", LOOKALIKE_TRIES),
        ] {
            assert_eq!(cause(outcome(200, body)), Some((Cause::Foreign { tries }, true)), "{body}");
        }
        assert_eq!(cause(outcome(202, "")), Some((Cause::Foreign { tries: LOOKALIKE_TRIES }, true)));
        assert!(matches!(outcome(404, "<html>not found</html>"), Outcome::Rejected(_)));
    }
}
