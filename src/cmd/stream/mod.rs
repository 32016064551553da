//! `stream`: JSON lines on standard input, one checkpoint each, for a long-lived caller.
//!
//! One thread reads, this one records whatever has come meanwhile in one transaction and then acknowledges it, and a
//! worker sends: a lone line is acknowledged at once, and many lines share the cost of making them durable.

mod line;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::deliver::Sender;
use super::receipt::Receipt;
use super::worker::{End, Worker};
use super::{BUSY_MAX, configure, courier, environment, now, open, record, report_problems, wrapper};
use crate::args::{BackgroundChoice, GlobalArgs, StreamArgs};
use crate::checkpoint::Draft;
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::{Delivery, Job};
use crate::checkpoint::plan::{Plan, Policy, Stored};
use crate::checkpoint::status::Status;
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Target};
use crate::exit::Exit;
use crate::render::console;
use crate::store::{Scope, Store, StoreError};
use crate::ui::Ui;

/// The most lines that share a transaction.
const BATCH: usize = 512;
/// How long a batch may gather, so that no acknowledgement waits for many that come later.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// Of how many tasks the last messages are seen to at the end; of more, whatever comes first.
const SCOPES_MAX: usize = 64;

/// A line as it came, with its number; `None` for one that is too long.
type Numbered = (u64, Option<Vec<u8>>);

pub(super) fn run(global: &GlobalArgs, args: &StreamArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, flags(args))?;
    report_problems(&config, &ui);
    let (lines, heard) = mpsc::sync_channel(BATCH * 2);
    // Left behind in the middle of a read, if need be: it owns nothing that has to be put down.
    thread::Builder::new().name("reader".to_owned()).spawn(move || read_lines(&lines))?;
    Stream::new(&config, &ui, args.force).run(&heard)
}

fn flags(args: &StreamArgs) -> Flags {
    let (identity, delivery) = (args.identity.clone(), args.delivery.clone());
    Flags { context_limit: args.context_limit, ..Flags::of(identity, delivery) }
}

