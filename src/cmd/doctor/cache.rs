//! Whether the cache can be used, and what of its outbox waits or was refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::tasks::{hold_back, wait_words};
use super::super::{BUSY_MAX, DAMAGED, now, record};
use super::report::Report;
use super::slack::mend;
#[cfg(feature = "postgres")]
use super::trail;
use crate::checkpoint::time::spoken;
use crate::config::Config;
use crate::render::text::plain;
use crate::store::{self, Store};
use crate::ui::Ui;

/// The name of a hold that is set to see whether the cache can be written.
const TRIAL: &str = "|doctor";

/// The store comes back if it can be used.
pub(super) fn check(report: &mut Report, config: &Config, ui: &Ui) -> Option<Store> {
    let Some(path) = &config.cache else {
        report.fail("cache", "there is no home directory to keep it in", "name a file with --cache");
        return None;
    };
    let opened = match Store::open_at(path, BUSY_MAX) {
        Ok(opened) => opened,
        Err(error) => {
            report.fail("cache", error.to_string(), "mend the file or name another one with --cache");
            return None;
        }
    };
    if let Some(aside) = &opened.set_aside {
        let kept = format!("the damaged one is kept as {}", aside.display());
        report.warn("cache", format!("{} was damaged; started afresh", path.display()), kept);
    }
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or(0o600);
    if mode & 0o077 != 0 {
        let hint = format!("run chmod 600 {}", path.display());
        report.warn("cache", format!("{} can be read by others (mode {mode:o})", path.display()), hint);
    }
    let mut store = opened.store;
    record::bury_all(&mut store, config, ui);
    let problems = store.write(|tx| {
        // Leaves nothing behind, but has to be written: on a full disk only that fails.
        tx.hold(TRIAL, now(), now())?;
        tx.lift(TRIAL)?;
        let mut problems = tx.problems()?;
        problems.waiting.iter_mut().try_for_each(|wait| hold_back(tx, wait, config))?;
        Ok(problems)
    });
    let damage =
        store.read(|tx| tx.damage()).unwrap_or_else(|error| error.corrupt.then(|| error.to_string()));
    if let Some(damage) = damage {
        let message = format!("{} is damaged: {}", path.display(), plain(&damage, false));
        report.fail("cache", message, DAMAGED);
        return None;
    }
    match problems {
        Ok(problems) => {
            report.ok("cache", format!("{} (schema {})", path.display(), store::schema_version()));
            check_outbox(report, &problems);
            #[cfg(feature = "postgres")]
            trail::check(report, config, &mut store);
            Some(store)
        }
        Err(error) => {
            let message = format!("could not use cache {}: {error}", path.display());
            report.fail("cache", message, "free or mend the disk");
            None
        }
    }
}

fn check_outbox(report: &mut Report, problems: &store::Problems) {
    let at = now();
    match &problems.waiting {
        None => report.ok("outbox", "nothing waits"),
        Some(wait) => {
            let age = spoken(at.since(wait.since));
            let message = format!("{} waiting, the oldest for {age}: {}", wait.count, wait_words(wait, at));
            report.warn("outbox", message, "run agent-checkpoint flush");
        }
    }
    for wait in &problems.rejected {
        let reason = wait.reason.as_deref().unwrap_or("unknown");
        let hint = format!("{}; then run agent-checkpoint flush --rejected", mend(reason));
        report.fail("outbox", format!("{} refused by Slack: {reason}", wait.count), hint);
    }
}
