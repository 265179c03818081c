//! Questions, answered from a snapshot.

mod change;
mod lane;
mod list;
mod owner;
mod policy;
mod slot;

pub(crate) use change::{changes, changes_examined, cursor_before};
pub(crate) use lane::{before, lanes, leases_of};
pub(crate) use list::{Asked, jobs, outputs, page, rows_of, slot_of};
pub(crate) use owner::owners;
pub(crate) use policy::{limits, limits_on, queue, queues, schedules};
pub(crate) use slot::{export_slot, limit_row, row_of};
