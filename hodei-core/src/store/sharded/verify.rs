//! Compares the shards with the map.

use super::super::{Query, Scope, Shard};
use super::map::ShardMap;
use super::store::{READ_TRIES, ShardedStore};
use crate::error::{Error, ErrorKind, Result};

const OP: &str = "store.verify_indexes";

impl ShardedStore {
    /// Verifies every shard, and that every job and policy is where the map has its slot; again when slots moved
    /// meanwhile.
    pub(super) async fn contradictions(&self) -> Result<Vec<String>> {
        for _ in 0..READ_TRIES {
            let map = self.still(OP).await?;
            let wrong = self.compared_with(&map).await?;
            if self.is_still(&map).await? {
                return Ok(wrong);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).with("map", "changing"))
    }

    async fn compared_with(&self, map: &ShardMap) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (n, shard) in self.shards().iter().enumerate() {
            let of_shard = self.ask_one(n, shard.verify_indexes()).await?;
            wrong.extend(of_shard.into_iter().map(|text| format!("shard {n}: {text}")));
            wrong.extend(self.strangers(map, n, &**shard).await?);
        }
        Ok(wrong)
    }

    async fn strangers(&self, map: &ShardMap, n: usize, shard: &dyn Shard) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut query = Query::new().oldest_first().limit(Query::LIMIT_MAX);
        loop {
            let page = self.ask_one(n, shard.query(&Scope::All, query.clone())).await?;
            let strange = page.jobs.iter().filter(|job| map.shard_of(job.id.slot()) != n);
            wrong.extend(strange.map(|job| format!("shard {n}: job {} belongs to another shard", job.id)));
            let Some(next) = page.next else { break };
            query = query.after(next);
        }
        let queues = self.ask_one(n, shard.queues(&Scope::All)).await?.into_iter().map(|row| row.tenant);
        let limits = self.ask_one(n, shard.limits(&Scope::All)).await?.into_iter();
        let limits = limits.filter_map(|row| row.limit.of.tenant().cloned());
        let schedules =
            self.ask_one(n, shard.schedules(&Scope::All)).await?.into_iter().map(|row| row.tenant);
        let tenants = queues.chain(limits).chain(schedules).filter(|tenant| map.shard_of(tenant.slot()) != n);
        wrong.extend(
            tenants.map(|tenant| format!("shard {n}: a policy of {tenant} belongs to another shard")),
        );
        Ok(wrong)
    }
}
