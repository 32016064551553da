//! Who the agent is when nobody says: the coding agent's session, the CI job, or user, host and directory.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, gethostname};

use super::Environment;
use crate::checkpoint::parse;

/// The largest file of git's that is read, in bytes.
const GIT_FILE_MAX: u64 = 1024 * 1024;

/// Variables in which coding agents pass their session to the shells they start, and the agents' names.
const SESSIONS: &[(&str, &str)] = &[
    ("CLAUDE_CODE_SESSION_ID", "claude"),
    ("CODEX_THREAD_ID", "codex"),
    ("GEMINI_SESSION_ID", "gemini"),
    ("CURSOR_TRACE_ID", "cursor"),
];

/// A CI system: how to tell it, and what it calls its run, job and repository.
struct Ci {
    name: &'static str,
    /// A variable, and the value it has if it must be a certain one.
    detect: (&'static str, Option<&'static str>),
    run: &'static [&'static str],
    job: &'static [&'static str],
    repo: &'static [&'static str],
}

/// The systems' own documentation names these variables. Gitea and Forgejo set GitHub's names too.
const CI: &[Ci] = &[
    Ci {
        name: "github",
        detect: ("GITHUB_ACTIONS", None),
        run: &["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"],
        job: &["GITHUB_JOB"],
        repo: &["GITHUB_REPOSITORY"],
    },
    Ci {
        name: "gitlab",
        detect: ("GITLAB_CI", None),
        run: &["CI_PIPELINE_ID"],
        job: &["CI_JOB_NAME", "CI_JOB_ID"],
        repo: &["CI_PROJECT_PATH"],
    },
    Ci {
        name: "buildkite",
        detect: ("BUILDKITE", None),
        run: &["BUILDKITE_BUILD_ID"],
        job: &["BUILDKITE_JOB_ID"],
        repo: &["BUILDKITE_REPO"],
    },
    Ci {
        name: "circleci",
        detect: ("CIRCLECI", None),
        run: &["CIRCLE_WORKFLOW_ID"],
        job: &["CIRCLE_JOB", "CIRCLE_BUILD_NUM"],
        repo: &["CIRCLE_PROJECT_USERNAME", "CIRCLE_PROJECT_REPONAME"],
    },
    Ci {
        name: "azure",
        detect: ("TF_BUILD", None),
        run: &["BUILD_BUILDID"],
        job: &["SYSTEM_JOBID"],
        repo: &["BUILD_REPOSITORY_NAME"],
    },
    Ci {
        name: "bitbucket",
        detect: ("BITBUCKET_BUILD_NUMBER", None),
        run: &["BITBUCKET_BUILD_NUMBER"],
        job: &["BITBUCKET_STEP_UUID"],
        repo: &["BITBUCKET_REPO_FULL_NAME"],
    },
    Ci {
        name: "travis",
        detect: ("TRAVIS", None),
        run: &["TRAVIS_BUILD_ID"],
        job: &["TRAVIS_JOB_ID"],
        repo: &["TRAVIS_REPO_SLUG"],
    },
    Ci {
        name: "drone",
        detect: ("DRONE", None),
        run: &["DRONE_BUILD_NUMBER"],
        job: &["DRONE_STAGE_NAME", "DRONE_STEP_NAME"],
        repo: &["DRONE_REPO"],
    },
    Ci {
        name: "woodpecker",
        detect: ("CI", Some("woodpecker")),
        run: &["CI_PIPELINE_NUMBER"],
        job: &["CI_STEP_NAME"],
        repo: &["CI_REPO"],
    },
    Ci {
        name: "teamcity",
        detect: ("TEAMCITY_VERSION", None),
        run: &["BUILD_NUMBER"],
        job: &["TEAMCITY_BUILDCONF_NAME"],
        repo: &[],
    },
    Ci {
        name: "jenkins",
        detect: ("JENKINS_URL", None),
        run: &["BUILD_TAG"],
        job: &["STAGE_NAME"],
        repo: &["GIT_URL"],
    },
];

/// What the surroundings tell of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Stable between calls from the same place.
    pub(crate) agent_id: String,
    /// CI's or git's `origin` name, such as `acme/rocket`.
    pub(crate) repo: Option<String>,
}

/// Looks around, for the agent's id only if nobody `said` it.
pub(crate) fn surroundings(said: Option<&str>, env: Environment<'_>, dir: &Path) -> Surroundings {
    let text = |name: &str| said_by(env, name);
    let ci = CI.iter().find(|ci| {
        let (variable, value) = ci.detect;
        text(variable).is_some_and(|found| value.is_none_or(|value| found == value))
    });
    let git = Git::find(dir);
    let ci_repo = ci.and_then(|ci| joined(ci.repo, "/", &text)).map(|repo| origin_name(&repo));
    let repo = ci_repo.or_else(|| git.as_ref()?.origin().map(|url| origin_name(&url)));

    if let Some(agent_id) = said {
        return Surroundings { agent_id: agent_id.to_owned(), repo };
    }
    let session = SESSIONS.iter().find_map(|(variable, agent)| Some(format!("{agent}:{}", text(variable)?)));
    let agent_id = session
        .or_else(|| {
            let ci = ci?;
            let run = joined(ci.run, ".", &text)?;
            let parts = [Some(ci.name.to_owned()), repo.clone(), Some(run), joined(ci.job, "/", &text)];
            Some(parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
        })
        .unwrap_or_else(|| {
            let place = git.as_ref().map_or(dir, |git| git.root.as_path());
            let name = place.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy());
            format!("{}@{}:{name}", user(&text), host())
        });
    Surroundings { agent_id: parse::agent_id_of(&agent_id), repo }
}

