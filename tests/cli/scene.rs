//! A sandbox that is connected to a fake Slack: what most tests of delivery begin with.

use std::time::Duration;

use serde_json::Value;

use crate::fake_slack::{FakeSlack, Fault, Message};
use crate::support::{Output, Run, Sandbox};

/// The deadline of a call that is to run into it: still far more than a busy machine needs to get there.
const SHORT: Duration = Duration::from_secs(4);

/// A fake Slack and a sandbox whose commands post to it. At its end no limit of Slack's may have been overrun, and
/// nobody notified.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) slack: FakeSlack,
    /// People are named in messages, as those who may answer or did.
    names_people: bool,
}

impl Scene {
    /// With a bot token.
    pub(crate) fn bot() -> Self {
        let (sandbox, slack) = (Sandbox::new(), FakeSlack::start());
        sandbox.slack(&slack);
        Self { sandbox, slack, names_people: false }
    }

    /// With a bot token, any number of messages, and people who are asked and named.
    pub(crate) fn people() -> Self {
        let mut scene = Self::bot();
        scene.slack.set_lenient_rate();
        scene.names_people = true;
        scene
    }

    /// With an incoming webhook.
    pub(crate) fn webhook() -> Self {
        let (sandbox, slack) = (Sandbox::new(), FakeSlack::start());
        sandbox.webhook(&slack);
        Self { sandbox, slack, names_people: false }
    }

    /// `emit --json` with these words, by the agent `bot` unless they name another.
    pub(crate) fn emit<const N: usize>(&self, words: [&str; N]) -> Run<'_> {
        let mut line = vec!["emit", "--json"];
        if !words.contains(&"-a") {
            line.extend(["-a", "bot"]);
        }
        line.extend(words);
        self.sandbox.cmd(line)
    }

    /// An `emit` that tries once and leaves what failed to a courier; [`Scene::flush`] waits for that one too. So that
    /// a busy machine makes no difference, only a fault that takes all the time there is shortens the deadline.
    pub(crate) fn once<const N: usize>(&self, fault: Fault, words: [&str; N]) -> Run<'_> {
        let deadline = match fault {
            Fault::Hang | Fault::HangAfterStoring | Fault::SlowBody => SHORT,
            _ => Duration::from_secs(30),
        };
        let run = self.emit(words).env("AGENT_CHECKPOINT_BACKGROUND", "auto");
        run.env("AGENT_CHECKPOINT_DEADLINE", format!("{}s", deadline.as_secs()))
    }

    /// An `emit` that must say `sent` and nothing else; its receipt.
    #[track_caller]
    pub(crate) fn sent<const N: usize>(&self, words: [&str; N]) -> Value {
        let receipt = self.emit(words).run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "sent", "{receipt}");
        receipt
    }

    /// Delivers what waits; all of it must go.
    #[track_caller]
    pub(crate) fn flush(&self) -> Output {
        self.sandbox.cmd(["flush"]).run().success().stderr_is("")
    }

    /// `show --json` of an agent's latest task.
    #[track_caller]
    pub(crate) fn show(&self, agent: &str) -> Value {
        self.sandbox.cmd(["show", "--json", agent]).run().success().json()
    }

    /// The actions of an agent's checkpoints with what became of each.
    #[track_caller]
    pub(crate) fn deliveries(&self, agent: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let shown = self.show(agent);
        let checkpoints = shown["checkpoints"].as_array().expect("checkpoints");
        checkpoints.iter().map(|one| (text(&one["action"]), text(&one["delivery"]))).collect()
    }

    /// The one message that is no reply.
    #[track_caller]
    pub(crate) fn root(&self) -> Message {
        let mut roots = self.slack.roots();
        assert_eq!(roots.len(), 1, "{roots:#?}");
        roots.remove(0)
    }

    /// The last action that each message of the one thread showed when it was posted, oldest first.
    #[track_caller]
    pub(crate) fn thread(&self) -> Vec<String> {
        let messages = self.slack.thread(&self.root().ts);
        messages.iter().map(|message| last_action(message.edits.first().unwrap_or(&message.text))).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.slack.rate_violations(), []);
            let is_expected =
                |text: &str| self.names_people && !text.contains("<!here") && !text.contains("<!channel");
            let pings: Vec<_> =
                self.slack.pings().into_iter().filter(|ping| !is_expected(&ping.text)).collect();
            assert_eq!(pings, []);
        }
    }
}

/// Runs the rows of a table beside each other: most of their time is waiting.
pub(crate) fn side_by_side<T: Send>(rows: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || test(row));
        }
    });
}

/// The last action that a message's text shows.
pub(crate) fn last_action(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("Last Action: ")).unwrap_or_default().to_owned()
}

/// A field of a receipt as text; empty where it is null.
#[track_caller]
pub(crate) fn text<'a>(receipt: &'a Value, field: &str) -> &'a str {
    match &receipt[field] {
        Value::String(text) => text,
        Value::Null => "",
        other => panic!("{field} is no text but {other} in {receipt}"),
    }
}

/// Whether an error ends with what was left of the deadline of [`Scene::once`], after these words.
pub(crate) fn ran_out(error: &str, words: &str) -> bool {
    let seconds = error.split_once(words).and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    seconds.is_some_and(|seconds| 0.0 < seconds && seconds <= SHORT.as_secs_f64())
}
