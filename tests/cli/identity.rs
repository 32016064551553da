//! Who an agent is when nobody says: session, CI job, or user, host and directory; and which repository it works on.

use nix::unistd::gethostname;
use serde_json::Value;

use crate::support::{Run, Sandbox};

type Variables<'a> = &'a [(&'a str, &'a str)];

/// Records a checkpoint with these variables set; gives the agent's id and the task as stored.
fn emit(sandbox: &Sandbox, variables: Variables<'_>, args: &[&str]) -> (String, Value) {
    let run = sandbox.cmd(["emit", "--json", "--no-post"].iter().chain(args));
    ran(sandbox, variables.iter().fold(run, |run, (name, value)| run.env(name, value)))
}

fn ran(sandbox: &Sandbox, run: Run<'_>) -> (String, Value) {
    let receipt = run.run().success().stderr_is("").json();
    let agent = receipt["agent_id"].as_str().expect("an agent id").to_owned();
    let task = receipt["task_id"].as_str().expect("a task id").to_owned();
    let shown = sandbox.cmd(["show", "--json", &task]).run().success().json();
    assert_eq!(shown["agent_id"], agent);
    (agent, shown)
}

/// `tester@HOST`, as the sandbox's environment and this machine have it.
fn user_at_host() -> String {
    let host = gethostname().expect("a host name").into_string().expect("UTF-8");
    format!("tester@{}", host.split('.').next().expect("a part"))
}

#[test]
fn a_coding_agents_session_is_the_agent() {
    let sandbox = Sandbox::new();
    for (variable, id) in [
        ("CLAUDE_CODE_SESSION_ID", "claude:s-1"),
        ("CODEX_THREAD_ID", "codex:s-1"),
        ("GEMINI_SESSION_ID", "gemini:s-1"),
        ("CURSOR_TRACE_ID", "cursor:s-1"),
    ] {
        assert_eq!(emit(&sandbox, &[(variable, "s-1")], &[]).0, id);
        // A session inside a CI job is still that session.
        let inside = [("GITHUB_ACTIONS", "true"), ("GITHUB_RUN_ID", "1"), (variable, "s-2")];
        assert!(emit(&sandbox, &inside, &[]).0.ends_with(":s-2"), "{variable}");
    }
    assert_eq!(emit(&sandbox, &[("CLAUDE_CODE_SESSION_ID", " ")], &[]).0, format!("{}:work", user_at_host()));
}

#[test]
fn each_ci_system_names_its_run_and_job_and_repository() {
    let sandbox = Sandbox::new();
    let rows: [(Variables, &str, Option<&str>); 11] = [
        (
            &[
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_RUN_ID", "42"),
                ("GITHUB_RUN_ATTEMPT", "2"),
                ("GITHUB_JOB", "build"),
                ("GITHUB_REPOSITORY", "acme/rocket"),
            ],
            "github/acme/rocket/42.2/build",
            Some("acme/rocket"),
        ),
        (
            &[
                ("GITLAB_CI", "true"),
                ("CI_PIPELINE_ID", "7"),
                ("CI_JOB_ID", "99"),
                ("CI_JOB_NAME", "test"),
                ("CI_PROJECT_PATH", "acme/rocket"),
            ],
            "gitlab/acme/rocket/7/test/99",
            Some("acme/rocket"),
        ),
        (
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_BUILD_ID", "b1"),
                ("BUILDKITE_JOB_ID", "j1"),
                ("BUILDKITE_REPO", "git@example.com:acme/rocket.git"),
            ],
            "buildkite/acme/rocket/b1/j1",
            Some("acme/rocket"),
        ),
        (
            &[
                ("CIRCLECI", "true"),
                ("CIRCLE_WORKFLOW_ID", "w1"),
                ("CIRCLE_JOB", "test"),
                ("CIRCLE_BUILD_NUM", "5"),
                ("CIRCLE_PROJECT_USERNAME", "acme"),
                ("CIRCLE_PROJECT_REPONAME", "rocket"),
            ],
            "circleci/acme/rocket/w1/test/5",
            Some("acme/rocket"),
        ),
        (
            &[
                ("TF_BUILD", "True"),
                ("BUILD_BUILDID", "11"),
                ("SYSTEM_JOBID", "j2"),
                ("BUILD_REPOSITORY_NAME", "rocket"),
            ],
            "azure/rocket/11/j2",
            Some("rocket"),
        ),
        (
            &[
                ("BITBUCKET_BUILD_NUMBER", "12"),
                ("BITBUCKET_STEP_UUID", "{s1}"),
                ("BITBUCKET_REPO_FULL_NAME", "acme/rocket"),
            ],
            "bitbucket/acme/rocket/12/{s1}",
            Some("acme/rocket"),
        ),
        (
            &[
                ("TRAVIS", "true"),
                ("TRAVIS_BUILD_ID", "13"),
                ("TRAVIS_JOB_ID", "14"),
                ("TRAVIS_REPO_SLUG", "acme/rocket"),
            ],
            "travis/acme/rocket/13/14",
            Some("acme/rocket"),
        ),
        (
            &[
                ("DRONE", "true"),
                ("DRONE_BUILD_NUMBER", "15"),
                ("DRONE_STAGE_NAME", "main"),
                ("DRONE_STEP_NAME", "test"),
                ("DRONE_REPO", "acme/rocket"),
            ],
            "drone/acme/rocket/15/main/test",
            Some("acme/rocket"),
        ),
        (
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_NUMBER", "16"),
                ("CI_STEP_NAME", "test"),
                ("CI_REPO", "acme/rocket"),
            ],
            "woodpecker/acme/rocket/16/test",
            Some("acme/rocket"),
        ),
        (
            &[("TEAMCITY_VERSION", "2026.1"), ("BUILD_NUMBER", "17"), ("TEAMCITY_BUILDCONF_NAME", "Test")],
            "teamcity/17/Test",
            None,
        ),
        (
            &[
                ("JENKINS_URL", "https://ci.example.com/"),
                ("BUILD_ID", "18"),
                ("BUILD_TAG", "jenkins-rocket-18"),
                ("STAGE_NAME", "Test"),
                ("GIT_URL", "https://ana:hunter2secret@example.com/acme/rocket.git"),
            ],
            "jenkins/acme/rocket/jenkins-rocket-18/Test",
            Some("acme/rocket"),
        ),
    ];
    for (variables, id, repo) in rows {
        let (agent, task) = emit(&sandbox, variables, &[]);
        assert_eq!(agent, id);
        assert_eq!(task["repo"].as_str(), repo, "{id}");
    }
    // A variable that says no more than that some CI is at work is not enough.
    assert_eq!(emit(&sandbox, &[("CI", "true")], &[]).0, format!("{}:work", user_at_host()));
    assert_eq!(emit(&sandbox, &[("GITHUB_ACTIONS", "true")], &[]).0, format!("{}:work", user_at_host()));
}

