//! Ending a child that does not end by itself: TERM to all of it, and after a while KILL.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::signals::Place;

/// A process, and when it started: its number may be given to another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    pid: i32,
    parent: i32,
    started: u64,
}

/// A child that is being ended, with everything it has started.
///
/// A child apart is ended with its process group. One beside us shares our group with whoever started us: there its
/// descendants are looked for, first and again before KILL, so that those whose parent ended at TERM are not missed.
/// Who has left for a session of its own is in neither.
#[derive(Debug)]
pub(super) struct Ending {
    child: Pid,
    place: Place,
    known: Vec<Member>,
    /// None once KILL was sent.
    pub(super) kill_at: Option<Instant>,
}

impl Ending {
    /// Sends TERM, and CONT so that it is heard also by those who are stopped.
    pub(super) fn begin(child: Pid, place: Place, kill_after: Duration) -> Self {
        let kill_at = Instant::now().checked_add(kill_after);
        let mut ending = Self { child, place, known: Vec::new(), kill_at };
        ending.look(true);
        ending.send(Signal::SIGTERM);
        ending.send(Signal::SIGCONT);
        ending
    }

    /// `alive`: the child's exit status has not been taken.
    pub(super) fn kill(&mut self, alive: bool) {
        self.look(alive);
        self.send(Signal::SIGKILL);
        self.kill_at = None;
    }

    /// Whether somebody is left, after the child's end, who has not been killed.
    pub(super) fn is_awaited(&self) -> bool {
        self.kill_at.is_some()
            && match self.place {
                Place::Apart => killpg(self.child, None).is_ok(),
                Place::Beside => {
                    let now = processes();
                    self.known.iter().any(|member| is_still_there(&now, *member))
                }
            }
    }

    fn look(&mut self, alive: bool) {
        if self.place == Place::Beside {
            let now = processes();
            self.known.retain(|member| is_still_there(&now, *member));
            let mut roots: Vec<i32> = self.known.iter().map(|member| member.pid).collect();
            // Until its exit status is taken, its number is given to nobody else.
            roots.extend(alive.then_some(self.child.as_raw()));
            self.known = family(&now, &roots);
        }
    }

    fn send(&self, signal: Signal) {
        // Who is gone need not be told.
        match self.place {
            Place::Apart => {
                let _ = killpg(self.child, signal);
            }
            Place::Beside => {
                for member in &self.known {
                    let _ = kill(Pid::from_raw(member.pid), signal);
                }
            }
        }
    }
}

fn is_still_there(now: &[Member], member: Member) -> bool {
    now.iter().any(|other| (other.pid, other.started) == (member.pid, member.started))
}

/// The roots and their descendants, parents first.
fn family(all: &[Member], roots: &[i32]) -> Vec<Member> {
    let mut found: Vec<Member> = all.iter().filter(|member| roots.contains(&member.pid)).copied().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|member| member.pid) {
        for member in all.iter().filter(|member| member.parent == parent) {
            if !found.contains(member) {
                found.push(*member);
            }
        }
        next += 1;
    }
    found
}

/// All live processes.
#[cfg(target_os = "linux")]
fn processes() -> Vec<Member> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads `/proc/PID/stat`. One that has ended already and waits for its parent is none.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<Member> {
    // The name is in brackets and may hold anything.
    let (start, rest) = (stat.split_once(" (")?.0, stat.rsplit_once(") ")?.1);
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
    (!matches!(*state, "Z" | "X")).then_some(Member {
        pid: start.parse().ok()?,
        parent: parent.parse().ok()?,
        started: started.parse().ok()?,
    })
}

/// All live processes. When they started is not asked: numbers are reused late there.
#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<Member> {
    let listing = std::process::Command::new("/bin/ps").args(["-A", "-o", "pid=,ppid=,stat="]).output();
    let listing = listing.map(|output| output.stdout).unwrap_or_default();
    let lines = String::from_utf8_lossy(&listing).into_owned();
    let member = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (pid, parent, state) = (fields.next()?, fields.next()?, fields.next()?);
        let alive = !state.starts_with('Z');
        alive.then_some(Member { pid: pid.parse().ok()?, parent: parent.parse().ok()?, started: 0 })
    };
    lines.lines().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: i32, parent: i32) -> Member {
        Member { pid, parent, started: 1 }
    }

    #[test]
    fn a_family_is_found_in_any_order() {
        let all = [member(9, 5), member(5, 3), member(3, 1), member(4, 1), member(6, 4), member(7, 9)];
        let pids = |roots: &[i32]| {
            let mut pids: Vec<i32> = family(&all, roots).iter().map(|member| member.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&[3]), [3, 5, 7, 9]);
        assert_eq!(pids(&[9, 4]), [4, 6, 7, 9]);
        assert_eq!(pids(&[8]), [0; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_in_the_process_table_may_hold_anything() {
        let tail = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        let read = |head: &str| parse_stat(&format!("{head} {tail}"));
        assert_eq!(read("42 (a) b (c) S"), Some(Member { pid: 42, parent: 1, started: 777 }));
        assert_eq!(read("42 (sh) Z"), None);
        assert_eq!(parse_stat("42 (sh) S 1"), None);
    }
}
