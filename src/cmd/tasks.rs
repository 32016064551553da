//! `tasks`: a table on a terminal, JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{about_cache, configure, now, open_or_fail, record, report_problems};
use crate::args::{GlobalArgs, TasksArgs};
use crate::checkpoint::context::Level;
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::{Moment, spoken};
use crate::checkpoint::{Card, Task};
use crate::config::{Config, Flags, Target};
use crate::exit::Exit;
use crate::render::text;
use crate::store::{Filter, StoreError, TaskReport, Tx, Wait};
use crate::ui::{Tone, Ui};

/// From when on a running task's silence is told.
const SILENT: Duration = Duration::from_secs(5 * 60);
/// The widest agent id or task name in the table, in columns of a terminal.
const NAME_MAX: usize = 36;
/// What stands between the cells of a row.
const GAP: &str = "  ";
/// To how many columns each cell may be cut where the terminal is narrow. Numbers are not cut.
const FLOORS: [usize; 7] = [16, 8, 8, usize::MAX, usize::MAX, usize::MAX, 12];

pub(super) fn run(global: &GlobalArgs, args: &TasksArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    report_problems(&config, &ui);
    list(&config, &ui, args).map_err(|error| about_cache(error, &config))
}

fn list(config: &Config, ui: &Ui, args: &TasksArgs) -> anyhow::Result<Exit> {
    let mut store = open_or_fail(config, ui)?;
    record::bury_all(&mut store, config, ui);
    let filter = Filter { state: args.state, waiting: args.waiting, limit: args.limit };
    let reports = store.read(|tx| {
        let mut reports = tx.list(&filter)?;
        hold_all_back(tx, &mut reports, config)?;
        Ok(reports)
    })?;
    let hint = "agent-checkpoint emit --status starting \"Hello\" makes one";
    print(config, ui, &filter, (&reports, hint), now())
}

