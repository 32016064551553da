//! Across machines that share a database: what a person does is passed on to the cache that it is for, and what was
//! passed on to ours is taken.
//!
//! Whoever hears of it only writes it down; the rules of the cache that asked decide, in its own transaction. So that
//! nobody who can write rows can answer in somebody's name, a click carries a proof that is made with its button's
//! secret: the database has neither that secret nor anything that it could be checked by.

mod looker;
mod mouth;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

pub(in crate::cmd) use self::looker::{keep, look_once};
use self::mouth::Mouth;
use super::command::Spoken;
use super::{Button, CANCEL, Heard, Hearing, Reply, button, cancel, harmless, record, vote};
use crate::audit::connect::Client;
use crate::audit::people::{Known, Waiting};
use crate::audit::{forward, people};
use crate::checkpoint::audit::people::{Act, PassedOn, TAKEN, WAITING};
use crate::checkpoint::audit::{ClockOffset, SharedTask};
use crate::checkpoint::id::{TaskId, TaskKey, act_id};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::plan::Policy;
use crate::checkpoint::question::rules::{Kind, Refusal, Voter};
use crate::checkpoint::question::{Answer, Decision, RequestId, Word, user_id};
use crate::checkpoint::status::TaskState;
use crate::checkpoint::time::Moment;
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::now;
use crate::config::Config;
use crate::interaction::proof::{is_proven, prove};
use crate::interaction::wire::Click;
use crate::store::{Store, StoreError, Tx};

/// How long Slack may wait while a click is passed on; it gives up after three seconds.
const PASS_ON: Duration = Duration::from_secs(2);
/// How long after its time a question is taken to have ended although nobody has said so.
const GRACE: Duration = Duration::from_secs(10);

/// How many pages of what waits are looked at at once; mostly there is one with next to nothing on it.
const PAGES: usize = 5;

/// How much of a name is kept that whoever can write rows may have made up.
const NAME_MAX: usize = 100;

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
            Self::Task { id, .. } => {
                tx.task_with_id(&id.to_string())?.is_some_and(|task| task.cancel.is_some())
            }
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

/// Passes on that an agent is to end that runs on another machine, which may have begun here; `None` if it runs here, or
/// the database knows of none that is open. While that is away nobody is told that there is none.
pub(super) fn pass_on_cancel(
    store: &mut Store,
    config: &Config,
    agent_id: &str,
    spoken: &Spoken,
) -> Result<Option<Reply>, StoreError> {
    let Some(forwarder) = Forwarder::new(config) else { return Ok(None) };
    let (is_running, ours, was_heard, is_held) = store.read(|tx| {
        let is_running = tx.find(agent_id)?.is_some_and(|found| found.task.state == TaskState::Running);
        let ours = tx.known_trail(forwarder.name())?.map(|trail| trail.cache);
        let is_held = forwarder.held_until(tx, now())?.is_some();
        Ok((is_running, ours, tx.was_heard(&spoken.id)?, is_held))
    })?;
    let away = || (!is_running).then(|| Reply { words: Some(NOT_HERE.to_owned()), ..Reply::default() });
    match () {
        () if was_heard => return Ok(None),
        () if is_held => return Ok(away()),
        () => {}
    }
    let deadline = Instant::now() + PASS_ON;
    let passed = forwarder.call(deadline).and_then(|mut client| {
        let open = forward::open_tasks(&mut client, &[agent_id.to_owned()], deadline)?;
        let Some(SharedTask { task, latest }) = open.into_iter().next().map(|row| row.task(ClockOffset(0)))
        else {
            return Ok(false);
        };
        // Only what came last says where it is: a cache keeps a task that goes on elsewhere as it was.
        if is_running && latest.is_none_or(|latest| Some(latest.cache) == ours) {
            return Ok(false);
        }
        let act = Act {
            source: spoken.source.to_owned(),
            user_name: spoken.voter.user_name.clone(),
            is_foreign: spoken.voter.kind == Kind::Foreign,
            heard: spoken.id.clone(),
            passed_on: Some(WAITING.to_owned()),
            ..Act::default()
        };
        let passed = PassedOn {
            id: act_id(&act.heard),
            task: task.id,
            agent_id: task.agent_id,
            user_id: spoken.voter.user_id.clone(),
            act,
        };
        people::pass_on(&mut client, &passed, deadline)?;
        Ok(true)
    });
    match forwarder.remember(store, passed) {
        Ok(true) => {
            let is_first = store.write(|tx| tx.hear(&spoken.id, now()))?;
            Ok(Some(Reply { words: is_first.then(|| PASSED_ON.to_owned()), ..Reply::default() }))
        }
        Err(Stop::Cache(error)) => Err(error),
        Ok(false) => Ok(None),
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
    let mut passed = PassedOn { id: act_id(&act.heard), task, agent_id, user_id, act };
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
    PassedOn { id, task: known.task, agent_id: known.agent_id.clone(), user_id: None, act }
}

/// The end of a question that the database knows of: what was decided, or that its time is over.
pub(in crate::cmd) fn end_of(known: &Known, at: Moment) -> Option<Answer> {
    let expires_at = known.question.expires_at;
    let is_over = at >= expires_at.plus(GRACE);
    known.answer.clone().or_else(|| is_over.then(|| Answer::bare(Decision::TimedOut, expires_at)))
}

/// A task of ours for which something may have been passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cmd) struct Called {
    pub(in crate::cmd) key: TaskKey,
    /// As databases know it.
    pub(in crate::cmd) id: TaskId,
    /// Another machine told the latest of it: whoever is to stop is there.
    pub(in crate::cmd) goes_on_elsewhere: bool,
}

