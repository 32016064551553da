//! What a person is told who asks in words: mrkdwn in one message, in which nothing that an agent wrote pings anybody.

use super::mrkdwn::{code, escape, units};
use super::slack::plain_message;
use super::text::plain;
use crate::checkpoint::Task;
use crate::checkpoint::status::{TaskState, distance};
use crate::checkpoint::time::{Moment, spoken};

/// How many tasks are listed.
pub(crate) const LISTED: usize = 20;
/// Most that one message says, in UTF-16 units; Slack recommends no more than 4000.
const TEXT: usize = 3900;
/// How much of an agent's name and of its last action is shown.
const NAME: usize = 120;
const ACTION: usize = 150;

/// The running tasks, the latest change first, and what tells of those that are left out.
pub(crate) fn list(tasks: &[Task], all: &str, now: Moment) -> String {
    if tasks.is_empty() {
        return "No agent runs.".to_owned();
    }
    let mut lines = Vec::new();
    let mut room = TEXT - 100;
    let mut is_cut = tasks.len() > LISTED;
    for task in tasks.iter().take(LISTED) {
        let line = line(task, now);
        if units(&line) + 1 > room {
            is_cut = true;
            break;
        }
        room -= units(&line) + 1;
        lines.push(line);
    }
    if is_cut {
        lines.push(format!("… and more: `{all}` lists all."));
    }
    lines.join("\n")
}

fn line(task: &Task, now: Moment) -> String {
    let snapshot = &task.snapshot;
    let action = snapshot.action.as_ref().map(|action| plain(&action.text, false)).unwrap_or_default();
    let short: String = action.chars().take(ACTION).collect();
    let sign = if short.len() < action.len() { "…" } else { "" };
    let action = if short.is_empty() { String::new() } else { format!(": {}{sign}", escape(&short)) };
    format!(
        "{} {} {} {}%, {}{action}",
        snapshot.status.emoji(),
        code(&task.agent_id, NAME),
        snapshot.status.name().to_uppercase(),
        snapshot.progress,
        if task.started_at.is_known() { spoken(now.since(task.started_at)) } else { "-".to_owned() },
    )
}

/// One task as its card shows it, and where its thread is.
pub(crate) fn show(task: &Task) -> String {
    let message = plain_message(&task.agent_id, &task.snapshot);
    let mut text = message["text"].as_str().unwrap_or_default().to_owned();
    if let (Some(channel), Some(_)) = (&task.channel_id, &task.thread_ts) {
        text.push_str(&format!("\nThread in <#{}>", escape(channel)));
    }
    if task.state != TaskState::Running {
        text.push_str(&format!("\nIt is {}.", task.state.name()));
    }
    text
}

/// Nobody is called that; `known` are those there are.
pub(crate) fn unknown(wanted: &str, known: &[String]) -> String {
    let wanted_code = code(wanted, NAME);
    match nearest(wanted, known) {
        Some(one) => format!("There is no agent {wanted_code}; did you mean {}?", code(one, NAME)),
        None => format!("There is no agent {wanted_code}; `list` names those that run."),
    }
}

/// The name most like the one that was typed, if any is like it.
fn nearest<'a>(wanted: &str, known: &'a [String]) -> Option<&'a str> {
    let wanted: String = wanted.to_lowercase().chars().take(NAME).collect();
    let likeness = |name: &&String| {
        let lower: String = name.to_lowercase().chars().take(NAME).collect();
        let is_part = wanted.chars().count() > 2 && lower.contains(&wanted);
        let far = if is_part { 0 } else { distance(&wanted, &lower) };
        (far, lower.chars().count())
    };
    let (name, (far, length)) =
        known.iter().map(|name| (name, likeness(&name))).min_by_key(|(_, far)| *far)?;
    (far <= length / 2).then_some(name)
}

/// Something else was meant, most likely.
pub(crate) fn mistyped(call: &str, typed: &str) -> String {
    let meant = meant(call, typed);
    format!("{meant} Nothing was asked for; for an agent, say in three words or more what it is to do.")
}

/// Perhaps something else was meant.
pub(crate) fn meant(call: &str, typed: &str) -> String {
    format!("Did you mean {}?", code(&format!("{} {typed}", plain(call, false)), 2 * NAME))
}

/// How to ask for an agent in words that begin with one of ours.
pub(crate) fn otherwise(call: &str, said: &str) -> String {
    let request = code(&format!("{} please {said}", plain(call, false)), 2 * NAME);
    format!(" Nothing was asked for; for an agent that does it, begin with another word: {request}.")
}

/// What there is to say, as typed after `call`: the slash command, or the bot's name.
pub(crate) fn help(call: &str, launches: Result<(), &str>) -> String {
    let call = escape(&plain(call, false));
    let launch = match launches {
        Ok(()) => "asks for an agent that does it; an approver is asked here first".to_owned(),
        Err(why) => format!("asks for an agent that does it, once that is set up: {why}"),
    };
    format!(
        "`{call} list`: the agents that run\n`{call} show AGENT`: how one stands\n`{call} cancel AGENT`: tells one \
         to stop\n`{call} help`: this\n`{call} TEXT`: {launch}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::id::TaskId;
    use crate::checkpoint::snapshot::Excerpt;

    fn task(agent_id: &str, action: &str) -> Task {
        let now = Moment(0);
        let mut task = Task::blank(TaskId::new(now), agent_id.to_owned(), "task".to_owned(), now);
        task.snapshot.action = Some(Excerpt::of(action));
        task
    }

    #[test]
    fn a_list_has_a_line_for_each_agent() {
        let tasks = [task("bot", "Reading <!channel> & more"), task("o`ther", "")];
        let said = list(&tasks, "tasks", Moment(90_000));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].contains("`bot`") && lines[0].contains("&lt;!channel&gt; &amp; more"), "{said}");
        assert!(lines[0].contains("1m 30s"), "{said}");
        assert!(lines[1].contains("`o'ther`"), "{said}");
        assert_eq!(list(&[], "tasks", Moment(0)), "No agent runs.");
    }

    #[test]
    fn a_list_keeps_to_slacks_size_and_says_what_it_leaves_out() {
        let many: Vec<Task> = (0..30).map(|_| task(&"&".repeat(255), &"<".repeat(3000))).collect();
        let said = list(&many, "tasks", Moment(0));
        assert!(units(&said) <= TEXT, "{}", units(&said));
        assert!(said.ends_with("`tasks` lists all."), "{said}");
        let short: Vec<Task> = (0..=LISTED).map(|_| task("bot", "")).collect();
        assert!(list(&short, "tasks", Moment(0)).ends_with("lists all."));
        assert!(!list(&short[1..], "tasks", Moment(0)).contains("lists all."));
        assert!(units(&show(&many[0])) <= 4000);
    }

    #[test]
    fn who_is_unknown_may_be_somebody_alike() {
        let known = ["deploy-bot", "Nightly Build", "x"].map(str::to_owned);
        for (wanted, found) in [
            ("deploy-bto", Some("deploy-bot")),
            ("DEPLOY", Some("deploy-bot")),
            ("nightly build", Some("Nightly Build")),
            ("something-else-altogether", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, &known), found, "{wanted}");
        }
        assert!(unknown("<!here>", &[]).contains("`&lt;!here&gt;`"));
    }
}
