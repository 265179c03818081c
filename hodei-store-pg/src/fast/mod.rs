//! What is done in one round trip: the server moves the jobs itself, by functions that the conformance suite holds to
//! the rules of core. Whatever is not of the common kind goes the long way.

mod exchange;
mod fresh;
mod frontier;
mod group;
mod once;
mod submit;

pub(crate) use frontier::Frontier;
pub(crate) use group::Groups;
