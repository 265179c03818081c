//! What operators set, and counts.

use std::sync::Arc;

use hodei_core::job::State;
use hodei_core::store::{Counts, Limit, LimitOf, QueueCounts, QueuePolicy, Schedule};
use hodei_core::{Name, Result, Tenant, Timestamp};

use super::envelope::{decode, encode};
use super::row::{CountsRow, LimitRow, QueueRow, ScheduleRow};
use super::spec::{spec, spec_row};
use super::value::{name, tenant, time};

/// Writes how many jobs of a queue are in each state.
pub(crate) fn counts_row(tenant: &Tenant, queue: &Name, counts: &Counts) -> Result<Vec<u8>> {
    let counts = State::ALL.map(|state| counts.of(state));
    encode(&CountsRow { tenant: tenant.as_str(), queue: queue.as_str(), counts }, 64)
}

/// Reads how many jobs of a queue are in each state.
pub(crate) fn counts(bytes: &[u8]) -> Result<QueueCounts> {
    let row: CountsRow<'_> = decode(bytes)?;
    Ok(QueueCounts {
        tenant: tenant(row.tenant)?,
        queue: name(row.queue)?,
        counts: Counts::from_numbers(row.counts),
    })
}

/// What the name of a queue begins with where a limit may have a key instead: no name holds it.
const QUEUE: char = '\0';

/// Writes a limit.
pub(crate) fn limit_row(limit: &Limit) -> Result<Vec<u8>> {
    let marked;
    let (tenant, key) = match &limit.of {
        LimitOf::All => ("", ""),
        LimitOf::Tenant(tenant) => (tenant.as_str(), ""),
        LimitOf::Queue(tenant, queue) => {
            marked = format!("{QUEUE}{queue}");
            (tenant.as_str(), marked.as_str())
        }
        LimitOf::Key(tenant, key) => (tenant.as_str(), key.as_str()),
    };
    encode(&LimitRow { tenant, key, max: limit.max }, 64)
}

/// Reads a limit.
pub(crate) fn limit(bytes: &[u8]) -> Result<Limit> {
    let row: LimitRow<'_> = decode(bytes)?;
    let of = match (row.tenant, row.key) {
        ("", "") => LimitOf::All,
        (of, "") => LimitOf::Tenant(tenant(of)?),
        (of, key) => match key.strip_prefix(QUEUE) {
            Some(queue) => LimitOf::Queue(tenant(of)?, name(queue)?),
            None => LimitOf::Key(tenant(of)?, name(key)?),
        },
    };
    Ok(Limit { of, max: row.max })
}

/// Writes how a queue is served.
pub(crate) fn queue_row(policy: &QueuePolicy) -> Result<Vec<u8>> {
    let QueuePolicy { tenant, queue, paused, weight } = policy;
    encode(&QueueRow { tenant: tenant.as_str(), queue: queue.as_str(), paused: *paused, weight: *weight }, 64)
}

/// Reads how a queue is served.
pub(crate) fn queue(bytes: &[u8]) -> Result<QueuePolicy> {
    let row: QueueRow<'_> = decode(bytes)?;
    Ok(QueuePolicy {
        tenant: tenant(row.tenant)?,
        queue: name(row.queue)?,
        paused: row.paused,
        weight: row.weight,
    })
}

/// Writes a schedule.
pub(crate) fn schedule_row(schedule: &Schedule) -> Result<Vec<u8>> {
    let row = ScheduleRow {
        tenant: schedule.tenant.as_str(),
        name: schedule.name.as_str(),
        rule: &schedule.rule,
        last_fired: schedule.last_fired.map(Timestamp::as_micros),
        spec: spec_row(&schedule.spec),
    };
    encode(&row, 768)
}

/// Reads a schedule.
pub(crate) fn schedule(bytes: &[u8]) -> Result<Schedule> {
    let row: ScheduleRow<'_> = decode(bytes)?;
    Ok(Schedule {
        tenant: tenant(row.tenant)?,
        name: name(row.name)?,
        rule: Arc::from(row.rule),
        spec: Arc::new(spec(row.spec)?),
        last_fired: row.last_fired.map(time),
    })
}
