//! `ask`: put a question to a person and wait for the answer.

mod draft;
pub(in crate::cmd) mod listen;
mod poll;
mod wait;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::Sender;
use super::emit::draft as emit;
use super::forward::Forwarder;
use super::record::Noted;
use super::worker::{self, Worker};
use super::{
    DAY, about_cache, configure, courier, interact, now, open_or_fail, record, report_problems, wrapper,
};
use crate::args::{AskArgs, BackgroundChoice, DeliveryArgs, EmitArgs, GlobalArgs};
use crate::checkpoint::Draft;
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::question::{Answer, Decision, OnTimeout, Question};
use crate::checkpoint::status::{Status, TaskState};
use crate::config::{Config, Flags, Target};
use crate::delivery::Destination;
use crate::exit::{Exit, Failure};
use crate::render::question::overflows;
use crate::render::text::plain;
use crate::store::{Put, Scope, Shown, Store, StoreError, Tx, Watcher};
use crate::ui::Ui;
pub(super) use poll::once as look_once;
pub(super) use wait::{Ended, Signals, Vigil};

/// What a task's card says that begins with a question.
const ASKING: &str = "Asking a person";

pub(super) fn run(global: &GlobalArgs, args: AskArgs) -> anyhow::Result<Exit> {
    let flags = Flags::of(args.identity.clone(), DeliveryArgs::default());
    let (config, ui) = configure(global, flags)?;
    let config = Arc::new(config);
    insist_on_slack(&config, &ui)?;
    // Before anything stands in Slack: from then on a signal withdraws it.
    let signals = Signals::heed();
    let emission = EmitArgs {
        identity: args.identity.clone(),
        status: Some(Status::WaitingApproval),
        ..EmitArgs::default()
    };
    let mut draft = emit::draft(&emission, Some(args.question.clone()), &config)?;
    let mut store = open_or_fail(&config, &ui)?;
    if let Some(inside) = wrapper::inside(&mut store, config.agent_id.as_deref()) {
        if !inside.joined && args.identity.thread.is_none() {
            draft.thread = None;
        }
        (draft.inside, draft.agent_id) = (Some(inside.task), inside.agent_id);
    }
    let repo = draft.repo.clone().or_else(|| draft.repo_default.clone());
    let question = draft::question(&args, &config, (&draft.agent_id, repo), now())?;
    let has_file = overflows(&question);
    if has_file && is_webhook(&config) {
        return Err(Failure::new(Exit::Failed, "could not ask: the question has no room in one message")
            .hint("a webhook takes no files: shorten it, or set SLACK_BOT_TOKEN")
            .into());
    }
    let asker = (!args.no_wait).then(Watcher::current);
    let put = store
        .write(|tx| {
            let task = put(tx, &config, &draft, &question, asker.as_ref(), has_file)?;
            let put = tx.question(question.id)?;
            Ok(put.map(|put| (put, task)))
        })
        .map_err(|error| about_cache(error.into(), &config))?;
    let Some((put, _)) = put else { return Err(gone().into()) };
    if args.no_wait {
        return leave(&config, &ui, store, &put);
    }
    ui.note(&format!(
        "request {} waits for an answer, for {} at most",
        question.id,
        question.time_left(question.asked_at)
    ));
    if is_webhook(&config) {
        ui.warn("a webhook hears no answer: only the command line can give it", Some(&by_hand(&question)));
    }
    let mut vigil = Vigil::new(&config, &ui, store, put, args.remind, true);
    let ended = vigil.keep(&signals).map_err(|error| about_cache(error.into(), &config))?;
    vigil.finish();
    report(&config, &ui, &question, ended)
}

/// Refuses where nobody could be asked.
fn insist_on_slack(config: &Config, ui: &Ui) -> Result<(), Failure> {
    let nobody = |message: &str, hint: &str| Err(Failure::new(Exit::Config, message).hint(hint));
    config.insist()?;
    report_problems(config, ui);
    match &config.target {
        Target::Nowhere => nobody(
            "no Slack is configured, so that nobody can be asked",
            "set SLACK_BOT_TOKEN (or SLACK_WEBHOOK_URL)",
        ),
        Target::Broken => {
            nobody("Slack cannot be used, so that nobody can be asked", "run agent-checkpoint doctor")
        }
        Target::Slack(_) if config.no_post => {
            nobody("nothing is to be posted, so that nobody can be asked", "unset AGENT_CHECKPOINT_NO_POST")
        }
        Target::Slack(_) => Ok(()),
    }
}

fn is_webhook(config: &Config) -> bool {
    matches!(&config.target, Target::Slack(Destination::Webhook { .. }))
}

/// How a question is answered where Slack tells of no answer.
fn by_hand(question: &Question) -> String {
    let ways = ways(question);
    format!("run agent-checkpoint answer {} {ways}; set SLACK_BOT_TOKEN for answers in Slack", question.id)
}

/// The options of `answer` that answer it.
fn ways(question: &Question) -> &'static str {
    if question.choices.is_empty() { "--approve, or --reject" } else { "--choice LABEL" }
}

