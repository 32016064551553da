//! Flags, environment and config file become one [`Config`] by value.
//!
//! Precedence, decided in one function ([`Sources::find`]): flag, then environment, then `--env-file`, then config
//! file, then default. Nothing below `cmd` reads the environment.

mod file;
pub(crate) mod identity;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use directories::ProjectDirs;

use crate::args::{BackgroundChoice, ColorChoice, GlobalArgs};
use crate::checkpoint::context::{self, Thresholds};
use crate::checkpoint::parse::{self, Invalid, Thread};
use crate::checkpoint::time::spoken;
use crate::delivery::Destination;
use crate::delivery::http::Network;
use crate::exit::{Exit, Failure, cause};
use crate::secret::Secret;
use file::Layer;

/// The channel of whoever names none.
pub(crate) const DEFAULT_CHANNEL: &str = "#agent-supervisory";
/// Slack's Web API.
const DEFAULT_API_URL: &str = "https://slack.com/api/";
const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A setting: how each source spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// In the environment and in `--env-file`.
    pub(crate) env: &'static str,
    /// In the config file.
    pub(crate) file: &'static str,
    /// Its value is never shown.
    pub(crate) secret: bool,
}

/// Declares the settings once, for lookup, for `doctor` and for finding misspelt ones in a config file.
macro_rules! keys {
    ($($name:ident = $env:literal, $file:literal $(, $secret:ident)?;)*) => {
        $(const $name: Key = Key { env: $env, file: $file, secret: keys!(@secret $($secret)?) };)*
        /// Every setting.
        pub(crate) const KEYS: &[Key] = &[$($name),*];
    };
    (@secret) => { false };
    (@secret secret) => { true };
}

keys! {
    AGENT_ID = "AGENT_CHECKPOINT_AGENT_ID", "agent_id";
    TASK_NAME = "AGENT_CHECKPOINT_TASK_NAME", "task_name";
    TASK_TYPE = "AGENT_CHECKPOINT_TASK_TYPE", "task_type";
    REPO = "AGENT_CHECKPOINT_REPO", "repo";
    CHANNEL = "SLACK_CHANNEL", "channel";
    THREAD = "AGENT_CHECKPOINT_THREAD", "thread";
    MIN_INTERVAL = "AGENT_CHECKPOINT_MIN_INTERVAL", "min_interval";
    DEADLINE = "AGENT_CHECKPOINT_DEADLINE", "deadline";
    BACKGROUND = "AGENT_CHECKPOINT_BACKGROUND", "background";
    STRICT = "AGENT_CHECKPOINT_STRICT", "strict";
    NO_POST = "AGENT_CHECKPOINT_NO_POST", "no_post";
    CONTEXT_LIMIT = "AGENT_CHECKPOINT_CONTEXT_LIMIT", "context_limit";
    CONTEXT_WARN = "AGENT_CHECKPOINT_CONTEXT_WARN", "context_warn";
    CONTEXT_ALERT = "AGENT_CHECKPOINT_CONTEXT_ALERT", "context_alert";
    JSON = "AGENT_CHECKPOINT_JSON", "json";
    QUIET = "AGENT_CHECKPOINT_QUIET", "quiet";
    VERBOSE = "AGENT_CHECKPOINT_VERBOSE", "verbose";
    COLOR = "AGENT_CHECKPOINT_COLOR", "color";
    CACHE = "AGENT_CHECKPOINT_CACHE", "cache";
    SLACK_BOT_TOKEN = "SLACK_BOT_TOKEN", "slack_bot_token", secret;
    SLACK_WEBHOOK_URL = "SLACK_WEBHOOK_URL", "slack_webhook_url", secret;
    SLACK_API_URL = "SLACK_API_URL", "slack_api_url";
    SLACK_SIGNING_SECRET = "SLACK_SIGNING_SECRET", "slack_signing_secret", secret;
    SLACK_APP_TOKEN = "SLACK_APP_TOKEN", "slack_app_token", secret;
    DATABASE_URL = "DATABASE_URL", "database_url", secret;
    NEON_DATABASE_URL = "NEON_DATABASE_URL", "neon_database_url", secret;
}

