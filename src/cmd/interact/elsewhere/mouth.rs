//! Telling people what came of what they did on another machine, once it was taken here.

use std::time::{Duration, Instant};

use super::Taken;
use crate::config::{Config, Target};
use crate::delivery::Destination;
use crate::delivery::bot::Bot;
use crate::delivery::http::{Http, Network};
use crate::secret::Secret;
use crate::store::Store;

/// The longest that telling people something takes, however many they are.
const TELL: Duration = Duration::from_secs(10);

/// How people are told something that nobody else hears.
#[derive(Debug)]
pub(super) struct Mouth {
    token: Secret,
    api_url: String,
    network: Network,
}

impl Mouth {
    /// `None` without a bot token.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let Target::Slack(Destination::Bot { token, api_url }) = &config.target else { return None };
        Some(Self { token: token.clone(), api_url: api_url.clone(), network: config.network.clone() })
    }

    /// Tells each as well as that goes in the time that there is: nothing depends on it.
    pub(super) fn tell(&self, store: &mut Store, taken: &[Taken], by: Option<Instant>) {
        let longest = Instant::now() + TELL;
        let deadline = by.map_or(longest, |by| by.min(longest));
        let mut http = None;
        for Taken { task, user_id, words } in taken {
            if Instant::now() >= deadline {
                return;
            }
            let (Some(user), Some(words)) = (user_id, words) else { continue };
            let Ok(task) = store.read(|tx| tx.task(*task)) else { continue };
            let (Some(channel), thread_ts) = (task.channel_id, task.thread_ts) else { continue };
            let http = http.get_or_insert_with(|| Http::new(self.network.clone()));
            let mut bot = Bot { http, token: &self.token, api_url: &self.api_url, deadline };
            bot.whisper(&channel, thread_ts.as_deref(), user, words);
        }
    }
}
