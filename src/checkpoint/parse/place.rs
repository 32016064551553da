//! Places in Slack: conversations and threads.

use super::Invalid;
use crate::checkpoint::mask::Masker;

/// A place in Slack: a conversation and the `ts` of the message that a thread hangs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// A conversation id such as `C0123456789`.
    pub(crate) channel: String,
    /// Slack's message id `seconds.micros`, never parsed to a number.
    pub(crate) ts: String,
}

/// A Slack conversation: `#name`, a bare name, or an id (`C…`, `G…`, `D…`, `U…`).
pub(crate) fn channel(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    let bare = text.strip_prefix('#').unwrap_or(text);
    let fits = !bare.is_empty()
        && bare.chars().count() <= 80
        && bare.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_' || c == '.');
    if !fits {
        return Err(Invalid::new(
            "is not a channel",
            "give a name such as #agent-supervisory or an id such as C0123456789",
        ));
    }
    if Masker::default().mask(text) != text {
        return Err(Invalid::new(
            "looks like a credential",
            "give the channel's name, and the token in SLACK_BOT_TOKEN",
        ));
    }
    // Slack's ids are upper case and its names lower case, so a bare word that is no id is a name.
    Ok(if text.starts_with('#') || is_conversation_id(bare) { text.to_owned() } else { format!("#{bare}") })
}

/// Whether the text has the shape of a conversation or user id.
pub(crate) fn is_conversation_id(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(['C', 'G', 'D', 'U', 'W'])
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// An existing thread, `CHANNEL:TS`.
pub(crate) fn thread(text: &str) -> Result<Thread, Invalid> {
    let wrong = || {
        Invalid::new(
            "is not a thread",
            "give CHANNEL:TS as the receipt has them, such as C0123456789:1503435956.000247",
        )
    };
    let (channel, ts) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
    let (seconds, micros) = ts.split_once('.').ok_or_else(wrong)?;
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_conversation_id(channel) || !digits(seconds) || !digits(micros) {
        return Err(wrong());
    }
    Ok(Thread { channel: channel.to_owned(), ts: ts.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_names_or_ids() {
        assert_eq!(channel("#dev").as_deref(), Ok("#dev"));
        assert_eq!(channel("dev-ops").as_deref(), Ok("#dev-ops"));
        assert_eq!(channel("C0123456789").as_deref(), Ok("C0123456789"));
        let token = format!("{}{}", "xoxb-", "111111111111-222222222222-abcdefghijkl");
        for text in ["", "#", "two words", "a,b", "<!here>", &token] {
            assert!(channel(text).is_err(), "{text}");
        }
    }

    #[test]
    fn threads_keep_their_ts_as_text() {
        let parsed = thread("C0123456789:1503435956.000240").expect("a thread");
        assert_eq!(parsed.ts, "1503435956.000240");
        for text in ["", "C01", "C01:12", "C01:12.", "c01:1.2", "#dev:1.2", "C01:1.2x", "C01:-1.2"] {
            assert!(thread(text).is_err(), "{text}");
        }
    }
}
