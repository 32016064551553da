//! Who the agent is in every surrounding that is known, and in none.

use super::*;

fn id(variables: &[(&str, &str)]) -> Surroundings {
    let env = |name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    surroundings(None, &env, Path::new("/nowhere/project"))
}

#[test]
fn origin_names() {
    for (url, name) in [
        ("git@github.com:acme/rocket.git", "acme/rocket"),
        ("https://ana:secret@github.com/acme/rocket.git", "acme/rocket"),
        ("https://gitlab.example/group/sub/rocket/", "sub/rocket"),
        ("ssh://git@host:2222/acme/rocket", "acme/rocket"),
        ("/srv/git/rocket.git", "rocket"),
        ("../rocket", "rocket"),
        ("file:///srv/git/rocket.git", "rocket"),
        ("acme/rocket", "acme/rocket"),
        ("https://git.example/acme/rocket.git?private_token=secret#top", "acme/rocket"),
        ("https://git.example/acme/rocket/?private_token=secret/more", "acme/rocket"),
        ("", ""),
    ] {
        assert_eq!(origin_name(url), name, "{url}");
    }
}

#[test]
fn session_before_ci_before_place() {
    let github = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "build"),
        ("GITHUB_REPOSITORY", "acme/rocket"),
    ];
    assert_eq!(id(&github).agent_id, "github/acme/rocket/42.1/build");
    assert_eq!(id(&github).repo.as_deref(), Some("acme/rocket"));
    let session = [&github[..], &[("CLAUDE_CODE_SESSION_ID", "c1")]].concat();
    assert_eq!(id(&session).agent_id, "claude:c1");
    let place = id(&[("USER", "ana")]).agent_id;
    assert!(place.starts_with("ana@") && place.ends_with(":project"), "{place}");
    assert_eq!(
        id(&[("CI", "woodpecker"), ("CI_PIPELINE_NUMBER", "7"), ("CI_REPO", "a/b")]).agent_id,
        "woodpecker/a/b/7"
    );
    assert!(id(&[("CI", "true"), ("USER", "ana")]).agent_id.starts_with("ana@"));
}

#[test]
fn every_ci_system_is_known_by_its_own_variables() {
    for (variables, agent_id, repo) in [
        (
            &[
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_RUN_ID", "42"),
                ("GITHUB_RUN_ATTEMPT", "2"),
                ("GITHUB_JOB", "build"),
                ("GITHUB_REPOSITORY", "acme/rocket"),
            ][..],
            "github/acme/rocket/42.2/build",
            Some("acme/rocket"),
        ),
        // Gitea and Forgejo spell theirs as GitHub does.
        (
            &[
                ("GITEA_ACTIONS", "true"),
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_RUN_ID", "42"),
                ("GITHUB_REPOSITORY", "acme/rocket"),
            ],
            "github/acme/rocket/42",
            Some("acme/rocket"),
        ),
        (
            &[
                ("CI", "true"),
                ("GITLAB_CI", "true"),
                ("CI_PIPELINE_ID", "42"),
                ("CI_JOB_ID", "7"),
                ("CI_JOB_NAME", "build"),
                ("CI_PROJECT_PATH", "acme/tools/rocket"),
            ],
            "gitlab/tools/rocket/42/build/7",
            Some("tools/rocket"),
        ),
        (
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_BUILD_ID", "b42"),
                ("BUILDKITE_JOB_ID", "j7"),
                ("BUILDKITE_REPO", "git@github.com:acme/rocket.git"),
            ],
            "buildkite/acme/rocket/b42/j7",
            Some("acme/rocket"),
        ),
        (
            &[
                ("CIRCLECI", "true"),
                ("CIRCLE_WORKFLOW_ID", "w42"),
                ("CIRCLE_BUILD_NUM", "7"),
                ("CIRCLE_JOB", "build"),
                ("CIRCLE_PROJECT_USERNAME", "acme"),
                ("CIRCLE_PROJECT_REPONAME", "rocket"),
            ],
            "circleci/acme/rocket/w42/build/7",
            Some("acme/rocket"),
        ),
        (
            &[
                ("JENKINS_URL", "https://ci.example/"),
                ("BUILD_ID", "42"),
                ("BUILD_TAG", "jenkins-rocket-42"),
                ("STAGE_NAME", "build"),
                ("GIT_URL", "https://ana:secret@git.example/acme/rocket.git"),
            ],
            "jenkins/acme/rocket/jenkins-rocket-42/build",
            Some("acme/rocket"),
        ),
        (
            &[
                ("TF_BUILD", "True"),
                ("BUILD_BUILDID", "42"),
                ("SYSTEM_JOBID", "j7"),
                ("BUILD_REPOSITORY_NAME", "acme/rocket"),
            ],
            "azure/acme/rocket/42/j7",
            Some("acme/rocket"),
        ),
        (
            &[
                ("BITBUCKET_BUILD_NUMBER", "42"),
                ("BITBUCKET_STEP_UUID", "{s7}"),
                ("BITBUCKET_REPO_FULL_NAME", "acme/rocket"),
            ],
            "bitbucket/acme/rocket/42/{s7}",
            Some("acme/rocket"),
        ),
        (
            &[
                ("TRAVIS", "true"),
                ("TRAVIS_BUILD_ID", "42"),
                ("TRAVIS_JOB_ID", "7"),
                ("TRAVIS_REPO_SLUG", "acme/rocket"),
            ],
            "travis/acme/rocket/42/7",
            Some("acme/rocket"),
        ),
        (
            &[
                ("DRONE", "true"),
                ("DRONE_BUILD_NUMBER", "42"),
                ("DRONE_STAGE_NAME", "default"),
                ("DRONE_STEP_NAME", "build"),
                ("DRONE_REPO", "acme/rocket"),
            ],
            "drone/acme/rocket/42/default/build",
            Some("acme/rocket"),
        ),
        (
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_NUMBER", "42"),
                ("CI_STEP_NAME", "build"),
                ("CI_REPO", "acme/rocket"),
            ],
            "woodpecker/acme/rocket/42/build",
            Some("acme/rocket"),
        ),
        (
            &[("TEAMCITY_VERSION", "2025.07"), ("BUILD_NUMBER", "42"), ("TEAMCITY_BUILDCONF_NAME", "Build")],
            "teamcity/42/Build",
            None,
        ),
    ] {
        let found = id(variables);
        assert_eq!((found.agent_id.as_str(), found.repo.as_deref()), (agent_id, repo));
        // A variable that is set to nothing is not set.
        let empty: Vec<_> = variables.iter().map(|(name, _)| (*name, "")).chain([("USER", "ana")]).collect();
        assert!(id(&empty).agent_id.starts_with("ana@"), "{empty:?}");
    }
    let named: Vec<_> = CI.iter().map(|ci| ci.name).collect();
    assert_eq!(named.len(), 11, "a row above for each of {named:?}");
}

