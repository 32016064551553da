//! Whether agents that people ask for in Slack can be started; nothing is, where nobody wants that.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Report;
use crate::cmd::environment;
use crate::config::Config;

pub(super) fn check(report: &mut Report, config: &Config) {
    let Some(program) = config.launch.command.first() else { return };
    if config.named_approvers().is_empty() {
        let message = "AGENT_CHECKPOINT_LAUNCH is not used: without a list of approvers no agent is started";
        report.warn("launch", message, "name those who may approve it in AGENT_CHECKPOINT_APPROVERS");
    } else if !is_there(program) {
        let message = format!("AGENT_CHECKPOINT_LAUNCH: there is no program '{program}' to run");
        report.fail("launch", message, "install it, or give its whole path");
    } else {
        report.ok(
            "launch",
            format!("serve starts {program} for what is approved, {} at once", config.launch.max),
        );
    }
}

/// Whether people can ask for any.
pub(super) fn check_scopes(report: &mut Report, config: &Config, held: &[&str]) {
    if config.launch.command.is_empty()
        || ["commands", "app_mentions:read"].iter().any(|one| held.contains(one))
    {
        return;
    }
    let message = "neither commands nor app_mentions:read is held: nobody can ask for an agent";
    report.warn(
        "launch",
        message,
        "add /agent-task or the event app_mention to the app (doctor --manifest has both) and install it again",
    );
}

fn is_there(program: &str) -> bool {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return is_program(Path::new(program));
    }
    let path = environment("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir: PathBuf| dir.join(program)).any(|path| is_program(&path))
}
