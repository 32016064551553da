//! `doctor` on what waits for the audit trail's database, and what that refused.

use std::time::Duration;

use super::Report;
use crate::checkpoint::time::spoken;
use crate::cmd::forward::Forwarder;
use crate::cmd::now;
use crate::config::Config;
use crate::store::Store;

/// For how long rows wait at most while all is well.
const LATE: Duration = Duration::from_secs(60);

/// What the audit trail's database is yet to be told.
pub(super) fn check(report: &mut Report, config: &Config, store: &mut Store) {
    let Some(forwarder) = Forwarder::new(config) else { return };
    let at = now();
    let (unsent, reasons) =
        match forwarder.unsent(store).and_then(|unsent| Ok((unsent, forwarder.refusals(store)?))) {
            Ok(found) => found,
            Err(error) => return report.fail("trail", error.to_string(), "run agent-checkpoint flush"),
        };
    match unsent.since {
        None if unsent.refused > 0 => report.ok("trail", "no row waits for the database"),
        None => report.ok("trail", "the database has every row"),
        Some(since) => {
            let age = spoken(at.since(since));
            let rows = if unsent.waiting == 1 {
                "1 row waits".to_owned()
            } else {
                format!("{} rows wait", unsent.waiting)
            };
            let message = format!("{rows} for the database, the oldest for {age}");
            // What was recorded a moment ago waits for company.
            if at.since(since) < LATE {
                report.ok("trail", message);
            } else {
                report.warn("trail", message, "run agent-checkpoint flush");
            }
        }
    }
    if unsent.refused > 0 {
        let message = format!("{} rows refused by the database: {}", unsent.refused, reasons.join("; "));
        report.fail("trail", message, "mend the cause; then run agent-checkpoint flush --rejected");
    }
}
