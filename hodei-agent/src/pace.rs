//! The agent's time.

use hodei_core::{Clock, SystemClock, Timestamp};
use tokio::time::Instant;

/// The time that the operating system showed when it was made, and since then what has really passed: a clock that is set
/// neither holds reports back nor ends runs early.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Timestamp,
    at: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { began: SystemClock.now(), at: Instant::now() }
    }
}

impl Clock for Pace {
    fn now(&self) -> Timestamp {
        self.began.saturating_add(self.at.elapsed())
    }
}
