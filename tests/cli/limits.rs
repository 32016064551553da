//! A surrounding that allows little, or never ends: limits, masks, and pipes that nobody closes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::fake_slack::CHANNEL;
use crate::scene::{Scene, side_by_side};

/// As the system ends a program by SIGXFSZ.
const ENDED_BY_THE_LIMIT: i32 = 128 + 25;

#[test]
fn a_limit_on_files_is_met_like_a_full_disk() {
    // In blocks of 512 bytes: from nothing at all to a database whose log cannot hold the first checkpoint.
    for limit in [0, 1, 8, 64, 200] {
        let scene = Scene::bot();
        let line = format!("ulimit -f {limit}; exec \"$BIN\" emit --json -a bot -s blocked 'No room'");
        let output = scene.sandbox.shell(&line).run().success();
        let receipt = output.json();
        assert_eq!(receipt["delivery"], "sent", "{limit}: {receipt}");
        assert_eq!(scene.slack.roots().len(), 1, "{limit}");
        if receipt["task_id"].is_null() {
            output.stderr_has("going on without state").stderr_has("ulimit -f");
        } else {
            assert!(limit > 8, "{receipt}");
        }
    }
}

#[test]
fn a_command_meets_a_limit_on_files_as_it_would_without_us() {
    let scene = Scene::bot();
    let run = "\"$BIN\" run -a bot --no-post -- sh -c 'exec head -c 4096 /dev/zero > file'";
    scene.sandbox.shell(&format!("ulimit -f 1; exec {run}")).run().code(ENDED_BY_THE_LIMIT);
    // Who ignores the signal finds it ignored behind us, too, where the system tells what is ignored.
    if cfg!(target_os = "linux") {
        scene.sandbox.shell(&format!("trap '' XFSZ; ulimit -f 1; exec {run}")).run().code(1);
    }
}

#[test]
fn a_pipe_without_a_writer_holds_nobody_up() {
    let scene = Scene::bot();
    let pipe = scene.sandbox.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let name = pipe.to_str().expect("plain characters");
    let why = "pipe: it does not end within 3 s; messages wait until it is mended\n";
    let rows = [
        ("AGENT_CHECKPOINT_CONFIG", name.to_owned(), "queued", why),
        ("AGENT_CHECKPOINT_ENV_FILE", name.to_owned(), "queued", why),
        (
            "SLACK_BOT_TOKEN",
            format!("file:{name}"),
            "queued",
            "could not be read: it does not end within 3 s",
        ),
    ];
    side_by_side(rows, |(variable, value, delivery, why)| {
        let output = scene.emit(["-a", variable, "one"]).env(variable, value).run().success();
        let output = output.within(Duration::from_secs(20)).stderr_has(why);
        assert_eq!(output.json()["delivery"], delivery, "{variable}");
    });
    // In place of certificates it is nothing to trust; in place of the cache's lock it is no lock.
    let api = scene.emit(["-a", "certificates", "one"]).env("SLACK_API_URL", "https://127.0.0.1:9/");
    let output = api.env("SSL_CERT_FILE", name).env("AGENT_CHECKPOINT_DEADLINE", "2s").run().success();
    assert_eq!(output.within(Duration::from_secs(20)).json()["delivery"], "queued");
    let cache = scene.sandbox.path().join("new.db");
    std::fs::rename(&pipe, scene.sandbox.path().join("new.db.lock")).expect("our own pipe");
    let output = scene.emit(["one"]).env("AGENT_CHECKPOINT_CACHE", cache).run().success();
    assert_eq!(output.stderr_has("going on without state").json()["delivery"], "sent");
}

#[test]
fn settings_may_come_by_a_pipe_from_a_command() {
    let scene = Scene::bot();
    let late = "sleep 0.2; printf";
    for line in [
        format!("exec \"$BIN\" emit -a bot --config <({late} 'task_name = \"From a pipe\"\\n') one"),
        format!(
            "exec \"$BIN\" emit -a bot --env-file <({late} 'AGENT_CHECKPOINT_TASK_NAME=From a pipe\\n') one"
        ),
        format!(
            "SLACK_BOT_TOKEN=file:<({late} \"$SLACK_BOT_TOKEN\") exec \"$BIN\" emit -t 'From a pipe' -a bot one"
        ),
    ] {
        let line = format!("exec bash -c '{}'", line.replace('\'', "'\\''"));
        scene.sandbox.shell(&line).run().success().stderr_is("");
        let newest = scene.slack.roots().pop().expect("a message");
        assert!(newest.text.contains("Task: From a pipe"), "{line}: {}", newest.text);
        std::fs::remove_dir_all(scene.sandbox.home().join(".local")).expect("a cache to begin anew without");
    }
}

