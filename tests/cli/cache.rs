//! Caches that are missing, damaged, foreign, newer or not writable: a call repairs what it may and posts in any case.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rusqlite::Connection;
use serde_json::Value;

use crate::fake_slack::FakeSlack;
#[cfg(target_os = "linux")]
use crate::support::wait_for;
use crate::support::{Output, Run, Sandbox};

const PAGE: usize = 4096;

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// Records some tasks, and moves all of it from the log into the file.
#[track_caller]
fn fill(sandbox: &Sandbox) {
    for agent in ["a", "b"] {
        for text in ["One", "Two"] {
            sandbox.cmd(["emit", "-a", agent, "--no-post", text]).run().success();
        }
    }
    sandbox.cmd(["emit", "-a", "bot", "-s", "starting", "Before"]).run().success().silent();
    let cache = Connection::open(sandbox.cache_path()).expect("a cache");
    cache.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody else uses it");
}

/// Something done to the file of the cache.
type Deed<'a> = &'a dyn Fn(&Path);

/// A message that is sent whatever the interval.
fn emit(sandbox: &Sandbox) -> Run<'_> {
    sandbox.cmd(["emit", "-a", "bot", "-s", "blocked", "--json", "After"])
}

/// The files beside the cache that were set aside, without their logs.
fn set_aside(cache: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(cache.with_file_name("")).expect("a directory").flatten();
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<PathBuf> = listing
        .map(|entry| entry.path())
        .filter(|path| name(path).starts_with("cache.db.corrupt-"))
        .filter(|path| !name(path).ends_with("-wal") && !name(path).ends_with("-shm"))
        .collect();
    found.sort();
    found
}

#[track_caller]
fn overwrite(path: &Path, from: usize, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).expect("a cache");
    file.seek(SeekFrom::Start(u64::try_from(from).expect("small"))).expect("a place in it");
    file.write_all(bytes).expect("our own file");
}

/// Sent, although there is no state: a message of its own.
#[track_caller]
fn assert_stateless(output: Output, why: &str) -> Output {
    let output = output.success().stderr_has(why).stderr_has("going on without state");
    let receipt = output.json();
    assert_eq!(receipt["delivery"], "sent", "{receipt}");
    assert_eq!(receipt["task_id"], Value::Null);
    assert_ne!(receipt["message_ts"], Value::Null);
    let warnings = receipt["warnings"].to_string();
    assert!(warnings.contains(why), "{warnings}");
    output
}

