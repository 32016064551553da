//! Flags, environment and config file become one [`Config`] by value.
//!
//! Precedence, decided in one function ([`sources::Sources::find`]): flag, then environment, then `--env-file`, then config
//! file, then default. Nothing below `cmd` reads the environment.

#[cfg(feature = "postgres")]
pub(crate) mod database;
mod file;
mod handover;
pub(crate) mod identity;
mod keys;
mod launch;
mod sources;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use directories::ProjectDirs;

use crate::args::{BackgroundChoice, ColorChoice, DeliveryArgs, GlobalArgs, IdentityArgs, progress_pattern};
use crate::checkpoint::context::{self, Thresholds};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse::{self, Invalid, Thread};
use crate::checkpoint::question;
use crate::checkpoint::time::spoken;
use crate::child::Pattern;
use crate::delivery::Destination;
use crate::delivery::http::Network;
use crate::exit::{Exit, Failure, one_line};
use crate::interaction::open::Access;
use crate::secret::Secret;
use crate::trust::Authorities;
pub(crate) use handover::Handover;
use keys::{
    AGENT_ID, APPROVERS, BACKGROUND, CACHE, CHANNEL, COLOR, CONTEXT_ALERT, CONTEXT_LIMIT, CONTEXT_WARN,
    DEADLINE, HEARTBEAT, JSON, KILL_AFTER, Key, MIN_INTERVAL, NO_POST, POLL_INTERVAL, PROGRESS_REGEX, QUIET,
    REPO, SLACK_API_URL, STRICT, TAIL, TASK_NAME, TASK_TYPE, THREAD, TIMEOUT, VERBOSE,
};
pub(crate) use keys::{KEYS, Origin, VARIABLES};
use sources::{Sources, Unusable};

/// The channel of whoever names none.
pub(crate) const DEFAULT_CHANNEL: &str = "#agent-supervisory";
/// Slack's Web API.
const DEFAULT_API_URL: &str = "https://slack.com/api/";
const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// Apps with the strictest limits may read a thread once a minute; the others' limits leave room for several questions.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Where `serve` listens unless it is told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:3001";
const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(10);
/// In lines.
const DEFAULT_TAIL: usize = 20;

