//! Questions: what a person is asked, and what was decided. Who may decide stands in [`rules`], how a reaction or a
//! reply becomes a word in [`reading`].

pub(crate) mod reading;
pub(crate) mod rules;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::id::{CheckpointId, uuid_v7};
use super::parse::Invalid;
use super::time::{Moment, spoken};

/// A question's public id, made by whoever asks (UUIDv7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RequestId(Uuid);

impl RequestId {
    pub(crate) fn new(now: Moment) -> Self {
        Self(uuid_v7(now))
    }

    /// Reads an id as people copy it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text.trim()).ok().map(Self)
    }

    /// The id of the checkpoint whose message the question is: the same, so that a database finds it by its key.
    pub(crate) fn checkpoint(self) -> CheckpointId {
        CheckpointId(self.0)
    }

    /// The id of the checkpoint that says what was decided: the same but for its version, which is then 8, for ids that
    /// are made by a rule of one's own. It is sorted by time all the same.
    pub(crate) fn ending(self) -> CheckpointId {
        let mut bytes = *self.0.as_bytes();
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        CheckpointId(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RequestId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not an id")
    }
}

/// What nobody can guess, so that a button's value proves that it is ours: 128 random bits in hex.
pub(crate) fn nonce() -> String {
    // A UUIDv4 has six fixed bits; two of them, turned against each other, have none.
    let bits = Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64);
    format!("{bits:032x}")
}

/// Whether a text may be such a secret.
#[cfg(feature = "postgres")]
pub(crate) fn is_nonce(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The id of somebody in Slack, as it stands in a profile or as a mention, `<@U0123456789>`.
pub(crate) fn user_id(text: &str) -> Result<String, Invalid> {
    let hint = "copy the member ID from the person's profile in Slack, such as U0123456789";
    let id = text.trim().trim_start_matches("<@").trim_end_matches('>');
    let id = id.split('|').next().unwrap_or_default();
    let is_id = id.len() >= 3
        && id.starts_with(['U', 'W'])
        && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if is_id { Ok(id.to_owned()) } else { Err(Invalid::new("is not the id of a Slack user", hint)) }
}

/// Several of them, separated by commas or spaces.
pub(crate) fn user_ids(text: &str) -> Result<Vec<String>, Invalid> {
    text.split([',', ' ', '\n', '\t', ';']).filter(|word| !word.is_empty()).map(user_id).collect()
}

/// How many people have to agree.
pub(crate) fn quorum(text: &str) -> Result<u32, Invalid> {
    match text.trim().parse::<u32>() {
        Ok(number @ 1..=100) => Ok(number),
        _ => Err(Invalid::new("is not a number of people", "give a whole number from 1 to 100")),
    }
}

/// What time-out means for the exit code; the decision says `timed_out` all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnTimeout {
    #[default]
    Fail,
    Reject,
    Approve,
}

/// Where the asker stands: people decide differently for another branch or machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Whereabouts {
    pub(crate) repo: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) directory: Option<String>,
    pub(crate) host: Option<String>,
}

/// Something that a person is asked.
///
/// Kept as JSON in the cache: fields may be added with a default, never renamed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) id: RequestId,
    pub(crate) nonce: String,
    pub(crate) agent_id: String,
    pub(crate) text: String,
    pub(crate) details: Option<String>,
    /// The command that is to be approved, whole.
    pub(crate) command: Option<String>,
    /// What there is to choose from; empty where it is to be approved or rejected.
    pub(crate) choices: Vec<String>,
    /// The ids of those who may decide; empty for any person.
    pub(crate) approvers: Vec<String>,
    /// How many have to agree.
    pub(crate) quorum: u32,
    pub(crate) at: Whereabouts,
    #[serde(default)]
    pub(crate) on_timeout: OnTimeout,
    /// Whether reactions and replies are looked for.
    #[serde(default)]
    pub(crate) polled: bool,
    /// Whether an agent is started once it is approved; the command is what it is to do.
    #[serde(default)]
    pub(crate) launch: Option<Launch>,
    pub(crate) asked_at: Moment,
    pub(crate) expires_at: Moment,
}

/// A request for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// What it is about, as [`errand::Kind`](super::errand::Kind) names it.
    pub(crate) kind: String,
    /// The id of whoever asks for it.
    pub(crate) user_id: Option<String>,
}

/// What a person can say to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Approve,
    Reject,
    /// The choice with this index.
    Choice(usize),
}

/// One person's word that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) word: Word,
    /// `None` for whoever answered at a terminal.
    pub(crate) user_id: Option<String>,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    Approved,
    Rejected,
    Chosen,
    TimedOut,
    Withdrawn,
}

impl Decision {
    /// The spelling used in JSON and on standard output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Chosen => "chosen",
            Self::TimedOut => "timed_out",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The end of a question: what was decided, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) decision: Decision,
    pub(crate) choice: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
    /// What the person said beside it, or why it was withdrawn.
    pub(crate) comment: Option<String>,
    pub(crate) at: Moment,
}

impl Answer {
    /// An end that no person has decided.
    pub(crate) fn bare(decision: Decision, at: Moment) -> Self {
        Self { decision, choice: None, user_id: None, user_name: None, comment: None, at }
    }

    pub(crate) fn withdrawn(reason: &str, at: Moment) -> Self {
        Self { comment: Some(reason.to_owned()), ..Self::bare(Decision::Withdrawn, at) }
    }

