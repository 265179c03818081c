//! Files as shards of one store, between which slots move.

mod crash;
mod kill;
mod load;
mod verbs;
mod world;

pub(crate) use kill::work;
pub(crate) use world::{seen, tenant_in};
