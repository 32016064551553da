//! A task as a Slack message: blocks with a colour bar, and the whole of it again as plain text.
//!
//! Everything that an agent wrote is escaped, kept from pinging anyone and cut to Slack's limits; see
//! <https://docs.slack.dev/messaging/formatting-message-text>. The header stands in the message's own blocks and the
//! rest in an attachment: without blocks of its own Slack would show `text` as the message's body, above the
//! attachment that says the same (<https://docs.slack.dev/reference/methods/chat.postMessage>).

use std::time::Duration;

use serde_json::{Value, json};

use super::text;
use crate::checkpoint::context::Level;
use crate::checkpoint::outbox::Note;
use crate::checkpoint::parse::Artifact;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::time::spoken;

/// Most that `chat.update` takes as `text`; counted in UTF-16 units, the strictest way to count.
const TEXT_MAX: usize = 4000;
/// Most that one text object takes.
const SECTION_MAX: usize = 3000;

/// How much room each text gets, in UTF-16 units after escaping. Each set adds up to less than its limit.
struct Room {
    name: usize,
    repo: usize,
    action: usize,
    steps: usize,
    error: usize,
    tail: usize,
    children: usize,
    artifacts: usize,
}

const IN_BLOCKS: Room = Room {
    name: 300,
    repo: 200,
    action: 2000,
    steps: 2800,
    error: 2800,
    tail: 2800,
    children: 2800,
    artifacts: 2800,
};
const IN_TEXT: Room = Room {
    name: 200,
    repo: 150,
    action: 550,
    steps: 500,
    error: 600,
    tail: 450,
    children: 400,
    artifacts: 500,
};
/// What labels, numbers and a context warning take at most, in UTF-16 units.
const FIXED: usize = 350;
const _: () = {
    let Room { name, repo, action, steps, error, tail, children, artifacts } = IN_TEXT;
    assert!(
        AGENT_ID_ROOM + name + repo + action + steps + error + tail + children + artifacts + FIXED
            <= TEXT_MAX
    );
    let Room { name, repo, action, steps, error, tail, children, artifacts } = IN_BLOCKS;
    assert!(name + repo + action + FIXED <= SECTION_MAX);
    assert!(steps + 100 <= SECTION_MAX && error + 100 <= SECTION_MAX && artifacts + 100 <= SECTION_MAX);
    assert!(tail + 100 <= SECTION_MAX && children + 100 <= SECTION_MAX);
};
/// An agent's id has at most 255 characters, each of which may take five units once escaped.
const AGENT_ID_ROOM: usize = 300;

/// The fields of a message that carry the task: `text`, `blocks` and `attachments`.
pub(crate) fn message(agent_id: &str, snapshot: &Snapshot) -> Value {
    let mut lead = Vec::new();
    if let Some(warning) = alert(snapshot) {
        lead.push(section(&format!("⚠️ *Context Warning*: {warning}")));
    }
    lead.push(section(&title(agent_id, snapshot, "*")));
    json!({
        "text": plain_text(agent_id, snapshot),
        "blocks": lead,
        "attachments": [{ "color": snapshot.status.colour(), "blocks": details(agent_id, snapshot) }],
    })
}

/// Puts a button under the task's facts that asks for its end; `value` names the task and proves that it is ours.
pub(crate) fn add_cancel(message: &mut Value, agent_id: &str, value: &str) {
    let plain = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
    let name = fit(&Excerpt::of(&text::plain(agent_id, false)), 200, false);
    let button = json!({
        "type": "button",
        "action_id": "task:cancel",
        "text": plain("Cancel"),
        "value": value,
        "confirm": {
            "title": plain("Cancel this task?"),
            "text": plain(&format!("{name} is told to stop.")),
            "confirm": plain("Cancel it"),
            "deny": plain("Let it go on"),
            "style": "danger",
        },
    });
    if let Some(blocks) = message["attachments"][0]["blocks"].as_array_mut() {
        blocks.push(json!({ "type": "actions", "elements": [button] }));
    }
}

/// The same without blocks, for when Slack refuses them.
pub(crate) fn plain_message(agent_id: &str, snapshot: &Snapshot) -> Value {
    json!({ "text": plain_text(agent_id, snapshot), "blocks": [], "attachments": [] })
}

