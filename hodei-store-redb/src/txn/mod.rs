//! The verbs, inside a transaction that writes.

mod append;
mod checkpoint;
mod clock;
mod coordinate;
mod count;
mod exchange;
mod import;
mod limit;
mod maintain;
mod policy;
mod rate;
mod shard;
mod slot;
mod submit;
mod unique;
mod work;

pub(crate) use checkpoint::{
    bring_checkpoint, checkpoints, forget_checkpoints, open_checkpoint, save_checkpoint,
};
pub(crate) use coordinate::{beat, expire_all, keep_term, register, retire, take_term};
pub(crate) use count::count_some;
pub(crate) use exchange::{cancel, exchange, redrive};
pub(crate) use import::{bring_row, check_edges};
pub(crate) use limit::{remove_limit, set_limit};
pub(crate) use maintain::{fire, prune, reap};
pub(crate) use policy::{remove_schedule, set_queue, set_schedule};
pub(crate) use shard::{adopt_owner, adopt_term, put_note};
pub(crate) use slot::{clear_slot, close_slot, import_slot, open_slot, seal_slot};
pub(crate) use submit::{Room, had_turn, submit};
pub(crate) use work::{Context, Work};
