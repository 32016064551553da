//! Who may decide a question: one person's word counts, decides, or is refused with words for that person.

use super::{Answer, Decision, Question, Vote, Word};
use crate::checkpoint::time::Moment;

/// What is known of whoever says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A person of our workspace, or at least nobody who is known not to be one.
    Person,
    /// A person of another workspace, in a channel that is shared with it.
    Foreign,
    /// A bot, or somebody who has left.
    Bot,
    /// The user of the token that asks.
    OurToken,
    /// Whoever runs commands on this machine, as the user that asks.
    Here,
    /// Whoever runs commands on another machine that shares the database: nothing proves who that is.
    #[cfg_attr(
        not(any(feature = "postgres", test)),
        expect(dead_code, reason = "without a database nobody is heard from there")
    )]
    Elsewhere,
}

/// Somebody who says something to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) kind: Kind,
    /// Slack's id; `None` for [`Kind::Here`] and [`Kind::Elsewhere`].
    pub(crate) user_id: Option<String>,
    pub(crate) user_name: Option<String>,
}

impl Voter {
    /// As people read it.
    pub(crate) fn name(&self) -> String {
        let name = self.user_name.as_ref().map(|name| format!("@{name}"));
        name.or_else(|| self.user_id.clone()).unwrap_or_else(|| "somebody".to_owned())
    }
}

/// What somebody says, beside who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) word: Word,
    pub(crate) comment: Option<String>,
    pub(crate) at: Moment,
}

/// What a word comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is one of several that are needed.
    Counts {
        have: u32,
        need: u32,
    },
    Decides(Answer),
    Refused(Refusal),
}

/// Why a word changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was decided before.
    Late(Answer),
    /// Its time is over, although nobody has noted that yet.
    Over,
    NotAllowed,
    Foreign,
    Bot,
    OurToken,
    /// The same person has said the same already.
    Again {
        have: u32,
        need: u32,
    },
    /// A word that the question does not offer.
    NotOffered,
    /// A button that is none of the question's.
    Forged,
}

/// What somebody is told who answers what nobody asked.
pub(crate) const UNKNOWN: &str = "This question is not known here (any more).";

/// Judges one word. `votes` are those that count so far, `answer` the decision if there is one.
pub(crate) fn judge(
    question: &Question,
    answer: Option<&Answer>,
    votes: &[Vote],
    voter: &Voter,
    said: &Said,
) -> Ruling {
    let refuse = Ruling::Refused;
    if let Some(answer) = answer {
        return refuse(Refusal::Late(answer.clone()));
    }
    if question.is_over(said.at) {
        return refuse(Refusal::Over);
    }
    if let Some(refusal) = keeps_out(&question.approvers, voter) {
        return refuse(refusal);
    }
    if !offers(question, said.word) {
        return refuse(Refusal::NotOffered);
    }
    let decides = |decision| {
        Ruling::Decides(Answer {
            decision,
            choice: match said.word {
                Word::Choice(index) => question.choices.get(index).cloned(),
                Word::Approve | Word::Reject => None,
            },
            user_id: voter.user_id.clone(),
            user_name: voter.user_name.clone(),
            comment: said.comment.clone(),
            at: said.at,
        })
    };
    let decision = match said.word {
        // One is enough to stop what others would let pass.
        Word::Reject => return decides(Decision::Rejected),
        Word::Approve => Decision::Approved,
        Word::Choice(_) => Decision::Chosen,
    };
    let need = question.quorum;
    let others = agreeing(votes, said.word, voter);
    let have = others.saturating_add(1);
    // Whoever runs commands here could as well do without the answer.
    if have >= need || voter.kind == Kind::Here {
        return decides(decision);
    }
    if votes
        .iter()
        .rev()
        .find(|vote| vote.user_id == voter.user_id)
        .is_some_and(|vote| vote.word == said.word)
    {
        return refuse(Refusal::Again { have, need });
    }
    Ruling::Counts { have, need }
}

/// Why this one may not act at all, where only these may if there are any. Who is named may, from whatever workspace; a
/// bot never may.
pub(crate) fn keeps_out(approvers: &[String], voter: &Voter) -> Option<Refusal> {
    let is_named = voter.user_id.as_ref().is_some_and(|id| approvers.contains(id));
    match voter.kind {
        Kind::Here => None,
        Kind::Bot => Some(Refusal::Bot),
        Kind::OurToken => Some(Refusal::OurToken),
        Kind::Person | Kind::Foreign if is_named => None,
        Kind::Person | Kind::Foreign | Kind::Elsewhere if !approvers.is_empty() => Some(Refusal::NotAllowed),
        Kind::Foreign => Some(Refusal::Foreign),
        Kind::Person | Kind::Elsewhere => None,
    }
}

fn offers(question: &Question, word: Word) -> bool {
    match word {
        Word::Approve | Word::Reject => question.choices.is_empty(),
        Word::Choice(index) => index < question.choices.len(),
    }
}

