//! Starts the agents that were asked for in Slack and approved there, whoever heard of that: each once, in its thread,
//! under `run`, which outlives us. Beside that, ends what nobody else ends.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{BUSY_MIN, courier, environment, now, open_quietly, record, wrapper};
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::plan;
use crate::checkpoint::question::{Decision, Question};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Draft, Task};
use crate::config::Config;
use crate::config::identity::surroundings;
use crate::exit::cause;
use crate::store::{Start, Store, StoreError, Tx, Watcher};
use crate::ui::Ui;

/// How often to look whether something was approved; a look at a cache that has not changed costs nothing.
const LOOK: Duration = Duration::from_millis(200);
/// How often to look for what no change of the cache tells of: an end that makes room, a time that is over.
const ROUND: Duration = Duration::from_secs(2);
/// How long an approval holds: nobody expects a start days later.
const HOLDS: Duration = Duration::from_secs(3600);
/// How long an agent may go on where nothing else is set: nobody sits in front of one that hangs and takes up a place.
const TIMEOUT: &str = "--timeout=8h";
const STACK: usize = 512 * 1024;
/// The most that is read of what a `run` says before it begins, in bytes.
const SAID_MAX: u64 = 16 * 1024;
/// What is no business of an agent's: secrets of the server, and what speaks of this process.
const WITHHELD: &[&str] = &[
    "AGENT_CHECKPOINT_SERVE_TOKEN",
    "SLACK_SIGNING_SECRET",
    "AGENT_CHECKPOINT_LISTEN",
    "AGENT_CHECKPOINT_THREAD",
    "AGENT_CHECKPOINT_TASK_NAME",
    "AGENT_CHECKPOINT_TASK_TYPE",
    "NOTIFY_SOCKET",
    wrapper::AGENT_ENV,
    wrapper::TASK_ENV,
];

/// Starts approved agents for as long as this process lives, where there is a command for it and a list of approvers; ends
/// what nobody else ends in any case.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn begin(config: &Arc<Config>, ui: &Ui) -> io::Result<()> {
    let mut launcher = Launcher {
        launches: config.launch.starts_here,
        config: Arc::clone(config),
        ui: ui.clone(),
        me: Watcher::current(),
        told: BTreeSet::new(),
        runs: Vec::new(),
        couriers: Vec::new(),
    };
    thread::Builder::new().name("launch".to_owned()).stack_size(STACK).spawn(move || launcher.work())?;
    Ok(())
}

/// The repository in which agents begin.
pub(super) fn repo(config: &Config) -> Option<String> {
    config.repo.clone().or_else(|| {
        let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
        surroundings(Some("agent"), &environment, &dir).repo
    })
}

struct Launcher {
    launches: bool,
    config: Arc<Config>,
    ui: Ui,
    me: Watcher,
    /// The tasks in whose threads it stands that there is no room.
    told: BTreeSet<TaskKey>,
    runs: Vec<(TaskKey, Child)>,
    couriers: Vec<Child>,
}

/// What becomes of an approved start.
enum Step {
    /// It is ours.
    Go(Box<Errand>),
    /// It is not to be: that stands in its thread.
    Dropped,
    /// Not yet; whether its thread is to hear why.
    Wait { say: bool },
    /// Another one was quicker.
    Gone,
}

/// What to start, and where.
struct Errand {
    task: Task,
    text: String,
    place: String,
}

impl Launcher {
    fn work(&mut self) {
        let mut store: Option<Store> = None;
        let (mut seen, mut round) = (None, Instant::now());
        loop {
            if store.as_ref().is_none_or(|store| !store.is_in_place()) {
                (store, seen) = (open_quietly(&self.config, BUSY_MIN), None);
            }
            if let Some(store) = &mut store {
                let version = store.version_of_data().ok();
                let is_round = Instant::now() >= round;
                if version != seen || is_round {
                    seen = version;
                    let looked = if is_round { self.tidy(store) } else { Ok(()) };
                    if let Err(error) = looked.and_then(|()| self.look(store)) {
                        self.ui.detail(&format!("could not look for agents to start: {error}"));
                    }
                }
                if is_round {
                    round = Instant::now() + ROUND;
                }
            }
            thread::sleep(if self.launches { LOOK } else { ROUND });
        }
    }

