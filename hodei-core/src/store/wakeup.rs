//! Being told that there may be something to do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use event_listener::{Event, EventListener};
use futures_core::Stream;

/// Something may have become ready, or a running job may have to stop. Wake-ups are coalesced: one may stand for
/// many, and one may be for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup;

/// Wake-ups as they come. A wake-up that came between two polls is not lost.
pub type Wakeups = Pin<Box<dyn Stream<Item = Wakeup> + Send>>;

/// What a store rings after a commit; every stream of wake-ups hears it.
#[derive(Clone, Debug, Default)]
pub struct WakeupSignal(Arc<Bell>);

#[derive(Debug, Default)]
struct Bell {
    rung: AtomicU64,
    event: Event,
}

impl WakeupSignal {
    /// Makes a signal that has not rung.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings; does nothing else, and costs little when nobody listens.
    pub fn ring(&self) {
        // Release, so that whoever sees the new count sees what was committed before it.
        self.0.rung.fetch_add(1, Ordering::Release);
        self.0.event.notify(usize::MAX);
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> Wakeups {
        let seen = self.0.rung.load(Ordering::Acquire);
        Box::pin(Listening { bell: Arc::clone(&self.0), seen, listener: None })
    }
}

struct Listening {
    bell: Arc<Bell>,
    seen: u64,
    listener: Option<Pin<Box<EventListener>>>,
}

impl Stream for Listening {
    type Item = Wakeup;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Wakeup>> {
        loop {
            let rung = self.bell.rung.load(Ordering::Acquire);
            if rung != self.seen {
                self.seen = rung;
                self.listener = None;
                return Poll::Ready(Some(Wakeup));
            }
            // Listen first, look again, and only then wait: a ring in between is not missed.
            if let Some(listener) = &mut self.listener {
                ready!(listener.as_mut().poll(cx));
                self.listener = None;
            } else {
                let listener = self.bell.event.listen();
                self.listener = Some(Box::pin(listener));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wakeups: &mut Wakeups) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        wakeups.as_mut().poll_next(&mut cx).is_ready()
    }

    #[test]
    fn rings_between_polls_are_heard_once() {
        let signal = WakeupSignal::new();
        let (mut a, mut b) = (signal.listen(), signal.listen());
        assert!(!poll(&mut a));
        signal.ring();
        signal.ring();
        assert_eq!((poll(&mut a), poll(&mut a)), (true, false));
        assert_eq!((poll(&mut b), poll(&mut b)), (true, false));
    }
}
