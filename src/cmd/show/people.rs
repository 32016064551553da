//! What a task's people were asked, and what they did.

use serde_json::{Value, json};

use crate::checkpoint::id::TaskKey;
use crate::cmd::now;
use crate::render::text::plain;
use crate::store::{Intervention, Put, StoreError, Tx};

/// A task's questions and interventions, in the order of time.
#[derive(Debug, Default)]
pub(super) struct People {
    questions: Vec<Put>,
    interventions: Vec<Intervention>,
}

impl People {
    pub(super) fn read(tx: &Tx<'_>, task: TaskKey) -> Result<Self, StoreError> {
        Ok(Self { questions: tx.questions_of(task)?, interventions: tx.interventions(task)? })
    }

    pub(super) fn questions_json(&self) -> Value {
        let at = now();
        let each = self.questions.iter().map(|put| {
            let question = &put.asked.question;
            let mut json = question.json(put.asked.answer.as_ref(), at);
            json["question"] = json!(question.text);
            json["command"] = json!(question.command);
            json["choices"] = json!(question.choices);
            json["approvers"] = json!(question.approvers);
            json["quorum"] = json!(question.quorum);
            json["asked_at"] = json!(question.asked_at.rfc3339());
            json["expires_at"] = json!(question.expires_at.rfc3339());
            json["message_ts"] = json!(put.asked.message.as_ref().map(|(_, ts)| ts));
            json
        });
        each.collect()
    }

    pub(super) fn interventions_json(&self) -> Value {
        let each = self.interventions.iter().map(|one| {
            json!({
                "intervention_id": one.id.to_string(),
                "intervention_type": one.kind,
                "source": one.source,
                "user_id": one.user_id,
                "user_name": one.user_name,
                "action_details": one.details,
                "created_at": one.at.rfc3339(),
            })
        });
        each.collect()
    }

    /// For people: what was asked and what came of it, and what was refused.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.questions.is_empty() {
            lines.push(String::new());
        }
        for put in &self.questions {
            let question = &put.asked.question;
            let state = match &put.asked.answer {
                Some(answer) => answer.words(),
                None => format!("open for another {}", question.time_left(now())),
            };
            lines.push(format!("request {}  {}", question.id, plain(&state, false)));
            lines.push(format!("{:>10}{}", "", plain(&question.text, false)));
        }
        lines
    }
}
