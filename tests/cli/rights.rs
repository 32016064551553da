//! Caches that may not be written, as a user without special rights meets them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::geteuid;
use rusqlite::Connection;
use serde_json::Value;

use crate::fake_slack::FakeSlack;
use crate::support::{Output, Sandbox};

/// A user and group that no machine knows.
const NOBODY: &str = "54321";

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

#[track_caller]
fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

/// Emits without special rights: root, whom modes do not bind, becomes somebody else. None if it cannot.
#[track_caller]
fn emit(sandbox: &Sandbox) -> Option<Output> {
    let run = "emit -a bot -s blocked --json After";
    let line = if geteuid().is_root() {
        if sandbox.shell("command -v setpriv").run().code != Some(0) {
            return None;
        }
        // The program may lie where only root can go.
        let program = sandbox.path().join("agent-checkpoint");
        if !program.exists() {
            // A link costs nothing; a copy of so much may hold up everyone who waits for the disk. By another process:
            // a child of another test could inherit our open file, and what is open for writing cannot be run.
            let line = "ln \"$BIN\" \"$COPY\" 2>/dev/null || exec cp \"$BIN\" \"$COPY\"";
            sandbox.shell(line).env("COPY", &program).run().success();
            mode(sandbox.path(), 0o755);
        }
        let program = program.display();
        format!("exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {program} {run}")
    } else {
        format!("exec \"$BIN\" {run}")
    };
    Some(sandbox.shell(&line).run())
}

#[track_caller]
fn assert_stateless(output: Output, why: &str) {
    let output = output.success().stderr_has(why).stderr_has("; going on without state\n");
    let receipt = output.json();
    assert_eq!(receipt["delivery"], "sent", "{receipt}");
    assert_eq!(receipt["task_id"], Value::Null);
}

#[test]
fn a_cache_that_may_not_be_written_is_no_reason_to_fail() {
    // (modes of the directory and of the cache, if there is one, and what is said)
    for (directory, file, why) in [
        (0o777, Some(0o444), "it is read-only"),
        (0o555, Some(0o444), "could not use cache"),
        (0o555, Some(0o666), "could not use cache"),
        (0o777, Some(0o000), "could not use cache"),
        (0o555, None, "Permission denied"),
        (0o000, Some(0o666), "Permission denied"),
    ] {
        let (slack, sandbox) = set_up();
        let cache = sandbox.work().join("state/cache.db");
        sandbox.env("AGENT_CHECKPOINT_CACHE", &cache);
        let folder = cache.parent().expect("a directory");
        if let Some(file) = file {
            sandbox.cmd(["emit", "-a", "bot", "Before"]).run().success().silent();
            // All of it is in the one file, so that nothing else is needed to read it.
            let open = Connection::open(&cache).expect("a cache");
            open.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody else uses it");
            drop(open);
            for name in ["cache.db-wal", "cache.db-shm", "cache.db.lock"] {
                // The last one to close may have removed it.
                let _ = fs::remove_file(folder.join(name));
            }
            mode(&cache, file);
        } else {
            fs::create_dir(folder).expect("a directory");
        }
        mode(folder, directory);
        let before = slack.roots().len();
        let output = emit(&sandbox);
        mode(folder, 0o700);
        let Some(output) = output else { return };
        assert_stateless(output, why);
        // Where the thread is can be read all the same, if SQLite may put its index beside the file.
        let in_thread = (directory, file) == (0o777, Some(0o444));
        assert_eq!(slack.roots().len(), before + usize::from(!in_thread), "{directory:o} {file:?}");
        let listing = fs::read_dir(folder).expect("a directory").flatten();
        let aside: Vec<_> =
            listing.filter(|entry| entry.file_name().to_string_lossy().contains("corrupt")).collect();
        assert!(aside.is_empty(), "{aside:?}");
    }
}

#[test]
fn without_a_home_there_is_no_state_unless_a_file_is_named() {
    // Only root can become somebody who has no home; for others the user database always knows one.
    if !geteuid().is_root() {
        return;
    }
    let (slack, sandbox) = set_up();
    for name in ["HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        sandbox.env_remove(name);
    }
    let Some(output) = emit(&sandbox) else { return };
    assert_stateless(output, "there is no home directory to keep it in; name a file with --cache");
    mode(&sandbox.work(), 0o777);
    sandbox.env("AGENT_CHECKPOINT_CACHE", "new/cache.db");
    for _ in 0..2 {
        let receipt = emit(&sandbox).expect("as before").success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "sent");
    }
    assert!(sandbox.work().join("new/cache.db").exists());
    assert_eq!(slack.roots().len(), 2);
}
