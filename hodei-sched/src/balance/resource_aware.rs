//! The worker whose resources suit a job best.

use super::Balancer;
use crate::machine::placement::{Candidates, WorkerId};

/// What suits best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// The worker on which the least is left: large jobs keep finding room, and idle workers may be taken away.
    #[default]
    Tightest,
    /// The worker on which the most is left: jobs disturb each other the least.
    Loosest,
}

/// Compares what would be left of each resource beside the job, on a sample of the workers that have room.
///
/// The choice is exact as long as no more workers than the sample have room.
#[derive(Clone, Debug)]
pub struct ResourceAware {
    fit: Fit,
    sample: u32,
    next: u32,
}

impl ResourceAware {
    /// Looks for a fit among a sample of 32.
    #[must_use]
    pub fn new(fit: Fit) -> Self {
        Self { fit, sample: 32, next: 0 }
    }

    /// Sets how many workers are compared at most; at least one.
    #[must_use]
    pub fn sample(mut self, sample: u32) -> Self {
        self.sample = sample.max(1);
        self
    }
}

impl Balancer for ResourceAware {
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId> {
        let first = candidates.next_from(self.next)?;
        let (mut best, mut at) = ((candidates.rest(first), first), first);
        for _ in 1..self.sample {
            let Some(other) = candidates.next_from(at.number() + 1).filter(|other| *other != first) else {
                break;
            };
            let rest = candidates.rest(other);
            let better = match self.fit {
                Fit::Tightest => rest < best.0,
                Fit::Loosest => rest > best.0,
            };
            if better {
                best = (rest, other);
            }
            at = other;
        }
        // The tightest fit of a job is mostly that of the next one too; the loosest one is elsewhere.
        self.next = match self.fit {
            Fit::Tightest => best.1.number(),
            Fit::Loosest => at.number() + 1,
        };
        Some(best.1)
    }

    fn another(&self) -> Box<dyn Balancer> {
        Box::new(Self::new(self.fit).sample(self.sample))
    }
}
