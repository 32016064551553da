//! Progress read from a copy of a program's output. Pure and incremental: any split of the bytes gives the same.
//!
//! Two ways of saying it are understood: the terminal sequence OSC 9;4 (`ESC ] 9 ; 4 ; STATE ; PERCENT` up to BEL or
//! `ESC \`), and lines that match the user's pattern. A line ends with a line feed or a carriage return.

use memchr::{memchr, memchr3};
use regex_lite::{Captures, Regex};

use super::text::visible;

/// Longer lines are skipped.
const LINE_MAX: usize = 4096;
/// Longer terminal sequences are none of ours.
const SEQUENCE_MAX: usize = 32;
/// As many bytes at once are more than lines of progress need.
const BULK: usize = 32 * 1024;
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// What a program said of how far it is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// 0 to 100.
    pub(crate) percent: Option<u8>,
    /// What it is doing, without escape sequences.
    pub(crate) action: Option<String>,
}

/// The user's pattern: it has a group `percent`, or `done` and `total`, and perhaps `action`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says, as the end of a sentence, what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let regex = Regex::new(text).map_err(|error| format!("is not a regular expression: {error}"))?;
        let has = |name| regex.capture_names().flatten().any(|group| group == name);
        if has("percent") || (has("done") && has("total")) {
            Ok(Self(regex))
        } else {
            Err("has no group named percent, nor done and total".to_owned())
        }
    }

    fn find(&self, line: &str) -> Option<Progress> {
        let found = self.0.captures(line)?;
        let percent = number(&found, "percent").or_else(|| {
            let (done, total) = (number(&found, "done")?, number(&found, "total")?);
            (total > 0.0).then(|| done * 100.0 / total)
        });
        let action = found.name("action").map(|action| action.as_str().trim().to_owned());
        let progress = Progress {
            percent: percent.and_then(whole_percent),
            action: action.filter(|action| !action.is_empty()),
        };
        (progress.percent.is_some() || progress.action.is_some()).then_some(progress)
    }
}

/// A group's number; `1,234` and `1_234` are read as people mean them.
fn number(found: &Captures<'_>, group: &str) -> Option<f64> {
    let digits: String =
        found.name(group)?.as_str().trim().chars().filter(|c| !matches!(c, ',' | '_')).collect();
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { digits.parse().ok() } else { None }
}

/// Rounded down, so that only what is done is 100. Absurd values are none.
fn whole_percent(percent: f64) -> Option<u8> {
    (0..=100).rev().find(|whole| f64::from(*whole) <= percent).filter(|_| percent <= 100.0)
}

/// Where in a terminal sequence the stream is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sequence {
    None,
    /// After ESC.
    Begun,
    /// After `ESC ]`.
    Text,
}

/// Follows one stream.
#[derive(Debug)]
pub(super) struct Reader {
    pattern: Option<Pattern>,
    sequence: Sequence,
    /// The text of the sequence, and whether it has grown too long.
    said: Vec<u8>,
    /// The line so far, and whether it has grown too long.
    line: Vec<u8>,
    skipped: bool,
}

impl Reader {
    pub(super) fn new(pattern: Option<Pattern>) -> Self {
        Self { pattern, sequence: Sequence::None, said: Vec::new(), line: Vec::new(), skipped: false }
    }