    /// Who decided, as far as that is known, as people read it. A name without an id is none of Slack's, and must not look
    /// like one: whoever runs commands is called what they like.
    pub(crate) fn who(&self) -> Option<String> {
        let sign = if self.user_id.is_some() { "@" } else { "" };
        let name = self.user_name.as_ref().map(|name| format!("{sign}{name}"));
        name.or_else(|| self.user_id.clone())
    }

    /// In one line, as a checkpoint's action says it: `approved by @maria: looks good`.
    pub(crate) fn words(&self) -> String {
        let what = match (self.decision, &self.choice) {
            (Decision::Chosen, Some(choice)) => format!("'{choice}' was chosen"),
            (Decision::TimedOut, _) => "nobody answered in time".to_owned(),
            (decision, _) => decision.name().to_owned(),
        };
        let who = self.who().map_or_else(String::new, |who| format!(" by {who}"));
        let comment = self.comment.as_ref().map_or_else(String::new, |comment| format!(": {comment}"));
        format!("{what}{who}{comment}")
    }
}

impl Question {
    /// How long is left, as people read it.
    pub(crate) fn time_left(&self, now: Moment) -> String {
        spoken(self.expires_at.since(now))
    }

    /// How long the asker waited for an answer, or has waited so far.
    pub(crate) fn waited(&self, until: Moment) -> Duration {
        until.since(self.asked_at)
    }

    pub(crate) fn is_over(&self, now: Moment) -> bool {
        now >= self.expires_at
    }

    /// All that is to be approved, as one text: for a file, where a message has no room for it.
    pub(crate) fn whole(&self) -> String {
        let mut parts = vec![self.text.clone()];
        let sign = if self.launch.is_some() { "" } else { "$ " };
        parts.extend(self.command.as_ref().map(|command| format!("{sign}{command}")));
        parts.extend(self.details.clone());
        parts.join("\n\n")
    }

    /// The answer as JSON; all but the id is null while the question is open.
    pub(crate) fn json(&self, answer: Option<&Answer>, now: Moment) -> Value {
        let until = answer.map_or(now, |answer| answer.at);
        json!({
            "request_id": self.id.to_string(),
            "decision": answer.map(|answer| answer.decision.name()),
            "choice": answer.and_then(|answer| answer.choice.clone()),
            "user_id": answer.and_then(|answer| answer.user_id.clone()),
            "user_name": answer.and_then(|answer| answer.user_name.clone()),
            "comment": answer.and_then(|answer| answer.comment.clone()),
            "answered_at": answer.and_then(|answer| answer.at.told()),
            "waited_seconds": self.waited(until).as_secs(),
        })
    }
}

#[cfg(test)]
impl Question {
    /// A question that anybody may answer for a minute from the beginning of time on.
    pub(crate) fn sample() -> Self {
        Self {
            id: RequestId::new(Moment(0)),
            nonce: nonce(),
            agent_id: "bot".to_owned(),
            text: "Deploy?".to_owned(),
            details: None,
            command: None,
            choices: Vec::new(),
            approvers: Vec::new(),
            quorum: 1,
            at: Whereabouts::default(),
            on_timeout: OnTimeout::Fail,
            polled: false,
            launch: None,
            asked_at: Moment(0),
            expires_at: Moment(60_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_nonces_are_alike_and_each_has_128_bits() {
        let (one, other) = (nonce(), nonce());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
        // The fixed bits of a UUID would show in the same places of every one.
        let mut or = 0;
        let mut and = u128::MAX;
        for _ in 0..200 {
            let bits = u128::from_str_radix(&nonce(), 16).expect("hex");
            (or, and) = (or | bits, and & bits);
        }
        assert_eq!((or, and), (u128::MAX, 0));
    }

    #[test]
    fn an_answer_reads_in_one_line() {
        let answer = |decision| Answer {
            user_name: Some("maria".to_owned()),
            user_id: Some("U1".to_owned()),
            ..Answer::bare(decision, Moment(0))
        };
        let commented = Answer { comment: Some("too risky".to_owned()), ..answer(Decision::Rejected) };
        let chosen = Answer { choice: Some("eu-west".to_owned()), ..answer(Decision::Chosen) };
        for (answer, words) in [
            (answer(Decision::Approved), "approved by @maria"),
            (Answer { user_name: None, ..answer(Decision::Approved) }, "approved by U1"),
            (Answer { user_id: None, ..answer(Decision::Approved) }, "approved by maria"),
            (commented, "rejected by @maria: too risky"),
            (chosen, "'eu-west' was chosen by @maria"),
            (Answer::bare(Decision::TimedOut, Moment(0)), "nobody answered in time"),
            (Answer::withdrawn("interrupted", Moment(0)), "withdrawn: interrupted"),
        ] {
            assert_eq!(answer.words(), words);
        }
    }

    #[test]
    fn an_open_question_is_told_with_nulls() {
        let question = Question::sample();
        let id = question.id.to_string();
        assert_eq!(
            question.json(None, Moment(1500)),
            json!({
                "request_id": id, "decision": null, "choice": null, "user_id": null, "user_name": null,
                "comment": null, "answered_at": null, "waited_seconds": 1,
            })
        );
        let answer = Answer::bare(Decision::TimedOut, Moment(60_000));
        let told = question.json(Some(&answer), Moment(90_000));
        assert_eq!((&told["decision"], &told["waited_seconds"]), (&json!("timed_out"), &json!(60)));
    }
}
