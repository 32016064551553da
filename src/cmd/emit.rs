//! `emit`: record one checkpoint, then try to deliver it.

use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::deliver::{PATIENCE, Sender};
use super::receipt::Receipt;
use super::{configure, courier, environment, now, open, report_problems, unpack};
use crate::args::{BackgroundChoice, EmitArgs, GlobalArgs};
use crate::checkpoint::context::Level;
use crate::checkpoint::id::{CheckpointId, EntryKey, TaskId};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::{Delivery, EntryKind, Job, Priority};
use crate::checkpoint::parse::{self, Artifact};
use crate::checkpoint::plan::{self, EntryChange, Notice, Plan, Policy, Route, Stored};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Draft, Task};
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Target};
use crate::delivery::{Cause, Outcome, Retry};
use crate::exit::{Exit, Failure};
use crate::render::{console, slack, text};
use crate::secret::Secret;
use crate::store::{Claim, Recorded, Scope, Standing, Store, StoreError, Tx, Why};
use crate::ui::Ui;

/// How long settled rows are kept.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often to look whether the process that is sending for the same task is done.
const POLL: Duration = Duration::from_millis(10);
/// The least time to wait for other processes that are writing to the cache, however short the deadline: they take
/// milliseconds each.
const BUSY_MIN: Duration = Duration::from_secs(1);

pub(super) fn run(global: &GlobalArgs, args: EmitArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let (config, ui) = configure(global, flags(&args))?;
    let draft = draft(&args, &config)?;
    report_problems(&config, &ui);
    if args.dry_run {
        return dry_run(&draft, &config, &ui);
    }
    let deadline = started + config.deadline.min(Duration::from_secs(86_400));
    let sender = Sender::new(&config, false, Some(deadline));
    let mut emission =
        Emission { config: &config, ui: &ui, draft: &draft, sender, warnings: Vec::new(), is_sent: false };
    let receipt = match open(&config, &ui, config.deadline.clamp(BUSY_MIN, super::BUSY_MAX)) {
        Ok(store) => emission.with_store(store)?,
        Err(error) => emission.without_store(&error.to_string())?,
    };
    emission.finish(receipt)
}

fn flags(args: &EmitArgs) -> Flags {
    let (identity, delivery) = (args.identity.clone(), args.delivery.clone());
    Flags {
        agent_id: identity.agent_id,
        task_name: identity.task_name,
        task_type: identity.task_type,
        repo: identity.repo,
        channel: identity.channel,
        thread: identity.thread,
        min_interval: delivery.min_interval,
        deadline: delivery.deadline,
        background: delivery.background,
        strict: delivery.strict,
        no_post: delivery.no_post,
        context_limit: args.context_limit,
        context_warn: delivery.context_warn,
        context_alert: delivery.context_alert,
    }
}

/// Reads and masks what the caller says.
fn draft(args: &EmitArgs, config: &Config) -> anyhow::Result<Draft> {
    let masker = Masker::new(config.secrets.iter().map(Secret::reveal));
    let mask = |text: &str| masker.mask(text);
    let wrong = |what: &str, invalid: parse::Invalid| {
        Failure::new(Exit::Usage, format!("{what}: the text {}", invalid.reason)).hint(invalid.hint)
    };
    let free = |what: &str, text: Option<String>| -> Result<Option<String>, Failure> {
        let text =
            text.map(|text| parse::free_text(text.trim())).transpose().map_err(|error| wrong(what, error))?;
        Ok(text.filter(|text| !text.is_empty()).map(|text| mask(&text)))
    };
    let action = match &args.action {
        Some(action) if action == "-" => Some(read_stdin()?),
        Some(action) => Some(action.to_string_lossy().into_owned()),
        None => None,
    };
    let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
    let said = |text: &Option<String>| text.as_deref().map(mask);
    Ok(Draft {
        id: CheckpointId::new(now()),
        agent_id: mask(&around.agent_id),
        status: args.status.unwrap_or(Status::Checkpoint),
        progress: args.progress,
        tokens: args.tokens,
        context_limit: config.context_limit,
        name: said(&config.task_name),
        task_type: said(&config.task_type),
        repo: said(&config.repo),
        repo_default: said(&around.repo),
        action: free("ACTION", action)?,
        error: free("--error", args.error.as_ref().map(|error| error.to_string_lossy().into_owned()))?,
        artifacts: args
            .artifact
            .iter()
            .map(|Artifact { name, target }| Artifact { name: said(name), target: mask(target) })
            .collect(),
        meta: args.meta.iter().map(|(key, value)| (mask(key), mask(value))).collect(),
        channel: config.channel.clone(),
        thread: config.thread.clone(),
        force: args.force,
        new: args.identity.new,
    })
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Exit::Usage, format!("could not read ACTION from standard input: {error}"))
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn policy(config: &Config) -> Policy {
    let slack = |credential| Route::Slack { credential, default_channel: config.default_channel.clone() };
    Policy {
        min_interval: config.min_interval,
        thresholds: config.thresholds,
        route: match &config.target {
            _ if config.no_post => Route::Off,
            Target::Nowhere => Route::Print,
            Target::Broken => slack(None),
            Target::Slack(destination) => slack(Some(destination.credential())),
        },
    }
}

