//! The receipt of `emit`: what became of a checkpoint, in the same words for people and programs.

use serde_json::{Value, json};

use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::time::Moment;

/// What became of one checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) checkpoint_id: String,
    /// `None` when nothing could be recorded.
    pub(super) task_id: Option<String>,
    pub(super) agent_id: String,
    pub(super) snapshot: Snapshot,
    pub(super) delivery: Delivery,
    pub(super) channel: Option<String>,
    pub(super) thread_ts: Option<String>,
    pub(super) message_ts: Option<String>,
    pub(super) retry_at: Option<Moment>,
    pub(super) error: Option<String>,
    pub(super) warnings: Vec<String>,
}

impl Receipt {
    pub(super) fn json(&self) -> Value {
        json!({
            "checkpoint_id": self.checkpoint_id,
            "task_id": self.task_id,
            "agent_id": self.agent_id,
            "status": self.snapshot.status.name(),
            "progress": self.snapshot.progress,
            "context_percent": self.snapshot.context_percent(),
            "delivery": self.delivery.name(),
            "channel": self.channel,
            "thread_ts": self.thread_ts,
            "message_ts": self.message_ts,
            "retry_at": self.retry_at.map(Moment::rfc3339),
            "error": self.error,
            // No audit database is supported yet, so none is ever on.
            "audit": "off",
            "warnings": self.warnings,
        })
    }
}
