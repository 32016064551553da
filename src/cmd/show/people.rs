//! What a task's people were asked, and what they did.

use serde_json::{Value, json};

use super::SHOWN;
use crate::checkpoint::id::TaskKey;
use crate::checkpoint::question::{Answer, Question};
use crate::checkpoint::time::Moment;
use crate::render::text::{brief, plain};
use crate::store::{Intervention, StoreError, Tx};

/// A task's questions and interventions, in the order of time, as of a moment.
#[derive(Debug, Default)]
pub(in crate::cmd) struct People {
    pub(in crate::cmd) at: Moment,
    pub(in crate::cmd) questions: Vec<Told>,
    /// As JSON has them.
    pub(in crate::cmd) interventions: Vec<Value>,
}

/// A question and what became of it.
#[derive(Debug)]
pub(in crate::cmd) struct Told {
    pub(in crate::cmd) question: Question,
    pub(in crate::cmd) answer: Option<Answer>,
    pub(in crate::cmd) message_ts: Option<String>,
}

impl People {
    pub(super) fn read(tx: &Tx<'_>, task: TaskKey, at: Moment) -> Result<Self, StoreError> {
        let questions = tx.questions_of(task)?.into_iter().map(|put| {
            let (answer, message) = (put.asked.answer, put.asked.message);
            Told { question: put.asked.question, answer, message_ts: message.map(|(_, ts)| ts) }
        });
        let interventions = tx.interventions(task)?.iter().map(intervention_json).collect();
        Ok(Self { at, questions: questions.collect(), interventions })
    }

    pub(in crate::cmd) fn questions_json(&self) -> Value {
        let each = self.questions.iter().map(|Told { question, answer, message_ts }| {
            let mut json = question.json(answer.as_ref(), self.at);
            json["question"] = json!(question.text);
            json["command"] = json!(question.command);
            json["details"] = json!(question.details);
            json["choices"] = json!(question.choices);
            json["approvers"] = json!(question.approvers);
            json["quorum"] = json!(question.quorum);
            json["asked_at"] = json!(question.asked_at.rfc3339());
            json["expires_at"] = json!(question.expires_at.rfc3339());
            json["message_ts"] = json!(message_ts);
            json
        });
        each.collect()
    }

    /// For people: what was asked and what came of it, who wanted the agent to stop, and what was refused.
    pub(in crate::cmd) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Told { question, answer, .. } in &self.questions {
            let state = match answer {
                Some(answer) => answer.words(),
                None => format!("open for another {}", question.time_left(self.at)),
            };
            lines.push(format!("request {}  {}", question.id, brief(&state, SHOWN, 0)));
            // Whoever answers at a terminal reads here what that approves, all of it, and what there is to choose from.
            let text = if answer.is_none() { question.whole() } else { brief(&question.text, SHOWN, 0) };
            let each = plain(&text, true);
            lines.extend(each.lines().map(|line| format!("{:>10}{line}", "").trim_end().to_owned()));
            if answer.is_none() && !question.choices.is_empty() {
                let choices = question.choices.iter().map(|choice| plain(choice, false)).collect::<Vec<_>>();
                lines.push(format!("{:>10}choices: {}", "", choices.join(", ")));
            }
        }
        lines.extend(self.interventions.iter().filter_map(line));
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }
}

fn intervention_json(one: &Intervention) -> Value {
    json!({
        "intervention_id": one.id.to_string(),
        "intervention_type": one.kind,
        "source": one.source,
        "user_id": one.user_id,
        "user_name": one.user_name,
        "action_details": one.details,
        "created_at": one.at.rfc3339(),
    })
}

/// What somebody did that a person has to know of: that the agent is asked to stop, and whether its machine knows; and what
/// was refused, and why.
fn line(intervention: &Value) -> Option<String> {
    let details = &intervention["action_details"];
    let kind = intervention["intervention_type"].as_str().unwrap_or_default();
    let refused = details["refused"].as_str();
    if kind != "cancel" && refused.is_none() {
        return None;
    }
    // A name without an id is none of Slack's, and must not look like one.
    let user_id = intervention["user_id"].as_str();
    let sign = if user_id.is_some() { "@" } else { "" };
    let name = intervention["user_name"].as_str().map(|name| format!("{sign}{name}"));
    let who = name.or_else(|| user_id.map(str::to_owned));
    let who = brief(who.as_deref().unwrap_or("somebody"), SHOWN, 0);
    let at = intervention["created_at"].as_str().map_or_else(String::new, |at| format!(" at {at}"));
    if let Some(refused) = refused {
        return Some(format!("refused   {} by {who}{at}: {}", brief(kind, SHOWN, 0), why(refused)));
    }
    let waits = if details["passed_on"] == "waiting" { ", not taken by its machine yet" } else { "" };
    Some(format!("cancel    asked for by {who}{at}{waits}"))
}

/// Why something was refused, by the name that [`Refusal`](crate::checkpoint::question::rules::Refusal) has for it and
/// what was heard of a cancel.
fn why(refused: &str) -> String {
    let words = match refused {
        "late" => "it was over already",
        "over" => "its time was over",
        "not_allowed" => "not among the approvers",
        "foreign" => "of another workspace",
        "bot" => "a bot",
        "own_token" => "the agent's own token",
        "again" => "said before",
        "not_offered" => "not offered by the question",
        "forged" => "a button of something else",
        "unknown" => "no such question",
        other => return brief(other, SHOWN, 0),
    };
    words.to_owned()
}