fn plan_now(stored: &Stored, draft: &Draft, config: &Config, at: Moment) -> Plan {
    plan::plan(stored, draft, &policy(config), (TaskId::new(at), CheckpointId::new(at)), at)
}

/// One checkpoint on its way.
struct Emission<'a> {
    config: &'a Config,
    ui: &'a Ui,
    draft: &'a Draft,
    /// `None` when nothing is configured, or nothing that works.
    sender: Option<Sender>,
    warnings: Vec<String>,
    /// Whether our own message is in Slack: then there is nothing to look up.
    is_sent: bool,
}

/// What the recording transaction did.
struct Outset {
    plan: Plan,
    recorded: Recorded,
    claim: Claim,
    /// The courier that has to be started, if any.
    courier: Option<courier::Office>,
}

impl Emission<'_> {
    fn with_store(&mut self, mut store: Store) -> anyhow::Result<Receipt> {
        let mut outset = self.record(&mut store);
        if matches!(&outset, Err(error) if error.corrupt) {
            match store.start_afresh() {
                Ok(opened) => store = unpack(opened, self.ui),
                Err(error) => return self.without_store(&error.to_string()),
            }
            outset = self.record(&mut store);
        }
        let outset = match outset {
            Ok(outset) => outset,
            Err(error) => {
                let error = format!("could not write to cache {}: {error}", store.path().display());
                return self.without_store(&error);
            }
        };
        self.notice(&outset.plan.notices);
        let office = match self.deliver(&mut store, outset.claim, &outset.recorded, &outset.plan) {
            Ok(office) => outset.courier.or(office),
            Err(error) => {
                // The checkpoint is recorded and its entry is leased to us: the next call takes it up again.
                self.warn(format!("could not write to cache {}: {error}", store.path().display()), None);
                None
            }
        };
        if let Some(office) = office
            && let Err(error) = courier::start(self.config, &office)
        {
            self.warn(
                format!("could not start a courier: {error}"),
                Some("what waits is sent by the next call, or by agent-checkpoint flush"),
            );
        }
        Ok(self.receipt(&mut store, &outset.recorded, &outset.plan))
    }

    /// Records the checkpoint; claims its entry or appoints a courier in the same transaction.
    fn record(&self, store: &mut Store) -> Result<Outset, StoreError> {
        let at = now();
        store.write(|tx| {
            let stored = tx.stored(&self.draft.agent_id)?;
            let plan = plan_now(&stored, self.draft, self.config, at);
            if let Some(superseded) = &plan.superseded {
                tx.append(superseded, at)?;
            }
            let recorded = tx.append(&plan.append, at)?;
            tx.prune(at.minus(RETENTION))?;
            let due = plan.append.checkpoint.delivery == Delivery::Queued;
            let (claim, courier) = match &self.sender {
                Some(sender) if due && self.config.background != BackgroundChoice::Always => {
                    (sender.claim(tx, Scope::Task(recorded.task), PATIENCE, at)?, None)
                }
                Some(sender) if recorded.entry.is_some() => (Claim::Nothing, self.appoint(sender, tx, at)?),
                _ => (Claim::Nothing, None),
            };
            Ok(Outset { plan, recorded, claim, courier })
        })
    }

    /// Leaves what waits to a courier, unless the caller wants none or one is at work.
    fn appoint(
        &self,
        sender: &Sender,
        tx: &Tx<'_>,
        at: Moment,
    ) -> Result<Option<courier::Office>, StoreError> {
        if self.config.background == BackgroundChoice::Never || !tx.anything_waits(sender.credential())? {
            return Ok(None);
        }
        courier::appoint(tx, sender.credential(), at)
    }

    /// Sends what is due, as far as the caller's patience goes; the courier that must be started for the rest comes
    /// back.
    fn deliver(
        &mut self,
        store: &mut Store,
        mut claim: Claim,
        recorded: &Recorded,
        plan: &Plan,
    ) -> Result<Option<courier::Office>, StoreError> {
        let Some(mut sender) = self.sender.take() else { return Ok(None) };
        let urgent = matches!(&plan.append.entry, EntryChange::Insert { priority: Priority::Immediate, .. });
        // Whoever leaves nothing to a courier, or wants to know, tries for as long as there is time.
        let persistent = self.config.background == BackgroundChoice::Never || self.config.strict;
        let patient = |why| persistent || (urgent && why != Why::NotDue);
        // Whether our own message is still to be sent, and worth waiting for.
        let mut open = recorded.entry.is_some() && plan.append.checkpoint.delivery == Delivery::Queued;
        let mut reach = (Scope::Task(recorded.task), PATIENCE);
        loop {
            claim = match claim {
                Claim::Job(job) => {
                    let (attempt, next) = sender.attempt(store, &job, reach)?;
                    self.ui.detail(&attempt.words());
                    if Some(attempt.entry) == recorded.entry {
                        self.is_sent = matches!(attempt.outcome, Outcome::Posted { .. });
                        open = match &attempt.outcome {
                            Outcome::Retry(Retry { cause: Cause::Limited(_), .. }) => patient(Why::Paced),
                            Outcome::Retry(_) => persistent,
                            Outcome::ThreadGone => true,
                            _ => false,
                        };
                    }
                    next
                }
                Claim::Wait { until, why } if open && patient(why) => {
                    let wait = if why == Why::Held { POLL } else { until.since(now()) };
                    if wait > sender.time_left() {
                        break;
                    }
                    thread::sleep(wait);
                    open = why != Why::Held || !self.is_settled(store, recorded)?;
                    store.write(|tx| sender.claim(tx, reach.0, reach.1, now()))?
                }
                // Nobody comes after us: take along what else is due, as far as that goes without waiting.
                Claim::Wait { .. } | Claim::Nothing
                    if reach.0 != Scope::All && self.config.background == BackgroundChoice::Never =>
                {
                    reach = (Scope::All, Duration::ZERO);
                    open = false;
                    store.write(|tx| sender.claim(tx, reach.0, reach.1, now()))?
                }
                Claim::Wait { .. } | Claim::Nothing => break,
            };
        }
        if self.config.background == BackgroundChoice::Never {
            return Ok(None);
        }
        store.write(|tx| self.appoint(&sender, tx, now()))
    }

    fn is_settled(&self, store: &mut Store, recorded: &Recorded) -> Result<bool, StoreError> {
        let Standing { delivery, .. } = store.read(|tx| tx.delivery_of(recorded.checkpoint))?;
        Ok(!matches!(delivery, Delivery::Queued | Delivery::Unconfirmed))
    }

    /// What the cache says of the checkpoint in the end.
    fn receipt(&self, store: &mut Store, recorded: &Recorded, plan: &Plan) -> Receipt {
        let append = &plan.append;
        let found = if self.is_sent && !self.config.json {
            let standing =
                Standing { delivery: Delivery::Sent, message_ts: None, reason: None, due_at: None };
            Ok((standing, append.task.clone()))
        } else {
            store.read(|tx| Ok((tx.delivery_of(recorded.checkpoint)?, tx.task(recorded.task)?)))
        };
        let (Standing { delivery, message_ts, reason, due_at }, task) = found.unwrap_or_else(|_| {
            let delivery = append.checkpoint.delivery;
            (Standing { delivery, message_ts: None, reason: None, due_at: None }, append.task.clone())
        });
        let waits = matches!(delivery, Delivery::Queued | Delivery::Unconfirmed | Delivery::Coalesced);
        Receipt {
            checkpoint_id: self.draft.id.to_string(),
            task_id: Some(task.id.to_string()),
            agent_id: self.draft.agent_id.clone(),
            snapshot: append.task.snapshot.clone(),
            delivery,
            channel: match self.config.target {
                Target::Nowhere => None,
                _ => task.channel_id.or(task.channel),
            },
            thread_ts: task.thread_ts,
            message_ts,
            retry_at: due_at.filter(|_| waits),
            error: reason.or_else(|| self.broken().filter(|_| waits)),
            warnings: self.warnings.clone(),
        }
    }

    /// What is wrong with the destination, when that is why a message waits.
    fn broken(&self) -> Option<String> {
        let broken = matches!(self.config.target, Target::Broken);
        self.config
            .problems
            .iter()
            .find(|problem| broken && !problem.harmless)
            .map(|problem| problem.message.clone())
    }

    /// Posts without state, since that is still better than silence: once, and without a thread of our own.
    fn without_store(&mut self, why: &str) -> anyhow::Result<Receipt> {
        let plan = plan_now(&Stored::default(), self.draft, self.config, now());
        let task = plan.append.task;
        self.notice(&plan.notices);
        let mut receipt = Receipt {
            checkpoint_id: self.draft.id.to_string(),
            task_id: None,
            agent_id: self.draft.agent_id.clone(),
            snapshot: task.snapshot.clone(),
            delivery: plan.append.checkpoint.delivery,
            channel: task.channel.clone(),
            thread_ts: task.thread_ts.clone(),
            message_ts: None,
            retry_at: None,
            error: None,
            warnings: Vec::new(),
        };
        let delivered = match (plan.append.checkpoint.delivery, self.sender.take()) {
            (Delivery::Printed, _) => Ok(()),
            (Delivery::Off, _) => Err("--no-post leaves nothing else to do".to_owned()),
            (_, None) => Err("the destination cannot be used".to_owned()),
            (_, Some(_)) if self.config.background == BackgroundChoice::Always => {
                Err("--background always never posts by itself".to_owned())
            }
            (_, Some(mut sender)) => match sender.send(&stateless_job(self.draft.id, task)) {
                Outcome::Posted { channel_id, ts, thread_ts } => {
                    receipt.delivery = Delivery::Sent;
                    receipt.channel = channel_id.or(receipt.channel);
                    receipt.thread_ts = thread_ts.or_else(|| ts.clone()).or(receipt.thread_ts);
                    receipt.message_ts = ts;
                    Ok(())
                }
                Outcome::Retry(Retry { reason, maybe_sent, .. }) => {
                    receipt.delivery = if maybe_sent { Delivery::Unconfirmed } else { Delivery::Rejected };
                    Err(reason)
                }
                Outcome::Rejected(reason) => {
                    receipt.delivery = Delivery::Rejected;
                    Err(reason)
                }
                Outcome::Edited | Outcome::CardGone | Outcome::CardFrozen | Outcome::ThreadGone => {
                    receipt.delivery = Delivery::Rejected;
                    Err("the thread is gone".to_owned())
                }
            },
        };
        match delivered {
            Ok(()) => {
                self.warn(format!("{why}; going on without state"), Some("run agent-checkpoint doctor"));
                receipt.warnings.clone_from(&self.warnings);
                Ok(receipt)
            }
            Err(reason) => {
                receipt.error = Some(format!("{why}; {reason}"));
                receipt.warnings.clone_from(&self.warnings);
                if self.config.json {
                    self.ui.answer(&receipt.json().to_string())?;
                }
                let message = format!("neither recorded nor delivered: {why}; {reason}");
                Err(Failure::new(Exit::Failed, message).hint("run agent-checkpoint doctor").into())
            }
        }
    }

    fn warn(&mut self, message: String, hint: Option<&str>) {
        self.ui.warn(&message, hint);
        self.warnings.push(message);
    }

    /// Says on standard error what Slack hears too, so that the agent's own log has it.
    fn notice(&mut self, notices: &[Notice]) {
        for notice in notices {
            let (message, hint) = match notice {
                Notice::Context { level, percent, tokens, limit } => {
                    let name = if *level == Level::Alert { "context alert" } else { "context warning" };
                    (format!("{name}: {}", text::context_warning(*percent, *tokens, *limit, *level)), None)
                }
                Notice::ChannelKept { asked, kept } => (
                    format!("the task's thread is in {kept}; channel {asked} was not used"),
                    Some("use --new to open a thread there"),
                ),
                Notice::ThreadKept { asked, kept } => (
                    format!("the task already has thread {kept}; thread {asked} was not used"),
                    Some("use --new to join another thread"),
                ),
            };
            self.warn(message, hint);
        }
    }

    /// Prints what is to be printed and decides the exit code.
    fn finish(&self, mut receipt: Receipt) -> anyhow::Result<Exit> {
        let refused = receipt.delivery == Delivery::Rejected;
        let late = matches!(receipt.delivery, Delivery::Queued | Delivery::Unconfirmed);
        if refused || late {
            let name = receipt.delivery.name();
            let reason = receipt
                .error
                .clone()
                .map_or(": waiting for its turn".to_owned(), |error| format!(": {error}"));
            let message = if refused {
                format!("Slack refused the message for good{reason}")
            } else {
                format!("recorded, but not in Slack yet ({name}){reason}")
            };
            // A courier will see to what was left to it, and what is wrong with the destination was said already.
            if refused || (self.config.background != BackgroundChoice::Always && self.broken().is_none()) {
                self.ui.warn(&message, Some(self.advice(refused)));
                receipt.warnings.push(message);
            }
        }
        for problem in self.config.problems.iter() {
            receipt.warnings.push(problem.message.clone());
        }
        if self.config.json {
            self.ui.answer(&receipt.json().to_string())?;
        } else if receipt.delivery == Delivery::Printed {
            self.ui.answer(&console::line(&receipt.agent_id, &receipt.snapshot))?;
        }
        self.ui.detail(&format!(
            "checkpoint {} of {}: {}",
            receipt.checkpoint_id,
            receipt.agent_id,
            receipt.delivery.name()
        ));
        Ok(match () {
            () if !self.config.strict => Exit::Done,
            () if refused || self.config.is_wrong() => Exit::Config,
            () if late => Exit::NotYet,
            () => Exit::Done,
        })
    }

    fn advice(&self, refused: bool) -> &'static str {
        if refused {
            "run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected"
        } else if self.config.background == BackgroundChoice::Never {
            "the next call or agent-checkpoint flush sends it"
        } else {
            "it is sent as soon as that is possible"
        }
    }
}

