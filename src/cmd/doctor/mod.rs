//! `doctor`: check every part of the set-up and say how to mend what is broken.

mod cache;
mod database;
#[cfg(feature = "serve")]
mod launch;
mod manifest;
mod post;
mod report;
mod slack;
mod socket;
#[cfg(feature = "postgres")]
mod trail;

use std::time::Instant;

use super::{DAY, configure, environment};
use crate::args::{DoctorArgs, GlobalArgs};
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Origin, Target};
use crate::delivery::Destination;
use crate::delivery::bot::Bot;
use crate::delivery::http::Http;
use crate::exit::Exit;
use crate::ui::Ui;
use report::{Report, Verdict};

pub(super) fn run(global: &GlobalArgs, args: &DoctorArgs) -> anyhow::Result<Exit> {
    if args.manifest {
        Ui::early(None).answer(&manifest::text(args.url.as_deref())?)?;
        return Ok(Exit::Done);
    }
    let flags = Flags { channel: args.channel.clone(), deadline: args.deadline, ..Flags::default() };
    let (config, ui) = configure(global, flags)?;
    let mut report = Report::default();
    check_settings(&mut report, &config);
    check_identity(&mut report, &config);
    check_approvers(&mut report, &config);
    #[cfg(feature = "serve")]
    launch::check(&mut report, &config);
    let store = cache::check(&mut report, &config, &ui);
    let (began, time) = (Instant::now(), config.deadline.min(DAY));
    let deadline = began + time;
    let mut about_database = Report::default();
    // Time is left for Slack, if that has to be asked as well.
    let share = if matches!(config.target, Target::Slack(_)) { time / 2 } else { time };
    database::check(&mut about_database, &config, began + share);
    let mut http = Http::new(config.network.clone());
    if let Some(witness) = ui.witness() {
        http.watch(witness);
    }
    match &config.target {
        Target::Nowhere => report.warn(
            "destination",
            "none is configured: checkpoints are recorded and printed",
            "set SLACK_BOT_TOKEN (or SLACK_WEBHOOK_URL)",
        ),
        Target::Broken => {
            report.fail("destination", "it cannot be used: messages wait", "mend the setting named above");
        }
        Target::Slack(Destination::Bot { token, api_url }) => {
            let mut bot = Bot { http: &mut http, token, api_url, deadline };
            slack::check(&mut report, &config, &mut bot);
        }
        Target::Slack(destination @ Destination::Webhook { .. }) => {
            report.ok("destination", format!("incoming webhook at {}", destination.host()));
            report.warn(
                "webhook",
                "messages stand alone: a webhook gives no thread and no live card, and can only be tried by posting",
                "run doctor --post to try it; set SLACK_BOT_TOKEN for threads",
            );
            report.warn(
                "answers",
                "what ask asks can be answered by agent-checkpoint answer alone: a webhook hears nothing",
                "set SLACK_BOT_TOKEN for answers in Slack",
            );
            let chosen = config.settings().into_iter().find(|(name, ..)| *name == "channel");
            if let Some((_, channel, origin)) = chosen
                && origin != Origin::Default
            {
                report.warn(
                    "channel",
                    format!("{channel} is not used: a webhook posts to the channel that it was made for"),
                    "make a webhook for that channel, or set SLACK_BOT_TOKEN",
                );
            }
        }
    }
    socket::check(&mut report, &config, deadline);
    report.0.append(&mut about_database.0);
    if args.post {
        post::check(&mut report, &config, &mut http, store, deadline);
    }
    if config.json {
        ui.answer(&report::as_json(&report, &config).to_string())?;
    } else {
        ui.answer(&report::page(&report, &config, &ui))?;
    }
    Ok(if report.failed() { Exit::Config } else { Exit::Done })
}

fn check_settings(report: &mut Report, config: &Config) {
    for problem in &config.problems {
        let verdict = if problem.harmless { Verdict::Warn } else { Verdict::Fail };
        report.add("settings", verdict, problem.message.clone(), Some(problem.hint.clone()));
    }
    if config.problems.is_empty() {
        report.ok("settings", "nothing wrong");
    }
}

fn check_identity(report: &mut Report, config: &Config) {
    let dir = std::env::current_dir().unwrap_or_default();
    let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
    let repo = config.repo.clone().or(around.repo).map_or_else(String::new, |repo| format!(", repo {repo}"));
    report.ok("identity", format!("{}{repo}", around.agent_id));
}

fn check_approvers(report: &mut Report, config: &Config) {
    // Where no app is configured nobody can be asked.
    if !matches!(config.target, Target::Slack(Destination::Bot { .. })) {
        return;
    }
    // What is wrong with a list that cannot be read is said above: it lets nobody in.
    let Some(approvers) = &config.approvers else { return };
    match approvers.len() {
        0 => report.warn(
            "approvers",
            "anybody in the channel may answer what ask asks",
            "name those who may in AGENT_CHECKPOINT_APPROVERS, by their ids in Slack",
        ),
        1 => report.ok("approvers", "one person may answer what ask asks"),
        count => report.ok("approvers", format!("{count} people may answer what ask asks")),
    }
}
