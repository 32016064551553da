//! The settings that were given as flags.

use std::time::Duration;

use super::exactly;
use super::keys::{AGENT_ID, CACHE, CHANNEL, DEADLINE, Key};
use crate::args::{BackgroundChoice, DeliveryArgs, GlobalArgs, IdentityArgs};
use crate::checkpoint::parse::Thread;
use crate::child::Pattern;

/// Flags that settings may be given by, already read; `None` where a flag was not used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    pub(crate) agent_id: Option<String>,
    pub(crate) task_name: Option<String>,
    pub(crate) task_type: Option<String>,
    pub(crate) repo: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) thread: Option<Thread>,
    pub(crate) min_interval: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) background: Option<BackgroundChoice>,
    pub(crate) strict: bool,
    pub(crate) no_post: bool,
    pub(crate) context_limit: Option<u64>,
    pub(crate) context_warn: Option<u8>,
    pub(crate) context_alert: Option<u8>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_after: Option<Duration>,
    pub(crate) tail: Option<u64>,
    pub(crate) pattern: Option<Pattern>,
    #[cfg(feature = "serve")]
    pub(crate) listen: Option<String>,
}

impl Flags {
    /// The flags that `emit`, `run` and `stream` share.
    pub(crate) fn of(identity: IdentityArgs, delivery: DeliveryArgs) -> Self {
        Self {
            agent_id: identity.agent_id,
            task_name: identity.task_name,
            task_type: identity.task_type,
            repo: identity.repo,
            channel: identity.channel,
            thread: identity.thread,
            min_interval: delivery.min_interval,
            deadline: delivery.deadline,
            background: delivery.background,
            strict: delivery.strict,
            no_post: delivery.no_post,
            context_warn: delivery.context_warn,
            context_alert: delivery.context_alert,
            ..Self::default()
        }
    }

    /// The settings that were given as flags, as far as a report shows them.
    pub(super) fn given(&self) -> Vec<(Key, String)> {
        let given = [
            (AGENT_ID, self.agent_id.clone()),
            (CHANNEL, self.channel.clone()),
            (DEADLINE, self.deadline.map(exactly)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

pub(super) fn global_flags(global: &GlobalArgs) -> Option<(Key, String)> {
    global.cache.as_ref().map(|path| (CACHE, path.display().to_string()))
}
