//! A question as a Slack message: all that is to be approved, who may answer and until when, and the buttons; once it is
//! decided the same without buttons, but with who, when and what.
//!
//! Nothing of it is cut: what is too long for one block is split, and what is too long for a message follows as a file.

mod content;

use serde_json::{Value, json};

use super::mrkdwn::{code, escape, section, units};
use super::text;
use crate::checkpoint::outbox::Asked;
use crate::checkpoint::question::{Answer, Decision, Question};
use crate::checkpoint::time::Moment;
pub(crate) use content::overflows;
use content::{content, visible};

/// Most that `chat.update` takes as `text`, less room for what stands around.
const TEXT: usize = 3000;
/// How much of an answer's comment is shown.
const COMMENT: usize = 2000;
/// Most that a button's label takes.
const LABEL: usize = 75;

/// How a person can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// An app: by buttons.
    Buttons,
    /// A webhook, or a Slack that refuses the blocks: by the command line alone.
    Terminal,
}

/// The fields of a message that put the question: `text`, `blocks` and `attachments`.
pub(crate) fn message(asked: &Asked, means: Means) -> Value {
    let question = &asked.question;
    let mut blocks = vec![section(&title(question))];
    let (content, rest) = content(question);
    blocks.extend(content);
    if rest > 0 {
        let rest = text::thousands(rest as u64);
        blocks.push(section(&format!(
            "⚠️ There is more, {rest} characters: all of it is in `question.txt` in this thread."
        )));
    }
    blocks.push(section(&facts(asked).join("\n")));
    match &asked.answer {
        Some(answer) => blocks.push(section(&verdict(answer))),
        None if means == Means::Buttons => blocks.push(buttons(question)),
        None => {}
    }
    if asked.answer.is_none() {
        blocks.push(hint(&ways(question, means)));
    }
    json!({ "text": plain_text(asked, means), "blocks": blocks, "attachments": [] })
}

/// The same without blocks, for when Slack refuses them.
pub(crate) fn plain_message(asked: &Asked) -> Value {
    json!({ "text": plain_text(asked, Means::Terminal), "blocks": [], "attachments": [] })
}

/// What a title ends with.
const ASKS: [&str; 2] = ["asks for approval", "asks for a choice"];

/// Whether this is the text of a message that puts a question, or of one that is decided meanwhile.
pub(crate) fn puts_question(text: &str) -> bool {
    // Slack may spell the sign in front in letters.
    let title = text.lines().next().unwrap_or_default().trim_end();
    ASKS.iter().any(|what| title.ends_with(&format!("` {what}")))
}

fn title(question: &Question) -> String {
    let what = ASKS[usize::from(!question.choices.is_empty())];
    if question.launch.is_some() {
        return format!("⏳ The start of agent {} {what}", code(&question.agent_id, 300));
    }
    format!("⏳ Agent {} {what}", code(&question.agent_id, 300))
}

/// Where it is asked, who may answer and until when.
fn facts(asked: &Asked) -> Vec<String> {
    let question = &asked.question;
    let at = &question.at;
    let known =
        [("Repo", &at.repo), ("Branch", &at.branch), ("Directory", &at.directory), ("Host", &at.host)];
    let known = known.into_iter().filter_map(|(label, value)| Some((label, value.as_ref()?)));
    let mut lines: Vec<String> =
        known.map(|(label, value)| format!("*{label}:* {}", clipped(value, 300))).collect();
    if let Some(launch) = &question.launch {
        let who =
            launch.user_id.as_ref().filter(|id| is_user_id(id)).map(|id| format!(", wanted by <@{id}>"));
        lines.insert(0, format!("*Kind:* {}{}", clipped(&launch.kind, 50), who.unwrap_or_default()));
    }
    if asked.answer.is_none() {
        let who = if question.approvers.is_empty() {
            "anyone here".to_owned()
        } else {
            let names: Vec<String> =
                question.approvers.iter().take(50).map(|id| format!("<@{id}>")).collect();
            names.join(", ")
        };
        let quorum = match question.quorum {
            0 | 1 => String::new(),
            quorum => format!(", {quorum} have to agree"),
        };
        lines.push(format!("*Who may answer:* {who}{quorum}, until {}", date(question.expires_at)));
    }
    let voters: Vec<String> =
        asked.votes.iter().filter_map(|vote| Some(format!("<@{}>", vote.user_id.as_ref()?))).collect();
    if !voters.is_empty() && asked.answer.is_none() {
        lines.push(format!("*Answered so far:* {}", voters.join(", ")));
    }
    lines.push(format!("*Request:* `{}`", question.id));
    lines
}

