//! A cache in a directory of its own, filled through planning and emptied by hand: no clock and no network.

#[cfg(feature = "postgres")]
mod audit;
mod claims;
mod courier;
mod family;
mod flushing;
mod laws;
mod leases;
mod opening;
mod questions;
mod reports;
#[cfg(feature = "serve")]
mod rolls;
mod settling;
#[cfg(feature = "postgres")]
mod shared;
mod statements;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::context::Thresholds;
use crate::checkpoint::id::{CheckpointId, EntryKey, TaskId, TaskKey};
use crate::checkpoint::outbox::{Credential, EntryKind, Job, Link, Priority, Settlement};
use crate::checkpoint::plan::{self, Policy, Route};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::Moment;
use crate::checkpoint::{Checkpoint, Draft, Task};

/// A moment to begin with.
const NOW: Moment = Moment(1_772_357_400_000);
const INTERVAL: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(15);

struct Cache {
    store: Store,
    now: Moment,
    /// What entries are recorded for.
    credential: Credential,
    dir: TempDir,
}

/// A row of the outbox, without what never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    kind: EntryKind,
    priority: Priority,
    state: i64,
    due_at: Moment,
    attempts: u32,
    maybe_sent: bool,
    reason: Option<String>,
}

/// A credential of this workspace.
fn workspace(number: u32) -> Credential {
    Credential::bot(&format!("xoxb-{number}00000000-222222222-abcdefg"))
}

/// How everyone of this workspace reaches Slack, unless said otherwise.
fn link(number: u32) -> Link {
    Link::new(workspace(number), "")
}

/// Until when entries are held back from now on; from now on, if they are not.
fn held_until(tx: &Tx<'_>, kind: EntryKind, reads_first: bool) -> Result<Moment, StoreError> {
    Ok(tx.hold_beyond(NOW, &link(1), (kind, reads_first), NOW)?.map_or(NOW, |(until, _)| until))
}

/// A process that lives: this one, under as many names as there are numbers.
fn owner(number: i64) -> Owner {
    Owner::current(Moment(number))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Cache {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let opened = Store::open_at(&dir.path().join("cache.db"), seconds(1)).expect("a fresh cache");
        assert_eq!(opened.set_aside, None);
        Self { store: opened.store, now: NOW, credential: workspace(1), dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cache.db")
    }

    fn pass(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }

    fn write<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> T {
        self.store.write(work).expect("a write that goes through")
    }

    /// Records a checkpoint as `emit` does.
    fn record(&mut self, draft: Draft) -> Recorded {
        let now = self.now;
        let draft = Draft { id: CheckpointId::new(now), ..draft };
        let policy = Policy {
            min_interval: INTERVAL,
            thresholds: Thresholds::default(),
            route: Route::Slack {
                credential: Some(self.credential.clone()),
                default_channel: Some("#agents".to_owned()),
            },
        };
        self.write(|tx| {
            let stored = tx.stored(&draft)?;
            let ids = (TaskId::new(now), CheckpointId::new(now));
            let plan = plan::plan(&stored, &draft, &policy, ids, now);
            if let Some(superseded) = &plan.superseded {
                tx.append(superseded, now)?;
            }
            tx.append(&plan.append, now)
        })
    }

    fn say(&mut self, agent_id: &str, status: Status) -> Recorded {
        self.record(Draft::of(agent_id, status))
    }

    /// Claims with `change`d wishes.
    fn claim_as(&mut self, by: &Owner, change: impl FnOnce(&mut ClaimFor<'_>)) -> Claim {
        self.claim_by(&link(1), by, change)
    }

    fn claim_by(&mut self, link: &Link, by: &Owner, change: impl FnOnce(&mut ClaimFor<'_>)) -> Claim {
        let mut want = ClaimFor {
            owner: by,
            link,
            explicit: false,
            scope: Scope::All,
            now: self.now,
            latest: self.now,
            lease: LEASE,
        };
        change(&mut want);
        self.store.write(|tx| tx.claim(&want)).expect("a claim that goes through")
    }

    fn claim(&mut self, by: &Owner) -> Claim {
        self.claim_as(by, |_| {})
    }

    /// Claims what must be there to be claimed.
    #[track_caller]
    fn job(&mut self, by: &Owner) -> Job {
        match self.claim(by) {
            Claim::Job(job) => *job,
            other => panic!("nothing to send: {other:?}"),
        }
    }

    /// Writes an outcome back and gives the lease up.
    fn settle(&mut self, job: &Job, by: &Owner, settlement: &Settlement) {
        let now = self.now;
        self.write(|tx| {
            tx.settle(job, settlement, now)?;
            tx.release(job.task.key.expect("a stored task"), by)
        });
    }

    /// Slack took the message: as the head of a thread, or in the task's thread.
    fn posted(&mut self, job: &Job, by: &Owner, ts: &str) {
        let posted = Settlement::Posted {
            channel_id: Some("C0AGENTS".to_owned()),
            ts: Some(ts.to_owned()),
            thread_ts: job.task.thread_ts.clone(),
        };
        self.settle(job, by, &posted);
    }

    /// Records a first checkpoint and posts it, so that the task has its thread and card.
    fn threaded(&mut self, agent_id: &str) -> TaskKey {
        let recorded = self.say(agent_id, Status::Working);
        let by = owner(1);
        let job = match self.claim_as(&by, |want| want.scope = Scope::Task(recorded.task)) {
            Claim::Job(job) => *job,
            other => panic!("nothing to send: {other:?}"),
        };
        self.posted(&job, &by, "1.1");
        self.pass(seconds(10));
        recorded.task
    }

    fn task(&mut self, key: TaskKey) -> Task {
        self.store.read(|tx| tx.task(key)).expect("a task")
    }

    fn checkpoints(&mut self, task: TaskKey) -> Vec<Checkpoint> {
        self.store.read(|tx| tx.checkpoints(task)).expect("checkpoints")
    }

    /// The whole outbox.
    fn entries(&mut self) -> Vec<(EntryKey, Row)> {
        let mut statement = self
            .store
            .connection
            .prepare("SELECT key, kind, priority, state, due_at_ms, attempts, maybe_sent, reason FROM entries ORDER BY key")
            .expect("a statement");
        let rows = statement.query_map([], |row| {
            let entry = Row {
                kind: rows::kind(row, 1)?,
                priority: rows::priority(row, 2)?,
                state: row.get(3)?,
                due_at: Moment(row.get(4)?),
                attempts: row.get(5)?,
                maybe_sent: row.get(6)?,
                reason: row.get(7)?,
            };
            Ok((EntryKey(row.get(0)?), entry))
        });
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    }

    fn rows(&mut self) -> Vec<Row> {
        self.entries().into_iter().map(|(_, row)| row).collect()
    }
}
