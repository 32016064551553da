//! `db`: the schema of the audit trail in PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{DAY, configure, report_problems};
use crate::args::{DbArgs, DbCommand, DbMigrateArgs, GlobalArgs};
use crate::audit::connect::connect;
use crate::audit::migrate::{Migrated, migrate};
use crate::audit::{Trouble, schema};
use crate::config::Flags;
use crate::config::database::Audit;
use crate::exit::{Exit, Failure};

/// How long a step waits at most for those who use the tables: everybody else who wants them queues behind it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(global: &GlobalArgs, args: &DbArgs) -> anyhow::Result<Exit> {
    match &args.command {
        DbCommand::Schema => print_schema(global),
        DbCommand::Migrate(args) => bring_up(global, args),
    }
}

fn print_schema(global: &GlobalArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    let text = schema::text();
    ui.answer(&if config.json {
        json!({ "version": schema::version(), "sql": text }).to_string()
    } else {
        text.trim_end().to_owned()
    })?;
    Ok(Exit::Done)
}

fn bring_up(global: &GlobalArgs, args: &DbMigrateArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    config.insist()?;
    report_problems(&config, &ui);
    let Audit::Database(database) = &config.audit else {
        return Err(Failure::new(Exit::Config, "no database is configured").hint("set DATABASE_URL").into());
    };
    let time = args.deadline.unwrap_or(DAY).min(DAY);
    let deadline = Instant::now() + time;
    let Migrated { from, to } = connect(database, deadline)
        .and_then(|mut client| migrate(&mut client, PATIENCE.min(time / 2), deadline))
        .map_err(failure)?;
    if config.json {
        ui.answer(&json!({ "from": from, "to": to }).to_string())?;
        return Ok(Exit::Done);
    }
    ui.answer(&match () {
        () if to > schema::version() => {
            format!("the schema is at version {to}, which is newer than this program")
        }
        () if from == to => format!("the schema is at version {to} already"),
        () => format!("the schema was brought from version {from} to {to}"),
    })?;
    Ok(Exit::Done)
}

fn failure(trouble: Trouble) -> Failure {
    Failure::new(Exit::Failed, trouble.message).hint(trouble.hint)
}
