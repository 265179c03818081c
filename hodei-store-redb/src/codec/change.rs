//! Recorded transitions.

use hodei_core::job::Epoch;
use hodei_core::store::Change;
use hodei_core::{JobId, PipelineId, Result, Tenant};

use super::envelope::{decode, encode};
use super::row::{ChangeRow, ChangesRow};
use super::value::{cause, state, tenant, time};

fn change_row(change: &Change) -> ChangeRow<'_> {
    ChangeRow {
        job: *change.job.as_bytes(),
        tenant: change.tenant.as_str(),
        pipeline: change.pipeline.map(|id| *id.as_bytes()),
        version: change.version,
        from: change.from.map(|state| state as u8),
        to: change.to as u8,
        cause: change.cause as u8,
        attempt: change.attempt,
        epoch: change.epoch.number(),
        at: change.at.as_micros(),
    }
}

fn change(row: &ChangeRow<'_>, tenant: Tenant) -> Result<Change> {
    Ok(Change {
        job: JobId::from_bytes(row.job),
        tenant,
        pipeline: row.pipeline.map(PipelineId::from_bytes),
        version: row.version,
        from: row.from.map(state).transpose()?,
        to: state(row.to)?,
        cause: cause(row.cause)?,
        attempt: row.attempt,
        epoch: Epoch::from_number(row.epoch),
        at: time(row.at),
        queue: None,
    })
}

/// Writes changes whose numbers follow one another.
pub(crate) fn changes_row(changes: &[Change]) -> Result<Vec<u8>> {
    encode(&ChangesRow { changes: changes.iter().map(change_row).collect() }, 16 + 80 * changes.len())
}

/// Reads changes whose numbers follow one another.
pub(crate) fn changes(bytes: &[u8]) -> Result<Vec<Change>> {
    let row: ChangesRow<'_> = decode(bytes)?;
    let mut changes: Vec<Change> = Vec::with_capacity(row.changes.len());
    for row in &row.changes {
        // Neighbours are mostly of one tenant.
        let of = match changes.last() {
            Some(last) if last.tenant.as_str() == row.tenant => last.tenant.clone(),
            _ => tenant(row.tenant)?,
        };
        changes.push(change(row, of)?);
    }
    Ok(changes)
}
