//! Agents that are started from Slack: how long a request waits, how many do, what nobody can slip in, and what a crash
//! leaves behind.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rusqlite::Connection;

use crate::ask::Asker;
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::COLLEAGUE;
use crate::fake_slack::{CHANNEL, HUMAN};
use crate::launch::{AGENT, Desk, Way};
use crate::run_child::signal;
use crate::scene::{side_by_side, text};
use crate::serve::Server;
use crate::support::wait_for;

/// The id of a request, as it stands in the cache.
fn request_id(desk: &Desk) -> String {
    let cache = Connection::open(desk.scene.sandbox.cache_path()).expect("a cache");
    let sql = "SELECT id FROM questions ORDER BY key DESC LIMIT 1";
    cache.query_row(sql, [], |row| row.get(0)).expect("a question")
}

/// Approves the latest request at a terminal.
fn approve_here(desk: &Desk) {
    desk.scene.sandbox.cmd(["answer", &request_id(desk), "--approve"]).run().success();
}

#[test]
fn hostile_words_are_one_last_argument_or_refused() {
    let desk = Desk::open(Way::Http);
    for words in ["--help", "-x", "\n --dangerously do it", "\u{200b}-x", "\u{0}--help", "<@U0BOT> -x"] {
        assert!(desk.typed(words).contains("not with a dash"), "{words:?}");
    }
    for length in [4001, 40_000] {
        assert!(desk.typed(&"x".repeat(length)).contains("4000 characters"), "{length}");
    }
    assert!(desk.tasks().is_empty());
    let words = "fix it\n--help\n\u{0}'; touch pwned #\" $(touch pwned) `touch pwned` \\ *";
    desk.approve(&desk.asked(words));
    wait_for("the agent", || desk.notes.exists().then_some(()));
    let words = words.replace('\u{0}', "");
    assert_eq!(
        wait_for("a line", || fs::read_to_string(&desk.notes).ok().filter(|notes| notes.ends_with("|\n"))),
        format!("-p|two words|{words}|\n")
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_request_waits_an_hour_for_an_approver() {
    side_by_side([("+59m", true), ("+61m", false)], |(later, starts)| {
        let mut desk = Desk::open(Way::Socket);
        let question = desk.asked("review the parser");
        desk.server.stop();
        let run = desk.scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]);
        let run = run.env("AGENT_CHECKPOINT_LAUNCH", AGENT).env("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
        let run = run.env("SLACK_APP_TOKEN", desk.scene.slack.app_token());
        let run = run.env("LD_PRELOAD", crate::support::faketime());
        desk.server = Server::of(run.env("FAKETIME", later).env("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
        desk.scene.slack.wait_sockets(1);
        if starts {
            desk.approve(&question);
            assert_eq!(desk.started(1), ["-p|two words|review the parser|"]);
            return;
        }
        let task = desk.task(|task| text(task, "state") == "cancelled");
        assert!(text(&task, "action").contains("nobody answered"), "{task}");
        wait_for("the edit", || desk.scene.slack.buttons(&question.ts).is_empty().then_some(()));
        assert!(desk.scene.slack.click_as_seen(&question, "question:approve", COLLEAGUE).acked);
        assert!(desk.scene.slack.wait_ephemerals(1)[0].text.starts_with("Too late"));
        assert!(!desk.notes.exists());
    });
}

#[test]
fn no_more_than_twenty_requests_wait_for_an_approver() {
    let desk = Desk::open(Way::Http);
    let is_asked = |words: &str| desk.typed(words).starts_with("An approver is asked");
    for number in 1..=20 {
        assert!(is_asked(&format!("fix {number}")), "{number}");
    }
    assert_eq!(desk.typed("fix 21"), "No agent is started: 20 requests wait for an approver already.");
    assert_eq!(desk.tasks().len(), 20);
    let one = wait_for("a question", || desk.scene.slack.newest_with("question:reject"));
    assert!(desk.scene.slack.click(&one.ts, "question:reject", COLLEAGUE).acked);
    assert!(is_asked("fix 22"));
    assert!(!is_asked("fix 23"));
}

#[test]
fn a_start_that_is_lost_with_its_server_is_said_and_never_made_up_for() {
    let mut desk = Desk::open(Way::Http);
    let question = desk.asked("test one");
    desk.server.stop();
    approve_here(&desk);
    // Whoever tells that it starts an agent has taken it. Here it cannot tell, and goes no further.
    let full = desk.scene.sandbox.path().join("full");
    mkfifo(&full, Mode::S_IRWXU).expect("a pipe");
    let open = |write: bool| {
        let mut options = fs::OpenOptions::new();
        options.read(!write).write(write).custom_flags(OFlag::O_NONBLOCK.bits()).open(&full).expect("an end")
    };
    let (_reader, mut writer) = (open(false), open(true));
    while writer.write(&[b'x'; 512]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    let line = "exec \"$BIN\" serve --verbose --listen 127.0.0.1:0 2>full";
    let run = desk.scene.sandbox.shell(line).dir(desk.scene.sandbox.path());
    let run = run.env("AGENT_CHECKPOINT_LAUNCH", AGENT).env("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
    let mut server = run.spawn();
    let cache = Connection::open(desk.scene.sandbox.cache_path()).expect("a cache");
    let sql = "SELECT 1 FROM requests WHERE type = 'launched'";
    wait_for("the start to be taken", || cache.query_row(sql, [], |_| Ok(())).ok());
    signal(&server, Signal::SIGKILL);
    server.wait().expect("an end");
    desk.server = desk.another_server(COLLEAGUE);
    wait_for("a word in the thread", || {
        let thread = desk.scene.slack.thread(question.thread_ts.as_ref()?);
        thread.iter().any(|message| message.text.contains("lost (process ")).then_some(())
    });
    let task = desk.task(|task| text(task, "state") == "failed");
    assert!(text(&task, "error").contains("ended without a word"), "{task}");
    // The next one is started, and it alone.
    desk.scene.slack.interactivity(&format!("http://{}", desk.server.address), SIGNING_SECRET);
    desk.approve(&desk.asked("test two"));
    assert_eq!(desk.started(1), ["-p|two words|test two|"]);
}

#[test]
fn a_wrapper_that_cannot_begin_is_told_in_the_thread_and_takes_up_no_place() {
    let mut desk = Desk::open(Way::Http);
    let settings = desk.scene.sandbox.write("serve.env", "AGENT_CHECKPOINT_LAUNCH_MAX=1\n");
    let run = desk.scene.sandbox.cmd(
        ["serve", "--listen", "127.0.0.1:0", "--env-file"]
            .map(str::to_owned)
            .into_iter()
            .chain([settings.to_string_lossy().into_owned()]),
    );
    let run = run.env("AGENT_CHECKPOINT_LAUNCH", AGENT).env("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
    desk.server.stop();
    desk.server = Server::of(run.env("SLACK_SIGNING_SECRET", SIGNING_SECRET));
    desk.scene.slack.interactivity(&format!("http://{}", desk.server.address), SIGNING_SECRET);
    let question = desk.asked("build it");
    desk.scene.sandbox.write("serve.env", "nonsense\n");
    desk.approve(&question);
    let task = desk.task(|task| text(task, "state") == "failed");
    let why =
        format!("{}: line 1 is not KEY=VALUE; write for example SLACK_CHANNEL=#agents", settings.display());
    assert_eq!(
        text(&task, "error"),
        format!("could not start it: exit code 64: could not read env file: {why}")
    );
    desk.scene.sandbox.write("serve.env", "");
    assert!(desk.scene.slack.mention(CHANNEL, None, HUMAN, "build it again").1.acked);
    // The courier could not begin either.
    desk.scene.sandbox.cmd(["flush"]).run().success();
    let again = wait_for("the next request", || {
        let found = desk.scene.slack.newest_with("question:approve")?;
        serde_json::to_string(&found.blocks).is_ok_and(|blocks| blocks.contains("again")).then_some(found)
    });
    desk.approve(&again);
    assert_eq!(desk.started(1), ["-p|two words|build it again|"]);
}

#[test]
fn an_agent_goes_on_no_longer_than_the_settings_allow() {
    let desk = Desk::with(
        Way::Http,
        &[
            ("AGENT_CHECKPOINT_LAUNCH", AGENT),
            ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE),
            ("AGENT_CHECKPOINT_TIMEOUT", "4s"),
        ],
    );
    desk.approve(&desk.asked("analyze it"));
    let task = desk.task(|task| text(task, "state") == "failed");
    assert!(text(&task, "error").contains("its time was over after "), "{task}");
    let wrapper = fs::read_to_string(desk.notes.with_extension("args")).expect("how it was wrapped");
    assert!(!wrapper.contains("--timeout"), "{wrapper}");
}

#[test]
fn what_an_asker_hears_is_left_to_serve_and_whoever_approves_is_told_so() {
    let mut desk = Desk::with(Way::Socket, &[]);
    desk.server.stop();
    let (scene, sandbox) = (&desk.scene, &desk.scene.sandbox);
    sandbox.env("SLACK_APP_TOKEN", scene.slack.app_token());
    let ask = |words: &[&str]| {
        let asker = Asker::start(scene, words);
        scene.slack.wait_sockets(1);
        asker
    };
    let mut deaf = ask(&["Go on?"]);
    let told = desk.mentioned(HUMAN, "fix it");
    let both = "for `agent-checkpoint serve` and for all that listen with its app token";
    assert!(told.starts_with("No agent is started") && told.contains(both), "{told}");
    signal(&deaf.process, Signal::SIGINT);
    deaf.process.wait().expect("an end");
    sandbox.env("AGENT_CHECKPOINT_LAUNCH", AGENT).env("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
    let mut asker = ask(&["And now?", "--approver", COLLEAGUE]);
    assert!(scene.slack.mention(CHANNEL, None, HUMAN, "fix it").1.acked);
    // The asker's own question may come after it.
    let request = wait_for("the request", || {
        let mut all = scene.slack.messages(CHANNEL).into_iter();
        all.find(|message| {
            message.text.contains("The start of agent")
                && scene.slack.has_button(&message.ts, "question:approve")
        })
    });
    desk.approve(&request);
    let told = scene.slack.wait_ephemerals(1).remove(0);
    assert_eq!(
        told.text,
        "An `agent-checkpoint serve` that starts agents does it, if one runs within the hour."
    );
    assert!(!desk.notes.exists());
    // The asker goes on listening meanwhile.
    let server = Server::start(sandbox);
    assert_eq!(desk.started(1), ["-p|two words|fix it|"]);
    assert!(asker.process.try_wait().expect("a state").is_none());
    signal(&asker.process, Signal::SIGINT);
    asker.process.wait().expect("an end");
    drop(server);
}