/// A job that belongs to no outbox.
fn stateless_job(checkpoint: CheckpointId, task: Task) -> Job {
    Job {
        entry: EntryKey(0),
        kind: EntryKind::Post,
        priority: Priority::Immediate,
        snapshot: task.snapshot.clone(),
        checkpoint,
        attempts: 0,
        maybe_sent: false,
        created_at: task.started_at,
        start_at: task.started_at,
        task,
    }
}

/// Shows what would be recorded and posted.
fn dry_run(draft: &Draft, config: &Config, ui: &Ui) -> anyhow::Result<Exit> {
    let stored = match &config.cache {
        Some(path) if path.exists() => Store::peek(path, |tx| tx.stored(&draft.agent_id)).unwrap_or_default(),
        _ => Stored::default(),
    };
    let plan = plan_now(&stored, draft, config, now());
    let append = &plan.append;
    let task = &append.task;
    let message = slack::message(&task.agent_id, &task.snapshot);
    let posts = !matches!(append.entry, EntryChange::None);
    if config.json {
        let due_at = match append.entry {
            EntryChange::None => None,
            EntryChange::Insert { due_at, .. } | EntryChange::Repoint { due_at, .. } => Some(due_at),
        };
        let receipt = Receipt {
            checkpoint_id: append.checkpoint.id.to_string(),
            task_id: Some(task.id.to_string()),
            agent_id: task.agent_id.clone(),
            snapshot: task.snapshot.clone(),
            delivery: Delivery::Off,
            channel: task.channel.clone().filter(|_| posts),
            thread_ts: task.thread_ts.clone(),
            message_ts: None,
            retry_at: due_at,
            error: None,
            warnings: config.problems.iter().map(|problem| problem.message.clone()).collect(),
        };
        let mut json = receipt.json();
        json["dry_run"] = serde_json::json!(true);
        json["new_task"] = serde_json::json!(task.key.is_none());
        json["message"] = if posts { message } else { serde_json::Value::Null };
        ui.answer(&json.to_string())?;
    } else {
        ui.answer(&console::line(&task.agent_id, &task.snapshot))?;
        let what = match (&append.entry, append.checkpoint.delivery) {
            (EntryChange::None, Delivery::Off) => "would be recorded and not posted".to_owned(),
            (EntryChange::None, _) => {
                "would be recorded and printed: no destination is configured".to_owned()
            }
            (_, Delivery::Coalesced) => {
                "would be held back: a message was posted inside the interval".to_owned()
            }
            _ => format!(
                "would be posted to {} {}",
                task.channel.as_deref().unwrap_or("a channel that cannot be read"),
                if task.thread_ts.is_some() {
                    "in the task's thread"
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
