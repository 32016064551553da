//! When the cache cannot be used: post once, without a thread of our own, since that is still better than silence.

use super::{Emission, plan_now};
use crate::args::BackgroundChoice;
use crate::checkpoint::Task;
use crate::checkpoint::id::{CheckpointId, EntryKey};
use crate::checkpoint::outbox::{Delivery, EntryKind, Job, Priority};
use crate::checkpoint::plan::Stored;
use crate::cmd::now;
use crate::cmd::receipt::Receipt;
use crate::delivery::{Outcome, Retry};
use crate::exit::{Exit, Failure};

impl Emission<'_> {
    /// Posts, or fails with exit code 1: then the checkpoint is neither recorded nor delivered.
    pub(super) fn without_store(&mut self, why: &str) -> anyhow::Result<Receipt> {
        let plan = plan_now(&Stored::default(), self.draft, self.config, now());
        let task = plan.append.task;
        self.notice(&plan.notices);
        let mut receipt = Receipt {
            checkpoint_id: self.draft.id.to_string(),
            task_id: None,
            agent_id: self.draft.agent_id.clone(),
            snapshot: task.snapshot.clone(),
            delivery: plan.append.checkpoint.delivery,
            channel: task.channel.clone(),
            thread_ts: task.thread_ts.clone(),
            message_ts: None,
            retry_at: None,
            error: None,
            warnings: Vec::new(),
        };
        let delivered = match (plan.append.checkpoint.delivery, self.sender.take()) {
            (Delivery::Printed, _) => Ok(()),
            (Delivery::Off, _) => Err("--no-post leaves nothing else to do".to_owned()),
            (_, None) => Err("the destination cannot be used".to_owned()),
            (_, Some(_)) if self.config.background == BackgroundChoice::Always => {
                Err("--background always never posts by itself".to_owned())
            }
            (_, Some(mut sender)) => match sender.send(&stateless_job(self.draft.id, task)) {
                Outcome::Posted { channel_id, ts, thread_ts } => {
                    receipt.delivery = Delivery::Sent;
                    receipt.channel = channel_id.or(receipt.channel);
                    receipt.thread_ts = thread_ts.or_else(|| ts.clone()).or(receipt.thread_ts);
                    receipt.message_ts = ts;
                    Ok(())
                }
                Outcome::Retry(Retry { reason, maybe_sent, .. }) => {
                    receipt.delivery = if maybe_sent { Delivery::Unconfirmed } else { Delivery::Rejected };
                    Err(reason)
                }
                Outcome::Rejected(reason) => {
                    receipt.delivery = Delivery::Rejected;
                    Err(reason)
                }
                Outcome::Edited | Outcome::CardGone | Outcome::CardFrozen | Outcome::ThreadGone => {
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
                if self.config.json {
                    self.ui.answer(&receipt.json().to_string())?;
                }
                let message = format!("neither recorded nor delivered: {why}; {reason}");
                Err(Failure::new(Exit::Failed, message).hint("run agent-checkpoint doctor").into())
            }
        }
    }
}

/// A job that belongs to no outbox.
fn stateless_job(checkpoint: CheckpointId, task: Task) -> Job {
    Job {
        entry: EntryKey(0),
        kind: EntryKind::Post,
        priority: Priority::Immediate,
        snapshot: task.snapshot.clone(),
        checkpoint,
        attempts: 0,
        maybe_sent: false,
        created_at: task.started_at,
        start_at: task.started_at,
        task,
    }
}
