//! Waiting for another process.

use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to start, to stop or to answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition of another process is looked at.
const BEAT: Duration = Duration::from_millis(2);

/// Waits until `done`; whether that came within [`PATIENCE`].
pub(crate) fn until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        thread::park_timeout(BEAT);
    }
    true
}
