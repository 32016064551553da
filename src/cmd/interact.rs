//! What people do, whoever hears of it: a click, a reaction, a reply, an answer at the terminal. The rules decide, and
//! all that follows is written in one transaction: what was done, the decision, the edit of the message and the
//! checkpoint that says so.

mod command;
mod ears;
#[cfg(feature = "postgres")]
pub(super) mod elsewhere;
mod launch;
mod look;
mod owed;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use self::command::Spoken;
pub(super) use self::ears::Ears;
use self::look::Look;
pub(super) use self::owed::{Debt, Owed};
use super::{masking, record};
use crate::checkpoint::id::{TaskKey, act_id};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::{Asked, Priority};
use crate::checkpoint::plan::{self, Policy};
use crate::checkpoint::question::rules::{self, Kind, Refusal, Ruling, Said, UNKNOWN, Voter};
use crate::checkpoint::question::{Answer, Decision, RequestId, Vote, Word};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Draft, Task};
use crate::config::{Config, Target};
use crate::delivery::Destination;
use crate::delivery::bot::Bot;
use crate::delivery::http::Http;
use crate::interaction::wire::{Click, Interaction, Person};
use crate::render::mrkdwn::escape;
use crate::render::text::plain;
use crate::store::{Forsaken, Intervention, Put, QuestionKey, Store, StoreError, Tx};

/// What is needed beside what was heard.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    pub(super) policy: &'a Policy,
    pub(super) masker: &'a Masker,
    /// An agent that is approved is started by this process.
    pub(super) starts_here: bool,
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
    /// The button; `None` where the way itself proves that the question was meant.
    pub(super) button: Option<Button>,
    pub(super) word: Word,
    pub(super) comment: Option<String>,
}

/// A button that was clicked.
#[derive(Debug)]
pub(super) struct Button {
    /// What it carries.
    nonce: String,
    /// The message it stands in.
    ts: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The task that it is about.
    pub(super) task: TaskKey,
    pub(super) ruling: Ruling,
    /// What the person is told, if anything.
    pub(super) words: Option<String>,
    /// See [`Reply::is_unattended`].
    pub(super) is_unattended: bool,
}

/// The button on a live card.
const CANCEL: &str = "task:cancel";
/// The longest that telling somebody something takes.
const TELL: Duration = Duration::from_secs(10);
/// What somebody is told who approves a request for an agent: by the server that starts it, and by anybody else.
const STARTS_HERE: &str = "It is started now, or as soon as there is room for it: its thread tells.";
const STARTS_ELSEWHERE: &str =
    "An `agent-checkpoint serve` that starts agents does it, if one runs within the hour.";

/// What is said back to whoever did something, and to nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reply {
    words: Option<String>,
    /// What else is to be said, which takes a while to find out.
    look: Option<Look>,
    /// The task in which something changed, so that there is something to send.
    pub(super) task: Option<TaskKey>,
    /// No process waits in that task that would send it.
    pub(super) is_unattended: bool,
}

impl Reply {
    /// Whether there is anything to say.
    pub(super) fn is_said(&self) -> bool {
        self.words.is_some() || self.look.is_some()
    }

    /// What there is to say. It may have to be looked up, for which nobody at Slack should wait.
    pub(super) fn words(&self, config: &Config) -> Option<String> {
        self.words.clone().or_else(|| self.look.as_ref().map(|look| look.words(config)))
    }
}

/// Does what a person wants who clicked or said something; whoever hears of it calls this, and acknowledges it once it
/// returns: by then it is stored. The same interaction may come again and changes nothing then.
///
/// # Errors
/// The cache cannot be written: it is not to be acknowledged.
fn handle(
    store: &mut Store,
    config: &Config,
    interaction: &Interaction,
    now: Moment,
) -> Result<Reply, StoreError> {
    let click = match (interaction, Spoken::of(interaction)) {
        (Interaction::Click(click), _) => click,
        (_, Some(spoken)) => return command::obey(store, config, &spoken, now),
        (_, None) => return Ok(Reply::default()),
    };
    let voter = voter(&click.person, click.team_id.as_deref());
    #[cfg(feature = "postgres")]
    if let Some(reply) = elsewhere::pass_on(store, config, click, &voter)? {
        return Ok(reply);
    }
    if click.action_id == CANCEL {
        return store.write(|tx| match tx.hear(&click.id, now)? {
            true => cancel_by_button(tx, config, click, &voter, now),
            false => Ok(Reply::default()),
        });
    }
    let Some((request, nonce, word)) = button(click) else { return Ok(Reply::default()) };
    let heard = Heard {
        id: Some(click.id.clone()),
        source: "click",
        voter,
        request,
        button: Some(Button { nonce, ts: click.ts.clone() }),
        word,
        comment: None,
    };
    let (policy, masker) = (record::policy(config), config.masker());
    let hearing = Hearing { policy: &policy, masker: &masker, starts_here: config.launch.starts_here };
    Ok(match store.write(|tx| vote(tx, &hearing, &heard, now))? {
        None => Reply::default(),
        Some(Ok(verdict)) => {
            let Verdict { task, words, is_unattended, .. } = verdict;
            Reply { words, task: Some(task), is_unattended, ..Reply::default() }
        }
        Some(Err(words)) => Reply { words: Some(words.to_owned()), ..Reply::default() },
    })
}

