//! What the audit trail says of people: a question and its end beside the checkpoints that are about them, and what
//! somebody did who was heard by another machine than the one that it is for.
//!
//! Moments are milliseconds since 1970 by the server's clock. The secret of a question's buttons never gets there.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{ClockOffset, object, of_value};
use crate::checkpoint::id::{TaskId, act_id};
use crate::checkpoint::parse;
use crate::checkpoint::question::{Answer, Decision, Question, RequestId, Word, user_id};
use crate::checkpoint::time::Moment;

/// What a row of `human_interventions` says in its details as long as it waits for whom it is for.
pub(crate) const WAITS: &str = r#""passed_on":"waiting""#;
/// What such a row says where it changes nothing, and what each of ours says.
pub(crate) const REFUSED: &str = r#""refused":"#;
pub(crate) const SOURCE: &str = r#""source":"#;
/// The word for one that waits, and for one on which whom it is for has ruled.
pub(crate) const WAITING: &str = "waiting";
pub(crate) const TAKEN: &str = "taken";

/// A question as everybody who shares the database may know it.
pub(super) fn question(question: &Question, offset: ClockOffset) -> Value {
    let mut told = object(json!(question));
    told.remove("nonce");
    rename(&mut told, "id", "request_id");
    tell_moment(&mut told, ("asked_at", "asked_at_ms"), question.asked_at, offset);
    tell_moment(&mut told, ("expires_at", "expires_at_ms"), question.expires_at, offset);
    Value::Object(told)
}

/// What was decided.
pub(super) fn answer((request, answer): &(RequestId, Answer), offset: ClockOffset) -> Value {
    let mut told = object(json!(answer));
    told.insert("request_id".to_owned(), json!(request));
    tell_moment(&mut told, ("at", "at_ms"), answer.at, offset);
    Value::Object(told)
}

/// A question as it is read back, by this machine's clock; its buttons' secret is empty and proves nothing.
pub(crate) fn read_question(text: &str, offset: ClockOffset) -> Option<Question> {
    let mut told: Map<String, Value> = serde_json::from_str(text).ok()?;
    rename(&mut told, "request_id", "id");
    hear_moment(&mut told, ("asked_at", "asked_at_ms"), offset)?;
    hear_moment(&mut told, ("expires_at", "expires_at_ms"), offset)?;
    told.insert("nonce".to_owned(), json!(""));
    of_value(&Value::Object(told))
}

/// What was decided as it is read back, by this machine's clock, and to which question.
pub(crate) fn read_answer(text: &str, offset: ClockOffset) -> Option<(RequestId, Answer)> {
    let mut told: Map<String, Value> = serde_json::from_str(text).ok()?;
    hear_moment(&mut told, ("at", "at_ms"), offset)?;
    let request = of_value(told.get("request_id")?)?;
    let answer: Answer = of_value(&Value::Object(told))?;
    let user_name = answer.user_name.as_deref().and_then(parse::person);
    Some((request, Answer { user_name, ..answer }))
}

/// What was decided, and to which question, from the intervention that decided it: its details, whose it is, and when.
pub(crate) fn read_deciding(
    details: &str,
    user_id: Option<String>,
    at: Moment,
) -> Option<(RequestId, Answer)> {
    let details: Value = serde_json::from_str(details).ok()?;
    let decision: Decision = of_value(&details["decision"])?;
    let text = |name: &str| details[name].as_str().map(str::to_owned);
    let answer = Answer {
        decision,
        choice: text("choice"),
        user_id,
        user_name: details["user_name"].as_str().and_then(parse::person),
        comment: text("comment"),
        at,
    };
    Some((of_value(&details["request_id"])?, answer))
}

/// What was decided, of a question alone.
pub(crate) fn its_own(request: RequestId) -> impl Fn((RequestId, Answer)) -> Option<Answer> {
    move |(id, answer)| (id == request).then_some(answer)
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

fn tell_moment(map: &mut Map<String, Value>, (ours, theirs): (&str, &str), at: Moment, offset: ClockOffset) {
    map.remove(ours);
    map.insert(theirs.to_owned(), json!(offset.correct(at)));
}

fn hear_moment(
    map: &mut Map<String, Value>,
    (ours, theirs): (&str, &str),
    offset: ClockOffset,
) -> Option<()> {
    let at = map.remove(theirs)?.as_i64()?;
    map.insert(ours.to_owned(), json!(at.saturating_sub(offset.0)));
    Some(())
}

/// That somebody wants a task to end, which some machine has ruled on: whoever may, or whoever can write rows there. It only
/// ever stops something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
    /// By this machine's clock; `None` where nobody's clock can have said so.
    pub(crate) at: Option<Moment>,
}

impl Wanted {
    /// From a row's user, details, and moment by the server's clock.
    pub(crate) fn read(who: Option<String>, details: &str, at: Option<i64>, offset: ClockOffset) -> Self {
        let details: Value = serde_json::from_str(details).unwrap_or_default();
        Self {
            user_id: who.filter(|id| user_id(id).is_ok()),
            user_name: details["user_name"].as_str().and_then(parse::person),
            at: at.map(|at| Moment(at.saturating_sub(offset.0))),
        }
    }
}

/// What a person did, heard by one machine and meant for another: a row of `human_interventions` until that one rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PassedOn {
    /// The same however often it was heard, and by whomever.
    pub(crate) id: Uuid,
    pub(crate) task: TaskId,
    pub(crate) agent_id: String,
    pub(crate) user_id: Option<String>,
    /// When, by this machine's clock; `None` until it is read back, and where nobody's clock can have said so.
    pub(crate) at: Option<Moment>,
    pub(crate) act: Act,
}

