//! `serve --unit`: a unit for systemd that may do no more than it has to.

use std::ffi::OsStr;
use std::path::Path;

use nix::unistd::{Uid, User};

use crate::config::{Config, KEYS, Origin};
use crate::exit::{Exit, Failure, cause};

/// What a server goes by, and the agents that it starts, beside what stands in the command.
const KEPT: &[&str] = &[
    "SLACK_API_URL",
    "SLACK_CHANNEL",
    "AGENT_CHECKPOINT_DEADLINE",
    "AGENT_CHECKPOINT_APPROVERS",
    "AGENT_CHECKPOINT_LAUNCH",
    "AGENT_CHECKPOINT_LAUNCH_MAX",
    "AGENT_CHECKPOINT_TIMEOUT",
    "AGENT_CHECKPOINT_KILL_AFTER",
    "AGENT_CHECKPOINT_HEARTBEAT",
    "AGENT_CHECKPOINT_TAIL",
    "AGENT_CHECKPOINT_PROGRESS_REGEX",
    "AGENT_CHECKPOINT_REPO",
    "AGENT_CHECKPOINT_MIN_INTERVAL",
    "AGENT_CHECKPOINT_CONTEXT_LIMIT",
    "AGENT_CHECKPOINT_CONTEXT_WARN",
    "AGENT_CHECKPOINT_CONTEXT_ALERT",
];

/// The unit for these settings: this program, as this user, with this cache.
pub(super) fn text(config: &Config) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, format!("could not find this program's file: {}", cause(&error)))
    })?;
    let cache = config.cache.as_deref().ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no home directory to keep the cache in")
            .hint("name a file with --cache")
    })?;
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let user = user.map_or_else(|| Uid::effective().to_string(), |user| user.name);
    let mut command = vec![argument(&program), "serve".to_owned(), "--listen".to_owned()];
    command.extend([config.serve.listen.clone(), "--cache".to_owned(), argument(cache)]);
    for (flag, file) in [("--config", &config.config_file), ("--env-file", &config.env_file)] {
        if let Some(file) = file {
            command.extend([flag.to_owned(), argument(file)]);
        }
    }
    let environment: String = config
        .settings()
        .iter()
        .filter(|(.., origin)| *origin == Origin::Environment)
        .filter_map(|(name, value, _)| {
            let key = KEYS.iter().find(|key| key.file == *name && KEPT.contains(&key.env))?;
            Some((key.env, value.clone()))
        })
        .chain(way(config))
        .map(|(name, value)| format!("Environment={}\n", always_quoted(&format!("{name}={value}"))))
        .collect();
    let directory = cache.parent().unwrap_or(Path::new("/"));
    Ok(TEMPLATE
        .replace("{user}", &user)
        .replace("{command}", &command.join(" "))
        .replace("{directory}", &quoted(directory))
        .replace("{environment}", &environment))
}

/// By which way Slack and the database are reached, whose trust is no setting of ours. A proxy's password is a secret.
fn way(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let network = &config.network;
    let text = |path: &OsStr| path.to_string_lossy().into_owned();
    let proxy = network.proxy.as_ref().map(|proxy| proxy.reveal().to_owned());
    let authorities = &network.authorities;
    [
        ("HTTPS_PROXY", proxy.filter(|proxy| !proxy.contains('@'))),
        ("NO_PROXY", network.no_proxy.clone()),
        ("SSL_CERT_FILE", authorities.file.as_ref().map(|file| text(file.as_os_str()))),
        ("SSL_CERT_DIR", authorities.dirs.as_deref().map(text)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// A word of `ExecStart`.
fn argument(path: &Path) -> String {
    quoted(path).replace('$', "$$")
}

/// A path as a unit has it: a blank ends a word (systemd.syntax(7)).
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains([' ', '\t', '"', '\\', '\'', ';']) {
        always_quoted(&text)
    } else {
        text.replace('%', "%%")
    }
}

/// The same for any text: `%` begins a specifier.
fn always_quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
    format!("\"{text}\"")
}

const TEMPLATE: &str = "# Printed by agent-checkpoint serve --unit.
[Unit]
Description=agent-checkpoint over HTTP
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
User={user}
ExecStart={command}
{environment}# Secrets that stand in no config file, readable by root alone: AGENT_CHECKPOINT_SERVE_TOKEN=…, DATABASE_URL=…, and for
# clicks in Slack SLACK_BOT_TOKEN=… with SLACK_APP_TOKEN=… or SLACK_SIGNING_SECRET=…; HTTPS_PROXY=… with a password too.
EnvironmentFile=-/etc/agent-checkpoint/serve.env
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=64 78
TimeoutStopSec=10

# It writes nothing but the cache.
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=-{directory}
UMask=0077
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RemoveIPC=yes

# It needs no rights but its user's. Other processes stay visible to it: it tells which of the agents still live.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
";