#[test]
fn a_damaged_cache_is_set_aside_and_kept_and_the_message_posted() {
    let garbage: Vec<u8> = (0..3 * PAGE).map(|n| (n * 7919 % 251) as u8).collect();
    let ways: [(&str, Deed<'_>); 6] = [
        ("garbage", &|cache| fs::write(cache, &garbage).expect("our own file")),
        ("a short text", &|cache| fs::write(cache, "not a database\n").expect("our own file")),
        ("cut inside the first page", &|cache| cut(cache, 1000)),
        ("cut after the first page", &|cache| cut(cache, PAGE)),
        ("cut in the middle", &|cache| cut(cache, 3 * PAGE + 100)),
        ("garbage behind the header", &|cache| overwrite(cache, 100, &garbage)),
    ];
    for (what, damage) in ways {
        let (slack, sandbox) = set_up();
        fill(&sandbox);
        let cache = sandbox.cache_path();
        damage(&cache);
        let damaged = fs::read(&cache).expect("a file");
        let output = emit(&sandbox).run().success();
        let aside = set_aside(&cache);
        assert_eq!(aside.len(), 1, "{what}: {output}");
        assert_eq!(fs::read(&aside[0]).expect("a file"), damaged, "{what}: it is kept as it was");
        let words = format!(
            "agent-checkpoint: cache {} was damaged; started afresh\nhint: the damaged one is kept as {}\n",
            cache.display(),
            aside[0].display()
        );
        let receipt = output.stderr_is(&words).json();
        assert_eq!(receipt["delivery"], "sent", "{what}");
        assert_eq!(slack.roots().len(), 2, "{what}: the old thread is forgotten");
        // From now on all is well.
        emit(&sandbox).run().success().stderr_is("");
        let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().json();
        assert_eq!(shown["checkpoint_count"], 2, "{what}");
        assert_eq!(set_aside(&cache).len(), 1, "{what}");
    }
}

fn cut(path: &Path, length: usize) {
    let file = OpenOptions::new().write(true).open(path).expect("a cache");
    file.set_len(u64::try_from(length).expect("small")).expect("our own file");
}

#[test]
fn whichever_page_is_damaged_the_message_is_posted_and_what_follows_works() {
    let (_slack, sandbox) = set_up();
    fill(&sandbox);
    let sound = fs::read(sandbox.cache_path()).expect("a cache");
    let pages = sound.len() / PAGE;
    assert!(pages > 5, "{pages} pages");
    for page in 0..pages {
        for byte in [0_u8, 0xff] {
            let (slack, sandbox) = set_up();
            let cache = sandbox.cache_path();
            sandbox.write(&cache, &sound);
            overwrite(&cache, page * PAGE, &[byte; PAGE]);
            let output = emit(&sandbox).run().success();
            assert_eq!(output.json()["delivery"], "sent", "page {page} of {byte}: {output}");
            assert!(!slack.messages("agent-supervisory").is_empty(), "page {page} of {byte}");
            // Damage that the first call did not touch may be found by a later one; then all is well.
            let record = || sandbox.cmd(["emit", "-a", "bot", "--no-post", "--json"]).run().success();
            record();
            record();
            let last = record().stderr_is("").json();
            let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().stderr_is("").json();
            let checkpoints = shown["checkpoints"].as_array().expect("a list");
            let ids: Vec<&Value> = checkpoints.iter().map(|row| &row["checkpoint_id"]).collect();
            assert!(ids.contains(&&last["checkpoint_id"]), "page {page} of {byte}");
        }
    }
}

/// Waits until all of them have come for the lock on a file: they have it open.
#[cfg(target_os = "linux")]
#[track_caller]
fn wait_until_waiting(inode: u64, children: &[Child]) {
    let has_come = |child: &Child| {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", child.id())) else { return false };
        open.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode))
    };
    wait_for("all to wait for the lock", || children.iter().all(has_come).then_some(()));
}

/// Where open files cannot be listed they are left to race.
#[cfg(not(target_os = "linux"))]
fn wait_until_waiting(_inode: u64, _children: &[Child]) {}

#[test]
fn a_damaged_cache_is_named_with_the_way_out_by_those_who_only_look() {
    for (table, words) in [("checkpoints", &["show", "a"][..]), ("tasks", &["metrics"])] {
        let (_slack, sandbox) = set_up();
        fill(&sandbox);
        let path = sandbox.cache_path();
        let page = "SELECT rootpage FROM sqlite_master WHERE name = ?1";
        let cache = Connection::open(&path).expect("a cache");
        let page: u64 = cache.query_row(page, [table], |row| row.get::<_, u32>(0)).expect("a table").into();
        drop(cache);
        let mut file = OpenOptions::new().write(true).open(&path).expect("a file");
        file.seek(SeekFrom::Start((page - 1) * PAGE as u64)).expect("a place");
        file.write_all(&[0; PAGE]).expect("damage");
        let hint = "move the file away: the next call begins a new one";
        sandbox.cmd(words).run().code(1).stdout_is("").stderr_is(&format!(
            "agent-checkpoint: could not use cache {}: database disk image is malformed\nhint: {hint}\n",
            path.display()
        ));
        let doctor = sandbox.cmd(["doctor"]).run().code(78);
        doctor.stdout_has(&format!("FAIL cache        {} is damaged", path.display())).stdout_has(hint);
        let away = path.with_extension("old");
        fs::rename(&path, away).expect("moved away");
        sandbox.cmd(["doctor"]).run().success().stdout_has("ok   cache");
    }
}

