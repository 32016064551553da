//! What a terminal would show of some bytes: escape sequences and other control characters are left out.

/// Where in an escape sequence we are (ECMA-48).
#[derive(Clone, Copy, PartialEq)]
enum State {
    Ground,
    /// After ESC and its intermediate bytes.
    Escape,
    /// After `ESC [`, up to the final byte.
    Control,
    /// After `ESC ]` and its like, up to BEL or `ESC \`.
    Text,
    /// After an ESC in such a text.
    TextEscape,
}

/// The bytes without escape sequences and without control characters other than tab and line feed.
///
/// A line feed ends every sequence, so that a broken one hides no more than its line.
pub(super) fn visible(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut state = State::Ground;
    for &byte in bytes {
        state = match (state, byte) {
            (_, b'\n') => {
                shown.push(byte);
                State::Ground
            }
            (State::Text, 0x1b) => State::TextEscape,
            (_, 0x1b) => State::Escape,
            (State::Text, 0x07) | (State::TextEscape, b'\\') => State::Ground,
            (State::Text, _) => State::Text,
            (State::Escape | State::TextEscape, b'[') => State::Control,
            (State::Escape | State::TextEscape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape | State::TextEscape, _) => State::Ground,
            (State::Control, 0x40..=0x7e) => State::Ground,
            (State::Control, 0x20..=0x3f) => State::Control,
            (State::Control | State::Ground, _) => {
                if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) {
                    shown.push(byte);
                }
                State::Ground
            }
        };
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_terminal_shows_is_left() {
        let rows: [(&str, &str); 12] = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x07", "link"),
            ("\x1b]9;4;1;50\x07x", "x"),
            ("\x1b(Bx\x1b=y\x1b7z", "xyz"),
            ("\x1bPq#0\x1b\\x", "x"),
            ("a\x08b\x00c\x7fd\re", "abcde"),
            ("é\x1b[38:2::1:2:3m→\x1b[K", "é→"),
            ("\x1b]0;no end\nnext", "\nnext"),
            ("\x1b[12", ""),
            ("\x1b\x1b[1mx", "x"),
            ("\x1b]0;a\x1b[1mb", "b"),
        ];
        for (given, shown) in rows {
            assert_eq!(String::from_utf8_lossy(&visible(given.as_bytes())), shown, "{given:?}");
        }
    }
}