fn read_lines(lines: &SyncSender<Numbered>) {
    let mut input = BufReader::with_capacity(64 * 1024, std::io::stdin().lock());
    for number in 1.. {
        let mut line = Vec::new();
        let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX;
        if !is_whole && skip_line(&mut input).is_err() {
            return;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if lines.send((number, is_whole.then_some(line))).is_err() {
            return;
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        let is_over = end.is_some() || buffer.is_empty();
        input.consume(used);
        if is_over {
            return Ok(());
        }
    }
}

/// A stream of checkpoints on its way.
struct Stream<'a> {
    config: &'a Config,
    ui: &'a Ui,
    policy: Policy,
    masker: Masker,
    defaults: Draft,
    store: Option<Store>,
    worker: Option<Worker>,
    tasks: BTreeSet<i64>,
    unknown: BTreeSet<String>,
    bad_lines: u64,
}

impl<'a> Stream<'a> {
    fn new(config: &'a Config, ui: &'a Ui, force: bool) -> Self {
        let mut store = match open(config, ui, BUSY_MAX) {
            Ok(store) => Some(store),
            Err(error) => {
                ui.warn(&format!("{error}; going on without state"), Some("run agent-checkpoint doctor"));
                None
            }
        };
        let sends = !config.no_post && config.background != BackgroundChoice::Always;
        let worker = sends
            .then(|| Sender::new(config, false, None))
            .flatten()
            .and_then(|sender| Worker::start(sender, config.cache.as_deref()).ok());
        let masker = config.masker();
        let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
        let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
        let said = |text: &Option<String>| text.as_deref().map(|text| masker.mask(text));
        let given = store.as_mut().and_then(|store| wrapper::agent(store, config.agent_id.as_deref()));
        let agent_id = given.unwrap_or_else(|| masker.mask(&around.agent_id));
        let bare = Draft::bare(CheckpointId::new(now()), agent_id, Status::Checkpoint);
        let defaults = Draft {
            context_limit: config.context_limit,
            name: said(&config.task_name),
            task_type: said(&config.task_type),
            repo: said(&config.repo),
            repo_default: said(&around.repo),
            channel: config.channel.clone(),
            thread: config.thread.clone(),
            force,
            ..bare
        };
        let policy = record::policy(config);
        let (tasks, unknown) = (BTreeSet::new(), BTreeSet::new());
        Self { config, ui, policy, masker, defaults, store, worker, tasks, unknown, bad_lines: 0 }
    }

    fn run(mut self, heard: &Receiver<Numbered>) -> anyhow::Result<Exit> {
        while let Ok(first) = heard.recv() {
            let begun = Instant::now();
            let mut drafts: Vec<Draft> = self.read(first).into_iter().collect();
            while drafts.len() < BATCH
                && begun.elapsed() < GATHER_MAX
                && let Ok(next) = heard.try_recv()
            {
                drafts.extend(self.read(next));
            }
            self.take(&drafts)?;
        }
        self.end()
    }

    /// Reads a line, or says what is wrong with it.
    fn read(&mut self, (number, line): Numbered) -> Option<Draft> {
        let wrong = match line.as_deref() {
            Some(line) => match line::read(line, &self.defaults, &self.masker, now()) {
                Ok(line::Read { draft, unknown }) => {
                    self.note_unknown(number, unknown);
                    return Some(draft);
                }
                Err(wrong) => wrong,
            },
            None => line::Wrong {
                message: format!("it is longer than {LINE_MAX} bytes"),
                hint: "put large output into an artifact".to_owned(),
            },
        };
        self.bad_lines += 1;
        self.ui.wrong(&format!("line {number} was skipped: {}", wrong.message), Some(&wrong.hint));
        None
    }

    /// A name that means nothing is said once, not for each of many lines.
    fn note_unknown(&mut self, number: u64, unknown: Vec<String>) {
        for name in unknown {
            if self.unknown.len() < BATCH && self.unknown.insert(name.clone()) {
                let hint = "fields have the names of emit's flags, in snake case";
                self.ui.warn(&format!("line {number}: unknown field '{name}' is ignored"), Some(hint));
            }
        }
    }

    /// Records a batch, then acknowledges it.
    fn take(&mut self, drafts: &[Draft]) -> anyhow::Result<()> {
        let recorded = match &mut self.store {
            Some(store) => {
                let policy = &self.policy;
                let write = |store: &mut Store| {
                    store.write(|tx| {
                        drafts.iter().map(|draft| record::record(tx, draft, policy, now())).collect()
                    })
                };
                let written: Result<Vec<_>, StoreError> = write(store);
                match written {
                    Ok(recorded) => Some(recorded),
                    Err(error) => {
                        let message =
                            format!("could not write to the cache: {error}; going on without state");
                        self.ui.warn(&message, Some("run agent-checkpoint doctor"));
                        self.store = None;
                        None
                    }
                }
            }
            None => None,
        };
        let plans: Vec<(Plan, Option<TaskKey>)> = match recorded {
            Some(recorded) => {
                let kept = recorded.into_iter().map(|(plan, recorded)| (plan, Some(recorded.task)));
                kept.collect()
            }
            None => drafts
                .iter()
                .map(|draft| (record::plan(&Stored::default(), draft, &self.policy, now()), None))
                .collect(),
        };
        if let Some(worker) = &self.worker {
            match self.store {
                Some(_) => worker.wake(),
                None => self.send_loose(worker, &plans),
            }
        }
        let mut answer = String::new();
        for (plan, task) in &plans {
            self.tasks.extend(task.map(|task| task.0));
            for notice in &plan.notices {
                let (message, hint) = record::notice_words(notice);
                self.ui.warn(&message, hint);
            }
            let line = self.acknowledgement(plan, *task);
            if let Some(line) = line {
                answer.push_str(&line);
                answer.push('\n');
            }
        }
        if !answer.is_empty()
            && let Err(error) = self.ui.answer(answer.trim_end())
        {
            self.ui.warn(&format!("{error:#}"), None);
        }
        Ok(())
    }

    /// Without state there is no interval: only what is worth interrupting people for is sent.
    fn send_loose(&self, worker: &Worker, plans: &[(Plan, Option<TaskKey>)]) {
        for (plan, _) in plans {
            if plan.append.checkpoint.status.is_immediate() {
                worker.send_loose(Job::alone(plan.append.task.clone(), plan.append.checkpoint.id, now()));
            }
        }
    }

    fn acknowledgement(&self, plan: &Plan, task: Option<TaskKey>) -> Option<String> {
        let (checkpoint, after) = (&plan.append.checkpoint, &plan.append.task);
        if self.config.json {
            let mut receipt = Receipt::of(plan, self.config);
            receipt.task_id = receipt.task_id.filter(|_| task.is_some());
            return Some(receipt.json().to_string());
        }
        (checkpoint.delivery == Delivery::Printed).then(|| console::line(&after.agent_id, &after.snapshot))
    }

    fn end(mut self) -> anyhow::Result<Exit> {
        if let Some(worker) = self.worker.take() {
            let tasks = self.tasks.iter().map(|task| Scope::Task(TaskKey(*task)));
            let scopes = if self.tasks.len() > SCOPES_MAX { vec![Scope::All] } else { tasks.collect() };
            let persistent = self.config.background == BackgroundChoice::Never || self.config.strict;
            worker.finish(End { by: Instant::now() + self.config.deadline, persistent, scopes });
        }
        let (waiting, refused) = match &mut self.store {
            Some(store) => {
                courier::leave_the_rest(store, self.config, self.ui);
                let tasks: Vec<TaskKey> = self.tasks.iter().map(|task| TaskKey(*task)).collect();
                store.read(|tx| tx.unsent(&tasks)).unwrap_or_default()
            }
            None => (0, 0),
        };
        if refused > 0 {
            let hint =
                "run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected";
            self.ui.warn(&format!("Slack refused {refused} messages for good"), Some(hint));
        }
        let is_late = waiting > 0 && self.config.background != BackgroundChoice::Always;
        if is_late && !matches!(self.config.target, Target::Broken) {
            self.ui.warn(&format!("recorded, but {waiting} messages are not in Slack yet"), None);
        }
        Ok(match () {
            () if self.bad_lines > 0 => Exit::BadInput,
            () if !self.config.strict => Exit::Done,
            () if refused > 0 || self.config.is_wrong() => Exit::Config,
            () if waiting > 0 => Exit::NotYet,
            () => Exit::Done,
        })
    }
}
