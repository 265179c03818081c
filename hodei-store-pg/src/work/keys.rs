//! Unique keys: who holds them, and whom they pass to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hodei_core::{JobId, Result, Tenant};
use uuid::Uuid;

use super::transaction::Work;
use crate::ask;
use crate::codec::damaged;
use crate::error::failed;
use crate::names::column;
use crate::record::{id_of, uuid_of};

/// Who holds which key.
pub(crate) type Keys = HashMap<(Tenant, Arc<str>), JobId>;

impl Work<'_> {
    /// Returns who holds keys, as the transaction has left it so far.
    pub(crate) async fn key_holders(&mut self, mut keys: Vec<(Tenant, Arc<str>)>) -> Result<Keys> {
        // No stored text has a zero byte.
        keys.retain(|(_, key)| !key.contains('\0'));
        if keys.is_empty() {
            return Ok(Keys::new());
        }
        let mut holders = self.stored_holders(&keys).await?;
        holders.retain(|_, id| self.job(*id).is_none_or(|job| job.held_key().is_some()));
        let asked: HashSet<(Tenant, Arc<str>)> = keys.into_iter().collect();
        let held = self.entries.values().filter_map(|entry| {
            let held = (entry.job.tenant.clone(), Arc::clone(entry.job.held_key()?));
            asked.contains(&held).then_some((held, entry.job.id))
        });
        holders.extend(held);
        Ok(holders)
    }

    async fn stored_holders(&mut self, keys: &[(Tenant, Arc<str>)]) -> Result<Keys> {
        const OP: &str = "store.keys";
        let (tenants, texts): (Vec<&str>, Vec<&str>) =
            keys.iter().map(|(tenant, key)| (tenant.as_str(), &**key)).unzip();
        self.inner.trip();
        ask::query(
            "SELECT hodei.free_keys(t.no, u.keys) FROM (
                 SELECT u.tenant, array_agg(u.key) AS keys FROM unnest($1::text[], $2::text[]) u (tenant, key)
                 GROUP BY u.tenant
             ) u JOIN hodei.tenant t ON t.name = u.tenant ORDER BY t.no",
        )
        .bind(&tenants)
        .bind(&texts)
        .execute(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        self.inner.trip();
        let rows = ask::query(
            "SELECT t.name, k.key, k.id FROM unnest($1::text[], $2::text[]) u (tenant, key)
             JOIN hodei.tenant t ON t.name = u.tenant
             JOIN hodei.unique_key k ON k.tenant = t.no AND k.key = u.key",
        )
        .bind(&tenants)
        .bind(&texts)
        .fetch_all(&mut *self.conn)
        .await
        .map_err(failed(OP))?;
        let holder = |row| {
            let tenant = Tenant::new(column::<&str>(row, 0)?).map_err(|_| damaged("a bad name"))?;
            Ok(((tenant, Arc::from(column::<&str>(row, 1)?)), id_of(column::<Uuid>(row, 2)?)))
        };
        rows.iter().map(holder).collect()
    }

    /// Frees the keys that jobs leave, and takes those of jobs that are new or go round again.
    pub(super) async fn write_keys(&mut self) -> Result<()> {
        let (mut tenants, mut keys, mut ids, mut taken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in self.changed() {
            let Some(key) = entry.job.unique.as_deref() else { continue };
            let held_before = entry.before.is_some_and(|place| place.keyed);
            let takes = match (held_before, entry.job.held_key().is_some()) {
                (true, false) => false,
                (false, true) => true,
                (true, true) | (false, false) => continue,
            };
            tenants.push(entry.lane.tenant_no);
            keys.push(key.to_owned());
            ids.push(uuid_of(entry.job.id));
            taken.push(takes);
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.inner.trip();
        ask::query("SELECT hodei.pass_keys($1, $2, $3, $4)")
            .bind(tenants)
            .bind(keys)
            .bind(ids)
            .bind(taken)
            .execute(&mut *self.conn)
            .await
            .map(drop)
            .map_err(failed("store.write"))
    }
}