#[test]
fn a_place_is_named_by_user_host_and_git_root_or_directory() {
    let sandbox = Sandbox::new();
    sandbox.write("plain/deep/.keep", "");
    sandbox.write(
        "rocket/.git/config",
        "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = git@example.com:acme/rocket.git\n",
    );
    sandbox.write("rocket/src/bin/.keep", "");
    // A linked work tree is a place of its own in the same repository.
    let linked = sandbox.work().join("rocket/.git/worktrees/hotfix");
    sandbox.write("hotfix/.git", format!("gitdir: {}\n", linked.display()));
    sandbox.write(linked.join("commondir"), "../..\n");
    sandbox.write(
        "other/.git/config",
        "[remote \"upstream\"]\n\turl = https://example.com/a/b\n[branch \"main\"]\n\turl = none\n",
    );
    for (directory, name, repo) in [
        ("plain", "plain", None),
        ("plain/deep", "deep", None),
        ("rocket", "rocket", Some("acme/rocket")),
        ("rocket/src/bin", "rocket", Some("acme/rocket")),
        ("hotfix", "hotfix", Some("acme/rocket")),
        ("other", "other", None),
    ] {
        let (agent, task) = ran(&sandbox, sandbox.cmd(["emit", "--json", "--no-post"]).dir(directory));
        assert_eq!(agent, format!("{}:{name}", user_at_host()));
        assert_eq!(task["repo"].as_str(), repo, "{directory}");
    }
}

#[test]
fn a_place_has_a_name_whatever_the_surroundings_lack() {
    let sandbox = Sandbox::new();
    let words = ["emit", "--json", "--no-post"];
    let (agent, _) = ran(&sandbox, sandbox.cmd(words).env_remove("USER").env("LOGNAME", "someone"));
    assert_eq!(agent, format!("someone@{}:work", user_at_host().replace("tester@", "")));
    let (agent, _) = ran(&sandbox, sandbox.cmd(words).env_remove("USER").env_remove("LOGNAME"));
    assert!(!agent.starts_with('@') && agent.ends_with(":work"), "{agent}");
    // What a variable holds stays one line of at most 255 characters.
    let long = "s\n".repeat(200);
    let (agent, _) = ran(&sandbox, sandbox.cmd(words).env("CLAUDE_CODE_SESSION_ID", &long));
    assert_eq!((agent.chars().count(), agent.contains('\n')), (255, false), "{agent}");
}

#[test]
fn what_is_said_comes_before_what_is_found() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".git/config",
        "[remote \"origin\"]\nurl = https://ana:hunter2secret@example.com/acme/rocket\n",
    );
    sandbox.env("CLAUDE_CODE_SESSION_ID", "s-1");
    let (agent, task) = emit(&sandbox, &[], &[]);
    assert_eq!((agent.as_str(), &task["repo"]), ("claude:s-1", &"acme/rocket".into()));
    let ci = [("GITHUB_ACTIONS", "1"), ("GITHUB_REPOSITORY", "acme/moon")];
    assert_eq!(emit(&sandbox, &ci, &["--new"]).1["repo"], "acme/moon");
    let said = [&ci[..], &[("AGENT_CHECKPOINT_AGENT_ID", "env-bot"), ("AGENT_CHECKPOINT_REPO", "env/repo")]];
    let (agent, task) = emit(&sandbox, &said.concat(), &[]);
    assert_eq!((agent.as_str(), &task["repo"]), ("env-bot", &"env/repo".into()));
    let (agent, task) = emit(&sandbox, &said.concat(), &["-a", "flag-bot", "--repo", "flag/repo"]);
    assert_eq!((agent.as_str(), &task["repo"]), ("flag-bot", &"flag/repo".into()));
}

#[test]
fn calls_from_the_same_place_belong_to_the_same_task() {
    let sandbox = Sandbox::new();
    sandbox.write("rocket/.git/HEAD", "ref: refs/heads/main\n");
    sandbox.write("rocket/src/.keep", "");
    sandbox.write("moon/.keep", "");
    let task = |directory: &str| {
        let run = sandbox.cmd(["emit", "--json", "--no-post", "Step"]).dir(directory).run().success();
        run.json()["task_id"].clone()
    };
    let first = task("rocket");
    assert_eq!(task("rocket"), first);
    assert_eq!(task("rocket/src"), first);
    assert_ne!(task("moon"), first);
}
