//! What operators set: queues, limits, schedules.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::query::Scope;
use super::rate::{Rate, Spent};
use crate::error::{Error, Result};
use crate::id::{JobId, Name, Tenant};
use crate::job::{JobSpec, NewJob};
use crate::text::Texts;
use crate::time::Timestamp;

/// How a tenant's queue is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Whose queue.
    pub tenant: Tenant,
    /// Which queue.
    pub queue: Name,
    /// Whether nothing is claimed from it.
    pub paused: bool,
    /// How it weighs against the tenant's other queues; at least 1. The tenant weighs against others as the heaviest of its
    /// queues that have work. Weights count among jobs of a level. Within a queue pipelines take turns by weights of their
    /// own ([`PipelineBuilder::weight`](crate::pipeline::PipelineBuilder::weight)).
    pub weight: u32,
}

/// Which jobs a limit is about.
///
/// The order is from the widest to the narrowest, then by tenant and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitOf {
    /// Those of the whole store. Requires [`Capabilities::limits_all`](super::Capabilities::limits_all).
    All,
    /// Those of a tenant.
    Tenant(Tenant),
    /// Those of a tenant's queue.
    Queue(Tenant, Name),
    /// Those of a tenant that name this key among their limits.
    Key(Tenant, Name),
}

impl LimitOf {
    /// Returns the limits that jobs of a tenant's queue count against which name these keys, the widest first, whether or
    /// not anybody set them.
    pub fn of_jobs<'a>(
        tenant: &'a Tenant,
        queue: &'a Name,
        keys: &'a Texts,
    ) -> impl Iterator<Item = Self> + 'a {
        let keys = keys.iter().filter_map(|key| Name::new(key).ok());
        Self::wide(tenant, queue).into_iter().chain(keys.map(|key| Self::Key(tenant.clone(), key)))
    }

    /// Returns those of them that are wider than a key.
    #[must_use]
    pub fn wide(tenant: &Tenant, queue: &Name) -> [Self; 3] {
        [Self::All, Self::Tenant(tenant.clone()), Self::Queue(tenant.clone(), queue.clone())]
    }

    /// Says whether a job counts against it while it is leased.
    #[must_use]
    pub fn counts(&self, tenant: &Tenant, spec: &JobSpec) -> bool {
        let names = |key: &Name| spec.limit_keys().iter().any(|named| named == key.as_str());
        match self {
            Self::All => true,
            Self::Tenant(of) => of == tenant,
            Self::Queue(of, queue) => of == tenant && queue == spec.queue(),
            Self::Key(of, key) => of == tenant && names(key),
        }
    }

    /// Returns whose jobs it is about; nothing for those of all tenants.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) | Self::Queue(tenant, _) | Self::Key(tenant, _) => Some(tenant),
        }
    }
}

impl fmt::Display for LimitOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("the whole store"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Queue(tenant, queue) => write!(f, "queue {queue} of {tenant}"),
            Self::Key(tenant, key) => write!(f, "key {key} of {tenant}"),
        }
    }
}

/// How many jobs may be leased at once, and how fast they may be claimed.
///
/// A job counts against every limit that is about it, of all four kinds at once, so the one with the least room decides.
///
/// What is claimed takes its tokens of a rate for good, in the transaction that claims it: also where the job is given back
/// unstarted, where its owner dies, and where the reply of the claim is lost. A retry is claimed again, and takes them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which jobs.
    pub of: LimitOf,
    /// How many at most; nothing runs at 0.
    pub max: u32,
    /// How fast; as fast as they can, where it is absent. Requires [`Capabilities::rates`](super::Capabilities::rates).
    pub rate: Option<Rate>,
}

impl Limit {
    /// So many jobs, as fast as they can.
    #[must_use]
    pub const fn new(of: LimitOf, max: u32) -> Self {
        Self { of, max, rate: None }
    }

    /// However many jobs, no faster than a rate.
    #[must_use]
    pub const fn paced(of: LimitOf, rate: Rate) -> Self {
        Self { of, max: u32::MAX, rate: Some(rate) }
    }

    /// Has the jobs claimed no faster than a rate.
    #[must_use]
    pub const fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Says whether its rate, if it has one, can be held.
    ///
    /// # Errors
    ///
    /// `Invalid`: no tokens, no time, no burst, or times longer than those of [`Rate`].
    pub fn check(&self) -> Result<()> {
        match self.rate.and_then(|rate| rate.fault()) {
            Some(fault) => Err(Error::invalid("store.set_limit", vec![fault])),
            None => Ok(()),
        }
    }

    /// So many jobs of the whole store.
    #[must_use]
    pub const fn all(max: u32) -> Self {
        Self::new(LimitOf::All, max)
    }

    /// So many jobs of a tenant.
    #[must_use]
    pub const fn tenant(tenant: Tenant, max: u32) -> Self {
        Self::new(LimitOf::Tenant(tenant), max)
    }

