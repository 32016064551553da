//! Words and shapes that every rendering shares.

use crate::checkpoint::context::{Level, percent};
use crate::checkpoint::snapshot::Snapshot;

/// How many cells a progress bar has.
const CELLS: usize = 10;

/// A bar and its number: `▓▓▓▓▓░░░░░ 50%`. Rounded down, so that only 100 is full.
pub(crate) fn progress_bar(progress: u8) -> String {
    let full = usize::from(progress.min(100)) * CELLS / 100;
    format!("{}{} {progress}%", "▓".repeat(full), "░".repeat(CELLS - full))
}

/// A count with separators: `200,000`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The context in use: `150,000 / 200,000 (75.0%)`, with a sign behind it from the warning threshold on.
pub(crate) fn context(snapshot: &Snapshot) -> String {
    let tokens = snapshot.tokens.unwrap_or(0);
    let limit = snapshot.context_limit;
    let sign = if snapshot.context >= Level::Warn { " ⚠️" } else { "" };
    format!("{} / {} ({:.1}%){sign}", thousands(tokens), thousands(limit), percent(tokens, limit))
}

/// What to say when a context threshold was crossed.
pub(crate) fn context_warning(percent: f64, tokens: u64, limit: u64, level: Level) -> String {
    let advice = match level {
        Level::Alert => "wrap up or compact now",
        Level::Warn | Level::Calm => "consider summarising or pruning",
    };
    format!(
        "{percent:.1}% of the context is used ({} of {} tokens): {advice}",
        thousands(tokens),
        thousands(limit)
    )
}

/// The beginning of a text, plain and on one line, and how much of it is left out, beside what was before.
pub(crate) fn brief(text: &str, max: usize, left_out: u64) -> String {
    cut(&plain(text, false), max, left_out)
}

/// The same of text that is plain already.
pub(crate) fn cut(line: &str, max: usize, left_out: u64) -> String {
    let cut = line.char_indices().nth(max).map_or(line, |(end, _)| &line[..end]);
    let omitted = left_out + (line.chars().count() - cut.chars().count()) as u64;
    if omitted > 0 { format!("{cut}… (+{} characters)", thousands(omitted)) } else { line.to_owned() }
}

/// Text that cannot change how the text around it is shown: no control characters (a line break becomes a space
/// unless `lines` are wanted) and no marks that reverse the reading direction.
pub(crate) fn plain(text: &str, lines: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut escape = false;
    for c in text.chars() {
        match c {
            // The rest of a terminal's control sequence (`ESC [ … letter`) goes with its beginning.
            '\u{1b}' => escape = true,
            '[' | '0'..='9' | ';' | '?' if escape => {}
            'a'..='z' | 'A'..='Z' if escape => escape = false,
            '\n' if lines => {
                escape = false;
                clean.push('\n');
            }
            '\n' | '\r' | '\t' => {
                escape = false;
                clean.push(' ');
            }
            c if c.is_control() || is_direction_mark(c) => escape = false,
            c => {
                escape = false;
                clean.push(c);
            }
        }
    }
    if lines { clean } else { clean.split_whitespace().collect::<Vec<_>>().join(" ") }
}

fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_100_fills_the_bar() {
        for (progress, bar) in [
            (0, "░░░░░░░░░░ 0%"),
            (9, "░░░░░░░░░░ 9%"),
            (50, "▓▓▓▓▓░░░░░ 50%"),
            (99, "▓▓▓▓▓▓▓▓▓░ 99%"),
            (100, "▓▓▓▓▓▓▓▓▓▓ 100%"),
        ] {
            assert_eq!(progress_bar(progress), bar);
        }
    }

    #[test]
    fn separates_thousands() {
        for (value, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (200_000, "200,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(value), text);
        }
    }

    #[test]
    fn plain_text_cannot_move_the_cursor() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m a\nb\u{7}", false), "red a b");
        assert_eq!(plain("a\nb\u{202e}c", true), "a\nbc");
    }
}
