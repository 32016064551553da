//! `run` on a terminal: what is typed, what is shown, job control, and ending a child that shares our process group.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::Signal;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::run_child::{is_alive, signal};
use crate::support::{Sandbox, wait_for};

/// A terminal as a person has it in front of them.
pub(crate) struct Terminal {
    master: File,
    /// Kept open so that it lives on between commands.
    _slave: File,
    path: PathBuf,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let flags = i32::try_from(OFlags::NOCTTY.bits()).expect("a small number");
        let slave =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).expect("its other end");
        let terminal = Self { master: master.into(), _slave: slave, path, screen: Arc::default() };
        terminal.resize(24, 80);
        let (mut from, screen) =
            (terminal.master.try_clone().expect("a descriptor"), Arc::clone(&terminal.screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        terminal
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a size");
    }

    fn typed(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).expect("a terminal");
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    #[track_caller]
    fn wait_shown(&self, text: &str) {
        wait_for(&format!("{text:?} on the terminal"), || self.shown().contains(text).then_some(()));
    }

    /// Starts a command, a line of shell, with this as its controlling terminal.
    fn start(&self, sandbox: &Sandbox, line: &str) -> Child {
        let line = format!("exec setsid -c {line} <\"$TTY\" >\"$TTY\" 2>&1");
        // What `run` itself says there in the end is another test's matter.
        sandbox.shell(&line).env("TTY", &self.path).env("AGENT_CHECKPOINT_QUIET", "true").spawn()
    }

    /// Runs a command to its end, and gives its exit code and what it showed.
    fn run(sandbox: &Sandbox, line: &str) -> (Option<i32>, String) {
        Self::run_in(sandbox, 80, line)
    }

    /// The same on a terminal of that many columns.
    pub(crate) fn run_in(sandbox: &Sandbox, columns: u16, line: &str) -> (Option<i32>, String) {
        let terminal = Self::open();
        terminal.resize(24, columns);
        let mut child = terminal.start(sandbox, line);
        let code = child.wait().expect("an end").code();
        terminal.start(sandbox, "echo the end").wait().expect("an end");
        terminal.wait_shown("the end\r\n");
        (code, terminal.shown().replace("the end\r\n", ""))
    }
}

#[test]
fn a_terminal_stays_a_terminal_and_shows_the_same() {
    let sandbox = Sandbox::new();
    let bytes = r"printf 'a\tb\nc\r\n\001\033[1m\377é\n\te\004'; stty size <&1; stty size <&2; exit 3";
    sandbox.write("out", format!("[ -t 0 ] && [ -t 1 ] && [ -t 2 ] || exit 9\n{bytes}\n"));
    sandbox.write("err", "(. ./out) >&2\n");
    sandbox.write("both", "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo e$i >&2; done\n");
    // Where only one of the two streams is copied, their order is not certain.
    let copied = ["$BIN run --progress-regex '(?P<percent>[0-9]+)%' --", "$BIN run --tail 0 --"];
    let rows: [(&str, &[&str]); 3] =
        [("sh out", &["$BIN run --"]), ("sh err", &["$BIN run --"]), ("sh both", &[])];
    for (script, more) in rows {
        let own = Terminal::run(&sandbox, script);
        assert!(own.0 != Some(9) && own.1.len() > 30, "{own:?}");
        for command in copied.iter().chain(more) {
            assert_eq!(Terminal::run(&sandbox, &format!("{command} {script}")), own, "{command} {script}");
        }
    }
}

#[test]
fn each_stream_is_a_terminal_where_ours_is() {
    let sandbox = Sandbox::new();
    sandbox.write("look", "for i in 0 1 2; do [ -t $i ]; printf '%s ' $? >>seen; done; echo >>seen\n");
    let line = "sh -c '$BIN run -- sh look >out; $BIN run --progress-regex \"(?P<percent>[0-9]+)%\" -- sh look 2>err; $BIN run -- sh look <seen'";
    let (code, shown) = Terminal::run(&sandbox, line);
    assert_eq!((code, shown.as_str()), (Some(0), ""));
    let seen = std::fs::read_to_string(sandbox.work().join("seen")).expect("what was seen");
    assert_eq!(seen, "0 1 0 \n0 0 1 \n1 0 0 \n");
}

