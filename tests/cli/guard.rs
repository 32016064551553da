//! The guard: what an asker or a wrapper that is killed leaves in Slack, with nobody left to see to it but that process.

#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use nix::sys::signal::kill;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getsid};

use crate::ask::Asker;
use crate::fake_slack::{CHANNEL, Fault};
use crate::run_child::signal;
use crate::scene::{Scene, side_by_side, text};
use crate::support::wait_for;

fn scene() -> Scene {
    let scene = Scene::people();
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    scene
}

/// The one guard there is, once it has a session of its own.
#[track_caller]
pub(crate) fn guard(scene: &Scene) -> Pid {
    wait_for("a guard", || {
        let found = scene.sandbox.background("guard");
        assert!(found.len() < 2, "{found:?}");
        let pid = Pid::from_raw(i32::try_from(*found.first()?).ok()?);
        (getsid(Some(pid)) == Ok(pid)).then_some(pid)
    })
}

/// Waits until the message has no buttons, with nobody called for it.
#[track_caller]
fn wait_for_edit(scene: &Scene, ts: &str) -> String {
    wait_for("the edit", || scene.slack.buttons(ts).is_empty().then(|| scene.slack.card(ts).text))
}

/// A courier may stay for what is not due yet.
#[track_caller]
fn wait_until_it_is_gone(scene: &Scene) {
    wait_for("the guard's end", || scene.sandbox.background("guard").is_empty().then_some(()));
}

#[test]
fn a_killed_askers_buttons_go_with_nobody_calling_again() {
    let scene = scene();
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    guard(&scene);
    let pid = asker.process.id();
    // Whoever comes to Slack from now on waits for us.
    scene.slack.hold();
    let before = scene.slack.requests().len();
    signal(&asker.process, Signal::SIGKILL);
    // Its output ends with it, although others are at work.
    assert_eq!(asker.end().code, None);
    scene.slack.wait_requests(before + 1);
    assert!(!scene.slack.buttons(&message.ts).is_empty());
    scene.slack.release();
    let edit = wait_for_edit(&scene, &message.ts);
    assert!(edit.contains(&format!("withdrawn: process {pid} on ")), "{edit}");
    wait_until_it_is_gone(&scene);
    assert_eq!(text(&scene.show("bot"), "status"), "checkpoint");
}