/// Somebody in Slack, where the app belongs to this workspace.
fn voter(person: &Person, team: Option<&str>) -> Voter {
    let is_foreign = person.team_id.as_deref().zip(team).is_some_and(|(theirs, ours)| theirs != ours);
    Voter {
        kind: if is_foreign { Kind::Foreign } else { Kind::Person },
        user_id: Some(person.id.clone()),
        user_name: person.name.clone(),
    }
}

fn cancel_by_button(
    tx: &Tx<'_>,
    config: &Config,
    click: &Click,
    voter: &Voter,
    now: Moment,
) -> Result<Reply, StoreError> {
    let (task, nonce) = click.value.split_once(':').unwrap_or_default();
    let found = tx.task_with_id(task)?;
    let ours = found.filter(|task| task.cancel.as_ref().is_some_and(|ours| proves(nonce, &ours.nonce)));
    match ours {
        Some(task) => cancel(tx, config.approvers.as_ref(), &task, voter, ("click", act_id(&click.id)), now),
        None => Ok(Reply {
            words: Some("This task is not known here (any more).".to_owned()),
            ..Reply::default()
        }),
    }
}

/// Asks a task's agent to end, if this one may: a wrapper ends its command, others hear of it with their next `emit`. The
/// act has a source and an id. Whom `approvers` names may where the task's own settings name nobody; `None` if that
/// cannot be read.
fn cancel(
    tx: &Tx<'_>,
    approvers: Option<&Vec<String>>,
    task: &Task,
    voter: &Voter,
    (source, id): (&str, Uuid),
    now: Moment,
) -> Result<Reply, StoreError> {
    let Some(key) = task.key else { return Ok(Reply::default()) };
    let agent_id = harmless(&task.agent_id);
    // Those whom its own settings name, since whoever hears of it may have been started with others.
    let theirs = task.cancel.as_ref().map(|cancel| &cancel.approvers);
    let Some(approvers) = theirs.or(approvers) else { return Ok(Reply::default()) };
    let refusal = rules::keeps_out(approvers, voter);
    let (words, refused) = match &refusal {
        Some(refusal) => (Some(refusal.words_to(approvers)), Some(refusal.name())),
        None if task.state != TaskState::Running => {
            (Some(format!("{agent_id} has ended already.")), Some("late"))
        }
        None if !tx.requests(key)?.is_empty() => {
            (Some(format!("{agent_id} is being stopped.")), Some("again"))
        }
        None => (None, None),
    };
    let mut details = json!({ "task_id": task.id.to_string() });
    if let Some(refused) = refused {
        details["refused"] = json!(refused);
    }
    let intervention = Intervention {
        id,
        kind: "cancel".to_owned(),
        source: source.to_owned(),
        user_id: voter.user_id.clone(),
        user_name: voter.user_name.clone(),
        details,
        at: now,
    };
    tx.note_intervention(key, None, &intervention, None)?;
    if refused.is_some() {
        return Ok(Reply { words, ..Reply::default() });
    }
    tx.request_cancel(key, voter.user_id.as_deref(), voter.user_name.as_deref(), now)?;
    let words = Some(format!("{agent_id} is told to stop.{}", unheard(&task.snapshot)));
    Ok(Reply { words, task: Some(key), ..Reply::default() })
}

/// What is added where nobody may ever look whether a task's agent is to stop.
fn unheard(snapshot: &Snapshot) -> &'static str {
    match snapshot.listens {
        Some(false) => " It may never hear of it: so far its `emit` was given neither `--obey` nor `--json`.",
        Some(true) | None => "",
    }
}

