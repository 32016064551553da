//! How a child ended, and whether the kernel ended it for want of memory.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::tail::Shown;

/// What the system reports of a process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u8),
    Signal { number: u8, core_dumped: bool },
}

impl Exit {
    pub(super) fn from_raw(status: i32) -> Self {
        let status = ExitStatus::from_raw(status);
        match status.signal() {
            Some(number) => {
                Self::Signal { number: u8::try_from(number).unwrap_or(0), core_dumped: status.core_dumped() }
            }
            None => Self::Code(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)),
        }
    }

    /// As shells count: 128+n for signal n.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => 128u8.saturating_add(number),
        }
    }
}

/// A signal's name, such as `SIGTERM`; those without one are numbered.
pub(crate) fn signal_name(number: u8) -> String {
    Signal::try_from(i32::from(number))
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// All there is to say about a child that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// Its time was over, so we told it to end. It may have ended by itself at the same moment.
    pub(crate) timed_out: bool,
    /// The kernel killed it, or a process it waited for, for want of memory: likely, not certain.
    pub(crate) out_of_memory: bool,
    pub(crate) elapsed: Duration,
    /// The ends of the streams that were copied. Where both go to the same place they are one, given as `stderr`.
    pub(crate) stdout: Option<Shown>,
    pub(crate) stderr: Option<Shown>,
    /// Why output of the child was cut off: a sentence without a full stop.
    pub(crate) write_error: Option<String>,
}

impl Ended {
    /// The code that `run` returns for it.
    pub(crate) fn code(&self) -> u8 {
        if self.timed_out { 124 } else { self.exit.code() }
    }
}

/// How many processes the kernel has killed for want of memory, in our control group or else on the whole machine.
#[derive(Debug)]
pub(super) struct OomKills {
    file: PathBuf,
    before: u64,
}

impl OomKills {
    /// Counts them now. None where the system does not say.
    pub(super) fn start() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        oom_files(&groups).into_iter().find_map(|file| Some(Self { before: oom_kills(&file)?, file }))
    }

    /// Whether it was one of these, by all that can be known, that ended a child: by a KILL that nobody here sent it,
    /// or a process that it waited for, of which shells say the same by their code.
    pub(super) fn explain(&self, exit: Exit, killed_by_us: bool) -> bool {
        let was_killed = exit.code() == 128 + Signal::SIGKILL as u8;
        was_killed && !killed_by_us && oom_kills(&self.file).is_some_and(|now| now > self.before)
    }
}

/// Where the counter may stand, the nearest first. In a container our group may be the root of what is mounted.
fn oom_files(groups: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            files.extend([root.join(path).join("memory.events"), root.join("memory.events")]);
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let root = root.join("memory");
            files.extend([root.join(path).join("memory.oom_control"), root.join("memory.oom_control")]);
        }
    }
    files.push("/proc/vmstat".into());
    files
}

fn oom_kills(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_as_shells_do() {
        let rows = [
            (0, Exit::Code(0), 0),
            (7 << 8, Exit::Code(7), 7),
            (255 << 8, Exit::Code(255), 255),
            (15, Exit::Signal { number: 15, core_dumped: false }, 143),
            (6 | 0x80, Exit::Signal { number: 6, core_dumped: true }, 134),
            (40, Exit::Signal { number: 40, core_dumped: false }, 168),
        ];
        for (raw, exit, code) in rows {
            assert_eq!((Exit::from_raw(raw), Exit::from_raw(raw).code()), (exit, code), "{raw}");
        }
        assert_eq!((signal_name(9), signal_name(40)), ("SIGKILL".to_owned(), "signal 40".to_owned()));
    }

    #[test]
    fn the_counter_is_looked_for_near_us_first() {
        let groups = "5:cpu,memory:/a/b\n1:cpu:/x\n0::/c:d\n";
        let files: Vec<String> = oom_files(groups).iter().map(|file| file.display().to_string()).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.oom_control",
            "/sys/fs/cgroup/memory/memory.oom_control",
            "/sys/fs/cgroup/c:d/memory.events",
            "/sys/fs/cgroup/memory.events",
            "/proc/vmstat",
        ];
        assert_eq!(files, expected);
    }

    #[test]
    fn a_kill_is_explained_by_want_of_memory_only_if_the_kernel_counted_one_and_we_sent_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory.events");
        let kill = Exit::Signal { number: 9, core_dumped: false };
        let term = Exit::Signal { number: 15, core_dumped: false };
        for (exit, ours, count, expected) in [
            (kill, false, 4, true),
            (Exit::Code(137), false, 4, true),
            (kill, false, 3, false),
            (kill, true, 4, false),
            (term, false, 4, false),
            (Exit::Code(1), false, 4, false),
            (Exit::Code(0), false, 4, false),
        ] {
            fs::write(&file, format!("oom_kill {count}\n")).expect("a file");
            let kills = OomKills { file: file.clone(), before: 3 };
            assert_eq!(kills.explain(exit, ours), expected, "{exit:?} {ours} {count}");
        }
        fs::remove_file(&file).expect("a file");
        assert!(!OomKills { file, before: 3 }.explain(kill, false), "nothing is known");
    }

    #[test]
    fn the_counter_is_read_from_any_of_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory.events");
        let rows = [
            ("low 0\nhigh 0\noom 3\noom_kill 2\noom_group_kill 0\n", Some(2)),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", Some(5)),
            ("low 0\n", None),
        ];
        for (text, count) in rows {
            fs::write(&file, text).expect("a file");
            assert_eq!(oom_kills(&file), count, "{text}");
        }
    }
}
