//! When the cache cannot be used: post once, since that is still better than silence; in the agent's thread where the
//! cache can at least be read, or else alone.

use std::thread;

use serde_json::Value;

use super::Emission;
use crate::args::BackgroundChoice;
use crate::checkpoint::outbox::{Delivery, Job};
use crate::checkpoint::plan::Stored;
use crate::cmd::deliver::{Sender, again_at};
use crate::cmd::receipt::{Audited, Receipt};
use crate::cmd::{now, record};
use crate::delivery::{Outcome, Retry};
use crate::exit::{Exit, Failure};

impl Emission<'_> {
    /// Posts, or fails with exit code 1: then the checkpoint is neither recorded nor delivered. `known` is what could be
    /// read of the agent.
    pub(super) fn without_store(&mut self, why: &str, known: Option<Stored>) -> anyhow::Result<Receipt> {
        // Nobody but the cache knows what there is to tell a database.
        #[cfg(feature = "postgres")]
        drop(self.departure.take());
        // A thread of another workspace is no place for us.
        let ours = self.sender.as_ref().map(Sender::credential);
        let known =
            known.filter(|known| known.task.as_ref().is_some_and(|task| task.credential.as_ref() == ours));
        let known = known.unwrap_or_default();
        let plan = record::plan(&known, self.draft, &record::policy(self.config), now());
        self.notice(&plan.notices);
        let mut receipt =
            Receipt { task_id: None, retry_at: None, audit: Audited::Off, ..Receipt::of(&plan, self.config) };
        let task = plan.append.task;
        let delivered = match (plan.append.checkpoint.delivery, self.sender.take()) {
            (Delivery::Printed, _) => Ok(()),
            (Delivery::Off, _) => Err("--no-post leaves nothing else to do".to_owned()),
            (_, None) => Err("the destination cannot be used".to_owned()),
            (_, Some(_)) if self.config.background == BackgroundChoice::Always => {
                Err("--background always never posts by itself".to_owned())
            }
            (_, Some(mut sender)) => match patiently(&mut sender, Job::alone(task, self.draft.id, now())) {
                Outcome::Posted { channel_id, ts, thread_ts } => {
                    receipt.delivery = Delivery::Sent;
                    receipt.channel = channel_id.or(receipt.channel);
                    receipt.thread_ts = thread_ts.or_else(|| ts.clone()).or(receipt.thread_ts);
                    receipt.message_ts = ts;
                    Ok(())
                }
                Outcome::Retry(Retry { reason, maybe_sent: true, .. }) => {
                    receipt.delivery = Delivery::Unconfirmed;
                    Err(reason)
                }
                Outcome::Retry(Retry { reason, .. }) => Err(reason),
                Outcome::Rejected(reason) => {
                    receipt.delivery = Delivery::Rejected;
                    Err(reason)
                }
                Outcome::Edited
                | Outcome::CardGone
                | Outcome::CardFrozen
                | Outcome::CardLeft
                | Outcome::ThreadGone => {
                    receipt.delivery = Delivery::Rejected;
                    Err("the thread is gone".to_owned())
                }
            },
        };
        match delivered {
            Ok(()) => {
                self.warn(format!("{why}; going on without state"), Some("run agent-checkpoint doctor"));
                receipt.warnings.clone_from(&self.warnings);
                Ok(receipt)
            }
            Err(reason) => {
                receipt.error = Some(format!("{why}; {reason}"));
                receipt.warnings.clone_from(&self.warnings);
                let is_unknown = receipt.delivery == Delivery::Unconfirmed;
                if self.config.json {
                    let mut json = receipt.json();
                    if !is_unknown && receipt.delivery != Delivery::Rejected {
                        // Nobody will try again, so no word for a delivery fits.
                        json["delivery"] = Value::Null;
                    }
                    self.ui.answer(&json.to_string())?;
                }
                let what = if is_unknown {
                    "not recorded, and perhaps not delivered"
                } else {
                    "neither recorded nor delivered"
                };
                let message = format!("{what}: {why}; {reason}");
                Err(Failure::new(Exit::Failed, message).hint("run agent-checkpoint doctor").into())
            }
        }
    }
}

/// Tries until the deadline, unless it may have arrived: nobody comes after us.
fn patiently(sender: &mut Sender, mut job: Job) -> Outcome {
    let mut attempts = 0;
    loop {
        let outcome = sender.send(&job);
        if outcome == Outcome::ThreadGone && job.task.thread_ts.take().is_some() {
            continue;
        }
        let Outcome::Retry(Retry { cause, maybe_sent: false, .. }) = &outcome else { return outcome };
        let wait = again_at(*cause, attempts).since(now());
        if wait >= sender.time_to_wait() {
            return outcome;
        }
        thread::sleep(wait);
        attempts += 1;
    }
}
