//! What happened to a store, recorded, and whether it kept its guarantees.
//!
//! [`RecordingStore`] wraps a store and notes every call and its reply in a [`Recorder`]; workers add the runs they
//! begin and end, subscribers what they see. What was recorded is a [`History`], one JSON object per line, readable
//! after a crash. [`check`] holds a history to the guarantees and names every [`Violation`]:
//!
//! ```
//! use hodei_core::store::{JobStore, MemoryStore, SubmitOptions};
//! use hodei_core::testkit::history::{Recorder, RecordingStore, check};
//! use hodei_core::testkit::typical_job;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hodei_core::Result<()> {
//! let recorder = Recorder::new();
//! let store = RecordingStore::new(MemoryStore::new(), recorder.clone());
//! store.submit(vec![typical_job()], SubmitOptions::each()).await?;
//! store.survey().await?;
//! let report = check(&recorder.history());
//! assert!(report.is_clean(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! A history may also be made of what others wrote down: the change log of a store that was killed and opened again,
//! and the ids that were acknowledged before. See [`History::surveyed`] and [`History::acknowledged`].
//!
//! # How it decides
//!
//! The order of the entries is real time: of two calls, one came first when its reply was noted before the other was
//! begun. Each transition carries its version, so the order of a job's transitions is read, not inferred; the order
//! across jobs is that of the change log. A call without a reply, or one that failed with an unknown outcome, may or
//! may not have happened, and the checker accepts either. It takes one pass and a sort per group of invariants,
//! O(n log n) in the entries, and never recurses.

mod call;
mod check;
mod entry;
mod facts;
mod jsonl;
mod log;
mod recorder;
mod recording;
mod report;

pub use call::{Call, Reply, Step, Want};
pub use check::{Bounds, check, check_within};
pub use entry::{Entry, LimitSeen, LogSeen, QueueSeen};
pub use facts::{Facts, Seen};
pub use log::{History, Survey};
pub use recorder::{Recorder, Run};
pub use recording::RecordingStore;
pub use report::{Figures, Invariant, Report, Violation};
