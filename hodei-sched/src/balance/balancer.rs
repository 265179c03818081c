//! What a balancer is.

use std::fmt;

use crate::machine::placement::{Candidates, WorkerId};

/// Chooses among workers that have room.
pub trait Balancer: fmt::Debug + Send + Sync {
    /// Chooses a worker that has room: one that the candidates named, or of which they said so. Nothing when they name
    /// none.
    ///
    /// It may keep what it likes between calls, but no random numbers without a seed: the same calls choose the same
    /// workers.
    fn choose(&mut self, candidates: &mut Candidates<'_>) -> Option<WorkerId>;

    /// Makes a balancer of the same kind for another dispatcher.
    fn another(&self) -> Box<dyn Balancer>;
}

const _: fn(&dyn Balancer) = |_| ();

impl Clone for Box<dyn Balancer> {
    fn clone(&self) -> Self {
        self.another()
    }
}
