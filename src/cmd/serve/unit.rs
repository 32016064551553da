//! `serve --unit`: a unit for systemd that may do no more than it has to.

use std::path::Path;

use nix::unistd::{Uid, User};

use crate::config::Config;
use crate::exit::{Exit, Failure, cause};

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
    let directory = cache.parent().unwrap_or(Path::new("/"));
    Ok(TEMPLATE
        .replace("{user}", &user)
        .replace("{command}", &command.join(" "))
        .replace("{directory}", &quoted(directory)))
}

/// A word of `ExecStart`.
fn argument(path: &Path) -> String {
    quoted(path).replace('$', "$$")
}

/// A path as a unit has it: `%` begins a specifier, and a blank ends a word (systemd.syntax(7)).
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if text.contains([' ', '\t', '"', '\\', '\'', ';']) { format!("\"{text}\"") } else { text }
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
# Secrets that stand in no config file, readable by root alone: AGENT_CHECKPOINT_SERVE_TOKEN=…, DATABASE_URL=…, and for
# clicks in Slack SLACK_BOT_TOKEN=… with SLACK_APP_TOKEN=… or SLACK_SIGNING_SECRET=….
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