fn gone() -> Failure {
    Failure::new(Exit::Failed, "could not ask: the question is no longer in the cache")
        .hint("do not move or delete the cache while a question is open")
}

/// Records the question and the checkpoint whose message it is.
pub(in crate::cmd) fn put(
    tx: &Tx<'_>,
    config: &Config,
    draft: &Draft,
    question: &Question,
    asker: Option<&Watcher>,
    has_file: bool,
) -> Result<TaskKey, StoreError> {
    let policy = record::policy(config);
    let mut draft = Draft { id: question.id.checkpoint(), ..draft.clone() };
    if !is_webhook(config) && lacks_card(tx, &draft)? {
        // The card is edited to the task's newest state, so that it cannot be the message with the buttons.
        let opening = Draft {
            id: CheckpointId::new(question.asked_at),
            status: Status::Starting,
            action: Some(ASKING.to_owned()),
            ..draft.clone()
        };
        let Noted { plan, .. } = record::record(tx, &opening, &policy, question.asked_at)?;
        (draft.new, draft.within) = (false, Some(plan.append.task.id));
    }
    let Noted { recorded, .. } = record::record(tx, &draft, &policy, question.asked_at)?;
    tx.put_question(question, recorded.task, recorded.entry, asker, has_file)?;
    Ok(recorded.task)
}

/// Whether the message would be the first of its thread.
fn lacks_card(tx: &Tx<'_>, draft: &Draft) -> Result<bool, StoreError> {
    let stored = tx.stored(draft)?;
    Ok(match &stored.task {
        Some(task) if !draft.new && matches!(task.state, TaskState::Running | TaskState::Failed) => {
            task.thread_ts.is_none() && stored.waiting.is_empty()
        }
        _ => true,
    })
}

/// Sends what there is time for and tells the request's id: somebody asks for the answer later.
fn leave(config: &Arc<Config>, ui: &Ui, mut store: Store, put: &Put) -> anyhow::Result<Exit> {
    let deadline = Instant::now() + config.deadline.min(DAY);
    if let Some(worker) = start_worker(config, ui) {
        let persistent = config.background == BackgroundChoice::Never;
        worker.wake();
        worker.finish(worker::End {
            by: deadline,
            persistent,
            soon: worker::SOON,
            scopes: vec![Scope::Task(put.task)],
        });
    }
    let question = &put.asked.question;
    if let Ok(Shown::Refused(reason)) = store.read(|tx| tx.shown(put)) {
        close(&mut store, config, put, &Answer::withdrawn("it could not be shown", now()))?;
        return Err(refused(&reason).into());
    }
    courier::leave_the_rest(&mut store, config, ui);
    let answer = if config.json { question.json(None, now()).to_string() } else { question.id.to_string() };
    ui.answer(&answer)?;
    Ok(Exit::Done)
}

/// Ends a question, unless it has ended.
fn close(store: &mut Store, config: &Config, put: &Put, answer: &Answer) -> Result<bool, StoreError> {
    let policy = record::policy(config);
    store.write(|tx| interact::conclude(tx, &policy, put.key, answer, now()))
}

fn refused(reason: &str) -> Failure {
    Failure::new(Exit::Failed, format!("could not ask: Slack refused the question: {reason}"))
        .hint("run agent-checkpoint doctor")
}

fn start_worker(config: &Config, ui: &Ui) -> Option<Worker> {
    if config.background == BackgroundChoice::Always {
        return None;
    }
    let sender = Sender::new(config, false, None)?.watched(ui);
    Worker::start((Some(sender), Forwarder::new(config)), config.cache.as_deref())
}

/// Says how it ended, and decides the exit code.
pub(super) fn report(config: &Config, ui: &Ui, question: &Question, ended: Ended) -> anyhow::Result<Exit> {
    let answer = match ended {
        Ended::Answered(answer) => answer,
        Ended::Signal(signal) => return Ok(Exit::Signal(signal)),
        Ended::Refused(reason) => return Err(refused(&reason).into()),
        Ended::Gone => return Err(gone().into()),
    };
    tell(config, ui, question, &answer)
}

/// Prints an answer: a word that a script can compare, or the choice, on standard output; who and why beside it.
pub(super) fn tell(config: &Config, ui: &Ui, question: &Question, answer: &Answer) -> anyhow::Result<Exit> {
    if config.json {
        ui.answer(&question.json(Some(answer), now()).to_string())?;
    } else {
        ui.note(&plain(&answer.words(), false));
        ui.answer(answer.choice.as_deref().unwrap_or(answer.decision.name()))?;
    }
    Ok(match (answer.decision, question.on_timeout) {
        (Decision::Approved | Decision::Chosen, _) | (Decision::TimedOut, OnTimeout::Approve) => Exit::Done,
        (Decision::Rejected, _) | (Decision::TimedOut, OnTimeout::Reject) => Exit::Rejected,
        (Decision::TimedOut, OnTimeout::Fail) => Exit::TimedOut,
        (Decision::Withdrawn, _) => Exit::Failed,
    })
}

/// How long whoever waits for the answer also waits for Slack to show it, where a courier can do that.
const LAST_WORDS: Duration = Duration::from_secs(1);