#[test]
fn every_coding_agents_session_is_known() {
    for (variable, agent_id) in [
        ("CLAUDE_CODE_SESSION_ID", "claude:s1"),
        ("CODEX_THREAD_ID", "codex:s1"),
        ("GEMINI_SESSION_ID", "gemini:s1"),
        ("CURSOR_TRACE_ID", "cursor:s1"),
    ] {
        assert_eq!(id(&[(variable, " s1\n"), ("USER", "ana")]).agent_id, agent_id);
    }
}

#[test]
fn what_was_said_goes_before_what_is_around() {
    let env = |name: &str| (name == "CLAUDE_CODE_SESSION_ID").then(|| OsString::from("c1"));
    assert_eq!(surroundings(Some("deploy"), &env, Path::new("/nowhere")).agent_id, "deploy");
}

#[test]
fn an_id_is_one_line_of_at_most_255_characters_whatever_the_names() {
    let long = "é".repeat(300);
    let cut = id(&[("CODEX_THREAD_ID", &long)]).agent_id;
    assert_eq!(cut.chars().count(), 255);
    assert_eq!(id(&[("CODEX_THREAD_ID", "a\nb\u{1b}c\u{202e}d")]).agent_id, "codex:a_b_c_d");
    assert!(id(&[("LOGNAME", "ana")]).agent_id.starts_with("ana@"));
    // Whoever has no name has a number, and the root directory has a name as well.
    let nobody = surroundings(None, &|_| None, Path::new("/")).agent_id;
    let (user, place) = nobody.split_once('@').expect("user and host");
    assert!(!user.is_empty() && place.ends_with(":/"), "{nobody}");
}

#[test]
fn the_place_is_the_git_work_tree_from_anywhere_inside() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
    };
    let config = "[core]\n\tbare = false\n[remote \"fork\"]\n\turl = https://git.example/ana/rocket\n\
                  [remote \"origin\"]\n\tfetch = +refs/heads/*\n\tURL = git@git.example:acme/rocket.git\n\
                  [remote \"other\"]\n\turl = https://git.example/bob/rocket\n";
    write("rocket/.git/config", config);
    write("rocket/src/deep/main.rs", "");
    // A linked work tree and a submodule keep their directory elsewhere.
    write("tree/.git", "gitdir: ../rocket/.git/worktrees/tree\n");
    write("rocket/.git/worktrees/tree/commondir", "../..\n");
    write("rocket/module/.git", "gitdir: ../.git/modules/module\n");
    write("rocket/.git/modules/module/config", "[remote \"origin\"]\n\turl = \"../module.git\"\n");
    write("bare/.git/config", "[core]\n\tbare = false\n");
    write("broken/.git", "not a pointer");
    // A pipe that nobody writes to, as the file and in the directory.
    for pipe in ["pipe/.git", "piped/.git/config"] {
        let pipe = dir.path().join(pipe);
        fs::create_dir_all(pipe.parent().expect("a parent")).expect("directories");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    write("endless/.git/config", &format!("{config}{}", "#".repeat(1024 * 1024)));
    for (place, name, repo) in [
        ("rocket", "rocket", Some("acme/rocket")),
        ("rocket/src/deep", "rocket", Some("acme/rocket")),
        ("tree", "tree", Some("acme/rocket")),
        ("rocket/module", "module", Some("module")),
        ("bare", "bare", None),
        ("broken", "broken", None),
        ("pipe", "pipe", None),
        ("piped", "piped", None),
        ("endless", "endless", None),
    ] {
        let found = surroundings(None, &|_| None, &dir.path().join(place));
        assert!(found.agent_id.ends_with(&format!(":{name}")), "{place}: {}", found.agent_id);
        assert_eq!(found.repo.as_deref(), repo, "{place}");
    }
    // CI knows better than the checkout which repository it builds.
    let ci = |name: &str| match name {
        "DRONE" => Some(OsString::from("true")),
        "DRONE_REPO" => Some(OsString::from("acme/upstream")),
        _ => None,
    };
    let found = surroundings(Some("a"), &ci, &dir.path().join("rocket"));
    assert_eq!(found.repo.as_deref(), Some("acme/upstream"));
}