    /// Ends what nobody else ends: questions and requests whose time is over, those whose asker has ended without a word,
    /// and starts that were lost with whoever had taken them.
    fn tidy(&mut self, store: &mut Store) -> Result<(), StoreError> {
        self.couriers.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let mut ended = Vec::new();
        self.runs.retain_mut(|(task, child)| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                ended.push((*task, status, last_words(child)));
                false
            }
            Err(_) => false,
        });
        for (task, status, said) in ended {
            if store.read(|tx| tx.is_watched_by(task, &self.me))? {
                self.fail(store, task, &self.config.masker().mask(&obituary(status, &said)))?;
            }
        }
        if record::bury_found(store, &self.config)? {
            self.deliver(store);
        }
        Ok(())
    }

    fn look(&mut self, store: &mut Store) -> Result<(), StoreError> {
        if !self.launches {
            return Ok(());
        }
        for start in store.read(|tx| tx.starts())? {
            let is_new = !self.told.contains(&start.task);
            let step = store.write(|tx| decide(tx, &self.config, &start, (&self.me, is_new), now()))?;
            match step {
                Step::Go(errand) => {
                    self.told.remove(&start.task);
                    self.ui.detail(&format!("starts {}", errand.task.agent_id));
                    match self.start(&errand) {
                        Ok(child) => self.runs.push((start.task, child)),
                        Err(error) => self.fail(store, start.task, &cause(&error))?,
                    }
                }
                Step::Dropped => self.deliver(store),
                Step::Wait { say: true } => {
                    self.told.insert(start.task);
                    self.deliver(store);
                }
                Step::Wait { say: false } | Step::Gone => {}
            }
        }
        Ok(())
    }

    /// Nobody else sends what we say in threads.
    fn deliver(&mut self, store: &mut Store) {
        self.couriers.extend(courier::leave_the_rest(store, &self.config, &self.ui));
    }

    fn fail(&mut self, store: &mut Store, task: TaskKey, why: &str) -> Result<(), StoreError> {
        let words = format!("could not start it: {why}");
        self.ui.wrong(&words, None);
        store.write(|tx| {
            tx.unwatch(task)?;
            say(tx, &self.config, task, Status::Error, &words, now())
        })?;
        self.deliver(store);
        Ok(())
    }

    fn start(&self, errand: &Errand) -> io::Result<Child> {
        let config = &self.config;
        let mut command = courier::this_program(config, &["run"])?;
        command.args(words(errand, &config.launch.command, config.supervision.timeout.is_some()));
        for name in WITHHELD {
            command.env_remove(name);
        }
        // We hear of a click on its button, and of why it cannot begin. From then on it does not depend on us.
        command.env(wrapper::HEARD_ENV, wrapper::LAUNCHED);
        // What ends us, at a terminal, does not end it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    }
}

