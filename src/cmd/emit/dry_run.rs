//! `emit --dry-run`: what would be recorded and posted, without doing either.

use serde_json::{Value, json};

use crate::checkpoint::Draft;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::plan::{EntryChange, Stored};
use crate::cmd::receipt::Receipt;
use crate::cmd::{now, record};
use crate::config::{Config, Target};
use crate::delivery::Destination;
use crate::exit::Exit;
use crate::render::{console, slack};
use crate::store::Store;
use crate::ui::Ui;

/// Shows what would be recorded and posted.
pub(super) fn dry_run(draft: &Draft, config: &Config, ui: &Ui) -> anyhow::Result<Exit> {
    let stored = match &config.cache {
        Some(path) if path.exists() => Store::peek(path, |tx| tx.stored(draft)).unwrap_or_default(),
        _ => Stored::default(),
    };
    let plan = record::plan(&stored, draft, &record::policy(config), now());
    let append = &plan.append;
    let task = &append.task;
    let message = slack::message(&task.agent_id, &task.snapshot);
    let posts = !matches!(append.entry, EntryChange::None);
    if config.json {
        let warnings = config.problems.iter().map(|problem| problem.message.clone()).collect();
        let planned = Receipt::of(&plan, config);
        let channel = planned.channel.clone().filter(|_| posts);
        // What is sent at once is due at no moment that anybody could wait for.
        let retry_at = planned.retry_at.filter(|_| planned.delivery == Delivery::Coalesced);
        let receipt = Receipt { channel, retry_at, warnings, ..planned };
        let mut json = receipt.json();
        json["dry_run"] = json!(true);
        json["new_task"] = json!(task.key.is_none());
        json["message"] = if posts { message } else { Value::Null };
        ui.answer(&json.to_string())?;
    } else {
        ui.answer(&console::line(&task.agent_id, &task.snapshot))?;
        let is_webhook = matches!(&config.target, Target::Slack(Destination::Webhook { .. }));
        let place = if is_webhook {
            task.channel_id.as_deref().unwrap_or("the webhook's channel")
        } else {
            task.channel.as_deref().unwrap_or("a channel that is not known yet")
        };
        let what = match (&append.entry, append.checkpoint.delivery) {
            (EntryChange::None, Delivery::Off) => "would be recorded and not posted".to_owned(),
            (EntryChange::None, _) => {
                "would be recorded and printed: no destination is configured".to_owned()
            }
            _ if matches!(config.target, Target::Broken) => {
                "would be recorded and wait until the destination is mended".to_owned()
            }
            (_, Delivery::Coalesced) => {
                "would be held back: a message was posted inside the interval".to_owned()
            }
            _ => format!(
                "would be posted to {place} {}",
                if task.thread_ts.is_some() {
                    "in the task's thread"
                } else if is_webhook {
                    "as a message of its own"
                } else {
                    "as the first message of a thread"
                }
            ),
        };
        ui.answer(&what)?;
        if posts {
            ui.answer(message["text"].as_str().unwrap_or_default())?;
        }
    }
    Ok(if config.strict && config.is_wrong() { Exit::Config } else { Exit::Done })
}
