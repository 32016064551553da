//! What was handed over: each interaction on a thread of its own, so that one that waits for something keeps no other from
//! being acknowledged in time.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::Ack;
use crate::interaction::wire::Interaction;

/// How many may be under way at once; nothing more is read meanwhile.
const HANDS: usize = 16;
/// The stack of one: it may speak TLS with a database.
const STACK: usize = 512 * 1024;

/// What takes an interaction.
pub(super) type Hear = Arc<dyn Fn(Interaction) -> Ack + Send + Sync>;

/// Where an acknowledgement belongs.
#[derive(Debug)]
pub(super) struct Slip {
    /// The number of the connection.
    pub(super) link: u64,
    pub(super) envelope_id: Option<String>,
    /// It may be answered with a message.
    pub(super) takes_answer: bool,
}

pub(super) struct Hands {
    hear: Hear,
    bell: Arc<UnixStream>,
    sender: Sender<(Slip, Ack)>,
    done: Receiver<(Slip, Ack)>,
    /// How many were taken of which it is not known what became.
    under_way: usize,
    busy: Vec<JoinHandle<()>>,
}

impl Hands {
    /// `bell` is rung each time that one is done.
    pub(super) fn new(hear: Hear, bell: Arc<UnixStream>) -> Self {
        let (sender, done) = mpsc::channel();
        Self { hear, bell, sender, done, under_way: 0, busy: Vec::new() }
    }

    /// Whether no more can be taken until one is done.
    pub(super) fn are_full(&self) -> bool {
        self.under_way >= HANDS
    }

    /// Hands an interaction over.
    pub(super) fn take(&mut self, interaction: Interaction, slip: Slip) {
        self.busy.retain(|hand| !hand.is_finished());
        let (hear, bell, sender) = (Arc::clone(&self.hear), Arc::clone(&self.bell), self.sender.clone());
        let work = move || {
            let ack = hear(interaction);
            // Who is to hear of it waits for us.
            let _ = sender.send((slip, ack));
            let _ = (&*bell).write(&[1]);
        };
        // Without a thread it is not acknowledged: Slack says it again, or the person sees that it did not work.
        if let Ok(hand) = thread::Builder::new().name("hear".to_owned()).stack_size(STACK).spawn(work) {
            self.under_way += 1;
            self.busy.push(hand);
        }
    }

    /// One that is done, if any is.
    pub(super) fn done(&mut self) -> Option<(Slip, Ack)> {
        let done = self.done.try_recv().ok()?;
        self.under_way -= 1;
        Some(done)
    }

    /// Waits until nothing is under way.
    pub(super) fn rest(&mut self) {
        for hand in self.busy.drain(..) {
            let _ = hand.join();
        }
    }
}
