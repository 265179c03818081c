//! The changes of a commit, many to a row. The server writes the same bytes where it moves jobs itself.
//!
//! A change is: the job (16 bytes), its version (4), attempt (4) and epoch (8), the state before plus one or zero,
//! the state after, the cause, and one where a pipeline (16 bytes) follows; all numbers big-endian.

use hodei_core::job::{Cause, Epoch, State};
use hodei_core::store::Change;
use hodei_core::{JobId, PipelineId, Result, Tenant, Timestamp};

use super::buffer::{Reader, damaged};

/// Adds a change to the bytes of a row.
pub(crate) fn push_change(into: &mut Vec<u8>, change: &Change) {
    into.extend_from_slice(change.job.as_bytes());
    into.extend_from_slice(&change.version.to_be_bytes());
    into.extend_from_slice(&change.attempt.to_be_bytes());
    into.extend_from_slice(&change.epoch.number().to_be_bytes());
    into.push(change.from.map_or(0, |from| from as u8 + 1));
    into.push(change.to as u8);
    into.push(change.cause as u8);
    into.push(u8::from(change.pipeline.is_some()));
    if let Some(pipeline) = &change.pipeline {
        into.extend_from_slice(pipeline.as_bytes());
    }
}

/// Reads the changes of a row.
pub(crate) fn read_changes(bytes: &[u8], tenant: &Tenant, at: Timestamp) -> Result<Vec<Change>> {
    let mut from = Reader::plain(bytes);
    let mut changes = Vec::new();
    while !from.is_empty() {
        let job = JobId::from_bytes(from.fixed()?);
        let version = u32::from_be_bytes(from.fixed()?);
        let attempt = u32::from_be_bytes(from.fixed()?);
        let epoch = Epoch::from_number(u64::from_be_bytes(from.fixed()?));
        let [before, to, cause, flags] = from.fixed()?;
        let state = |number| State::from_number(number).ok_or_else(|| damaged("a bad state"));
        let from_state = before.checked_sub(1).map(state).transpose()?;
        let cause = Cause::from_number(cause).ok_or_else(|| damaged("a bad cause"))?;
        let pipeline = match flags {
            0 => None,
            1 => Some(PipelineId::from_bytes(from.fixed()?)),
            _ => return Err(damaged("a bad flag")),
        };
        let (tenant, to) = (tenant.clone(), state(to)?);
        changes.push(Change {
            job,
            tenant,
            queue: None,
            pipeline,
            version,
            from: from_state,
            to,
            cause,
            attempt,
            epoch,
            at,
        });
    }
    Ok(changes)
}
