//! `run` and its child: exit codes, streams, signals and time, with real processes and no Slack.
//!
//! What needs `/proc` or setsid(1) is tested on Linux only.

use std::fs;
#[cfg(target_os = "linux")]
use std::io::Write;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::Sandbox;
#[cfg(target_os = "linux")]
use crate::support::wait_for;

/// A wait that ends by a signal at the latest.
#[cfg(target_os = "linux")]
const WAIT: &str = "while :; do sleep 0.02; done";

#[cfg(target_os = "linux")]
pub(crate) fn is_alive(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let ended =
        state.is_some_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
    !ended && kill(Pid::from_raw(pid), None).is_ok()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("a live process");
}

/// What was recorded of the agent `bot`.
#[track_caller]
fn checkpoints(sandbox: &Sandbox) -> Vec<Value> {
    let shown = sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    shown["checkpoints"].as_array().expect("checkpoints").clone()
}

#[test]
fn the_exit_code_is_the_childs() {
    let sandbox = Sandbox::new();
    let rows = [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -INT $$", 130),
    ];
    // One without a name; not every system has such.
    let nameless = cfg!(target_os = "linux").then_some(("kill -40 $$", 168));
    for (script, code) in rows.into_iter().chain(nameless) {
        sandbox.cmd(["run", "--", "sh", "-c", script]).run().code(code).silent();
    }
}