/// Where a question is asked: the branch and the machine, which `surroundings` leaves out since few need them.
pub(crate) fn branch_and_host(env: Environment<'_>, dir: &Path) -> (Option<String>, String) {
    // CI systems check out a commit, so that git knows of no branch.
    let branch = Git::find(dir)
        .and_then(|git| git.branch())
        .or_else(|| BRANCHES.iter().find_map(|name| said_by(env, name)));
    (branch, host())
}

/// Variables in which CI systems name the branch.
const BRANCHES: &[&str] = &[
    "GITHUB_HEAD_REF",
    "GITHUB_REF_NAME",
    "CI_COMMIT_REF_NAME",
    "BUILDKITE_BRANCH",
    "CIRCLE_BRANCH",
    "BUILD_SOURCEBRANCHNAME",
    "BITBUCKET_BRANCH",
    "TRAVIS_BRANCH",
    "DRONE_BRANCH",
    "CI_COMMIT_BRANCH",
    "BRANCH_NAME",
];

/// The text of a variable, unless it is blank.
fn said_by(env: Environment<'_>, name: &str) -> Option<String> {
    env(name).map(lossy).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The values of the variables that are set, joined; `None` unless the first is set.
fn joined(variables: &[&str], separator: &str, text: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    text(variables.first()?)?;
    Some(variables.iter().filter_map(|name| text(name)).collect::<Vec<_>>().join(separator))
}

fn user(text: &dyn Fn(&str) -> Option<String>) -> String {
    text("USER")
        .or_else(|| text("LOGNAME"))
        .or_else(|| User::from_uid(Uid::current()).ok().flatten().map(|user| user.name))
        .unwrap_or_else(|| Uid::current().to_string())
}

/// This machine's name, without its domain.
fn host() -> String {
    let name = gethostname().map(lossy).unwrap_or_default();
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// The part of a remote's URL that people call the repository: its last two names, or the last of a path.
///
/// User and password of the URL are never part of it, nor is a query, which may hold a token.
fn origin_name(url: &str) -> String {
    let url = url.trim();
    let url = url.split_once("://").and_then(|_| url.split(['?', '#']).next()).unwrap_or(url);
    let url = url.trim_end_matches('/');
    let url = url.strip_suffix(".git").unwrap_or(url);
    let path = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.eq_ignore_ascii_case("file") => {
            rest.split_once('/').map_or(rest, |(_, path)| path)
        }
        Some((_, path)) => path.rsplit('/').next().unwrap_or(path),
        // `git@host:owner/name`, but not a path on this machine.
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') => path,
            _ if url.starts_with(['/', '.']) => url.rsplit('/').next().unwrap_or(url),
            _ => url,
        },
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    names[names.len().saturating_sub(2)..].join("/")
}

/// A file that somebody else may have put there: a pipe or a device would hold the caller up for ever, and what is
/// not small is not git's.
fn read_small(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= GIT_FILE_MAX).then(|| fs::read_to_string(path).ok())?
}

/// A git work tree, read from its files: starting `git` would take longer than all the rest of a call.
#[derive(Debug)]
struct Git {
    root: PathBuf,
    /// The directory that holds what is checked out.
    head: PathBuf,
    /// The directory that holds the configuration.
    common: PathBuf,
}

impl Git {
    fn find(dir: &Path) -> Option<Self> {
        dir.ancestors().find_map(|root| {
            let dot_git = root.join(".git");
            let metadata = fs::metadata(&dot_git).ok()?;
            if metadata.is_dir() {
                return Some(Self { root: root.to_owned(), head: dot_git.clone(), common: dot_git });
            }
            // A linked work tree or a submodule: the file names the real directory, relative to itself.
            let text = read_small(&dot_git)?;
            let git_dir = root.join(text.strip_prefix("gitdir:")?.trim());
            let common = match read_small(&git_dir.join("commondir")) {
                Some(common) => git_dir.join(common.trim()),
                None => git_dir.clone(),
            };
            Some(Self { root: root.to_owned(), head: git_dir, common })
        })
    }

    /// The branch that is checked out, if one is.
    fn branch(&self) -> Option<String> {
        let head = read_small(&self.head.join("HEAD"))?;
        Some(head.trim().strip_prefix("ref: refs/heads/")?.to_owned())
    }

    /// The URL of the remote called `origin`.
    fn origin(&self) -> Option<String> {
        let config = read_small(&self.common.join("config"))?;
        let mut in_origin = false;
        config.lines().map(str::trim).find_map(|line| {
            if line.starts_with('[') {
                in_origin = line.replace(' ', "") == "[remote\"origin\"]";
                return None;
            }
            let (key, value) = line.split_once('=').filter(|_| in_origin)?;
            key.trim().eq_ignore_ascii_case("url").then(|| value.trim().trim_matches('"').to_owned())
        })
    }
}

#[cfg(test)]
mod tests;