/// The whole message as plain text.
fn plain_text(agent_id: &str, snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    if let Some(warning) = alert(snapshot) {
        lines.push(format!("⚠️ *Context Warning*: {warning}"));
    }
    lines.push(title(agent_id, snapshot, ""));
    lines.push(String::new());
    lines.extend(
        facts(agent_id, snapshot, &IN_TEXT).into_iter().map(|(label, value)| format!("{label}: {value}")),
    );
    lines.extend(steps(snapshot, &IN_TEXT).map(|steps| format!("Steps: {steps}")));
    lines.extend(error(snapshot, &IN_TEXT).map(|error| format!("🔴 Error: {error}")));
    if let Some(tail) = tail(snapshot, &IN_TEXT) {
        lines.push("Last output:".to_owned());
        lines.push(escape(&tail));
    }
    if !snapshot.children.is_empty() {
        lines.push("Agents:".to_owned());
        lines.push(children(snapshot, IN_TEXT.children));
    }
    if !snapshot.artifacts.is_empty() {
        lines.push("Artifacts:".to_owned());
        lines.push(artifacts(snapshot, IN_TEXT.artifacts));
    }
    lines.join("\n")
}

fn details(agent_id: &str, snapshot: &Snapshot) -> Vec<Value> {
    let facts = facts(agent_id, snapshot, &IN_BLOCKS);
    let facts: Vec<String> = facts.into_iter().map(|(label, value)| format!("*{label}:* {value}")).collect();
    let mut blocks = vec![section(&facts.join("\n"))];
    blocks.extend(steps(snapshot, &IN_BLOCKS).map(|steps| section(&format!("*Steps:* {steps}"))));
    blocks.extend(error(snapshot, &IN_BLOCKS).map(|error| section(&format!("🔴 *Error:* {error}"))));
    blocks.extend(tail(snapshot, &IN_BLOCKS).map(|tail| preformatted(&tail)));
    if !snapshot.children.is_empty() {
        blocks.push(section(&format!("*Agents:*\n{}", children(snapshot, IN_BLOCKS.children))));
    }
    if !snapshot.artifacts.is_empty() {
        blocks.push(section(&format!("*Artifacts:*\n{}", artifacts(snapshot, IN_BLOCKS.artifacts))));
    }
    blocks
}

/// Text that is shown as it is: nothing in it can become a mention, a link or the end of the block
/// (<https://docs.slack.dev/reference/block-kit/blocks/rich-text-block>).
pub(super) fn preformatted(text: &str) -> Value {
    let element = json!({ "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": text }] });
    json!({ "type": "rich_text", "elements": [element] })
}

/// `verbatim` keeps Slack from turning bare `@here` and `#names` into mentions.
pub(super) fn section(text: &str) -> Value {
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } })
}

fn title(agent_id: &str, snapshot: &Snapshot, bold: &str) -> String {
    let id = code(agent_id, AGENT_ID_ROOM);
    let status = snapshot.status;
    format!("{} Agent {id} – {bold}{}{bold}", status.emoji(), status.name().to_uppercase())
}

/// An agent's id in a code span, which a backtick would end.
pub(super) fn code(agent_id: &str, room: usize) -> String {
    format!("`{}`", fit(&Excerpt::of(&text::plain(agent_id, false).replace('`', "'")), room, false))
}

fn alert(snapshot: &Snapshot) -> Option<String> {
    (snapshot.context == Level::Alert).then(|| {
        let tokens = snapshot.tokens.unwrap_or(0);
        text::context_warning(snapshot.context_percent(), tokens, snapshot.context_limit, Level::Alert)
    })
}

/// A task without a name goes by its agent's.
fn facts(agent_id: &str, snapshot: &Snapshot, room: &Room) -> Vec<(&'static str, String)> {
    let short = |text: &str, max| fit(&Excerpt::of(text), max, false);
    let mut facts = Vec::new();
    facts.push(("Task", short(snapshot.name.as_deref().unwrap_or(agent_id), room.name)));
    facts.push(("Progress", text::progress_bar(snapshot.progress)));
    facts.extend(snapshot.repo.as_ref().map(|repo| ("Repo", short(repo, room.repo))));
    facts.push(("Context", text::context(snapshot)));
    facts.extend(snapshot.action.as_ref().map(|action| ("Last Action", fit(action, room.action, false))));
    facts.push(("Elapsed", spoken(Duration::from_millis(snapshot.elapsed_ms))));
    facts
}