#[test]
fn a_courier_that_cannot_read_the_settings_again_is_not_promised() {
    let scene = Scene::bot();
    let config = scene.sandbox.write("config.toml", "task_name = \"From a pipe\"\n");
    let emit = "\"$BIN\" emit --background auto -a bot --config <(cat \"$CONFIG\")";
    let line = format!("{emit} -s starting one && exec {emit} two");
    let run = scene.sandbox.shell("exec bash -c \"$LINE\"").env("LINE", &line).env("CONFIG", &config);
    run.run().success().stderr_is(
        "agent-checkpoint: warning: could not start a courier: its settings came by a pipe, which can be read only once\n\
         hint: the next call or agent-checkpoint flush sends it\n",
    );
    assert_eq!(scene.sandbox.couriers(), [0; 0]);
}

#[test]
fn whoever_pipes_an_action_in_has_all_the_time_in_the_world() {
    let scene = Scene::bot();
    // The deadline is for the network: time has to pass here, longer than it.
    let line = r#"{ printf "Half a "; sleep 4.5; printf sentence; } | "$BIN" emit -a bot --deadline 4s -"#;
    scene.sandbox.shell(line).run().success();
    let checkpoint = scene.show("bot")["checkpoints"][0].clone();
    assert_eq!((&checkpoint["action"], &checkpoint["delivery"]), (&json!("Half a sentence"), &json!("sent")));
}

#[test]
fn an_action_without_an_end_is_cut() {
    let scene = Scene::bot();
    let line = r#"yes "all work and no play" | "$BIN" emit -a bot --deadline 50s -"#;
    scene.sandbox.shell(line).run().success().stderr_has("cut off after 4 MiB");
    assert_eq!(scene.slack.roots().len(), 1);
}

#[test]
fn directories_are_ours_to_use_whatever_the_mask_for_new_files() {
    for mask in ["0177", "0"] {
        let scene = Scene::bot();
        let line = format!("umask {mask}; exec \"$BIN\" emit -a bot --json one");
        let output = scene.sandbox.shell(&line).run().success().stderr_is("");
        assert!(!output.json()["task_id"].is_null(), "{mask}: {output}");
        let (home, cache) = (scene.sandbox.home(), scene.sandbox.cache_path());
        let mode = |path: &Path| std::fs::metadata(path).expect("it was made").permissions().mode() & 0o777;
        for folder in cache.ancestors().skip(1).take_while(|folder| *folder != home) {
            assert_eq!(mode(folder), 0o700, "{mask}: {}", folder.display());
        }
        assert_eq!(mode(&cache), 0o600, "{mask}");
    }
}

#[test]
fn a_relative_home_does_not_make_a_cache_in_every_directory() {
    let scene = Scene::bot();
    for name in ["XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        scene.sandbox.env_remove(name);
    }
    scene.sandbox.write("lost/.config/agent-checkpoint/config.toml", "channel = \"#general\"\n");
    let output = scene.emit(["one"]).env("HOME", "lost").run().success();
    assert_eq!(output.json()["channel"], CHANNEL, "{output}");
    output.stderr_has("HOME: 'lost' is not an absolute path\n").stderr_has("going on without state");
    assert!(!scene.sandbox.work().join("lost/.local").exists());
    // A file that is named is used all the same.
    let named = scene.emit(["two"]).env("HOME", "lost").env("AGENT_CHECKPOINT_CACHE", "named.db").run();
    assert!(!named.success().stderr_is("").json()["task_id"].is_null());
}

#[test]
fn doctor_finds_a_cache_that_can_be_read_and_not_written() {
    let scene = Scene::bot();
    scene.sent(["one"]);
    // All of it is there, and longer than that: only what is written would be beyond.
    let output = scene.sandbox.shell("ulimit -f 64; exec \"$BIN\" doctor").run().code(78);
    output.stdout_has("FAIL cache").stdout_has("ulimit -f").lacks("ok   cache");
    scene.sandbox.cmd(["doctor"]).run().success().stdout_has("ok   cache");
}
