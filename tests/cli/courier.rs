//! The courier: one detached process that sends what waits as soon as it may, and ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::fake_slack::{CHANNEL, FakeSlack, Fault, TOKEN, WEBHOOK};
use crate::support::{Sandbox, wait_for};

/// A sandbox that leaves what waits to a courier.
fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    (slack, sandbox)
}

/// Posts an agent's first message, then leaves a state that the interval holds back.
#[track_caller]
fn hold_back(sandbox: &Sandbox, interval: &str) {
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Begins"]).run().success().silent();
    let args = ["emit", "-a", "bot", "-s", "working", "--min-interval", interval, "--json", "Held back"];
    let receipt = sandbox.cmd(args).run().success().stderr_is("").json();
    assert_eq!(receipt["delivery"], "coalesced");
    assert_eq!(receipt["error"], Value::Null);
}

/// The one courier there is, once it has taken over its office.
#[track_caller]
fn only_courier(sandbox: &Sandbox) -> u32 {
    courier_of(sandbox, &sandbox.cache_path())
}

#[track_caller]
fn courier_of(sandbox: &Sandbox, cache: &Path) -> u32 {
    let cache = Connection::open_with_flags(cache, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a cache");
    let office = "SELECT count(*) FROM couriers WHERE owner NOT LIKE 'courier/%'";
    wait_for("a courier at work", || {
        let count: i64 = cache.query_row(office, [], |row| row.get(0)).expect("a table of couriers");
        (count == 1).then_some(())
    });
    let couriers = sandbox.couriers();
    assert_eq!(couriers.len(), 1, "{couriers:?}");
    couriers[0]
}

#[track_caller]
fn wait_until_none(sandbox: &Sandbox) {
    wait_for("the courier's end", || sandbox.couriers().is_empty().then_some(()));
}

#[track_caller]
fn kill_hard(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, Signal::SIGKILL).expect("it lives");
}

/// How each checkpoint of an agent was delivered, in the order recorded.
#[track_caller]
fn deliveries(sandbox: &Sandbox, agent: &str) -> Vec<Value> {
    let shown = sandbox.cmd(["show", agent, "--json"]).run().success().json();
    let checkpoints = shown["checkpoints"].as_array().expect("a list").iter();
    checkpoints.map(|checkpoint| checkpoint["delivery"].clone()).collect()
}

