//! What people do, whoever hears of it: a click, a reaction, a reply, an answer at the terminal. The rules decide, and
//! all that follows is written in one transaction: what was done, the decision, the edit of the message and the
//! checkpoint that says so.

use serde_json::{Value, json};
use uuid::Uuid;

use super::masking;
use crate::checkpoint::Draft;
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::Priority;
use crate::checkpoint::plan::{self, Policy};
use crate::checkpoint::question::rules::{self, Ruling, Said, Voter};
use crate::checkpoint::question::{Answer, Decision, RequestId, Vote, Word};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::store::{Forsaken, Intervention, Put, QuestionKey, StoreError, Tx};

/// What is needed beside what was heard.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    pub(super) policy: &'a Policy,
    pub(super) masker: &'a Masker,
}

/// Somebody's word to a question, as it was heard.
#[derive(Debug)]
pub(super) struct Heard {
    /// What tells it from every other; `None` where nothing is heard twice.
    pub(super) id: Option<String>,
    /// How it was heard, as an intervention says it.
    pub(super) source: &'static str,
    pub(super) voter: Voter,
    pub(super) request: RequestId,
    /// What came with a button; `None` where the way itself proves that the question was meant.
    pub(super) nonce: Option<String>,
    pub(super) word: Word,
    pub(super) comment: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The task that it is about.
    pub(super) task: TaskKey,
    pub(super) ruling: Ruling,
    /// What the person is told, if anything.
    pub(super) words: Option<String>,
}

/// What somebody is told who answers what nobody asked.
pub(super) const UNKNOWN: &str = "This question is not known here (any more).";

/// Takes a word to a question; `None` if it was heard before. The inner error is what the person is told where no
/// question of ours is meant.
pub(super) fn vote(
    tx: &Tx<'_>,
    hearing: &Hearing<'_>,
    heard: &Heard,
    now: Moment,
) -> Result<Option<Result<Verdict, &'static str>>, StoreError> {
    if let Some(id) = &heard.id
        && !tx.hear(id, now)?
    {
        return Ok(None);
    }
    let Some(put) = tx.question(heard.request)? else { return Ok(Some(Err(UNKNOWN))) };
    let Put { key, task, asked } = &put;
    if heard.nonce.as_ref().is_some_and(|nonce| !same(nonce, &asked.question.nonce)) {
        return Ok(Some(Err(UNKNOWN)));
    }
    let comment = heard.comment.as_ref().map(|comment| masking::said(hearing.masker, comment));
    let said = Said { word: heard.word, comment, at: now };
    let ruling = rules::judge(&asked.question, asked.answer.as_ref(), &asked.votes, &heard.voter, &said);
    let vote = Vote { word: heard.word, user_id: heard.voter.user_id.clone() };
    let counts = !matches!(ruling, Ruling::Refused(_));
    let intervention = intervention(&put, heard, &said, &ruling);
    tx.note_intervention(*task, Some(*key), &intervention, counts.then_some(&vote))?;
    let words = match &ruling {
        Ruling::Counts { have, need } => {
            tx.edit_question(*key, Priority::Routine, now)?;
            Some(format!("Noted: {have} of {need} agree so far."))
        }
        Ruling::Decides(answer) => {
            conclude(tx, hearing.policy, *key, answer, now)?;
            None
        }
        Ruling::Refused(refusal) => Some(refusal.words(&asked.question)),
    };
    Ok(Some(Ok(Verdict { task: *task, ruling, words })))
}

/// Compares all of both, however early they differ.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

fn intervention(put: &Put, heard: &Heard, said: &Said, ruling: &Ruling) -> Intervention {
    let question = &put.asked.question;
    let (kind, choice) = match heard.word {
        Word::Approve => ("approve", None),
        Word::Reject => ("reject", None),
        Word::Choice(index) => ("choose", question.choices.get(index)),
    };
    let mut details = json!({ "request_id": question.id.to_string() });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            details[name] = value;
        }
    };
    add("choice", choice.map(|choice| json!(choice)));
    add("comment", said.comment.as_ref().map(|comment| json!(comment)));
    let refused = match ruling {
        Ruling::Refused(refusal) => Some(json!(refusal.name())),
        _ => None,
    };
    add("refused", refused);
    Intervention {
        id: Uuid::now_v7(),
        kind: kind.to_owned(),
        source: heard.source.to_owned(),
        user_id: heard.voter.user_id.clone(),
        user_name: heard.voter.user_name.clone(),
        details,
        at: said.at,
    }
}

/// Ends a question, once: false if it has ended before. Says so in its task, unless that has ended meanwhile.
pub(super) fn conclude(
    tx: &Tx<'_>,
    policy: &Policy,
    key: QuestionKey,
    answer: &Answer,
    now: Moment,
) -> Result<bool, StoreError> {
    if !tx.decide(key, answer, now)? {
        return Ok(false);
    }
    let (task, waiting) = tx.task_of_question(key)?;
    if task.state != TaskState::Running {
        return Ok(true);
    }
    let status = match (task.snapshot.status, answer.decision) {
        (Status::WaitingApproval, Decision::Approved | Decision::Chosen) => Status::Working,
        (Status::WaitingApproval, _) => Status::Checkpoint,
        // The agent has gone on without the answer.
        (status, _) => status,
    };
    let draft = Draft {
        action: Some(answer.words()),
        ..Draft::bare(CheckpointId::new(now), task.agent_id.clone(), status)
    };
    let recorded = tx.append(&plan::speak_for(task, &waiting, &draft, policy, now), now)?;
    tx.refresh_shown_card(recorded.task, now)?;
    Ok(true)
}

/// Ends questions whose asker has ended without a word; says how many there were.
pub(super) fn close_forsaken(tx: &Tx<'_>, policy: &Policy, now: Moment) -> Result<usize, StoreError> {
    let forsaken = tx.forsaken(now)?;
    for Forsaken { key, answer } in &forsaken {
        conclude(tx, policy, *key, answer, now)?;
    }
    Ok(forsaken.len())
}
