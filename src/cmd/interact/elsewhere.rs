//! Across machines that share a database: what a person does is passed on to the cache that it is for, and what was
//! passed on to ours is taken.
//!
//! Whoever hears of it only writes it down; the rules of the cache that asked decide, in its own transaction. So that
//! nobody who can write rows can answer in somebody's name, a click carries a proof that is made with its button's
//! secret: the database has neither that secret nor anything that it could be checked by. The secret of a card's button is
//! there, for whoever edits the card: it can only stop something, which whoever can write rows can ask for anyway.

mod looker;
mod mouth;
mod take;

use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

pub(in crate::cmd) use self::looker::{keep, look_once};
pub(in crate::cmd) use self::take::{Called, Rules, Taken, take};
use super::command::Spoken;
use super::{CANCEL, Reply, button, harmless, proves, unheard};
use crate::audit::connect::Client;
use crate::audit::people::Known;
use crate::audit::{forward, people};
use crate::checkpoint::Task;
use crate::checkpoint::audit::people::{Act, PassedOn, WAITING};
use crate::checkpoint::audit::{ClockOffset, SharedTask};
use crate::checkpoint::id::{TaskId, act_id};
use crate::checkpoint::question::rules::{Kind, Refusal, Voter};
use crate::checkpoint::question::{Answer, Decision, RequestId, Word};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::{Moment, spoken};
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::{environment, now};
use crate::config::Config;
use crate::config::identity::branch_and_host;
use crate::interaction::proof::prove;
use crate::interaction::wire::Click;
use crate::store::{Store, StoreError, Tx};

/// How long Slack may wait while a click is passed on; it gives up after three seconds.
const PASS_ON: Duration = Duration::from_secs(2);
/// How long after its time a question is taken to have ended although nobody has said so.
const GRACE: Duration = Duration::from_secs(10);

/// What a person is told whose click is for another machine.
const PASSED_ON: &str = "Passed on to the machine that this is for.";
const AWAY: &str =
    "This is not known here, and the database that may know it is away: please try again later.";
/// What a person is told who wants to stop an agent that may run on another machine.
const NOT_HERE: &str =
    "No such agent runs here, and the database that knows of other machines is away: please try again later.";

/// What a button is for.
enum Meant {
    Question { request: RequestId, nonce: String, word: Word },
    Task { id: Uuid, nonce: String },
}

impl Meant {
    fn of(click: &Click) -> Option<Self> {
        if click.action_id == CANCEL {
            let (id, nonce) = click.value.split_once(':')?;
            return Some(Self::Task { id: Uuid::parse_str(id).ok()?, nonce: nonce.to_owned() });
        }
        let (request, nonce, word) = button(click)?;
        Some(Self::Question { request, nonce, word })
    }

    /// Whether this cache is to decide.
    fn is_ours(&self, tx: &Tx<'_>) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Question { request, .. } => tx.question(*request)?.is_some(),
            // Another cache may have the same task, with a button of its own.
            Self::Task { id, nonce } => tx
                .task_with_id(&id.to_string())?
                .is_some_and(|task| task.cancel.is_some_and(|cancel| proves(nonce, &cancel.nonce))),
        })
    }
}

/// Passes a click on that is for another cache; `None` if it is not, or nobody knows what it is for.
pub(super) fn pass_on(
    store: &mut Store,
    config: &Config,
    click: &Click,
    voter: &Voter,
) -> Result<Option<Reply>, StoreError> {
    let (Some(meant), Some(forwarder)) = (Meant::of(click), Forwarder::new(config)) else { return Ok(None) };
    let told = |words: &str| Ok(Some(Reply { words: Some(words.to_owned()), ..Reply::default() }));
    let (is_ours, was_heard, is_held) = store.read(|tx| {
        let is_held = forwarder.held_until(tx, now())?.is_some();
        Ok((meant.is_ours(tx)?, tx.was_heard(&click.id)?, is_held))
    })?;
    match () {
        () if is_ours => return Ok(None),
        () if was_heard => return Ok(Some(Reply::default())),
        () if is_held => return told(AWAY),
        () => {}
    }
    let deadline = Instant::now() + PASS_ON;
    let passed = forwarder
        .call(deadline)
        .and_then(|mut client| write_down(&mut client, &meant, click, voter, deadline));
    match forwarder.remember(store, passed) {
        Ok(Some(words)) => {
            // Only now: until then it may be said again.
            match store.write(|tx| tx.hear(&click.id, now()))? {
                true => told(&words),
                // Meanwhile it was.
                false => Ok(Some(Reply::default())),
            }
        }
        Ok(None) => Ok(None),
        Err(Stop::Cache(error)) => Err(error),
        Err(_) => told(AWAY),
    }
}

