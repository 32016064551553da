//! A task on one terminal line.

use std::time::Duration;

use super::text;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::time::spoken;

/// The longest piece of free text on the line, in characters.
const FREE_TEXT_MAX: usize = 200;

/// One line, without a line break: status, agent, progress, action, error, artifacts, context and elapsed time.
pub(crate) fn line(agent_id: &str, snapshot: &Snapshot) -> String {
    let mut parts = vec![format!(
        "{} {} {}",
        snapshot.status.emoji(),
        snapshot.status.name().to_uppercase(),
        text::plain(agent_id, false)
    )];
    parts.extend(snapshot.name.as_ref().map(|name| short(&Excerpt::of(name))));
    parts.push(text::progress_bar(snapshot.progress));
    parts.extend(snapshot.action.as_ref().map(short));
    parts.extend(snapshot.error.as_ref().map(|error| format!("🔴 {}", short(error))));
    parts.extend(snapshot.artifacts.iter().map(|artifact| {
        let target = text::plain(&artifact.target, false);
        match &artifact.name {
            Some(name) => format!("{}: {target}", text::plain(name, false)),
            None => target,
        }
    }));
    if snapshot.tokens.is_some() {
        parts.push(text::context(snapshot));
    }
    parts.push(spoken(Duration::from_millis(snapshot.elapsed_ms)));
    parts.join(" · ")
}

fn short(excerpt: &Excerpt) -> String {
    let line = text::plain(&excerpt.text, false);
    let cut = match line.char_indices().nth(FREE_TEXT_MAX) {
        Some((end, _)) => &line[..end],
        None => &line,
    };
    let omitted = excerpt.omitted + (line.chars().count() - cut.chars().count()) as u64;
    if omitted > 0 { format!("{cut}… (+{} characters)", text::thousands(omitted)) } else { cut.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::status::Status;

    #[test]
    fn is_one_line_whatever_the_text() {
        let mut snapshot = Snapshot::blank();
        snapshot.status = Status::Working;
        snapshot.progress = 50;
        snapshot.action = Some(Excerpt::of("Running\ntests\u{1b}[2J"));
        assert_eq!(line("deploy", &snapshot), "⚙️ WORKING deploy · ▓▓▓▓▓░░░░░ 50% · Running tests · 0s");
    }

    #[test]
    fn says_how_much_it_cut() {
        let mut snapshot = Snapshot::blank();
        snapshot.action = Some(Excerpt::of(&"x".repeat(5200)));
        assert!(line("a", &snapshot).contains("x… (+5,000 characters)"));
    }
}
