//! The agent's loop: sync with the node, begin and end runs, report how they ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{Epoch, JobSpec, Runs};
use hodei_core::map::IdState;
use hodei_core::turn::give_way;
use hodei_core::{Clock, Error, ErrorKind, JobId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::crew::{Crew, Ended, Start};
use crate::execute::{Home, Run, StopToken};
use crate::machine::{Effect, Machine};
use crate::nodes::{Call, Nodes};

/// What the handle tells the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Work,
    Drain,
    Kill,
}

pub(crate) struct Driver {
    pub(crate) nodes: Nodes,
    pub(crate) machine: Machine,
    pub(crate) clock: Arc<dyn Clock>,
    /// What every run is given of the agent.
    pub(crate) home: Arc<Home>,
    pub(crate) orders: watch::Receiver<Order>,
    /// What tells each run to end.
    pub(crate) stops: HashMap<(JobId, Epoch), StopToken, IdState>,
    pub(crate) crew: Crew,
    pub(crate) by_work: HashMap<Runs, usize>,
    /// Room for the ends that the loop takes in.
    pub(crate) ended: Vec<Ended>,
    /// How long a node that does not answer is called for the ends that it has not made durable.
    pub(crate) drain_timeout: Duration,
}

/// Why the loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The handle said so.
    Wanted,
    /// A later life of the worker, or another agent of its name, has taken its place.
    Replaced,
}

/// What woke the loop.
enum Woken {
    Synced(Result<hodei_core::gateway::Desired, Error>),
    Ended,
    Progress,
    Order,
    Tick,
}

impl Driver {
    pub(crate) async fn run(mut self) -> End {
        let mut give_up: Option<Instant> = None;
        // The first call too has been made at some time.
        let _ = self.machine.tick(self.clock.now());
        loop {
            let order = *self.orders.borrow_and_update();
            if order == Order::Kill {
                self.kill().await;
                return End::Wanted;
            }
            if order == Order::Drain {
                self.machine.drain();
                if self.machine.is_idle() {
                    return End::Wanted;
                }
            }
            match self.wait().await {
                Woken::Synced(Ok(desired)) => {
                    give_up = None;
                    self.nodes.answered(desired.next_sync);
                    let effects = self.machine.desired(desired, self.clock.now());
                    if self.carry_out(effects) == 1 {
                        // A lone run begins before the next call wakes the node. Many are begun by several threads.
                        give_way().await;
                    }
                }
                Woken::Synced(Err(error)) if error.kind() == ErrorKind::Cancelled => {}
                Woken::Synced(Err(error)) if error.kind() == ErrorKind::Conflict => {
                    self.kill().await;
                    return End::Replaced;
                }
                Woken::Synced(Err(_)) => {
                    self.nodes.failed(self.stops.len());
                    self.machine.reconnect();
                    if order == Order::Drain && self.stops.is_empty() {
                        let now = Instant::now();
                        if now >= *give_up.get_or_insert_with(|| now + self.drain_timeout) {
                            // The node is gone: what it has not acknowledged, its successor takes back.
                            return End::Wanted;
                        }
                    }
                }
                Woken::Ended | Woken::Progress | Woken::Order | Woken::Tick => {}
            }
            self.collect();
            let fenced = self.machine.tick(self.clock.now());
            self.carry_out(fenced);
        }
    }

    /// Calls the node, and waits for its answer or for something to tell it.
    async fn wait(&mut self) -> Woken {
        let (Call { gateway, wait, due }, state) = (self.nodes.call(Instant::now()), self.machine.state());
        // A call that carries reports is awaited: meanwhile the next ones collect. One that only waits for work is
        // given up for the first report; that is safe, what its answer said is said again.
        let carries = !state.reports.is_empty();
        let call = async {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            match due {
                Some(due) => tokio::time::timeout_at(due, gateway.sync(state)).await.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Timeout, "gateway.sync").with("why", "the node is silent"))
                }),
                None => gateway.sync(state).await,
            }
        };
        let now = self.clock.now();
        let patience = self.machine.poll_timeout().map(|at| at.saturating_since(now));
        // A node that does not answer holds nothing up that must not run on.
        let fence = self.machine.fence_at().map(|at| at.saturating_since(now));
        tokio::select! {
            biased;
            order = self.orders.changed() => match order {
                Ok(()) => Woken::Order,
                Err(_) => std::future::pending().await,
            },
            desired = call => Woken::Synced(desired),
            () = self.crew.told(), if !carries => Woken::Ended,
            () = self.home.progress.told(), if !carries => Woken::Progress,
            () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() && !carries => Woken::Tick,
            () = tokio::time::sleep(fence.unwrap_or_default()), if fence.is_some() && carries => Woken::Tick,
        }
    }

    /// Takes in what else was told.
    fn collect(&mut self) {
        for ((job, epoch), (done, total)) in self.home.progress.take() {
            self.machine.progress(job, epoch, done, total);
        }
        let mut ended = std::mem::take(&mut self.ended);
        self.crew.take_ended(&mut ended);
        ended.drain(..).for_each(|ended| self.end(ended));
        self.ended = ended;
    }

    fn end(&mut self, (job, epoch, news): Ended) {
        self.stops.remove(&(job, epoch));
        self.machine.ended(job, epoch, news);
    }

    /// Begins and ends runs; returns how many it began.
    fn carry_out(&mut self, effects: Vec<Effect>) -> usize {
        let mut starts: Vec<Start> = Vec::with_capacity(effects.len());
        // Jobs of one spec come one behind the other, and have the same executor.
        let mut last: Option<(Arc<JobSpec>, Option<usize>)> = None;
        for effect in effects {
            match effect {
                Effect::Start(assignment) => {
                    let spec = &assignment.job.spec;
                    let executor = match &last {
                        Some((known, executor)) if Arc::ptr_eq(known, spec) => *executor,
                        _ => {
                            let executor = self.by_work.get(&spec.payload().runs()).copied();
                            last = Some((Arc::clone(spec), executor));
                            executor
                        }
                    };
                    let (job, epoch) = (assignment.job.id, assignment.job.epoch);
                    let Some(executor) = executor else {
                        // The node sends nothing that was not offered.
                        self.machine.ended(job, epoch, News::Returned);
                        continue;
                    };
                    let run = Run::new(assignment, Arc::clone(&self.home));
                    self.stops.insert((job, epoch), run.stop().clone());
                    starts.push((executor, run));
                }
                Effect::Stop(stop) => {
                    if let Some(token) = self.stops.get(&(stop.job, stop.epoch)) {
                        token.stop(stop.why);
                    }
                }
            }
        }
        let begun = starts.len();
        self.crew.begin(starts);
        begun
    }

    /// Ends every run at once and says nothing more.
    async fn kill(self) {
        for token in self.stops.values() {
            token.stop(StopCause::LeaseLost);
        }
        self.crew.end().await;
    }
}
