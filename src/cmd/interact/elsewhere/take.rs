//! Taking what people did who were heard by another machine: what waits for tasks of ours is put to the same rules as if
//! it had been heard here.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::{Button, Heard, Hearing, cancel, record, vote};
use super::mouth::Mouth;
use crate::audit::connect::Client;
use crate::audit::people::{self, Waiting, Wish};
use crate::checkpoint::audit::ClockOffset;
use crate::checkpoint::audit::people::{Act, PassedOn, TAKEN};
use crate::checkpoint::id::{TaskId, TaskKey};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse;
use crate::checkpoint::plan::Policy;
use crate::checkpoint::question::rules::{Kind, Voter};
use crate::checkpoint::question::{RequestId, Word, user_id};
use crate::checkpoint::time::Moment;
use crate::cmd::forward::{Forwarder, Stop};
use crate::cmd::now;
use crate::config::Config;
use crate::interaction::proof::is_proven;
use crate::store::{Store, StoreError, Tx};

/// How many pages of what waits are looked at at once; mostly there is one with next to nothing on it.
const PAGES: usize = 5;

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
    pub(super) task: TaskKey,
    pub(super) user_id: Option<String>,
    pub(super) words: Option<String>,
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
    starts_here: bool,
    mouth: Option<Mouth>,
}

impl Rules {
    pub(in crate::cmd) fn of(config: &Config) -> Self {
        Self {
            policy: record::policy(config),
            masker: config.masker(),
            approvers: config.approvers.clone(),
            starts_here: config.launch.starts_here,
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
    let known = store.read(|tx| tx.known_trail(forwarder.name()))?;
    let offset = known.and_then(|trail| trail.offset).unwrap_or(ClockOffset(0));
    let mut refused = Vec::new();
    for wish in wishes(forwarder, client, &ids, offset, deadline)? {
        let of = |id: TaskId| tasks.iter().find(|called| called.id == id);
        let passed = match wish {
            Wish::PassedOn(passed) => *passed,
            Wish::Cancel(id, wanted) => {
                if let Some(called) = of(id)
                    && store.read(|tx| Ok(tx.requests_ever(called.key)?.is_empty()))?
                {
                    store.write(|tx| tx.take_over_cancel(called.key, &wanted, now()))?;
                }
                continue;
            }
        };
        let Some(called) = of(passed.task) else { continue };
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
fn wishes(
    forwarder: &Forwarder,
    client: &mut Client,
    tasks: &[TaskId],
    offset: ClockOffset,
    deadline: Instant,
) -> Result<Vec<Wish>, Stop> {
    let mut found = BTreeMap::new();
    for _ in 0..PAGES {
        let page = people::waiting(client, tasks, forwarder.heard_up_to(), offset, deadline)?;
        let is_full = page.len() >= people::ACTS_MAX;
        if let Some(last) = page.last() {
            forwarder.hear_up_to(last.id);
        }
        let mut is_round = false;
        for Waiting { id, at, wish } in page {
            is_round |= found.insert((at, id), wish).is_some();
        }
        if is_round || !is_full {
            break;
        }
    }
    // Whoever wrote one there that is not what it says is none of us.
    let is_meant = |wish: &Wish| match wish {
        Wish::PassedOn(passed) => passed.is_its_own(),
        Wish::Cancel(..) => true,
    };
    Ok(found.into_values().flatten().filter(is_meant).collect())
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
    let user_name = act.user_name.as_deref().and_then(parse::person);
    let heard = Heard {
        id: Some(act.heard.clone()),
        source: "terminal",
        voter: Voter {
            kind: Kind::Elsewhere,
            user_id: None,
            user_name: Some(unproven(user_name.as_deref())),
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
    let hearing = Hearing { policy: &rules.policy, masker: &rules.masker, starts_here: rules.starts_here };
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
        let user_name = act.user_name.as_deref().and_then(parse::person);
        let user_id = passed.user_id.clone();
        let voter = Voter { kind: person(act), user_id, user_name };
        // Not when we look, which may be much later.
        let at = passed.at.map_or(now, |at| at.min(now));
        words = cancel(tx, rules.approvers.as_ref(), &task, &voter, (&act.source, passed.id), at)?.words;
    }
    let is_noted = tx.mark_passed_on(key, passed.id, TAKEN)?;
    Ok(if is_noted { Ruled::Noted(words) } else { Ruled::NotOurs })
}

/// What somebody at a terminal of another machine is called. Nothing proves the name, so that it must not look like that
/// of somebody in Slack.
fn unproven(name: Option<&str>) -> String {
    format!("{} (at a terminal elsewhere)", name.unwrap_or("somebody"))
}

fn person(act: &Act) -> Kind {
    if act.is_foreign { Kind::Foreign } else { Kind::Person }
}

fn has_proof(passed: &PassedOn, nonce: &str) -> bool {
    passed.act.proof.as_ref().is_some_and(|proof| is_proven(nonce, &passed.claim(), proof))
}