#[test]
fn the_buttons_go_also_of_an_asker_that_is_killed_before_it_knows_that_slack_has_the_question() {
    let scene = scene();
    // The card is answered, the question stands in Slack and nobody is told.
    scene.slack.script("chat.postMessage", vec![Fault::Ok, Fault::HangAfterStoring]);
    let asker = Asker::start(&scene, &["Go on?"]);
    let message = Asker::message(&scene);
    guard(&scene);
    signal(&asker.process, Signal::SIGKILL);
    assert_eq!(asker.end().code, None);
    let edit = wait_for_edit(&scene, &message.ts);
    assert!(edit.contains("withdrawn: process "), "{edit}");
    wait_until_it_is_gone(&scene);
    let questions =
        scene.slack.messages(CHANNEL).into_iter().filter(|message| message.text.contains("Go on?"));
    assert_eq!(
        questions.filter(|message| message.thread_ts.is_some()).count(),
        1,
        "it is found, not posted again"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_guard_outlives_the_process_group_that_is_killed() {
    let scene = scene();
    let line = r#"exec setsid "$BIN" ask -a bot 'Go on?' --timeout 30s"#;
    let mut asker = scene.sandbox.shell(line).spawn();
    let message = Asker::message(&scene);
    guard(&scene);
    killpg(Pid::from_raw(i32::try_from(asker.id()).expect("a number")), Signal::SIGKILL)
        .expect("a live group");
    wait_for_edit(&scene, &message.ts);
    asker.wait().expect("an end");
    wait_until_it_is_gone(&scene);
}

#[test]
fn a_killed_wrappers_card_loses_its_button_with_nobody_calling_again() {
    let scene = scene();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    let mut wrapper = scene.sandbox.cmd(["run", "-a", "bot", "--heartbeat", "1h", "--", "cat"]).spawn();
    let card = wait_for("the button", || scene.slack.newest_with("task:cancel"));
    guard(&scene);
    signal(&wrapper, Signal::SIGKILL);
    wrapper.wait().expect("an end");
    let edit = wait_for_edit(&scene, &card.ts);
    assert!(edit.contains("– ERROR\n") && edit.contains("lost (process "), "{edit}");
    wait_until_it_is_gone(&scene);
}

#[test]
#[cfg(target_os = "linux")]
fn the_end_that_a_wrapper_could_not_write_down_is_written_by_its_guard() {
    side_by_side(
        [("cat", "COMPLETE", "", ""), ("cat; echo why >&2; exit 3", "ERROR", "exit code 3", "why")],
        |row| {
            let (command, status, error, tail) = row;
            let scene = scene();
            scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
            let line = format!("trap '' XFSZ; exec \"$BIN\" run -a bot -- sh -c '{command}'");
            let mut wrapper = scene.sandbox.shell(&line).spawn();
            let card = wait_for("the button", || scene.slack.newest_with("task:cancel"));
            guard(&scene);
            let limited =
                Command::new("prlimit").args(["--fsize=0", "--pid", &wrapper.id().to_string()]).status();
            assert!(limited.expect("prlimit").success());
            drop(wrapper.stdin.take());
            wrapper.wait().expect("an end");
            let edit = wait_for_edit(&scene, &card.ts);
            assert!(edit.contains(&format!("– {status}\n")) && edit.contains(error), "{edit}");
            wait_until_it_is_gone(&scene);
            let shown = scene.show("bot");
            let ends = shown["checkpoints"].as_array().expect("checkpoints");
            let kept = ends.last().expect("one")["tail"].as_str().unwrap_or_default().trim_end();
            assert_eq!(
                (ends.len(), text(&shown, "status"), kept),
                (2, &*status.to_lowercase(), tail),
                "{shown}"
            );
            // It was sent before it could be written down, which is found out.
            wait_for("the rest", || scene.sandbox.couriers().is_empty().then_some(()));
            let posts = scene.slack.thread(&card.ts).into_iter().filter(|message| message.ts != card.ts);
            assert_eq!(posts.filter(|message| message.text.contains(&format!("– {status}\n"))).count(), 1);
        },
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_guard_that_was_stopped_holds_no_wrapper_up_whatever_is_left_to_it() {
    let scene = scene();
    scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    // More than a pipe holds once it is quoted.
    let command = "cat; yes '\"\"\"\"\"\"\"\"' | head -c 60000 >&2; exit 3";
    let line = "trap '' XFSZ; exec \"$BIN\" run -a bot --tail 100000 -- sh -c \"$WORK\"";
    let mut wrapper = scene.sandbox.shell(line).env("WORK", command).spawn();
    wait_for("the button", || scene.slack.newest_with("task:cancel"));
    let guard = guard(&scene);
    kill(guard, Signal::SIGSTOP).expect("a guard");
    let limited = Command::new("prlimit").args(["--fsize=0", "--pid", &wrapper.id().to_string()]).status();
    assert!(limited.expect("prlimit").success());
    drop(wrapper.stdin.take());
    let ended = wait_for("the wrapper's end", || wrapper.try_wait().expect("a child"));
    kill(guard, Signal::SIGKILL).expect("a guard");
    assert_eq!(ended.code(), Some(3));
}

#[test]
fn a_guard_keeps_nothing_of_its_callers_and_is_gone_before_an_asker_or_a_wrapper_that_ends_in_order() {
    side_by_side(["approved", "interrupted", "timed out", "run"], |how| {
        let scene = scene();
        scene.sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
        let (mut process, id) = if how == "run" {
            (scene.sandbox.cmd(["run", "-a", "bot", "--", "cat"]).spawn(), String::new())
        } else {
            let timeout = if how == "timed out" { "3s" } else { "30s" };
            let Asker { process, id } = Asker::start(&scene, &["Go on?", "--timeout", timeout]);
            (process, id)
        };
        let guard = guard(&scene);
        if cfg!(target_os = "linux") {
            let link = |name: &str| std::fs::read_link(format!("/proc/{guard}/{name}")).expect("a link");
            // The last thing that it does before it waits: its descriptors are closed by then.
            wait_for("a guard that has left its caller's directory", || {
                (link("cwd").to_str() == Some("/")).then_some(())
            });
            let open = std::fs::read_dir(format!("/proc/{guard}/fd")).expect("a listing");
            let names = open.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let others: Vec<_> =
                names.filter(|name| link(&format!("fd/{name}")).to_str() != Some("/dev/null")).collect();
            assert_eq!(others, ["0"], "{how}: its pipe alone");
        }
        match how {
            "approved" => drop(scene.sandbox.cmd(["answer", &id, "--approve"]).run().success()),
            "interrupted" => signal(&process, Signal::SIGINT),
            "run" => drop(process.stdin.take()),
            _ => {}
        }
        process.wait().expect("an end");
        let left = scene.sandbox.background("guard");
        assert!(left.is_empty(), "{how}: {left:?}");
    });
}

#[test]
fn there_is_no_guard_where_nobody_waits_or_nothing_is_wanted_in_the_background() {
    let scene = scene();
    scene.sandbox.cmd(["ask", "-a", "bot", "Go on?", "--no-wait"]).run().success();
    assert!(scene.sandbox.background("guard").is_empty());
    scene.sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "never").env("AGENT_CHECKPOINT_MIN_INTERVAL", "1s");
    let asker = Asker::start(&scene, &["And now?", "-a", "other", "--remind", "1s"]);
    wait_for("a reminder, before which a guard would have come", || {
        let all = scene.slack.messages(CHANNEL);
        all.iter().any(|message| message.text.contains("Still waiting")).then_some(())
    });
    assert!(scene.sandbox.background("guard").is_empty());
    scene.sandbox.cmd(["answer", &asker.id, "--approve"]).run().success();
    assert_eq!(asker.end().code, Some(0));
}

#[test]
fn whoever_asks_what_it_is_waits_for_nothing() {
    let scene = scene();
    for words in [&["guard"][..], &["guard", "--help"]] {
        let mut asked = scene.sandbox.cmd(words).spawn();
        let _open = asked.stdin.take().expect("a pipe");
        let code = asked.wait().expect("an end").code();
        assert_eq!(code, Some(if words.len() == 1 { 64 } else { 0 }), "{words:?}");
    }
}
