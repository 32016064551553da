//! How `serve` starts agents that people ask for in Slack.

use super::Config;
use super::keys::{LAUNCH, LAUNCH_MAX};
use super::sources::Sources;
use crate::checkpoint::parse::Invalid;

const DEFAULT_MAX: usize = 4;

/// How agents are started that people ask for.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The program and its arguments; empty where none is started.
    pub(crate) command: Vec<String>,
    /// How many run at once.
    #[cfg_attr(not(feature = "serve"), expect(dead_code, reason = "only serve starts any"))]
    pub(crate) max: usize,
    /// The repository in which they begin; known to `serve` alone.
    pub(crate) repo: Option<String>,
    /// We are a `serve` that starts them.
    pub(crate) starts_here: bool,
}

impl Launch {
    pub(super) fn find(sources: &mut Sources<'_>) -> Self {
        Self {
            command: sources.tuning(LAUNCH, launch_command).unwrap_or_default(),
            max: sources.tuning(LAUNCH_MAX, launch_max).unwrap_or(DEFAULT_MAX),
            repo: None,
            starts_here: false,
        }
    }
}

impl Config {
    /// Those who may approve a start: nobody where there is no list, or none that can be read.
    pub(crate) fn named_approvers(&self) -> &[String] {
        self.approvers.as_deref().unwrap_or_default()
    }
}

/// The words of a command, as a shell would split it.
fn launch_command(text: &str) -> Result<Vec<String>, Invalid> {
    let words = shlex::split(text)
        .ok_or_else(|| Invalid::new("has a quote that is not closed", "close it, or put \\ before it"))?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(Invalid::new("names no program", "give a command such as 'claude -p'")),
    }
}

fn launch_max(text: &str) -> Result<usize, Invalid> {
    match text.trim().parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err(Invalid::new("is not a number of agents", "give a whole number from 1 to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let words = |text: &str| launch_command(text).map_err(|invalid| invalid.reason);
        assert_eq!(words("claude -p").as_deref(), Ok(&["claude".to_owned(), "-p".to_owned()][..]));
        let quoted = words(r#"env 'A=b c' agent --say "it's \"so\"" $HOME;x"#);
        assert_eq!(
            quoted.as_deref(),
            Ok(&["env", "A=b c", "agent", "--say", "it's \"so\"", "$HOME;x"].map(str::to_owned)[..])
        );
        assert!(words("agent 'open").is_err());
        assert!(words("'' x").is_err());
        assert!(words("  ").is_err());
    }
}