/// What an ended `run` said before it began.
fn last_words(run: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = run.stderr.take() {
        // What cannot be read was not said.
        let _ = stderr.take(SAID_MAX).read_to_end(&mut said);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Why a `run` ended that has recorded nothing: the error and its hint, which are the last two lines that it says.
fn obituary(status: ExitStatus, said: &str) -> String {
    let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(2)).map(|line| {
        line.split_once(": ")
            .filter(|(who, _)| ["agent-checkpoint", "hint"].contains(who))
            .map_or(*line, |(_, what)| what)
    });
    match last.collect::<Vec<_>>().join("; ") {
        nothing if nothing.is_empty() => format!("it ended without a word: {code}"),
        why => format!("{code}: {why}"),
    }
}

/// The words of `run`. Each value stands in one word with its flag: none can be taken for a flag.
fn words(errand: &Errand, launch: &[String], has_timeout: bool) -> Vec<OsString> {
    let task = &errand.task;
    let mut words = vec![
        format!("--thread={}", errand.place),
        format!("--agent-id={}", task.agent_id),
        format!("--task-type={}", task.task_type),
    ];
    words.extend(task.snapshot.name.as_ref().map(|name| format!("--task-name={name}")));
    words.extend(task.snapshot.repo.as_ref().map(|repo| format!("--repo={repo}")));
    if !has_timeout {
        words.push(TIMEOUT.to_owned());
    }
    words.push("--".to_owned());
    words.extend(launch.iter().cloned());
    words.push(errand.text.clone());
    words.into_iter().map(OsString::from).collect()
}

/// Takes a start if it may begin now. Whoever takes it has it for good, and answers for its task until `run` does: it may
/// be lost with its process, and whoever finds that out says so, but is never begun twice.
fn decide(
    tx: &Tx<'_>,
    config: &Config,
    start: &Start,
    (me, is_new): (&Watcher, bool),
    now: Moment,
) -> Result<Step, StoreError> {
    let task = tx.task(start.task)?;
    let approved = tx.questions_of(start.task)?.into_iter().find_map(|put| {
        let answer = put.asked.answer.filter(|answer| answer.decision == Decision::Approved)?;
        put.asked.question.launch.is_some().then_some((put.asked.question, answer))
    });
    let drop = |words: Option<&str>| {
        if !tx.take_start(start)? {
            return Ok(Step::Gone);
        }
        if let Some(words) = words {
            say(tx, config, start.task, Status::Cancelled, words, now)?;
        }
        Ok(Step::Dropped)
    };
    let Some((Question { command: Some(text), .. }, answer)) = approved else { return drop(None) };
    if task.state != TaskState::Running {
        return drop(None);
    }
    if !tx.requests(start.task)?.is_empty() {
        return drop(Some("cancelled before it was started"));
    }
    // Whoever heard of it may have been started with another list. On this machine one can do without us.
    if answer.user_id.is_some_and(|id| !config.named_approvers().contains(&id)) {
        return drop(Some(
            "not started: whoever approved it is not among AGENT_CHECKPOINT_APPROVERS of serve",
        ));
    }
    if now > start.approved_at.plus(HOLDS) {
        return drop(Some("not started: for an hour there was no room for it, or no serve"));
    }
    let (Some(channel), Some(ts)) = (&task.channel_id, &task.thread_ts) else {
        return Ok(Step::Wait { say: false });
    };
    if tx.launched()? >= config.launch.max {
        if is_new {
            let words = format!("waits for one of {} agents to end", config.launch.max);
            say(tx, config, start.task, Status::Working, &words, now)?;
        }
        return Ok(Step::Wait { say: is_new });
    }
    if !tx.take_start(start)? {
        return Ok(Step::Gone);
    }
    tx.watch(start.task, me, now)?;
    let place = format!("{channel}:{ts}");
    Ok(Step::Go(Box::new(Errand { task, text, place })))
}

/// Says something in the thread of a request.
fn say(
    tx: &Tx<'_>,
    config: &Config,
    task: TaskKey,
    status: Status,
    words: &str,
    now: Moment,
) -> Result<(), StoreError> {
    let task = tx.task(task)?;
    let bare = Draft::bare(CheckpointId::new(now), task.agent_id.clone(), status);
    let words = Some(words.to_owned());
    let draft = match status {
        Status::Error => Draft { error: words, ..bare },
        _ => Draft { action: words, ..bare },
    };
    tx.append(&plan::speak_for(task, &[], &draft, &record::policy(config), now), now)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::checkpoint::id::TaskId;

    #[test]
    fn a_run_that_could_not_begin_is_told_with_its_error_and_what_mends_it() {
        let refusal =
            "agent-checkpoint: could not read env file: /x: line 1 is not KEY=VALUE\nhint: write A=b\n";
        for (status, said, told) in [
            (
                64 << 8,
                refusal,
                "exit code 64: could not read env file: /x: line 1 is not KEY=VALUE; write A=b",
            ),
            (
                78 << 8,
                "agent-checkpoint: warning: x\n\nhint: y\nagent-checkpoint: no: a\nhint: b: c\n",
                "exit code 78: no: a; b: c",
            ),
            (1 << 8, "wrong: a\n", "exit code 1: wrong: a"),
            (0, " \n", "it ended without a word: exit code 0"),
            (9, "", "it ended without a word: signal: 9 (SIGKILL)"),
        ] {
            assert_eq!(obituary(ExitStatus::from_raw(status), said), told);
        }
    }

    #[test]
    fn no_word_of_a_request_can_be_taken_for_a_flag() {
        let mut task = Task::blank(TaskId::new(Moment(0)), "-x".to_owned(), "--y".to_owned(), Moment(0));
        task.snapshot.name = Some("--strict".to_owned());
        let errand = Errand { task, text: "--version; rm".to_owned(), place: "C1:1.2".to_owned() };
        let launch = ["agent", "-p"].map(str::to_owned);
        let ours = ["--thread=C1:1.2", "--agent-id=-x", "--task-type=--y", "--task-name=--strict"];
        let theirs = ["--", "agent", "-p", "--version; rm"];
        assert_eq!(words(&errand, &launch, true), [&ours[..], &theirs].concat());
        assert_eq!(words(&errand, &launch, false), [&ours[..], &["--timeout=8h"], &theirs].concat());
    }
}
