//! `tasks`, `show` and `metrics` with `--fleet`: the same answers from the database of all machines.

use std::time::Instant;

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use super::{DAY, configure, metrics, report_problems, show, tasks};
use crate::args::{GlobalArgs, MetricsArgs, ShowArgs, SourceArgs, TasksArgs};
use crate::audit::Trouble;
use crate::audit::connect::{Client, connect};
use crate::audit::report::{self, Found, Intervention, Listed, Made};
use crate::checkpoint::metrics::{every_day, first_of};
use crate::config::database::Audit;
use crate::config::{Config, Flags};
use crate::exit::{Exit, Failure};
use crate::store::{Filter, TaskReport};
use crate::ui::Ui;

/// `tasks --fleet`.
pub(super) fn list(global: &GlobalArgs, args: &TasksArgs) -> anyhow::Result<Exit> {
    if args.waiting {
        let message = "--waiting cannot be used with --fleet: what waits only the cache of its machine knows";
        return Err(Failure::new(Exit::Usage, message).hint("leave out one of them").into());
    }
    let (config, ui) = open(global, &args.source)?;
    let (found, now) =
        ask(&config, |client, deadline| report::list(client, args.state, args.limit, deadline))?;
    let reports: Vec<TaskReport> = found.into_iter().map(unwaited).collect();
    let filter = Filter { state: args.state, waiting: false, limit: args.limit };
    let hint = "what a machine has recorded before may still wait there: run agent-checkpoint flush on it";
    tasks::print(&config, &ui, &filter, (&reports, hint), now)
}

/// `show --fleet`.
pub(super) fn find(global: &GlobalArgs, args: &ShowArgs) -> anyhow::Result<Exit> {
    let (config, ui) = open(global, &args.source)?;
    let (found, at) = ask(&config, |client, deadline| report::find(client, &args.agent, deadline))?;
    let Some(Found { task, checkpoints, artifacts, interventions, questions }) = found else {
        return Err(Failure::new(
            Exit::Failed,
            format!("the database has no agent or task '{}'", args.agent),
        )
        .hint("agent-checkpoint tasks --fleet lists them; rows may still wait on another machine")
        .into());
    };
    let count = u64::try_from(checkpoints.len()).unwrap_or(u64::MAX);
    let report = unwaited(Listed { task, checkpoints: count });
    let told = |(question, answer)| show::Told { question, answer, message_ts: None };
    let people = show::People {
        at,
        questions: questions.into_iter().map(told).collect(),
        interventions: interventions.into_iter().map(intervention_json).collect(),
    };
    if !config.json {
        let mut lines = vec![show::page(&report, &checkpoints, false, &ui)];
        lines.extend(people.lines());
        ui.answer(&lines.join("\n"))?;
        return Ok(Exit::Done);
    }
    let mut json = show::show_json(&report, &checkpoints);
    for checkpoint in json["checkpoints"].as_array_mut().into_iter().flatten() {
        checkpoint["delivery"] = Value::Null;
    }
    json["artifacts"] = artifacts.iter().map(artifact_json).collect();
    json["questions"] = people.questions_json();
    json["interventions"] = people.interventions.into();
    ui.answer(&json.to_string())?;
    Ok(Exit::Done)
}

/// `metrics --fleet`.
pub(super) fn totals(global: &GlobalArgs, args: &MetricsArgs) -> anyhow::Result<Exit> {
    let (config, ui) = open(global, &args.source)?;
    let (found, now) = ask(&config, |client, deadline| report::totals(client, args.days, deadline))?;
    metrics::print(&config, &ui, &every_day(first_of(args.days, now), &found, now))
}

fn open(global: &GlobalArgs, source: &SourceArgs) -> anyhow::Result<(Config, Ui)> {
    let (config, ui) = configure(global, Flags { deadline: source.deadline, ..Flags::default() })?;
    report_problems(&config, &ui);
    Ok((config, ui))
}

/// Connects, and asks the database something before the deadline.
fn ask<T>(
    config: &Config,
    question: impl FnOnce(&mut Client, Instant) -> Result<T, Trouble>,
) -> Result<T, Failure> {
    let database = match &config.audit {
        Audit::Off => {
            let hint = "set DATABASE_URL, or leave out --fleet to read this machine's cache";
            return Err(Failure::new(Exit::Config, "no database is configured").hint(hint));
        }
        Audit::Broken => {
            let hint = "mend the setting named above";
            return Err(Failure::new(Exit::Config, "the database cannot be used").hint(hint));
        }
        Audit::Database(database) => database,
    };
    let deadline = Instant::now() + config.deadline.min(DAY);
    connect(database, deadline).and_then(|mut client| question(&mut client, deadline)).map_err(failure)
}

/// What the user should read of a report that could not be had.
pub(super) fn failure(trouble: Trouble) -> Failure {
    let hint = match &trouble.code {
        Some(code) if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code) => {
            "run agent-checkpoint db migrate; if that was done, agent-checkpoint doctor tells what may not be seen"
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "agent-checkpoint doctor names the privileges that are missing"
        }
        Some(code) if *code == SqlState::QUERY_CANCELED => "give it more time with --deadline",
        _ => &trouble.hint,
    };
    Failure::new(Exit::Failed, format!("could not read from the database: {}", trouble.message)).hint(hint)
}

/// A task whose messages another machine looks after.
pub(super) fn unwaited(Listed { task, checkpoints }: Listed) -> TaskReport {
    TaskReport { task, checkpoints, waiting: None, rejected: None }
}

fn artifact_json(made: &Made) -> Value {
    json!({
        "name": made.artifact.name,
        "target": made.artifact.target,
        "checkpoint_id": made.checkpoint_id,
        "created_at": made.created_at.told(),
    })
}

fn intervention_json(intervention: Intervention) -> Value {
    // Our own details are an object, with what no column holds; other programs write what they like.
    let details =
        intervention.details.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| json!(text)));
    let mut details = details.unwrap_or(Value::Null);
    let mut take = |name: &str| details.as_object_mut().and_then(|details| details.remove(name));
    let (source, user_name) = (take("source"), take("user_name"));
    json!({
        "intervention_id": intervention.id,
        "intervention_type": intervention.kind,
        "source": source,
        "user_id": intervention.user_id,
        "user_name": user_name,
        "action_details": details,
        "created_at": intervention.created_at.told(),
    })
}