/// Where a proxy may be named, in the order in which Slack's own SDK for Python looks for one.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

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
    fn given(&self) -> Vec<(Key, String)> {
        let given = [
            (AGENT_ID, self.agent_id.clone()),
            (CHANNEL, self.channel.clone()),
            (DEADLINE, self.deadline.map(exactly)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// A length of time as a setting has it, also when it is shorter than people speak of.
fn exactly(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => spoken(duration),
        _ => format!("{}ms", duration.as_millis()),
    }
}

fn global_flags(global: &GlobalArgs) -> Option<(Key, String)> {
    global.cache.as_ref().map(|path| (CACHE, path.display().to_string()))
}

/// The environment, by value: a lookup that tests can replace.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Resolves everything.
///
/// # Errors
/// A file that a flag names and that cannot be read (64).
pub(crate) fn resolve(global: &GlobalArgs, flags: Flags, env: Environment<'_>) -> Result<Config, Failure> {
    let mut sources = Sources::new(env);
    let dirs = ProjectDirs::from("", "", "agent-checkpoint");
    let (env_file, config_file) = sources.read_files(global, dirs.as_ref())?;

    for (key, value) in flags.given().into_iter().chain(global_flags(global)) {
        sources.note(key, &value, Origin::Flag);
    }
    let mut secrets = Vec::new();
    let target = sources.target(&mut secrets);
    let (signing_secret, app_token) = sources.inbound(&mut secrets);
    let authorities = Authorities {
        file: sources.plain_env("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(absolute),
        dirs: sources.plain_env("SSL_CERT_DIR").filter(|path| !path.is_empty()).map(absolute_each),
    };
    #[cfg(feature = "serve")]
    let serve_token = sources.serve_token(&mut secrets);
    #[cfg(not(feature = "serve"))]
    secrets.extend(sources.unused_secret(keys::SERVE_TOKEN));
    #[cfg(feature = "postgres")]
    let audit = sources.audit(&authorities, &mut secrets);
    #[cfg(not(feature = "postgres"))]
    for key in [keys::DATABASE_URL, keys::NEON_DATABASE_URL] {
        if let Some(secret) = sources.unused_secret(key) {
            secrets.extend(password_of(secret.reveal()).map(Secret::new));
            secrets.push(secret);
        }
    }
    // A flag speaks of this task; the environment and the file speak of all that say nothing else.
    let (mut channel, mut default_channel, target) = match &flags.channel {
        Some(channel) => (Some(channel.clone()), Some(channel.clone()), target),
        None => match sources.destination(CHANNEL, parse::channel) {
            Ok(channel) => (None, Some(channel.unwrap_or_else(|| DEFAULT_CHANNEL.to_owned())), target),
            Err(Unusable) => (None, None, target.broken()),
        },
    };
    let (thread, target) = match (flags.thread, &flags.channel) {
        (Some(thread), _) => (Some(thread), target),
        (None, Some(_)) => (None, target),
        (None, None) => match sources.destination(THREAD, parse::thread) {
            Ok(thread) => (thread, target),
            // Posting into the channel instead would be another place than was asked for.
            Err(Unusable) => {
                (channel, default_channel) = (None, None);
                (None, target.broken())
            }
        },
    };
    let secret_text = |key: &str| sources.plain_env(key).filter(|value| !value.is_empty()).map(Secret::new);
    let proxy = PROXIES.into_iter().find_map(secret_text);
    let network = Network {
        proxy,
        no_proxy: sources.plain_env("NO_PROXY").or_else(|| sources.plain_env("no_proxy")),
        authorities,
    };
    secrets.extend(network.proxy.as_ref().and_then(|proxy| password_of(proxy.reveal())).map(Secret::new));

    let no_color = sources.plain_env("NO_COLOR").is_some_and(|value| !value.is_empty())
        || sources.plain_env("TERM").as_deref() == Some("dumb");
    let default_color = if no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let default_cache = || {
        let dirs = dirs.as_ref()?;
        let path = dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).join("cache.db");
        Some(path).filter(|path| path.is_absolute())
    };
    let cache = match &global.cache {
        Some(path) => Some(path.clone()),
        None => sources.tuning(CACHE, |text| Ok(PathBuf::from(text))).or_else(default_cache),
    };
    if let (None, Some(home)) =
        (&cache, env("HOME").filter(|home| !home.is_empty() && Path::new(home).is_relative()))
    {
        sources.problems.push(Problem {
            message: format!("HOME: '{}' is not an absolute path", one_line(&home.to_string_lossy())),
            hint: "make it one, or name a file with --cache".to_owned(),
            harmless: true,
        });
    }
    sources.tell_of_unreadable_files(matches!(target, Target::Broken));
    let thresholds = thresholds((flags.context_warn, flags.context_alert), &mut sources)?;
    let config = Config {
        json: global.json || sources.tuning(JSON, parse::switch).unwrap_or(false),
        quiet: global.quiet || sources.tuning(QUIET, parse::switch).unwrap_or(false),
        verbose: match global.verbose {
            0 => sources.tuning(VERBOSE, verbosity).unwrap_or(0),
            count => count,
        },
        color: global.color.or_else(|| sources.tuning(COLOR, choice)).unwrap_or(default_color),
        cache: cache.map(|path| std::path::absolute(&path).unwrap_or(path)),
        agent_id: flags.agent_id.or_else(|| sources.tuning(AGENT_ID, parse::agent_id)),
        task_name: flags
            .task_name
            .or_else(|| sources.tuning(TASK_NAME, parse::name))
            .filter(|text| !text.is_empty()),
        task_type: flags
            .task_type
            .or_else(|| sources.tuning(TASK_TYPE, parse::name))
            .filter(|text| !text.is_empty()),
        repo: flags.repo.or_else(|| sources.tuning(REPO, parse::name)).filter(|text| !text.is_empty()),
        channel,
        default_channel,
        thread,
        handover: Handover::find(env, &mut sources),
        min_interval: flags
            .min_interval
            .or_else(|| sources.tuning(MIN_INTERVAL, parse::duration))
            .unwrap_or(DEFAULT_MIN_INTERVAL),
        deadline: flags
            .deadline
            .or_else(|| sources.tuning(DEADLINE, parse::duration))
            .unwrap_or(DEFAULT_DEADLINE),
        background: flags
            .background
            .or_else(|| sources.tuning(BACKGROUND, choice))
            .unwrap_or(BackgroundChoice::Auto),
        strict: flags.strict || sources.tuning(STRICT, parse::switch).unwrap_or(false),
        no_post: flags.no_post || sources.tuning(NO_POST, parse::switch).unwrap_or(false),
        // A list that cannot be read is not one that lets everybody in: nobody is asked, and nobody may cancel.
        approvers: sources
            .destination_or(APPROVERS, question::user_ids, "nobody can be asked until it is mended", false)
            .ok()
            .map(Option::unwrap_or_default),
        launch: launch::Launch::find(&mut sources),
        poll_interval: sources
            .tuning(POLL_INTERVAL, parse::duration)
            .unwrap_or(DEFAULT_POLL_INTERVAL)
            .max(Duration::from_millis(20)),
        supervision: Supervision {
            heartbeat: Some(
                flags
                    .heartbeat
                    .or_else(|| sources.tuning(HEARTBEAT, parse::duration))
                    .unwrap_or(DEFAULT_HEARTBEAT),
            )
            .filter(|every| !every.is_zero()),
            timeout: flags.timeout.or_else(|| sources.tuning(TIMEOUT, parse::duration)),
            kill_after: flags
                .kill_after
                .or_else(|| sources.tuning(KILL_AFTER, parse::duration))
                .unwrap_or(DEFAULT_KILL_AFTER),
            tail: flags
                .tail
                .or_else(|| sources.tuning(TAIL, parse::count))
                .map_or(DEFAULT_TAIL, |lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            pattern: flags.pattern.or_else(|| sources.tuning(PROGRESS_REGEX, progress_pattern)),
        },
        context_limit: flags.context_limit.or_else(|| sources.tuning(CONTEXT_LIMIT, parse::context_limit)),
        thresholds,
        target,
        signing_secret,
        app_token,
        #[cfg(feature = "postgres")]
        audit,
        #[cfg(feature = "serve")]
        serve: Serve {
            listen: flags
                .listen
                .or_else(|| sources.tuning(keys::LISTEN, parse::listen))
                .unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            token: serve_token,
        },
        network,
        secrets,
        problems: sources.problems,
        origins: sources.origins,
        config_file,
        env_file,
    };
    Ok(config.masked())
}

/// Masks the secrets in the environment, for what is said before there is a [`Config`].
pub(crate) fn masker_of(env: Environment<'_>) -> Masker {
    let value = |name: &str| env(name)?.into_string().ok().map(|value| value.trim().to_owned());
    let secrets = KEYS.iter().filter(|key| key.secret).filter_map(|key| value(key.env));
    let passwords = [keys::DATABASE_URL.env, keys::NEON_DATABASE_URL.env].into_iter().chain(PROXIES);
    let passwords = passwords.filter_map(|name| password_of(&value(name)?));
    let all: Vec<String> = secrets.chain(passwords).filter(|text| !text.starts_with("file:")).collect();
    Masker::new(all.iter().map(String::as_str))
}

/// The thresholds, of which the warning never lies above the alert: then it could not be seen. A default gives way.
fn thresholds(
    (warn, alert): (Option<u8>, Option<u8>),
    sources: &mut Sources<'_>,
) -> Result<Thresholds, Failure> {
    let hint = "warn at a lower percentage than you alert at, such as 70 and 85";
    if let (Some(warn), Some(alert)) = (warn, alert)
        && warn > alert
    {
        let message = format!("--context-warn: '{warn}' lies above --context-alert, {alert}");
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    let within = |text: &str, least: Option<u8>, most: Option<u8>| {
        let value = parse::threshold(text)?;
        match (least.filter(|least| value < *least), most.filter(|most| value > *most)) {
            (Some(warn), _) => Err(Invalid::new(format!("lies below the warning at {warn}"), hint)),
            (_, Some(alert)) => Err(Invalid::new(format!("lies above the alert at {alert}"), hint)),
            _ => Ok(value),
        }
    };
    let warn = warn.or_else(|| sources.tuning(CONTEXT_WARN, |text| within(text, None, alert)));
    let alert = alert.or_else(|| sources.tuning(CONTEXT_ALERT, |text| within(text, warn, None)));
    let defaults = Thresholds::default();
    Ok(Thresholds {
        warn: warn.unwrap_or(defaults.warn.min(alert.unwrap_or(defaults.warn))),
        alert: alert.unwrap_or(defaults.alert.max(warn.unwrap_or(defaults.alert))),
    })
}

fn absolute(path: String) -> PathBuf {
    let path = PathBuf::from(path);
    std::path::absolute(&path).unwrap_or(path)
}

/// The same for a list of directories, as in `PATH`.
fn absolute_each(paths: String) -> OsString {
    let paths: Vec<PathBuf> =
        std::env::split_paths(&paths).map(|path| std::path::absolute(&path).unwrap_or(path)).collect();
    std::env::join_paths(paths).expect("they were separated by what separates them")
}

fn choice<T: clap::ValueEnum>(text: &str) -> Result<T, Invalid> {
    T::from_str(text.trim(), true).map_err(|_| {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        Invalid::new("is not a valid value", format!("use one of {}", names.join(", ")))
    })
}

fn verbosity(text: &str) -> Result<u8, Invalid> {
    match parse::switch(text) {
        Ok(on) => Ok(u8::from(on)),
        Err(_) => text.trim().parse().map_err(|_| Invalid::new("is not a level of detail", "use 0, 1 or 2")),
    }
}

/// The password in a URL, if it has one.
fn password_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    (!password.is_empty()).then(|| password.to_owned())
}

#[cfg(test)]
mod tests;
