//! What is kept in memory: everything that is open, by lane, by list and by owner, and the counts of all. Changed only
//! after a commit returned `Ok`, and read anew from the rows after a commit that did not.

mod delta;
mod index;
mod lane;
mod queues;
mod rates;
mod read;
mod shown;
mod slots;
mod standing;
mod uncounted;
mod wide;

pub(crate) use delta::{BATCH, Delta, Step};
pub(crate) use index::{Index, LimitKey, limits_of};
pub(crate) use lane::{LaneState, Place, Waiting};
pub(crate) use rates::Paced;
pub(crate) use slots::{Moving, Phase, Slots, conflict};
pub(crate) use standing::Standing;
pub(crate) use uncounted::Uncounted;
pub(crate) use wide::wide_room;
