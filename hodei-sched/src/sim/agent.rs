//! What a simulation needs of an agent.

use std::fmt;
use std::sync::Arc;

use hodei_core::gateway::{Assignment, Desired, News, Offer, SessionState, Stop};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Name, Timestamp};

/// What an agent does about what its node wants.
#[derive(Debug)]
pub enum Action {
    /// Begin a run.
    Start(Assignment),
    /// End a run.
    Stop(Stop),
}

/// The side of the session that an agent keeps: what it runs, what it has to say, what it has seen.
///
/// [`SimpleAgent`](super::SimpleAgent) is one; the agent of the workspace is another, plugged in by a few lines that
/// forward each call to its machine. A model is told the time and asks nobody.
pub trait AgentModel: fmt::Debug {
    /// Begins a life of the agent.
    fn new(worker: Name, incarnation: u64, offer: Arc<Offer>) -> Self;

    /// Takes in what the node wants, and returns what to do about it.
    fn desired(&mut self, desired: Desired, now: Timestamp) -> Vec<Action>;

    /// Takes in how a run ended.
    fn ended(&mut self, job: JobId, epoch: Epoch, news: News);

    /// Time has passed: returns what to do about it.
    fn tick(&mut self, now: Timestamp) -> Vec<Action>;

    /// When to call [`AgentModel::tick`] at the latest.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// What the next call says.
    fn state(&mut self) -> SessionState;

    /// A call failed: the node may know nothing of what it was told.
    fn reconnect(&mut self);
}
