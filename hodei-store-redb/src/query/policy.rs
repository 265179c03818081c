//! What operators set.

use hodei_core::Result;
use hodei_core::store::{Limit, LimitUse, QueuePolicy, Schedule, Scope};

use crate::codec;
use crate::inner::Inner;
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// Reads the rows of a scope from a table whose keys begin with the tenant.
fn all<R>(rows: &mut Snapshot<'_>, tab: Tab, scope: &Scope, read: fn(&[u8]) -> Result<R>) -> Result<Vec<R>> {
    let prefix = match scope {
        Scope::Tenant(tenant) => key::tenant_prefix(tenant),
        Scope::All => Vec::new(),
    };
    let mut all = Vec::new();
    rows.scan_prefix(tab, &prefix, |_, row| {
        all.push(read(row)?);
        Ok(true)
    })?;
    Ok(all)
}

/// Lists the queues that somebody set.
pub(crate) fn queues(rows: &mut Snapshot<'_>, scope: &Scope) -> Result<Vec<QueuePolicy>> {
    all(rows, Tab::Queues, scope, codec::queue)
}

/// Lists the limits that somebody set, with their use.
pub(crate) fn limits(rows: &mut Snapshot<'_>, inner: &Inner, scope: &Scope) -> Result<Vec<LimitUse>> {
    let limits = all(rows, Tab::Limits, scope, codec::limit)?;
    let index = &lock(&inner.committed).index;
    let with_use = |limit: Limit| {
        let used = index.in_use.get(&(limit.tenant.clone(), limit.key.as_str().into())).copied().unwrap_or(0);
        LimitUse { limit, in_use: u32::try_from(used).unwrap_or(u32::MAX) }
    };
    Ok(limits.into_iter().map(with_use).collect())
}

/// Lists the schedules.
pub(crate) fn schedules(rows: &mut Snapshot<'_>, scope: &Scope) -> Result<Vec<Schedule>> {
    all(rows, Tab::Schedules, scope, codec::schedule)
}