/// Tells a person what nobody else sees, or in the thread where somebody mentioned us, as well as that goes: nothing
/// depends on it.
pub(super) fn tell(http: &mut Http, config: &Config, interaction: &Interaction, words: &str) {
    let deadline = Instant::now() + TELL;
    let (response_url, channel, thread_ts) = match interaction {
        Interaction::Click(click) => (&click.response_url, &click.channel_id, &click.thread_ts),
        Interaction::Command(command) => (&command.response_url, &command.channel_id, &None),
        Interaction::Mention(mention) => (&None, &mention.channel_id, &mention.thread_ts),
    };
    // Works where the bot is no member as well, but not for ever.
    if let Some(url) = response_url {
        let mut message = json!({ "response_type": "ephemeral", "replace_original": false, "text": words });
        if let Some(ts) = thread_ts {
            message["thread_ts"] = json!(ts);
        }
        let answer = http.post(url.reveal(), None, &message.to_string(), deadline);
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
    if let Target::Slack(Destination::Bot { token, api_url }) = &config.target {
        let mut bot = Bot { http, token, api_url, deadline };
        match interaction {
            Interaction::Mention(mention) => {
                bot.reply(channel, mention.thread_ts.as_ref().unwrap_or(&mention.ts), words);
            }
            _ => bot.whisper(channel, thread_ts.as_deref(), &interaction.person().id, words),
        }
    }
}

/// Which question a button belongs to, what proves it, and what it says.
fn button(click: &Click) -> Option<(RequestId, String, Word)> {
    let word = match click.action_id.strip_prefix("question:")? {
        "approve" => Word::Approve,
        "reject" => Word::Reject,
        choice => Word::Choice(choice.strip_prefix("choice:")?.parse().ok()?),
    };
    let (id, nonce) = click.value.split_once(':')?;
    Some((RequestId::parse(id)?, nonce.to_owned(), word))
}

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
    let comment = heard.comment.as_ref().map(|comment| masking::said(hearing.masker, comment));
    let said = Said { word: heard.word, comment, at: now };
    let ruling = match &heard.button {
        Some(button) if !button.is_of(asked) => Ruling::Refused(Refusal::Forged),
        _ => rules::judge(&asked.question, asked.answer.as_ref(), &asked.votes, &heard.voter, &said),
    };
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
            let is_to_start = asked.question.launch.is_some() && answer.decision == Decision::Approved;
            is_to_start.then(|| tx.task(*task)).transpose()?.map(|task| match task.state {
                TaskState::Running if hearing.starts_here => STARTS_HERE.to_owned(),
                TaskState::Running => STARTS_ELSEWHERE.to_owned(),
                _ => "Nothing is started: its task has ended.".to_owned(),
            })
        }
        // The only words with something to be made a name of.
        Ruling::Refused(refusal @ Refusal::NotAllowed) => Some(refusal.words(&asked.question)),
        Ruling::Refused(refusal) => Some(harmless(&refusal.words(&asked.question))),
    };
    let is_unattended = asked.question.launch.is_some();
    Ok(Some(Ok(Verdict { task: *task, ruling, words, is_unattended })))
}

impl Button {
    /// Whether it is one of this question's: whoever has the bot's token can read what a button carries, and copy it
    /// into a message that asks something else.
    fn is_of(&self, asked: &Asked) -> bool {
        let is_in_place = asked.message.as_ref().is_none_or(|(_, ts)| *ts == self.ts);
        is_in_place && proves(&self.nonce, &asked.question.nonce)
    }
}

/// Whether what a button carries is the secret, found out in the same time wherever they differ.
fn proves(claimed: &str, nonce: &str) -> bool {
    claimed.as_bytes().ct_eq(nonce.as_bytes()).into()
}

/// Text of an agent's or of somebody's as Slack is to show it: it pings nobody and is no link.
fn harmless(text: &str) -> String {
    escape(&plain(text, false))
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
    match ruling {
        Ruling::Refused(refusal) => add("refused", Some(json!(refusal.name()))),
        Ruling::Decides(answer) => add("decision", Some(json!(answer.decision.name()))),
        Ruling::Counts { .. } => {}
    }
    Intervention {
        id: heard.id.as_deref().map_or_else(Uuid::now_v7, act_id),
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
    let is_for_launch = tx.is_for_launch(key)?;
    let status = match (task.snapshot.status, answer.decision) {
        // Nothing of it has begun.
        (_, decision) if is_for_launch && decision != Decision::Approved => Status::Cancelled,
        (Status::WaitingApproval, Decision::Approved | Decision::Chosen) => Status::Working,
        (Status::WaitingApproval, _) => Status::Checkpoint,
        // The agent has gone on without the answer.
        (status, _) => status,
    };
    let draft = Draft {
        action: Some(answer.words()),
        ..Draft::bare(tx.request_of(key)?.ending(), task.agent_id.clone(), status)
    };
    let recorded = tx.append(&plan::speak_for(task, &waiting, &draft, policy, now), now)?;
    tx.refresh_shown_card(recorded.task, now)?;
    if is_for_launch && answer.decision == Decision::Approved {
        tx.leave_start(recorded.task, answer, now)?;
    }
    Ok(true)
}

/// Ends questions whose asker has ended without a word; says how many there were.
pub(super) fn close_forsaken(
    tx: &Tx<'_>,
    policy: &Policy,
    limit: usize,
    now: Moment,
) -> Result<usize, StoreError> {
    let forsaken = tx.forsaken(limit, now)?;
    for Forsaken { key, answer } in &forsaken {
        conclude(tx, policy, *key, answer, now)?;
    }
    Ok(forsaken.len())
}
