//! The last lines of a stream, in bounded memory. Pure: bytes in, text out.

use memchr::{memchr, memchr_iter, memrchr};

use super::text::visible;

/// How much of a stream's end is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) lines: usize,
    /// Of what arrives and of what is shown.
    pub(crate) bytes: usize,
    /// Of what comes before that and is not shown: at most half as much.
    pub(crate) context: usize,
}

/// The end of a stream as text.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Without escape sequences, without a final line break, at most [`Limit::bytes`] long.
    pub(crate) text: String,
    /// What came right before it, as plain: the stream's beginning, or at least [`Limit::context`] bytes. So whoever
    /// looks for something in the text finds it also where only its rest is in there.
    pub(crate) before: String,
    /// How many lines ended before this.
    pub(crate) lines_before: u64,
}

/// Keeps the end of a stream while it passes.
///
/// Bytes are gathered as they are and thinned out whenever twice the limit has come together: at points of the stream,
/// not of the pieces it comes in, and at a cost that does not depend on the length of lines. Then a line that was
/// written over with carriage returns keeps its last state only, so that a progress bar does not push out what was
/// said before it.
#[derive(Debug)]
pub(super) struct Tail {
    limit: Limit,
    kept: Vec<u8>,
    /// What is kept is not all of it.
    is_cut: bool,
    lines_gone: u64,
}

impl Tail {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, kept: Vec::new(), is_cut: false, lines_gone: 0 }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        let full = self.limit.bytes.saturating_mul(2);
        if full == 0 || self.limit.lines == 0 {
            return;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(full - self.kept.len()));
            self.kept.extend_from_slice(now);
            bytes = later;
            if self.kept.len() == full {
                self.thin_out();
            }
        }
    }

    fn thin_out(&mut self) {
        if memchr(b'\r', &self.kept).is_some() {
            self.kept = collapse(&self.kept);
        }
        let Some(excess) = self.kept.len().checked_sub(self.limit.bytes).filter(|excess| *excess > 0) else {
            return;
        };
        // Whole lines where that costs little.
        let rest = &self.kept[excess..];
        let cut = match memchr(b'\n', &rest[..rest.len() / 2]) {
            Some(end) => excess + end + 1,
            None => excess + rest.iter().take(3).take_while(|byte| is_continuation(**byte)).count(),
        };
        self.is_cut = true;
        self.lines_gone += memchr_iter(b'\n', &self.kept[..cut]).count() as u64;
        self.kept.copy_within(cut.., 0);
        self.kept.truncate(self.kept.len() - cut);
    }

    /// What is left of the stream.
    pub(super) fn shown(&self) -> Shown {
        let start = self.start();
        let mut before = plain(&self.kept[start.saturating_sub(self.limit.context)..start]);
        let text = plain(&self.kept[start..]);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let excess = text.len().saturating_sub(self.limit.bytes);
        let cut = (excess..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        let cut_lines = memchr_iter(b'\n', &text.as_bytes()[..cut]).count();
        before.push_str(&text[..cut]);
        Shown {
            text: text[cut..].to_owned(),
            before,
            lines_before: self.lines_gone
                + (memchr_iter(b'\n', &self.kept[..start]).count() + cut_lines) as u64,
        }
    }

    /// Where the last lines begin, with their context before them.
    fn start(&self) -> usize {
        let least = if self.is_cut { self.limit.context.min(self.kept.len()) } else { 0 };
        let rest = &self.kept[least..];
        let least = least + rest.iter().take(3).take_while(|byte| is_continuation(**byte)).count();
        self.last_lines().max(least)
    }

    fn last_lines(&self) -> usize {
        if self.kept.is_empty() {
            return 0;
        }
        let mut start = self.kept.strip_suffix(b"\n").unwrap_or(&self.kept).len();
        for _ in 0..self.limit.lines {
            match memrchr(b'\n', &self.kept[..start]) {
                Some(end) => start = end,
                None => return 0,
            }
        }
        start + 1
    }
}

/// As people saw it.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&visible(&collapse(bytes))).into_owned()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Reduces every line that was written over with carriage returns to its last state that shows something.
fn collapse(bytes: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                let (start, end) = last_state(line);
                result.extend_from_slice(&line[start..end]);
                result.push(b'\n');
            }
            // It goes on: what follows the last state may be the beginning of the next.
            None => result.extend_from_slice(&line[last_state(line).0..]),
        }
    }
    result
}

