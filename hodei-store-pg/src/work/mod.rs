//! A transaction that moves jobs by the rules of core: what it reads it locks, and what it changed is written at its end.

mod admit;
mod cascade;
mod edges;
mod flush;
mod keys;
mod load;
mod transaction;
mod turn;

pub(crate) use flush::rank_of;
pub(crate) use keys::Keys;
pub(crate) use transaction::{Verb, Work};
