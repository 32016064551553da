//! A task's state at one moment: all that a message shows of it.

use serde::{Deserialize, Serialize};

use super::context::{self, Level};
use super::parse::Artifact;
use super::status::Status;

/// The most of one text that a snapshot keeps, in characters; more would not fit a Slack message.
const EXCERPT_MAX: usize = 3000;
/// The most of a tail that a snapshot keeps, in UTF-16 units, the strictest way to count; a longer one is attached as a
/// file.
const TAIL_MAX: usize = 2500;
/// The most of one step that a snapshot keeps, in characters.
const STEP_MAX: usize = 160;
/// How many steps a message shows.
const STEPS: usize = 5;
/// How many artifacts a message lists by name.
const ARTIFACTS: usize = 10;

/// A task as it stood at one of its checkpoints.
///
/// Kept as JSON in the cache: fields may be added with a default, never renamed or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) status: Status,
    /// 0 to 100.
    pub(crate) progress: u8,
    /// What people call the task; the agent's id until it has a name.
    pub(crate) name: Option<String>,
    pub(crate) repo: Option<String>,
    pub(crate) tokens: Option<u64>,
    pub(crate) context_limit: u64,
    /// Where the context stands now.
    pub(crate) context: Level,
    /// The highest level already told; see [`context::cross`].
    pub(crate) context_told: Level,
    pub(crate) action: Option<Excerpt>,
    pub(crate) error: Option<Excerpt>,
    /// The end of what a wrapped command wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tail: Option<Excerpt>,
    /// The latest actions, oldest first, at most five.
    pub(crate) steps: Vec<String>,
    /// The latest artifacts, oldest first, at most ten.
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) artifact_count: u64,
    /// Milliseconds since the task's first checkpoint.
    pub(crate) elapsed_ms: u64,
    /// Whether anybody who speaks for the agent has looked, in this task, for what people want of it; `None` where that is
    /// unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listens: Option<bool>,
    /// The secret of the card's button that cancels the task, as long as a process hears of it: whichever machine edits
    /// the card puts the button there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cancel: Option<String>,
    /// The tasks started from this one, as they stand when the message is sent.
    #[serde(skip)]
    pub(crate) children: Vec<ChildTask>,
}

/// A task as the card of the task that it was started from shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChildTask {
    pub(crate) agent_id: String,
    pub(crate) status: Status,
    /// 0 to 100.
    pub(crate) progress: u8,
}

/// The beginning or the end of a text, and how much of it is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Excerpt {
    pub(crate) text: String,
    /// Characters left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) omitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Excerpt {
    /// As much of the text as a message can carry.
    pub(crate) fn of(text: &str) -> Self {
        Self::cut(text, EXCERPT_MAX)
    }

    /// As much of the end of the text as a message can carry.
    pub(crate) fn end_of(text: &str) -> Self {
        Self::end(text, TAIL_MAX)
    }

    /// The last `max` UTF-16 units of the text, from the beginning of a line where there is one.
    pub(crate) fn end(text: &str, max: usize) -> Self {
        let mut left = max;
        let mut start = text.len();
        for (at, c) in text.char_indices().rev() {
            let Some(rest) = left.checked_sub(c.len_utf16()) else { break };
            (left, start) = (rest, at);
        }
        if start > 0
            && let Some((_, whole_lines)) = text[start..].split_once('\n')
            && !whole_lines.is_empty()
        {
            start = text.len() - whole_lines.len();
        }
        Self { text: text[start..].to_owned(), omitted: text[..start].chars().count() as u64 }
    }

    fn cut(text: &str, max: usize) -> Self {
        match text.char_indices().nth(max) {
            None => Self { text: text.to_owned(), omitted: 0 },
            Some((end, _)) => {
                Self { text: text[..end].to_owned(), omitted: text[end..].chars().count() as u64 }
            }
        }
    }
}

impl Snapshot {
    /// A task of which nothing is known yet.
    pub(crate) fn blank() -> Self {
        Self {
            status: Status::Starting,
            progress: 0,
            name: None,
            repo: None,
            tokens: None,
            context_limit: context::DEFAULT_LIMIT,
            context: Level::Calm,
            context_told: Level::Calm,
            action: None,
            error: None,
            tail: None,
            steps: Vec::new(),
            artifacts: Vec::new(),
            artifact_count: 0,
            elapsed_ms: 0,
            listens: None,
            cancel: None,
            children: Vec::new(),
        }
    }

    /// The share of the context in use, in percent with one decimal.
    pub(crate) fn context_percent(&self) -> f64 {
        context::percent(self.tokens.unwrap_or(0), self.context_limit)
    }

    /// Appends an action to the steps, dropping the oldest past the fifth.
    pub(crate) fn push_step(&mut self, action: &str) {
        let one_line = action.split_whitespace().collect::<Vec<_>>().join(" ");
        let step = Excerpt::cut(&one_line, STEP_MAX);
        self.steps.push(if step.omitted > 0 { step.text + "…" } else { step.text });
        let surplus = self.steps.len().saturating_sub(STEPS);
        self.steps.drain(..surplus);
    }