#[test]
fn processes_that_find_it_damaged_together_set_it_aside_once() {
    for round in 0..5 {
        let (slack, sandbox) = set_up();
        fill(&sandbox);
        let cache = sandbox.cache_path();
        let garbage = format!("garbage {round} ").repeat(2000);
        fs::write(&cache, &garbage).expect("our own file");
        // Whoever found it damaged waits for the lock beside it, which is ours until all have come.
        let lock = File::create(format!("{}.lock", cache.display())).expect("a lock");
        let inode = lock.metadata().expect("it is open").ino();
        let lock =
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("nobody has it");
        let spawn = |n: usize| sandbox.cmd(["emit", "-a", "bot", &format!("Step {n}")]).spawn();
        let children: Vec<Child> = (0..10).map(spawn).collect();
        wait_until_waiting(inode, &children);
        drop(lock);
        let mut said = String::new();
        for child in children {
            let output = child.wait_with_output().expect("a child");
            assert!(output.status.success(), "{output:?}");
            said += &String::from_utf8_lossy(&output.stderr);
        }
        let aside = set_aside(&cache);
        assert_eq!(aside.len(), 1, "{aside:?} {said}");
        assert_eq!(fs::read_to_string(&aside[0]).expect("a file"), garbage);
        assert_eq!(said.matches("was damaged; started afresh").count(), 1, "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().json();
        assert_eq!(shown["checkpoint_count"], 10);
        assert_eq!(slack.roots().len(), 2, "the one from before, and one that all share");
    }
}

/// Makes a database of another program.
fn database(path: &Path, sql: &str) {
    let other = Connection::open(path).expect("a new database");
    other.execute_batch(sql).expect("SQL");
}

#[test]
fn what_is_not_our_cache_is_left_alone_and_the_message_posted() {
    let rows: [(&str, Deed<'_>); 5] = [
        ("it has schema 99, written by a newer agent-checkpoint", &|path| {
            database(path, "PRAGMA user_version = 99; CREATE TABLE tasks (future TEXT)");
        }),
        ("it is another program's database", &|path| {
            database(path, "CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x')");
        }),
        ("it is not a file", &|path| fs::create_dir(path).expect("a directory")),
        // To open it for reading would wait for a writer.
        ("it is not a file", &|path| mkfifo(path, Mode::S_IRWXU).expect("a pipe")),
        ("Not a directory", &|path| {
            let directory = path.parent().expect("a directory");
            fs::remove_dir(directory).expect("an empty directory");
            fs::write(directory, "a file where the directory should be").expect("a file");
        }),
    ];
    for (why, make) in rows {
        let (slack, sandbox) = set_up();
        let cache = sandbox.cache_path();
        let directory = cache.parent().expect("a directory");
        fs::create_dir_all(directory).expect("a directory");
        make(&cache);
        let content =
            || fs::metadata(&cache).is_ok_and(|found| found.is_file()).then(|| fs::read(&cache).ok());
        let before = content();
        for count in 1..=2 {
            let output = assert_stateless(emit(&sandbox).run(), why);
            let path = cache.display();
            output.stderr_has(&format!("agent-checkpoint: warning: could not use cache {path}: "));
            assert_eq!(slack.roots().len(), count);
        }
        assert_eq!(content(), before, "{why}");
        let files = fs::read_dir(directory).map_or(0, |listing| listing.flatten().count());
        assert!(files <= 2, "at most a lock beside it: {why}");
        // Who needs the state says that there is none.
        sandbox.cmd(["show", "bot"]).run().code(1).stderr_has(why);
        sandbox.cmd(["flush"]).run().code(1).stderr_has(why);
    }
}

#[test]
fn for_a_cache_whose_path_is_too_long_no_directory_is_made() {
    let (slack, sandbox) = set_up();
    let path = format!("{}/too/{}cache.db", sandbox.home().display(), "long/".repeat(100));
    let output = sandbox.cmd(["emit", "--cache", &path, "--agent-id", "bot", "Hello"]).run();
    output.success().stderr_has("its path has more than 510 bytes; going on without state");
    assert_eq!(slack.roots().len(), 1);
    assert!(!sandbox.home().join("too").exists());
}

#[test]
fn without_state_and_without_slack_the_caller_hears_of_it() {
    let (slack, sandbox) = set_up();
    let file = sandbox.write("file", "x");
    let cache = file.join("cache.db");
    sandbox.env("AGENT_CHECKPOINT_CACHE", &cache);
    let args = ["emit", "-a", "bot", "-s", "working", "Hi"];
    // Printed, where that is all there is to do.
    let output = sandbox.cmd(args).env_remove("SLACK_BOT_TOKEN").run().success();
    assert!(output.stdout.starts_with("⚙️ WORKING bot"), "{output}");
    output.stderr_has("Not a directory; going on without state");
    sandbox
        .cmd(args)
        .env("SLACK_API_URL", "http://127.0.0.1:9/api/")
        .run()
        .code(1)
        .stderr_has("agent-checkpoint: neither recorded nor delivered: could not use cache");
    sandbox
        .cmd([&args[..], &["--no-post"]].concat())
        .run()
        .code(1)
        .stderr_has("neither recorded nor delivered");
    assert_eq!(slack.requests().len(), 0);
}

#[test]
fn an_empty_file_becomes_the_cache() {
    let (slack, sandbox) = set_up();
    let cache = sandbox.write(sandbox.cache_path(), "");
    emit(&sandbox).run().success().stderr_is("");
    emit(&sandbox).run().success().stderr_is("");
    assert_eq!(slack.roots().len(), 1);
    assert!(set_aside(&cache).is_empty());
}

#[test]
fn a_full_disk_is_no_reason_to_fail() {
    let full = "trap '' XFSZ; ulimit -f 0; exec \"$BIN\" emit -a bot -s blocked --json After";
    // Before there is a cache.
    let (slack, sandbox) = set_up();
    assert_stateless(sandbox.shell(full).run(), "could not use cache");
    assert_eq!(slack.roots().len(), 1);
    emit(&sandbox).run().success().stderr_is("");
    // While it is in use, and its log cannot grow.
    let (slack, sandbox) = set_up();
    fill(&sandbox);
    assert_stateless(sandbox.shell(full).run(), "cache.db: ");
    assert_eq!(slack.roots().len(), 2);
    assert!(set_aside(&sandbox.cache_path()).is_empty(), "nothing is wrong with the file");
    let receipt = emit(&sandbox).run().success().stderr_is("").json();
    assert_eq!(receipt["delivery"], "sent");
    let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().json();
    assert_eq!(shown["checkpoint_count"], 2, "what was recorded before is all there");
    assert_eq!(slack.roots().len(), 2);
}

#[test]
fn a_cache_that_is_kept_busy_makes_no_second_thread() {
    let (slack, sandbox) = set_up();
    fill(&sandbox);
    let writer = Connection::open(sandbox.cache_path()).expect("a cache");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else uses it");
    let root = &slack.roots()[0].ts;
    for replies in 1..3 {
        let late = sandbox.cmd(["emit", "-a", "bot", "--deadline", "2s", "--json", "Late"]).run();
        let receipt = assert_stateless(late, "it is kept busy by other processes").json();
        assert_eq!(receipt["thread_ts"], root.as_str(), "it can still be read where the thread is");
        assert_eq!((slack.roots().len(), slack.thread(root).len()), (1, 1 + replies));
    }
    // Where that is gone, a message of its own is better than none.
    let (slack, sandbox) = set_up();
    fill(&sandbox);
    let writer = Connection::open(sandbox.cache_path()).expect("a cache");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else uses it");
    slack.delete_message("agent-supervisory", &slack.roots()[0].ts);
    let lost = sandbox.cmd(["emit", "-a", "bot", "--deadline", "2s", "--json", "Lost"]).run();
    assert_stateless(lost, "it is kept busy by other processes");
    assert!(slack.roots().iter().any(|root| root.text.contains("Action: Lost")));
}

#[test]
fn files_are_for_their_owner_only() {
    let (_slack, sandbox) = set_up();
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o7777;
    let deep = sandbox.work().join("a/b/c/cache.db");
    // The last takes even the owner's rights away.
    let strict = sandbox.work().join("strict/cache.db");
    for (cache, umask) in [(sandbox.cache_path(), "000"), (deep, "022"), (strict, "777")] {
        let line = format!("umask {umask}; exec \"$BIN\" emit -a bot --cache \"$CACHE\" Hi");
        for _ in 0..2 {
            sandbox.shell(&line).env("CACHE", &cache).run().success().silent();
        }
        let directory = cache.with_file_name("");
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        let files: Vec<PathBuf> =
            fs::read_dir(&directory).expect("a directory").flatten().map(|entry| entry.path()).collect();
        assert!(files.len() >= 3, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
    assert_eq!(mode(&sandbox.work().join("a")), 0o700);
}

#[test]
fn a_log_left_behind_is_read_and_one_cut_short_loses_only_its_end() {
    let (_slack, sandbox) = set_up();
    fill(&sandbox);
    let log = PathBuf::from(format!("{}-wal", sandbox.cache_path().display()));
    let count = || {
        let shown = sandbox.cmd(["show", "bot", "--json"]).run().success().stderr_is("").json();
        shown["checkpoint_count"].as_u64().expect("a count")
    };
    for text in ["One", "Two", "Three"] {
        sandbox.cmd(["emit", "-a", "bot", "--no-post", text]).run().success();
    }
    let mut bytes = Vec::new();
    File::open(&log).expect("a log").read_to_end(&mut bytes).expect("our own file");
    assert!(!bytes.is_empty(), "what was recorded is still in the log");
    assert_eq!(count(), 4);
    // As a power loss in the middle of a write leaves it; what was complete is still there.
    cut(&log, bytes.len() - 100);
    let left = count();
    assert_eq!(left, 3);
    // Its index is only a help: without it, or with a wrong one, all is read again.
    let index = PathBuf::from(format!("{}-shm", sandbox.cache_path().display()));
    for damage in [None, Some(vec![0xff_u8; 32 * 1024]), Some(Vec::new())] {
        match damage {
            None => fs::remove_file(&index).expect("an index"),
            Some(bytes) => fs::write(&index, bytes).expect("our own file"),
        }
        assert_eq!(count(), left);
    }
    emit(&sandbox).run().success().stderr_is("");
    assert_eq!(count(), left + 1);
}

#[test]
fn a_cache_deleted_while_a_call_runs_harms_nobody() {
    for whole in [false, true] {
        let (slack, sandbox) = set_up();
        fill(&sandbox);
        slack.hold();
        let running = emit(&sandbox).spawn();
        slack.wait_requests(2);
        let cache = sandbox.cache_path();
        if whole {
            fs::remove_dir_all(cache.with_file_name("")).expect("a directory");
        } else {
            fs::remove_file(&cache).expect("a cache");
        }
        // One that begins anew beside one that still has the old cache open.
        let fresh = sandbox.cmd(["emit", "-a", "new", "--deadline", "0", "--json", "Fresh"]).run().success();
        assert_eq!(fresh.json()["delivery"], "queued", "{fresh}");
        slack.release();
        let output = running.wait_with_output().expect("a child");
        assert!(output.status.success(), "{output:?}");
        let receipt: Value = serde_json::from_slice(&output.stdout).expect("a receipt");
        assert_eq!(receipt["delivery"], "sent", "{output:?}");
        sandbox.cmd(["flush"]).run().success().within(Duration::from_secs(20));
        let shown = sandbox.cmd(["show", "new", "--json"]).run().success().stderr_is("").json();
        assert_eq!(shown["checkpoints"][0]["delivery"], "sent");
        assert_eq!(slack.roots().len(), 2);
    }
}
