//! What goes wrong below a store: power that fails, disks that fail, bytes that are others than were written.
//!
//! Everything here happens in memory, from a seed that is printed: [`disk`] stands in for the file.

mod cut;
mod damage;
mod disk;
mod exam;
mod failing;
mod full;
mod numbers;
mod power;
mod watch;
mod work;

pub(crate) use damage::examine;
pub(crate) use numbers::{Numbers, variable};
pub(crate) use work::Worker;
