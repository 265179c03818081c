//! The store that notes what is asked of it and what it answers.

mod coordination;
mod jobs;
mod policies;
mod store;

pub use store::RecordingStore;