/// A control group with little memory, where this machine lets us have one.
#[cfg(target_os = "linux")]
struct LittleMemory(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl LittleMemory {
    fn new() -> Option<Self> {
        let name = format!("agent-checkpoint-{}", std::process::id());
        let limits: [(&str, &[(&str, &str)]); 2] = [
            ("/sys/fs/cgroup/memory", &[("memory.limit_in_bytes", "67108864"), ("memory.swappiness", "0")]),
            ("/sys/fs/cgroup", &[("memory.max", "67108864"), ("memory.swap.max", "0")]),
        ];
        limits.into_iter().find_map(|(root, limits)| {
            let group = Self(std::path::Path::new(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            limits.iter().all(|(file, limit)| fs::write(group.0.join(file), limit).is_ok()).then_some(group)
        })
    }
}

#[cfg(target_os = "linux")]
impl Drop for LittleMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn want_of_memory_is_named_where_it_is_the_likely_cause() {
    let sandbox = Sandbox::new();
    let Some(group) = LittleMemory::new() else {
        // Past what the harness keeps of a test that passes.
        let note = "note: no control group can be had here: nothing was shown of want of memory\n";
        std::io::stderr().write_all(note.as_bytes()).expect("standard error");
        return;
    };
    sandbox.write("eat", "x=12345678; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do x=$x$x; done");
    for (script, said) in [
        ("exec sh eat", "ended by SIGKILL, possibly out of memory after "),
        ("sh eat; exit $?", "exit code 137, possibly out of memory after "),
        ("kill -KILL $$", "ended by SIGKILL after "),
    ] {
        let line = r#"echo $$ >"$GROUP/cgroup.procs" && exec "$BIN" run -a bot -- sh -c "$SCRIPT""#;
        sandbox.shell(line).env("GROUP", &group.0).env("SCRIPT", script).run().code(137);
        let end = checkpoints(&sandbox).pop().expect("an end");
        assert!(end["error"].as_str().is_some_and(|error| error.starts_with(said)), "{script}: {end}");
    }
}

#[test]
fn a_kill_that_nobody_here_sent_is_named_and_not_explained_without_a_reason() {
    let sandbox = Sandbox::new();
    for (script, said) in [
        ("kill -KILL $$", "ended by SIGKILL after "),
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("exit 137", "exit code 137 after "),
    ] {
        sandbox.cmd(["run", "-a", "bot", "--", "sh", "-c", script]).run();
        let end = checkpoints(&sandbox).pop().expect("an end");
        assert!(end["error"].as_str().is_some_and(|error| error.starts_with(said)), "{script}: {end}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_gigabyte_of_output_passes_in_little_memory() {
    let sandbox = Sandbox::new();
    let script = "head -c 1073741824 /dev/zero; grep VmHWM /proc/$PPID/status >&2";
    let line = r#"{ "$BIN" run -a bot -- sh -c "$SCRIPT"; echo $? >code; } | wc -c; exit $(cat code)"#;
    let output = sandbox.shell(line).env("SCRIPT", script).run().success().stdout_has("1073741824\n");
    let kilobytes: u64 =
        output.stderr.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    assert!(kilobytes < 48 * 1024, "{output}");
    assert_eq!(checkpoints(&sandbox).pop().expect("an end")["status"], "complete");
}

#[test]
fn a_command_that_cannot_be_started_is_explained() {
    let sandbox = Sandbox::new();
    let executable = |name: &str, bytes: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        let path = sandbox.write(name, bytes);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    sandbox.write("plain", "echo hi\n");
    executable("binary", b"\x01\x00\x02\nnot a program");
    executable("lost", b"#!/no/such/interpreter\n");
    executable("script", b"echo \"$0 $1\"; exit 3\n");
    executable("empty", b"");
    let rows = [
        ("nonesuch", 127, "was not found", Some("is it installed, and on the PATH?")),
        ("./nonesuch", 127, "was not found", Some("is it installed, and on the PATH?")),
        ("", 127, "was not found", Some("is it installed, and on the PATH?")),
        ("./plain", 126, "is not executable", Some("make it so with chmod +x")),
        ("/", 126, "is a directory", None),
        (
            "./binary",
            126,
            "is in a format this system does not run",
            Some("was it built for another machine?"),
        ),
        (
            "./lost",
            126,
            "cannot be run: its interpreter was not found",
            Some("look at the first line of the file"),
        ),
        ("./plain/x", 126, "cannot be run: not a directory", None),
    ];
    for (name, code, what, hint) in rows {
        let hint = hint.map_or_else(String::new, |hint| format!("hint: {hint}\n"));
        let said = format!("agent-checkpoint: '{name}' {what}\n{hint}");
        sandbox.cmd(["run", "--", name]).run().code(code).stdout_is("").stderr_is(&said);
    }
    // As shells and env do.
    sandbox.cmd(["run", "--", "./script", "x"]).run().code(3).stdout_is("./script x\n").stderr_is("");
    sandbox.cmd(["run", "--", "./empty"]).run().success().silent();
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_that_there_is_no_room_for_beside_us_runs_all_the_same() {
    let sandbox = Sandbox::new();
    let run = |limit: u32, command: &str| {
        sandbox.shell(&format!("ulimit -n {limit}; exec \"$BIN\" run -- {command}")).run()
    };
    // Too few for the command's streams alone; and numbers at which it depends what else is open at that moment.
    let said = ": too many open files; it runs without being followed\n";
    run(4, "sh -c 'echo started; exit 5'").code(5).stdout_is("started\n").stderr_has(said);
    for limit in [8, 12] {
        run(limit, "sh -c 'echo started; exit 5'").code(5).stdout_is("started\n");
    }
    // Where even that is not possible, we say so.
    let said = "agent-checkpoint: could not get ready: too many open files\n";
    run(4, "./missing").code(125).stdout_is("").stderr_has(said);
}

#[cfg(target_os = "linux")]
#[test]
fn the_child_notices_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "look",
        "env | grep -v -e '^_=' -e '^AGENT_CHECKPOINT_' | sort; pwd; umask; ls /proc/self/fd; grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status\n",
    );
    for prefix in ["", "trap '' HUP USR1 TSTP; "] {
        let direct = sandbox.shell(&format!("{prefix}sh look")).run().success().stdout;
        assert!(direct.contains("HOME="), "{direct}");
        sandbox
            .shell(&format!("{prefix}$BIN run -- sh look"))
            .run()
            .success()
            .stderr_is("")
            .stdout_is(&direct);
    }
}

#[test]
fn streams_are_passed_on_byte_for_byte_and_apart() {
    let sandbox = Sandbox::new();
    let bytes: Vec<u8> = (0..32 << 20).map(|i: u32| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
    sandbox.write("in", &bytes);
    sandbox.shell("$BIN run -- sh -c 'cat; cat in >&2' <in >out 2>err").run().success().silent();
    for name in ["out", "err"] {
        assert!(fs::read(sandbox.work().join(name)).expect("a file") == bytes, "{name} differs");
    }
    // Both to one place: in the order written.
    let line = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo e$i >&2; done";
    let output = sandbox.shell(&format!("$BIN run -- sh -c '{line}' 2>&1 | cat")).run().success();
    output.stdout_is("1\ne1\n2\ne2\n3\ne3\n4\ne4\n5\ne5\n6\ne6\n7\ne7\n8\ne8\n9\ne9\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_stream_that_is_not_copied_is_the_childs_own() {
    let sandbox = Sandbox::new();
    let script = "exec 4>&1; readlink /proc/self/fd/4 /proc/self/fd/2 >&3";
    let line = |options: &str| format!("{{ {options} sh -c '{script}'; }} 3>seen >out 2>err; cat seen");
    let own = sandbox.shell(&line("")).run().success().stdout;
    sandbox.shell(&line("$BIN run --tail 0 --")).run().success().stdout_is(&own);
    let copied = sandbox.shell(&line("$BIN run --")).run().success().stdout;
    assert_eq!(copied.matches("pipe:").count(), 2, "{copied}");
}

#[test]
fn a_closed_output_ends_the_child() {
    let sandbox = Sandbox::new();
    let line = "{ $BIN run -- yes; echo $? >code; } | head -1; cat code";
    sandbox.shell(line).run().success().stdout_is("y\n141\n").stderr_is("");
}

#[cfg(target_os = "linux")]
#[test]
fn a_slow_reader_slows_the_child_down_and_loses_nothing() {
    use std::io::Read;

    let sandbox = Sandbox::new();
    // The child has long ended when its last bytes are read.
    let line = "$BIN run -- head -c 300000 /dev/zero | { sleep 0.8; wc -c; }";
    let output = sandbox.shell(line).run().success();
    assert_eq!(output.stdout.trim(), "300000");

    let mut child = sandbox.cmd(["run", "--", "head", "-c", "64M", "/dev/zero"]).spawn();
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut buffer = vec![0; 48 << 20];
    stdout.read_exact(&mut buffer).expect("output");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a live process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.and_then(|text| text.parse().ok()).expect("a number");
    assert!(peak < 24 * 1024, "{peak} kB");
    drop(stdout);
    child.wait().expect("an end");
}

#[test]
fn a_descendant_that_keeps_the_pipe_does_not_hold_us() {
    let sandbox = Sandbox::new();
    let output = sandbox.cmd(["run", "--", "sh", "-c", "sleep 60 & echo hi; echo ho >&2"]).run().success();
    output.stdout_is("hi\n").stderr_is("ho\n").within(Duration::from_secs(10));
    // One that writes a moment later is heard.
    let output = sandbox.cmd(["run", "--", "sh", "-c", "(sleep 0.01; echo late) & echo hi"]).run().success();
    output.stdout_is("hi\nlate\n");
    // One that never stops writing is not.
    let output = sandbox.cmd(["run", "--", "sh", "-c", "yes & exit 4"]).run().code(4);
    output.within(Duration::from_secs(10));
}

#[test]
fn a_child_that_closes_its_descriptors_is_waited_for() {
    let sandbox = Sandbox::new();
    let script = "exec <&- >&- 2>&-; sleep 0.2; exit 3";
    let output = sandbox.cmd(["run", "--", "sh", "-c", script]).run().code(3).silent();
    assert!(output.elapsed >= Duration::from_millis(200), "{output}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_sent_to_us_reaches_the_child_once() {
    let sandbox = Sandbox::new();
    for name in ["TERM", "INT", "HUP", "QUIT", "USR1"] {
        let count = format!("trap 'n=$((n+1)); echo got' {name}; trap 'echo $n; exit 6' USR2");
        let script = format!("{count}; echo ready; {WAIT}");
        // Without a terminal, so in a process group of its own.
        let line = format!("exec setsid \"$BIN\" run -- sh -c '{}'", script.replace('\'', r"'\''"));
        let mut child = sandbox.shell(&line).spawn();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"), "{name}");
        for _ in 0..2 {
            signal(&child, format!("SIG{name}").parse().expect("a signal"));
            assert_eq!(lines.next().as_deref(), Some("got"), "{name}");
        }
        signal(&child, Signal::SIGUSR2);
        assert_eq!(lines.next().as_deref(), Some("2"), "{name}");
        assert_eq!(child.wait().expect("an end").code(), Some(6), "{name}");
    }
}

#[test]
fn a_signal_ends_a_child_that_does_not_handle_it() {
    let sandbox = Sandbox::new();
    for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let mut child = sandbox.cmd(["run", "--", "sh", "-c", "echo ready; exec sleep 60"]).spawn();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"), "{name}");
        signal(&child, format!("SIG{name}").parse().expect("a signal"));
        assert_eq!(child.wait().expect("an end").code(), Some(code), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_stopped_for_job_control_stops_us_and_goes_on_with_us() {
    let sandbox = Sandbox::new();
    let mut child =
        sandbox.shell("exec setsid \"$BIN\" run -- sh -c 'echo ready; read line; echo $line on'").spawn();
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    signal(&child, Signal::SIGTSTP);
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    wait_for("us to stop", || (state()? == 'T').then_some(()));
    signal(&child, Signal::SIGCONT);
    writeln!(child.stdin.take().expect("a pipe"), "go").expect("a reader");
    assert_eq!(lines.next().as_deref(), Some("go on"));
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn after_the_time_out_the_child_is_told_to_end_and_then_killed_with_its_group() {
    let sandbox = Sandbox::new();
    let rows = [
        // It obeys.
        ("echo 0; exec sleep 60", "30s"),
        // It does not, nor does what it has started.
        ("trap '' TERM; sleep 60 & echo $!; wait", "700ms"),
        // An orphan.
        ("trap '' TERM; (sleep 60 & echo $!); while :; do sleep 0.02; done", "700ms"),
        // The child obeys; what it has started does not, and is waited for and killed.
        ("(trap '' TERM; exec sleep 60) & echo $!; sleep 0.1; exec sleep 60", "700ms"),
        // It is stopped.
        ("echo 0; kill -STOP $$; sleep 60", "30s"),
        // It ends well when told to.
        ("trap 'exit 0' TERM; echo 0; while :; do sleep 0.02; done", "30s"),
    ];
    std::thread::scope(|scope| {
        for (script, kill_after) in rows {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let script = script.replace('\'', r"'\''");
                // Far more than it takes to say who is to be looked for.
                let options = format!("--timeout 3s --kill-after {kill_after}");
                let line = format!("exec setsid \"$BIN\" run {options} -- sh -c '{script}'");
                let output = sandbox.shell(&line).run().code(124).within(Duration::from_secs(20));
                let pid: i32 = output.stdout.trim().parse().expect("a pid");
                if pid != 0 {
                    wait_for("the descendant's end", || (!is_alive(pid)).then_some(()));
                }
            });
        }
    });
}

#[test]
fn the_tail_and_the_progress_are_read_from_a_copy() {
    let sandbox = Sandbox::new();
    let seen = r#"until "$BIN" show --json bot 2>/dev/null | grep -q '"progress":5,'; do sleep 0.02; done"#;
    let script = r#"printf '\033]9;4;1;5\007'; eval "$SEEN"; printf '\033[1m3/4 linking\033[0m\n\r'; for i in 1 2 3; do echo line $i >&2; done; exit 9"#;
    let regex = r"(?P<done>\d+)/(?P<total>\d+) (?P<action>.*)";
    let options = ["run", "-a", "bot", "--tail", "2", "--progress-regex", regex, "--", "sh", "-c", script];
    let program = env!("CARGO_BIN_EXE_agent-checkpoint");
    let output = sandbox.cmd(options).env("BIN", program).env("SEEN", seen).run().code(9);
    output
        .stdout_is("\u{1b}]9;4;1;5\u{7}\u{1b}[1m3/4 linking\u{1b}[0m\n\r")
        .stderr_is("line 1\nline 2\nline 3\n");
    let told = checkpoints(&sandbox);
    let told: Vec<_> = told
        .iter()
        .skip(1)
        .map(|one| (&one["status"], &one["progress"], &one["action"], &one["tail"]))
        .collect();
    let (working, error) = (Value::from("working"), Value::from("error"));
    assert_eq!(
        told,
        [
            (&working, &Value::from(5), &Value::Null, &Value::Null),
            (&working, &Value::from(75), &Value::from("linking"), &Value::Null),
            (&error, &Value::from(75), &Value::Null, &Value::from("… 1 line before\nline 2\nline 3")),
        ]
    );
}
