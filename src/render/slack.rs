//! A task as a Slack message: blocks with a colour bar, and the whole of it again as plain text.
//!
//! Everything that an agent wrote is escaped, kept from pinging anyone and cut to Slack's limits; see
//! <https://docs.slack.dev/messaging/formatting-message-text>. The header stands in the message's own blocks and the
//! rest in an attachment: without blocks of its own Slack would show `text` as the message's body, above the
//! attachment that says the same (<https://docs.slack.dev/reference/methods/chat.postMessage>).

use std::time::Duration;

use serde_json::{Value, json};

use super::mrkdwn::{code, escape, fit, link, preformatted, section, units};
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

fn title(agent_id: &str, snapshot: &Snapshot, bold: &str) -> String {
    let id = code(agent_id, AGENT_ID_ROOM);
    let status = snapshot.status;
    format!("{} Agent {id} – {bold}{}{bold}", status.emoji(), status.name().to_uppercase())
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
    let mut shown = Excerpt::end(&clean, room.tail - 50);
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

#[cfg(test)]
mod tests;
