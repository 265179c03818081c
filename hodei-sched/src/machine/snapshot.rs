//! How a node stands.

use std::collections::BTreeMap;

#[cfg(feature = "sim")]
use hodei_core::JobId;
use hodei_core::job::{Priority, Resources, Runs};
use hodei_core::store::{Counts, LimitUse, Living};
#[cfg(feature = "sim")]
use hodei_core::text::TextMap;
use hodei_core::{Name, Tenant, Timestamp};

use super::scheduler::Scheduler;
use super::session::Session;

/// How a worker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLoad {
    /// Which worker.
    pub worker: Name,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many jobs it has.
    pub jobs: u32,
    /// Whether it takes no more work.
    pub draining: bool,
}

/// The jobs that workers of a node have and that ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassLoad {
    /// What runs them.
    pub runs: Runs,
    /// What is set aside for each.
    pub resources: Resources,
    /// How many there are.
    pub jobs: u32,
    /// Since when the first of them has been there, by the node's own time.
    pub since: Timestamp,
}

/// What is ready in a queue of a tenant at a level and no node has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLoad {
    /// Whose.
    pub tenant: Tenant,
    /// In which queue.
    pub queue: Name,
    /// At which level; of each request the most urgent jobs are told only.
    pub level: Priority,
    /// How many there are that its limits let through.
    pub jobs: u64,
    /// Since when the first one has been ready, by the store's time: its age is what has passed since.
    pub since: Timestamp,
}

/// What a store says of itself to a node: it is the same for all nodes on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreLoad {
    /// The store's time when it was asked.
    pub now: Timestamp,
    /// The dispatchers that are alive, of all nodes, and what they lead; a node with nothing to do rests, and is not among
    /// them.
    pub owners: Vec<Living>,
    /// How many jobs are in each state.
    pub counts: Counts,
    /// What is ready and not claimed, by tenant, queue and level, the most urgent first. Queues that this node does not serve,
    /// that are paused, or whose limits are used up, are not among it.
    pub queues: Vec<QueueLoad>,
    /// The limits that count anything now, the fullest first; of very many the first 1,000.
    pub limits: Vec<LimitUse>,
    /// When the next delayed job becomes ready.
    pub next_due: Option<Timestamp>,
}

/// How a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The connected workers, by name.
    pub workers: Vec<WorkerLoad>,
    /// What they run, by what it asks for; the most jobs first.
    pub running: Vec<ClassLoad>,
    /// How many claimed jobs no worker has yet.
    pub waiting: usize,
    /// How many transitions the store has not confirmed.
    pub unsettled: usize,
    /// For how many jobs the store was asked since the node began, and how many it gave: what is lacking was taken by other
    /// nodes or dispatchers meanwhile.
    pub claims: Claims,
    /// The worker that is kept for the most urgent job that found no room.
    pub kept: Option<Name>,
    /// How many calls of the store failed in a row.
    pub failures: u32,
    /// Whether no more work is taken.
    pub draining: bool,
    /// What the store says; nothing where it did not answer, and in what the machine alone tells.
    pub store: Option<StoreLoad>,
}

/// How many jobs were asked for and how many came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// How many were asked for.
    pub asked: u64,
    /// How many came.
    pub came: u64,
}

impl Snapshot {
    /// Adds how another dispatcher of the node stands.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.workers.extend(other.workers);
        self.workers.sort_by(|a, b| a.worker.cmp(&b.worker));
        self.running = classes(self.running.into_iter().chain(other.running));
        self.waiting += other.waiting;
        self.unsettled += other.unsettled;
        self.claims.asked += other.claims.asked;
        self.claims.came += other.claims.came;
        self.kept = self.kept.or(other.kept);
        self.failures = self.failures.max(other.failures);
        self.draining |= other.draining;
        self
    }
}

/// Adds up what asks for the same.
fn classes(loads: impl Iterator<Item = ClassLoad>) -> Vec<ClassLoad> {
    let mut all: Vec<ClassLoad> = Vec::new();
    for load in loads {
        match all.iter_mut().find(|there| there.runs == load.runs && there.resources == load.resources) {
            Some(there) => {
                there.jobs += load.jobs;
                there.since = there.since.min(load.since);
            }
            None => all.push(load),
        }
    }
    all.sort_by_key(|load| std::cmp::Reverse(load.jobs));
    all
}

impl Scheduler {
    /// Goes through the jobs that sessions have, with their workers.
    #[cfg(feature = "sim")]
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Name, JobId)> + '_ {
        let jobs =
            |(worker, session): (_, &'_ Session)| session.jobs().into_iter().map(move |job| (worker, job));
        self.sessions.iter().flat_map(jobs)
    }

    /// What a worker says about itself.
    #[cfg(feature = "sim")]
    pub(crate) fn labels_of(&self, worker: &Name) -> Option<&TextMap> {
        self.sessions.get(worker).map(|session| &session.offer.labels)
    }

    /// Says how everything stands, but for what the store knows.
    ///
    /// # Performance
    ///
    /// Looks at each job that workers have.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let load = |(name, session): (&Name, &Session)| WorkerLoad {
            worker: name.clone(),
            slots: session.offer.slots,
            jobs: u32::try_from(session.assigned.len()).unwrap_or(u32::MAX),
            draining: session.draining,
        };
        let kept = self.fleet.held().and_then(|(_, worker)| self.names.get(&worker).cloned());
        Snapshot {
            workers: self.sessions.iter().map(load).collect(),
            running: self.running(),
            waiting: self.buffer.len(),
            unsettled: self.outgoing.len()
                + self.sent.len()
                + self.later.values().map(Vec::len).sum::<usize>(),
            claims: self.claims,
            kept,
            failures: self.failures,
            draining: self.draining,
            store: None,
        }
    }

    fn running(&self) -> Vec<ClassLoad> {
        // First by number, so that what is said of a class is made once.
        let mut numbers: BTreeMap<u32, ClassLoad> = BTreeMap::new();
        for assigned in self.sessions.values().flat_map(|session| session.assigned.values()) {
            let load = numbers.entry(assigned.class.0).or_insert_with(|| {
                let mut request = assigned.job.spec.request();
                request.resources.memory = assigned.memory;
                ClassLoad { runs: request.runs, resources: request.resources, jobs: 0, since: Timestamp::MAX }
            });
            load.jobs += 1;
            load.since = load.since.min(assigned.since);
        }
        classes(numbers.into_values())
    }
}