/// Where an agent is that is to end.
pub(super) enum Whereabouts {
    /// Here, or nowhere.
    Here,
    /// Nobody can be asked whether it has gone on elsewhere.
    Unsure,
    /// Elsewhere, or that cannot be known: what the person is told.
    Elsewhere(Reply),
}

/// What a person is told whose agent is told to stop where it was last heard of, which may be long ago.
pub(super) fn as_far_as_known(task: &Task, now: Moment) -> String {
    let (agent, (_, host)) = (harmless(&task.agent_id), branch_and_host(&environment, Path::new("/")));
    let ago = spoken(now.since(task.updated_at));
    format!(
        "The database that knows of other machines is away. {agent} was last heard of on {}, {ago} ago: it is told to stop \
         there, and if it has gone on elsewhere as soon as the database is back.{}",
        harmless(&host),
        unheard(&task.snapshot)
    )
}

/// Passes on that an agent is to end that runs on another machine, which may have begun here. While the database is away
/// nobody is told that there is none.
pub(super) fn pass_on_cancel(
    store: &mut Store,
    config: &Config,
    agent_id: &str,
    spoken: &Spoken,
) -> Result<Whereabouts, StoreError> {
    let Some(forwarder) = Forwarder::new(config) else { return Ok(Whereabouts::Here) };
    let say = |words: String| Whereabouts::Elsewhere(Reply { words: Some(words), ..Reply::default() });
    let (here, ours, was_heard, is_held) = store.read(|tx| {
        let here = tx.find(agent_id)?.map(|found| found.task);
        let ours = tx.known_trail(forwarder.name())?.map(|trail| trail.cache);
        let is_held = forwarder.held_until(tx, now())?.is_some();
        Ok((here, ours, tx.was_heard(&spoken.id)?, is_held))
    })?;
    let is_running = here.as_ref().is_some_and(|task| task.state == TaskState::Running);
    let away = || if is_running { Whereabouts::Unsure } else { say(NOT_HERE.to_owned()) };
    match () {
        () if was_heard => return Ok(Whereabouts::Here),
        () if is_held => return Ok(away()),
        () => {}
    }
    let deadline = Instant::now() + PASS_ON;
    let passed = forwarder.call(deadline).and_then(|mut client| {
        let agents = [agent_id.to_owned()];
        let mut found = forward::open_tasks(&mut client, &agents, deadline)?.into_iter().next();
        let is_over = found.is_none();
        if is_over {
            found = match &here {
                None => forward::latest_tasks(&mut client, &agents, deadline)?.into_iter().next(),
                // It may have ended elsewhere, which is not known here yet.
                Some(task) if is_running => forward::task(&mut client, task.id, deadline)?,
                // What has ended here is told from here.
                Some(_) => None,
            };
        }
        let found = found.map(|row| row.task(ClockOffset(0)));
        // A task that failed goes on where it is.
        let may_go_on = |task: &Task| is_over && is_running && !task.state.is_closed();
        let Some(SharedTask { task, latest }) = found.filter(|found| !may_go_on(&found.task)) else {
            return Ok(None);
        };
        // Only what came last says where it is: a cache keeps a task that goes on elsewhere as it was.
        if is_running && latest.is_none_or(|latest| Some(latest.cache) == ours) {
            return Ok(None);
        }
        let act = Act {
            source: spoken.source.to_owned(),
            user_name: spoken.voter.user_name.clone(),
            is_foreign: spoken.voter.kind == Kind::Foreign,
            heard: spoken.id.clone(),
            passed_on: Some(WAITING.to_owned()),
            ..Act::default()
        };
        let mut passed = PassedOn {
            id: act_id(&act.heard),
            task: task.id,
            agent_id: task.agent_id.clone(),
            user_id: spoken.voter.user_id.clone(),
            at: None,
            act,
        };
        let mut words = format!("{PASSED_ON}{}", unheard(&task.snapshot));
        if is_over {
            // Nobody waits for it any more.
            passed = passed.refused("late");
            words = format!("{} has ended already.", harmless(&task.agent_id));
        }
        people::pass_on(&mut client, &passed, deadline)?;
        Ok(Some(words))
    });
    match forwarder.remember(store, passed) {
        Ok(Some(words)) => {
            let is_first = store.write(|tx| tx.hear(&spoken.id, now()))?;
            Ok(if is_first { say(words) } else { Whereabouts::Elsewhere(Reply::default()) })
        }
        Err(Stop::Cache(error)) => Err(error),
        Ok(None) => Ok(Whereabouts::Here),
        Err(_) => Ok(away()),
    }
}

