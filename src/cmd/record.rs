//! Recording: a checkpoint becomes rows of the cache, in one transaction of the caller's.

use std::time::{Duration, Instant};

use super::{courier, interact, now};
use crate::checkpoint::Draft;
#[cfg(feature = "postgres")]
use crate::checkpoint::Task;
use crate::checkpoint::context::Level;
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::plan::{self, Notice, Plan, Policy, Route, Stored};
use crate::checkpoint::time::Moment;
use crate::config::{Config, Target};
use crate::render::text;
use crate::store::{Orphan, Recorded, Store, StoreError, Tx};
use crate::ui::Ui;

/// How long settled rows are kept.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many tasks a call looks at that another process answers for: a look at one takes microseconds.
const ORPHANS: usize = 20;

/// The settings that planning depends on.
pub(super) fn policy(config: &Config) -> Policy {
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

/// Joins a draft with what is stored, as of now.
pub(super) fn plan(stored: &Stored, draft: &Draft, policy: &Policy, at: Moment) -> Plan {
    plan::plan(stored, draft, policy, (TaskId::new(at), CheckpointId::new(at)), at)
}

/// What was written down of a draft.
#[derive(Debug)]
pub(super) struct Noted {
    /// The agent's task as it was before.
    #[cfg(feature = "postgres")]
    pub(super) before: Option<Task>,
    pub(super) plan: Plan,
    pub(super) recorded: Recorded,
}

/// Writes a draft down, closes the task that it supersedes, and tidies up a little.
pub(super) fn record(tx: &Tx<'_>, draft: &Draft, policy: &Policy, at: Moment) -> Result<Noted, StoreError> {
    bury(tx, policy, ORPHANS, at)?;
    let noted = append(tx, draft, policy, at)?;
    tx.prune(at.minus(RETENTION))?;
    Ok(noted)
}

/// The same for several at once, as many as there is time for, at least one.
pub(super) fn record_many(
    tx: &Tx<'_>,
    drafts: &[Draft],
    policy: &Policy,
    time: Duration,
) -> Result<Vec<(Plan, Recorded)>, StoreError> {
    let begun = Instant::now();
    bury(tx, policy, ORPHANS, now())?;
    let mut recorded = Vec::with_capacity(drafts.len());
    let mut is_pruning = true;
    for draft in drafts {
        let at = now();
        let noted = append(tx, draft, policy, at)?;
        recorded.push((noted.plan, noted.recorded));
        // Once for each, as long as there is anything to prune: more goes than comes.
        is_pruning = is_pruning && tx.prune(at.minus(RETENTION))?;
        if begun.elapsed() >= time {
            break;
        }
    }
    Ok(recorded)
}

/// Writes a draft down and closes the task that it supersedes.
pub(super) fn append(tx: &Tx<'_>, draft: &Draft, policy: &Policy, at: Moment) -> Result<Noted, StoreError> {
    let stored = tx.stored(draft)?;
    let plan = plan(&stored, draft, policy, at);
    if let Some(superseded) = &plan.superseded {
        tx.append(superseded, at)?;
    }
    let recorded = tx.append(&plan.append, at)?;
    if let (Some(wrapped), None) = (draft.inside, plan.append.task.key) {
        tx.follow(wrapped, recorded.task, at)?;
    }
    Ok(Noted {
        #[cfg(feature = "postgres")]
        before: stored.task,
        plan,
        recorded,
    })
}

/// Marks tasks as lost whose process has ended without a word, so that none stays "working" for ever; says how many.
pub(super) fn bury(tx: &Tx<'_>, policy: &Policy, limit: usize, at: Moment) -> Result<usize, StoreError> {
    // Nearly always there is nothing of the kind, and one question is cheaper than two.
    if !tx.anybody_is_answered_for()? {
        return Ok(0);
    }
    let orphans = tx.orphans(limit)?;
    for Orphan { task, waiting, reason } in &orphans {
        let append = plan::lose(task.clone(), waiting, reason, policy, CheckpointId::new(at), at);
        let recorded = tx.append(&append, at)?;
        tx.unwatch(recorded.task)?;
    }
    Ok(orphans.len() + interact::close_forsaken(tx, policy, limit, at)?)
}

/// The same for all such tasks, for a command that a person waits for; has it said in their threads.
pub(super) fn bury_all(store: &mut Store, config: &Config, ui: &Ui) {
    match store.write(|tx| bury(tx, &policy(config), usize::MAX, now())) {
        Ok(0) => {}
        Ok(_) => drop(courier::leave_the_rest(store, config, ui)),
        // Whoever only reads a cache that cannot be written has no use for this.
        Err(error) => ui.detail(&format!("could not look for lost tasks: {error}")),
    }
}

/// The same for a process that lives for long and looks now and then; says whether anything was found, which it has to
/// have sent.
pub(super) fn bury_found(store: &mut Store, config: &Config) -> Result<bool, StoreError> {
    Ok(has_lost(store)? && store.write(|tx| bury(tx, &policy(config), usize::MAX, now()))? > 0)
}

/// Whether there is anything to bury: nobody need be kept from writing to find out.
pub(super) fn has_lost(store: &mut Store) -> Result<bool, StoreError> {
    store.read(|tx| Ok(!tx.orphans(usize::MAX)?.is_empty() || !tx.forsaken(usize::MAX, now())?.is_empty()))
}

/// What the caller should hear, and how to mend it: the same that Slack shows, so that the agent's own log has it.
pub(super) fn notice_words(notice: &Notice) -> (String, Option<&'static str>) {
    match notice {
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
    }
}