    /// Appends artifacts, dropping the oldest past the tenth from what is listed.
    pub(crate) fn push_artifacts(&mut self, made: &[Artifact]) {
        self.artifacts.extend_from_slice(made);
        self.artifact_count += made.len() as u64;
        let surplus = self.artifacts.len().saturating_sub(ARTIFACTS);
        self.artifacts.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_five_steps() {
        let mut snapshot = Snapshot::blank();
        for step in ["a", "b", "c", "d", "e", "f\n g"] {
            snapshot.push_step(step);
        }
        assert_eq!(snapshot.steps, ["b", "c", "d", "e", "f g"]);
    }

    #[test]
    fn an_excerpt_counts_what_it_leaves_out() {
        assert_eq!(Excerpt::cut("héllo", 5), Excerpt { text: "héllo".into(), omitted: 0 });
        assert_eq!(Excerpt::cut("héllo", 2), Excerpt { text: "hé".into(), omitted: 3 });
        for (text, kept, omitted) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abcdef", "cdef", 2),
            ("ab\ncd\n", "cd\n", 3),
            ("a\u{1f600}b", "a\u{1f600}b", 0),
        ] {
            assert_eq!(Excerpt::end(text, 4), Excerpt { text: kept.into(), omitted }, "{text:?}");
        }
        assert_eq!(Excerpt::end("a\u{1f600}b", 2), Excerpt { text: "b".into(), omitted: 2 });
    }

    #[test]
    fn a_step_is_one_line_and_cut_with_a_sign() {
        let step = |action: &str| {
            let mut snapshot = Snapshot::blank();
            snapshot.push_step(action);
            snapshot.steps.remove(0)
        };
        assert_eq!(step("  a\t\r\n b  "), "a b");
        assert_eq!(step(&"é".repeat(STEP_MAX)), "é".repeat(STEP_MAX));
        assert_eq!(step(&"é".repeat(STEP_MAX + 1)), "é".repeat(STEP_MAX) + "…");
    }

    #[test]
    fn keeps_the_last_ten_artifacts_and_counts_them_all() {
        let made = |range: std::ops::Range<u32>| -> Vec<Artifact> {
            range.map(|n| Artifact { name: None, target: format!("{n}.txt") }).collect()
        };
        let mut snapshot = Snapshot::blank();
        for (range, listed, count) in
            [(0..3, 0..3, 3), (3..10, 0..10, 10), (10..12, 2..12, 12), (12..30, 20..30, 30)]
        {
            snapshot.push_artifacts(&made(range));
            assert_eq!((&snapshot.artifacts, snapshot.artifact_count), (&made(listed), count));
        }
    }

    #[test]
    fn a_text_is_kept_as_far_as_a_message_can_show_it() {
        let long = "é".repeat(10_000);
        let excerpt = Excerpt::of(&long);
        assert_eq!((excerpt.text.chars().count() as u64 + excerpt.omitted, excerpt.omitted), (10_000, 7000));
        assert_eq!(Excerpt::of(""), Excerpt { text: String::new(), omitted: 0 });
    }

    #[test]
    fn the_kept_form_is_read_by_every_later_version() {
        // As the first version wrote it: what is added later needs a default, and nothing is renamed or removed.
        let first = r#"{"status":"waiting_approval","progress":40,"name":"Deploy","repo":null,"tokens":150000,
            "context_limit":200000,"context":"warn","context_told":"alert","action":{"text":"Ask"},
            "error":{"text":"why","omitted":5},"steps":["Ask"],
            "artifacts":[{"name":"PR","target":"https://example.com/1"},{"target":"out.txt"}],
            "artifact_count":2,"elapsed_ms":1500}"#;
        let read: Snapshot = serde_json::from_str(first).expect("a snapshot of the first version");
        let expected = Snapshot {
            status: Status::WaitingApproval,
            progress: 40,
            name: Some("Deploy".to_owned()),
            repo: None,
            tokens: Some(150_000),
            context_limit: 200_000,
            context: Level::Warn,
            context_told: Level::Alert,
            action: Some(Excerpt { text: "Ask".to_owned(), omitted: 0 }),
            error: Some(Excerpt { text: "why".to_owned(), omitted: 5 }),
            tail: None,
            steps: vec!["Ask".to_owned()],
            artifacts: vec![
                Artifact { name: Some("PR".to_owned()), target: "https://example.com/1".to_owned() },
                Artifact { name: None, target: "out.txt".to_owned() },
            ],
            artifact_count: 2,
            elapsed_ms: 1500,
            listens: None,
            cancel: None,
            children: Vec::new(),
        };
        assert_eq!(read, expected);
        assert_eq!(read.context_percent(), 75.0);
    }
}
