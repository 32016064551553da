//! Flags, environment and config file become one [`Config`] by value.
//!
//! Precedence, decided in one function ([`sources::Sources::find`]): flag, then environment, then `--env-file`, then config
//! file, then default. Nothing below `cmd` reads the environment.

mod credentials;
#[cfg(feature = "postgres")]
pub(crate) mod database;
mod file;
mod flags;
mod handover;
pub(crate) mod identity;
mod keys;
mod launch;
mod resolve;
mod sources;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::args::{BackgroundChoice, ColorChoice};
use crate::checkpoint::context::{self, Thresholds};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse::Thread;
use crate::checkpoint::time::spoken;
use crate::child::Pattern;
use crate::delivery::Destination;
use crate::delivery::http::Network;
use crate::exit::{Exit, Failure};
use crate::interaction::open::Access;
use crate::secret::Secret;
pub(crate) use flags::Flags;
pub(crate) use handover::Handover;
use keys::{
    BACKGROUND, CACHE, CHANNEL, CONTEXT_ALERT, CONTEXT_LIMIT, CONTEXT_WARN, DEADLINE, HEARTBEAT, KILL_AFTER,
    MIN_INTERVAL, NO_POST, POLL_INTERVAL, SLACK_API_URL, STRICT, TAIL,
};
pub(crate) use keys::{KEYS, Origin, VARIABLES};
pub(crate) use resolve::{masker_of, resolve};

/// The channel of whoever names none.
pub(crate) const DEFAULT_CHANNEL: &str = "#agent-supervisory";
/// Slack's Web API.
const DEFAULT_API_URL: &str = "https://slack.com/api/";
/// Where `serve` listens unless it is told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:3001";

/// A setting that is wrong, in the environment or in a file; a wrong flag never gets this far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// One line with the value quoted, unless it is a secret.
    pub(crate) message: String,
    pub(crate) hint: String,
    /// Worth a warning, but nothing is wrong with it.
    pub(crate) harmless: bool,
}

/// Where messages go.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Nowhere is configured: print.
    Nowhere,
    Slack(Destination),
    /// Something is configured but cannot be used: messages wait until it is mended.
    Broken,
}

impl Target {
    /// The same, when one of its parts cannot be used.
    fn broken(self) -> Self {
        match self {
            Self::Slack(_) | Self::Broken => Self::Broken,
            Self::Nowhere => Self::Nowhere,
        }
    }
}

/// Everything that was configured, resolved.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    pub(crate) color: ColorChoice,
    /// `None` when there is no home directory to keep it in.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) agent_id: Option<String>,
    pub(crate) task_name: Option<String>,
    pub(crate) task_type: Option<String>,
    pub(crate) repo: Option<String>,
    /// The channel that this call names.
    pub(crate) channel: Option<String>,
    /// The channel of a task that names none; `None` when the setting cannot be read.
    pub(crate) default_channel: Option<String>,
    pub(crate) thread: Option<Thread>,
    pub(crate) handover: Handover,
    pub(crate) min_interval: Duration,
    pub(crate) deadline: Duration,
    pub(crate) background: BackgroundChoice,
    pub(crate) strict: bool,
    pub(crate) no_post: bool,
    pub(crate) context_limit: Option<u64>,
    /// Who may answer questions and cancel tasks, empty for anybody; `None` when the setting cannot be read.
    pub(crate) approvers: Option<Vec<String>>,
    pub(crate) launch: launch::Launch,
    pub(crate) poll_interval: Duration,
    pub(crate) supervision: Supervision,
    pub(crate) thresholds: Thresholds,
    pub(crate) target: Target,
    #[cfg(feature = "postgres")]
    pub(crate) audit: database::Audit,
    /// By which requests of Slack's are known.
    pub(crate) signing_secret: Option<Secret>,
    /// For Socket Mode.
    pub(crate) app_token: Option<Secret>,
    #[cfg(feature = "serve")]
    pub(crate) serve: Serve,
    pub(crate) network: Network,
    /// Every secret that was read, to be masked wherever it turns up.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) problems: Vec<Problem>,
    /// The settings that somebody made: name, value (secrets are not shown) and where it came from.
    origins: Vec<(&'static str, String, Origin)>,
    /// The files that were read, so that a courier reads the same.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) env_file: Option<PathBuf>,
}

/// Where `serve` listens, and what it asks of readers.
#[cfg(feature = "serve")]
#[derive(Debug)]
pub(crate) struct Serve {
    /// `HOST:PORT`.
    pub(crate) listen: String,
    /// `None` without one; a problem that nobody else has to hear of as an error.
    pub(crate) token: Result<Option<Secret>, Problem>,
}

