//! All that is to be approved, in blocks: nothing of it is cut, hidden, or pushed out of sight.

use serde_json::{Value, json};

use crate::checkpoint::parse::is_unseen;
use crate::checkpoint::question::Question;
use crate::render::mrkdwn::{escape, preformatted, section, units};
use crate::render::text;

/// Most that one text object takes, in UTF-16 units after escaping; some room is left for labels.
pub(super) const PIECE: usize = 2900;

/// How many blocks the question itself may take: Slack takes 50, and there are up to five around it.
pub(super) const PIECES: usize = 44;

/// Whether a message has no room for all of the question, so that a file has to follow.
pub(crate) fn overflows(question: &Question) -> bool {
    content(question).1 > 0
}

/// The question's own blocks, and how many characters there was no room for.
pub(super) fn content(question: &Question) -> (Vec<Value>, usize) {
    let words = |text: &str| pieces(&escape(&text::plain(text, true)));
    let question_text = words(&question.text);
    let command = question.command.as_ref().map(|command| pieces(&visible(command))).unwrap_or_default();
    let details = question.details.as_ref().map(|details| words(details)).unwrap_or_default();
    // Nobody may use the length of anything else to push the command out of sight: what the question has too much goes
    // behind it, and so do the details.
    let room = PIECES.saturating_sub(command.len()).max(1);
    let (first, more) = question_text.split_at(room.min(question_text.len()));
    let mut all: Vec<(bool, String)> = Vec::new();
    let mut add =
        |is_code: bool, parts: &[String]| all.extend(parts.iter().map(|part| (is_code, part.clone())));
    add(false, first);
    add(true, &command);
    add(false, more);
    add(false, &details);
    let rest = all.iter().skip(PIECES).map(|(_, piece)| piece.chars().count()).sum();
    all.truncate(PIECES);
    let blocks = all.iter().map(|(is_code, piece)| if *is_code { preformatted(piece) } else { whole(piece) });
    (blocks.collect(), rest)
}

/// A section that shows all of its text, without a link to see more of it.
fn whole(text: &str) -> Value {
    let mut block = section(text);
    block["expand"] = json!(true);
    block
}

/// Splits text into pieces that fit a block, at line breaks where there are any.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut room = PIECE;
    for line in text.split_inclusive('\n') {
        if units(line) > room && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
            room = PIECE;
        }
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            // An escape such as `&amp;` is one thing, which a break would spoil.
            let mut unit = String::from(c);
            if c == '&' && chars.peek().is_some_and(|next| matches!(next, 'a' | 'l' | 'g')) {
                while !unit.ends_with(';') && unit.len() < 5 {
                    unit.extend(chars.next());
                }
            }
            let size = units(&unit);
            if size > room {
                pieces.push(std::mem::take(&mut piece));
                room = PIECE;
            }
            room -= size;
            piece.push_str(&unit);
        }
    }
    pieces.push(piece);
    // Slack refuses a text of nothing but space.
    pieces.retain(|piece| !piece.trim().is_empty());
    pieces
}

/// A command with everything that could not be seen spelt out: what is approved is what is shown.
pub(super) fn visible(command: &str) -> String {
    let is_hidden = |c: char| c != '\n' && c.is_control() || is_unseen(c);
    command
        .chars()
        .flat_map(|c| if is_hidden(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_never_spoils_an_escape() {
        for shift in 0..6 {
            let text = escape(&format!("{}{}", "x".repeat(PIECE - shift), "&<>".repeat(20)));
            let parts = pieces(&text);
            assert_eq!(parts.concat(), text);
            assert!(parts.iter().all(|part| units(part) <= PIECE));
            assert!(parts[1].starts_with('&') || shift == 0, "{}", &parts[1][..6]);
            assert!(!parts[0].ends_with(['a', 'm', 'p', 'l', 't', 'g']), "{shift}");
        }
    }
}
