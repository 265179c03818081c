//! How work is run: a port with an implementation for handlers and one for processes.

mod command;
mod context;
mod executor;
mod handler;
mod outcome;
mod panic;
mod process;

pub use command::ProcessExecutor;
pub use context::Context;
pub(crate) use executor::Home;
pub use executor::{Executor, Run, RunFuture, StopToken};
pub(crate) use handler::Handlers;
pub use outcome::{IntoOutcome, Json, Outcome};
pub(crate) use panic::panicked;
