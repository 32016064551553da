//! The settings: how each source spells them.

use std::ffi::OsString;
use std::path::PathBuf;

/// A setting: how each source spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// In the environment and in `--env-file`.
    pub(crate) env: &'static str,
    /// In the config file; as a flag, where there is one, with dashes.
    pub(crate) file: &'static str,
    /// Its value is never shown.
    pub(crate) secret: bool,
    /// What it does, in one line, for the manual and the README.
    pub(crate) meaning: &'static str,
}

/// Declares the settings once, for lookup, for `doctor`, for the manual and for finding misspelt ones in a config file.
macro_rules! keys {
    ($($name:ident = $env:literal, $file:literal $(, $secret:ident)?: $meaning:literal;)*) => {
        $(pub(super) const $name: Key =
            Key { env: $env, file: $file, secret: keys!(@secret $($secret)?), meaning: $meaning };)*
        /// Every setting.
        pub(crate) const KEYS: &[Key] = &[$($name),*];
    };
    (@secret) => { false };
    (@secret secret) => { true };
}

keys! {
    SLACK_BOT_TOKEN = "SLACK_BOT_TOKEN", "slack_bot_token", secret:
        "The app's Bot User OAuth Token; with it every agent gets a thread";
    SLACK_WEBHOOK_URL = "SLACK_WEBHOOK_URL", "slack_webhook_url", secret:
        "An incoming webhook, used when there is no bot token; messages stand alone";
    CHANNEL = "SLACK_CHANNEL", "channel": "Where threads are opened, as #name or id";
    THREAD = "AGENT_CHECKPOINT_THREAD", "thread": "An existing thread to join, as CHANNEL:TS";
    DOTENV = "AGENT_CHECKPOINT_DOTENV", "dotenv":
        "A file for later CI jobs: emit and run add AGENT_CHECKPOINT_THREAD=CHANNEL:TS once it is known";
    AGENT_ID = "AGENT_CHECKPOINT_AGENT_ID", "agent_id":
        "Who the agent is; otherwise its session, its CI job or USER@HOST:DIRECTORY";
    TASK_NAME = "AGENT_CHECKPOINT_TASK_NAME", "task_name": "What the agent works on";
    TASK_TYPE = "AGENT_CHECKPOINT_TASK_TYPE", "task_type": "What kind of task it is, such as test or docs";
    REPO = "AGENT_CHECKPOINT_REPO", "repo": "The repository's name; otherwise the CI system's or that of git's origin";
    MIN_INTERVAL = "AGENT_CHECKPOINT_MIN_INTERVAL", "min_interval":
        "The least time between routine messages of a task";
    DEADLINE = "AGENT_CHECKPOINT_DEADLINE", "deadline": "The longest that a call spends on the network";
    BACKGROUND = "AGENT_CHECKPOINT_BACKGROUND", "background":
        "Use a courier: auto (for what cannot be sent at once), always (for everything) or never";
    STRICT = "AGENT_CHECKPOINT_STRICT", "strict": "Exit 75 when not delivered yet, 78 when refused or misconfigured";
    NO_POST = "AGENT_CHECKPOINT_NO_POST", "no_post": "Record, but do not post";
    CONTEXT_LIMIT = "AGENT_CHECKPOINT_CONTEXT_LIMIT", "context_limit": "How many tokens the context holds";
    CONTEXT_WARN = "AGENT_CHECKPOINT_CONTEXT_WARN", "context_warn": "Warn at this percentage of the context limit";
    CONTEXT_ALERT = "AGENT_CHECKPOINT_CONTEXT_ALERT", "context_alert":
        "Alert at this percentage of the context limit";
    HEARTBEAT = "AGENT_CHECKPOINT_HEARTBEAT", "heartbeat": "How often run refreshes the live card, 0 for never";
    TIMEOUT = "AGENT_CHECKPOINT_TIMEOUT", "timeout": "How long run lets its command go on, 0 for no limit";
    KILL_AFTER = "AGENT_CHECKPOINT_KILL_AFTER", "kill_after":
        "How long a command of run that is told to end has before it is killed";
    TAIL = "AGENT_CHECKPOINT_TAIL", "tail": "How many of its command's last lines run shows, 0 for none";
    PROGRESS_REGEX = "AGENT_CHECKPOINT_PROGRESS_REGEX", "progress_regex":
        "How run reads progress from lines: groups named percent, or done and total, and action";
    APPROVERS = "AGENT_CHECKPOINT_APPROVERS", "approvers":
        "Who may answer what ask asks, cancel and approve agents: ids of Slack users, separated by commas; without it anybody may answer and cancel, nobody approve";
    LAUNCH = "AGENT_CHECKPOINT_LAUNCH", "launch":
        "The command by which serve starts an agent that somebody asked for in Slack; the request is its last argument";
    LAUNCH_MAX = "AGENT_CHECKPOINT_LAUNCH_MAX", "launch_max": "How many of them run at once";
    POLL_INTERVAL = "AGENT_CHECKPOINT_POLL_INTERVAL", "poll_interval":
        "How often ask looks for reactions and replies where there is no SLACK_APP_TOKEN";
    CACHE = "AGENT_CHECKPOINT_CACHE", "cache": "The file that holds what was recorded and what waits";
    JSON = "AGENT_CHECKPOINT_JSON", "json": "Print one JSON object or array on standard output";
    QUIET = "AGENT_CHECKPOINT_QUIET", "quiet": "Say nothing on standard error but errors";
    VERBOSE = "AGENT_CHECKPOINT_VERBOSE", "verbose": "Say more on standard error: 1 of each message, 2 of each request too";
    COLOR = "AGENT_CHECKPOINT_COLOR", "color": "When to use colour: auto, always or never";
    LISTEN = "AGENT_CHECKPOINT_LISTEN", "listen": "Where serve listens, as ADDRESS:PORT";
    SERVE_TOKEN = "AGENT_CHECKPOINT_SERVE_TOKEN", "serve_token", secret:
        "What whoever reads from serve has to show; needed to listen on more than this machine";
    SLACK_API_URL = "SLACK_API_URL", "slack_api_url": "Where Slack's Web API is, for a gateway or a fake Slack";
    SLACK_SIGNING_SECRET = "SLACK_SIGNING_SECRET", "slack_signing_secret", secret:
        "The app's Signing Secret, by which what Slack sends over HTTP is told from what others send";
    SLACK_APP_TOKEN = "SLACK_APP_TOKEN", "slack_app_token", secret:
        "The app-level token (xapp-…) with connections:write; with it clicks are heard by Socket Mode";
    DATABASE_URL = "DATABASE_URL", "database_url", secret:
        "The PostgreSQL of the audit trail, as postgres://USER:PASSWORD@HOST/DATABASE or key=value pairs";
    NEON_DATABASE_URL = "NEON_DATABASE_URL", "neon_database_url", secret:
        "The same, used when DATABASE_URL is not set";
}

/// Settings that are read from the environment only, since they say where to look.
pub(super) const CONFIG_ENV: &str = "AGENT_CHECKPOINT_CONFIG";
pub(super) const ENV_FILE_ENV: &str = "AGENT_CHECKPOINT_ENV_FILE";

/// Variables that are no settings of ours in a file, and what each means.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    (CONFIG_ENV, "The config file to read, as --config"),
    (ENV_FILE_ENV, "The env file to read, as --env-file"),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY", "The proxy to reach Slack by; the first that is set"),
    ("NO_PROXY", "Hosts that are reached without the proxy, separated by commas"),
    ("SSL_CERT_FILE", "A file of certificates (PEM) to trust instead of the built-in ones"),
    ("SSL_CERT_DIR", "Directories of such files, separated by colons; they add to those of SSL_CERT_FILE"),
    (
        "PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGPASSFILE, PGSSLMODE",
        "With libpq's other variables: what DATABASE_URL leaves out",
    ),
    ("NO_COLOR", "No colour, if it is not empty; so does TERM=dumb"),
];

/// A setting's text, or the bytes that are none, and where it came from.
pub(super) type Found = (Result<String, OsString>, Origin);

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