/// Prints the tasks that fit the filter, wherever they come from; the hint is for whoever has none at all.
pub(super) fn print(
    config: &Config,
    ui: &Ui,
    filter: &Filter,
    (reports, hint): (&[TaskReport], &'static str),
    now: Moment,
) -> anyhow::Result<Exit> {
    if config.json {
        ui.answer(&list_json(reports).to_string())?;
    } else if reports.is_empty() {
        let (message, hint) = none_found(filter, hint);
        ui.warn(&message, hint);
    } else {
        ui.answer(&table(reports, ui, now))?;
    }
    Ok(Exit::Done)
}

/// Says of all that waits until when everyone is held back.
pub(super) fn hold_all_back(
    tx: &Tx<'_>,
    reports: &mut [TaskReport],
    config: &Config,
) -> Result<(), StoreError> {
    let mut waits = reports.iter_mut().filter_map(|report| report.waiting.as_mut());
    waits.try_for_each(|wait| hold_back(tx, wait, config))
}

/// A list as `tasks --json` prints it.
pub(super) fn list_json(reports: &[TaskReport]) -> Value {
    reports.iter().map(task_json).collect()
}

/// Why there is nothing to list, and what to do about it where there is nothing at all.
fn none_found(filter: &Filter, hint: &'static str) -> (String, Option<&'static str>) {
    let kind = filter.state.map_or_else(String::new, |state| format!("{} ", state.name()));
    match (filter.waiting, filter.state, filter.limit) {
        (true, ..) => (format!("no {kind}task has messages that wait or were refused"), None),
        (false, None, 1..) => ("no tasks".to_owned(), Some(hint)),
        (false, ..) => (format!("no {kind}tasks"), None),
    }
}

/// Says of what waits until when everyone is held back.
pub(super) fn hold_back(tx: &Tx<'_>, wait: &mut Wait, config: &Config) -> Result<(), StoreError> {
    match &config.target {
        Target::Slack(destination) => tx.hold_back(wait, &destination.link(&config.network), now()),
        Target::Nowhere | Target::Broken => Ok(()),
    }
}

/// A task's fields, as `tasks` and `show` print them.
pub(super) fn task_json(report: &TaskReport) -> Value {
    let task = &report.task;
    let snapshot = &task.snapshot;
    let excerpt =
        |excerpt: &Option<crate::checkpoint::snapshot::Excerpt>| excerpt.as_ref().map(|e| e.text.clone());
    json!({
        "task_id": task.id.to_string(),
        "agent_id": task.agent_id,
        "task_name": snapshot.name,
        "task_type": task.task_type,
        "repo": snapshot.repo,
        "state": task.state.name(),
        "status": snapshot.status.name(),
        "progress": snapshot.progress,
        "tokens": snapshot.tokens,
        "context_limit": snapshot.context_limit,
        "context_percent": snapshot.context_percent(),
        "action": excerpt(&snapshot.action),
        "error": excerpt(&snapshot.error),
        "channel": task.channel_id.as_ref().or(task.channel.as_ref()),
        "thread_ts": task.thread_ts,
        "card_ts": match &task.card { Card::At(ts) => Some(ts), Card::Missing | Card::Frozen => None },
        "started_at": task.started_at.told(),
        "updated_at": task.updated_at.told(),
        "seen_at": task.seen_at.map(Moment::rfc3339),
        "ended_at": task.ended_at.map(Moment::rfc3339),
        "elapsed_seconds": snapshot.elapsed_ms / 1000,
        "checkpoint_count": report.checkpoints,
        "waiting": report.waiting.as_ref().map(wait_json),
        "rejected": report.rejected.as_ref().map(wait_json),
    })
}

fn wait_json(wait: &Wait) -> Value {
    json!({
        "count": wait.count,
        "since": wait.since.rfc3339(),
        "due_at": wait.due_at.rfc3339(),
        "reason": wait.reason,
    })
}

fn table(reports: &[TaskReport], ui: &Ui, now: Moment) -> String {
    let header = ["STATUS", "AGENT", "TASK", "PROGRESS", "CONTEXT", "AGE", "WAITING"];
    let rows = |progress: fn(u8) -> String| {
        let mut rows = vec![header.map(|name| (Tone::Dim, name.to_owned()))];
        rows.extend(reports.iter().map(|report| row(report, progress, now)));
        rows
    };
    let mut cells = rows(text::progress_bar);
    let mut widths = widest(&cells);
    if let Some(columns) = ui.width() {
        if total(&widths) > columns {
            // The number says the same as the bar.
            cells = rows(|progress| format!("{progress}%"));
            widths = widest(&cells);
        }
        widths = fitted(widths, columns);
    }
    let line = |row: &[(Tone, String); 7]| {
        let shown = row.iter().zip(widths).filter(|(_, width)| *width > 0);
        let cells = shown.map(|((tone, cell), width)| {
            let cell = clip(cell, width);
            ui.tint(*tone, &cell) + &" ".repeat(width.saturating_sub(cell.width()))
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// How wide each column has to be.
fn widest(rows: &[[(Tone, String); 7]]) -> [usize; 7] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column].1.width()).max().unwrap_or_default())
}

fn total(widths: &[usize; 7]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1)
}

/// Takes from the widest columns until all of them fit; what does not fit even so is cut off at the right.
fn fitted(mut widths: [usize; 7], columns: usize) -> [usize; 7] {
    while total(&widths) > columns {
        let elastic = widths.iter_mut().zip(FLOORS).filter(|(width, floor)| **width > *floor);
        let Some((widest, _)) = elastic.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
    }
    let mut left = columns;
    for width in &mut widths {
        *width = left.min(*width);
        left = left.saturating_sub(*width + GAP.len());
    }
    widths
}

fn row(report: &TaskReport, progress: fn(u8) -> String, now: Moment) -> [(Tone, String); 7] {
    let task = &report.task;
    let snapshot = &task.snapshot;
    let status = match (task.state, snapshot.status) {
        (TaskState::Failed, _) => Tone::Bad,
        (TaskState::Completed, _) => Tone::Good,
        (TaskState::Cancelled, _) => Tone::Dim,
        (TaskState::Running, Status::WaitingApproval | Status::Blocked) => Tone::Warn,
        (TaskState::Running, _) => Tone::Good,
        (TaskState::Pending | TaskState::Approved, _) => Tone::Dim,
    };
    let said = match task.state {
        TaskState::Pending | TaskState::Approved => task.state.name(),
        _ => snapshot.status.name(),
    };
    let context = match snapshot.context {
        Level::Calm => Tone::Dim,
        Level::Warn => Tone::Warn,
        Level::Alert => Tone::Bad,
    };
    let (waiting, what) = waits(report, now);
    [
        (status, said.to_owned() + &silence(task, now)),
        (Tone::Good, name(&task.agent_id)),
        (Tone::Dim, name(snapshot.name.as_deref().unwrap_or("-"))),
        (Tone::Good, progress(snapshot.progress)),
        (context, format!("{:.1}%", snapshot.context_percent())),
        (
            Tone::Dim,
            if task.updated_at.is_known() { spoken(now.since(task.updated_at)) } else { "-".to_owned() },
        ),
        (waiting, what),
    ]
}