/// What was decided, by whom and when.
fn verdict(answer: &Answer) -> String {
    let (sign, what) = match answer.decision {
        Decision::Approved => ("✅", "Approved".to_owned()),
        Decision::Rejected => ("❌", "Rejected".to_owned()),
        Decision::Chosen => {
            ("✅", format!("Chosen: {}", clipped(answer.choice.as_deref().unwrap_or_default(), 400)))
        }
        Decision::TimedOut => ("⌛", "Nobody answered in time".to_owned()),
        Decision::Withdrawn => ("🚫", "Withdrawn".to_owned()),
    };
    let who = match (&answer.user_id, &answer.user_name) {
        (Some(id), _) if is_user_id(id) => format!(" by <@{id}>"),
        (_, Some(name)) => format!(" by {}", clipped(name, 200)),
        _ => String::new(),
    };
    let comment = answer
        .comment
        .as_ref()
        .map_or_else(String::new, |comment| format!(": {}", clipped(comment, COMMENT)));
    format!("{sign} *{what}*{who}, {}{comment}", date(answer.at))
}

fn is_user_id(id: &str) -> bool {
    id.starts_with(['U', 'W']) && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// A moment in the reader's own time zone (<https://docs.slack.dev/messaging/formatting-message-text>).
fn date(at: Moment) -> String {
    let plain = at.rfc3339();
    let plain = plain.get(..16).unwrap_or_default().replace('T', " ");
    format!("<!date^{}^{{date_short_pretty}} {{time}}|{plain} UTC>", at.0.div_euclid(1000))
}

fn clipped(text: &str, room: usize) -> String {
    let clean = text::plain(text, false);
    let short: String = clean.chars().take(room).collect();
    let more = if short.len() < clean.len() { "…" } else { "" };
    format!("{}{more}", escape(&short))
}

/// The buttons. Their value names the question and proves that it is ours.
fn buttons(question: &Question) -> Value {
    let value = format!("{}:{}", question.id, question.nonce);
    let button = |action: &str, label: &str, style: Option<&str>| {
        let label: String = label.chars().take(LABEL).collect();
        let mut button = json!({
            "type": "button",
            "action_id": action,
            "text": { "type": "plain_text", "text": label, "emoji": false },
            "value": value,
        });
        if let Some(style) = style {
            button["style"] = json!(style);
        }
        button
    };
    let elements: Vec<Value> = if question.choices.is_empty() {
        vec![
            button("question:approve", "Approve", Some("primary")),
            button("question:reject", "Reject", Some("danger")),
        ]
    } else {
        let each = question.choices.iter().enumerate();
        each.map(|(n, label)| button(&format!("question:choice:{n}"), &text::plain(label, false), None))
            .collect()
    };
    json!({ "type": "actions", "block_id": format!("question:{}", question.id), "elements": elements })
}

/// The other ways to answer.
fn ways(question: &Question, means: Means) -> String {
    let choices = || {
        let each = question.choices.iter().enumerate();
        each.map(|(n, label)| format!("{}. {}", n + 1, clipped(label, LABEL))).collect::<Vec<_>>().join(", ")
    };
    let at_terminal = if question.choices.is_empty() {
        format!("run `agent-checkpoint answer {} --approve` or `--reject`", question.id)
    } else {
        format!("run `agent-checkpoint answer {} --choice LABEL`", question.id)
    };
    let in_slack = match (means, question.polled, question.choices.is_empty()) {
        (Means::Terminal, false, true) | (Means::Buttons, false, _) => String::new(),
        (Means::Terminal, false, false) => format!("The choices: {}. ", choices()),
        (_, true, true) => {
            "React with :white_check_mark: or :x:, or reply `approve` or `reject REASON`. ".to_owned()
        }
        (_, true, false) => format!("React or reply with a number: {}. ", choices()),
    };
    let otherwise = if means == Means::Buttons || question.polled { "Otherwise " } else { "To answer, " };
    format!("{in_slack}{otherwise}{at_terminal}.")
}

fn hint(text: &str) -> Value {
    json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": text, "verbatim": true }] })
}

/// The message as plain text: for notifications and screen readers, and where there are no blocks.
fn plain_text(asked: &Asked, means: Means) -> String {
    let question = &asked.question;
    let mut lines = vec![title(question), String::new()];
    let all = question.whole();
    let text: String = visible(&all).chars().take(TEXT / 2).collect();
    let more = visible(&all).chars().count() - text.chars().count();
    let more =
        if more > 0 { format!("… (+{} characters)", text::thousands(more as u64)) } else { String::new() };
    // Escaped, one character may take five units.
    let mut escaped = escape(&text);
    if units(&escaped) > TEXT {
        escaped = clipped(&text, TEXT / 6);
    }
    lines.push(format!("{escaped}{more}"));
    lines.push(String::new());
    lines.push(match &asked.answer {
        Some(answer) => {
            let words = clipped(&answer.words(), 500);
            let sign =
                if matches!(answer.decision, Decision::Approved | Decision::Chosen) { "✅" } else { "❌" };
            format!("{sign} {words}")
        }
        None => ways(question, means),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::question::{Vote, Whereabouts, Word};
    use content::{PIECE, PIECES};

    fn asked(question: Question) -> Asked {
        Asked { question, votes: Vec::new(), answer: None, message: None }
    }

    fn blocks(message: &Value) -> &Vec<Value> {
        message["blocks"].as_array().expect("blocks")
    }

    fn actions(message: &Value) -> Option<&Value> {
        blocks(message).iter().find(|block| block["type"] == "actions")
    }

    /// Everything that a message shows in its blocks, one after the other.
    fn shown(message: &Value) -> String {
        let text = |block: &Value| match block["type"].as_str() {
            Some("rich_text") => block["elements"][0]["elements"][0]["text"].as_str().map(str::to_owned),
            _ => block["text"]["text"].as_str().map(str::to_owned),
        };
        blocks(message).iter().filter_map(text).collect()
    }

    #[test]
    fn a_question_is_known_by_its_text_whatever_became_of_it() {
        let choices = Question { choices: vec!["a".to_owned()], ..Question::sample() };
        for question in [Question::sample(), choices] {
            let open = asked(question);
            let answer = Some(Answer::bare(Decision::Approved, Moment(1)));
            let done = Asked { answer, ..open.clone() };
            for message in
                [message(&open, Means::Buttons), message(&done, Means::Buttons), plain_message(&open)]
            {
                let text = message["text"].as_str().expect("text");
                assert!(puts_question(text), "{text}");
                assert!(puts_question(&text.replace('⏳', ":hourglass_flowing_sand:")), "{text}");
            }
        }
        assert!(!puts_question("⏳ Agent `bot` – WAITING_APPROVAL\n\nLast Action: `it` asks for approval"));
    }

    #[test]
    fn a_question_has_buttons_until_it_is_decided() {
        let question = Question::sample();
        let (id, nonce) = (question.id, question.nonce.clone());
        let mut asked = asked(question);
        let open = message(&asked, Means::Buttons);
        let elements = actions(&open).expect("buttons")["elements"].clone();
        let value = format!("{id}:{nonce}");
        let expected: Vec<(Value, Value)> =
            ["question:approve", "question:reject"].map(|action| (json!(action), json!(value))).to_vec();
        let found: Vec<(Value, Value)> = elements
            .as_array()
            .expect("buttons")
            .iter()
            .map(|button| (button["action_id"].clone(), button["value"].clone()))
            .collect();
        assert_eq!(found, expected);
        assert!(actions(&message(&asked, Means::Terminal)).is_none());
        asked.answer = Some(Answer {
            user_id: Some("U1".to_owned()),
            user_name: Some("maria".to_owned()),
            comment: Some("too <risky>".to_owned()),
            ..Answer::bare(Decision::Rejected, Moment(1_772_357_400_120))
        });
        let decided = message(&asked, Means::Buttons);
        assert!(actions(&decided).is_none());
        assert!(!decided.to_string().contains(&nonce), "{decided}");
        let words = "❌ *Rejected* by <@U1>, <!date^1772357400^{date_short_pretty} {time}|2026-03-01 09:30 UTC>: too &lt;risky&gt;";
        assert!(shown(&decided).ends_with(words), "{}", shown(&decided));
        assert!(
            decided["text"].as_str().expect("text").ends_with("❌ rejected by @maria: too &lt;risky&gt;")
        );
    }

    #[test]
    fn each_choice_is_a_button() {
        let choices = ["eu-west".to_owned(), "us <east>".to_owned()].to_vec();
        let open = message(&asked(Question { choices, ..Question::sample() }), Means::Buttons);
        let elements = actions(&open).expect("buttons")["elements"].clone();
        let labels: Vec<&Value> =
            elements.as_array().expect("buttons").iter().map(|b| &b["text"]["text"]).collect();
        assert_eq!(labels, ["eu-west", "us <east>"]);
        assert_eq!(elements[1]["action_id"], "question:choice:1");
    }

    #[test]
    fn nothing_of_what_is_approved_is_cut() {
        let command = format!("run {}", "x & y ".repeat(3000));
        let details: String = (0..2000).map(|n| format!("line {n} <b> of a long plan\n")).collect();
        let question =
            Question { command: Some(command.clone()), details: Some(details.clone()), ..Question::sample() };
        assert!(!overflows(&question));
        let sent = message(&asked(question), Means::Buttons);
        let all = shown(&sent);
        assert!(all.contains(&command));
        assert!(all.contains(escape(&details).trim_end()));
        assert!(blocks(&sent).len() <= 50);
        for block in blocks(&sent) {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            assert!(units(text) <= 3000, "{}", units(text));
        }
        assert!(units(sent["text"].as_str().expect("text")) <= 4000);
    }

    #[test]
    fn what_has_no_room_is_counted_and_the_command_goes_first() {
        let question = Question {
            command: Some("rm -rf /srv".to_owned()),
            details: Some("y".repeat(200_000)),
            ..Question::sample()
        };
        assert!(overflows(&question));
        let sent = message(&asked(question.clone()), Means::Buttons);
        assert!(blocks(&sent).len() <= 50, "{}", blocks(&sent).len());
        assert!(shown(&sent).contains("rm -rf /srv"));
        let hidden = 200_000 - (PIECES - 2) * PIECE;
        let words = format!("There is more, {} characters", text::thousands(hidden as u64));
        assert!(shown(&sent).contains(&words), "{words}");
        // Nor has the question itself room to hide it.
        let question = Question { text: "x".repeat(200_000), ..question };
        let sent = message(&asked(question), Means::Buttons);
        assert!(blocks(&sent).len() <= 50, "{}", blocks(&sent).len());
        assert!(shown(&sent).contains("rm -rf /srv"));
    }

    #[test]
    fn nothing_invisible_is_approved() {
        let command = "echo hi\t\u{1b}[8mrm -rf /\u{1b}[0m \u{202e}evil\nnext\u{200b} a\u{3164}b";
        let sent = message(
            &asked(Question { command: Some(command.to_owned()), ..Question::sample() }),
            Means::Buttons,
        );
        assert!(
            shown(&sent)
                .contains("echo hi\\t\\u{1b}[8mrm -rf /\\u{1b}[0m \\u{202e}evil\nnext\\u{200b} a\\u{3164}b"),
            "{}",
            shown(&sent)
        );
    }

    #[test]
    fn the_asker_pings_only_the_named_approvers() {
        let question = Question {
            text: "@here <!channel> <@U666>".to_owned(),
            approvers: vec!["U1".to_owned(), "W2".to_owned()],
            quorum: 2,
            at: Whereabouts { branch: Some("<@U666>".to_owned()), ..Whereabouts::default() },
            ..Question::sample()
        };
        let mut asked = asked(question);
        asked.votes = vec![Vote { word: Word::Approve, user_id: Some("U1".to_owned()) }];
        let sent = message(&asked, Means::Buttons).to_string();
        assert!(sent.contains("*Who may answer:* <@U1>, <@W2>, 2 have to agree, until"), "{sent}");
        assert!(sent.contains("*Answered so far:* <@U1>"), "{sent}");
        assert!(
            !sent.contains("<@U666>") && !sent.contains("<!channel>") && !sent.contains("@here"),
            "{sent}"
        );
    }

    #[test]
    fn a_webhook_says_how_to_answer() {
        let question = Question::sample();
        let id = question.id;
        let sent = message(&asked(question), Means::Terminal);
        let words = format!("To answer, run `agent-checkpoint answer {id} --approve` or `--reject`.");
        assert!(sent["text"].as_str().expect("text").ends_with(&words), "{sent}");
        assert_eq!(plain_message(&asked(Question::sample()))["blocks"], json!([]));
    }
}
