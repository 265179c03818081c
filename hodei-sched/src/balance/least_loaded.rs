//! The worker with the most free slots.

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// Gives each job to the worker with the most free slots; above 64 of them all count alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

impl Balancer for LeastLoaded {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        candidates.freest()
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(*self)
    }
}
