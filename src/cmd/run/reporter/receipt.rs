//! The receipt that `run` gives at its end.

use super::super::super::forward::Forwarder;
use super::super::super::receipt::{Audited, Receipt, conversation};
use super::{End, Reporter};
use crate::checkpoint::outbox::Delivery;
use crate::delivery::{Outcome, Retry};

impl Reporter<'_> {
    /// What became of the last checkpoint: ours, or the command's own last word.
    pub(super) fn receipt(&mut self, end: &End, loose: Option<Outcome>) -> Receipt {
        let config = &self.settings.config;
        let mut receipt = Receipt {
            checkpoint_id: end.draft.id.to_string(),
            task_id: self.store.as_ref().map(|_| self.task.id.to_string()),
            agent_id: self.task.agent_id.clone(),
            snapshot: self.task.snapshot.clone(),
            delivery: end.delivery,
            channel: conversation(config, &self.task),
            thread_ts: self.task.thread_ts.clone(),
            message_ts: None,
            retry_at: None,
            error: None,
            audit: Audited::Off,
            warnings: self.warnings.clone(),
            requests: Vec::new(),
        };
        match loose {
            Some(Outcome::Posted { channel_id, ts, thread_ts }) => {
                receipt.delivery = Delivery::Sent;
                receipt.channel = channel_id.or(receipt.channel);
                receipt.thread_ts = thread_ts.or_else(|| ts.clone()).or(receipt.thread_ts);
                receipt.message_ts = ts;
            }
            Some(Outcome::Retry(Retry { reason, maybe_sent, .. })) => {
                if maybe_sent {
                    receipt.delivery = Delivery::Unconfirmed;
                }
                receipt.error = Some(reason);
            }
            Some(Outcome::Rejected(reason)) => {
                (receipt.delivery, receipt.error) = (Delivery::Rejected, Some(reason));
            }
            Some(_) | None => {}
        }
        let (Some(store), Some(key)) = (&mut self.store, self.task.key) else { return receipt };
        let found = store.read(|tx| {
            let last = match end.recorded {
                Some(recorded) => recorded.checkpoint,
                None => tx.newest(key)?,
            };
            let mut standing = tx.delivery_of(last)?;
            // By a worker whose time was over before the answer came, or before it could be written down.
            if standing.delivery == Delivery::Queued && tx.is_being_sent_by_us(last)? {
                standing.delivery = Delivery::Unconfirmed;
                standing.reason = Some("there was no time to wait for the answer".to_owned());
            }
            Ok((last, tx.checkpoint_id(last)?, standing, tx.task(key)?))
        });
        if let Ok((last, id, standing, task)) = found {
            receipt.audit = Audited::of(config, Forwarder::new(config).as_ref(), store, last);
            receipt.checkpoint_id = id.to_string();
            receipt.delivery = standing.delivery;
            receipt.message_ts = standing.message_ts;
            receipt.retry_at = standing.due_at;
            receipt.error = standing.reason;
            receipt.channel = conversation(config, &task);
            receipt.thread_ts = task.thread_ts;
            receipt.snapshot = task.snapshot;
        }
        receipt
    }
}
