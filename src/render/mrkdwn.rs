//! Slack's mrkdwn: text that is escaped, kept from pinging anyone and cut to its room, and blocks that hold it; see
//! <https://docs.slack.dev/messaging/formatting-message-text>.

use serde_json::{Value, json};

use super::text;
use crate::checkpoint::snapshot::Excerpt;

/// `verbatim` keeps Slack from turning bare `@here` and `#names` into mentions.
pub(super) fn section(text: &str) -> Value {
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } })
}

/// Text that is shown as it is: nothing in it can become a mention, a link or the end of the block
/// (<https://docs.slack.dev/reference/block-kit/blocks/rich-text-block>).
pub(super) fn preformatted(text: &str) -> Value {
    let element = json!({ "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": text }] });
    json!({ "type": "rich_text", "elements": [element] })
}

/// An agent's id in a code span, which a backtick would end.
pub(super) fn code(agent_id: &str, room: usize) -> String {
    format!("`{}`", fit(&Excerpt::of(&text::plain(agent_id, false).replace('`', "'")), room, false))
}

/// Escapes as much of a text as there is room for, and says how much was cut.
pub(super) fn fit(excerpt: &Excerpt, room: usize, lines: bool) -> String {
    let clean = text::plain(&excerpt.text, lines);
    let whole = escape(&clean);
    if excerpt.omitted == 0 && units(&whole) <= room {
        return whole;
    }
    // `… (+18,446,744,073,709,551,615 characters)` is the longest note.
    let mut left = room.saturating_sub(45);
    let mut fitted = String::new();
    let mut kept = 0_u64;
    let mut previous = None;
    for c in clean.chars() {
        let piece = escaped(c, previous);
        let Some(rest) = left.checked_sub(units(&piece)) else { break };
        left = rest;
        fitted.push_str(&piece);
        kept += 1;
        previous = Some(c);
    }
    let cut = excerpt.omitted + (clean.chars().count() as u64 - kept);
    format!("{fitted}… (+{} characters)", text::thousands(cut))
}

/// A length in UTF-16 units, the strictest way to count that Slack may mean.
pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Escapes Slack's three control characters and defuses mentions.
pub(crate) fn escape(text: &str) -> String {
    let mut previous = None;
    text.chars()
        .map(|c| {
            let piece = escaped(c, previous);
            previous = Some(c);
            piece
        })
        .collect()
}

/// A character behind an `@` gets an invisible space in front: no spelling of `@here`, `@channel` or `@everyone`
/// survives, whatever a client makes of it.
fn escaped(c: char, previous: Option<char>) -> String {
    let piece = match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        c => c.to_string(),
    };
    if previous == Some('@') && matches!(c, 'h' | 'c' | 'e' | 'H' | 'C' | 'E') {
        format!("\u{200b}{piece}")
    } else {
        piece
    }
}

/// A URL that ends its link only where we end it, and pings nobody.
pub(super) fn link(url: &str) -> String {
    let mut link = String::with_capacity(url.len());
    for (at, c) in url.char_indices() {
        match c {
            '&' => link.push_str("&amp;"),
            '<' => link.push_str("%3C"),
            '>' => link.push_str("%3E"),
            '|' => link.push_str("%7C"),
            '`' => link.push_str("%60"),
            c if c.is_control() || c.is_whitespace() => {}
            // The same letter to whoever follows the link, in its path as well as in its host.
            c if link.ends_with('@') && is_mention(&url[at..]) => {
                link.push_str(&format!("%{:02X}", u32::from(c)));
            }
            c => link.push(c),
        }
    }
    link
}

/// Whether the text behind an `@` would call everyone.
fn is_mention(text: &str) -> bool {
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    ["here", "channel", "everyone"].into_iter().any(begins)
}
