//! Handlers that take several jobs of a kind in one call.
//!
//! Each job has its own run, slot, lease and outcome; only the call is shared. A run puts what it was given into the chunk
//! that is open and waits until the chunk is full or its first job has waited long enough. Then all its runs poll one
//! shared future, so the call goes on as long as one of them is wanted, whichever that is, and needs no task of its own.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::context::Context;
use super::outcome::Outcome;
use super::panic::panicked;

type Outcomes = Shared<Pin<Box<dyn Future<Output = Arc<Given>> + Send>>>;
type Members<S, A> = Vec<(Context<S>, A)>;
type Handler<S, A> =
    dyn Fn(Members<S, A>) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>> + Send + Sync;

/// How many jobs one call takes, and how long the first of them waits for others.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    size: usize,
    wait: Duration,
}

impl Chunks {
    /// Calls with up to so many jobs; at least one. More than the agent has slots never come together. The first job of a
    /// chunk waits 10 ms for others.
    #[must_use]
    pub fn of(size: usize) -> Self {
        Self { size: size.max(1), wait: Duration::from_millis(10) }
    }

    /// Sets how long the first job of a chunk waits for others; with [`Duration::MAX`], until it is full. It counts as a part of
    /// each job's run.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// The open chunk of one kind of job.
pub(super) struct Collector<S, A> {
    chunks: Chunks,
    handler: Box<Handler<S, A>>,
    /// A std mutex, held for a push or a swap.
    open: Mutex<Option<Arc<Chunk<S, A>>>>,
}

/// What waits for a call; those that went before it have left their places empty.
type Waiting<S, A> = Vec<Option<(Context<S>, A)>>;

struct Chunk<S, A> {
    /// Nothing where that is too far away to come.
    until: Option<Instant>,
    full: Notify,
    /// By place. A std mutex, held for a push or a swap.
    members: Mutex<Waiting<S, A>>,
    outcomes: OnceLock<Outcomes>,
}

impl<S, A> Chunk<S, A> {
    fn members(&self) -> MutexGuard<'_, Waiting<S, A>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the call gave.
struct Given {
    /// How many outcomes there were.
    count: usize,
    by_place: Vec<Option<Outcome>>,
}

/// A run that waits for its chunk to be called. One that goes before, because its time is over or nobody wants it any more,
/// takes its job out: the call is for those that are left.
struct Member<'c, S, A> {
    collector: &'c Collector<S, A>,
    chunk: Arc<Chunk<S, A>>,
    place: usize,
}

impl<S, A> Drop for Member<'_, S, A> {
    fn drop(&mut self) {
        // The collector first, as whoever joins.
        let mut open = self.collector.open();
        let mut members = self.chunk.members();
        let went = members.get_mut(self.place).and_then(Option::take);
        if members.iter().all(Option::is_none)
            && open.as_ref().is_some_and(|open| Arc::ptr_eq(open, &self.chunk))
        {
            // Nobody is left who would close it.
            *open = None;
        }
        drop((members, open));
        // The arguments' own destructor runs outside the locks.
        drop(went);
    }
}

impl<S, A> fmt::Debug for Collector<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl<S: Send + Sync + 'static, A: Send + 'static> Collector<S, A> {
    pub(super) fn new(chunks: Chunks, handler: Box<Handler<S, A>>) -> Self {
        Self { chunks, handler, open: Mutex::new(None) }
    }

    /// Runs one job as a member of a chunk.
    pub(super) async fn run(self: Arc<Self>, context: Context<S>, args: A) -> Outcome {
        let (chunk, place) = self.join(context, args);
        let _member = Member { collector: &*self, chunk: Arc::clone(&chunk), place };
        let full = chunk.full.notified();
        if chunk.outcomes.get().is_none() && !self.is_closed(&chunk) {
            tokio::select! {
                () = full => {}
                () = reached(chunk.until) => self.close(&chunk),
            }
        }
        let outcomes = chunk.outcomes.get_or_init(|| self.begin(&chunk)).clone();
        let given = outcomes.await;
        let few = || Outcome::failed(format!("the handler gave {} outcomes, none for this job", given.count));
        given.by_place.get(place).cloned().flatten().unwrap_or_else(few)
    }
}

/// Waits until a time; for ever, where that is too far away to come.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl<S, A> Collector<S, A> {
    fn open(&self) -> MutexGuard<'_, Option<Arc<Chunk<S, A>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Send + Sync + 'static, A: Send + 'static> Collector<S, A> {
    /// Puts a job into the open chunk, and closes that when it is full.
    fn join(&self, context: Context<S>, args: A) -> (Arc<Chunk<S, A>>, usize) {
        let mut open = self.open();
        let chunk = Arc::clone(open.get_or_insert_with(|| {
            Arc::new(Chunk {
                until: Instant::now().checked_add(self.chunks.wait),
                full: Notify::new(),
                members: Mutex::default(),
                outcomes: OnceLock::new(),
            })
        }));
        let mut members = chunk.members();
        members.push(Some((context, args)));
        let full = members.iter().flatten().count() >= self.chunks.size;
        let place = members.len() - 1;
        drop(members);
        if full {
            *open = None;
            chunk.full.notify_waiters();
        }
        (chunk, place)
    }

    fn is_closed(&self, chunk: &Arc<Chunk<S, A>>) -> bool {
        !self.open().as_ref().is_some_and(|open| Arc::ptr_eq(open, chunk))
    }

    /// Lets nobody more into a chunk whose time is over.
    fn close(&self, chunk: &Arc<Chunk<S, A>>) {
        let mut open = self.open();
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, chunk)) {
            *open = None;
        }
    }

    fn begin(&self, chunk: &Chunk<S, A>) -> Outcomes {
        let members = std::mem::take(&mut *chunk.members());
        let among = members.len();
        let (places, members): (Vec<usize>, Members<S, A>) =
            members.into_iter().enumerate().filter_map(|(place, member)| Some((place, member?))).unzip();
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(members)));
        let ended = async move {
            let ended = match called {
                Ok(called) => AssertUnwindSafe(called).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let outcomes = ended
                .unwrap_or_else(|panic| vec![Outcome::Failed(panicked("handler", &*panic)); places.len()]);
            let (count, mut by_place) = (outcomes.len(), vec![None; among]);
            for (place, outcome) in places.into_iter().zip(outcomes) {
                by_place[place] = Some(outcome);
            }
            Arc::new(Given { count, by_place })
        };
        (Box::pin(ended) as Pin<Box<dyn Future<Output = Arc<Given>> + Send>>).shared()
    }
}
