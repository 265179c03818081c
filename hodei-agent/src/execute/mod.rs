//! How work is run: a port with an implementation for handlers and one for processes.

mod chunk;
mod command;
mod context;
mod executor;
mod handler;
mod layer;
mod outcome;
mod panic;
mod process;

pub use chunk::Chunks;
pub use command::ProcessExecutor;
pub use context::Context;
pub(crate) use executor::Home;
pub use executor::{Executor, Run, RunFuture, StopToken};
pub(crate) use handler::Handlers;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use layer::Trace;
pub use layer::{Call, CatchPanic, Layer, Next, Observe, Seen, Timeout};
pub use outcome::{IntoOutcome, Json, Outcome};
pub(crate) use panic::panicked;