/// The texts posted so far.
fn posts(slack: &FakeSlack) -> Vec<String> {
    let posted = slack.calls("chat.postMessage").into_iter().filter(|call| call.status == 200);
    posted.map(|call| call.args["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_held_back_state_is_sent_by_one_courier_when_the_interval_is_over() {
    let (slack, sandbox) = set_up();
    let began = Instant::now();
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Begins"]).run().success().silent();
    // From now on whoever calls waits for us: here, that is the courier, however slow the calls before it were.
    slack.hold();
    // Far more than the next call takes to begin.
    let args = ["emit", "-a", "bot", "-s", "working", "--min-interval", "5s", "--json", "Held back"];
    assert_eq!(sandbox.cmd(args).run().success().stderr_is("").json()["delivery"], "coalesced");
    only_courier(&sandbox);
    slack.wait_requests(2);
    slack.release();
    wait_until_none(&sandbox);
    let posts = slack.calls("chat.postMessage");
    assert_eq!(posts.len(), 2);
    // The interval counts from the first message's turn; its clock, in whole milliseconds, is another one than ours.
    assert!(posts[1].at - began >= Duration::from_millis(4990), "{:?}", posts[1].at - began);
    let roots = slack.roots();
    assert_eq!(roots.len(), 1);
    let thread = slack.thread(&roots[0].ts);
    assert_eq!(thread.len(), 2);
    assert!(thread[1].text.contains("Last Action: Held back"), "{}", thread[1].text);
    assert!(roots[0].text.contains("Last Action: Held back"), "the card: {}", roots[0].text);
    assert_eq!(deliveries(&sandbox, "bot"), ["sent", "sent"]);
}

#[test]
fn a_courier_retries_after_an_outage_without_another_call() {
    let (slack, sandbox) = set_up();
    // The second one is the courier's, which waits for us until its connection is reset.
    slack.script("*", vec![Fault::Status(503), Fault::Hang]);
    let receipt = sandbox.cmd(["emit", "-a", "bot", "--json", "Hello"]).run().success();
    let receipt = receipt.stderr_has("it is sent as soon as that is possible").json();
    assert_eq!(receipt["delivery"], "queued");
    assert_ne!(receipt["retry_at"], Value::Null);
    only_courier(&sandbox);
    slack.wait_requests(2);
    slack.release();
    wait_until_none(&sandbox);
    assert_eq!(slack.roots().len(), 1);
    assert_eq!(slack.unused_faults(), 0);
    assert_eq!(deliveries(&sandbox, "bot"), ["sent"]);
}

#[test]
fn a_courier_also_sends_what_is_recorded_while_it_waits() {
    let (slack, sandbox) = set_up();
    hold_back(&sandbox, "1h");
    let courier = only_courier(&sandbox);
    for text in ["One", "Two"] {
        let args = ["emit", "-a", "other", "--min-interval", "1s", text];
        sandbox.cmd(args).run().success().silent();
        assert_eq!(only_courier(&sandbox), courier, "it does the work of both");
    }
    wait_for("the other agent's state", || {
        slack.roots().iter().any(|root| root.text.contains("Two")).then_some(())
    });
    assert_eq!(deliveries(&sandbox, "bot"), ["sent", "coalesced"]);
    assert_eq!(only_courier(&sandbox), courier, "something still waits");
    sandbox.cmd(["flush"]).run().success();
    wait_until_none(&sandbox);
    assert_eq!(deliveries(&sandbox, "bot"), ["sent", "sent"]);
}

#[test]
fn there_is_no_courier_without_work_or_leave() {
    let slack = FakeSlack::start();
    // (settings, arguments after an agent's first message)
    for (background, args) in [
        ("auto", &["-f"][..]),
        ("auto", &["-s", "complete"]),
        ("auto", &["--no-post"]),
        ("always", &["--no-post"]),
        ("never", &["--min-interval", "1h"]),
        ("never", &["--deadline", "0", "-f"]),
        ("auto", &["--dry-run", "--min-interval", "1h"]),
    ] {
        slack.set_lenient_rate();
        let sandbox = Sandbox::new();
        sandbox.slack(&slack);
        sandbox.cmd(["emit", "-a", "bot", "--background", "auto"]).run().success().silent();
        assert_eq!(sandbox.couriers(), [0_u32; 0], "after a first message that was sent");
        let run = sandbox.cmd([&["emit", "-a", "bot", "--background", background], args].concat());
        run.run().success();
        assert_eq!(sandbox.couriers(), [0_u32; 0], "{background} {args:?}");
    }
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        sandbox.cmd(["emit", "--background", "always", "-a", "bot"]).run().success();
        assert_eq!(sandbox.couriers(), [0_u32; 0], "without a destination");
    }
}

#[test]
fn whoever_is_to_post_nothing_starts_no_courier_for_others_either() {
    let (slack, sandbox) = set_up();
    let held = ["emit", "-a", "bot", "--background", "never", "--deadline", "0", "Held back"];
    sandbox.cmd(held).run().success();
    for background in ["auto", "always", "never"] {
        sandbox
            .cmd(["emit", "-a", "other", "--no-post", "--background", background])
            .run()
            .success()
            .silent();
        assert_eq!(sandbox.couriers(), [0_u32; 0], "{background}");
    }
    assert_eq!(slack.requests().len(), 0);
}

#[test]
fn always_leaves_the_network_to_a_courier() {
    let (slack, sandbox) = set_up();
    // Whoever called Slack would now wait for an answer until its deadline.
    slack.hold();
    for agent in ["a", "b", "c"] {
        let run = sandbox.cmd(["emit", "--background", "always", "--deadline", "30s", "-a", agent, "--json"]);
        let output = run.run().success().stderr_is("").within(Duration::from_secs(15));
        let receipt = output.json();
        let of_interest = ["delivery", "thread_ts", "message_ts", "error"].map(|key| receipt[key].clone());
        assert_eq!(of_interest, [json!("queued"), Value::Null, Value::Null, Value::Null]);
    }
    let courier = only_courier(&sandbox);
    assert_eq!(slack.wait_requests(1).len(), 1, "only the courier calls, one message at a time");
    slack.release();
    wait_until_none(&sandbox);
    assert_eq!(slack.roots().len(), 3, "by courier {courier}");
    let connections: Vec<u64> = slack.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1], "one process on one connection");
}

