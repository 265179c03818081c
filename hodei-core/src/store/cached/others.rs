//! The verbs of owners, terms, queues, limits and schedules: all of them pass by the cache.

use std::time::Duration;

use async_trait::async_trait;

use super::store::CachedStore;
use crate::error::Result;
use crate::id::{Name, OwnerId, Tenant};
use crate::job::Lease;
use crate::store::{
    Beat, Coordination, Limit, LimitOf, LimitUse, Living, Policies, QueuePolicy, Round, Rounded, Schedule,
    Scope, Term,
};
use crate::text::Texts;
use crate::time::Timestamp;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Coordination> Coordination for CachedStore<S> {
    async fn register(&self, owner: &OwnerId, ttl: Duration) -> Result<Lease> {
        self.inner.register(owner, ttl).await
    }

    async fn beat(&self, owners: Vec<Lease>, ttl: Duration) -> Result<Vec<Beat>> {
        self.inner.beat(owners, ttl).await
    }

    async fn retire(&self, owner: &Lease) -> Result<()> {
        self.inner.retire(owner).await
    }

    async fn take_term(&self, duty: &Name, holder: &Lease, ttl: Duration) -> Result<Option<Term>> {
        self.inner.take_term(duty, holder, ttl).await
    }

    async fn keep_term(&self, term: &Term, ttl: Duration) -> Result<bool> {
        self.inner.keep_term(term, ttl).await
    }

    async fn round(&self, round: Round) -> Result<Rounded> {
        self.inner.round(round).await
    }

    async fn owners(&self) -> Result<Vec<Living>> {
        self.inner.owners().await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Policies> Policies for CachedStore<S> {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.inner.set_queue(policy).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        self.inner.queues(scope).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.inner.queue(tenant, queue).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        self.inner.set_limit(limit).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        self.inner.remove_limit(of).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        self.inner.limits(scope).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.inner.limits_on(tenant, queue, keys).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.inner.set_schedule(schedule).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.inner.remove_schedule(tenant, name).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        self.inner.schedules(scope).await
    }
}
