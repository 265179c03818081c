//! Which of the workers that have room gets a job.
//!
//! | balancer | chooses | cost of a decision |
//! |---|---|---|
//! | [`LeastLoaded`] | the worker with the most free slots | a few words per 64 workers |
//! | [`RoundRobin`] | the next one in turn | the search for the next with room |
//! | [`ResourceAware`] | the tightest or the loosest fit of a sample | the sample |
//! | [`ConsistentHash`] | the same worker for what belongs together, unless it is loaded above the average | a search in the ring |
//! | [`TwoChoices`] | the less loaded of two drawn at random | two draws |
//!
//! Only [`ConsistentHash`] looks at what belongs together, a pipeline or the jobs of a tenant's queue; the others, [`LeastLoaded`]
//! among them, which is the default, spread it like anything else.
//!
//! A balancer only says where; room is set aside by [`Fleet::place`](crate::machine::placement::Fleet::place), and a
//! worker without room is never among the candidates.

mod balancer;
mod consistent_hash;
mod least_loaded;
mod resource_aware;
mod round_robin;
#[cfg(test)]
mod tests;
mod two_choices;

pub use balancer::Balancer;
pub use consistent_hash::ConsistentHash;
pub use least_loaded::LeastLoaded;
pub use resource_aware::{Fit, ResourceAware};
pub use round_robin::RoundRobin;
pub use two_choices::TwoChoices;
