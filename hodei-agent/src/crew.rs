//! Who polls the runs: many that end at once share a task, one that takes longer has a task to itself.
//!
//! A *hand* is a task. It takes runs from a queue and polls each once. A run that has ended by then, as most short ones
//! have, cost no task of its own. To one that has not the hand belongs from then on, until it ends.
//!
//! No run waits for another longer than it would for a task of its own. A hand that begins and leaves runs behind sends
//! two more before it polls anything: one may come to lie where only this thread can take it, the other lies where any
//! thread can. So whenever runs wait a hand is on its way to them, and what blocks holds up itself and its thread only.
//! When it wakes the agent's loop it lets it have the thread before it polls anything, for the same reason.
//! Ends are put where the agent's loop finds them. It is woken after a turn, which is short; were it woken earlier, it could
//! come to lie behind the next run on this thread. It looks by itself whenever anything else wakes it: ten milliseconds
//! after a run was assigned, or when the node answers. So long, at most, a run that blocks its thread holds up the news of
//! those before it in the turn.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hodei_core::JobId;
use hodei_core::gateway::News;
use hodei_core::job::{Epoch, Finish};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::execute::{Executor, Run, panicked};

/// How many runs a hand polls before it lets others have the thread, the agent's loop among them.
const TURN: usize = 64;
/// How long it polls them, when that is less.
const TURN_TIME: Duration = Duration::from_millis(1);

/// A run to begin: the number of its executor, and what it is given.
pub(crate) type Start = (usize, Run);
/// A run that has ended, and how.
pub(crate) type Ended = (JobId, Epoch, News);

/// The agent's end: dropping it ends every run at once.
#[derive(Debug)]
pub(crate) struct Crew(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    executors: Vec<Arc<dyn Executor>>,
    /// Std mutexes, each held for a push, a pop or a swap. Both lists are bounded by the slots of the agent.
    waiting: Mutex<VecDeque<Start>>,
    ended: Mutex<Vec<Ended>>,
    told: Notify,
    hands: TaskTracker,
    gone: CancellationToken,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.waiting().clear();
        self.0.gone.cancel();
    }
}

impl Crew {
    pub(crate) fn new(executors: Vec<Arc<dyn Executor>>) -> Self {
        Self(Arc::new(Shared {
            executors,
            waiting: Mutex::default(),
            ended: Mutex::default(),
            told: Notify::new(),
            hands: TaskTracker::new(),
            gone: CancellationToken::new(),
        }))
    }

    /// Begins runs.
    pub(crate) fn begin(&self, starts: Vec<Start>) {
        if !starts.is_empty() {
            let several = starts.len() > 1;
            self.0.waiting().extend(starts);
            self.0.send_hand();
            if several {
                self.0.send_hand();
            }
        }
    }

    /// Waits until there may be ends to take.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was told meanwhile is told to the next call.
    pub(crate) async fn told(&self) {
        self.0.told.notified().await;
    }

    /// Exchanges an empty list for that of the ends.
    pub(crate) fn take_ended(&self, empty: &mut Vec<Ended>) {
        std::mem::swap(empty, &mut self.0.ended.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Begins nothing more, and waits until what has begun has ended.
    pub(crate) async fn end(&self) {
        self.0.waiting().clear();
        self.0.hands.close();
        self.0.hands.wait().await;
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Start>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_hand(self: &Arc<Self>) {
        self.hands.spawn(hand(Arc::clone(self)));
    }

    fn end(&self, ended: Ended) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
    }
}

async fn hand(crew: Arc<Shared>) {
    let (mut next, more) = {
        let mut waiting = crew.waiting();
        (waiting.pop_front(), !waiting.is_empty())
    };
    if more {
        crew.send_hand();
        crew.send_hand();
    }
    let (mut untold, mut turn, mut began) = (0_usize, Instant::now(), Instant::now());
    while let Some((executor, run)) = next {
        let (job, epoch) = (run.job().id, run.job().epoch);
        let executor = Arc::clone(&crew.executors[executor]);
        // The run's own destructor is inside too.
        let run = AssertUnwindSafe(async move {
            match run.unwanted() {
                Some(news) => news,
                None => executor.execute(run).await,
            }
        })
        .catch_unwind();
        let mut run = pin!(run);
        let end = match poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await {
            Poll::Ready(end) => end,
            Poll::Pending => {
                if untold > 0 {
                    crew.told.notify_one();
                    // The agent's loop may come to lie where only this thread can take it: it goes before the run,
                    // which may block at its next poll.
                    tokio::task::yield_now().await;
                    untold = 0;
                }
                tokio::select! {
                    biased;
                    () = crew.gone.cancelled() => return,
                    end = &mut run => end,
                }
            }
        };
        let mut news =
            end.unwrap_or_else(|panic| News::Ended(Box::new(Finish::failed(panicked("executor", &*panic)))));
        let now = Instant::now();
        if let News::Ended(finish) = &mut news {
            finish.ran = now - began;
        }
        began = now;
        crew.end((job, epoch, news));
        untold += 1;
        if untold >= TURN || now - turn >= TURN_TIME {
            crew.told.notify_one();
            tokio::task::yield_now().await;
            began = Instant::now();
            (turn, untold) = (began, 0);
        }
        next = crew.waiting().pop_front();
    }
    if untold > 0 {
        crew.told.notify_one();
    }
}
