//! The nodes that an agent may work for, and the one that it works for.

use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::WorkerGateway;
use tokio::time::Instant;

/// The first wait after a failed call, doubled up to 32 times.
const BACKOFF: Duration = Duration::from_millis(50);
/// So many calls in a row fail before a node is left that has work running here: another one would end it.
const CALLS_BEFORE_LEAVING: u32 = 3;

/// Which node is called next, when, and how long its answer is waited for.
///
/// An agent works for one node at a time, and leaves it when it does not answer: the session begins anew elsewhere, with
/// everything said again that was not durable. A node knows nothing of runs that began under another one's lease and has them
/// ended; so one that has work running is called a few times more.
#[derive(Debug)]
pub(crate) struct Nodes {
    gateways: Vec<Arc<dyn WorkerGateway>>,
    at: usize,
    /// Failed calls since the last answer, of all nodes and of this one.
    failures: u32,
    failures_here: u32,
    /// How often the agent went to another node since the last answer.
    moves: usize,
    /// How long a call may wait for news, as the last answer said.
    next_sync: Duration,
    /// How much longer than that an answer may take.
    timeout: Duration,
    /// When the answer is there at the latest that is waited for.
    due: Option<Instant>,
}

/// A call to make.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) gateway: Arc<dyn WorkerGateway>,
    /// How long to wait first.
    pub(crate) wait: Duration,
    /// When the node is given up; never where there is no other.
    pub(crate) due: Option<Instant>,
}

impl Nodes {
    /// Begins with the first of at least one.
    pub(crate) fn new(gateways: Vec<Arc<dyn WorkerGateway>>, timeout: Duration) -> Self {
        let (at, moves) = (0, 0);
        let (failures, failures_here) = (0, 0);
        Self { gateways, at, failures, failures_here, moves, next_sync: Duration::ZERO, timeout, due: None }
    }

    /// The next call. One that takes the place of another that was not answered is due when that was.
    pub(crate) fn call(&mut self, now: Instant) -> Call {
        let at_once = self.failures == 0 || (self.failures_here == 0 && self.moves < self.gateways.len());
        let wait = if at_once { Duration::ZERO } else { BACKOFF * (1 << self.failures.min(5)) };
        if self.gateways.len() > 1 && self.due.is_none() {
            self.due = Some(now + wait + self.next_sync + self.timeout);
        }
        Call { gateway: Arc::clone(&self.gateways[self.at]), wait, due: self.due }
    }

    /// A node has answered, and says how long the next call may wait.
    pub(crate) fn answered(&mut self, next_sync: Duration) {
        (self.failures, self.failures_here, self.moves) = (0, 0, 0);
        (self.next_sync, self.due) = (next_sync, None);
    }

    /// A node has not answered, or only to say that it does not serve; so many runs of its work are under way.
    pub(crate) fn failed(&mut self, runs: usize) {
        self.failures = self.failures.saturating_add(1);
        self.failures_here = self.failures_here.saturating_add(1);
        self.due = None;
        if self.gateways.len() > 1 && (runs == 0 || self.failures_here >= CALLS_BEFORE_LEAVING) {
            self.at = (self.at + 1) % self.gateways.len();
            self.failures_here = 0;
            self.moves = self.moves.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use hodei_core::Result;
    use hodei_core::gateway::{Desired, SessionState};

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl WorkerGateway for Nobody {
        async fn sync(&self, _: SessionState) -> Result<Desired> {
            std::future::pending().await
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn nodes(n: usize) -> Nodes {
        Nodes::new((0..n).map(|_| Arc::new(Nobody) as Arc<dyn WorkerGateway>).collect(), TIMEOUT)
    }

    /// Which node is called, and after how many milliseconds.
    fn next(nodes: &mut Nodes) -> (usize, u128) {
        let call = nodes.call(Instant::now());
        let known = nodes.gateways.iter().position(|gateway| Arc::ptr_eq(gateway, &call.gateway));
        (known.expect("one of them"), call.wait.as_millis())
    }

    #[test]
    fn a_lone_node_is_called_ever_less_often_and_waited_for() {
        let mut nodes = nodes(1);
        let mut waits = Vec::new();
        for _ in 0..7 {
            nodes.failed(1);
            waits.push(next(&mut nodes).1);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 1_600, 1_600]);
        assert_eq!(nodes.call(Instant::now()).due, None);
    }

    #[test]
    fn an_idle_agent_goes_on_at_once_and_round_after_round_more_slowly() {
        let mut nodes = nodes(3);
        let mut calls = Vec::new();
        for _ in 0..5 {
            nodes.failed(0);
            calls.push(next(&mut nodes));
        }
        assert_eq!(calls, [(1, 0), (2, 0), (0, 400), (1, 800), (2, 1_600)]);
        nodes.answered(TIMEOUT);
        assert_eq!(next(&mut nodes), (2, 0), "it stays where it is answered");
        nodes.failed(0);
        assert_eq!(next(&mut nodes), (0, 0));
    }

    #[test]
    fn a_node_that_has_work_here_is_called_again_before_it_is_left() {
        let mut nodes = nodes(2);
        let mut calls = Vec::new();
        for _ in 0..4 {
            nodes.failed(5);
            calls.push(next(&mut nodes));
        }
        assert_eq!(calls, [(0, 100), (0, 200), (1, 0), (1, 800)]);
    }

    #[test]
    fn calls_that_take_each_others_place_are_due_when_the_first_was() {
        let (mut nodes, now) = (nodes(2), Instant::now());
        nodes.answered(TIMEOUT);
        assert_eq!(nodes.call(now).due, Some(now + TIMEOUT * 2));
        assert_eq!(nodes.call(now + TIMEOUT).due, Some(now + TIMEOUT * 2));
        nodes.answered(TIMEOUT);
        assert_eq!(nodes.call(now + TIMEOUT).due, Some(now + TIMEOUT * 3));
    }
}
