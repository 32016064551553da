//! Who holds a lease: an expiry for every case, and a quicker way out when the holder is known to be dead.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rusqlite::OptionalExtension;

use super::{StoreError, Tx};
use crate::checkpoint::time::Moment;

/// A lease that ends later than this from now was written by a clock that has since been set back.
const HORIZON: Duration = Duration::from_secs(600);

/// A process, as it signs its leases: `PROCESS-NAMESPACE/PID/NONCE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner(String);

impl Owner {
    /// This process. The nonce tells it from an earlier one with the same pid.
    pub(crate) fn current(now: Moment) -> Self {
        Self(format!("{}/{}/{:x}", namespace(), std::process::id(), now.0))
    }

    /// An owner as the cache or a command line keeps it.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_this_process(&self) -> bool {
        self.0.starts_with(&format!("{}/{}/", namespace(), std::process::id()))
    }

    /// Whether the process is certain to have ended.
    ///
    /// A cache may be shared by containers that do not see each other's processes: there only the expiry counts.
    fn is_dead(&self) -> bool {
        let mut parts = self.0.split('/');
        let (Some(place), Some(pid)) = (parts.next(), parts.next().and_then(|pid| pid.parse().ok())) else {
            return false;
        };
        place == namespace() && (kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) || is_zombie(pid))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a lease keeps `me` out at this moment.
pub(super) fn keeps_out(holder: Option<&str>, until: Option<Moment>, me: &Owner, now: Moment) -> bool {
    let (Some(holder), Some(until)) = (holder, until) else { return false };
    let holder = Owner::stored(holder.to_owned());
    holder != *me && until > now && until < now.plus(HORIZON) && !holder.is_dead()
}

impl Tx<'_> {
    /// Whether another process that lives has the lease of this name; the statement finds its owner and its end.
    pub(super) fn is_held(
        &self,
        find: &'static str,
        name: &str,
        me: &Owner,
        now: Moment,
    ) -> Result<bool, StoreError> {
        let lease =
            self.connection.query_row(find, [name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(lease.is_some_and(|(holder, until): (String, i64)| {
            keeps_out(Some(&holder), Some(Moment(until)), me, now)
        }))
    }
}

/// Whether a process has ended and only waits to be noticed by its parent. That may take forever: in a container the
/// first process, which inherits every courier, often notices nobody.
#[cfg(target_os = "linux")]
fn is_zombie(pid: i32) -> bool {
    // `PID (NAME) STATE …`, where the name may hold anything.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    name_end.and_then(|end| stat.get(end + 2)).is_some_and(|state| matches!(state, b'Z' | b'X'))
}

/// Whether a process has ended and only waits to be noticed by its parent: not to be learnt without a listing of all.
#[cfg(not(target_os = "linux"))]
fn is_zombie(_pid: i32) -> bool {
    false
}

/// The process namespace: pids mean the same thing only inside one.
#[cfg(target_os = "linux")]
pub(super) fn namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().replace('/', ""))
        .unwrap_or_default()
}

/// The process namespace: there is only one.
#[cfg(not(target_os = "linux"))]
pub(super) fn namespace() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_holder_that_ended_is_dead_before_its_parent_notices() {
        let now = Moment(1_000_000);
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a process that runs until it is told to end");
        let holder = Owner::stored(format!("{}/{}/1", namespace(), child.id()));
        assert!(!holder.is_dead());
        drop(child.stdin.take());
        while !holder.is_dead() {
            std::thread::yield_now();
        }
        let me = Owner::current(now);
        assert!(!keeps_out(Some(holder.as_str()), Some(now.plus(HORIZON / 2)), &me, now));
        assert!(child.wait().expect("it was not waited for yet").success());
    }

    #[test]
    fn a_lease_keeps_others_out_until_it_expires_or_its_holder_dies() {
        let now = Moment(1_000_000);
        let soon = Some(Moment(1_005_000));
        let me = Owner::current(now);
        let other = format!("{}/{}/1", namespace(), std::process::id());
        let dead = format!("{}/{}/1", namespace(), i32::MAX);
        let elsewhere = format!("pid:[1]/{}/1", i32::MAX);
        for (holder, until, kept_out) in [
            (None, None, false),
            (Some(me.as_str()), soon, false),
            (Some(other.as_str()), soon, true),
            (Some(other.as_str()), Some(now), false),
            (Some(dead.as_str()), soon, false),
            (Some(elsewhere.as_str()), soon, true),
            (Some(other.as_str()), Some(now.plus(HORIZON * 2)), false),
        ] {
            assert_eq!(keeps_out(holder, until, &me, now), kept_out, "{holder:?} {until:?}");
        }
    }
}
