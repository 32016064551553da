//! Where a task's thread is written down for the jobs of a CI run that come later.

use std::path::PathBuf;

use super::Environment;
use super::keys::DOTENV;
use super::resolve::absolute;
use super::sources::Sources;

/// The files that carry values from one job to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Handover {
    /// The outputs of a step of GitHub Actions. Gitea and Forgejo have the same.
    pub(crate) github_output: Option<PathBuf>,
    /// A file of `KEY=value` lines, such as GitLab's dotenv reports.
    pub(crate) dotenv: Option<PathBuf>,
}

impl Handover {
    /// Whether anybody wants to know.
    pub(crate) fn is_wanted(&self) -> bool {
        self.github_output.is_some() || self.dotenv.is_some()
    }

    pub(super) fn find(env: Environment<'_>, sources: &mut Sources<'_>) -> Self {
        let set = |name| env(name).filter(|value| !value.is_empty());
        // Not by itself: a shell that was started from a job long ago may still have the file's name.
        let github_output = set("GITHUB_ACTIONS").and_then(|_| set("GITHUB_OUTPUT")).map(PathBuf::from);
        Self { github_output, dotenv: sources.tuning(DOTENV, |text| Ok(absolute(text))) }
    }
}
