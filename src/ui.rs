//! The only printer: answers on standard output, talk on standard error, and colour decided once for each.

use std::io::{self, IsTerminal, Write};

use anyhow::anyhow;

use crate::args::ColorChoice;
use crate::checkpoint::mask::Masker;
use crate::exit::{Failure, cause, one_line};

/// What a piece of text means; how that looks is decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warn,
    Bad,
    Dim,
}

/// Prints. Whatever goes to standard error is masked: it quotes what people typed, and ends up in logs.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    quiet: bool,
    verbose: u8,
    out_colour: bool,
    err_colour: bool,
    masker: Masker,
}

impl Ui {
    pub(crate) fn new(color: ColorChoice, quiet: bool, verbose: u8, masker: Masker) -> Self {
        let colour = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal,
        };
        Self {
            quiet,
            verbose,
            out_colour: colour(io::stdout().is_terminal()),
            err_colour: colour(io::stderr().is_terminal()),
            masker,
        }
    }

    /// Before the configuration is known: no colour unless a flag asks for it.
    pub(crate) fn early(color: Option<ColorChoice>) -> Self {
        Self::new(color.unwrap_or(ColorChoice::Never), false, 0, Masker::default())
    }

    /// The same, that masks these as well.
    pub(crate) fn masking(self, masker: Masker) -> Self {
        Self { masker, ..self }
    }

    /// Writes the answer to standard output, with a line break behind it. Nobody listening is no failure.
    ///
    /// # Errors
    /// Standard output cannot be written for another reason, such as a full disk.
    pub(crate) fn answer(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(anyhow!("could not write to standard output: {}", cause(&error)))
            }
            _ => Ok(()),
        }
    }

    /// Whether progress is worth showing on standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Shows on the terminal's last line how far something has come; the next call overwrites it.
    pub(crate) fn progress(&self, what: &str, done: u64, all: u64) {
        let cells = usize::try_from((done.min(all) * 20).checked_div(all).unwrap_or(20)).unwrap_or(20);
        let bar = format!("{}{}", "▓".repeat(cells), "░".repeat(20 - cells));
        let _ = write!(io::stderr(), "\r{what} {bar} {done} of {all}\x1b[K");
    }

    /// Clears the line of [`Ui::progress`].
    pub(crate) fn end_progress(&self) {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }

    /// How many columns the terminal has that standard output is; `None` if it is none.
    pub(crate) fn width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// The text in the tone's colour, for standard output.
    pub(crate) fn tint(&self, tone: Tone, text: &str) -> String {
        paint(self.out_colour, tone, text)
    }

    /// Something the user should know, and how to mend it.
    pub(crate) fn warn(&self, message: &str, hint: Option<&str>) {
        if !self.quiet {
            self.say(Some("warning:"), message, hint);
        }
    }

    /// Something that is wrong, although we go on; not silenced by `--quiet`.
    pub(crate) fn wrong(&self, message: &str, hint: Option<&str>) {
        self.say(None, message, hint);
    }

    /// Something that whoever reads the log will look for.
    pub(crate) fn note(&self, message: &str) {
        if !self.quiet {
            self.say(None, message, None);
        }
    }

    /// Something for a person who is watching, but not for a log.
    pub(crate) fn tell(&self, message: &str) {
        if !self.quiet && (self.verbose > 0 || io::stderr().is_terminal()) {
            self.say(None, message, None);
        }
    }

    /// Something for whoever wants to know more.
    pub(crate) fn detail(&self, message: &str) {
        if self.verbose > 0 {
            self.say(None, message, None);
        }
    }

    /// Tells of single requests, for whoever wants to know even more.
    pub(crate) fn witness(&self) -> Option<impl Fn(&str) + Send + use<>> {
        let ui = self.clone();
        (self.verbose > 1).then_some(move |words: &str| ui.say(None, words, None))
    }

    /// The one error that ends a command.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.say(None, &failure.message, failure.hint.as_deref());
    }

    fn say(&self, kind: Option<&str>, message: &str, hint: Option<&str>) {
        let name = paint(self.err_colour, Tone::Bad, "agent-checkpoint:");
        let shown = |text: &str| one_line(&self.masker.mask(text));
        let kind = kind.map_or_else(String::new, |kind| paint(self.err_colour, Tone::Warn, kind) + " ");
        let mut text = format!("{name} {kind}{}\n", shown(message));
        if let Some(hint) = hint {
            text.push_str(&format!("{} {}\n", paint(self.err_colour, Tone::Dim, "hint:"), shown(hint)));
        }
        // Whoever closed standard error does not want to hear it.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if !colour {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}