/// The details of such a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Act {
    /// The question that is answered; `None` where the task is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) word: Option<Word>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) choice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    /// `click`, `command`, `mention` or `terminal`.
    pub(crate) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_name: Option<String>,
    /// The person is of another workspace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_foreign: bool,
    /// What tells it from every other act.
    pub(crate) heard: String,
    /// The message of the button.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message_ts: Option<String>,
    /// Shows that whoever wrote this down saw the button: made of all that counts with the button's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<String>,
    /// Why it changes nothing, where whoever passes it on knows already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passed_on: Option<String>,
}

impl PassedOn {
    /// What a proof is made of: all that decides what becomes of it. Nothing else in the row is to be believed.
    pub(crate) fn claim(&self) -> String {
        let Act { request_id, word, source, user_name, is_foreign, heard, message_ts, .. } = &self.act;
        json!([heard, source, request_id, word, self.user_id, user_name, is_foreign, message_ts]).to_string()
    }

    /// Whether the row is what its own words say it is.
    pub(crate) fn is_its_own(&self) -> bool {
        self.id == act_id(&self.act.heard)
    }

    /// The same as one that changes nothing, for this reason.
    pub(crate) fn refused(mut self, reason: &str) -> Self {
        (self.act.refused, self.act.proof) = (Some(reason.to_owned()), None);
        self.act.passed_on = Some(TAKEN.to_owned());
        self
    }

    /// As the column `intervention_type` says it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.act.word {
            None => "cancel",
            Some(Word::Approve) => "approve",
            Some(Word::Reject) => "reject",
            Some(Word::Choice(_)) => "choose",
        }
    }

    /// The details as the row has them.
    pub(crate) fn details(&self) -> String {
        super::storable_json(&json!(self.act))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_back_as_it_was_told_but_for_its_secret() {
        let asked = Question {
            choices: vec!["a".to_owned(), "b".to_owned()],
            approvers: vec!["U1".to_owned()],
            quorum: 2,
            details: Some("all of it".to_owned()),
            asked_at: Moment(1_000),
            expires_at: Moment(61_000),
            ..Question::sample()
        };
        let told = question(&asked, ClockOffset(5_000)).to_string();
        assert!(!told.contains(&asked.nonce) && !told.contains("nonce"), "{told}");
        assert!(told.contains(r#""asked_at_ms":6000"#), "{told}");
        // On a machine whose clock is another minute behind.
        let read = read_question(&told, ClockOffset(65_000)).expect("a question");
        let expected =
            Question { nonce: String::new(), asked_at: Moment(-59_000), expires_at: Moment(1_000), ..asked };
        assert_eq!(read, expected);
        for text in ["", "{}", "[]", "null", r#"{"asked_at_ms":"x"}"#] {
            assert_eq!(read_question(text, ClockOffset(0)), None, "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_back_for_its_own_question_alone() {
        let (mine, other) = (RequestId::new(Moment(1)), RequestId::new(Moment(1)));
        let decided = Answer {
            user_id: Some("U1".to_owned()),
            comment: Some("fine".to_owned()),
            ..Answer::bare(Decision::Approved, Moment(7))
        };
        let told = answer(&(mine, decided.clone()), ClockOffset(3)).to_string();
        assert_eq!(read_answer(&told, ClockOffset(3)), Some((mine, decided.clone())));
        assert_eq!(read_answer(&told, ClockOffset(3)).and_then(its_own(other)), None);
        let details = json!({ "request_id": mine, "decision": "approved", "comment": "fine" }).to_string();
        let user = Some("U1".to_owned());
        assert_eq!(read_deciding(&details, user.clone(), Moment(7)), Some((mine, decided.clone())));
        assert_eq!(its_own(mine)((mine, decided.clone())), Some(decided.clone()));
        assert_eq!(its_own(other)((mine, decided)), None);
        for text in [r#"{"decision":"bought"}"#, r#"{"decision":"approved"}"#, "[]"] {
            assert_eq!(read_deciding(text, user.clone(), Moment(7)), None, "{text}");
        }
    }

    #[test]
    fn what_waits_says_so_in_words_that_no_comment_can_forge() {
        let passed = PassedOn {
            id: act_id("click:C1:1.0:2.0:U1"),
            task: TaskId(Uuid::nil()),
            agent_id: "bot".to_owned(),
            user_id: Some("U1".to_owned()),
            at: None,
            act: Act {
                request_id: Some(RequestId::new(Moment(1))),
                word: Some(Word::Choice(1)),
                choice: Some("b".to_owned()),
                comment: Some(format!("x {WAITS}")),
                source: "click".to_owned(),
                user_name: None,
                is_foreign: false,
                heard: "click:C1:1.0:2.0:U1".to_owned(),
                message_ts: Some("1.0".to_owned()),
                proof: None,
                refused: None,
                passed_on: None,
            },
        };
        assert!(!passed.details().contains(WAITS), "{}", passed.details());
        let mut waiting = passed.clone();
        waiting.act.passed_on = Some(WAITING.to_owned());
        assert!(waiting.details().contains(WAITS), "{}", waiting.details());
        assert_eq!(serde_json::from_str::<Act>(&waiting.details()).ok(), Some(waiting.act.clone()));
        assert_eq!(waiting.claim(), passed.claim());
        let mut other = passed.clone();
        other.user_id = Some("U2".to_owned());
        assert_ne!(other.claim(), passed.claim());
        assert_eq!(act_id("click:C1:1.0:2.0:U1"), passed.id);
        assert_ne!(act_id("click:C1:1.0:2.0:U2"), passed.id);
        let own = Uuid::now_v7();
        assert_eq!(act_id(&own.to_string()), own);
    }
}
