//! What the embedded store promises beyond what every store does: one file, opened by one, kept whole.

mod budget;
mod child;
mod env;
mod faults;
mod gate;
mod group;
mod index;
mod kill;
mod open;
mod query;
mod reopen;
