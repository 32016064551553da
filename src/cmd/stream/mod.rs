//! `stream`: JSON lines on standard input, one checkpoint each, for a long-lived caller.
//!
//! One thread reads, this one records whatever has come meanwhile in one transaction and then acknowledges it, and a
//! worker sends: a lone line is acknowledged at once, and many lines share the cost of making them durable.

mod input;
mod keeper;
mod line;
mod memory;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use self::input::{End, Input, LINE_MAX, Line};
use self::keeper::Keeper;
use self::memory::Memory;
use super::deliver::Sender;
use super::forward::Forwarder;
use super::receipt::{Receipt, broken};
use super::worker::{self, Worker};
use super::{configure, courier, environment, now, record, report_problems, wrapper};
use crate::args::{BackgroundChoice, GlobalArgs, StreamArgs};
use crate::checkpoint::Draft;
use crate::checkpoint::id::{CheckpointId, TaskKey};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::plan::{EntryChange, Plan, Policy};
use crate::checkpoint::status::{Status, TaskState};
use crate::checkpoint::time::Moment;
use crate::cmd::masking::said;
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Target};
use crate::exit::Exit;
use crate::render::console;
use crate::store::{Recorded, Request, Scope, StoreError, Tx};
use crate::ui::Ui;

/// How long lines are read, and then recorded, before what came so far is made durable and acknowledged. With the
/// disk's own time this keeps the promise that no line waits longer than 50 ms for those behind it.
const READ_TIME: Duration = Duration::from_millis(5);
const RECORD_TIME: Duration = Duration::from_millis(20);
/// Of how many tasks the last messages are seen to at the end; of more, whatever comes first.
const SCOPES_MAX: usize = 64;
/// The longest deadline that is told from none.
const DEADLINE_MAX: Duration = Duration::from_secs(86_400);
/// How many unknown fields are named.
const UNKNOWN_MAX: usize = 100;

pub(super) fn run(global: &GlobalArgs, args: &StreamArgs) -> anyhow::Result<Exit> {
    let (config, ui) = configure(global, flags(args))?;
    report_problems(&config, &ui);
    // Before anything else that takes time: a signal must find us ready.
    let input = Input::open()?;
    Ok(Stream::new(&config, &ui, args).run(&input))
}

fn flags(args: &StreamArgs) -> Flags {
    let (identity, delivery) = (args.identity.clone(), args.delivery.clone());
    Flags { context_limit: args.context_limit, ..Flags::of(identity, delivery) }
}

/// A stream of checkpoints on its way.
struct Stream<'a> {
    config: &'a Config,
    ui: &'a Ui,
    policy: Policy,
    masker: Masker,
    defaults: Draft,
    began: Moment,
    keeper: Keeper<'a>,
    /// What stands in for the cache while there is none.
    memory: Memory,
    worker: Option<Worker>,
    /// Whose couriers are to be appointed on the way, when no worker sends.
    couriers: Option<courier::Links>,
    tasks: BTreeSet<i64>,
    /// The agents whose first line opened a new task, where that was asked for.
    opened: Option<BTreeSet<String>>,
    unknown: BTreeSet<String>,
    bad_lines: u64,
    /// How many checkpoints are neither recorded nor delivered.
    lost: usize,
    is_mute: bool,
}

/// What became of one line.
struct Taken {
    plan: Plan,
    /// `None` without a cache.
    recorded: Option<Recorded>,
    /// What people want of the agent.
    requests: Vec<Request>,
    /// Whether nothing at all will come of it.
    is_lost: bool,
}

