//! A connection of Socket Mode as it stands, and why one is not kept.

use std::io::ErrorKind;
use std::time::Instant;

use tungstenite::{Error, Message};

use crate::exit::Failure;
use crate::interaction::dial::{Line, socket_words};

/// One connection.
pub(super) struct Link {
    /// Which it is of those that there were.
    pub(super) number: u64,
    pub(super) line: Line,
    pub(super) opened: Instant,
    /// When anything came last.
    pub(super) heard: Instant,
    pub(super) pinged: Instant,
    /// It has got its hello.
    pub(super) ready: bool,
    /// Since when it is to be replaced.
    pub(super) leaving: Option<Instant>,
    /// Something is still to be written.
    pub(super) unsent: bool,
    /// Slack's first words may have come with the upgrade, or more of them with those that were taken: then they are read
    /// already, and there is nothing to wait for.
    pub(super) fresh: bool,
}

impl Link {
    pub(super) fn new(number: u64, line: Line, now: Instant) -> Self {
        Self {
            number,
            line,
            opened: now,
            heard: now,
            pinged: now,
            ready: false,
            leaving: None,
            unsent: false,
            fresh: true,
        }
    }

    /// Sends a message, or as much as there is room for.
    pub(super) fn send(&mut self, message: Message) -> Result<(), Error> {
        let sent = self.line.socket.send(message);
        self.settle(sent)
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.line.socket.flush();
        self.settle(flushed)
    }

    fn settle(&mut self, sent: Result<(), Error>) -> Result<(), Error> {
        match sent {
            Ok(()) => {
                self.unsent = false;
                Ok(())
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.unsent = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Why a connection is not kept.
pub(super) enum Gone {
    /// It broke or was closed; in words.
    Lost(String),
    /// It was to be replaced anyway.
    Left,
    /// No other will do better.
    Final(Failure),
}

impl From<Error> for Gone {
    fn from(error: Error) -> Self {
        Self::Lost(socket_words("Slack", &error))
    }
}
