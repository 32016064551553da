//! What a user may do with the tables of the audit trail: no more than this program needs, and no less.

use std::time::Instant;

use super::Trouble;
use super::connect::Client;

/// The tables and what is done with them. The version table is written by `db migrate` alone.
const NEEDED: [(&str, &[&str]); 5] = [
    ("agent_tasks", &["SELECT", "INSERT", "UPDATE"]),
    ("agent_checkpoints", &["SELECT", "INSERT", "UPDATE"]),
    ("human_interventions", &["SELECT", "INSERT", "UPDATE"]),
    ("task_artifacts", &["SELECT", "INSERT", "UPDATE"]),
    (VERSIONS, &["SELECT"]),
];

/// The table of versions.
const VERSIONS: &str = "agent_checkpoint_schema";

/// What stands in the way of a user, where the tables exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) message: String,
    /// The statement that mends it, or what else does.
    pub(crate) hint: String,
}

/// What there is for whoever may only read, and what not.
const READER: &str = "tasks, show and metrics with --fleet work, and so do the answers of serve; what is recorded \
     here waits and is not told to the database, and no answer or cancel is passed on to other machines";

/// What is known of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) lacks: Vec<Lack>,
    /// What is lacked is all that writes, and nothing that reads: a role may be meant to be so.
    pub(crate) only_reads: bool,
    /// Whether the version of the schema can be read, if there is one.
    pub(crate) may_read_version: bool,
    /// Whether there are tables that are found by their names.
    pub(crate) are_there: bool,
}

/// A table with the name of one of ours.
struct Table {
    name: String,
    /// By its name alone.
    is_found: bool,
    is_open: bool,
    lacking: Vec<&'static str>,
}

impl Table {
    /// Whether it is one that reports are made of and may be read alone, or none of those.
    fn is_only_read(&self) -> bool {
        self.name == VERSIONS || self.lacking == ["INSERT", "UPDATE"]
    }
}

/// Asks what the user may do; tables that do not exist lack nothing.
///
/// # Errors
/// What the server says, or that the deadline is over.
pub(crate) fn check(client: &mut Client, deadline: Instant) -> Result<Rights, Trouble> {
    // The functions of other schemas never stand in for these.
    let may = |privilege: &str| format!("pg_catalog.has_table_privilege(c.oid, '{privilege}')");
    let sql = format!(
        "SELECT c.relname::text, pg_catalog.pg_table_is_visible(c.oid), \
         pg_catalog.has_schema_privilege(n.oid, 'USAGE'), {}, {}, {}, pg_catalog.quote_ident(current_user)::text, \
         pg_catalog.quote_ident(n.nspname)::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'f') AND c.relname IN ({}) ORDER BY n.nspname, c.relname",
        may("SELECT"),
        may("INSERT"),
        may("UPDATE"),
        NEEDED.map(|(name, _)| format!("'{name}'")).join(", "),
    );
    let rows = client.run(deadline, async |client| {
        let rows = client.query_typed(&sql, &[]).await?;
        rows.iter()
            .map(|row| Ok((table(row)?, row.try_get(6)?, row.try_get(7)?)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(judge(&rows))
}

fn table(row: &tokio_postgres::Row) -> Result<Table, tokio_postgres::Error> {
    let name: String = row.try_get(0)?;
    let needed = NEEDED.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, needed)| needed);
    let mut lacking = Vec::new();
    for (index, privilege) in [(3, "SELECT"), (4, "INSERT"), (5, "UPDATE")] {
        if !row.try_get::<_, bool>(index)? && needed.contains(&privilege) {
            lacking.push(privilege);
        }
    }
    Ok(Table { name, is_found: row.try_get(1)?, is_open: row.try_get(2)?, lacking })
}

/// What follows from the tables that there are, each with the user's and the schema's name as SQL writes them.
fn judge(tables: &[(Table, String, String)]) -> Rights {
    let found = || tables.iter().filter(|(table, ..)| table.is_found);
    let mut lacks = Vec::new();
    let are_there = found().next().is_some();
    if !are_there {
        lacks.extend(tables.iter().find(|(table, ..)| table.name != VERSIONS).map(unreachable));
    }
    let found_tables: Vec<_> = found().collect();
    let only_reads = are_there && found_tables.iter().all(|(table, ..)| table.is_only_read());
    lacks.extend(ungranted(&found_tables, only_reads));
    let may_read_version = found().all(|(table, ..)| table.name != VERSIONS || table.lacking.is_empty());
    Rights { lacks, only_reads, may_read_version, are_there }
}

/// What was not granted on tables that are found: mostly it is one cause, such as a user who may only read.
fn ungranted(found: &[&(Table, String, String)], only_reads: bool) -> Option<Lack> {
    let mut groups: Vec<(&[&str], Vec<&str>)> = Vec::new();
    for (table, ..) in found.iter().filter(|(table, ..)| !table.lacking.is_empty()) {
        match groups.iter_mut().find(|(lacking, _)| *lacking == table.lacking) {
            Some((_, tables)) => tables.push(&table.name),
            None => groups.push((&table.lacking, vec![&table.name])),
        }
    }
    let (_, user, _) = found.first().filter(|_| !groups.is_empty())?;
    let lacking = groups
        .iter()
        .map(|(lacking, tables)| format!("{} on {}", listed(lacking, "or"), listed(tables, "and")))
        .collect::<Vec<_>>();
    let grants = groups
        .iter()
        .map(|(lacking, tables)| format!("GRANT {} ON {} TO {user}", lacking.join(", "), tables.join(", ")))
        .collect::<Vec<_>>();
    let grants = format!("let the tables' owner run {}", grants.join("; "));
    Some(if only_reads {
        let message = format!("user {user} may only read: {READER}");
        Lack { message, hint: format!("where that is not enough, {grants}") }
    } else {
        Lack { message: format!("user {user} may not {}", lacking.join(", nor ")), hint: grants }
    })
}

/// `a, b and c`.
fn listed(words: &[&str], last: &str) -> String {
    match words {
        [before @ .., one] if !before.is_empty() => format!("{} {last} {one}", before.join(", ")),
        _ => words.concat(),
    }
}

/// Tables that exist but not for a user who only gives their names.
fn unreachable((table, user, schema): &(Table, String, String)) -> Lack {
    if table.is_open {
        return Lack {
            message: format!(
                "the tables are in schema {schema}, which is not in the search path of user {user}"
            ),
            hint: format!(
                "run ALTER ROLE {user} SET search_path = {schema}, or agent-checkpoint db migrate for other tables"
            ),
        };
    }
    Lack {
        message: format!("user {user} may not use schema {schema}, in which the tables are"),
        hint: format!("let its owner run GRANT USAGE ON SCHEMA {schema} TO {user}"),
    }
}
