//! The verbs of policies, each in the shard of its tenant.

use async_trait::async_trait;

use super::super::*;
use super::store::{Asked, ShardedStore, slot_of};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Name, Slot, Tenant};
use crate::text::Texts;

impl ShardedStore {
    /// Writes in the shard of a slot.
    pub(super) async fn write_slot<'a, T>(
        &'a self,
        slot: Slot,
        write: impl FnOnce(&'a dyn Shard) -> Asked<'a, T>,
    ) -> Result<T> {
        let map = self.map();
        let shard = map.shard_of(slot);
        match self.ask_one(shard, write(&*self.shards()[shard])).await {
            Ok(done) => Ok(done),
            Err(error) => self.refused(&map, error).await,
        }
    }

    /// Lists rows of a scope, in the order of their keys.
    async fn rows<'a, T: Send, K: Ord>(
        &'a self,
        op: &'static str,
        scope: &'a Scope,
        list: impl Fn(&'a dyn Shard) -> Asked<'a, Vec<T>> + Sync,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>> {
        if let Some(slot) = slot_of(scope) {
            return self.read_slot(slot, list).await;
        }
        let mut rows: Vec<T> = self.read_all(op, list).await?.into_iter().flatten().collect();
        rows.sort_by_cached_key(key);
        Ok(rows)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Policies for ShardedStore {
    async fn set_queue(&self, policy: QueuePolicy) -> Result<()> {
        self.write_slot(policy.tenant.slot(), |shard| shard.set_queue(policy)).await
    }

    async fn queues(&self, scope: &Scope) -> Result<Vec<QueuePolicy>> {
        let key = |row: &QueuePolicy| (row.tenant.clone(), row.queue.clone());
        self.rows("store.queues", scope, |shard| shard.queues(scope), key).await
    }

    async fn queue(&self, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
        self.read_slot(tenant.slot(), |shard| shard.queue(tenant, queue)).await
    }

    async fn set_limit(&self, limit: Limit) -> Result<()> {
        match limit.of.tenant() {
            Some(tenant) => self.write_slot(tenant.slot(), |shard| shard.set_limit(limit)).await,
            None if self.shards().len() == 1 => self.ask_one(0, self.shards()[0].set_limit(limit)).await,
            // No shard sees what the others have leased.
            None => Err(Error::new(ErrorKind::Config, "store.set_limit").with("shards", self.shards().len())),
        }
    }

    async fn remove_limit(&self, of: &LimitOf) -> Result<bool> {
        match of.tenant() {
            Some(tenant) => self.write_slot(tenant.slot(), |shard| shard.remove_limit(of)).await,
            None if self.shards().len() == 1 => self.ask_one(0, self.shards()[0].remove_limit(of)).await,
            None => Ok(false),
        }
    }

    async fn limits(&self, scope: &Scope) -> Result<Vec<LimitUse>> {
        let key = |row: &LimitUse| row.limit.of.clone();
        self.rows("store.limits", scope, |shard| shard.limits(scope), key).await
    }

    async fn limits_on(&self, tenant: &Tenant, queue: &Name, keys: &Texts) -> Result<Vec<LimitUse>> {
        self.read_slot(tenant.slot(), |shard| shard.limits_on(tenant, queue, keys)).await
    }

    async fn set_schedule(&self, schedule: Schedule) -> Result<()> {
        self.write_slot(schedule.tenant.slot(), |shard| shard.set_schedule(schedule)).await
    }

    async fn remove_schedule(&self, tenant: &Tenant, name: &Name) -> Result<bool> {
        self.write_slot(tenant.slot(), |shard| shard.remove_schedule(tenant, name)).await
    }

    async fn schedules(&self, scope: &Scope) -> Result<Vec<Schedule>> {
        let key = |row: &Schedule| (row.tenant.clone(), row.name.clone());
        self.rows("store.schedules", scope, |shard| shard.schedules(scope), key).await
    }
}
