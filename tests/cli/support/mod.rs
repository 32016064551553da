//! A sealed place to run the program in.
//!
//! Each [`Sandbox`] owns a temporary directory with a home and an empty working directory in it, which is no git
//! repository. Commands see nothing of the caller's environment. When a sandbox is dropped, every process that still
//! refers to its directory is killed, so that no background courier outlives its test.
//!
//! The including program has the fake Slack as its module `fake_slack`.

#![allow(clippy::allow_attributes, reason = "whether all of it is in use changes with the tests")]
#![allow(dead_code, reason = "helpers stay although the test that used one is gone")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tempfile::TempDir;

use crate::fake_slack::FakeSlack;

/// How long a sign may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a command may run. A hang then fails its test instead of the whole run.
const RUN_LIMIT: Duration = Duration::from_mins(1);

/// The library that shows a program another time, by `LD_PRELOAD` and `FAKETIME`.
#[track_caller]
pub(crate) fn faketime() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let inside = |entry: std::fs::DirEntry| entry.path().join("faketime/libfaketime.so.1");
    found.map(inside).find(|path| path.exists()).expect("libfaketime, which tests/run installs")
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none after 20 seconds.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Lets whatever the tests start begin with the default actions of the signals that end a process, also where the tests
/// themselves were told to ignore some, as by nohup(1) or in the background of a shell: what has a handler here has none
/// in a new program, while what is ignored here is ignored there.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if mask.is_some_and(|ignored| ignored >> (signal - 1) & 1 == 1) {
                // Here it stays without effect.
                made("a handler", signal_hook::flag::register(signal, Arc::default()));
            }
        }
    });
}

/// A temporary home, and the commands run in it.
pub(crate) struct Sandbox {
    root: TempDir,
    /// The root without symbolic links, as processes see it.
    path: PathBuf,
    env: Mutex<BTreeMap<OsString, OsString>>,
}

impl Sandbox {
    /// # Panics
    /// When the directory cannot be made.
    #[track_caller]
    pub(crate) fn new() -> Self {
        heed_signals();
        let root = made("a temporary directory", tempfile::Builder::new().prefix("checkpoint-").tempdir());
        let path = made("its real path", root.path().canonicalize());
        let home = path.join("home");
        let folders: [(&str, PathBuf); 6] = [
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("XDG_STATE_HOME", home.join(".local/state")),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("XDG_RUNTIME_DIR", path.join("run")),
            ("TMPDIR", path.join("tmp")),
        ];
        let fixed = [("PATH", "/usr/bin:/bin"), ("TERM", "dumb"), ("USER", "tester"), ("LOGNAME", "tester")];
        let shown = [("COLUMNS", "100"), ("NO_COLOR", "1"), ("LANG", "C.UTF-8"), ("TZ", "UTC")];
        let mut env = BTreeMap::new();
        for (name, value) in fixed.into_iter().chain(shown) {
            env.insert(name.into(), value.into());
        }
        for (name, folder) in folders {
            if matches!(name, "XDG_RUNTIME_DIR" | "TMPDIR") {
                made("a folder", fs::create_dir(&folder));
                made("its mode", fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
            }
            env.insert(name.into(), folder.into());
        }
        env.insert("HOME".into(), home.clone().into());
        // No search for a repository leaves the sandbox.
        env.insert("GIT_CEILING_DIRECTORIES".into(), path.clone().into());
        env.insert("GIT_CONFIG_NOSYSTEM".into(), "1".into());
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            env.insert("LLVM_PROFILE_FILE".into(), profile);
        }
        made("a home", fs::create_dir(home));
        made("a working directory", fs::create_dir(path.join("work")));
        Self { root, path, env: Mutex::new(env) }
    }

    fn env_lock(&self) -> MutexGuard<'_, BTreeMap<OsString, OsString>> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a variable for all later commands.
    pub(crate) fn env(&self, name: &str, value: impl AsRef<OsStr>) -> &Self {
        self.env_lock().insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Takes a variable away from all later commands.
    pub(crate) fn env_remove(&self, name: &str) -> &Self {
        self.env_lock().remove(OsStr::new(name));
        self
    }

    /// Points all later commands at a fake Slack by a bot token, with no process left in the background.
    pub(crate) fn slack(&self, fake: &FakeSlack) -> &Self {
        self.env("SLACK_API_URL", fake.url()).env("SLACK_BOT_TOKEN", fake.token());
        self.env("AGENT_CHECKPOINT_BACKGROUND", "never")
    }

    /// Points all later commands at a fake Slack's webhook, with no process left in the background.
    pub(crate) fn webhook(&self, fake: &FakeSlack) -> &Self {
        self.env("SLACK_WEBHOOK_URL", fake.webhook_url()).env("AGENT_CHECKPOINT_BACKGROUND", "never")
    }

    /// The directory all of it lies in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The working directory of commands.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Where the program keeps its cache.
    pub(crate) fn cache_path(&self) -> PathBuf {
        self.home().join(".local/state/agent-checkpoint/cache.db")
    }

    /// Prolongs by twenty seconds the time for which all that failed is left alone, which is a second at first: a busy machine
    /// may take that long for the next call.
    ///
    /// # Panics
    /// When there is no cache.
    #[track_caller]
    pub(crate) fn prolong_rests(&self) {
        const MORE: Duration = Duration::from_secs(20);
        let cache = made("the cache", Connection::open(self.cache_path()));
        let sql = "UPDATE paces SET hold_until_ms = hold_until_ms + ?1 WHERE failures > 0";
        made("more time", cache.execute(sql, [i64::try_from(MORE.as_millis()).unwrap_or_default()]));
        // What those look at who set out before the cache is open.
        let mark = self.cache_path().with_file_name("cache.db.away");
        if let Ok(until) = fs::metadata(&mark).and_then(|mark| mark.modified()) {
            let file = made("its mark", fs::File::options().write(true).open(mark));
            made("more time", file.set_modified(until + MORE));
        }
    }

    /// Where the program looks for its configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.home().join(".config/agent-checkpoint/config.toml")
    }

