//! What tests and figures share: the suite that every store is held to, the recorder and checker of histories, the
//! store that fails when it is told to, what processes under test say, and the job that every size, memory and codec
//! figure is of.

pub mod conformance;
pub mod fault;
pub mod history;
mod said;
mod typical;

pub use said::lines;
pub use typical::{typical_job, typical_spec};