/// The latest actions; a single one is the last action already.
fn steps(snapshot: &Snapshot, room: &Room) -> Option<String> {
    let each = room.steps / snapshot.steps.len().max(1) - ARROW.len();
    let steps: Vec<String> = snapshot.steps.iter().map(|step| fit(&Excerpt::of(step), each, false)).collect();
    (steps.len() > 1).then(|| steps.join(ARROW))
}

const ARROW: &str = " → ";

fn error(snapshot: &Snapshot, room: &Room) -> Option<String> {
    snapshot.error.as_ref().map(|error| fit(error, room.error, true))
}

/// The end of a command's output, with a note in front of how much is not here.
fn tail(snapshot: &Snapshot, room: &Room) -> Option<String> {
    let kept = snapshot.tail.as_ref()?;
    let clean = text::plain(&kept.text, true);
    // Escaped, one character may take five units and an invisible space; the note takes at most fifty.
    let shown = Excerpt::end(&clean, room.tail - 50);
    let mut shown = shown;
    while units(&escape(&shown.text)) > room.tail - 50 {
        let omitted = shown.omitted;
        shown = Excerpt::end(&shown.text, units(&shown.text) * 3 / 4);
        shown.omitted += omitted;
    }
    let omitted = kept.omitted + shown.omitted;
    let note =
        if omitted > 0 { format!("(+{} characters) …\n", text::thousands(omitted)) } else { String::new() };
    let shown = shown.text.trim_end();
    (!shown.is_empty()).then(|| format!("{note}{shown}"))
}

/// One bullet a task that was started from this one, the newest first to be kept.
fn children(snapshot: &Snapshot, room: usize) -> String {
    let mut left = room;
    let mut bullets = Vec::new();
    for child in snapshot.children.iter().rev() {
        let id = code(&child.agent_id, 150);
        let status = child.status;
        let bullet = format!("• {} {id} – {} {}%", status.emoji(), status.name(), child.progress);
        let Some(rest) = left.checked_sub(units(&bullet) + 1) else { break };
        left = rest;
        bullets.push(bullet);
    }
    bullets.reverse();
    bullets.join("\n")
}

/// One line in a task's thread about a task that was started from it, or about itself when it goes on elsewhere;
/// `permalink` leads to that task's card.
pub(crate) fn note(note: &Note, permalink: Option<&str>) -> Value {
    let id = code(&note.agent_id, AGENT_ID_ROOM);
    let status = note.status;
    if note.given_up.is_some() {
        let place = permalink.map_or_else(|| "another thread".to_owned(), |url| format!("<{}>", link(url)));
        return json!({ "text": format!("➡️ Agent {id} goes on in {place}") });
    }
    let whither = permalink.map_or_else(String::new, |url| format!(" · <{}>", link(url)));
    let elapsed = match note.elapsed_ms {
        0 => String::new(),
        elapsed => format!(" after {}", spoken(Duration::from_millis(elapsed))),
    };
    let text = format!("{} Agent {id} – {}{elapsed}{whither}", status.emoji(), status.name().to_uppercase());
    json!({ "text": text })
}

/// One bullet an artifact, as many as there is room for, the newest first to be kept.
fn artifacts(snapshot: &Snapshot, room: usize) -> String {
    let mut left = room;
    let mut bullets = Vec::new();
    for artifact in snapshot.artifacts.iter().rev() {
        let bullet = bullet(artifact);
        let Some(rest) = left.checked_sub(units(&bullet) + 1) else { break };
        left = rest;
        bullets.push(bullet);
    }
    bullets.reverse();
    let missing = snapshot.artifact_count.saturating_sub(bullets.len() as u64);
    if missing > 0 {
        bullets.insert(0, format!("• {} more", text::thousands(missing)));
    }
    bullets.join("\n")
}

/// A link always shows where it leads: a name stands beside it, never in its place.
fn bullet(artifact: &Artifact) -> String {
    let name = artifact.name.as_ref().map(|name| format!("{}: ", fit(&Excerpt::of(name), 120, false)));
    let name = name.unwrap_or_default();
    let url = link(&artifact.target);
    // A link that is cut leads nowhere, so an overlong one is text.
    if artifact.is_link() && units(&url) <= 600 {
        format!("• {name}<{url}>")
    } else {
        format!("• {name}{}", fit(&Excerpt::of(&artifact.target), 600, false))
    }
}