    /// Writes a file, making the folders above it. A relative path begins at the working directory.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub(crate) fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(path);
        if let Some(parent) = path.parent() {
            made("a folder", fs::create_dir_all(parent));
        }
        made("a file", fs::write(&path, text));
        path
    }

    /// A run of the program with these arguments.
    pub(crate) fn cmd<I, S>(&self, args: I) -> Run<'_>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let program = env!("CARGO_BIN_EXE_agent-checkpoint").into();
        Run { sandbox: self, program, args, env: self.env_lock().clone(), dir: self.work(), stdin: None }
    }

    /// A run of the program from a line of shell, where it is `$BIN`.
    pub(crate) fn shell(&self, line: &str) -> Run<'_> {
        let run = self.cmd(["-c", line]).env("BIN", env!("CARGO_BIN_EXE_agent-checkpoint"));
        Run { program: "/bin/sh".into(), ..run }
    }

    /// The live background processes of this sandbox.
    pub(crate) fn couriers(&self) -> Vec<u32> {
        self.background("courier")
    }

    /// The live processes of this sandbox that run this hidden command.
    pub(crate) fn background(&self, command: &str) -> Vec<u32> {
        let program = OsStr::new("agent-checkpoint");
        let courier = |process: &Process| {
            let mut words = process.words.iter();
            let named = words.next().is_some_and(|word| Path::new(word).file_name() == Some(program));
            named && words.any(|word| word == command)
        };
        self.processes().iter().filter(|process| courier(process)).map(|process| process.pid).collect()
    }

    /// Every live process that refers to the sandbox's directory.
    fn processes(&self) -> Vec<Process> {
        let own = std::process::id();
        processes(&self.path).into_iter().filter(|process| process.pid != own).collect()
    }

    fn kill_all(&self) {
        for process in self.processes() {
            if let Ok(pid) = i32::try_from(process.pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // One that is being killed may have started another: look again until there is none.
        let since = Instant::now();
        while !self.processes().is_empty() && since.elapsed() < PATIENCE {
            self.kill_all();
            thread::yield_now();
        }
    }
}

/// Something the sandbox could not do without.
#[track_caller]
fn made<T, E: fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the sandbox needs {what}: {error}"),
    }
}

struct Process {
    pid: u32,
    words: Vec<OsString>,
}

/// The live processes whose command line or environment names a directory.
#[cfg(not(target_os = "macos"))]
fn processes(directory: &Path) -> Vec<Process> {
    let needle = directory.as_os_str().as_bytes();
    let names = |bytes: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        // One that has ended and waits for its parent has neither.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !names(&line) && !names(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()) {
            return None;
        }
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let words = line.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
        Some(Process { pid, words })
    })
    .collect()
}

/// The live processes whose command line or environment names a directory.
#[cfg(target_os = "macos")]
fn processes(directory: &Path) -> Vec<Process> {
    let listing = Command::new("/bin/ps").args(["-A", "-E", "-ww", "-o", "pid=,command="]).output();
    let listing = listing.map(|output| output.stdout).unwrap_or_default();
    let needle = directory.as_os_str().as_bytes();
    let lines = listing.split(|byte| *byte == b'\n');
    let ours = lines.filter(|line| line.windows(needle.len()).any(|part| part == needle));
    ours.filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let pid = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        Some(Process { pid, words: words.map(|word| OsStr::from_bytes(word).to_owned()).collect() })
    })
    .collect()
}

/// One command to be run.
#[must_use]
pub(crate) struct Run<'a> {
    sandbox: &'a Sandbox,
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: PathBuf,
    stdin: Option<Vec<u8>>,
}

