//! How an orchestrator is put together.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::bus::EventBus;
use hodei_core::codec::Codecs;
use hodei_core::security::AuditSink;
use hodei_core::store::{Limit, MemoryStore, Retention, Served, Store};
use hodei_core::{Clock, Error, ErrorKind, Fault, JobId, Name, OwnerId, Result, SystemClock, Tenant};
use tokio::sync::{mpsc, watch};

use super::audit::{AuditPolicy, Auditor};
use super::figures;
use super::handle::Orchestrator;
use crate::driver::{Common, Driver, Message, Pace, life};
use crate::herald::Herald;
use crate::machine::{Input, Policy, Scheduler, SchedulerConfig};
use crate::maintain::{self, Duties, Lead, Maintenance};
use crate::queue::seats;
use crate::settled::Waiters;

/// How many messages wait for the driver at most; senders wait beyond that.
const MESSAGES_MAX: usize = 4_096;

/// How many dispatchers a node has at most.
const DISPATCHERS_MAX: usize = 64;

/// Puts an orchestrator together. Nothing happens before [`OrchestratorBuilder::start`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct OrchestratorBuilder {
    store: Option<Arc<dyn Store>>,
    bus: Option<Arc<dyn EventBus>>,
    clock: Arc<dyn Clock>,
    node: Option<String>,
    queues: Option<Vec<String>>,
    ttl: Duration,
    beat: Duration,
    retention: Retention,
    machine: SchedulerConfig,
    policy: Policy,
    limits: Vec<Limit>,
    codecs: Codecs,
    audit: Option<(Arc<dyn AuditSink>, AuditPolicy)>,
    #[cfg(feature = "cron")]
    cron: Vec<crate::cron::CronJob>,
    dispatchers: usize,
}

impl Default for OrchestratorBuilder {
    fn default() -> Self {
        Self {
            store: None,
            bus: None,
            clock: Arc::new(SystemClock),
            node: None,
            queues: None,
            ttl: Duration::from_secs(6),
            beat: Duration::from_secs(2),
            retention: Retention::default(),
            machine: SchedulerConfig::default(),
            policy: Policy::default(),
            limits: Vec::new(),
            codecs: Codecs::new(),
            audit: None,
            #[cfg(feature = "cron")]
            cron: Vec::new(),
            dispatchers: 1,
        }
    }
}

impl OrchestratorBuilder {
    /// Sets where jobs are kept. Default: in memory, and gone with the process.
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// As [`OrchestratorBuilder::store`], for a store that others hold too.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the bus that carries the events. Default: none.
    pub fn bus(mut self, bus: impl EventBus + 'static) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }

    /// As [`OrchestratorBuilder::bus`], for a bus that others hold too. A node publishes whatever its store commits:
    /// nodes that share a store and a bus would publish it twice.
    pub fn shared_bus(mut self, bus: Arc<dyn EventBus>) -> Self {
        self.bus = Some(bus);
        self
    }

    /// Sets the clock of the node. Default: the operating system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the name under which the node holds leases; must differ from node to node. Default: one made up for this
    /// process.
    ///
    /// A node that starts under the name of an earlier one ends that one's life at once: what it held is taken back without
    /// waiting for its time to live. So the earlier process and its agents should be gone by then.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Serves only these queues. Default: all.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how often the node says that it is alive, and after how long of silence it counts as dead: more than two beats,
    /// and at most 366 days. Default: 2 s and 6 s.
    pub fn heartbeat(mut self, every: Duration, ttl: Duration) -> Self {
        self.beat = every;
        self.ttl = ttl;
        self
    }

    /// Sets how many owners may die under a job, nodes and agents alike, before it fails for good. Default: 3.
    pub fn lost_max(mut self, lost_max: u16) -> Self {
        self.machine.lost_max = lost_max;
        self
    }

    /// Encodes the arguments of handlers before they are stored; agents are given the same codecs. Default: no codec.
    pub fn codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = codecs;
        self
    }

