//! From what people do in Slack to a word: a reaction on the message, or a reply in its thread.
//!
//! Whatever is not clearly an answer is none: "approve if the tests pass" approves nothing.

use super::{Question, Word};

/// The reactions that choose by number.
const NUMBERS: [&str; 10] =
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "keycap_ten"];

/// What a reaction says, by its name without colons.
pub(crate) fn reaction(question: &Question, name: &str) -> Option<Word> {
    // A skin tone changes nothing: `+1::skin-tone-2`.
    let name = name.split("::").next().unwrap_or_default();
    if question.choices.is_empty() {
        return match name {
            "white_check_mark" | "heavy_check_mark" => Some(Word::Approve),
            "x" | "negative_squared_cross_mark" => Some(Word::Reject),
            _ => None,
        };
    }
    let index = NUMBERS.iter().position(|number| *number == name)?;
    (index < question.choices.len()).then_some(Word::Choice(index))
}

/// What a reply says, and the reason beside it. The text is as Slack sends it.
pub(crate) fn reply(question: &Question, text: &str) -> Option<(Word, Option<String>)> {
    let text = unescaped(text);
    let text = without_mention(text.trim());
    if question.choices.is_empty() { verdict(text) } else { choice(question, text).map(|word| (word, None)) }
}

fn verdict(text: &str) -> Option<(Word, Option<String>)> {
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let rest = rest
        .trim_matches(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '.' | '!' | '-' | '–' | '—'));
    match word.to_lowercase().as_str() {
        // With anything behind it, it may be a condition or a question.
        "approve" | "approved" if rest.is_empty() => Some((Word::Approve, None)),
        "reject" | "rejected" => Some((Word::Reject, (!rest.is_empty()).then(|| rest.to_owned()))),
        "" => match text {
            "✅" | "✔️" | ":white_check_mark:" | ":heavy_check_mark:" => Some((Word::Approve, None)),
            "❌" | ":x:" => Some((Word::Reject, None)),
            _ => None,
        },
        _ => None,
    }
}

fn choice(question: &Question, text: &str) -> Option<Word> {
    let same = |label: &str| label.trim().to_lowercase() == text.to_lowercase();
    if let Some(index) = question.choices.iter().position(|label| same(label)) {
        return Some(Word::Choice(index));
    }
    // Where labels are numbers, another number is not the place of one.
    let number = |text: &str| text.trim_end_matches(['.', ')']).trim().parse::<usize>().ok();
    if question.choices.iter().any(|label| number(label).is_some()) {
        return None;
    }
    let index = number(text)?.checked_sub(1)?;
    (index < question.choices.len()).then_some(Word::Choice(index))
}

/// Who answers may address the bot: `<@U0BOT> approve`.
fn without_mention(text: &str) -> &str {
    match text.strip_prefix("<@").and_then(|rest| rest.split_once('>')) {
        Some((_, rest)) => rest.trim_start_matches([' ', ':', ',']),
        None => text,
    }
}

/// Text without Slack's escapes of its three control characters.
pub(crate) fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_is_one() {
        let question = Question::sample();
        let (approve, reject) = (
            || Some((Word::Approve, None)),
            |why: Option<&str>| Some((Word::Reject, why.map(str::to_owned))),
        );
        for (text, expected) in [
            ("approve", approve()),
            (" Approved! ", approve()),
            ("<@U0BOT> approve", approve()),
            ("<@U0BOT>: APPROVE.", approve()),
            ("✅", approve()),
            (":white_check_mark:", approve()),
            ("approve if the tests pass", None),
            ("approve?", None),
            ("approver", None),
            ("I approve", None),
            ("not approve", None),
            ("disapprove", None),
            ("", None),
            ("yes", None),
            ("reject", reject(None)),
            ("Reject: too risky &amp; late", reject(Some("too risky & late"))),
            ("rejected — wait for Monday", reject(Some("wait for Monday"))),
            ("reject\nbecause\nof it", reject(Some("because\nof it"))),
            ("rejection", None),
            ("❌", reject(None)),
            ("1", None),
        ] {
            assert_eq!(reply(&question, text), expected, "{text}");
        }
    }

    #[test]
    fn a_choice_is_named_by_its_label_or_its_number() {
        let with = |labels: &[&str]| Question {
            choices: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..Question::sample()
        };
        let places = with(&["eu-west", "US East", "R&D"]);
        let sizes = with(&["8", "16", "2"]);
        for (question, text, expected) in [
            (&places, "eu-west", Some(0)),
            (&places, "us east", Some(1)),
            (&places, "r&amp;d", Some(2)),
            (&places, "<@U0BOT> EU-WEST", Some(0)),
            (&places, "2", Some(1)),
            (&places, "3.", Some(2)),
            (&places, "0", None),
            (&places, "4", None),
            (&places, "approve", None),
            (&places, "eu-west please", None),
            (&sizes, "2", Some(2)),
            (&sizes, "16", Some(1)),
            (&sizes, "1", None),
        ] {
            let expected = expected.map(|index| (Word::Choice(index), None));
            assert_eq!(reply(question, text), expected, "{text} of {:?}", question.choices);
        }
    }

    #[test]
    fn reactions_approve_reject_or_choose_by_number() {
        let plain = Question::sample();
        let choices = Question { choices: vec!["a".to_owned(), "b".to_owned()], ..Question::sample() };
        for (question, name, expected) in [
            (&plain, "white_check_mark", Some(Word::Approve)),
            (&plain, "heavy_check_mark", Some(Word::Approve)),
            (&plain, "x", Some(Word::Reject)),
            (&plain, "eyes", None),
            (&plain, "+1::skin-tone-2", None),
            (&plain, "one", None),
            (&choices, "one", Some(Word::Choice(0))),
            (&choices, "two", Some(Word::Choice(1))),
            (&choices, "three", None),
            (&choices, "white_check_mark", None),
        ] {
            assert_eq!(reaction(question, name), expected, "{name}");
        }
    }
}