#[test]
fn however_many_calls_race_there_is_one_courier_for_a_cache() {
    let (slack, sandbox) = set_up();
    slack.hold();
    let spawn = |n: usize| {
        let agent = format!("agent-{}", n % 6);
        sandbox.cmd(["emit", "--background", "always", "-a", &agent, "--json"]).spawn()
    };
    let children: Vec<Child> = (0..12).map(spawn).collect();
    let mut seen = Vec::new();
    let mut look = || {
        let couriers = sandbox.couriers();
        assert!(couriers.len() <= 1, "{couriers:?}");
        seen.extend(couriers);
    };
    let mut children = children;
    while !children.is_empty() {
        look();
        children.retain_mut(|child| match child.try_wait().expect("a child") {
            Some(status) => {
                assert!(status.success(), "{status}");
                false
            }
            None => true,
        });
    }
    slack.wait_requests(1);
    look();
    seen.dedup();
    assert_eq!(seen, [only_courier(&sandbox)], "never another one");
    slack.release();
    wait_for("all agents' threads", || (slack.roots().len() == 6).then_some(()));
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn a_courier_that_was_killed_is_replaced_by_the_next_call() {
    let (slack, sandbox) = set_up();
    hold_back(&sandbox, "1h");
    let first = only_courier(&sandbox);
    kill_hard(first);
    wait_until_none(&sandbox);
    // Whoever calls waits for us: so the second one is still there when we look.
    slack.hold();
    let newer = ["emit", "-a", "bot", "-s", "blocked", "--background", "always", "Newer"];
    sandbox.cmd(newer).run().success().silent();
    let second = only_courier(&sandbox);
    assert_ne!(first, second);
    slack.release();
    wait_until_none(&sandbox);
    assert_eq!(deliveries(&sandbox, "bot"), ["sent", "coalesced", "sent"]);
    assert_eq!(posts(&slack).len(), 2);
}

#[test]
fn a_courier_ends_when_its_cache_is_gone() {
    let away = |sandbox: &Sandbox| {
        fs::rename(sandbox.cache_path(), sandbox.path().join("away")).expect("a cache");
    };
    let deleted = |sandbox: &Sandbox| {
        let directory = sandbox.cache_path().with_file_name("");
        wait_for("the end of the directory", || fs::remove_dir_all(&directory).ok());
    };
    let replaced = |sandbox: &Sandbox| {
        away(sandbox);
        fs::copy(sandbox.path().join("away"), sandbox.cache_path()).expect("a copy");
    };
    let ways: [&dyn Fn(&Sandbox); 3] = [&away, &deleted, &replaced];
    let sandboxes = ways.map(|way| {
        let (slack, sandbox) = set_up();
        hold_back(&sandbox, "1h");
        only_courier(&sandbox);
        way(&sandbox);
        (slack, sandbox)
    });
    for (slack, sandbox) in sandboxes {
        wait_until_none(&sandbox);
        assert_eq!(posts(&slack).len(), 1, "what was held back is not sent early");
    }
}

#[test]
fn whoever_reads_our_output_sees_its_end_while_the_courier_lives() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot"]).run().success();
    let emit = "\"$BIN\" emit -a bot --min-interval 1h Later";
    // A run ends when nobody holds its output any more. Descriptor 7 is one the program knows nothing of.
    for line in [
        format!("{emit}; echo done"),
        format!("{emit} 2>&1 | cat; echo done"),
        format!("exec 7>&1; {emit} >/dev/null 2>&1; exec 7>&-; echo done"),
        format!("x=$({emit} 2>&1); echo done"),
    ] {
        sandbox.shell(&line).run().success().stdout_is("done\n").stderr_is("");
        only_courier(&sandbox);
    }
    assert_eq!(slack.requests().len(), 1);
}