    /// Reads on, and tells every progress found.
    pub(super) fn push(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Progress)) {
        while let Some(&first) = bytes.first() {
            if self.sequence == Sequence::None {
                // Nothing is of interest before the next of these.
                let next = match &self.pattern {
                    Some(_) => memchr3(ESC, b'\n', b'\r', bytes),
                    None => memchr(ESC, bytes),
                };
                let (dull, rest) = bytes.split_at(next.unwrap_or(bytes.len()));
                self.gather(dull);
                bytes = rest;
                if let Some((&byte, rest)) = bytes.split_first() {
                    self.step(byte, tell);
                    bytes = rest;
                }
            } else {
                self.step(first, tell);
                bytes = &bytes[1..];
            }
        }
    }

    /// Reads on as far as it is worth the time. Of a piece this large, which comes only when the program writes faster than
    /// lines are matched, the end is read alone: matching must not slow the program down, and the newest is wanted.
    pub(super) fn push_newest(&mut self, bytes: &[u8], tell: &mut impl FnMut(Progress)) {
        match bytes.len().checked_sub(BULK) {
            Some(excess) if excess > 0 && self.pattern.is_some() => {
                self.sequence = Sequence::None;
                self.said.clear();
                self.line.clear();
                self.skipped = true;
                self.push(&bytes[excess..], tell);
            }
            _ => self.push(bytes, tell),
        }
    }

    /// The stream has ended: its last line may lack a line end.
    pub(super) fn finish(&mut self, tell: &mut impl FnMut(Progress)) {
        self.end_line(tell);
    }

    fn step(&mut self, byte: u8, tell: &mut impl FnMut(Progress)) {
        if matches!(byte, b'\n' | b'\r') {
            self.sequence = Sequence::None;
            self.said.clear();
            self.end_line(tell);
            return;
        }
        self.gather(&[byte]);
        self.sequence = match (self.sequence, byte) {
            (_, ESC) => Sequence::Begun,
            (Sequence::Begun, b']') => {
                self.said.clear();
                Sequence::Text
            }
            (Sequence::Text, BEL) => {
                self.end_sequence(tell);
                Sequence::None
            }
            (Sequence::Begun, b'\\') => {
                self.end_sequence(tell);
                Sequence::None
            }
            (Sequence::Text, _) => {
                if self.said.len() <= SEQUENCE_MAX {
                    self.said.push(byte);
                }
                Sequence::Text
            }
            _ => {
                self.said.clear();
                Sequence::None
            }
        };
    }

    fn end_sequence(&mut self, tell: &mut impl FnMut(Progress)) {
        let said = std::mem::take(&mut self.said);
        let Some(said) = said.strip_prefix(b"9;4;").filter(|_| said.len() <= SEQUENCE_MAX) else {
            return;
        };
        // 1: going on, 2: failed, 4: paused. 0 takes the display away, 3 knows no percentage.
        if let Ok(text) = std::str::from_utf8(said)
            && let Some((b'1' | b'2' | b'4', percent)) =
                text.split_once(';').and_then(|(state, rest)| Some((*state.as_bytes().first()?, rest)))
            && percent.bytes().all(|byte| byte.is_ascii_digit())
            && let Some(percent) = percent.parse().ok().filter(|percent| *percent <= 100)
        {
            tell(Progress { percent: Some(percent), action: None });
        }
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.pattern.is_none() || self.skipped {
            return;
        }
        if self.line.len() + bytes.len() > LINE_MAX {
            self.line.clear();
            self.skipped = true;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, tell: &mut impl FnMut(Progress)) {
        if let Some(pattern) = &self.pattern
            && !self.line.is_empty()
        {
            let line = visible(&self.line);
            if let Some(progress) = pattern.find(&String::from_utf8_lossy(&line)) {
                tell(progress);
            }
        }
        self.line.clear();
        self.skipped = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a good pattern")
    }

    fn read(reader: &mut Reader, pieces: &[&[u8]]) -> Vec<(Option<u8>, Option<String>)> {
        let mut found = Vec::new();
        let mut tell = |progress: Progress| found.push((progress.percent, progress.action));
        for piece in pieces {
            reader.push(piece, &mut tell);
        }
        reader.finish(&mut tell);
        found
    }

    fn percents(pattern: Option<Pattern>, text: &str) -> Vec<u8> {
        let found = read(&mut Reader::new(pattern), &[text.as_bytes()]);
        found.into_iter().filter_map(|(percent, _)| percent).collect()
    }

    #[test]
    fn terminal_sequences_tell_progress() {
        let rows: [(&str, &[u8]); 14] = [
            ("\x1b]9;4;1;50\x07", &[50]),
            ("a\x1b]9;4;1;50\x1b\\b\x1b]9;4;1;51\x07", &[50, 51]),
            ("\x1b]9;4;2;60\x07\x1b]9;4;4;70\x07", &[60, 70]),
            ("\x1b]9;4;0;0\x07\x1b]9;4;3;0\x07\x1b]9;4;0;\x07", &[]),
            ("\x1b]9;4;1;101\x07\x1b]9;4;1;-1\x07\x1b]9;4;1;\x07\x1b]9;4;1;999999999999\x07", &[]),
            ("\x1b]9;4;1;5x\x07\x1b]9;4\x07\x1b]9;1;50\x07\x1b]0;50\x07", &[]),
            ("\x1b]9;4;1;50", &[]),
            ("\x1b]9;4;1;50\n\x07\x1b\\", &[]),
            ("\x1b\x1b]9;4;1;50\x07", &[50]),
            ("\x1b]0;title\x1b]9;4;1;50\x07", &[50]),
            ("\x1b[31m\x1b]9;4;1;007\x07", &[7]),
            ("\x1b\\\x1b]9;4;1;0\x07", &[0]),
            ("\x1b]9;4;1;00000000000000000000000000000000000000050\x07", &[]),
            ("\x1b]9;4;1;50\x1b[m\x1b\\", &[]),
        ];
        for (text, expected) in rows {
            assert_eq!(percents(None, text), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_that_match_tell_progress() {
        let percent = r"(?P<percent>-?[\d.,]+)%";
        let count = r"(?P<done>[\d,_]+)/(?P<total>[\d,_]+)(?: (?P<action>.*))?";
        let rows: [(&str, &str, &[u8]); 12] = [
            (percent, "at 45% now\nat 46% now\n", &[45, 46]),
            (percent, "45%\r46%\r47%", &[45, 46, 47]),
            (percent, "99.9%\n100.0%\n0%\n", &[99, 100, 0]),
            (percent, "100.1%\n-5%\n999%\n1.2.3%\n", &[]),
            (percent, "\x1b[32m45\x1b[0m%\n", &[45]),
            (percent, "no percentage\n\n\r\n", &[]),
            (count, "[3/12] x\n", &[25]),
            (count, "1,000/4,000\n", &[25]),
            (count, "5/0\n13/12\n", &[]),
            (count, "0/7\n6/7\n7/7\n", &[0, 85, 100]),
            (percent, "45% \x1b]9;4;1;50\x07 46%\n", &[50, 45]),
            (count, "18446744073709551616/99999999999999999999\n", &[18]),
        ];
        for (regex, text, expected) in rows {
            assert_eq!(percents(Some(pattern(regex)), text), expected, "{regex} {text:?}");
        }
    }

    #[test]
    fn an_action_is_told_beside_the_number_or_alone() {
        let regex = pattern(r"^(?:(?P<percent>\d+)% )?- (?P<action>.*)$");
        let found =
            read(&mut Reader::new(Some(regex)), &[b"5% - \x1b[1mlinking \x1b[0m\n- packing\n7% - \n- \n"]);
        let expected =
            [(Some(5), Some("linking".to_owned())), (None, Some("packing".to_owned())), (Some(7), None)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_long_line_is_skipped_without_growth() {
        let mut reader = Reader::new(Some(pattern(r"(?P<percent>\d+)%")));
        let long = vec![b'x'; 3 * LINE_MAX];
        assert_eq!(read(&mut reader, &[&long, b"50%", b"\n51%\n"]), [(Some(51), None)]);
        assert!(reader.line.capacity() <= 2 * LINE_MAX);
    }

    #[test]
    fn of_a_large_piece_the_end_is_read() {
        let mut reader = Reader::new(Some(pattern(r"(?P<percent>\d+)%")));
        let mut found = Vec::new();
        let text = format!("10%\n{}20%\n30%\n", "x\n".repeat(BULK));
        reader.push_newest(text.as_bytes(), &mut |progress| found.push(progress.percent));
        assert_eq!(found, [Some(20), Some(30)]);
    }

    #[test]
    fn a_wrong_pattern_is_refused_in_words() {
        for (text, expected) in [
            ("(", "is not a regular expression"),
            ("x", "has no group named percent, nor done and total"),
            ("(?P<done>x)", "has no group named percent, nor done and total"),
        ] {
            let error = Pattern::parse(text).expect_err("a bad pattern");
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn any_split_tells_the_same(
            pieces in proptest::collection::vec(prop_oneof![
                Just("\x1b]9;4;1;50\x07".to_owned()), Just("\x1b]9;4;1;51\x1b\\".to_owned()), Just("\x1b".to_owned()),
                Just("]9;4;".to_owned()), Just("\n".to_owned()), Just("\r".to_owned()), Just("\x07".to_owned()),
                "[0-9]{1,3}%", "[a-z;é]{0,6}", Just("y".repeat(LINE_MAX)),
            ], 0..40),
            cuts in proptest::collection::vec(0..400usize, 0..30),
        ) {
            let text = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let split: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let single: Vec<&[u8]> = text.chunks(1).collect();
            let regex = || Some(pattern(r"(?P<percent>\d+)%"));
            let whole = read(&mut Reader::new(regex()), &[&text]);
            prop_assert_eq!(&read(&mut Reader::new(regex()), &split), &whole);
            prop_assert_eq!(&read(&mut Reader::new(regex()), &single), &whole);
            prop_assert_eq!(read(&mut Reader::new(None), &split), read(&mut Reader::new(None), &[&text]));
        }
    }
}