impl<'a> Stream<'a> {
    fn new(config: &'a Config, ui: &'a Ui, args: &StreamArgs) -> Self {
        let mut keeper = Keeper::open(config, ui);
        let is_online = config.background != BackgroundChoice::Always;
        let sender = (is_online && !config.no_post).then(|| Sender::new(config, false, None)).flatten();
        let forwarder = is_online.then(|| Forwarder::new(config)).flatten();
        let sender = sender.map(|sender| sender.watched(ui));
        let worker = Worker::start((sender, forwarder), config.cache.as_deref());
        let couriers = worker.is_none().then(|| courier::Links::of(config));
        let masker = config.masker();
        let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
        let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
        let masked = |text: &Option<String>| text.as_deref().map(|text| said(&masker, text));
        let given = keeper.store().and_then(|store| wrapper::inside(store, config.agent_id.as_deref()));
        let mut thread = config.thread.clone();
        let (inside, agent_id) = match given {
            Some(inside) => {
                thread = thread.filter(|_| inside.joined || args.identity.thread.is_some());
                (Some(inside.task), inside.agent_id)
            }
            None => (None, said(&masker, &around.agent_id)),
        };
        let began = now();
        let defaults = Draft {
            context_limit: config.context_limit,
            name: masked(&config.task_name),
            task_type: masked(&config.task_type),
            repo: masked(&config.repo),
            repo_default: masked(&around.repo),
            channel: config.channel.clone(),
            thread,
            force: args.force,
            inside,
            listens: Some(config.json),
            ..Draft::bare(CheckpointId::new(began), agent_id, Status::Checkpoint)
        };
        Self {
            config,
            ui,
            policy: record::policy(config),
            masker,
            defaults,
            began,
            keeper,
            memory: Memory::default(),
            worker,
            couriers,
            tasks: BTreeSet::new(),
            opened: args.identity.new.then(BTreeSet::new),
            unknown: BTreeSet::new(),
            bad_lines: 0,
            lost: 0,
            is_mute: false,
        }
    }

    fn run(mut self, input: &Input) -> Exit {
        let end = loop {
            match input.take() {
                Ok(lines) => self.take(lines),
                Err(end) => break end,
            }
        };
        self.end(&end)
    }

    /// Records lines, a batch at a time, and acknowledges each batch once it is on disk.
    fn take(&mut self, lines: Vec<Line>) {
        let mut lines = lines.into_iter();
        loop {
            let begun = Instant::now();
            let (mut numbers, mut drafts) = (Vec::new(), Vec::new());
            for line in lines.by_ref() {
                let number = line.number;
                if let Some(draft) = self.read(line) {
                    numbers.push(number);
                    drafts.push(draft);
                }
                if begun.elapsed() >= READ_TIME {
                    break;
                }
            }
            let mut done = 0;
            while done < drafts.len() {
                let taken = self.record(&drafts[done..]);
                let count = taken.len();
                self.acknowledge(&numbers[done..], &taken);
                done += count;
            }
            if lines.len() == 0 {
                return;
            }
        }
    }

    /// Reads a line, or says what is wrong with it.
    fn read(&mut self, Line { number, text }: Line) -> Option<Draft> {
        let wrong = match text.as_deref() {
            Some(text) => match line::read(text, &self.defaults, &self.masker, now()) {
                Ok(line::Read { mut draft, says_new, unknown }) => {
                    self.note_unknown(number, unknown);
                    if draft.agent_id != self.defaults.agent_id {
                        draft.inside = None;
                    }
                    if let (Some(opened), false) = (&mut self.opened, says_new) {
                        draft.new = opened.insert(draft.agent_id.clone());
                    }
                    return Some(draft);
                }
                Err(wrong) => wrong,
            },
            None => line::Wrong {
                message: format!("it is longer than {LINE_MAX} bytes"),
                hint: "keep large output in a file and name it as an artifact".to_owned(),
            },
        };
        self.bad_lines += 1;
        self.ui.wrong(&format!("line {number} was skipped: {}", wrong.message), Some(&wrong.hint));
        None
    }

