//! What becomes of a process with a bug of ours: nobody sees a panic, and who only watches does not end what it watches.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::exit::{Exit, Failure};
use crate::ui::Ui;

/// Threads that nobody else's work depends on; whoever waits for one does so until a deadline, or hears by other ways.
const WATCHERS: [&str; 3] = ["reporter", "worker", "elsewhere"];
/// Threads that a wrapped command cannot do without. What else there is then only hears of what people want.
const CARRIERS: [&str; 2] = ["main", "copy"];

/// Whether a command is wrapped. The hook belongs to the process, and so does this.
static IS_WRAPPING: AtomicBool = AtomicBool::new(false);

/// From now on a panic is told in one line and ends the process as a failure, or, where the command that is wrapped or a
/// stream of checkpoints can go on without it, its thread alone.
///
/// Nothing is unwound: a release is built without what that takes, which is a tenth of its size. `leave` ends the process.
pub(crate) fn install(leave: fn(Exit) -> !) {
    panic::set_hook(Box::new(move |info| {
        Ui::early(None).failure(&failure(info));
        let (thread, is_wrapping) = (thread::current(), IS_WRAPPING.load(Ordering::SeqCst));
        let is_one_of = |names: &[&str]| thread.name().is_some_and(|name| names.contains(&name));
        if is_one_of(&WATCHERS) || is_wrapping && !is_one_of(&CARRIERS) {
            loop {
                thread::park();
            }
        }
        leave(Exit::Failed);
    }));
}

/// From now on a command depends on this process.
pub(crate) fn spare_the_command() {
    IS_WRAPPING.store(true, Ordering::SeqCst);
}

/// Where it was, and not with which values: those may be anybody's secrets.
fn failure(info: &PanicHookInfo<'_>) -> Failure {
    let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
    let message = format!("a bug in agent-checkpoint itself, at {}", place.unwrap_or_default());
    let version = env!("CARGO_PKG_VERSION");
    Failure::new(Exit::Failed, message)
        .hint(format!("please report it, with this line, what you did, and the version, {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::io::{self, Write};
    use std::process::{self, Command, Output};

    const PROVOKED: &str = "AGENT_CHECKPOINT_TEST_FAULT";
    const WRAPPING: &str = "AGENT_CHECKPOINT_TEST_FAULT_WRAPPING";
    const TRACED: &str = "AGENT_CHECKPOINT_TEST_TRACE";

    /// Runs the test below in a process of its own, which panics in a thread of this name.
    fn provoked(thread: &str, is_wrapping: bool) -> Output {
        let test = "fault::tests::a_fault_where_one_is_provoked";
        let mut this = Command::new(env::current_exe().expect("this program"));
        if is_wrapping {
            this.env(WRAPPING, "1");
        }
        this.args(["--exact", test, "--nocapture"]).env(PROVOKED, thread).output().expect("runs")
    }

    fn provoked_in(thread: &str) -> Output {
        provoked(thread, false)
    }

    #[test]
    fn a_fault_where_one_is_provoked() {
        let Ok(name) = env::var(PROVOKED) else { return };
        install(|exit| process::exit(exit.code().into()));
        if env::var(WRAPPING).is_ok() {
            spare_the_command();
        }
        let (_alive, ended) = std::sync::mpsc::channel::<()>();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let _alive = _alive;
            let secret = String::from("xoxb-1");
            panic!("{secret}");
        });
        let _ = thread.expect("a thread");
        // The thread never gives it back, nor does anything after it happen, unless it was unwound.
        let silence = ended.recv_timeout(std::time::Duration::from_secs(1));
        process::exit(match silence {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => 42,
            _ => 43,
        });
    }

    #[test]
    fn a_bug_ends_the_process_with_one_line_that_has_no_values() {
        let ended = provoked_in("anything");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("agent-checkpoint: a bug in agent-checkpoint itself, at src/fault.rs:"),
            "{said}"
        );
        assert_eq!((said.lines().count(), said.contains("xoxb")), (2, false), "{said}");
    }

    #[test]
    fn a_bug_of_who_only_watches_stops_that_alone() {
        for thread in WATCHERS {
            let ended = provoked_in(thread);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!((ended.status.code(), said.contains("a bug in")), (Some(42), true), "{said}");
        }
    }

    #[test]
    fn a_bug_of_who_only_listens_ends_no_command_and_no_wait() {
        for (thread, code) in [("elsewhere", 42), ("socket", 42), ("copy", 1)] {
            assert_eq!(provoked(thread, true).status.code(), Some(code), "{thread}");
        }
        // A question is answered by all other ways too.
        assert_eq!(provoked("elsewhere", false).status.code(), Some(42));
    }

    #[test]
    fn an_error_where_backtraces_are_asked_for() {
        if env::var(TRACED).is_ok() {
            let error = anyhow::anyhow!("it failed");
            writeln!(io::stdout(), "{error:?}").expect("told");
        }
    }

    #[test]
    fn an_error_takes_no_backtrace_for_which_a_release_has_no_index() {
        let test = "fault::tests::an_error_where_backtraces_are_asked_for";
        let mut this = Command::new(env::current_exe().expect("this program"));
        this.env(TRACED, "1").env("RUST_BACKTRACE", "1");
        let ended = this.args(["--exact", test, "--nocapture"]).output().expect("runs");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(said.contains("it failed") && !said.contains("Stack backtrace"), "{said}");
    }
}
