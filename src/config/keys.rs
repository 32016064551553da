//! The settings: how each source spells them.

use std::path::PathBuf;

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
        $(pub(super) const $name: Key = Key { env: $env, file: $file, secret: keys!(@secret $($secret)?) };)*
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
pub(super) const CONFIG_ENV: &str = "AGENT_CHECKPOINT_CONFIG";
pub(super) const ENV_FILE_ENV: &str = "AGENT_CHECKPOINT_ENV_FILE";

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
