//! Queues, limits, schedules.

use std::iter::once;

use hodei_core::store::{QueuePolicy, Schedule};
use hodei_core::{Error, Fault, Name, Result, Tenant};

use super::work::Work;
use crate::codec;
use crate::key;
use crate::rows::Rows;
use crate::table::Tab;

/// Sets how a queue is served.
pub(crate) fn set_queue(work: &mut Work<'_, '_>, policy: &QueuePolicy) -> Result<()> {
    if policy.weight == 0 {
        return Err(Error::invalid("store.set_queue", vec![Fault::new("weight", "zero")]));
    }
    work.slots.writable("store.set_queue", once(policy.tenant.slot()))?;
    work.delta.ring = true;
    let key = key::tenant_text(&policy.tenant, policy.queue.as_str());
    work.put(Tab::Queues, &key, &codec::queue_row(policy)?)
}

/// Sets a schedule; what it fired last stays known.
pub(crate) fn set_schedule(work: &mut Work<'_, '_>, schedule: &Schedule) -> Result<()> {
    work.slots.writable("store.set_schedule", once(schedule.tenant.slot()))?;
    let key = key::tenant_text(&schedule.tenant, schedule.name.as_str());
    let before = work.read(Tab::Schedules, &key, codec::schedule)?;
    let schedule = Schedule { last_fired: before.and_then(|before| before.last_fired), ..schedule.clone() };
    work.put(Tab::Schedules, &key, &codec::schedule_row(&schedule)?)
}

/// Removes a schedule.
pub(crate) fn remove_schedule(work: &mut Work<'_, '_>, tenant: &Tenant, name: &Name) -> Result<bool> {
    work.slots.writable("store.remove_schedule", once(tenant.slot()))?;
    work.remove(Tab::Schedules, &key::tenant_text(tenant, name.as_str()))
}
