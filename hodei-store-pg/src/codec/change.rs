//! The changes of a commit, many to a row. The server writes the same bytes where it moves jobs itself.
//!
//! A change is: its version (4 bytes), attempt (4) and epoch (8), the state before plus one or zero, the state after, the
//! cause, flags, what the flags say, and the job (16); all numbers big-endian. With flag 1 a pipeline (16) follows, with
//! flag 2 a number (4) of jobs that changed alike, and then all of them.

use hodei_core::job::{Cause, Epoch, State};
use hodei_core::store::Change;
use hodei_core::{JobId, PipelineId, Result, Tenant, Timestamp};

use super::buffer::{Reader, damaged};

const IN_PIPELINE: u8 = 1;
const MANY: u8 = 2;

/// Writes the changes of a row: those that follow each other and are alike but for their jobs together.
pub(crate) fn changes_bytes<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<u8> {
    let changes: Vec<&Change> = changes.into_iter().collect();
    let mut into = Vec::with_capacity(32 + 16 * changes.len());
    for run in changes.chunk_by(|one, next| alike(one, next)) {
        push_run(&mut into, run);
    }
    into
}

fn alike(one: &Change, other: &Change) -> bool {
    (one.version, one.attempt, one.epoch) == (other.version, other.attempt, other.epoch)
        && (one.from, one.to, one.cause) == (other.from, other.to, other.cause)
        && one.pipeline == other.pipeline
}

fn push_run(into: &mut Vec<u8>, run: &[&Change]) {
    let Some(first) = run.first() else { return };
    into.extend_from_slice(&first.version.to_be_bytes());
    into.extend_from_slice(&first.attempt.to_be_bytes());
    into.extend_from_slice(&first.epoch.number().to_be_bytes());
    into.push(first.from.map_or(0, |from| from as u8 + 1));
    into.push(first.to as u8);
    into.push(first.cause as u8);
    let flag = |flag, set| if set { flag } else { 0 };
    into.push(flag(IN_PIPELINE, first.pipeline.is_some()) | flag(MANY, run.len() > 1));
    if let Some(pipeline) = &first.pipeline {
        into.extend_from_slice(pipeline.as_bytes());
    }
    if run.len() > 1 {
        into.extend_from_slice(&u32::try_from(run.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    for change in run {
        into.extend_from_slice(change.job.as_bytes());
    }
}

/// Reads the changes of a row.
pub(crate) fn read_changes(bytes: &[u8], tenant: &Tenant, at: Timestamp) -> Result<Vec<Change>> {
    let mut from = Reader::plain(bytes);
    let mut changes = Vec::new();
    while !from.is_empty() {
        let version = u32::from_be_bytes(from.fixed()?);
        let attempt = u32::from_be_bytes(from.fixed()?);
        let epoch = Epoch::from_number(u64::from_be_bytes(from.fixed()?));
        let [before, to, cause, flags] = from.fixed()?;
        let state = |number| State::from_number(number).ok_or_else(|| damaged("a bad state"));
        let before = before.checked_sub(1).map(state).transpose()?;
        let (to, cause) = (state(to)?, Cause::from_number(cause).ok_or_else(|| damaged("a bad cause"))?);
        if flags & !(IN_PIPELINE | MANY) != 0 {
            return Err(damaged("a bad flag"));
        }
        let pipeline =
            if flags & IN_PIPELINE == 0 { None } else { Some(PipelineId::from_bytes(from.fixed()?)) };
        let jobs = if flags & MANY == 0 { 1 } else { u32::from_be_bytes(from.fixed()?) };
        for _ in 0..jobs {
            changes.push(Change {
                job: JobId::from_bytes(from.fixed()?),
                tenant: tenant.clone(),
                queue: None,
                pipeline,
                version,
                from: before,
                to,
                cause,
                attempt,
                epoch,
                at,
            });
        }
    }
    Ok(changes)
}
