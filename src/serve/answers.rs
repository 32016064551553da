//! Answers, kept as long as they stay the same: many ask for the same again and again, and a list of many tasks takes
//! thousands of times longer to read than to send.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Ask, Source, Unread};
use crate::exit::{Exit, Failure};

/// How many answers are kept at most; one may have a megabyte.
const KEPT: usize = 16;
/// For how long an answer is kept. It tells when something is due, which may change without anything being written.
const KEEP_MAX: Duration = Duration::from_secs(1);

/// How long is waited for a place where one may read. With the time that reading may take it is less than a request has.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body, or that there is none to be had.
pub(super) type Answer = Result<Option<Bytes>, Unread>;

/// Where a kept answer lies. Whoever asks for it takes turns, so that it is read by one of them for all.
type Place = Arc<Turn<Option<Kept>>>;

struct Kept {
    answer: Answer,
    /// What the source was like before it was read.
    version: Option<u64>,
    begun: Instant,
    ended: Instant,
}

impl Kept {
    /// Whether it answers somebody who asked at that moment: it was read since, or nothing has changed. Whoever has waited
    /// for a failure need not wait for another.
    fn is_good(&self, asked: Instant, version: impl FnOnce() -> Option<u64>) -> bool {
        self.begun >= asked
            || (self.answer.is_err() && self.ended >= asked)
            || (self.begun.elapsed() < KEEP_MAX && self.version.is_some() && self.version == version())
    }
}

/// What was read lately, and where to read the rest.
pub(super) struct Answers {
    source: Arc<dyn Source>,
    room: Arc<Semaphore>,
    places: Mutex<Vec<(Ask, Place)>>,
}

impl Answers {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        let room = Arc::new(Semaphore::new(source.places()));
        Self { source, room, places: Mutex::default() }
    }

    /// The answer as of now.
    pub(super) async fn get(&self, ask: Ask) -> Answer {
        let asked = Instant::now();
        let place = self.place(&ask);
        let mut kept = place.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_good(asked, || self.source.version())) {
            return kept.answer.clone();
        }
        let (version, begun) = (self.source.version(), Instant::now());
        let answer = self.read(ask).await;
        let version = version.filter(|_| answer.is_ok());
        *kept = Some(Kept { answer: answer.clone(), version, begun, ended: Instant::now() });
        answer
    }

    /// The same, not kept: for what rarely anybody asks for again.
    pub(super) async fn read(&self, ask: Ask) -> Answer {
        let Ok(Ok(place)) = timeout(PATIENCE, Arc::clone(&self.room).acquire_owned()).await else {
            let message = "too much is being read at once";
            return Err(Failure::new(Exit::Failed, message).hint("try again in a few seconds").into());
        };
        let source = Arc::clone(&self.source);
        let read = move || {
            let _place = place;
            source.read(&ask)
        };
        spawn_blocking(read).await.unwrap_or_else(|_| {
            let message = "the answer could not be read";
            Err(Failure::new(Exit::Failed, message).hint("look at what serve says").into())
        })
    }

    fn place(&self, ask: &Ask) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = places.iter().find(|(kept, _)| kept == ask) {
            return Arc::clone(place);
        }
        if places.len() >= KEPT {
            places.clear();
        }
        let place = Place::default();
        places.push((ask.clone(), Arc::clone(&place)));
        place
    }
}
