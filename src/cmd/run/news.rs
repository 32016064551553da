//! What the threads of `run` tell each other: what happens to the command, and what has become of it.

use std::sync::mpsc::Sender as Mouth;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::super::receipt::Receipt;
use crate::checkpoint::id::TaskId;
use crate::child::Waker;

/// What there is to write down after the start.
#[derive(Debug)]
pub(super) enum News {
    /// How far the command says it is.
    Progress { percent: Option<u8>, action: Option<String> },
    /// It is still running.
    Beat,
    /// It ended, or could not be started.
    Ended(Ending),
}

/// What the reporter says after the end.
#[derive(Debug)]
pub(super) enum Word {
    /// A person wants the command to end.
    Stop,
    /// The end is on disk.
    Stored,
    /// All that can be done is done.
    Done(Box<Report>),
}

impl Word {
    pub(super) fn report(self) -> Option<Report> {
        match self {
            Self::Done(report) => Some(*report),
            Self::Stored | Self::Stop => None,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// What went wrong, in words; `None` for exit code 0.
    pub(super) error: Option<String>,
    /// The last lines it wrote.
    pub(super) tail: Option<String>,
}

/// Where the command's checkpoints go, for the command's own environment.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) agent_id: String,
    pub(super) task: Option<TaskId>,
    /// The thread, as `CHANNEL:TS`, where there is one already.
    pub(super) thread: Option<String>,
}

/// What became of it all.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) receipt: Receipt,
    pub(super) warnings: Vec<String>,
}

/// Says words to a thread that waits for a command's events.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) words: Mouth<Word>,
    /// Set before the end is news.
    pub(super) waker: Arc<OnceLock<Waker>>,
    /// When the command ended, or could not be started; from then on somebody waits for us.
    pub(super) ended_at: Arc<OnceLock<Instant>>,
}

impl Voice {
    pub(super) fn say(&self, word: Word) {
        let _ = self.words.send(word);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// The later news, with what only the earlier one says.
pub(super) fn merged(earlier: Option<News>, later: News) -> News {
    match (earlier, later) {
        (
            Some(News::Progress { percent: old_percent, action: old_action }),
            News::Progress { percent, action },
        ) => News::Progress { percent: percent.or(old_percent), action: action.or(old_action) },
        (_, later) => later,
    }
}
