//! Where submissions come in.

use std::fmt;
use std::task::{Context, Poll};

use super::sync::{AtomicBool, AtomicWaker, Ordering, SegQueue, fence};

/// A mailbox that many fill and one empties.
///
/// Whoever submits takes no lock: a submitter that is held up by the operating system holds up nobody else, and the
/// one who empties it never holds up a submitter. Each submitter's items come out in the order in which it put them
/// in, and whatever was put in before [`Intake::drain`] began is seen by it.
///
/// Sleeping costs submitters nothing while the owner is awake: they look at a flag that they share for reading.
pub struct Intake<T> {
    queue: SegQueue<T>,
    max: usize,
    sleeping: AtomicBool,
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("len", &self.queue.len())
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// Why an item was not taken; it is given back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// As many wait as may.
    Full(T),
    /// The owner is gone.
    Closed(T),
}

impl<T> Intake<T> {
    /// Makes an intake in which at most about `max` items wait: submitters that come at the same moment may each add
    /// one more.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            queue: SegQueue::new(),
            max,
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Puts an item in, and wakes the owner if it sleeps.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the item, when as many wait as may, or when the owner is gone. An item that is put in at the
    /// very moment in which the owner goes is dropped with the intake.
    pub fn push(&self, item: T) -> Result<(), Refused<T>> {
        self.put(item)?;
        self.wake();
        Ok(())
    }

    /// Puts items in one after the other, and wakes the owner once.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the first item that is not taken; those before it are in, and those behind it still in `items`.
    pub fn push_batch(&self, items: &mut impl Iterator<Item = T>) -> Result<(), Refused<T>> {
        let put = items.try_for_each(|item| self.put(item));
        self.wake();
        put
    }

    fn put(&self, item: T) -> Result<(), Refused<T>> {
        // A submitter that reads this too early is one of those that come at that very moment.
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed(item));
        }
        // Counting looks at both ends, and so disturbs the owner.
        if self.max < usize::MAX && self.queue.len() >= self.max {
            return Err(Refused::Full(item));
        }
        self.queue.push(item);
        Ok(())
    }

    /// Wakes the owner if it sleeps.
    fn wake(&self) {
        // The item first, the flag then; the owner writes the flag first and looks for items then. With a fence on
        // both sides at least one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    /// Takes one item out. For the owner.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Takes up to `max` items out, oldest first, and returns how many there were. For the owner.
    pub fn drain(&self, max: usize, mut take: impl FnMut(T)) -> usize {
        for n in 0..max {
            match self.queue.pop() {
                Some(item) => take(item),
                None => return n,
            }
        }
        max
    }

    /// Is ready when an item waits; else the owner is woken when one comes. For the owner.
    pub fn poll_filled(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.queue.is_empty() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // A swap, so that no write to the flag is ordered within another one.
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() && !self.closed.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.sleeping.swap(false, Ordering::Relaxed);
        Poll::Ready(())
    }

    /// Waits until an item is there. For the owner.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken out.
    pub async fn filled(&self) {
        std::future::poll_fn(|cx| self.poll_filled(cx)).await;
        self.sleeping.swap(false, Ordering::Relaxed);
    }

    /// Takes no more items: the owner goes. Whoever waits is woken.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether it takes no more items.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// About how many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no item waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
