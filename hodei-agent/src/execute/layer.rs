//! What stands around every handler of an agent.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use hodei_core::job::{Failure, FailureClass, Job};
use tokio::time::Instant;

use super::executor::{Run, StopToken};
use super::outcome::Outcome;
use super::panic::panicked;

/// A handler's run on its way through the layers.
#[derive(Debug)]
pub struct Call {
    run: Run,
}

impl Call {
    /// Returns the job, with the epoch it runs under.
    #[must_use]
    pub fn job(&self) -> &Job {
        self.run.job()
    }

    /// Returns the number of this attempt, counted from one.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.job().attempt + 1
    }

    /// Returns what tells the run to end.
    #[must_use]
    pub fn stop(&self) -> &StopToken {
        self.run.stop()
    }

    /// Writes a line to the run's own log.
    pub fn log(&self, line: impl AsRef<str>) {
        let mut bytes = Vec::from(line.as_ref());
        bytes.push(b'\n');
        self.run.say(&Bytes::from(bytes));
    }
}

/// Stands around handlers: does something before and after, or in their stead.
///
/// The layer that was added first is the outermost. It is called once per run, decides whether what is inside it runs at
/// all, and may change how the run ends. A layer sees a panic only through [`CatchPanic`] inside it; one that nobody
/// catches is caught by the agent. The time a job may take counts for everything, the layers included.
///
/// ```
/// use async_trait::async_trait;
/// use hodei_agent::{Call, Layer, Next, Outcome};
///
/// /// Runs nothing on holidays.
/// #[derive(Debug)]
/// struct Holidays;
///
/// #[async_trait]
/// impl Layer for Holidays {
///     async fn call(&self, call: &Call, next: Next<'_>) -> Outcome {
///         if call.job().spec.labels().get("urgent").is_none() {
///             return Outcome::Snooze(std::time::Duration::from_secs(3_600));
///         }
///         next.run().await
///     }
/// }
/// ```
#[async_trait]
pub trait Layer: Send + Sync + fmt::Debug {
    /// Runs what is inside, or not, and says how the run ends.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point: when the job's time is over, its lease is lost, or it did not heed a cancellation.
    async fn call(&self, call: &Call, next: Next<'_>) -> Outcome;
}

const _: fn(&dyn Layer) = |_| ();

type Begin = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send>;

/// What is inside a layer: the layers that were added after it, and the handler.
#[must_use = "nothing inside runs until it is run"]
pub struct Next<'a> {
    layers: &'a [Arc<dyn Layer>],
    call: &'a Call,
    begin: Begin,
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl Next<'_> {
    /// Runs it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's.
    pub async fn run(self) -> Outcome {
        match self.layers.split_first() {
            Some((layer, layers)) => {
                layer.call(self.call, Next { layers, call: self.call, begin: self.begin }).await
            }
            None => (self.begin)().await,
        }
    }
}

/// The layers of an agent, outermost first.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers(Vec<Arc<dyn Layer>>);

impl Layers {
    pub(super) fn push(&mut self, layer: Arc<dyn Layer>) {
        self.0.push(layer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs a handler inside all layers.
    pub(super) async fn around(self: Arc<Self>, run: Run, begin: Begin) -> Outcome {
        let call = Call { run };
        Next { layers: &self.0, call: &call, begin }.run().await
    }
}

/// Ends what is inside it when that takes longer; a failure of the class `Timeout`. For all handlers of an agent, whatever
/// their jobs allow themselves.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub Duration);

#[async_trait]
impl Layer for Timeout {
    async fn call(&self, _: &Call, next: Next<'_>) -> Outcome {
        match tokio::time::timeout(self.0, next.run()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(Failure::new(
                FailureClass::Timeout,
                format!("it took longer than {:?}", self.0),
            )),
        }
    }
}

/// Turns a panic of what is inside it into a failure of the class `Panic`, so that the layers around it see one.
#[derive(Clone, Copy, Debug)]
pub struct CatchPanic;

#[async_trait]
impl Layer for CatchPanic {
    async fn call(&self, _: &Call, next: Next<'_>) -> Outcome {
        let caught = AssertUnwindSafe(next.run()).catch_unwind().await;
        caught.unwrap_or_else(|panic| Outcome::Failed(panicked("handler", &*panic)))
    }
}

/// How a run went, for [`Observe`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Seen<'a> {
    /// The run.
    pub call: &'a Call,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// How long what is inside took.
    pub took: Duration,
}

/// Calls one function before what is inside runs and another one after it has ended; for metrics and audits. A run that is
/// dropped, because its time is over or its lease is lost, is not told of.
pub struct Observe<B, A> {
    before: B,
    after: A,
}

impl<B, A> Observe<B, A>
where
    B: Fn(&Call) + Send + Sync,
    A: Fn(Seen<'_>) + Send + Sync,
{
    /// Takes the two functions. They must not block.
    pub fn new(before: B, after: A) -> Self {
        Self { before, after }
    }
}

impl<B, A> fmt::Debug for Observe<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observe")
    }
}

#[async_trait]
impl<B, A> Layer for Observe<B, A>
where
    B: Fn(&Call) + Send + Sync,
    A: Fn(Seen<'_>) + Send + Sync,
{
    async fn call(&self, call: &Call, next: Next<'_>) -> Outcome {
        (self.before)(call);
        let began = Instant::now();
        let outcome = next.run().await;
        (self.after)(Seen { call, outcome: &outcome, took: began.elapsed() });
        outcome
    }
}

/// Wraps what is inside in a span of `tracing` named `job`, with the fields `id`, `kind`, `queue`, `tenant` and
/// `attempt`, and tells how it ended in an event at its end.
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
#[derive(Clone, Copy, Debug)]
pub struct Trace;

#[cfg(feature = "tracing")]
#[async_trait]
impl Layer for Trace {
    async fn call(&self, call: &Call, next: Next<'_>) -> Outcome {
        use tracing::Instrument as _;
        let job = call.job();
        let kind = job.spec.payload().runs();
        let span = tracing::info_span!(
            "job",
            id = %job.id,
            %kind,
            queue = %job.spec.queue(),
            tenant = %job.tenant,
            attempt = call.attempt(),
        );
        async {
            let began = Instant::now();
            let outcome = next.run().await;
            let took = began.elapsed();
            match &outcome {
                Outcome::Done(_) => tracing::info!(?took, "done"),
                Outcome::Failed(failure) => tracing::warn!(?took, class = ?failure.class, %failure, "failed"),
                Outcome::Snooze(wait) => tracing::info!(?took, ?wait, "snoozed"),
                Outcome::Cancel => tracing::info!(?took, "cancelled"),
            }
            outcome
        }
        .instrument(span)
        .await
    }
}
