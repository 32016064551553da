//! The exit codes, and errors that carry one.

use std::fmt;
use std::process::ExitCode;

/// Why the program ends. Never 2: coding agents' hooks read that as "block".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done: recorded, or at least delivered.
    Done,
    /// Neither recorded nor delivered, or not found.
    Failed,
    /// Wrong command line (`EX_USAGE`).
    Usage,
    /// Bad lines on the input of `stream` (`EX_DATAERR`).
    BadInput,
    /// A person has rejected what was asked; `ask` and `answer` only.
    Rejected,
    /// A person has asked the agent to stop; `emit --obey` only.
    Stop,
    /// Nobody answered in time, as for timeout(1); `ask` and `answer` only.
    TimedOut,
    /// Recorded, but not delivered yet; `--strict` and `flush` only (`EX_TEMPFAIL`).
    NotYet,
    /// What the wrapped command returned, or would have.
    Child(u8),
    /// Ended by this signal, after it was seen to that nothing is lost; `stream` only.
    Signal(u8),
    /// Wrong configuration, or refused for good under `--strict` (`EX_CONFIG`).
    Config,
}

/// What went wrong with a file or a socket, without the number that only programs care for.
pub(crate) fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or_else(|| text.clone(), |(words, _)| words.to_owned())
}

/// What was typed or configured, on one line and without what a terminal would obey, be it only by turning the reading direction.
pub(crate) fn one_line(text: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let visible =
        |c: char| if c.is_control() || turns(c) { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(visible).collect()
}

/// What each code means, for the manual.
pub(crate) const CODES: &[(&str, &str)] = &[
    ("0", "recorded, or at least delivered, whatever became of the other"),
    (
        "1",
        "neither recorded nor delivered, or not found; ask, answer: it could not be asked, or was withdrawn",
    ),
    ("10", "ask, answer: a person has rejected it"),
    ("20", "emit --obey: a person has asked the agent to stop"),
    (
        "64",
        "wrong command line, values of flags included, or an answer that the question does not take; nothing was changed",
    ),
    ("65", "stream: there were bad lines, which were skipped, or the input could not be read"),
    (
        "75",
        "with --strict: queued or unconfirmed; flush: something still waits; answer: the question is open",
    ),
    ("78", "wrong configuration; with --strict or from flush: refused for good"),
    ("124", "run: the command's time was over (--timeout); ask, answer: nobody answered in time"),
    ("125, 126, 127", "run: the command could not be started, cannot be invoked, was not found"),
    ("any other", "run: the command's own code; 128+N when signal N ended it, or stream"),
];

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::Rejected => 10,
            Self::Stop => 20,
            Self::TimedOut => 124,
            Self::NotYet => 75,
            Self::Child(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error for the user: what failed with which value, how to mend it, and the exit code it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    /// An error that nobody gave a code is our own failure.
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Exit::Failed, format!("{error:#}")),
        }
    }
}
