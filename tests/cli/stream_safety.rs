//! `stream`: what was acknowledged is safe, whatever happens to it, to its output and to its cache.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use serde_json::{Value, json};

use crate::stream::{Talk, checkpoints, stream};
use crate::support::{Sandbox, wait_for};

#[test]
fn what_was_acknowledged_survives_kill() {
    let sandbox = Sandbox::new();
    for round in 0..5 {
        let agent = format!("agent-{round}");
        let mut talk = Talk::start(sandbox.cmd(["stream", "--json", "-a", &agent]));
        // The first of many, so that the others are still being read and recorded.
        let lines: String = (0..2000).map(|index| format!("{{\"action\":\"{index}\"}}\n")).collect();
        let mut stdin = talk.stdin.take().expect("an open input");
        std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let mut ids = vec![talk.hear()["checkpoint_id"].clone()];
        ids.extend((0..round * 30).map(|_| talk.hear()["checkpoint_id"].clone()));
        talk.child.kill().expect("it lives");
        talk.child.wait().expect("its end");
        let stored: Vec<Value> = checkpoints(&sandbox, &agent)
            .iter()
            .map(|checkpoint| checkpoint["checkpoint_id"].clone())
            .collect();
        assert_eq!(stored[..ids.len()], ids);
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_on_disk() {
    let sandbox = Sandbox::new();
    let mut talk = Talk::start(sandbox.cmd(["stream", "--json", "-a", "a"]));
    talk.ask(&json!({}));
    let mut cache = Connection::open(sandbox.cache_path()).expect("a cache");
    let lock = cache.transaction_with_behavior(TransactionBehavior::Immediate).expect("a turn");
    talk.say(&json!({"action": "held up"}));
    assert!(!talk.answers_within(Duration::from_millis(100)));
    drop(lock);
    assert_eq!(talk.hear()["line"], 2);
    assert_eq!(talk.end(), (Some(0), String::new()));
}

#[test]
fn whoever_stops_listening_loses_no_checkpoint() {
    let sandbox = Sandbox::new();
    let line = r#"seq 1 300 | sed 's/.*/{"agent_id":"a","action":"&"}/' | { "$BIN" stream --json; echo $? >code; } | head -1"#;
    let output = sandbox.shell(line).run().success().stderr_is("");
    assert_eq!(output.json_lines().len(), 1);
    let code = wait_for("its end", || {
        fs::read_to_string(sandbox.work().join("code")).ok().filter(|code| !code.is_empty())
    });
    assert_eq!(code, "0\n");
    assert_eq!(checkpoints(&sandbox, "a").len(), 300);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_said_once_and_the_rest_is_recorded() {
    let sandbox = Sandbox::new();
    let line = r#"seq 1 3000 | sed 's/.*/{"agent_id":"a","action":"&"}/' | "$BIN" stream --json >/dev/full"#;
    sandbox.shell(line).run().success().stderr_is(
        "agent-checkpoint: warning: could not write to standard output: No space left on device; going on without answers\n",
    );
    assert_eq!(checkpoints(&sandbox, "a").len(), 3000);
}

/// Something done to a file of the cache.
type Deed<'a> = &'a dyn Fn(&Path);

#[test]
fn a_cache_that_is_deleted_or_damaged_on_the_way_is_replaced() {
    let delete = |path: &Path| fs::remove_file(path).expect("a file");
    let damage = |path: &Path| {
        let length = fs::metadata(path).expect("a file").len();
        let mut file = OpenOptions::new().write(true).open(path).expect("a file");
        file.write_all(&vec![0xff; usize::try_from(length).expect("a short file")]).expect("room");
    };
    let (all, content) = (["cache.db", "cache.db-wal", "cache.db-shm"], ["cache.db", "cache.db-wal"]);
    let deleted: (Deed<'_>, &[&str], &str) = (&delete, &all, "");
    let damaged: (Deed<'_>, &[&str], &str) = (&damage, &content, "was damaged; started afresh");
    for (deed, files, said) in [deleted, damaged] {
        let sandbox = Sandbox::new();
        let mut talk = Talk::start(sandbox.cmd(["stream", "--json", "-a", "a"]));
        talk.ask(&json!({"action": "one"}));
        // What another process has written is read, not remembered.
        sandbox.cmd(["emit", "-a", "b"]).run().success();
        files.iter().for_each(|file| deed(&sandbox.cache_path().with_file_name(file)));
        let receipt = talk.ask(&json!({"action": "two"}));
        assert_eq!(checkpoints(&sandbox, "a")[0]["checkpoint_id"], receipt["checkpoint_id"]);
        let (code, stderr) = talk.end();
        assert_eq!(code, Some(0));
        assert!(if said.is_empty() { stderr.is_empty() } else { stderr.contains(said) }, "{stderr}");
    }
}

#[test]
fn without_a_cache_the_stream_goes_on_and_says_so() {
    let sandbox = Sandbox::new();
    let cache = sandbox.write("a-directory/x", "").with_file_name("");
    let cache = cache.to_str().expect("a plain path").trim_end_matches('/').to_owned();
    let line = json!({"agent_id": "a"});
    let said = format!(
        "agent-checkpoint: warning: could not use cache {cache}: it is not a file; going on without state\nhint: run agent-checkpoint doctor\n"
    );
    let output =
        stream(&sandbox, &["--cache", &cache, "--json"], &[line.clone(), line.clone()]).run().success();
    let receipts = output.clone().stderr_is(&said).json_lines();
    for receipt in receipts {
        assert_eq!((&receipt["task_id"], &receipt["delivery"]), (&Value::Null, &json!("printed")));
        assert_eq!(receipt["error"], "not recorded: the cache cannot be used");
    }
    // Neither recorded nor delivered.
    let output = stream(&sandbox, &["--cache", &cache, "--json", "--no-post"], &[line]).run().code(1);
    assert_eq!(output.json_lines()[0]["delivery"], Value::Null);
    output.stderr_is(&format!(
        "{said}agent-checkpoint: neither recorded nor known to be delivered: 1\nhint: run agent-checkpoint doctor\n"
    ));
}

#[test]
fn a_cache_that_can_be_used_again_is() {
    let sandbox = Sandbox::new();
    let folder = sandbox.work().join("state");
    fs::write(&folder, "in the way").expect("a file");
    let cache = folder.join("cache.db");
    let mut talk = Talk::start(sandbox.cmd([
        "stream",
        "--json",
        "-a",
        "a",
        "--cache",
        cache.to_str().expect("a plain path"),
    ]));
    assert_eq!(talk.ask(&json!({}))["task_id"], Value::Null);
    fs::remove_file(&folder).expect("a file");
    wait_for("the cache to be used", || {
        let receipt = talk.ask(&json!({}));
        (receipt["task_id"] != Value::Null).then_some(())
    });
    let (code, stderr) = talk.end();
    assert_eq!(code, Some(0));
    assert!(stderr.ends_with("agent-checkpoint: warning: the cache can be used again\n"), "{stderr}");
}
