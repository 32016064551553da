//! A task on one terminal line.

use std::time::Duration;

use super::text;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::time::spoken;

/// The longest piece of free text on the line, in characters.
const FREE_TEXT_MAX: usize = 200;
/// The same of a link, which is of use only whole.
const LINK_MAX: usize = 2000;

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
        let target = text::brief(&artifact.target, LINK_MAX, 0);
        match &artifact.name {
            Some(name) => format!("{}: {target}", text::brief(name, FREE_TEXT_MAX, 0)),
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
    text::brief(&excerpt.text, FREE_TEXT_MAX, excerpt.omitted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::context::Level;
    use crate::checkpoint::parse::Artifact;
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

    #[test]
    fn tells_everything_that_is_known() {
        let mut snapshot = Snapshot::blank();
        snapshot.status = Status::Error;
        snapshot.progress = 40;
        snapshot.name = Some("Deploy Feature X".to_owned());
        snapshot.action = Some(Excerpt::of("Running tests"));
        snapshot.error = Some(Excerpt::of("exit code 1\nline two"));
        snapshot.push_artifacts(&[
            Artifact { name: Some("PR".to_owned()), target: "https://example.com/1".to_owned() },
            Artifact { name: None, target: "out/report.txt".to_owned() },
        ]);
        snapshot.tokens = Some(150_000);
        snapshot.context = Level::Warn;
        snapshot.elapsed_ms = 185_000;
        assert_eq!(
            line("deploy", &snapshot),
            "❌ ERROR deploy · Deploy Feature X · ▓▓▓▓░░░░░░ 40% · Running tests · 🔴 exit code 1 line two · \
             PR: https://example.com/1 · out/report.txt · 150,000 / 200,000 (75.0%) ⚠️ · 3m 5s"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_breaks_the_line_or_drives_the_terminal(text in ".{0,300}", id in "[^\u{0}]{1,255}") {
            let mut snapshot = Snapshot::blank();
            snapshot.name = Some(text.clone());
            snapshot.action = Some(Excerpt::of(&text));
            snapshot.error = Some(Excerpt::of(&format!("{text}\n{text}\u{1b}]0;title\u{7}")));
            snapshot.push_artifacts(&[Artifact { name: Some(text.clone()), target: text }]);
            let line = line(&id, &snapshot);
            prop_assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
    }
}