    /// Writes down what is asked for through the handle, in an audit trail: submissions (one record for each tenant of a call),
    /// cancellations, redrives, limits, queues, the policy of the node and schedules; who asked is said by
    /// [`Orchestrator::acting_as`], else it is the node. No record has arguments of a job in it. What the engine does by itself
    /// is in the change log of the store. Default: nothing is written.
    ///
    /// A record says what was asked for, not what came of it, and no fence stands between the trail and the store.
    pub fn audit(mut self, sink: Arc<dyn AuditSink>, policy: AuditPolicy) -> Self {
        self.audit = Some((sink, policy));
        self
    }

    /// Sets what is kept of terminal jobs and changes. Default: [`Retention::default`].
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets all figures that the scheduler goes by, `lost_max` among them. Default: [`SchedulerConfig::default`].
    ///
    /// A time is at most 366 days, and none is zero but `rest_after`; `fence_margin` is set by the builder. `prefetch_max` is at
    /// most 1,048,576, `batch_max` 1 to 65,536, `preempt` 1 to 63, and `lost_max` and `memory_growth` are at least 1.
    pub fn scheduler(mut self, config: SchedulerConfig) -> Self {
        self.machine = config;
        self
    }

    /// Sets where jobs run and how fast they begin from the first decision on, as [`Orchestrator::set_policy`] does later.
    /// Default: anywhere, as fast as they can.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets a limit when the node starts, before it claims anything, as [`Orchestrator::set_limit`] does. Default: none; those
    /// that the store keeps hold all the same.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets a schedule when the node starts, as [`Schedules::set`](crate::cron::Schedules::set) does. Default: none; those
    /// that the store keeps fire all the same.
    #[cfg(feature = "cron")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cron")))]
    pub fn cron(mut self, job: crate::cron::CronJob) -> Self {
        self.cron.push(job);
        self
    }

    /// Sets how many dispatchers decide beside each other, at most 64. Default: 1.
    ///
    /// Each serves the workers that fall to it by their names, and claims what these can start under a lease of its own;
    /// one with nothing to do is lent what waits at another. The order is exact within each of them.
    pub fn dispatchers(mut self, dispatchers: usize) -> Self {
        self.dispatchers = dispatchers;
        self
    }

    /// Checks everything, registers the node, takes back what dead owners held, and starts dispatching.
    ///
    /// # Errors
    ///
    /// `Config` with every contradiction found; else what the store says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a node that was registered and not started expires.
    pub async fn start(self) -> Result<Orchestrator> {
        let (owner, served) = self.check()?;
        let config = self.scheduler_config();
        let store = self.store.unwrap_or_else(|| Arc::new(MemoryStore::new()));
        let herald = Arc::new(Herald { waiters: Waiters::default(), bus: self.bus });
        let feed = Arc::new(store.feed(Arc::<Herald>::clone(&herald)));
        let pace: Arc<dyn Clock> = Arc::new(Pace::from(&*self.clock));
        for limit in self.limits {
            store.set_limit(limit).await?;
        }
        let common = Common {
            feed,
            herald,
            store,
            clock: self.clock,
            pace: Arc::clone(&pace),
            served,
            codecs: self.codecs,
            ttl: self.ttl,
            failure: Arc::new(watch::Sender::new(None)),
        };
        let (mut dispatchers, mut lives) = (Vec::with_capacity(self.dispatchers), Vec::new());
        for number in 0..self.dispatchers {
            // The first one has the name of the node.
            let owner =
                if number == 0 { owner.clone() } else { OwnerId::new(format!("{}.{number}", owner.name()))? };
            lives.push(pace.now().saturating_add(life(self.ttl)));
            let lease = common.store.register(&owner, self.ttl).await?;
            dispatchers.push(Arc::new(common.dispatcher(owner, lease)));
        }
        let maintenance =
            Maintenance { beat: self.beat, lost_max: self.machine.lost_max, retention: self.retention };
        let duties = Duties::recover(&dispatchers[0], maintenance).await?;
        let mut seats: Vec<_> = seats(self.dispatchers).into_iter().map(Some).collect();
        if self.dispatchers == 1 {
            // Nobody to share with.
            seats = vec![None];
        }
        let policy = self.policy.clone();
        let (mut senders, mut drivers) = (Vec::new(), Vec::new());
        for ((shared, seat), until) in dispatchers.iter().zip(seats).zip(lives) {
            let (sender, messages) = mpsc::channel::<Message>(MESSAGES_MAX);
            let lease = shared.lease.borrow().clone();
            let mut machine = Scheduler::new(config.clone(), lease.clone(), pace.now());
            machine.handle(Input::Beaten(lease, Some(until)), pace.now());
            machine.handle(Input::Policy(Box::new(policy.clone())), pace.now());
            drivers.push(tokio::spawn(Driver::new(Arc::clone(shared), machine, messages, seat).run()));
            senders.push(sender);
        }
        let ways = dispatchers.iter().cloned().zip(senders.iter().map(mpsc::Sender::downgrade)).collect();
        let tell = watch::Sender::new(Lead::under(duties.term.clone()));
        #[cfg(feature = "cron")]
        let beats = tell.subscribe();
        let ends = maintain::Ends::new(());
        let upkeep = tokio::spawn(maintain::run(ways, duties, tell, ends.subscribe()));
        let audit = self.audit.map(|(sink, policy)| {
            let shared = &dispatchers[0];
            Auditor::start(sink, policy, Arc::clone(&shared.clock), shared.owner.name().as_str())
        });
        let mut orchestrator = Orchestrator::new(dispatchers, senders, drivers, (upkeep, ends));
        if let Some((auditor, writer)) = audit {
            orchestrator = orchestrator.audited(auditor, writer.map(tokio::spawn)).await;
        }
        #[cfg(feature = "cron")]
        orchestrator.serve_schedules(self.cron, beats).await?;
        Ok(orchestrator)
    }

