//! What operators set: queues, limits, schedules.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::query::Scope;
use crate::error::Result;
use crate::id::{JobId, Name, Tenant};
use crate::job::{JobSpec, NewJob};
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
    /// How it weighs against others; at least 1.
    pub weight: u32,
}

/// How many of a tenant's jobs that name a key may be leased at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose limit.
    pub tenant: Tenant,
    /// The key that jobs name.
    pub key: Name,
    /// How many at most; nothing runs at 0.
    pub max: u32,
}

/// A limit and how much of it is used. Exact: it changes in the transactions that claim, settle and reap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit.
    pub limit: Limit,
    /// How many leased jobs count against it now.
    pub in_use: u32,
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

    /// Sets a limit, from the next claim on. What is leased already stays leased.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn set_limit(&self, limit: Limit) -> Result<()>;

    /// Lists the limits that somebody set with their use, by tenant and key.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>>;

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