/// Settings that are read from the environment only, since they say where to look.
const CONFIG_ENV: &str = "AGENT_CHECKPOINT_CONFIG";
const ENV_FILE_ENV: &str = "AGENT_CHECKPOINT_ENV_FILE";

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment,
    EnvFile(PathBuf),
    ConfigFile(PathBuf),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::EnvFile(path) | Self::ConfigFile(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

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
    /// The channel that somebody named.
    pub(crate) channel: Option<String>,
    /// The channel of a task that names none; `None` when the setting cannot be read.
    pub(crate) default_channel: Option<String>,
    pub(crate) thread: Option<Thread>,
    pub(crate) min_interval: Duration,
    pub(crate) deadline: Duration,
    pub(crate) background: BackgroundChoice,
    pub(crate) strict: bool,
    pub(crate) no_post: bool,
    pub(crate) context_limit: Option<u64>,
    pub(crate) thresholds: Thresholds,
    pub(crate) target: Target,
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

impl Config {
    /// Whether anything is wrong that a strict caller must not pass over.
    pub(crate) fn is_wrong(&self) -> bool {
        self.problems.iter().any(|problem| !problem.harmless)
    }

    /// Every setting in force: name, value (secrets are not shown) and where it came from, for `doctor`.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String, Origin)> {
        let defaults = [
            (CACHE, self.cache.as_ref().map(|path| path.display().to_string())),
            (CHANNEL, self.default_channel.clone()),
            (MIN_INTERVAL, Some(spoken(self.min_interval))),
            (DEADLINE, Some(spoken(self.deadline))),
            (BACKGROUND, self.background.to_possible_value().map(|value| value.get_name().to_owned())),
            (STRICT, Some(self.strict.to_string())),
            (NO_POST, Some(self.no_post.to_string())),
            (CONTEXT_LIMIT, Some(self.context_limit.unwrap_or(context::DEFAULT_LIMIT).to_string())),
            (CONTEXT_WARN, Some(self.thresholds.warn.to_string())),
            (CONTEXT_ALERT, Some(self.thresholds.alert.to_string())),
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
}

impl Flags {
    /// The settings that were given as flags, as far as a report shows them.
    fn given(&self) -> Vec<(Key, String)> {
        let given = [
            (AGENT_ID, self.agent_id.clone()),
            (CHANNEL, self.channel.clone()),
            (DEADLINE, self.deadline.map(spoken)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
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
    let mut sources =
        Sources { env, layers: Vec::new(), unreadable: None, problems: Vec::new(), origins: Vec::new() };
    let dirs = ProjectDirs::from("", "", "agent-checkpoint");
    let (env_file, config_file) = sources.read_files(global, dirs.as_ref())?;

    for (key, value) in flags.given().into_iter().chain(global_flags(global)) {
        sources.note(key, &value, Origin::Flag);
    }
    let mut secrets = Vec::new();
    let target = sources.target(&mut secrets);
    for key in [SLACK_SIGNING_SECRET, SLACK_APP_TOKEN, DATABASE_URL, NEON_DATABASE_URL] {
        // Not used yet by any command, but never to be shown either.
        if let Some(secret) = sources.secret(key).unwrap_or_default() {
            secrets.push(secret);
        }
    }
    let (mut channel, mut default_channel) = match flags.channel {
        Some(channel) => (Some(channel.clone()), Some(channel)),
        None => match sources.destination(CHANNEL, parse::channel) {
            Ok(Some(channel)) => (Some(channel.clone()), Some(channel)),
            Ok(None) => (None, Some(DEFAULT_CHANNEL.to_owned())),
            Err(Unusable) => (None, None),
        },
    };
    let (thread, target) = match flags.thread {
        Some(thread) => (Some(thread), target),
        None => match sources.destination(THREAD, parse::thread) {
            Ok(thread) => (thread, target),
            // Posting into the channel instead would be another place than was asked for.
            Err(Unusable) => {
                (channel, default_channel) = (None, None);
                (None, if matches!(target, Target::Slack(_)) { Target::Broken } else { target })
            }
        },
    };
    let secret_text = |key: &str| sources.plain_env(key).filter(|value| !value.is_empty()).map(Secret::new);
    // The order in which Slack's own SDK for Python looks for a proxy.
    let proxy = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .find_map(secret_text);
    let network = Network {
        proxy,
        no_proxy: sources.plain_env("NO_PROXY").or_else(|| sources.plain_env("no_proxy")),
        cert_file: sources.plain_env("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(absolute),
        cert_dir: sources.plain_env("SSL_CERT_DIR").filter(|path| !path.is_empty()).map(PathBuf::from),
    };
    secrets.extend(network.proxy.as_ref().and_then(|proxy| password_of(proxy.reveal())).map(Secret::new));

    let no_color = sources.plain_env("NO_COLOR").is_some_and(|value| !value.is_empty())
        || sources.plain_env("TERM").as_deref() == Some("dumb");
    let default_color = if no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let default_cache = || {
        let dirs = dirs.as_ref()?;
        Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).join("cache.db"))
    };
    let cache = match &global.cache {
        Some(path) => Some(path.clone()),
        None => sources.tuning(CACHE, |text| Ok(PathBuf::from(text))).or_else(default_cache),
    };
    let defaults = Thresholds::default();
    Ok(Config {
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
            .or_else(|| sources.tuning(TASK_NAME, parse::line))
            .filter(|text| !text.is_empty()),
        task_type: flags
            .task_type
            .or_else(|| sources.tuning(TASK_TYPE, parse::line))
            .filter(|text| !text.is_empty()),
        repo: flags.repo.or_else(|| sources.tuning(REPO, parse::line)).filter(|text| !text.is_empty()),
        channel,
        default_channel,
        thread,
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
        context_limit: flags.context_limit.or_else(|| sources.tuning(CONTEXT_LIMIT, parse::context_limit)),
        thresholds: Thresholds {
            warn: flags
                .context_warn
                .or_else(|| sources.tuning(CONTEXT_WARN, parse::threshold))
                .unwrap_or(defaults.warn),
            alert: flags
                .context_alert
                .or_else(|| sources.tuning(CONTEXT_ALERT, parse::threshold))
                .unwrap_or(defaults.alert),
        },
        target,
        network,
        secrets,
        problems: sources.problems,
        origins: sources.origins,
        config_file,
        env_file,
    })
}

fn absolute(path: String) -> PathBuf {
    let path = PathBuf::from(path);
    std::path::absolute(&path).unwrap_or(path)
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

/// A value is there, but not fit for use; the problem is already noted.
#[derive(Debug)]
struct Unusable;

/// The places where settings are looked up, and what was found wrong on the way.
struct Sources<'a> {
    env: Environment<'a>,
    /// Env-file and config file, in that order, as far as they could be read.
    layers: Vec<Layer>,
    /// The file that could not be read: any setting not found before it may have stood in there.
    unreadable: Option<PathBuf>,
    problems: Vec<Problem>,
    origins: Vec<(&'static str, String, Origin)>,
}

impl Sources<'_> {
    /// Reads env-file and config file.
    fn read_files(
        &mut self,
        global: &GlobalArgs,
        dirs: Option<&ProjectDirs>,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), Failure> {
        let named = |flag: &Option<PathBuf>, variable: &str| match flag {
            Some(path) => Some((path.clone(), true)),
            None => {
                (self.env)(variable).filter(|path| !path.is_empty()).map(|path| (PathBuf::from(path), false))
            }
        };
        let env_file = named(&global.env_file, ENV_FILE_ENV);
        let config_file = named(&global.config, CONFIG_ENV);
        let default = || dirs.map(|dirs| dirs.config_dir().join("config.toml"));

        let env_path = match env_file {
            Some((path, by_flag)) => self.layer(path, by_flag, file::read_env_file)?,
            None => None,
        };
        let config_path = match config_file {
            Some((path, by_flag)) => self.layer(path, by_flag, file::read_config_file)?,
            None => match default() {
                Some(path) if path.exists() => self.layer(path, false, file::read_config_file)?,
                _ => None,
            },
        };
        Ok((env_path, config_path))
    }

    fn layer(
        &mut self,
        path: PathBuf,
        by_flag: bool,
        read: fn(&Path) -> Result<Layer, file::Unreadable>,
    ) -> Result<Option<PathBuf>, Failure> {
        let path = std::path::absolute(&path).unwrap_or(path);
        match read(&path) {
            Ok(layer) => {
                self.problems.extend(layer.warnings());
                self.layers.push(layer);
            }
            Err(file::Unreadable { message, hint }) if by_flag => {
                return Err(Failure::new(Exit::Usage, message).hint(hint));
            }
            Err(file::Unreadable { message, hint }) => {
                self.problems.push(Problem { message, hint, harmless: false });
                self.unreadable.get_or_insert(path.clone());
            }
        }
        Ok(Some(path))
    }

    /// A setting's text and where it came from: environment, then files.
    fn find(&self, key: Key) -> Option<(Result<String, OsString>, Origin)> {
        if let Some(value) = (self.env)(key.env) {
            return Some((value.into_string(), Origin::Environment));
        }
        self.layers.iter().find_map(|layer| layer.find(key))
    }

    /// A variable of the environment or the env-file that is not one of our settings.
    fn plain_env(&self, name: &str) -> Option<String> {
        (self.env)(name)
            .and_then(|value| value.into_string().ok())
            .or_else(|| self.layers.iter().find_map(|l| l.variable(name)))
    }

    fn note(&mut self, key: Key, shown: &str, origin: Origin) {
        let shown = if key.secret { "(set)".to_owned() } else { shown.to_owned() };
        self.origins.push((key.file, shown, origin));
    }

    fn wrong(&mut self, key: Key, text: &str, origin: &Origin, invalid: &Invalid, instead: &str) {
        let name = match origin {
            Origin::ConfigFile(path) => format!("{} in {}", key.file, path.display()),
            Origin::EnvFile(path) => format!("{} in {}", key.env, path.display()),
            _ => key.env.to_owned(),
        };
        let value = if key.secret { "the value".to_owned() } else { format!("'{}'", clip(text)) };
        self.problems.push(Problem {
            message: format!("{name}: {value} {}; {instead}", invalid.reason),
            hint: invalid.hint.clone(),
            harmless: false,
        });
    }

    /// A setting that has a sensible default: a wrong value falls back to it.
    fn tuning<T>(&mut self, key: Key, read: impl Fn(&str) -> Result<T, Invalid>) -> Option<T> {
        let (text, origin) = self.find(key)?;
        let (text, value) = match text {
            Ok(text) => {
                let value = parse::free_text(&text).and_then(|text| read(&text));
                (text, value)
            }
            Err(raw) => (raw.to_string_lossy().into_owned(), Err(not_utf8())),
        };
        match value {
            Ok(value) => {
                self.note(key, &text, origin);
                Some(value)
            }
            Err(invalid) => {
                self.wrong(key, &text, &origin, &invalid, "using the default");
                None
            }
        }
    }

    /// A setting that says where messages go: a wrong value is never replaced by another.
    fn destination<T>(
        &mut self,
        key: Key,
        read: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Unusable> {
        let waits = "messages wait until it is mended";
        match self.find(key) {
            None if self.unreadable.is_some() => Err(Unusable),
            None => Ok(None),
            // An empty variable is how scripts and CI systems spell "not set".
            Some((Ok(text), _)) if text.trim().is_empty() => Ok(None),
            Some((Ok(text), origin)) => {
                match self.reveal(key, text).and_then(|text| read(&text).map(|value| (text, value))) {
                    Ok((text, value)) => {
                        self.note(key, &text, origin);
                        Ok(Some(value))
                    }
                    Err(invalid) => {
                        let text = self.find(key).and_then(|(text, _)| text.ok()).unwrap_or_default();
                        self.wrong(key, &text, &origin, &invalid, waits);
                        Err(Unusable)
                    }
                }
            }
            Some((Err(raw), origin)) => {
                self.wrong(key, &raw.to_string_lossy(), &origin, &not_utf8(), waits);
                Err(Unusable)
            }
        }
    }

    fn secret(&mut self, key: Key) -> Result<Option<Secret>, Unusable> {
        self.destination(key, |text| parse::free_text(text).map(Secret::new))
    }

    /// Follows `file:PATH` for a secret.
    fn reveal(&self, key: Key, text: String) -> Result<String, Invalid> {
        let text = text.trim().to_owned();
        let Some(path) = text.strip_prefix("file:").filter(|_| key.secret) else { return Ok(text) };
        let content = std::fs::read(path).map_err(|error| {
            Invalid::new(
                format!("names the file '{path}', which could not be read: {}", cause(&error)),
                "make the file readable",
            )
        })?;
        let content = String::from_utf8(content).map_err(|_| not_utf8())?;
        let content = content.trim();
        if content.is_empty() {
            return Err(Invalid::new(
                format!("names the file '{path}', which is empty"),
                "write the secret into the file",
            ));
        }
        Ok(content.to_owned())
    }

    /// Bot token before webhook; neither replaces the other when it is wrong.
    fn target(&mut self, secrets: &mut Vec<Secret>) -> Target {
        let token = self.destination(SLACK_BOT_TOKEN, bot_token);
        let api_url = self.destination(SLACK_API_URL, parse::url);
        let webhook = self.destination(SLACK_WEBHOOK_URL, webhook_url);
        secrets.extend(token.as_ref().ok().cloned().flatten());
        secrets.extend(webhook.as_ref().ok().cloned().flatten());
        match (token, webhook) {
            (Ok(Some(token)), _) => match api_url {
                Ok(url) => {
                    let mut api_url = url.unwrap_or_else(|| DEFAULT_API_URL.to_owned());
                    if !api_url.ends_with('/') {
                        api_url.push('/');
                    }
                    Target::Slack(Destination::Bot { token, api_url })
                }
                Err(Unusable) => Target::Broken,
            },
            (Err(Unusable), _) | (Ok(None), Err(Unusable)) => Target::Broken,
            (Ok(None), Ok(Some(url))) => Target::Slack(Destination::Webhook { url }),
            (Ok(None), Ok(None)) => Target::Nowhere,
        }
    }
}

/// Enough of a wrong value to recognise it by.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn not_utf8() -> Invalid {
    Invalid::new("is not valid UTF-8", "write it in UTF-8")
}

/// Something that can stand in an HTTP header.
fn bot_token(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy the Bot User OAuth Token, which begins with xoxb-";
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new("is not a token", hint));
    }
    if text.starts_with("xapp-") {
        return Err(Invalid::new("is an app-level token", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

/// An incoming webhook's URL.
fn webhook_url(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy the incoming webhook's URL, https://hooks.slack.com/services/…";
    if !parse::is_web_url(text) {
        return Err(Invalid::new("is not a URL", hint));
    }
    if text.contains("/triggers/") || text.contains("/workflows/") {
        return Err(Invalid::new("is a Workflow Builder trigger, which takes no messages", hint));
    }
    Ok(Secret::new(text.to_owned()))
}
