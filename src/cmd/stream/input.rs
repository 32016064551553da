//! What `stream` hears: lines on standard input, and signals that ask it to end.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::child::ignored_signals;
use crate::exit::cause;

/// The longest line that is read, in bytes.
pub(super) const LINE_MAX: usize = 16 * 1024 * 1024;
/// How many bytes are read ahead of what is recorded; one line may go beyond.
const AHEAD_MAX: usize = 256 * 1024;

/// A line as it came.
#[derive(Debug)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// `None` for one that is too long.
    pub(super) text: Option<Vec<u8>>,
}

/// Why there is nothing more to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The input is over.
    Over,
    /// The input cannot be read.
    Unreadable(String),
    /// This signal came.
    Signal(i32),
}

/// What was heard and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    bytes: usize,
    end: Option<End>,
}

impl Input {
    /// Begins to listen. Both threads are left behind in the end: they own nothing that has to be put down.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn open() -> io::Result<Arc<Self>> {
        let input = Arc::new(Self::default());
        let ignored = ignored_signals().unwrap_or(0);
        let heard = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter();
        let mut signals = Signals::new(heard.filter(|signal| ignored & (1 << (signal - 1)) == 0))?;
        let theirs = Arc::clone(&input);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut is_ending = false;
            for signal in &mut signals {
                // The hangup of a terminal often comes twice, or together with another one.
                if is_ending && signal != SIGHUP {
                    let _ = emulate_default_handler(signal);
                }
                is_ending = true;
                theirs.end(End::Signal(signal));
            }
        })?;
        let theirs = Arc::clone(&input);
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let end = match theirs.listen(io::stdin().lock()) {
                Ok(()) => End::Over,
                Err(error) => End::Unreadable(cause(&error)),
            };
            theirs.end(end);
        })?;
        Ok(input)
    }

    /// Waits for something to hear, and takes all lines that have come; the error is the end, once there are none left.
    pub(super) fn take(&self) -> Result<Vec<Line>, End> {
        let nothing = |state: &mut State| state.lines.is_empty() && state.end.is_none();
        let mut state = self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(end)) = (state.lines.is_empty(), &state.end) {
            return Err(end.clone());
        }
        let was_full = state.bytes >= AHEAD_MAX;
        state.bytes = 0;
        let lines = std::mem::take(&mut state.lines);
        drop(state);
        if was_full {
            self.changed.notify_all();
        }
        Ok(lines)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Hands lines on until the input is over, or nobody wants more.
    fn listen(&self, input: impl Read) -> io::Result<()> {
        let mut input = BufReader::with_capacity(64 * 1024, input);
        for number in 1.. {
            let mut text = Vec::new();
            if (&mut input).take(LINE_MAX as u64 + 1).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            let is_whole = text.len() <= LINE_MAX || text.ends_with(b"\n");
            if !is_whole {
                input.skip_until(b'\n')?;
            }
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if !self.hand_on(Line { number, text: is_whole.then_some(text) }) {
                break;
            }
        }
        Ok(())
    }

    /// False when nobody wants it any more.
    fn hand_on(&self, line: Line) -> bool {
        let full = |state: &mut State| state.bytes >= AHEAD_MAX && state.end.is_none();
        let mut state = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.end.is_some() {
            return false;
        }
        let is_first = state.lines.is_empty();
        state.bytes += line.text.as_ref().map_or(0, Vec::len);
        state.lines.push(line);
        drop(state);
        // Whoever waits for lines waits for the first.
        if is_first {
            self.changed.notify_all();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &[u8]) -> Vec<(u64, Option<usize>)> {
        let input = Input::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                input.listen(text).expect("a readable text");
                input.end(End::Over);
            });
            let mut heard = Vec::new();
            while let Ok(lines) = input.take() {
                heard.extend(lines.into_iter().map(|line| (line.number, line.text.map(|text| text.len()))));
            }
            heard
        })
    }

    #[test]
    fn lines_are_counted_and_empty_ones_passed_over() {
        assert_eq!(heard(b""), []);
        assert_eq!(heard(b"a\n\n \t\r\nbc\r\nd"), [(1, Some(2)), (4, Some(4)), (5, Some(1))]);
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_those_around_it_are_heard() {
        let fits = vec![b'x'; LINE_MAX];
        let text = [b"a\n", fits.as_slice(), b"\n", &fits, b"x\nb\n", &fits, b"xyz"].concat();
        let whole = Some(LINE_MAX + 1);
        assert_eq!(heard(&text), [(1, Some(2)), (2, whole), (3, None), (4, Some(2)), (5, None)]);
    }

    #[test]
    fn after_a_signal_nothing_more_is_heard() {
        let input = Input::default();
        assert!(input.hand_on(Line { number: 1, text: Some(vec![b'a']) }));
        input.end(End::Signal(SIGTERM));
        input.end(End::Over);
        assert!(!input.hand_on(Line { number: 2, text: Some(vec![b'b']) }));
        assert_eq!(input.take().expect("what was heard before").len(), 1);
        assert_eq!(input.take().expect_err("the end"), End::Signal(SIGTERM));
    }
}
