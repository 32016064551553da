//! `doctor` on the audit trail: whether its database can be reached, how well that is protected, and what tables it has.

use std::time::Instant;

use super::report::Report;
#[cfg(feature = "postgres")]
use super::report::Verdict;
#[cfg(feature = "postgres")]
use crate::audit::connect::{Client, Protection, connect};
#[cfg(feature = "postgres")]
use crate::audit::privileges::{self, Rights};
#[cfg(feature = "postgres")]
use crate::audit::{Trouble, migrate, schema};
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::config::database::{Audit, Proof};
#[cfg(feature = "postgres")]
use crate::delivery::http::is_loopback;

/// What mends tables that are missing or old.
#[cfg(feature = "postgres")]
const MIGRATE: &str = "run agent-checkpoint db migrate";

/// Connects, and asks the server something.
#[cfg(feature = "postgres")]
pub(super) fn check(report: &mut Report, config: &Config, deadline: Instant) {
    let database = match &config.audit {
        Audit::Off => return,
        Audit::Broken => {
            report.fail("database", "it cannot be used", "mend the setting named above");
            return;
        }
        Audit::Database(database) => database,
    };
    let asked = connect(database, deadline).and_then(|mut client| {
        let question =
            "SELECT pg_catalog.current_database()::text, pg_catalog.current_setting('transaction_read_only')";
        let (name, read_only) = client.run(deadline, async |client| {
            let row = client.query_typed_one(question, &[]).await?;
            Ok((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)? == "on"))
        })?;
        Ok((client, name, read_only))
    });
    let (mut client, name, read_only) = match asked {
        Ok(found) => found,
        Err(trouble) => return report.fail("database", trouble.message, trouble.hint),
    };
    let place = format!("{}/{name}: PostgreSQL {}", client.place(), client.server_version());
    match client.protection() {
        Protection::Socket => report.ok("database", format!("{place}, by a socket of this machine")),
        Protection::Nothing if is_loopback(client.place()) => {
            report.ok("database", format!("{place}, not encrypted, on this machine"));
        }
        Protection::Nothing => report.warn(
            "database",
            format!("{place}, not encrypted: what is sent can be read on the way"),
            "turn on TLS at the server; sslmode=verify-full then insists on it",
        ),
        Protection::Tls(Proof::Nothing) => {
            report.ok(
                "database",
                format!("{place}, TLS; the certificate is not checked (sslmode=verify-full does)"),
            );
        }
        Protection::Tls(Proof::Authority) => {
            report.ok("database", format!("{place}, TLS; the certificate's authority is checked"));
        }
        Protection::Tls(Proof::Name) => {
            report.ok("database", format!("{place}, TLS; the certificate's authority and name are checked"));
        }
    }
    if let Err(trouble) = check_tables(report, &mut client, read_only, deadline) {
        report.fail("schema", trouble.message, trouble.hint);
    }
    if read_only {
        report.fail(
            "privileges",
            "nothing can be written: the server or the session is read-only, as a standby is",
            "name the primary's host; with several hosts, add target_session_attrs=read-write",
        );
    }
}

/// Whether the tables are as this program writes them, and may be read and written.
#[cfg(feature = "postgres")]
fn check_tables(
    report: &mut Report,
    client: &mut Client,
    read_only: bool,
    deadline: Instant,
) -> Result<(), Trouble> {
    let Rights { lacks, only_reads, may_read_version, are_there } = privileges::check(client, deadline)?;
    let hidden = !are_there && !lacks.is_empty();
    if may_read_version && !hidden {
        // Half of the time that is left, so that there is some to say who is in the way.
        let patience = deadline.saturating_duration_since(Instant::now()) / 2;
        let version = migrate::version(client, patience, deadline)?;
        let is_ours = version == schema::version();
        let missing = if is_ours { migrate::missing_columns(client, deadline)? } else { Vec::new() };
        if missing.is_empty() {
            check_schema(report, version);
        } else {
            let message = format!("version {version}, but columns are missing: {}", missing.join(", "));
            report.fail("schema", message, "give them back; agent-checkpoint db schema prints them all");
        }
    }
    if lacks.is_empty() && are_there && !read_only {
        report.ok("privileges", "all that are needed");
    }
    for lack in lacks {
        let verdict = if only_reads { Verdict::Warn } else { Verdict::Fail };
        report.add("privileges", verdict, lack.message, Some(lack.hint));
    }
    Ok(())
}

/// Whether the tables are of this program's version.
#[cfg(feature = "postgres")]
fn check_schema(report: &mut Report, version: i32) {
    match version {
        0 => report.fail("schema", "the database has no tables of the audit trail", MIGRATE),
        version if version < schema::version() => {
            let wanted = schema::version();
            report.fail("schema", format!("version {version}, older than this program's {wanted}"), MIGRATE);
        }
        version if version > schema::version() => report.warn(
            "schema",
            format!("version {version}, newer than this program's {}", schema::version()),
            "use a newer agent-checkpoint as well",
        ),
        version => report.ok("schema", format!("version {version}")),
    }
}

/// Says that nobody will use the database that is configured.
#[cfg(not(feature = "postgres"))]
pub(super) fn check(report: &mut Report, config: &Config, _deadline: Instant) {
    if config.settings().iter().any(|(name, ..)| name.ends_with("database_url")) {
        report.warn(
            "database",
            "it is not used: this program was built without Postgres",
            "build it with the feature postgres, which is a default",
        );
    }
}
