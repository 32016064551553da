//! `metrics`: per-day totals, as a table or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{about_cache, configure, now, open_or_fail, record, report_problems};
use crate::args::{GlobalArgs, MetricsArgs};
use crate::checkpoint::metrics::{Totals, every_day, first_of};
use crate::checkpoint::time::spoken;
use crate::config::{Config, Flags};
use crate::exit::Exit;
use crate::render::text;
use crate::ui::Ui;

pub(super) fn run(global: &GlobalArgs, args: &MetricsArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, Flags::default())?;
    report_problems(&config, &ui);
    read(&config, &ui, args).map_err(|error| about_cache(error, &config))
}

fn read(config: &Config, ui: &Ui, args: &MetricsArgs) -> anyhow::Result<Exit> {
    let mut store = open_or_fail(config, ui)?;
    record::bury_all(&mut store, config, ui);
    let at = now();
    let first = first_of(args.days, at);
    let days = every_day(first, &store.read(|tx| tx.totals(first))?, at);
    print(config, ui, &days)
}

/// Prints a row for each day, wherever they come from.
pub(super) fn print(config: &Config, ui: &Ui, days: &[Totals]) -> anyhow::Result<Exit> {
    if config.json {
        ui.answer(&list_json(days).to_string())?;
    } else {
        ui.answer(&table(days))?;
    }
    Ok(Exit::Done)
}

/// The days as `metrics --json` prints them.
pub(super) fn list_json(days: &[Totals]) -> Value {
    days.iter().map(to_json).collect()
}

/// A day as `metrics --json` prints it.
fn to_json(day: &Totals) -> Value {
    json!({
        "date": day.date.text(),
        "total": day.total,
        "completed": day.completed,
        "failed": day.failed,
        "cancelled": day.cancelled,
        "avg_duration": day.avg_duration,
        "tokens": day.tokens,
    })
}

fn table(days: &[Totals]) -> String {
    let header = ["DATE", "TOTAL", "COMPLETED", "FAILED", "CANCELLED", "AVG DURATION", "TOKENS"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(days.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(day: &Totals) -> [String; 7] {
    let duration = |seconds: f64| spoken(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    [
        day.date.text(),
        day.total.to_string(),
        day.completed.to_string(),
        day.failed.to_string(),
        day.cancelled.to_string(),
        day.avg_duration.map_or_else(|| "-".to_owned(), duration),
        text::thousands(day.tokens),
    ]
}
