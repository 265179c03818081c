//! What operators set, and counts.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::job::State;
use hodei_core::store::{Counts, Limit, LimitOf, QueueCounts, QueuePolicy, Rate, Schedule, Spent};
use hodei_core::{Name, Result, Tenant, Timestamp};

use super::envelope::{decode, encode};
use super::row::{CountsRow, LimitRow, QueueRow, RateRow, ScheduleRow, UncountedRow};
use super::spec::{spec, spec_row};
use super::value::{name, tenant, time};
use crate::error::corrupt;
use crate::key;
use crate::memory::Paced;

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

/// Writes how many jobs of a tenant that are not counted by queue are in each state.
pub(crate) fn uncounted_row(tenant: &Tenant, counts: &Counts) -> Result<Vec<u8>> {
    encode(&UncountedRow { tenant: tenant.as_str(), counts: State::ALL.map(|state| counts.of(state)) }, 64)
}

/// Reads how many jobs of a tenant that are not counted by queue are in each state.
pub(crate) fn uncounted(bytes: &[u8]) -> Result<(Tenant, Counts)> {
    let row: UncountedRow<'_> = decode(bytes)?;
    Ok((tenant(row.tenant)?, Counts::from_numbers(row.counts)))
}

/// Reads how many jobs are in each state: of a queue, or of a tenant where the key names none.
pub(crate) fn counted(key: &[u8], bytes: &[u8]) -> Result<(Tenant, Option<Name>, Counts)> {
    if key::ends_with_tenant(key) {
        let (tenant, counts) = uncounted(bytes)?;
        return Ok((tenant, None, counts));
    }
    let QueueCounts { tenant, queue, counts } = counts(bytes)?;
    Ok((tenant, Some(queue), counts))
}

/// What the name of a queue begins with where a limit may have a key instead: no name holds it.
const QUEUE: char = '\0';

/// The tenant and the key of a limit.
fn texts(of: &LimitOf) -> (&str, Cow<'_, str>) {
    match of {
        LimitOf::All => ("", "".into()),
        LimitOf::Tenant(tenant) => (tenant.as_str(), "".into()),
        LimitOf::Queue(tenant, queue) => (tenant.as_str(), format!("{QUEUE}{queue}").into()),
        LimitOf::Key(tenant, key) => (tenant.as_str(), key.as_str().into()),
    }
}

fn limit_of(of: &str, key: &str) -> Result<LimitOf> {
    Ok(match (of, key) {
        ("", "") => LimitOf::All,
        (of, "") => LimitOf::Tenant(tenant(of)?),
        (of, key) => match key.strip_prefix(QUEUE) {
            Some(queue) => LimitOf::Queue(tenant(of)?, name(queue)?),
            None => LimitOf::Key(tenant(of)?, name(key)?),
        },
    })
}

/// Writes a limit, without its rate.
pub(crate) fn limit_row(limit: &Limit) -> Result<Vec<u8>> {
    let (tenant, key) = texts(&limit.of);
    encode(&LimitRow { tenant, key: &key, max: limit.max }, 64)
}

/// Reads a limit, without its rate.
pub(crate) fn limit(bytes: &[u8]) -> Result<Limit> {
    let row: LimitRow<'_> = decode(bytes)?;
    Ok(Limit::new(limit_of(row.tenant, row.key)?, row.max))
}

/// Writes the rate of a limit, and what is spent of it.
pub(crate) fn rate_row(of: &LimitOf, (rate, spent): &Paced) -> Result<Vec<u8>> {
    let (tenant, key) = texts(of);
    let row = RateRow {
        tenant,
        key: &key,
        tokens: rate.tokens,
        per_secs: rate.per.as_secs(),
        per_nanos: rate.per.subsec_nanos(),
        burst: rate.burst,
        full_at_nanos: spent.as_nanos(),
    };
    encode(&row, 96)
}

/// Reads the rate of a limit, and what is spent of it.
pub(crate) fn rate(bytes: &[u8]) -> Result<(LimitOf, Paced)> {
    let row: RateRow<'_> = decode(bytes)?;
    if row.per_nanos >= 1_000_000_000 {
        return Err(corrupt("row.decode", "a bad rate"));
    }
    let rate = Rate::new(row.tokens, Duration::new(row.per_secs, row.per_nanos)).burst(row.burst);
    let of = limit_of(row.tenant, row.key)?;
    // What no store takes was not written by one.
    Limit::paced(of.clone(), rate).check().map_err(|_| corrupt("row.decode", "a bad rate"))?;
    Ok((of, (rate, Spent::until_nanos(row.full_at_nanos))))
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