    /// A name that means nothing is said once, not for each of many lines.
    fn note_unknown(&mut self, number: u64, unknown: Vec<String>) {
        for name in unknown {
            if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&name) {
                let message = format!("line {number}: unknown field '{name}' is ignored");
                self.ui.warn(&message, Some(line::advice(&name)));
                self.unknown.insert(name);
            }
        }
    }

    /// Makes the first of these durable, as many as there is time for, and has sent what is due.
    fn record(&mut self, drafts: &[Draft]) -> Vec<Taken> {
        let (policy, config, couriers) = (&self.policy, self.config, &self.couriers);
        let written = self.keeper.write(|tx| {
            let recorded = record::record_many(tx, drafts, policy, RECORD_TIME)?;
            let office = match couriers {
                Some(links) => courier::appoint(tx, config, links.ways(), now())?,
                None => None,
            };
            let requests = if config.json { requests(tx, &recorded)? } else { Vec::new() };
            Ok((recorded, office, requests))
        });
        let Some((recorded, office, requests)) = written else { return self.remember(drafts) };
        if let Some(Err(error)) = office.map(|office| courier::start(config, &office)) {
            self.ui.warn(&format!("could not start a courier: {error}"), None);
        }
        if let Some(worker) = &self.worker
            && (self.config.has_audit() || recorded.iter().any(|(plan, _)| is_news(plan)))
        {
            worker.wake();
        }
        for (plan, recorded) in &recorded {
            let superseded = plan.superseded.as_ref().and_then(|append| append.task.key);
            self.tasks.extend([Some(recorded.task), superseded].into_iter().flatten().map(|task| task.0));
        }
        let requests = requests.into_iter().chain(std::iter::repeat_with(Vec::new));
        let taken =
            |((plan, recorded), requests)| Taken { plan, recorded: Some(recorded), requests, is_lost: false };
        recorded.into_iter().zip(requests).map(taken).collect()
    }

    /// Without a cache, sends what is due and remembers the rest.
    fn remember(&mut self, drafts: &[Draft]) -> Vec<Taken> {
        let take = |draft: &Draft| {
            let (plan, job) = self.memory.plan(draft, &self.policy, now());
            let is_printed = plan.append.checkpoint.delivery == Delivery::Printed;
            let is_lost = !is_printed && self.worker.is_none();
            if let (Some(worker), Some(job)) = (&self.worker, job) {
                worker.send_loose(job);
            }
            self.lost += usize::from(is_lost);
            Taken { plan, recorded: None, requests: Vec::new(), is_lost }
        };
        drafts.iter().map(take).collect()
    }

    /// Tells the caller what is on disk, or as safe as it can be.
    fn acknowledge(&mut self, numbers: &[u64], taken: &[Taken]) {
        let mut answer = String::new();
        for (number, taken) in numbers.iter().zip(taken) {
            let (task, checkpoint) = (&taken.plan.append.task, &taken.plan.append.checkpoint);
            let mut warnings = Vec::new();
            for notice in &taken.plan.notices {
                let (message, hint) = record::notice_words(notice);
                self.ui.warn(&format!("{}: {message}", task.agent_id), hint);
                warnings.push(message);
            }
            let line = if self.config.json {
                self.receipt(*number, taken, warnings)
            } else if checkpoint.delivery == Delivery::Printed {
                console::line(&task.agent_id, &task.snapshot)
            } else {
                continue;
            };
            answer.push_str(&line);
            answer.push('\n');
        }
        if answer.is_empty() || self.is_mute {
            return;
        }
        if let Err(error) = self.ui.answer(answer.trim_end()) {
            self.is_mute = true;
            self.ui.warn(&format!("{error:#}; going on without answers"), None);
        }
    }

    fn receipt(&self, number: u64, taken: &Taken, warnings: Vec<String>) -> String {
        let requests = taken.requests.clone();
        let mut receipt = Receipt { warnings, requests, ..Receipt::of(&taken.plan, self.config) };
        receipt.error = receipt.retry_at.and_then(|_| broken(self.config));
        if taken.recorded.is_none() {
            receipt.task_id = None;
            receipt.error = Some("not recorded: the cache cannot be used".to_owned());
        }
        let mut json = receipt.json();
        if taken.is_lost {
            // Nobody will try, so no word for a delivery fits.
            json["delivery"] = serde_json::Value::Null;
        }
        json["line"] = number.into();
        json.to_string()
    }

    /// Sends what is left, as far as the deadline goes, and says what became of it all.
    fn end(mut self, end: &End) -> Exit {
        if let End::Unreadable(reason) = end {
            self.ui.wrong(&format!("could not read standard input: {reason}"), None);
        }
        let by = Instant::now() + self.config.deadline.min(DEADLINE_MAX);
        let tasks: Vec<TaskKey> = self.tasks.iter().map(|task| TaskKey(*task)).collect();
        if matches!(self.config.target, Target::Slack(_)) && !self.config.no_post && !tasks.is_empty() {
            let began = self.began;
            let hurry = |task: &TaskKey, tx: &Tx<'_>| tx.hurry_last(*task, began, now());
            // What this cannot do was said, and is done later.
            let _ = self.keeper.write(|tx| tasks.iter().try_for_each(|task| hurry(task, tx)));
        }
        if let Some(worker) = self.worker.take() {
            self.memory.held().into_iter().for_each(|job| worker.send_loose(job));
            let each = tasks.iter().map(|task| Scope::Task(*task));
            let scopes = if tasks.len() > SCOPES_MAX { vec![Scope::All] } else { each.collect() };
            let persistent = self.config.background == BackgroundChoice::Never || self.config.strict;
            self.lost += worker.finish(worker::End { by, persistent, soon: worker::SOON, scopes }).lost;
        }
        let mut is_untold = self.config.has_broken_audit();
        let (waiting, refused) = match self.keeper.store() {
            Some(store) => {
                courier::leave_the_rest(store, self.config, self.ui);
                if let Some(forwarder) = Forwarder::new(self.config) {
                    is_untold = store.read(|tx| forwarder.due(tx, now())).map_or(true, |due| due.is_some());
                }
                if self.config.no_post {
                    (0, 0)
                } else {
                    store.read(|tx| tx.unsent(&tasks)).unwrap_or_default()
                }
            }
            _ => (0, 0),
        };
        self.say_what_is_left(waiting, refused);
        match end {
            // What was not read any more is the caller's to know.
            End::Signal(signal) => Exit::Signal(u8::try_from(*signal).unwrap_or_default()),
            _ if self.lost > 0 => Exit::Failed,
            End::Unreadable(_) => Exit::BadInput,
            End::Over if self.bad_lines > 0 => Exit::BadInput,
            End::Over if !self.config.strict => Exit::Done,
            End::Over if refused > 0 || self.config.is_wrong() => Exit::Config,
            End::Over if waiting > 0 || is_untold => Exit::NotYet,
            End::Over => Exit::Done,
        }
    }

    fn say_what_is_left(&self, waiting: u64, refused: u64) {
        if self.lost > 0 {
            let message = format!("neither recorded nor known to be delivered: {}", self.lost);
            self.ui.wrong(&message, Some("run agent-checkpoint doctor"));
        }
        if refused > 0 {
            let hint =
                "run agent-checkpoint doctor; once the cause is mended, agent-checkpoint flush --rejected";
            self.ui.warn(&format!("messages that Slack refused for good: {refused}"), Some(hint));
        }
        // A courier will see to what was left to it, and what is wrong with the destination was said already.
        let is_expected = self.config.background == BackgroundChoice::Always;
        if waiting > 0 && !is_expected && broken(self.config).is_none() {
            let hint = if self.config.background == BackgroundChoice::Never {
                "the next call or agent-checkpoint flush sends them"
            } else {
                "they are sent as soon as that is possible"
            };
            self.ui.warn(&format!("recorded, but not in Slack yet: {waiting}"), Some(hint));
        }
    }
}

/// What people want of each line's agent, as long as its task has not ended with it. Most times nobody wants anything.
fn requests(tx: &Tx<'_>, recorded: &[(Plan, Recorded)]) -> Result<Vec<Vec<Request>>, StoreError> {
    if !tx.has_requests()? {
        return Ok(Vec::new());
    }
    let mut known: HashMap<i64, Vec<Request>> = HashMap::new();
    let of_one = |(plan, recorded): &(Plan, Recorded)| {
        if matches!(plan.append.task.state, TaskState::Completed | TaskState::Cancelled) {
            return Ok(Vec::new());
        }
        if let Some(found) = known.get(&recorded.task.0) {
            return Ok(found.clone());
        }
        let found = tx.requests_ever(recorded.task)?;
        known.insert(recorded.task.0, found.clone());
        Ok(found)
    };
    recorded.iter().map(of_one).collect()
}

/// Whether there is something for the worker that it does not know of.
fn is_news(plan: &Plan) -> bool {
    match plan.append.entry {
        EntryChange::None => false,
        EntryChange::Insert { .. } => true,
        EntryChange::Repoint { .. } => plan.append.checkpoint.delivery == Delivery::Queued,
    }
}
