//! Credentials in what a wrapped command is called and writes: masked before they are stored, sent or printed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::scene::{Scene, text};

/// Asserts that none of these texts is anywhere but on the streams of the command itself.
#[track_caller]
fn assert_nowhere(scene: &Scene, texts: &[&str]) {
    let mut places = vec![("Slack".to_owned(), Vec::new())];
    for request in scene.slack.requests() {
        places[0].1.extend_from_slice(&request.body);
    }
    let folder = scene.sandbox.cache_path().with_file_name("");
    for entry in fs::read_dir(folder).expect("the cache's folder").flatten() {
        places.push((entry.path().display().to_string(), fs::read(entry.path()).expect("a file")));
    }
    let shown = scene.sandbox.cmd(["show", "--json", "bot"]).run();
    places.push(("show".to_owned(), shown.stdout.into_bytes()));
    for (place, bytes) in places {
        for text in texts {
            let found = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!found, "{text} in {place}");
        }
    }
}

#[test]
fn no_secret_of_the_commands_surroundings_or_of_a_known_shape_gets_out() {
    let scene = Scene::bot();
    let github = ["ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"].concat();
    let secrets = [
        ("DEPLOY_TOKEN", "hunter2hunter2"),
        ("db_password", "correct horse battery"),
        ("STRIPE_API_KEY", "live/4242424242"),
        ("SIGNING_KEY", "kkkkkkkkkk"),
        ("OAUTH_HEADER", "Basic dXNlcjpwYXNz"),
        ("LONG_SECRET", "first-line\nsecond-line\n"),
    ];
    for (name, value) in secrets {
        scene.sandbox.env(name, value);
    }
    let script = r#"
        printf 'one %s\n' "$DEPLOY_TOKEN" >&2
        printf 'two %.7s\033[31m%s\033[0m\n' "$DEPLOY_TOKEN" "hunter2" >&2
        printf 'three [%s]\n' "$db_password" "$STRIPE_API_KEY" "$SIGNING_KEY" "$OAUTH_HEADER" "$SLACK_BOT_TOKEN" "$1" >&2
        printf "$LONG_SECRET" | tail -n 1 >&2
        exit 1"#;
    let words =
        ["run", "-a", "bot", "--task-name", &github, "--meta", &format!("k={github}"), "--json", "--"];
    let words = [&words[..], &["sh", "-c", script, "sh", &github, "hunter2hunter2"]].concat();
    let output = scene.sandbox.cmd(words).run().code(1);
    // The command's own output is its own.
    let output = output.stderr_has("one hunter2hunter2\n").stderr_has(&github);
    let receipt: Value = output.json();
    assert_eq!(text(&receipt, "delivery"), "sent");
    let mut texts: Vec<&str> = secrets.iter().map(|(_, value)| *value).collect();
    texts.extend([github.as_str(), scene.slack.token(), "second-line"]);
    assert_nowhere(&scene, &texts);
    let end = scene.show("bot")["checkpoints"][1]["tail"].as_str().expect("a tail").to_owned();
    assert_eq!(end.lines().count(), 9, "{end}");
    assert!(end.starts_with("one [masked]\ntwo [masked]\n"), "{end}");
}

#[test]
fn progress_and_what_cannot_be_started_are_masked_too() {
    let scene = Scene::bot();
    scene.sandbox.env("DEPLOY_TOKEN", "hunter2hunter2");
    let pattern = "(?P<percent>[0-9]+)% (?P<action>.*)";
    let words = ["run", "-a", "bot", "--progress-regex", pattern, "--", "sh", "-c", "echo 5% $DEPLOY_TOKEN"];
    scene.sandbox.cmd(words).run().success().stdout_is("5% hunter2hunter2\n");
    assert_nowhere(&scene, &["hunter2hunter2"]);
    assert_eq!(scene.show("bot")["checkpoints"][1]["action"], "[masked]");
    let output = scene.sandbox.cmd(["run", "-a", "bot", "--", "./hunter2hunter2"]).run().code(127);
    assert_nowhere(&scene, &["hunter2hunter2"]);
    output.lacks("hunter2hunter2");
}

