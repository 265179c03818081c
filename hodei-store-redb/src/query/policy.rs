//! What operators set.

use std::collections::BTreeSet;

use hodei_core::store::{Limit, LimitOf, LimitUse, QueuePolicy, Schedule, Scope};
use hodei_core::{Name, Result, Slot, Tenant};

use super::list::slot_of;
use crate::codec;
use crate::inner::Inner;
use crate::key;
use crate::reader::Snapshot;
use crate::rows::Rows;
use crate::sync::lock;
use crate::table::Tab;

/// How a row is read.
type Read<R> = fn(&[u8]) -> Result<R>;

/// Whose a row is; nothing for everybody's.
type Of<R> = fn(&R) -> Option<&Tenant>;

/// Reads the rows of a scope from a table whose keys begin with the tenant, but for tenants that nobody sees.
fn all<R>(
    rows: &mut Snapshot<'_>,
    op: &'static str,
    tab: Tab,
    scope: &Scope,
    (read, of): (Read<R>, Of<R>),
) -> Result<Vec<R>> {
    let slots = rows.view.slots.clone();
    slots.readable(op, slot_of(scope))?;
    let prefix = match scope {
        Scope::Tenant(tenant) => key::tenant_prefix(tenant),
        Scope::All => Vec::new(),
    };
    let mut all = Vec::new();
    rows.scan_prefix(tab, &prefix, |_, row| {
        let hidden = |of: &Tenant| slots.hides(|| of.slot());
        all.extend(Some(read(row)?).filter(|row| !of(row).is_some_and(hidden)));
        Ok(true)
    })?;
    Ok(all)
}

/// Lists the queues that somebody set.
pub(crate) fn queues(rows: &mut Snapshot<'_>, scope: &Scope) -> Result<Vec<QueuePolicy>> {
    all(rows, "store.queues", Tab::Queues, scope, (codec::queue, |row| Some(&row.tenant)))
}

/// Reads how a queue is served, if somebody set it.
pub(crate) fn queue(rows: &mut Snapshot<'_>, tenant: &Tenant, queue: &Name) -> Result<Option<QueuePolicy>> {
    rows.view.slots.readable("store.queue", std::iter::once(tenant.slot()))?;
    rows.read(Tab::Queues, &key::tenant_text(tenant, queue.as_str()), codec::queue)
}

/// Lists the limits that somebody set, with their use.
pub(crate) fn limits(rows: &mut Snapshot<'_>, inner: &Inner, scope: &Scope) -> Result<Vec<LimitUse>> {
    let mut limits =
        all(rows, "store.limits", Tab::Limits, scope, (codec::limit, |row: &Limit| row.of.tenant()))?;
    if matches!(scope, Scope::Tenant(_)) {
        limits.extend(rows.read(Tab::Limits, &key::limit(&LimitOf::All), codec::limit)?);
    }
    limits.sort_unstable_by(|a, b| a.of.cmp(&b.of));
    Ok(with_use(inner, limits))
}

/// Reads those of some limits of a slot that somebody set, with their use.
pub(crate) fn limits_on(
    rows: &mut Snapshot<'_>,
    inner: &Inner,
    slot: Slot,
    of: &BTreeSet<LimitOf>,
) -> Result<Vec<LimitUse>> {
    rows.view.slots.readable("store.limits_on", std::iter::once(slot))?;
    let mut limits = Vec::new();
    for of in of {
        limits.extend(rows.read(Tab::Limits, &key::limit(of), codec::limit)?);
    }
    Ok(with_use(inner, limits))
}

fn with_use(inner: &Inner, limits: Vec<Limit>) -> Vec<LimitUse> {
    let index = &lock(&inner.committed).index;
    let with_use = |limit: Limit| {
        let used = match &limit.of {
            LimitOf::Key(tenant, key) => {
                index.in_use.get(&(tenant.clone(), key.as_str().into())).copied().unwrap_or(0)
            }
            wide => index.wide_use(wide),
        };
        let (rate, spent) = index.rates.get(&limit.of).unzip();
        let in_use = u32::try_from(used).unwrap_or(u32::MAX);
        LimitUse { limit: Limit { rate, ..limit }, in_use, spent: spent.unwrap_or_default() }
    };
    limits.into_iter().map(with_use).collect()
}

/// Lists the schedules.
pub(crate) fn schedules(rows: &mut Snapshot<'_>, scope: &Scope) -> Result<Vec<Schedule>> {
    all(rows, "store.schedules", Tab::Schedules, scope, (codec::schedule, |row| Some(&row.tenant)))
}