/// How `run` looks after its command.
#[derive(Debug, Clone)]
pub(crate) struct Supervision {
    /// How often the card is refreshed; `None` for never.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_after: Duration,
    /// How many of the last lines are shown.
    pub(crate) tail: usize,
    pub(crate) pattern: Option<Pattern>,
}

impl Config {
    /// Whether a database of the audit trail is configured, be it one that works.
    pub(crate) fn has_audit(&self) -> bool {
        #[cfg(feature = "postgres")]
        return !matches!(self.audit, database::Audit::Off);
        #[cfg(not(feature = "postgres"))]
        false
    }

    /// Whether one is configured that cannot be used: rows wait until that is mended.
    pub(crate) fn has_broken_audit(&self) -> bool {
        #[cfg(feature = "postgres")]
        return matches!(self.audit, database::Audit::Broken);
        #[cfg(not(feature = "postgres"))]
        false
    }

    /// Masks the configured secrets and whatever else looks like one.
    pub(crate) fn masker(&self) -> Masker {
        Masker::new(self.secrets.iter().map(Secret::reveal))
    }

    /// The same, without secrets in what may be shown: somebody may have put one into the wrong setting.
    fn masked(mut self) -> Self {
        let masker = self.masker();
        for problem in &mut self.problems {
            problem.message = masker.mask(&problem.message);
        }
        for (_, shown, _) in &mut self.origins {
            *shown = masker.mask(shown);
        }
        self
    }

    /// The way to Socket Mode, where there is an app-level token. Without a bot token there are no buttons to click.
    pub(crate) fn socket_access(&self) -> Option<Access> {
        let Target::Slack(Destination::Bot { api_url, .. }) = &self.target else { return None };
        let token = self.app_token.clone()?;
        Some(Access { token, api_url: api_url.clone(), network: self.network.clone() })
    }

    /// Whether anything is wrong that a strict caller must not pass over.
    pub(crate) fn is_wrong(&self) -> bool {
        self.problems.iter().any(|problem| !problem.harmless)
    }

    /// Every setting in force: name, value (secrets are not shown) and where it came from, for `doctor`.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String, Origin)> {
        let defaults = [
            (CACHE, self.cache.as_ref().map(|path| path.display().to_string())),
            (CHANNEL, self.default_channel.clone()),
            (MIN_INTERVAL, Some(exactly(self.min_interval))),
            (DEADLINE, Some(exactly(self.deadline))),
            (BACKGROUND, self.background.to_possible_value().map(|value| value.get_name().to_owned())),
            (STRICT, Some(self.strict.to_string())),
            (NO_POST, Some(self.no_post.to_string())),
            (CONTEXT_LIMIT, Some(self.context_limit.unwrap_or(context::DEFAULT_LIMIT).to_string())),
            (CONTEXT_WARN, Some(self.thresholds.warn.to_string())),
            (CONTEXT_ALERT, Some(self.thresholds.alert.to_string())),
            (HEARTBEAT, Some(spoken(self.supervision.heartbeat.unwrap_or_default()))),
            (POLL_INTERVAL, Some(exactly(self.poll_interval))),
            (KILL_AFTER, Some(spoken(self.supervision.kill_after))),
            (TAIL, Some(self.supervision.tail.to_string())),
            (keys::LISTEN, Some(DEFAULT_LISTEN.to_owned())),
            (SLACK_API_URL, Some(DEFAULT_API_URL.to_owned())),
        ];
        KEYS.iter()
            .filter_map(|key| {
                let made = self.origins.iter().find(|(name, ..)| *name == key.file).cloned();
                let default = || {
                    let (_, value) = defaults.iter().find(|(default, _)| default == key)?;
                    Some((key.file, value.clone()?, Origin::Default))
                };
                made.or_else(default)
            })
            .collect()
    }

    /// Refuses to go on with wrong settings, for commands that a person waits for.
    ///
    /// # Errors
    /// The first problem, with the exit code 78.
    pub(crate) fn insist(&self) -> Result<(), Failure> {
        match self.problems.iter().find(|problem| !problem.harmless) {
            Some(problem) => {
                Err(Failure::new(Exit::Config, problem.message.clone()).hint(problem.hint.clone()))
            }
            None => Ok(()),
        }
    }
}

/// A length of time as a setting has it, also when it is shorter than people speak of.
fn exactly(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => spoken(duration),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// The environment, by value: a lookup that tests can replace.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

#[cfg(test)]
mod tests;