/// Leaves a click in the database for whom it is for. Says what the person is told; `None` if nobody there knows what it
/// could be for.
fn write_down(
    client: &mut Client,
    meant: &Meant,
    click: &Click,
    voter: &Voter,
    deadline: Instant,
) -> Result<Option<String>, Stop> {
    let act = Act {
        source: "click".to_owned(),
        user_name: voter.user_name.clone(),
        is_foreign: voter.kind == Kind::Foreign,
        heard: click.id.clone(),
        message_ts: Some(click.ts.clone()),
        passed_on: Some(WAITING.to_owned()),
        ..Act::default()
    };
    let user_id = voter.user_id.clone();
    let (task, agent_id, nonce, act, refusal) = match meant {
        Meant::Question { request, nonce, word } => {
            let Some(known) = people::question(client, *request, now, deadline)? else { return Ok(None) };
            let act = answering(act, &known, *word);
            let refusal = match known.answer {
                Some(answer) => Some(Refusal::Late(answer)),
                None => known.question.is_over(now()).then_some(Refusal::Over),
            };
            let refusal = refusal.map(|refusal| (refusal.name(), refusal.words(&known.question)));
            (known.task, known.agent_id, nonce, act, refusal)
        }
        Meant::Task { id, nonce } => {
            let Some(row) = forward::task(client, TaskId(*id), deadline)? else { return Ok(None) };
            let task = row.task(ClockOffset(0)).task;
            let over = format!("{} has ended already.", task.agent_id);
            let refusal = (task.state != TaskState::Running).then_some(("late", over));
            (TaskId(*id), task.agent_id, nonce, act, refusal)
        }
    };
    let mut passed = PassedOn { id: act_id(&act.heard), task, agent_id, user_id, at: None, act };
    let words = match refusal {
        // Nobody waits for it any more.
        Some((name, words)) => {
            passed = passed.refused(name);
            harmless(&words)
        }
        None => {
            passed.act.proof = Some(prove(nonce, &passed.claim()));
            PASSED_ON.to_owned()
        }
    };
    people::pass_on(client, &passed, deadline)?;
    Ok(Some(words))
}

fn answering(act: Act, known: &Known, word: Word) -> Act {
    let choice = match word {
        Word::Choice(index) => known.question.choices.get(index).cloned(),
        Word::Approve | Word::Reject => None,
    };
    Act { request_id: Some(known.question.id), word: Some(word), choice, ..act }
}

/// What was said at a terminal of this machine to a question of another.
pub(in crate::cmd) fn said_here(
    known: &Known,
    word: Word,
    comment: Option<String>,
    user_name: Option<String>,
) -> PassedOn {
    let id = Uuid::now_v7();
    let act = Act {
        comment,
        source: "terminal".to_owned(),
        user_name,
        heard: id.to_string(),
        passed_on: Some(WAITING.to_owned()),
        ..Act::default()
    };
    let act = answering(act, known, word);
    PassedOn { id, task: known.task, agent_id: known.agent_id.clone(), user_id: None, at: None, act }
}

/// The end of a question that the database knows of: what was decided, or that its time is over.
pub(in crate::cmd) fn end_of(known: &Known, at: Moment) -> Option<Answer> {
    let expires_at = known.question.expires_at;
    let is_over = at >= expires_at.plus(GRACE);
    known.answer.clone().or_else(|| is_over.then(|| Answer::bare(Decision::TimedOut, expires_at)))
}