#[test]
fn the_childs_terminal_has_the_size_of_ours() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    terminal.resize(33, 77);
    sandbox.write(
        "look",
        "trap 'stty size <&2' WINCH\ntrap 'exit 4' TERM\nstty size <&2\nwhile :; do sleep 0.02; done\n",
    );
    let mut child = terminal.start(&sandbox, "$BIN run -- sh look");
    terminal.wait_shown("33 77\r\n");
    terminal.resize(40, 100);
    terminal.wait_shown("40 100\r\n");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().expect("an end").code(), Some(4));
}

#[test]
fn what_is_typed_reaches_the_child_once() {
    let sandbox = Sandbox::new();
    let script =
        "trap 'n=$((n+1)); echo int$n' INT; trap 'echo quit' QUIT; trap 'kill $pid; echo n=$n; exit 5' TERM";
    // A shell that waits hears each signal by itself.
    let wait = "sleep 60 & pid=$!; while :; do wait $pid; done";
    sandbox.write("look", format!("{script}\nread line; echo read $line\n{wait}\n"));
    let terminal = Terminal::open();
    let mut child = terminal.start(&sandbox, "$BIN run -- sh look");
    terminal.typed("hello\n");
    terminal.wait_shown("read hello");
    terminal.typed("\x03");
    terminal.wait_shown("int1");
    terminal.typed("\x03");
    terminal.wait_shown("int2");
    terminal.typed("\x1c");
    terminal.wait_shown("quit");
    // Sent to us alone, so it is handed on.
    signal(&child, Signal::SIGINT);
    terminal.wait_shown("int3");
    signal(&child, Signal::SIGTERM);
    terminal.wait_shown("n=3");
    assert_eq!(child.wait().expect("an end").code(), Some(5));
}

#[test]
fn a_typed_interrupt_ends_a_child_that_does_not_handle_it() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    let mut child = terminal.start(&sandbox, "$BIN run -- sh -c 'echo ready; exec sleep 60'");
    terminal.wait_shown("ready");
    terminal.typed("\x03");
    assert_eq!(child.wait().expect("an end").code(), Some(130));
}

#[test]
fn a_hang_up_ends_the_child() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    let mut child = terminal.start(&sandbox, "$BIN run -- sh -c 'echo pid $$ end; exec sleep 60'");
    terminal.wait_shown("end");
    let pid: i32 = terminal.shown().split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    signal(&child, Signal::SIGHUP);
    assert_eq!(child.wait().expect("an end").code(), Some(129));
    wait_for("the child's end", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_job_is_suspended_and_resumed_as_a_whole() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::open();
    sandbox.write("job", "echo ready\nread line\necho got $line\nexit 6\n");
    let mut shell = terminal.start(&sandbox, "bash --norc --noprofile -i");
    terminal.typed("$BIN run -- sh job; echo code $?\n");
    terminal.wait_shown("ready\r\n");
    terminal.typed("\x1a");
    terminal.wait_shown("Stopped");
    terminal.typed("echo the shell is back\n");
    terminal.wait_shown("\nthe shell is back\r\n");
    terminal.typed("fg\n");
    terminal.typed("on\n");
    terminal.wait_shown("got on\r\n");
    terminal.typed("echo last $?\n");
    terminal.wait_shown("last 6\r\n");
    terminal.typed("exit 0\n");
    shell.wait().expect("an end");
}

#[test]
fn on_a_terminal_the_time_out_ends_the_child_and_its_descendants_alone() {
    let sandbox = Sandbox::new();
    let rows = [
        // Neither obeys.
        "trap \"\" TERM; sleep 60 & echo pid $! end; wait",
        // The child obeys at once, and leaves an orphan that does not.
        "(trap \"\" TERM; exec sleep 60) & echo pid $! end; exec sleep 60",
    ];
    thread::scope(|scope| {
        for script in rows {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let terminal = Terminal::open();
                let line =
                    "sh -c '$BIN run --timeout 3s --kill-after 700ms -- sh -c \"$SCRIPT\"; echo code $?'";
                let mut child = terminal.start(sandbox, &format!("env SCRIPT='{script}' {line}"));
                terminal.wait_shown("code 124\r\n");
                let shown = terminal.shown();
                let pid: i32 = shown.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
                wait_for("the descendant's end", || (!is_alive(pid)).then_some(()));
                assert_eq!(child.wait().expect("an end").code(), Some(0));
            });
        }
    });
}
