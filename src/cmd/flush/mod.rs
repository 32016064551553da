//! `flush`: deliver everything that waits, as fast as Slack's limits allow.

mod trail;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::deliver::{PATIENCE, Sender};
use super::{about_cache, configure, now, open_or_fail, record, report_problems};
use crate::args::{FlushArgs, GlobalArgs};
use crate::checkpoint::outbox::EntryKind;
use crate::config::{Config, Flags};
use crate::delivery::Outcome;
use crate::exit::{Exit, Failure};
use crate::store::{Claim, Scope, Store, Tx, Why};
use crate::ui::Ui;

/// How often to look whether another process is done with what it is sending.
const POLL: Duration = Duration::from_millis(50);

pub(super) fn run(global: &GlobalArgs, args: &FlushArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let (config, ui) = configure(global, Flags::default())?;
    config.insist()?;
    report_problems(&config, &ui);
    flush(&config, &ui, args, started).map_err(|error| about_cache(error, &config))
}

fn flush(config: &Config, ui: &Ui, args: &FlushArgs, started: Instant) -> anyhow::Result<Exit> {
    let mut store = open_or_fail(config, ui)?;
    store.read_through();
    record::bury_all(&mut store, config, ui);
    let deadline = args.deadline.and_then(|deadline| started.checked_add(deadline));
    let mut trail = trail::TrailFlush::new(config, args.rejected, deadline);
    // Who opens a thread is the database's to say, so it is told before, and after of what came of it.
    trail.tell(&mut store, ui)?;
    let Some(mut sender) = Sender::new(config, true, deadline).map(|sender| sender.watched(ui)) else {
        trail.tell_all(&mut store, ui)?;
        return without_destination(&mut store, config.json, &trail, ui);
    };
    let found = store.write(|tx| {
        if let Some(channel) = &args.channel {
            tx.redirect(sender.credential(), channel)?;
        }
        tx.hurry(sender.link(), args.rejected, now())
    })?;
    let (mut sent, mut refused) = (0_u64, 0_u64);
    let mut reason = None;
    // What was recorded after the start has its own time, and its own callers: a busy fleet is never done.
    let next = |sender: &Sender, tx: &Tx<'_>, at| match tx.left(sender.credential(), found.began)?.ours {
        0 => Ok(Claim::Nothing),
        _ => sender.claim(tx, Scope::All, PATIENCE, at),
    };
    let mut claim = store.write(|tx| next(&sender, tx, now()))?;
    loop {
        claim = match claim {
            Claim::Job(job) => {
                let (attempt, claimed) = sender.attempt(&mut store, &job, next)?;
                ui.detail(&attempt.words());
                match attempt.outcome {
                    Outcome::Posted { .. } if attempt.kind == EntryKind::Post => sent += 1,
                    Outcome::Rejected(why) if attempt.kind == EntryKind::Post => {
                        refused += 1;
                        ui.wrong(
                            &format!("Slack refused a message of {} for good: {why}", attempt.agent_id),
                            Some("run agent-checkpoint doctor; once the cause is mended, flush --rejected"),
                        );
                    }
                    Outcome::Retry(retry) => reason = Some(retry.reason),
                    _ => {}
                }
                claimed?
            }
            Claim::Wait { until, why } => {
                let wait =
                    if why == Why::Held { POLL } else { until.since(now()).max(Duration::from_millis(1)) };
                if wait >= sender.time_to_wait() {
                    break;
                }
                thread::sleep(wait);
                store.write(|tx| next(&sender, tx, now()))?
            }
            Claim::Nothing => break,
        };
    }
    trail.tell_all(&mut store, ui)?;
    let left = store.read(|tx| tx.left(sender.credential(), found.began))?;
    if config.json {
        let waiting = left.ours + left.foreign;
        let answer = json!({ "sent": sent, "rejected": refused, "waiting": waiting, "audit": trail.json() });
        ui.answer(&answer.to_string())?;
    } else {
        if found.ours > 0 || refused > 0 {
            ui.answer(&format!("{sent} sent, {refused} refused, {} still waiting", left.ours))?;
        }
        trail.answer(ui)?;
    }
    if left.foreign > 0 {
        ui.warn(
            &format!("{} more wait for another workspace", left.foreign),
            Some("run flush with the token or webhook that they were recorded with"),
        );
    }
    if left.ours > 0 {
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let hint = "give a longer --deadline, or run flush again later";
        ui.wrong(&format!("{} still waiting at the deadline{reason}", left.ours), Some(hint));
        trail.complain(ui);
        return Ok(Exit::NotYet);
    }
    let exit = trail.complain(ui);
    Ok(if refused > 0 { Exit::Config } else { exit })
}

/// With nowhere to send to, all is well only if nothing waits.
fn without_destination(
    store: &mut Store,
    json: bool,
    trail: &trail::TrailFlush,
    ui: &Ui,
) -> anyhow::Result<Exit> {
    let waiting = store.read(|tx| tx.problems())?.waiting.map_or(0, |wait| wait.count);
    if waiting == 0 {
        if json {
            let answer = json!({ "sent": 0, "rejected": 0, "waiting": 0, "audit": trail.json() });
            ui.answer(&answer.to_string())?;
        } else {
            trail.answer(ui)?;
        }
        return Ok(trail.complain(ui));
    }
    trail.answer(ui)?;
    trail.complain(ui);
    Err(Failure::new(
        Exit::Config,
        format!("{waiting} messages wait, but no Slack destination is configured"),
    )
    .hint("set SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL")
    .into())
}