impl Run<'_> {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.env.remove(OsStr::new(name));
        self
    }

    /// What the command reads. Without it there is nothing to read.
    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(bytes.as_ref().to_vec());
        self
    }

    /// Where the command runs; a relative path begins at the working directory.
    pub(crate) fn dir(mut self, path: impl AsRef<Path>) -> Self {
        self.dir = self.sandbox.work().join(path);
        self
    }

    /// Starts the command with its three streams piped, for a test that talks to it or signals it. Without
    /// [`Run::stdin`] its input stays open until the test closes it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub(crate) fn spawn(self) -> Child {
        let mut child = made("to start the program", self.command(Stdio::piped()).spawn());
        if let Some(bytes) = self.stdin
            && let Some(mut stdin) = child.stdin.take()
        {
            thread::spawn(move || stdin.write_all(&bytes));
        }
        child
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end within a minute: also when something it left behind holds on to its
    /// output.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        let input = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let since = Instant::now();
        let mut child = made("to start the program", self.command(input).spawn());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (done, ended) = mpsc::channel::<()>();
        let sandbox = self.sandbox;
        let (output, in_time) = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let in_time = ended.recv_timeout(RUN_LIMIT) != Err(RecvTimeoutError::Timeout);
                if !in_time {
                    sandbox.kill_all();
                }
                in_time
            });
            if let (Some(bytes), Some(mut stdin)) = (&self.stdin, stdin) {
                // A command need not read all that it is given.
                scope.spawn(move || stdin.write_all(bytes));
            }
            let stderr = scope.spawn(move || read_all(stderr));
            let (stdout, stderr) = (read_all(stdout), stderr.join().unwrap_or_default());
            let status = made("the program's end", child.wait());
            drop(done);
            let output = Output {
                command: self.line(),
                dir: self.dir.clone(),
                stdout,
                stderr,
                code: status.code(),
                signal: status.signal(),
                elapsed: since.elapsed(),
            };
            (output, watch.join().unwrap_or(false))
        });
        assert!(in_time, "killed after {RUN_LIMIT:?}\n{output}");
        output
    }

    fn command(&self, input: Stdio) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).env_clear().envs(&self.env);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

fn read_all(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before a failure is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What came of a command. The checks hand it on, so that they can be written in a row.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    command: String,
    dir: PathBuf,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The exit code, where it was no signal that ended the command.
    pub(crate) code: Option<i32>,
    /// The signal that ended the command.
    pub(crate) signal: Option<i32>,
    pub(crate) elapsed: Duration,
}

impl Output {
    /// Exit code 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// This exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        self.check(|o| o.code == Some(code), || format!("expected exit code {code}"))
    }

    /// Exactly this on stdout.
    #[track_caller]
    pub(crate) fn stdout_is(self, text: &str) -> Self {
        self.check(|o| o.stdout == text, || format!("expected on stdout:\n{text}"))
    }

    /// Exactly this on stderr.
    #[track_caller]
    pub(crate) fn stderr_is(self, text: &str) -> Self {
        self.check(|o| o.stderr == text, || format!("expected on stderr:\n{text}"))
    }

    /// This somewhere on stdout.
    #[track_caller]
    pub(crate) fn stdout_has(self, text: &str) -> Self {
        self.check(|o| o.stdout.contains(text), || format!("expected in stdout: {text:?}"))
    }

    /// This somewhere on stderr.
    #[track_caller]
    pub(crate) fn stderr_has(self, text: &str) -> Self {
        self.check(|o| o.stderr.contains(text), || format!("expected in stderr: {text:?}"))
    }

    /// This nowhere on either stream.
    #[track_caller]
    pub(crate) fn lacks(self, text: &str) -> Self {
        self.check(
            |o| !o.stdout.contains(text) && !o.stderr.contains(text),
            || format!("expected on neither stream: {text:?}"),
        )
    }

    /// Nothing on either stream.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        self.check(|o| o.stdout.is_empty() && o.stderr.is_empty(), || "expected no output".to_owned())
    }

    /// Done within this time.
    #[track_caller]
    pub(crate) fn within(self, limit: Duration) -> Self {
        self.check(|o| o.elapsed <= limit, || format!("expected to end within {limit:?}"))
    }

    /// The one JSON value that stdout holds.
    ///
    /// # Panics
    /// When it holds something else.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("stdout is no JSON: {error}\n{self}"),
        }
    }

    /// The JSON value of each line of stdout.
    ///
    /// # Panics
    /// When a line holds something else.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let mut values = Vec::new();
        for line in self.stdout.lines() {
            match serde_json::from_str(line) {
                Ok(value) => values.push(value),
                Err(error) => panic!("a line of stdout is no JSON: {error}: {line}\n{self}"),
            }
        }
        values
    }

    #[track_caller]
    fn check(self, holds: impl FnOnce(&Self) -> bool, expected: impl FnOnce() -> String) -> Self {
        assert!(holds(&self), "{}\n{self}", expected());
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---- command: {}", self.command)?;
        writeln!(f, "---- directory: {}", self.dir.display())?;
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "---- exit code {code} after {:?}", self.elapsed)?,
            (None, signal) => writeln!(f, "---- signal {} after {:?}", signal.unwrap_or(0), self.elapsed)?,
        }
        writeln!(f, "---- stdout:\n{}", self.stdout)?;
        write!(f, "---- stderr:\n{}", self.stderr)
    }
}
