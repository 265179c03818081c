//! Each worker in turn.

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// Gives jobs to the workers in turn, passing over those without room.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: u32,
}

impl RoundRobin {
    /// Begins with the first worker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Balancer for RoundRobin {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        let chosen = candidates.next_from(self.next)?;
        self.next = chosen.number() + 1;
        Some(chosen)
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self::new())
    }
}