#[test]
fn a_credential_that_only_its_name_tells_is_masked_in_meta_too() {
    let scene = Scene::bot();
    let key = ["wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEY"].concat();
    let meta = format!("aws_secret_access_key={key}");
    scene.sandbox.cmd(["run", "-a", "bot", "--meta", &meta, "--", "true"]).run().success();
    let shown = scene.show("bot");
    assert_eq!(shown["checkpoints"][0]["meta"], serde_json::json!({ "aws_secret_access_key": "[masked]" }));
    assert_nowhere(&scene, &[&key]);
}

#[test]
fn ordinary_variables_are_no_secrets() {
    let scene = Scene::bot();
    let ordinary =
        [("LD_LIBRARY_PATH", "/opt/some/lib"), ("GIT_AUTHOR_NAME", "Ana Example"), ("API_TOKEN", "short")];
    for (name, value) in ordinary {
        scene.sandbox.env(name, value);
    }
    let script = "echo $LD_LIBRARY_PATH, $GIT_AUTHOR_NAME, $API_TOKEN; exit 1";
    scene.sandbox.cmd(["run", "-a", "bot", "--no-post", "--", "sh", "-c", script]).run().code(1);
    assert_eq!(scene.show("bot")["checkpoints"][1]["tail"], "/opt/some/lib, Ana Example, short");
}

#[test]
fn a_credential_that_only_ends_in_the_last_lines_is_masked() {
    let scene = Scene::bot();
    scene.sandbox.env("DEPLOY_TOKEN", "hunter2hunter2");
    // One endless line that is cut inside of the token, wherever that is done; a key block that begins before the
    // last lines.
    let script = r#"
        i=0; while [ $i -lt 24000 ]; do printf %s "$DEPLOY_TOKEN"; i=$((i+1)); done >&2
        exit 1"#;
    scene.sandbox.cmd(["run", "-a", "bot", "--", "sh", "-c", script]).run().code(1);
    let tail = scene.show("bot")["checkpoints"][1]["tail"].as_str().expect("a tail").to_owned();
    assert!(tail.len() > 10_000 && tail.replace("[masked]", "").is_empty(), "{}", &tail[..100]);
    let script = r#"
        echo before >&2; echo "-----BEGIN PRIVATE KEY-----" >&2
        for line in 1 2 3 4 5 6 7 8 9; do echo "keyMaterial$line" >&2; done
        echo "-----END PRIVATE KEY-----" >&2; echo after >&2
        exit 1"#;
    scene.sandbox.cmd(["run", "-a", "bot", "--new", "--tail", "4", "--", "sh", "-c", script]).run().code(1);
    assert_eq!(scene.show("bot")["checkpoints"][1]["tail"], "… 9 lines before\n[masked]\nafter");
    assert_nowhere(&scene, &["hunter2", "keyMaterial"]);
}

#[test]
fn a_secret_on_the_command_line_gets_no_further() {
    let scene = Scene::bot();
    let script = "echo \"cannot log in with $0 or $2\" >&2; exit 3";
    let line = [
        "run",
        "-a",
        "bot",
        "--",
        "sh",
        "-c",
        script,
        "--password=hunter2-hunter2",
        "--api-key",
        "k1-k2-k3-k4",
    ];
    let output = scene.sandbox.cmd(line).run().code(3);
    // The command's own output is its own affair.
    output.stderr_has("hunter2-hunter2");
    assert_nowhere(&scene, &["hunter2-hunter2", "k1-k2-k3-k4"]);
    assert!(scene.root().text.contains("--password=[masked] --api-key [masked]"), "{}", scene.root().text);
}

#[test]
fn a_secret_that_is_no_utf_8_is_masked_as_well() {
    let scene = Scene::bot();
    scene.sandbox.env("LATIN_TOKEN", OsStr::from_bytes(b"caf\xe9-latin-secret"));
    let script = r#"printf 'pass %s\n' "$LATIN_TOKEN" >&2; exit 1"#;
    scene.sandbox.cmd(["run", "-a", "bot", "-q", "--", "sh", "-c", script]).run().code(1);
    assert_nowhere(&scene, &["latin-secret"]);
    assert!(scene.thread().len() == 2, "{:?}", scene.thread());
}