/// A URL that ends its link only where we end it, and pings nobody.
fn link(url: &str) -> String {
    let mut link = String::with_capacity(url.len());
    for (at, c) in url.char_indices() {
        match c {
            '&' => link.push_str("&amp;"),
            '<' => link.push_str("%3C"),
            '>' => link.push_str("%3E"),
            '|' => link.push_str("%7C"),
            '`' => link.push_str("%60"),
            c if c.is_control() || c.is_whitespace() => {}
            // The same letter to whoever follows the link, in its path as well as in its host.
            c if link.ends_with('@') && is_mention(&url[at..]) => {
                link.push_str(&format!("%{:02X}", u32::from(c)));
            }
            c => link.push(c),
        }
    }
    link
}

/// Whether the text behind an `@` would call everyone.
fn is_mention(text: &str) -> bool {
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    ["here", "channel", "everyone"].into_iter().any(begins)
}

pub(super) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Escapes as much of a text as there is room for, and says how much was cut.
fn fit(excerpt: &Excerpt, room: usize, lines: bool) -> String {
    let clean = text::plain(&excerpt.text, lines);
    let whole = escape(&clean);
    if excerpt.omitted == 0 && units(&whole) <= room {
        return whole;
    }
    // `… (+18,446,744,073,709,551,615 characters)` is the longest note.
    let mut left = room.saturating_sub(45);
    let mut fitted = String::new();
    let mut kept = 0_u64;
    let mut previous = None;
    for c in clean.chars() {
        let piece = escaped(c, previous);
        let Some(rest) = left.checked_sub(units(&piece)) else { break };
        left = rest;
        fitted.push_str(&piece);
        kept += 1;
        previous = Some(c);
    }
    let cut = excerpt.omitted + (clean.chars().count() as u64 - kept);
    format!("{fitted}… (+{} characters)", text::thousands(cut))
}

/// Escapes Slack's three control characters and defuses mentions.
pub(crate) fn escape(text: &str) -> String {
    let mut previous = None;
    text.chars()
        .map(|c| {
            let piece = escaped(c, previous);
            previous = Some(c);
            piece
        })
        .collect()
}

