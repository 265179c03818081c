//! The agent's loop: sync with the node, begin and end runs, report how they ended.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hodei_core::gateway::{News, StopCause, WorkerGateway};
use hodei_core::job::{Epoch, Finish, Runs};
use hodei_core::{Clock, Error, ErrorKind, JobId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::execute::{Executor, Run, StopToken, panicked};
use crate::log::LogStore;
use crate::machine::{Effect, Machine};

/// The first wait after a failed call, doubled up to 32 times.
const BACKOFF: Duration = Duration::from_millis(50);
/// How many ends are taken in before the next call.
const COLLECT_MAX: usize = 4_096;

/// What a run tells the loop.
#[derive(Debug)]
pub(crate) enum Note {
    Ended(JobId, Epoch, News),
    Progress(JobId, Epoch, u32, u32),
}

/// What the handle tells the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Work,
    Drain,
    Kill,
}

pub(crate) struct Driver {
    pub(crate) gateway: Arc<dyn WorkerGateway>,
    pub(crate) machine: Machine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executors: Vec<Arc<dyn Executor>>,
    pub(crate) logs: Arc<LogStore>,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) notes: mpsc::UnboundedReceiver<Note>,
    pub(crate) notify: mpsc::UnboundedSender<Note>,
    /// What tells each run to end.
    pub(crate) stops: HashMap<(JobId, Epoch), StopToken>,
    pub(crate) runs: JoinSet<()>,
    pub(crate) by_work: HashMap<Runs, usize>,
    /// How long a node that does not answer is called for the ends that it has not made durable.
    pub(crate) drain_timeout: Duration,
}

/// What woke the loop.
enum Woken {
    Synced(Result<hodei_core::gateway::Desired, Error>),
    Note(Note),
    Order,
    Tick,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        let mut give_up: Option<Instant> = None;
        loop {
            let order = *self.orders.borrow_and_update();
            if order == Order::Kill {
                return self.kill().await;
            }
            if order == Order::Drain {
                self.machine.drain();
                if self.machine.is_idle() {
                    return;
                }
            }
            match self.wait(failures).await {
                Woken::Synced(Ok(desired)) => {
                    (failures, give_up) = (0, None);
                    let effects = self.machine.desired(desired, self.clock.now());
                    effects.into_iter().for_each(|effect| self.carry_out(effect));
                }
                Woken::Synced(Err(error)) if error.kind() == ErrorKind::Cancelled => {}
                Woken::Synced(Err(error)) if error.kind() == ErrorKind::Conflict => return self.kill().await,
                Woken::Synced(Err(_)) => {
                    failures += 1;
                    self.machine.reconnect();
                    if order == Order::Drain && self.stops.is_empty() {
                        let now = Instant::now();
                        if now >= *give_up.get_or_insert_with(|| now + self.drain_timeout) {
                            // The node is gone: what it has not acknowledged, its successor takes back.
                            return;
                        }
                    }
                }
                Woken::Note(note) => self.take(note),
                Woken::Order | Woken::Tick => {}
            }
            self.collect();
            self.machine.tick(self.clock.now());
        }
    }

    /// Calls the node, and waits for its answer or for something to tell it.
    async fn wait(&mut self, failures: u32) -> Woken {
        let (gateway, state) = (Arc::clone(&self.gateway), self.machine.state());
        // A call that carries reports is awaited: meanwhile the next ones collect. One that only waits for work is
        // given up for the first report; that is safe, what its answer said is said again.
        let carries = !state.reports.is_empty();
        let call = async {
            if failures > 0 {
                tokio::time::sleep(BACKOFF * (1 << failures.min(5))).await;
            }
            gateway.sync(state).await
        };
        let now = self.clock.now();
        let patience = self.machine.poll_timeout().map(|at| at.saturating_since(now));
        tokio::select! {
            biased;
            order = self.orders.changed() => match order {
                Ok(()) => Woken::Order,
                Err(_) => std::future::pending().await,
            },
            desired = call => Woken::Synced(desired),
            Some(note) = self.notes.recv(), if !carries => Woken::Note(note),
            () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() && !carries => Woken::Tick,
        }
    }

    fn collect(&mut self) {
        for _ in 0..COLLECT_MAX {
            let Ok(note) = self.notes.try_recv() else { break };
            self.take(note);
        }
        while self.runs.try_join_next().is_some() {}
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Ended(job, epoch, news) => {
                self.stops.remove(&(job, epoch));
                self.machine.ended(job, epoch, news);
            }
            Note::Progress(job, epoch, done, total) => self.machine.progress(job, epoch, done, total),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Start(assignment) => {
                let (job, epoch) = (assignment.job.id, assignment.job.epoch);
                let stop = StopToken::new();
                self.stops.insert((job, epoch), stop.clone());
                let notify = self.notify.clone();
                let executor = self.by_work.get(&assignment.job.spec.payload().runs());
                let Some(executor) = executor.and_then(|n| self.executors.get(*n)) else {
                    // The node sends nothing that was not offered.
                    return self.take(Note::Ended(job, epoch, News::Returned));
                };
                let run = Run::new(assignment, stop, Arc::clone(&self.logs), notify.clone());
                let executor = Arc::clone(executor);
                self.runs.spawn(async move {
                    let began = Instant::now();
                    // The run's own destructor is inside too.
                    let run = AssertUnwindSafe(async move { executor.execute(run).await }).catch_unwind();
                    let mut news = run.await.unwrap_or_else(|panic| {
                        News::Ended(Box::new(Finish::failed(panicked("executor", &*panic))))
                    });
                    if let News::Ended(finish) = &mut news {
                        finish.ran = began.elapsed();
                    }
                    // A loop that is gone has nobody to tell.
                    let _ = notify.send(Note::Ended(job, epoch, news));
                });
            }
            Effect::Stop(stop) => {
                if let Some(token) = self.stops.get(&(stop.job, stop.epoch)) {
                    token.stop(stop.why);
                }
            }
        }
    }

    /// Ends every run at once and says nothing more.
    async fn kill(mut self) {
        for token in self.stops.values() {
            token.stop(StopCause::LeaseLost);
        }
        while self.runs.join_next().await.is_some() {}
    }
}
