//! What a job is, which moves it may make, and the rules every store applies.
//!
//! [`JobSpec`] is what is to be done, validated once at the door and shared from then on. [`NewJob`] is a
//! submission of it, [`Job`] the record that walks through the [`State`]s. The functions of [`rules`] decide every
//! transition; stores only keep what they say.

mod fingerprint;
mod new;
mod outcome;
mod payload;
mod placement;
mod record;
mod resources;
mod retry;
pub mod rules;
mod secret;
mod selector;
mod share;
mod spec;
mod spec_builder;
mod state;
mod unique;
mod validate;

pub use fingerprint::Fingerprint;
pub use new::{NewJob, Parent, Requires};
pub use outcome::{
    ArtifactEntry, BlobRef, Exit, FAILURE_MESSAGE_MAX, Failure, FailureClass, Finish, LogEnd, Manifest,
    OUTPUT_INLINE_MAX, Outcome, Output, Stream,
};
pub use payload::{Command, CommandMore, Encoding, JobKind, Payload, Request, RequestClass, Runs};
pub use placement::Placement;
pub use record::{Epoch, Generation, Job, JobSummary, Lease, Settled};
pub use resources::Resources;
pub use retry::{Backoff, RetryPolicy, RetryRule};
pub use secret::Secret;
pub use selector::Selector;
pub use share::Share;
pub use spec::{JobSpec, JobSpecBuilder, Priority, SpecLimits, SpecParts};
pub use state::{Cause, State, Transitions, next};
pub use unique::{Held, UNIQUE_KEY_MAX, Unique};