/// For how long a running task has given no sign of life, once that is worth a look. Silence alone is no end.
fn silence(task: &Task, now: Moment) -> String {
    let silent = now.since(task.seen_at.map_or(task.updated_at, |seen| seen.max(task.updated_at)));
    if task.state != TaskState::Running || silent < SILENT || !task.updated_at.is_known() {
        return String::new();
    }
    format!(" (silent for {})", spoken(silent))
}

/// How many messages are not in Slack, and why.
pub(super) fn waits(report: &TaskReport, now: Moment) -> (Tone, String) {
    let mut parts = Vec::new();
    if let Some(wait) = &report.waiting {
        parts.push(format!("{} waiting: {}", wait.count, wait_words(wait, now)));
    }
    if let Some(wait) = &report.rejected {
        parts.push(format!("{} refused: {}", wait.count, wait.reason.as_deref().unwrap_or("unknown")));
    }
    let tone = match (&report.rejected, &report.waiting) {
        (Some(_), _) => Tone::Bad,
        (None, Some(_)) => Tone::Warn,
        (None, None) => Tone::Dim,
    };
    (tone, if parts.is_empty() { "-".to_owned() } else { text::plain(&parts.join("; "), false) })
}

/// Why messages wait, and for how long.
pub(super) fn wait_words(wait: &Wait, now: Moment) -> String {
    let left = wait.due_at.since(now);
    match (&wait.reason, left) {
        (Some(reason), Duration::ZERO) => format!("{reason}; due now"),
        (Some(reason), left) => format!("{reason}; next try in {}", spoken(left)),
        (None, Duration::ZERO) => "due now".to_owned(),
        (None, left) => format!("inside the interval, due in {}", spoken(left)),
    }
}

fn name(name: &str) -> String {
    clip(&text::plain(name, false), NAME_MAX)
}

/// A text that takes no more than so many columns of a terminal.
fn clip(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let kept: String = text.chars().take_while(fits).collect();
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_never_takes_more_columns_than_it_has() {
        for (text, columns, cut) in [
            ("deploy-bot", 10, "deploy-bot"),
            ("deploy-bot", 9, "deploy-b…"),
            ("Deploy the rocket", 8, "Deploy…"),
            ("部署机器人", 10, "部署机器人"),
            ("部署机器人", 9, "部署机器…"),
            ("部署机器人", 8, "部署机…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("ab", 1, "…"),
        ] {
            assert_eq!(clip(text, columns), cut, "{text} {columns}");
            assert!(clip(text, columns).width() <= columns, "{text} {columns}");
        }
    }

    #[test]
    fn the_widest_columns_give_way_and_numbers_do_not() {
        let wide = [27, 36, 20, 8, 7, 6, 60];
        assert_eq!(fitted(wide, 176), wide);
        assert_eq!(fitted(wide, 87), [16, 13, 13, 8, 7, 6, 12]);
        assert_eq!(fitted(wide, 130), [26, 26, 20, 8, 7, 6, 25]);
    }

    #[test]
    fn a_table_fits_every_terminal() {
        let wide = [27, 36, 20, 8, 7, 6, 60];
        for columns in 1..200 {
            let shown: Vec<usize> = fitted(wide, columns).into_iter().filter(|width| *width > 0).collect();
            let whole = shown.iter().sum::<usize>() + GAP.len() * (shown.len().saturating_sub(1));
            assert!(whole <= columns, "{columns}: {shown:?}");
        }
    }
}