#[cfg(target_os = "linux")]
mod process {
    //! What the kernel says of a courier.

    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Its process group and session.
    fn group_and_session(pid: u32) -> (u32, u32) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        (fields[2].parse().expect("a group"), fields[3].parse().expect("a session"))
    }

    /// Where its descriptors lead.
    fn descriptors(pid: u32) -> Vec<PathBuf> {
        let listing = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        listing.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
    }

    #[test]
    fn a_courier_keeps_nothing_of_its_caller() {
        let (_slack, sandbox) = set_up();
        sandbox.cmd(["emit", "-a", "bot"]).run().success();
        let line = "exec 7>&1 8<\"$0\" 9>file; \"$BIN\" emit -a bot --min-interval 1h Later";
        sandbox.shell(line).run().success();
        let courier = only_courier(&sandbox);
        wait_for("a session of its own", || (group_and_session(courier) == (courier, courier)).then_some(()));
        let directory = || fs::read_link(format!("/proc/{courier}/cwd")).ok();
        wait_for("another directory", || (directory()?.as_os_str() == "/").then_some(()));
        wait_for("the cache's descriptors and no others", || {
            let state = sandbox.home().join(".local/state");
            let known = |to: &PathBuf| to.starts_with(&state) || to.as_os_str() == "/dev/null";
            let all = descriptors(courier);
            (all.iter().any(|to| to.starts_with(&state)) && all.iter().all(known)).then_some(())
        });
    }

    #[test]
    fn a_courier_survives_the_end_of_its_callers_session() {
        let (slack, sandbox) = set_up();
        sandbox.cmd(["emit", "-a", "bot"]).run().success();
        // As happens to everyone on a terminal that is closed, or in a step of CI that is over.
        // Its call waits for us.
        slack.hold();
        let line =
            "\"$BIN\" emit -a bot -s blocked --background always Later; read go; kill -HUP 0; kill -KILL 0";
        let mut shell = sandbox.shell(&format!("exec setsid sh -c '{line}'")).spawn();
        let courier = wait_for("a courier", || sandbox.couriers().first().copied());
        wait_for("a session of its own", || (group_and_session(courier) == (courier, courier)).then_some(()));
        drop(shell.stdin.take());
        let status = shell.wait().expect("it was not waited for yet");
        assert_eq!(status.signal(), Some(Signal::SIGHUP as i32), "{status}");
        slack.release();
        wait_for("the state that was held back", || (posts(&slack).len() == 2).then_some(()));
        wait_until_none(&sandbox);
    }

    #[test]
    fn a_couriers_command_line_holds_no_secret() {
        for webhook in [false, true] {
            let slack = FakeSlack::start();
            let sandbox = Sandbox::new();
            if webhook { sandbox.webhook(&slack) } else { sandbox.slack(&slack) }
                .env("AGENT_CHECKPOINT_BACKGROUND", "auto");
            hold_back(&sandbox, "1h");
            let line = fs::read(format!("/proc/{}/cmdline", only_courier(&sandbox))).expect("it lives");
            let line = String::from_utf8_lossy(&line);
            assert!(line.contains("courier"), "{line}");
            for secret in [TOKEN, WEBHOOK, "secret"] {
                assert!(!line.contains(secret), "{line}");
            }
        }
    }
}

#[test]
fn a_courier_obeys_the_flags_of_its_caller() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    let destination = format!("SLACK_BOT_TOKEN={}\nSLACK_API_URL={}\n", slack.token(), slack.url());
    let file = sandbox.write("my.env", destination);
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("our own file");
    sandbox.write("my.toml", "background = 'always'\n");
    // The courier's call waits for us.
    slack.hold();
    let flags = ["--cache", "my.db", "--env-file", "my.env", "--config", "my.toml"];
    for text in ["One", "Two"] {
        let args = ["emit", "-a", "bot", "-s", "blocked", text];
        sandbox.cmd([&args[..], &flags].concat()).run().success().silent();
    }
    courier_of(&sandbox, &sandbox.work().join("my.db"));
    slack.release();
    wait_until_none(&sandbox);
    assert_eq!(slack.messages(CHANNEL).len(), 2);
    assert!(!sandbox.cache_path().exists());
}

#[test]
fn what_a_killed_call_was_sending_is_sent_by_the_courier_at_once() {
    let (slack, sandbox) = set_up();
    slack.script("chat.postMessage", vec![Fault::Hang]);
    let mut hanging = sandbox.cmd(["emit", "-a", "bot", "--deadline", "10m", "Hanging"]).spawn();
    slack.wait_requests(1);
    // A courier that finds that message in living hands.
    sandbox.cmd(["emit", "-a", "other", "--background", "always", "Other"]).run().success();
    wait_for("the other message", || (slack.roots().len() == 1).then_some(()));
    only_courier(&sandbox);
    hanging.kill().expect("a live process");
    hanging.wait().expect("an end");
    let since = Instant::now();
    wait_for("the first message", || (slack.roots().len() == 2).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}
