//! Runs typed handlers.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hodei_core::codec::Codecs;
use hodei_core::gateway::{News, StopCause};
use hodei_core::job::{Failure, FailureClass, Finish, JobKind, Outcome as JobOutcome, Payload, Runs};
use hodei_core::map::IdState;
use hodei_core::{Error, Fault, Name};

use super::chunk::{Chunks, Collector};
use super::context::Context;
use super::executor::{Executor, Run, RunFuture};
use super::layer::{Layer, Layers};
use super::outcome::{IntoOutcome, Outcome};
use super::panic::panicked;

/// How long a handler may go on after it was cancelled.
const GRACE: Duration = Duration::from_secs(5);

type Ending = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Call<S> = dyn Fn(Context<S>) -> Ending + Send + Sync;

/// The handlers of an agent, by the kind of their arguments.
pub(crate) struct Handlers<S> {
    state: Arc<S>,
    by_kind: HashMap<Name, Arc<Call<S>>, IdState>,
    layers: Arc<Layers>,
    codecs: Arc<Codecs>,
}

impl<S> fmt::Debug for Handlers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}

impl<S: Send + Sync + 'static> Handlers<S> {
    pub(crate) fn new(state: Arc<S>) -> Self {
        Self { state, by_kind: HashMap::default(), layers: Arc::default(), codecs: Arc::default() }
    }

    /// The same layers and codecs, around handlers of another state.
    pub(crate) fn with_state<T: Send + Sync + 'static>(self, state: Arc<T>) -> Handlers<T> {
        Handlers { state, by_kind: HashMap::default(), layers: self.layers, codecs: self.codecs }
    }

    /// Adds a layer inside those that are there.
    pub(crate) fn layer(&mut self, layer: Arc<dyn Layer>) {
        Arc::make_mut(&mut self.layers).push(layer);
    }

    pub(crate) fn codecs(&mut self, codecs: Codecs) {
        self.codecs = Arc::new(codecs);
    }

    /// Adds a handler; says whether there was one of that kind.
    pub(crate) fn add<A, F, Fut, R>(&mut self, kind: Name, handler: F) -> bool
    where
        A: JobKind,
        F: Fn(Context<S>, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoOutcome + 'static,
    {
        let call = move |context: Context<S>| -> Ending {
            match context.payload().args::<A>() {
                Ok(args) => Box::pin(handler(context, args).map(IntoOutcome::into_outcome)),
                Err(error) => bad_input(&error),
            }
        };
        self.by_kind.insert(kind, Arc::new(call)).is_some()
    }

    /// Adds a handler that takes several jobs in one call; says whether there was one of that kind.
    pub(crate) fn add_chunked<A, F, Fut>(&mut self, kind: Name, chunks: Chunks, handler: F) -> bool
    where
        A: JobKind,
        F: Fn(Vec<(Context<S>, A)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Outcome>> + Send + 'static,
    {
        let handler = move |members| -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>> {
            Box::pin(handler(members))
        };
        let collector = Arc::new(Collector::new(chunks, Box::new(handler)));
        let call = move |context: Context<S>| -> Ending {
            match context.payload().args::<A>() {
                Ok(args) => Box::pin(Arc::clone(&collector).run(context, args)),
                Err(error) => bad_input(&error),
            }
        };
        self.by_kind.insert(kind, Arc::new(call)).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }
}

impl<S: Send + Sync + 'static> Executor for Handlers<S> {
    fn runs(&self) -> Vec<Runs> {
        self.by_kind.keys().cloned().map(Runs::Handler).collect()
    }

    fn execute(self: Arc<Self>, run: Run) -> RunFuture {
        Box::pin(async move {
            let call = match run.job().spec.payload() {
                Payload::Handler { kind, .. } => self.by_kind.get(kind),
                Payload::Command(_) => None,
            };
            let Some(call) = call else {
                let failure = Failure::new(FailureClass::BadInput, "this agent has no such handler");
                return Outcome::Failed(failure).news();
            };
            let outcome = if self.codecs.is_empty() && !is_encoded(&run) {
                watch(&run, || self.call(call, &run)).await
            } else {
                // A codec may wait for others: what it takes is a part of the run, and ends with it.
                let coded = Arc::clone(&self).coded(Arc::clone(call), run.share());
                watch(&run, || Box::pin(coded)).await
            };
            let mut news = outcome.news();
            if let News::Ended(finish) = &mut news {
                finish.manifest = Run::manifest(run.take_said());
                if finish.outcome == JobOutcome::Succeeded {
                    finish.spawn = run.take_spawned();
                }
            }
            news
        })
    }
}