/// How many others say the same; the latest word of each counts.
fn agreeing(votes: &[Vote], word: Word, except: &Voter) -> u32 {
    let mut seen = vec![&except.user_id];
    let mut count = 0;
    for vote in votes.iter().rev() {
        if !seen.contains(&&vote.user_id) {
            seen.push(&vote.user_id);
            count += u32::from(vote.word == word);
        }
    }
    count
}

impl Refusal {
    /// What somebody is told who may not act at all.
    pub(crate) fn words_to(&self, approvers: &[String]) -> String {
        match self {
            Self::Foreign => "Only people of the workspace that runs this may do that.".to_owned(),
            Self::NotAllowed => {
                let names: Vec<String> = approvers.iter().map(|id| format!("<@{id}>")).collect();
                format!("You are not among those who may do that: {}.", names.join(", "))
            }
            _ => "A bot may not do that.".to_owned(),
        }
    }

    /// What the person is told.
    pub(crate) fn words(&self, question: &Question) -> String {
        match self {
            Self::Late(answer) => {
                let at = answer.at.rfc3339();
                let at = at.get(..16).unwrap_or_default().replace('T', " ");
                format!("Too late: {} ({at} UTC).", answer.words())
            }
            Self::Over => "Too late: the time for an answer is over.".to_owned(),
            Self::NotAllowed => {
                let names: Vec<String> = question.approvers.iter().map(|id| format!("<@{id}>")).collect();
                format!("You are not among those who may answer this: {}.", names.join(", "))
            }
            Self::Foreign => "Only people of the workspace that asked may answer this.".to_owned(),
            Self::Bot => "A bot's answer does not count.".to_owned(),
            Self::OurToken => "The asker's own answer does not count.".to_owned(),
            Self::Again { have, need } => {
                format!("Your answer counts already: {have} of {need} agree so far.")
            }
            Self::NotOffered if question.choices.is_empty() => {
                "This question is to be approved or rejected.".to_owned()
            }
            Self::NotOffered => format!("Choose one of: {}.", question.choices.join(", ")),
            // No more than whoever asks after a question that there never was.
            Self::Forged => UNKNOWN.to_owned(),
        }
    }

