//! A request for an agent: put as a question to those who may approve it. Once it is approved, `serve` starts the agent.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::Reply;
use super::command::{Spoken, say};
use crate::checkpoint::Draft;
use crate::checkpoint::errand::{self, Kind};
use crate::checkpoint::id::CheckpointId;
use crate::checkpoint::question::{Launch, OnTimeout, Question, RequestId, Whereabouts, nonce};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::cmd::{ask, masking};
use crate::config::{Config, Target};
use crate::delivery::Destination;
use crate::render::question::overflows;
use crate::store::{Intervention, StoreError, Tx};

/// How long a request waits for an approver: nobody is to start what others have forgotten.
const OPEN: Duration = Duration::from_secs(3600);
/// How many of them may wait at once: whoever may write in a channel can ask.
const OPEN_MAX: u64 = 20;
/// The longest request, in characters: all of it is shown in one message.
const TEXT_MAX: usize = 4000;
/// How much of it names the task.
const NAME: usize = 100;

/// What is asked for, read and masked.
#[derive(Debug)]
pub(super) struct Errand {
    text: String,
    kind: Kind,
    repo: Option<String>,
}

impl Errand {
    pub(super) fn of(config: &Config, text: &str) -> Self {
        let masker = config.masker();
        // What is approved is what is started, and no credential is shown or kept.
        let text = masking::said(&masker, text);
        let repo = errand::repo(&text).or_else(|| config.launch.repo.clone());
        let repo = repo.map(|repo| masking::said(&masker, &repo));
        Self { kind: Kind::of(&text), repo, text }
    }
}

/// Why no agent can be started, if none can, and what to set.
pub(super) fn hindrance(config: &Config) -> Option<String> {
    let is_bot = matches!(&config.target, Target::Slack(Destination::Bot { .. })) && !config.no_post;
    let unset: Vec<&str> = [
        (is_bot, "`SLACK_BOT_TOKEN`"),
        (!config.launch.command.is_empty(), "`AGENT_CHECKPOINT_LAUNCH` to the command that starts one"),
        (!config.named_approvers().is_empty(), "`AGENT_CHECKPOINT_APPROVERS` to those who may approve it"),
    ]
    .into_iter()
    .filter_map(|(is_set, what)| (!is_set).then_some(what))
    .collect();
    let listed = unset.join(" and ");
    let others = if config.app_token.is_some() { " and for all that listen with its app token" } else { "" };
    (!unset.is_empty()).then(|| format!("for `agent-checkpoint serve`{others}, set {listed}"))
}

/// Puts the request to the approvers, in the thread or the channel where it was said.
pub(super) fn ask(
    tx: &Tx<'_>,
    config: &Config,
    spoken: &Spoken,
    errand: &Errand,
    now: Moment,
) -> Result<Reply, StoreError> {
    if let Some(what) = hindrance(config) {
        return Ok(say(format!("No agent is started: {what}.")));
    }
    if errand.text.starts_with('-') {
        // The command would take it for an option of its own.
        return Ok(say("No agent is started: begin the request with a word, not with a dash."));
    }
    if errand.text.chars().count() > TEXT_MAX {
        return Ok(say(format!("No agent is started: use at most {TEXT_MAX} characters.")));
    }
    if tx.open_launches(now)? >= OPEN_MAX {
        return Ok(say(format!("No agent is started: {OPEN_MAX} requests wait for an approver already.")));
    }
    let unique = Uuid::new_v4().simple().to_string();
    let agent_id = format!("{}-{}", errand.kind.name(), unique.get(..8).unwrap_or_default());
    let name: String =
        errand.text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(NAME).collect();
    let question = question(config, spoken, errand, &agent_id, now);
    let draft = Draft {
        name: Some(name),
        task_type: Some(errand.kind.name().to_owned()),
        repo: errand.repo.clone(),
        action: Some(question.text.clone()),
        channel: Some(spoken.channel.clone()).filter(|_| spoken.thread.is_none()),
        thread: spoken.thread.clone(),
        ..Draft::bare(CheckpointId::new(now), agent_id, Status::WaitingApproval)
    };
    let task = ask::put(tx, config, &draft, &question, None, overflows(&question))?;
    let intervention = Intervention {
        id: Uuid::now_v7(),
        kind: "launch".to_owned(),
        source: spoken.source.to_owned(),
        user_id: spoken.voter.user_id.clone(),
        user_name: spoken.voter.user_name.clone(),
        details: json!({ "request_id": question.id.to_string() }),
        at: now,
    };
    tx.note_intervention(task, None, &intervention, None)?;
    // A mention is answered by the question itself.
    let words = "An approver is asked in this channel. If nothing appears, invite me with `/invite`.";
    Ok(Reply {
        words: spoken.thread.is_none().then(|| words.to_owned()),
        task: Some(task),
        is_unattended: true,
        ..Reply::default()
    })
}

fn question(config: &Config, spoken: &Spoken, errand: &Errand, agent_id: &str, now: Moment) -> Question {
    Question {
        id: RequestId::new(now),
        nonce: nonce(),
        agent_id: agent_id.to_owned(),
        text: "Start an agent that does this?".to_owned(),
        details: None,
        command: Some(errand.text.clone()),
        choices: Vec::new(),
        approvers: config.named_approvers().to_vec(),
        quorum: 1,
        at: Whereabouts { repo: errand.repo.clone(), ..Whereabouts::default() },
        on_timeout: OnTimeout::Fail,
        polled: false,
        launch: Some(Launch { kind: errand.kind.name().to_owned(), user_id: spoken.voter.user_id.clone() }),
        asked_at: now,
        expires_at: now.plus(OPEN),
    }
}
