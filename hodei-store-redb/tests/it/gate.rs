//! A clock that holds up whoever asks it, so that a test decides what shares a commit.
//!
//! The writer asks the clock before each call of a group: while the gate is closed it stands there, and what is asked
//! of the store meanwhile becomes the next group.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use hodei_core::{Clock, Timestamp};

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: usize,
    /// What happens when the clock is asked once more after so many times.
    then: Option<(usize, Box<dyn FnOnce() + Send>)>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("closed", &self.closed).finish_non_exhaustive()
    }
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

    /// Lets something happen on the thread of whoever asks the clock after so many others have.
    pub(crate) fn after(&self, calls: usize, happens: impl FnOnce() + Send + 'static) {
        self.lock().then = Some((calls, Box::new(happens)));
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
        let now = match gate.then.as_mut() {
            Some((0, _)) => gate.then.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        drop(gate);
        if let Some((_, happens)) = now {
            happens();
        }
        Timestamp::from_micros(1_700_000_000_000_000)
    }
}