    /// The scheduler's figures. Agents call often enough to hear of a beat in time, however short the node's life is.
    fn scheduler_config(&self) -> SchedulerConfig {
        let hears = life(self.ttl).saturating_sub(self.beat) * 2 / 3;
        let next_sync = self.machine.next_sync.min(hears);
        SchedulerConfig { next_sync, fence_margin: self.ttl - life(self.ttl), ..self.machine.clone() }
    }

    fn check(&self) -> Result<(OwnerId, Served)> {
        let mut faults = Vec::new();
        let node = self.node.clone().unwrap_or_else(made_up_name);
        faults.extend(Name::fault("node", &node));
        for queue in self.queues.iter().flatten() {
            faults.extend(Name::fault("queues", queue));
        }
        faults.extend(figures::heartbeat(self.beat, self.ttl));
        if !(1..=DISPATCHERS_MAX).contains(&self.dispatchers) {
            faults.push(Fault::new("dispatchers", "out_of_range").limit(DISPATCHERS_MAX as u64));
        }
        if matches!(self.audit, Some((_, AuditPolicy::GoOn { waiting: 0 }))) {
            faults.push(Fault::new("audit.waiting", "zero"));
        }
        faults.extend(figures::scheduler(&self.machine));
        if self.retention.jobs < Retention::KEYS_MIN {
            faults.push(Fault::new("retention.jobs", "too_short").limit(Retention::KEYS_MIN.as_secs()));
        }
        #[cfg(feature = "cron")]
        faults.extend(self.cron.iter().flat_map(crate::cron::CronJob::faults));
        if let Some(first) = faults.first() {
            let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return Err(Error::new(ErrorKind::Config, "orchestrator.start")
                .with("field", &first.field)
                .with("why", text.join("; ")));
        }
        let queues: Option<Result<Vec<Name>>> =
            self.queues.as_ref().map(|queues| queues.iter().map(Name::new).collect());
        Ok((OwnerId::new(node)?, Served { queues: queues.transpose()?, every_level: false }))
    }
}

/// A name that no other process has: the text of a fresh id.
fn made_up_name() -> String {
    format!("node-{}", JobId::mint(&Tenant::default(), &SystemClock))
}
