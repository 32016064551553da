//! `show`: one task, whole.

mod people;

use serde_json::{Value, json};

pub(super) use people::People;
#[cfg(feature = "postgres")]
pub(super) use people::Told;

use super::tasks::{hold_back, task_json, waits};
use super::{about_cache, configure, now, open_or_fail, record, report_problems};
use crate::args::{GlobalArgs, ShowArgs};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::context;
use crate::checkpoint::time::{Moment, spoken};
use crate::config::{Config, Flags};
use crate::exit::{Exit, Failure};
use crate::render::{console, text};
use crate::store::TaskReport;
use crate::ui::{Tone, Ui};

pub(super) fn run(global: &GlobalArgs, args: &ShowArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    report_problems(&config, &ui);
    show(&config, &ui, args).map_err(|error| about_cache(error, &config))
}

fn show(config: &Config, ui: &Ui, args: &ShowArgs) -> anyhow::Result<Exit> {
    let mut store = open_or_fail(config, ui)?;
    record::bury_all(&mut store, config, ui);
    let found = store.read(|tx| {
        let Some(mut report) = tx.find(&args.agent)? else { return Ok(None) };
        report.waiting.iter_mut().try_for_each(|wait| hold_back(tx, wait, config))?;
        let checkpoints = report.task.key.map(|key| tx.checkpoints(key)).transpose()?.unwrap_or_default();
        Ok(Some((report, checkpoints)))
    })?;
    let Some((report, checkpoints)) = found else {
        // It may be one of another machine.
        let hint = match config.has_audit() {
            true => "agent-checkpoint tasks lists them; with --fleet both commands tell of all machines",
            false => "agent-checkpoint tasks lists them",
        };
        return Err(Failure::new(Exit::Failed, format!("no agent or task '{}'", args.agent))
            .hint(hint)
            .into());
    };
    // Calls of emit hardly ever read these, so that damage to them would be met here first.
    let people = report.task.key.map(|key| store.read(|tx| People::read(tx, key, now())));
    let people = people.transpose().unwrap_or_else(|error| {
        ui.detail(&format!("could not read what people did: {error}"));
        None
    });
    let people = people.unwrap_or_default();
    if config.json {
        let mut json = show_json(&report, &checkpoints);
        json["questions"] = people.questions_json();
        json["interventions"] = people.interventions.into();
        ui.answer(&json.to_string())?;
    } else {
        let mut lines = vec![page(&report, &checkpoints, true, ui)];
        lines.extend(people.lines());
        ui.answer(&lines.join("\n"))?;
    }
    Ok(Exit::Done)
}

/// A task with its checkpoints and what they made.
pub(super) fn show_json(report: &TaskReport, checkpoints: &[Checkpoint]) -> Value {
    let mut json = task_json(report);
    json["checkpoints"] = checkpoints.iter().map(checkpoint_json).collect();
    json["artifacts"] = checkpoints
        .iter()
        .flat_map(|checkpoint| {
            checkpoint.artifacts.iter().map(|artifact| {
                json!({
                    "name": artifact.name,
                    "target": artifact.target,
                    "checkpoint_id": checkpoint.id.to_string(),
                    "created_at": checkpoint.created_at.told(),
                })
            })
        })
        .collect();
    json
}

fn checkpoint_json(checkpoint: &Checkpoint) -> Value {
    json!({
        "checkpoint_id": checkpoint.id.to_string(),
        "status": checkpoint.status.name(),
        "progress": checkpoint.progress,
        "action": checkpoint.action,
        "error": checkpoint.error,
        "tail": checkpoint.tail,
        "tokens": checkpoint.tokens,
        "context_limit": checkpoint.context_limit,
        "context_percent": context::percent(checkpoint.tokens.unwrap_or(0), checkpoint.context_limit),
        "artifacts": checkpoint.artifacts,
        "meta": checkpoint.meta,
        "elapsed_seconds": checkpoint.elapsed_ms / 1000,
        "created_at": checkpoint.created_at.told(),
        "delivery": checkpoint.delivery.name(),
        "delivery_error": checkpoint.delivery_error,
        "message_ts": checkpoint.message_ts,
    })
}

/// The longest that one value is for people, in characters; JSON has all of it.
const SHOWN: usize = 2000;

/// The same for people; it may be unknown what became of the messages.
pub(super) fn page(report: &TaskReport, checkpoints: &[Checkpoint], knows_delivery: bool, ui: &Ui) -> String {
    let task = &report.task;
    let mut lines = vec![console::line(&task.agent_id, &task.snapshot)];
    let mut fact = |label: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!(
                "{} {}",
                ui.tint(Tone::Dim, &format!("{label:<9}")),
                text::brief(&value, SHOWN, 0)
            ));
        }
    };
    fact("task", Some(format!("{} ({}, {})", task.id, task.task_type, task.state.name())));
    fact("name", task.snapshot.name.clone());
    fact("repo", task.snapshot.repo.clone());
    fact("context", Some(text::context(&task.snapshot)));
    fact("channel", task.channel_id.clone().or_else(|| task.channel.clone()));
    fact("thread", task.thread_ts.clone());
    fact("started", task.started_at.told());
    fact("ended", task.ended_at.map(Moment::rfc3339));
    fact("slack", Some(waits(report, now()).1).filter(|waits| waits != "-"));
    lines.push(String::new());
    for checkpoint in checkpoints {
        let said = checkpoint.action.iter().chain(&checkpoint.error).map(|said| text::brief(said, SHOWN, 0));
        lines.push(
            format!(
                "{:>8}  {:<16}  {:>4}  {:<11}  {}",
                spoken(std::time::Duration::from_millis(checkpoint.elapsed_ms)),
                checkpoint.status,
                format!("{}%", checkpoint.progress),
                if knows_delivery { checkpoint.delivery.name() } else { "-" },
                said.collect::<Vec<_>>().join(": ")
            )
            .trim_end()
            .to_owned(),
        );
        for line in checkpoint.tail.iter().flat_map(|tail| tail.lines()) {
            // Its indentation says something, as in a Python traceback.
            let line = text::cut(&text::plain(line, true), SHOWN, 0);
            lines.push(format!("{:>10}{}", "", ui.tint(Tone::Dim, line.trim_end())).trim_end().to_owned());
        }
        for artifact in &checkpoint.artifacts {
            let name = artifact.name.as_ref().map_or_else(String::new, |name| format!("{name}: "));
            let text = text::brief(&format!("{name}{}", artifact.target), SHOWN, 0);
            lines.push(format!("{:>10}{text}", ""));
        }
    }
    lines.join("\n")
}
