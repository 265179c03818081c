//! The verbs of policies.

use async_trait::async_trait;

use super::super::call::{Call, Reply, tenant_of};
use super::super::entry::LimitSeen;
use super::store::RecordingStore;
use crate::error::Result;
use crate::id::{Name, Tenant};
use crate::store::{Limit, LimitOf, LimitUse, Policies, QueuePolicy, Schedule, Scope};
use crate::text::Texts;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Policies> Policies for RecordingStore<S> {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        let call = Call::SetQueue {
            tenant: policy.tenant.clone(),
            queue: policy.queue.clone(),
            paused: policy.paused,
        };
        self.noted(call, self.inner.set_queue(policy), |()| Reply::Done).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        let call = Call::Queues { scope: tenant_of(scope) };
        let reply = |rows: &Vec<QueuePolicy>| Reply::Tenants {
            tenants: rows.iter().map(|row| row.tenant.clone()).collect(),
        };
        self.noted(call, self.inner.queues(scope), reply).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        let call = Call::Queues { scope: Some(tenant.clone()) };
        let reply = |row: &Option<QueuePolicy>| Reply::Tenants {
            tenants: row.iter().map(|row| row.tenant.clone()).collect(),
        };
        self.noted(call, self.inner.queue(tenant, queue), reply).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        let call = Call::SetLimit { of: limit.of.clone(), max: limit.max, rate: limit.rate };
        self.noted(call, self.inner.set_limit(limit), |()| Reply::Done).await
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        let call = Call::RemoveLimit { of: of.clone() };
        self.noted(call, self.inner.remove_limit(of), |_| Reply::Done).await
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        let call = Call::Limits { scope: tenant_of(scope) };
        let reply =
            |rows: &Vec<LimitUse>| Reply::Limits { limits: rows.iter().map(LimitSeen::from).collect() };
        self.noted(call, self.inner.limits(scope), reply).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        let call = Call::Limits { scope: Some(tenant.clone()) };
        let reply =
            |rows: &Vec<LimitUse>| Reply::Limits { limits: rows.iter().map(LimitSeen::from).collect() };
        self.noted(call, self.inner.limits_on(tenant, queue, keys), reply).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        let call = Call::SetSchedule { tenant: schedule.tenant.clone(), schedule: schedule.name.clone() };
        self.noted(call, self.inner.set_schedule(schedule), |()| Reply::Done).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        let call = Call::RemoveSchedule { tenant: tenant.clone(), schedule: name.clone() };
        self.noted(call, self.inner.remove_schedule(tenant, name), |_| Reply::Done).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        let call = Call::Schedules { scope: tenant_of(scope) };
        let reply = |rows: &Vec<Schedule>| Reply::Tenants {
            tenants: rows.iter().map(|row| row.tenant.clone()).collect(),
        };
        self.noted(call, self.inner.schedules(scope), reply).await
    }
}