/// A character behind an `@` gets an invisible space in front: no spelling of `@here`, `@channel` or `@everyone`
/// survives, whatever a client makes of it.
fn escaped(c: char, previous: Option<char>) -> String {
    let piece = match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        c => c.to_string(),
    };
    if previous == Some('@') && matches!(c, 'h' | 'c' | 'e' | 'H' | 'C' | 'E') {
        format!("\u{200b}{piece}")
    } else {
        piece
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::snapshot::ChildTask;
    use crate::checkpoint::status::Status;

    fn full() -> Snapshot {
        let mut snapshot = Snapshot::blank();
        snapshot.name = Some("Deploy Feature X".to_owned());
        snapshot.repo = Some("agent-factory".to_owned());
        snapshot.action = Some(Excerpt::of("Starting deployment"));
        snapshot.push_step("Starting deployment");
        snapshot
    }

    #[test]
    fn the_text_reads_as_promised() {
        assert_eq!(
            message("agent-id-123", &full())["text"],
            "🚀 Agent `agent-id-123` – STARTING\n\nTask: Deploy Feature X\nProgress: ░░░░░░░░░░ 0%\n\
             Repo: agent-factory\nContext: 0 / 200,000 (0.0%)\nLast Action: Starting deployment\nElapsed: 0s"
        );
    }

    #[test]
    fn everything_known_is_shown() {
        let mut snapshot = full();
        snapshot.status = Status::Error;
        snapshot.tokens = Some(171_000);
        snapshot.context = Level::Alert;
        snapshot.push_step("Second");
        snapshot.error = Some(Excerpt::of("exit code 1\nline two"));
        snapshot.push_artifacts(&[
            Artifact { name: Some("PR".to_owned()), target: "https://example.com/1?a=b&c".to_owned() },
            Artifact { name: None, target: "out/report.txt".to_owned() },
        ]);
        let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
        for expected in [
            "⚠️ *Context Warning*: 85.5% of the context",
            "Context: 171,000 / 200,000 (85.5%) ⚠️",
            "Steps: Starting deployment → Second",
            "🔴 Error: exit code 1\nline two",
            "Artifacts:\n• PR: <https://example.com/1?a=b&amp;c>\n• out/report.txt",
        ] {
            assert!(text.contains(expected), "{expected:?} is missing in {text}");
        }
        let sent = message("a", &snapshot);
        assert_eq!(sent["attachments"][0]["color"], "#ff0000");
        assert_eq!(sent["attachments"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn says_how_much_was_cut() {
        let mut snapshot = full();
        snapshot.error = Some(Excerpt::of(&"e".repeat(10_000)));
        let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
        let shown = text.chars().filter(|c| *c == 'e').count();
        let noted =
            text.split("(+").nth(1).and_then(|rest| rest.split(' ').next()).expect("a note").replace(',', "");
        let labels = message("a", &full())["text"].as_str().expect("text").matches('e').count()
            + "characters".matches('e').count();
        assert_eq!(shown - labels + noted.parse::<usize>().expect("a number"), 10_000);
    }

    /// Calls `check` for every text that Slack would parse.
    fn each_text(value: &Value, check: &mut dyn FnMut(&Value, &str)) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(text)) = map.get("text") {
                    check(value, text);
                }
                map.values().for_each(|value| each_text(value, check));
            }
            Value::Array(values) => values.iter().for_each(|value| each_text(value, check)),
            _ => {}
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        let bits = prop_oneof![
            Just("<!channel>".to_owned()),
            Just("@here".to_owned()),
            Just("<@U012AB3CD>".to_owned()),
            Just("<https://evil.example|https://good.example>".to_owned()),
            Just("`".to_owned()),
            Just("&&&&&&&&".to_owned()),
            Just("\u{202e}\u{1b}[31m".to_owned()),
            "\\PC{0,40}",
            ".{0,40}",
        ];
        (proptest::collection::vec(bits, 0..40), 0_usize..200)
            .prop_map(|(bits, times)| bits.concat().repeat(times))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_text_stays_inside_slacks_limits_and_pings_nobody(
            id in "[^\u{0}]{1,255}", action in hostile(), error in hostile(), name in hostile(), target in hostile(),
            tokens in any::<u64>(), times in 0_usize..30,
        ) {
            let mut snapshot = Snapshot::blank();
            snapshot.name = Some(name.clone());
            snapshot.repo = Some(name.clone());
            snapshot.tokens = Some(tokens);
            snapshot.context = Level::Alert;
            snapshot.action = Some(Excerpt::of(&action));
            snapshot.error = Some(Excerpt::of(&error));
            snapshot.tail = Some(Excerpt::end_of(&error));
            snapshot.children = vec![ChildTask { agent_id: id.clone(), status: Status::Working, progress: 7 }; times];
            for _ in 0..times {
                snapshot.push_step(&action);
                snapshot.push_artifacts(&[
                    Artifact { name: Some(name.clone()), target: target.clone() },
                    Artifact { name: Some(name.clone()), target: format!("https://example.com/{target}") },
                ]);
            }
            let sent = message(&id, &snapshot);
            prop_assert!(units(sent["text"].as_str().expect("text")) <= TEXT_MAX);
            let mut checked = 0;
            each_text(&sent, &mut |object, text| {
                checked += 1;
                let max = if object.get("type").is_some() { SECTION_MAX } else { TEXT_MAX };
                assert!((1..=max).contains(&units(text)), "{} units", units(text));
                if object["type"] == "text" {
                    // Literal: Slack parses nothing in it.
                    return;
                }
                for (at, _) in text.match_indices('<') {
                    let rest = &text[at + 1..];
                    let inside = rest.split('>').next().expect("split gives at least one piece");
                    assert!(inside.starts_with("http") && !inside.contains('|'), "a forged token: <{inside}>");
                }
                let lower = text.to_lowercase();
                for ping in ["@here", "@channel", "@everyone"] {
                    assert!(!lower.contains(ping), "{ping} in {text}");
                }
            });
            prop_assert!(checked >= 3);
        }
    }

    #[test]
    fn every_status_has_its_sign_its_name_and_its_colour() {
        for (status, sign, colour) in [
            (Status::Starting, "🚀 Agent `a` – STARTING", "#0099ff"),
            (Status::Planning, "🧠 Agent `a` – PLANNING", "#9933ff"),
            (Status::Working, "⚙️ Agent `a` – WORKING", "#00cc00"),
            (Status::Checkpoint, "📍 Agent `a` – CHECKPOINT", "#ffcc00"),
            (Status::WaitingApproval, "⏳ Agent `a` – WAITING_APPROVAL", "#ff9900"),
            (Status::Blocked, "🚧 Agent `a` – BLOCKED", "#ff6600"),
            (Status::Error, "❌ Agent `a` – ERROR", "#ff0000"),
            (Status::Complete, "✅ Agent `a` – COMPLETE", "#00cc00"),
            (Status::Cancelled, "🛑 Agent `a` – CANCELLED", "#808080"),
        ] {
            let sent = message("a", &Snapshot { status, ..full() });
            let text = sent["text"].as_str().expect("text");
            assert_eq!(
                (text.lines().next(), sent["attachments"][0]["color"].as_str()),
                (Some(sign), Some(colour))
            );
        }
    }

    #[test]
    fn the_blocks_say_what_the_text_says() {
        let mrkdwn = |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } });
        assert_eq!(
            message("deploy", &full()),
            json!({
                "text": "🚀 Agent `deploy` – STARTING\n\nTask: Deploy Feature X\nProgress: ░░░░░░░░░░ 0%\n\
                         Repo: agent-factory\nContext: 0 / 200,000 (0.0%)\nLast Action: Starting deployment\nElapsed: 0s",
                "blocks": [mrkdwn("🚀 Agent `deploy` – *STARTING*")],
                "attachments": [{
                    "color": "#0099ff",
                    "blocks": [mrkdwn(
                        "*Task:* Deploy Feature X\n*Progress:* ░░░░░░░░░░ 0%\n*Repo:* agent-factory\n\
                         *Context:* 0 / 200,000 (0.0%)\n*Last Action:* Starting deployment\n*Elapsed:* 0s"
                    )],
                }],
            })
        );
        let plain = plain_message("deploy", &full());
        assert_eq!(plain["text"], message("deploy", &full())["text"]);
        assert_eq!(
            (&plain["blocks"], &plain["attachments"]),
            (&json!([]), &json!([])),
            "an edit removes the old ones"
        );
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        assert_eq!(
            message("a", &Snapshot::blank())["text"],
            "🚀 Agent `a` – STARTING\n\nTask: a\nProgress: ░░░░░░░░░░ 0%\nContext: 0 / 200,000 (0.0%)\nElapsed: 0s"
        );
    }

    #[test]
    fn a_warning_has_a_sign_and_an_alert_leads_the_message() {
        for (context, leads, sign) in
            [(Level::Calm, false, false), (Level::Warn, false, true), (Level::Alert, true, true)]
        {
            let sent = message("a", &Snapshot { tokens: Some(171_000), context, ..full() });
            let text = sent["text"].as_str().expect("text");
            assert_eq!(text.starts_with("⚠️ *Context Warning*: 85.5% of the context"), leads, "{text}");
            assert_eq!(text.contains("Context: 171,000 / 200,000 (85.5%) ⚠️\n"), sign, "{text}");
            assert_eq!(sent["blocks"].as_array().map(Vec::len), Some(if leads { 2 } else { 1 }));
            let first = sent["blocks"][0]["text"]["text"].as_str().expect("text");
            assert_eq!(first.starts_with("⚠️ *Context Warning*: "), leads);
        }
    }

    #[test]
    fn artifacts_are_links_where_they_can_be_and_the_rest_is_counted() {
        let long = format!("https://example.com/{}", "x".repeat(700));
        for (name, target, shown) in [
            (None, "https://example.com/a?b=c&d", "• <https://example.com/a?b=c&amp;d>"),
            (Some("a <b>"), "https://example.com", "• a &lt;b&gt;: <https://example.com>"),
            (None, "https://example.com/a|b`c", "• <https://example.com/a%7Cb%60c>"),
            (None, "https://example.com/@Here?to=@channel", "• <https://example.com/@%48ere?to=@%63hannel>"),
            (None, "https://ana@everyone.example/@eve", "• <https://ana@%65veryone.example/@eve>"),
            (None, "s3://bucket/key", "• s3://bucket/key"),
            (None, "out/<report>.txt", "• out/&lt;report&gt;.txt"),
            (Some("log"), "javascript:alert(1)", "• log: javascript:alert(1)"),
        ] {
            let artifact = Artifact { name: name.map(str::to_owned), target: target.to_owned() };
            assert_eq!(bullet(&artifact), shown);
        }
        let cut = bullet(&Artifact { name: None, target: long });
        assert!(cut.starts_with("• https://example.com/xxx") && cut.ends_with(" characters)"), "{cut}");

        let mut snapshot = full();
        for n in 0..1500 {
            snapshot.push_artifacts(&[Artifact { name: None, target: format!("{n}.txt") }]);
        }
        let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
        let expected: Vec<String> = (1490..1500).map(|n| format!("• {n}.txt")).collect();
        assert!(text.ends_with(&format!("Artifacts:\n• 1,490 more\n{}", expected.join("\n"))), "{text}");
    }
}