    /// So many jobs of a tenant's queue.
    #[must_use]
    pub const fn queue(tenant: Tenant, queue: Name, max: u32) -> Self {
        Self::new(LimitOf::Queue(tenant, queue), max)
    }

    /// So many jobs of a tenant that name a key.
    #[must_use]
    pub const fn key(tenant: Tenant, key: Name, max: u32) -> Self {
        Self::new(LimitOf::Key(tenant, key), max)
    }
}

/// A limit and how much of it is used. Exact: it changes in the transactions that claim, settle and reap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit.
    pub limit: Limit,
    /// How many leased jobs count against it now.
    pub in_use: u32,
    /// What is spent of its rate; nothing where it has none.
    pub spent: Spent,
}

/// Work that comes again and again. The store keeps it and fences its firing; when it fires is for the caller to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Whose schedule.
    pub tenant: Tenant,
    /// Its name, unique within the tenant.
    pub name: Name,
    /// When it fires, as the application writes it; opaque to stores.
    pub rule: Arc<str>,
    /// What is submitted.
    pub spec: Arc<JobSpec>,
    /// When it fired last, in schedule time.
    pub last_fired: Option<Timestamp>,
}

impl Schedule {
    /// Makes the job of a fire time. Its unique key names the schedule and the time, so that the pair gives one job even
    /// when the schedule was removed and set again in between, for as long as the job's key is kept.
    #[must_use]
    pub fn job(&self, at: Timestamp) -> NewJob {
        let key = format!("{KEY_PREFIX}{}@{}", self.name, at.as_micros());
        NewJob::of(self.tenant.clone(), Arc::clone(&self.spec)).unique(key)
    }

    /// Reads out of a job's unique key which schedule submitted it, and for which fire time.
    #[must_use]
    pub fn of_key(unique: &str) -> Option<(Name, Timestamp)> {
        let (name, at) = unique.strip_prefix(KEY_PREFIX)?.rsplit_once('@')?;
        Some((Name::new(name).ok()?, Timestamp::from_micros(at.parse().ok()?)))
    }
}

/// What the unique keys of fired jobs begin with.
const KEY_PREFIX: &str = "schedule/";

/// What came of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fired {
    /// The job was submitted now.
    New(JobId),
    /// That fire time, or a later one, had fired before, or another job has its key; nothing was submitted.
    Already,
    /// There is no such schedule.
    NotFound,
    /// The caller's term is over; nothing was submitted.
    TermLost,
}

/// Queues, limits and schedules.
///
/// # Cancel safety
///
/// A dropped write may have happened, whole; repeating it does no harm. Reads may be dropped at any point.
#[async_trait]
pub trait Policies: Send + Sync + fmt::Debug {
    /// Sets how a queue is served, from the next claim on.
    ///
    /// # Errors
    ///
    /// `Invalid` when the weight is zero.
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()>;

    /// Lists the queues that somebody set, by tenant and name.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>>;

    /// Reads how a queue of a tenant is served, where somebody set that.
    ///
    /// # Performance
    ///
    /// Reads its row alone, however many others the tenant has.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>>;

    /// Sets a limit, from the next claim on.
    ///
    /// # Behavior
    ///
    /// What is leased already counts, and stays leased where that is more than the limit lets through. A limit that had no rate
    /// begins with a full bucket; one that had another keeps what is spent ([`Rate::instead_of`]); the same one changes nothing.
    ///
    /// # Errors
    ///
    /// `Config`: one of the whole store, where [`Capabilities::limits_all`](super::Capabilities::limits_all) says that the
    /// store cannot hold it, or one with a rate, where [`Capabilities::rates`](super::Capabilities::rates) does. `Invalid`: a
    /// rate that [`Limit::check`] refuses.
    async fn set_limit(&self, limit: Limit) -> Result<()>;

    /// Removes a limit, and with it what is spent of its rate, from the next claim on; `false` when there was none.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn remove_limit(&self, of: &LimitOf) -> Result<bool>;

    /// Lists the limits that somebody set with their use, in the order of [`LimitOf`]. Those of a tenant begin with that of
    /// the whole store, against which its jobs count too, together with those of all others.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>>;

    /// Reads the limits that jobs of a tenant's queue with these keys count against, those that somebody set, as
    /// [`Policies::limits`] lists them.
    ///
    /// # Performance
    ///
    /// Reads the rows of these limits alone, however many others are set.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>>;

    /// Sets a schedule; what it fired last stays known. `last_fired` of the argument is ignored.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn set_schedule(&self, schedule: Schedule) -> Result<()>;

    /// Removes a schedule; `false` when there was none.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool>;

    /// Lists the schedules, by tenant and name.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>>;
}

const _: fn(&dyn Policies) = |_| ();