/// Where in a line its last state that shows something begins and ends.
fn last_state(line: &[u8]) -> (usize, usize) {
    let mut end = line.len();
    loop {
        let start = memrchr(b'\r', &line[..end]).map_or(0, |at| at + 1);
        if start == 0 || !visible(&line[start..end]).is_empty() {
            return (start, end);
        }
        end = start - 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8], lines: usize, limit: usize) -> Shown {
        let mut tail = Tail::new(Limit { lines, bytes: limit, context: 0 });
        tail.push(bytes);
        tail.shown()
    }

    #[test]
    fn the_last_lines_are_kept_as_people_saw_them() {
        let rows: [(&str, usize, &str, u64); 16] = [
            ("", 2, "", 0),
            ("one\n", 2, "one", 0),
            ("one\ntwo\nthree\n", 2, "two\nthree", 1),
            ("one\ntwo\nthr", 2, "two\nthr", 1),
            ("one\n\n\n", 2, "\n", 1),
            ("\n", 1, "", 0),
            ("one\r\ntwo\r\n", 5, "one\ntwo", 0),
            ("10%\r20%\r30%", 5, "30%", 0),
            ("10%\r20%\r", 5, "20%", 0),
            ("10%\r20%\rdone\nnext\n", 5, "done\nnext", 0),
            ("10%\r\x1b[Kdone\r\x1b[K\n", 5, "done", 0),
            ("\r\r\n", 5, "", 0),
            ("\x1b[31merror:\x1b[0m no\n", 5, "error: no", 0),
            ("bad \u{1b}]0;title\u{7}x\n", 5, "bad x", 0),
            ("a\nb\nc\n", 0, "", 0),
            ("→\né\n", 1, "é", 1),
        ];
        for (given, lines, text, lines_before) in rows {
            let shown = shown(given.as_bytes(), lines, 1000);
            assert_eq!((&*shown.text, shown.lines_before), (text, lines_before), "{given:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let end = shown("ä".repeat(500).as_bytes(), 5, 101);
        assert_eq!((end.text, end.lines_before), ("ä".repeat(50), 0));
        let end = shown(&[0xff; 100], 5, 100);
        assert!(end.text.len() <= 100 && end.text.starts_with('\u{fffd}'), "{end:?}");
    }

    #[test]
    fn a_progress_bar_does_not_push_out_what_was_said_before_it() {
        let mut tail = Tail::new(Limit { lines: 5, bytes: 200, context: 20 });
        tail.push(b"compiling\nwarning: unused\n");
        for percent in 0..=100 {
            tail.push(format!("\r\x1b[K\x1b[32m{percent:3}%\x1b[0m building").as_bytes());
        }
        tail.push(b"\nerror: failed\n");
        let end = tail.shown();
        assert_eq!(end.text, "compiling\nwarning: unused\n100% building\nerror: failed");
        assert_eq!(end.lines_before, 0);
    }

    #[test]
    fn no_rest_of_anything_is_shown_without_its_beginning_before_it() {
        let thing = "beginning-to-end";
        for lines in [1, 2, 5] {
            for filler in ["x", "é", "0123456\n", "\u{1b}[1m."] {
                for count in 0..400 {
                    let mut tail = Tail::new(Limit { lines, bytes: 100, context: 40 });
                    tail.push(format!("{}{thing}{}", filler.repeat(100), filler.repeat(count)).as_bytes());
                    let Shown { text, before, .. } = tail.shown();
                    let rest = (1..thing.len()).find(|from| text.starts_with(&thing[*from..]));
                    assert!(rest.is_none_or(|from| before.ends_with(&thing[..from])), "{before} | {text}");
                    assert!(!text.is_empty());
                }
            }
        }
    }

    /// Bytes like those of programs: words, line ends, colours, progress, and some that are no text.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            6 => "[a-zé→]{0,8}".prop_map(String::into_bytes),
            3 => Just(b"\n".to_vec()),
            2 => Just(b"\r".to_vec()),
            1 => Just(b"\r\n".to_vec()),
            1 => Just(b"\x1b[31m".to_vec()),
            1 => Just(b"\x1b]0;t\x07".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_tail(bytes in output(), cuts in proptest::collection::vec(0..2000usize, 0..20)) {
            let mut tail = Tail::new(Limit { lines: 7, bytes: 150, context: 0 });
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                tail.push(&bytes[from..cut]);
                from = cut;
            }
            tail.push(&bytes[from..]);
            let (split, whole) = (tail.shown(), shown(&bytes, 7, 150));
            prop_assert_eq!((split.text, split.before, split.lines_before), (whole.text, whole.before, whole.lines_before));
        }

        #[test]
        fn it_is_short_and_plain(bytes in output(), lines in 1..9usize) {
            let end = shown(&bytes, lines, 100);
            prop_assert!(end.text.len() <= 100);
            prop_assert!(end.text.split('\n').count() <= lines);
            prop_assert!(end.text.chars().all(|c| c == '\n' || c == '\t' || c >= ' '));
            let ends = memchr_iter(b'\n', &bytes).count() as u64;
            prop_assert!(end.lines_before <= ends);
        }

        #[test]
        fn plain_text_is_kept_to_the_letter(text in "([a-zé→]{0,12}\n){0,60}[a-zé→]{0,12}", lines in 1..9usize) {
            let end = shown(text.as_bytes(), lines, 400);
            let all: Vec<&str> = text.strip_suffix('\n').unwrap_or(&text).split('\n').collect();
            let first = all.len().saturating_sub(lines);
            prop_assert_eq!(&end.text, &all[first..].join("\n"));
            prop_assert_eq!(end.lines_before, first as u64);
        }
    }
}