/// Something that was passed on and noted, and what the person is told.
#[derive(Debug)]
pub(in crate::cmd) struct Taken {
    task: TaskKey,
    user_id: Option<String>,
    words: Option<String>,
}

/// What comes of something that was passed on.
enum Ruled {
    /// It is not for this cache.
    NotOurs,
    /// An intervention of this cache says what came of it, and replaces the row once it is told.
    Noted(Option<String>),
    /// It changes nothing, for this reason.
    Refused(&'static str),
}

/// What is needed to judge what was passed on, and to tell people what came of it.
#[derive(Debug)]
pub(in crate::cmd) struct Rules {
    policy: Policy,
    pub(in crate::cmd) masker: Masker,
    approvers: Option<Vec<String>>,
    mouth: Option<Mouth>,
}

impl Rules {
    pub(in crate::cmd) fn of(config: &Config) -> Self {
        Self {
            policy: record::policy(config),
            masker: config.masker(),
            approvers: config.approvers.clone(),
            mouth: Mouth::of(config),
        }
    }

    /// The settings that planning depends on.
    pub(in crate::cmd) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Tells people what came of what they did.
    pub(in crate::cmd) fn tell(&self, store: &mut Store, taken: &[Taken], by: Option<Instant>) {
        if let Some(mouth) = &self.mouth {
            mouth.tell(store, taken, by);
        }
    }
}

/// Takes what was passed on to these tasks of ours, and says what came of it. Each is taken once: what was taken is said
/// whatever becomes of the rest, which comes again.
pub(in crate::cmd) fn take(
    store: &mut Store,
    forwarder: &Forwarder,
    client: &mut Client,
    tasks: &[Called],
    deadline: Instant,
) -> Result<Vec<Taken>, Stop> {
    let mut taken = Vec::new();
    let done = take_each(store, forwarder, client, tasks, deadline, &mut taken);
    if taken.is_empty() {
        done?;
    }
    Ok(taken)
}

fn take_each(
    store: &mut Store,
    forwarder: &Forwarder,
    client: &mut Client,
    tasks: &[Called],
    deadline: Instant,
    taken: &mut Vec<Taken>,
) -> Result<(), Stop> {
    let ids: Vec<TaskId> = tasks.iter().map(|called| called.id).collect();
    let mut refused = Vec::new();
    for passed in waiting(forwarder, client, &ids, deadline)? {
        let Some(called) = tasks.iter().find(|called| called.id == passed.task) else { continue };
        let task = called.key;
        // At an earlier look: the database has yet to be told.
        if store.read(|tx| tx.is_passed_on(task, passed.id, TAKEN))? {
            continue;
        }
        match store.write(|tx| rule(tx, forwarder.rules(), called, &passed, now()))? {
            Ruled::NotOurs => {}
            Ruled::Noted(words) => taken.push(Taken { task, user_id: passed.user_id, words }),
            Ruled::Refused(reason) => refused.push(passed.refused(reason)),
        }
    }
    Ok(people::refuse(client, &refused, deadline)?)
}

/// What waits for these tasks, the first first. Of very much it is a part, and what follows the next time: however much
/// somebody writes there, no word of a person is hidden by it for good, and each look is short.
fn waiting(
    forwarder: &Forwarder,
    client: &mut Client,
    tasks: &[TaskId],
    deadline: Instant,
) -> Result<Vec<PassedOn>, Stop> {
    let mut found = BTreeMap::new();
    for _ in 0..PAGES {
        let page = people::waiting(client, tasks, forwarder.heard_up_to(), deadline)?;
        let is_full = page.len() >= people::ACTS_MAX;
        if let Some(last) = page.last() {
            forwarder.hear_up_to(last.id);
        }
        let mut is_round = false;
        for Waiting { id, at, act } in page {
            is_round |= found.insert((at, id), act).is_some();
        }
        if is_round || !is_full {
            break;
        }
    }
    // Whoever wrote one there that is not what it says is none of us.
    Ok(found.into_values().flatten().filter(PassedOn::is_its_own).collect())
}

fn rule(
    tx: &Tx<'_>,
    rules: &Rules,
    called: &Called,
    passed: &PassedOn,
    now: Moment,
) -> Result<Ruled, StoreError> {
    match (passed.act.request_id, passed.act.word) {
        (Some(request), Some(word)) => rule_on_answer(tx, rules, passed, (request, word), now),
        (None, None) => rule_on_cancel(tx, rules, called, passed, now),
        _ => Ok(Ruled::NotOurs),
    }
}

fn rule_on_answer(
    tx: &Tx<'_>,
    rules: &Rules,
    passed: &PassedOn,
    (request, word): (RequestId, Word),
    now: Moment,
) -> Result<Ruled, StoreError> {
    // Another cache may have the same task.
    let Some(put) = tx.question(request)? else { return Ok(Ruled::NotOurs) };
    let (act, nonce) = (&passed.act, &put.asked.question.nonce);
    if tx.task(put.task)?.id != passed.task {
        return Ok(Ruled::Refused("unknown"));
    }
    let user_name = act.user_name.clone();
    let heard = Heard {
        id: Some(act.heard.clone()),
        source: "terminal",
        voter: Voter {
            kind: Kind::Elsewhere,
            user_id: None,
            user_name: Some(unproven(user_name.as_deref().unwrap_or("somebody"))),
        },
        request,
        button: None,
        word,
        comment: act.comment.clone(),
    };
    let heard = match act.source.as_str() {
        "click" if !has_proof(passed, nonce) => return Ok(Ruled::Refused("forged")),
        "click" => Heard {
            source: "click",
            voter: Voter { kind: person(act), user_id: passed.user_id.clone(), user_name },
            button: Some(Button { nonce: nonce.clone(), ts: act.message_ts.clone().unwrap_or_default() }),
            comment: None,
            ..heard
        },
        "terminal" => heard,
        _ => return Ok(Ruled::Refused("unknown")),
    };
    let hearing = Hearing { policy: &rules.policy, masker: &rules.masker };
    let words = match vote(tx, &hearing, &heard, now)? {
        Some(Ok(verdict)) => verdict.words,
        Some(Err(_)) => return Ok(Ruled::Refused("unknown")),
        // By ourselves, or at an earlier look.
        None => None,
    };
    let is_noted = tx.mark_passed_on(put.task, passed.id, TAKEN)?;
    Ok(if is_noted { Ruled::Noted(words) } else { Ruled::Refused("unknown") })
}

fn rule_on_cancel(
    tx: &Tx<'_>,
    rules: &Rules,
    called: &Called,
    passed: &PassedOn,
    now: Moment,
) -> Result<Ruled, StoreError> {
    let key = called.key;
    let (task, act) = (tx.task(key)?, &passed.act);
    let is_ours = match act.source.as_str() {
        // Another cache may have the same task, with a button of its own.
        "click" => task.cancel.as_ref().is_some_and(|cancel| has_proof(passed, &cancel.nonce)),
        // It waits for that machine.
        "command" | "mention" if called.goes_on_elsewhere => false,
        // Nothing proves it but that whoever wrote it may write there: it only ever stops something.
        "command" | "mention" => passed.user_id.as_deref().is_some_and(|id| user_id(id).is_ok()),
        _ => false,
    };
    if !is_ours {
        return Ok(Ruled::NotOurs);
    }
    let mut words = None;
    if tx.hear(&act.heard, now)? {
        let (user_id, user_name) = (passed.user_id.clone(), act.user_name.clone());
        let voter = Voter { kind: person(act), user_id, user_name };
        words = cancel(tx, rules.approvers.as_ref(), &task, &voter, (&act.source, passed.id), now)?.words;
    }
    let is_noted = tx.mark_passed_on(key, passed.id, TAKEN)?;
    Ok(if is_noted { Ruled::Noted(words) } else { Ruled::NotOurs })
}

/// What somebody at a terminal of another machine is called. Nothing proves the name, so that it must not look like that
/// of somebody in Slack.
fn unproven(name: &str) -> String {
    let name: String = name.chars().take(NAME_MAX).collect();
    format!("{name} (at a terminal elsewhere)")
}

fn person(act: &Act) -> Kind {
    if act.is_foreign { Kind::Foreign } else { Kind::Person }
}

fn has_proof(passed: &PassedOn, nonce: &str) -> bool {
    passed.act.proof.as_ref().is_some_and(|proof| is_proven(nonce, &passed.claim(), proof))
}
