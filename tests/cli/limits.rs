//! A surrounding that allows little: the largest file (`ulimit -f`), and a mask for new files that leaves no rights.

use crate::scene::Scene;

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