    /// The spelling kept with an intervention.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Late(_) => "late",
            Self::Over => "over",
            Self::NotAllowed => "not_allowed",
            Self::Foreign => "foreign",
            Self::Bot => "bot",
            Self::OurToken => "own_token",
            Self::Again { .. } => "again",
            Self::NotOffered => "not_offered",
            Self::Forged => "forged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(kind: Kind, id: &str) -> Voter {
        let user_id = (!matches!(kind, Kind::Here | Kind::Elsewhere)).then(|| id.to_owned());
        Voter { kind, user_id, user_name: Some(id.to_lowercase()) }
    }

    fn said(word: Word, at: i64) -> Said {
        Said { word, comment: None, at: Moment(at) }
    }

    fn vote(word: Word, id: &str) -> Vote {
        Vote { word, user_id: Some(id.to_owned()) }
    }

    /// A ruling as the tables below spell it.
    fn short(ruling: &Ruling) -> String {
        match ruling {
            Ruling::Counts { have, need } => format!("{have} of {need}"),
            Ruling::Decides(answer) => answer.decision.name().to_owned(),
            Ruling::Refused(refusal) => refusal.name().to_owned(),
        }
    }

    #[test]
    fn who_may_decide() {
        let open = Question::sample();
        let named = Question { approvers: vec!["U1".to_owned(), "U9".to_owned()], ..Question::sample() };
        for (question, kind, id, expected) in [
            (&open, Kind::Person, "U1", "approved"),
            (&open, Kind::Person, "U2", "approved"),
            (&open, Kind::Foreign, "U3", "foreign"),
            (&open, Kind::Bot, "U4", "bot"),
            (&open, Kind::OurToken, "U5", "own_token"),
            (&open, Kind::Here, "", "approved"),
            (&named, Kind::Person, "U1", "approved"),
            (&named, Kind::Person, "U2", "not_allowed"),
            (&named, Kind::Person, "u1", "not_allowed"),
            (&named, Kind::Person, "U11", "not_allowed"),
            (&named, Kind::Person, "", "not_allowed"),
            (&named, Kind::Foreign, "U9", "approved"),
            (&named, Kind::Foreign, "U3", "not_allowed"),
            (&named, Kind::Bot, "U1", "bot"),
            (&named, Kind::OurToken, "U1", "own_token"),
            (&named, Kind::Here, "", "approved"),
            (&open, Kind::Elsewhere, "", "approved"),
            (&named, Kind::Elsewhere, "", "not_allowed"),
        ] {
            let ruling = judge(question, None, &[], &voter(kind, id), &said(Word::Approve, 5));
            assert_eq!(short(&ruling), expected, "{kind:?} {id} {:?}", question.approvers);
        }
        let nobody = Voter { kind: Kind::Person, user_id: None, user_name: None };
        let ruling = judge(&named, None, &[], &nobody, &said(Word::Approve, 5));
        assert_eq!(short(&ruling), "not_allowed", "who has no id is not named");
    }

    #[test]
    fn a_question_is_decided_once_and_in_time() {
        let question = Question::sample();
        let answer = Answer::bare(Decision::Rejected, Moment(4));
        for (answer, at, expected) in [
            (None, 0, "approved"),
            (None, 59_999, "approved"),
            (None, 60_000, "over"),
            (Some(&answer), 5, "late"),
            (Some(&answer), 70_000, "late"),
        ] {
            let ruling = judge(&question, answer, &[], &voter(Kind::Person, "U1"), &said(Word::Approve, at));
            assert_eq!(short(&ruling), expected, "{answer:?} {at}");
        }
    }

    #[test]
    fn a_quorum_counts_people_and_one_rejection_decides() {
        let three = Question { quorum: 3, ..Question::sample() };
        let choices =
            Question { quorum: 2, choices: vec!["a".to_owned(), "b".to_owned()], ..Question::sample() };
        let yes = |id| vote(Word::Approve, id);
        let (a, b) = (Word::Choice(0), Word::Choice(1));
        for (question, votes, id, word, expected) in [
            (&three, vec![], "U1", Word::Approve, "1 of 3"),
            (&three, vec![yes("U1")], "U1", Word::Approve, "again"),
            (&three, vec![yes("U1")], "U2", Word::Approve, "2 of 3"),
            (&three, vec![yes("U1"), yes("U2")], "U2", Word::Approve, "again"),
            (&three, vec![yes("U1"), yes("U2")], "U3", Word::Approve, "approved"),
            (&three, vec![yes("U1"), yes("U2")], "U2", Word::Reject, "rejected"),
            (&three, vec![], "U3", Word::Reject, "rejected"),
            (&choices, vec![], "U1", a, "1 of 2"),
            (&choices, vec![vote(a, "U1")], "U2", b, "1 of 2"),
            (&choices, vec![vote(a, "U1")], "U2", a, "chosen"),
            // Whoever changes their mind has one vote all the same.
            (&choices, vec![vote(a, "U1")], "U1", b, "1 of 2"),
            (&choices, vec![vote(a, "U1"), vote(b, "U1")], "U2", a, "1 of 2"),
            (&choices, vec![vote(a, "U1"), vote(b, "U1")], "U2", b, "chosen"),
            (&choices, vec![vote(a, "U1"), vote(b, "U1")], "U1", a, "1 of 2"),
        ] {
            let ruling = judge(question, None, &votes, &voter(Kind::Person, id), &said(word, 5));
            assert_eq!(short(&ruling), expected, "{votes:?} {id} {word:?}");
        }
        let here = voter(Kind::Here, "");
        let ruling = judge(&three, None, &[], &here, &said(Word::Approve, 5));
        assert_eq!(short(&ruling), "approved", "whoever is on the machine needs no others");
        let one = Vote { word: Word::Approve, user_id: None };
        for (votes, expected) in
            [(vec![], "1 of 3"), (vec![one.clone()], "again"), (vec![yes("U1")], "2 of 3")]
        {
            let elsewhere = voter(Kind::Elsewhere, "");
            let ruling = judge(&three, None, &votes, &elsewhere, &said(Word::Approve, 5));
            assert_eq!(short(&ruling), expected, "all the other machines are one person: {votes:?}");
        }
    }

    #[test]
    fn only_what_is_offered_can_be_said() {
        let plain = Question::sample();
        let choices = Question { choices: vec!["a".to_owned(), "b".to_owned()], ..Question::sample() };
        for (question, word, expected) in [
            (&plain, Word::Choice(0), "not_offered"),
            (&choices, Word::Approve, "not_offered"),
            (&choices, Word::Reject, "not_offered"),
            (&choices, Word::Choice(1), "chosen"),
            (&choices, Word::Choice(2), "not_offered"),
        ] {
            let ruling = judge(question, None, &[], &voter(Kind::Person, "U1"), &said(word, 5));
            assert_eq!(short(&ruling), expected, "{word:?}");
        }
    }

    #[test]
    fn the_answer_says_who_what_when_and_why() {
        let choices = Question { choices: vec!["a".to_owned(), "b".to_owned()], ..Question::sample() };
        let said = Said { comment: Some("cheaper".to_owned()), ..said(Word::Choice(1), 7) };
        let ruling = judge(&choices, None, &[], &voter(Kind::Person, "U1"), &said);
        let expected = Answer {
            decision: Decision::Chosen,
            choice: Some("b".to_owned()),
            user_id: Some("U1".to_owned()),
            user_name: Some("u1".to_owned()),
            comment: Some("cheaper".to_owned()),
            at: Moment(7),
        };
        assert_eq!(ruling, Ruling::Decides(expected.clone()));
        let late = Refusal::Late(Answer { at: Moment(1_772_357_400_120), ..expected });
        assert_eq!(late.words(&choices), "Too late: 'b' was chosen by @u1: cheaper (2026-03-01 09:30 UTC).");
    }
}