impl<S: Send + Sync + 'static> Handlers<S> {
    /// Calls a handler inside the layers.
    fn call(&self, call: &Arc<Call<S>>, run: &Run) -> Ending {
        let context = Context::new(Arc::clone(&self.state), run.share());
        if self.layers.is_empty() {
            return call(context);
        }
        let (layers, call) = (Arc::clone(&self.layers), Arc::clone(call));
        Box::pin(layers.around(run.share(), Box::new(move || call(context))))
    }

    /// Decodes the arguments, calls the handler, and encodes those of the jobs that it spawned.
    async fn coded(self: Arc<Self>, call: Arc<Call<S>>, run: Run) -> Outcome {
        if let Err(failure) = self.open(&run).await {
            return Outcome::Failed(failure);
        }
        let outcome = self.call(&call, &run).await;
        if matches!(outcome, Outcome::Done(_)) {
            match self.codecs.encode_jobs(run.take_spawned()).await {
                Ok(spawned) => run.encoded(spawned),
                // What is not encoded is not stored.
                Err(error) => return Outcome::Failed(undecodable(&error)),
            }
        }
        outcome
    }

    /// Decodes the arguments, where they are encoded.
    async fn open(&self, run: &Run) -> Result<(), Failure> {
        let job = run.job();
        let opened = self.codecs.decode_payload(&job.tenant, job.spec.payload()).await;
        if let Some(payload) = opened.map_err(|error| undecodable(&error))? {
            run.opened(payload);
        }
        Ok(())
    }
}

fn is_encoded(run: &Run) -> bool {
    matches!(run.job().spec.payload(), Payload::Handler { args, .. } if Codecs::is_encoded(args))
}

/// Says why arguments could not be decoded or encoded. An error that may pass is retried, and so is what another agent may
/// be able to do, or this one when it is given the key: while keys are changed not all have all of them.
fn undecodable(error: &Error) -> Failure {
    let unknown = |fault: &Fault| matches!(&*fault.code, "unknown_key" | "unknown_codec");
    let passes = error.is_retryable() || error.faults().iter().any(unknown);
    Failure::new(if passes { FailureClass::Error } else { FailureClass::BadInput }, error.to_string())
}

fn bad_input(error: &Error) -> Ending {
    let failure = Failure::new(FailureClass::BadInput, error.to_string());
    Box::pin(std::future::ready(Outcome::Failed(failure)))
}

/// Calls the handler, catches its panics, and ends it when its time is over or somebody wants it to end.
async fn watch(run: &Run, call: impl FnOnce() -> Ending) -> Outcome {
    let called = std::panic::catch_unwind(AssertUnwindSafe(call));
    let future = match called {
        Ok(future) => future,
        Err(panic) => return Outcome::Failed(panicked("handler", &*panic)),
    };
    let mut future = AssertUnwindSafe(future).catch_unwind();
    let ended = |end: std::thread::Result<Outcome>| match end {
        Ok(done @ Outcome::Done(_)) => done,
        // It may have heard of it before we did.
        _ if run.stop().stopped().is_some() => Outcome::Cancel,
        Ok(outcome) => outcome,
        Err(panic) => Outcome::Failed(panicked("handler", &*panic)),
    };
    // Most handlers end at once, and need nobody to watch over them.
    if let Poll::Ready(end) = poll_fn(|cx| Poll::Ready(future.poll_unpin(cx))).await {
        return ended(end);
    }
    let timeout = run.job().spec.timeout();
    tokio::select! {
        biased;
        end = &mut future => ended(end),
        why = run.stop().wait() => match why {
            // A run that had truly ended has ended; whatever else comes now, it was stopped.
            StopCause::Cancelled => match tokio::time::timeout(GRACE, &mut future).await {
                Ok(Ok(done @ Outcome::Done(_))) => done,
                _ => Outcome::Cancel,
            },
            // Somebody else runs it now, or is about to.
            StopCause::LeaseLost => Outcome::Cancel,
        },
        () = over(timeout) => {
            // Whoever goes on with others in one call is to see that this one is over.
            run.stop().stop(StopCause::Cancelled);
            let message = format!("it took longer than {:?}", timeout.unwrap_or_default());
            Outcome::Failed(Failure::new(FailureClass::Timeout, message))
        }
    }
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Says how a run ended badly before it began.
pub(super) fn failed(class: FailureClass, message: impl Into<String>) -> News {
    News::Ended(Box::new(Finish::failed(Failure::new(class, message))))
}
