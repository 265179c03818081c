//! When a node need not say that it lives: while it holds nothing and somebody else leads.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a dispatcher may hold something, and whether its node has let its lease run out meanwhile.
///
/// The dispatcher says that it is busy before it looks whether it rests, and the maintenance has it rest before it looks
/// whether it is busy: so one of the two sees the other.
#[derive(Debug)]
pub(crate) struct Rest {
    busy: AtomicBool,
    rests: AtomicBool,
}

impl Rest {
    /// A dispatcher that has not said that it holds nothing.
    pub(crate) fn new() -> Self {
        Self { busy: AtomicBool::new(true), rests: AtomicBool::new(false) }
    }

    /// The dispatcher holds nothing, and no call is under way that could change that.
    pub(crate) fn idle(&self) {
        self.busy.store(false, Ordering::SeqCst);
    }

    /// Whether the dispatcher holds nothing.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::SeqCst)
    }

    /// The dispatcher is about to ask the store; says whether it needs a new lease before it claims anything.
    pub(crate) fn wake(&self) -> bool {
        self.busy.store(true, Ordering::SeqCst);
        self.rests.swap(false, Ordering::SeqCst)
    }

    /// Nobody says any more that the dispatcher lives, if it holds nothing; says whether that is so.
    pub(crate) fn lie_down(&self) -> bool {
        let already = self.rests.swap(true, Ordering::SeqCst);
        let busy = self.busy.load(Ordering::SeqCst);
        if busy && !already {
            self.rests.store(false, Ordering::SeqCst);
        }
        !busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_does_not_rest() {
        let rest = Rest::new();
        assert!(!rest.lie_down());
        assert!(!rest.wake(), "its lease was never let go");
        rest.idle();
        assert!(rest.lie_down() && rest.lie_down());
    }

    #[test]
    fn who_wakes_needs_a_lease_once() {
        let rest = Rest::new();
        rest.idle();
        assert!(rest.lie_down());
        assert!(rest.wake() && !rest.wake());
        assert!(!rest.lie_down(), "it is busy");
        rest.idle();
        assert!(rest.lie_down() && rest.wake());
    }
}
