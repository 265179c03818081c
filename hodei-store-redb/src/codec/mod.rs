//! Rows as bytes: the only home of bincode.
//!
//! [`envelope`] has the bytes around a row, [`row`] the rows; the other modules are the ways between rows and values.

mod change;
mod checkpoint;
mod end;
mod envelope;
mod first;
mod job;
mod policy;
mod row;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod slot;
mod small;
mod spec;
mod summary;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use change::{changes, changes_row};
pub(crate) use checkpoint::{checkpoint, checkpoint_row};
pub(crate) use end::{end, end_fits, end_row};
pub(crate) use envelope::{bind, bind_from, decode, encode, opened, seal, unseal};
pub(crate) use first::first_job;
pub(crate) use job::{Fixed, Head, born, born_row, fingerprint, fixed, head, head_row, newborn};
#[cfg(any(test, feature = "testkit"))]
pub(crate) use policy::uncounted;
pub(crate) use policy::{
    counted, counts, counts_row, limit, limit_row, queue, queue_row, rate, rate_row, schedule, schedule_row,
    uncounted_row,
};
pub(crate) use row::{OwnerRow, TermRow};
#[cfg(feature = "testkit")]
pub(crate) use samples::{Sample, samples, sealed};
pub(crate) use slot::{note, note_row, slot, slot_row};
pub(crate) use small::{edge, edge_row, id, id_row, ids, ids_row, number, number_row};
pub(crate) use spec::{fits, work_bytes, work_part};
pub(crate) use summary::{Shown, newborn_shown, shown};
pub(crate) use value::Names;
