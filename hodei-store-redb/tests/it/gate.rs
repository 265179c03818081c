//! A clock that holds up whoever asks it, so that a test decides what shares a commit.
//!
//! The writer asks the clock before each call of a group: while the gate is closed it stands there, and what is asked
//! of the store meanwhile becomes the next group.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use hodei_core::{Clock, Timestamp};

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: usize,
}

/// The clock.
#[derive(Debug, Default)]
pub(crate) struct GateClock {
    gate: Mutex<Gate>,
    moved: Condvar,
}

impl GateClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().expect("nobody panics with it")
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn open(&self) {
        self.lock().closed = false;
        self.moved.notify_all();
    }

    /// Waits until somebody stands at the gate.
    pub(crate) fn somebody_waits(&self) {
        let waiting = self.moved.wait_while(self.lock(), |gate| gate.waiting == 0);
        drop(waiting.expect("nobody panics with it"));
    }
}

impl Clock for GateClock {
    fn now(&self) -> Timestamp {
        let mut gate = self.lock();
        gate.waiting += 1;
        self.moved.notify_all();
        let mut gate = self.moved.wait_while(gate, |gate| gate.closed).expect("nobody panics with it");
        gate.waiting -= 1;
        Timestamp::from_micros(1_700_000_000_000_000)
    }
}
