//! Publishers that sleep until there is room.

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, Padded, fence, lock};

/// How many are woken between two holds of the lock.
pub(crate) const AT_ONCE: usize = 32;

/// Names one sleeper of a [`Waiting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) u64);

/// Tasks that sleep, and how many they are: whoever might wake them looks at one number when there is none.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    count: Padded<AtomicUsize>,
    /// A mutex held for a push or a removal. No waker is called under it.
    list: Mutex<Vec<(Ticket, Waker)>>,
    tickets: AtomicU64,
}

impl Waiting {
    /// Makes a name for somebody who may sleep here.
    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Tries until it succeeds, sleeping between; returns how long it slept, when it did.
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as the attempts are.
    pub(crate) async fn until<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> (R, Option<Duration>) {
        if let Some(done) = attempt() {
            return (done, None);
        }
        let since = Instant::now();
        let place = Place { of: self, ticket: self.ticket() };
        let done = poll_fn(|context| {
            place.of.enter(place.ticket, context.waker());
            attempt().map_or(Poll::Pending, Poll::Ready)
        });
        (done.await, Some(since.elapsed()))
    }

    /// Puts a sleeper down, or its newer waker. It must look once more before it sleeps: what happened before this call is
    /// visible after it, and what happens later wakes it.
    fn enter(&self, ticket: Ticket, waker: &Waker) {
        let old = {
            let mut list = lock(&self.list);
            let place = list.iter().position(|(known, _)| *known == ticket);
            let old = match place.map(|place| &mut list[place].1) {
                Some(known) if known.will_wake(waker) => None,
                Some(known) => Some(std::mem::replace(known, waker.clone())),
                None => {
                    list.push((ticket, waker.clone()));
                    None
                }
            };
            self.counted(list.len());
            old
        };
        // Outside the lock: with the last waker of a task goes the task, whatever it holds.
        drop(old);
        // Pairs with the fence of `wake`.
        fence(Ordering::SeqCst);
    }

    /// Takes a sleeper off, if it is still there.
    fn leave(&self, ticket: Ticket) {
        let waker = {
            let mut list = lock(&self.list);
            let place = list.iter().rposition(|(known, _)| *known == ticket);
            let waker = place.map(|place| list.swap_remove(place));
            self.counted(list.len());
            waker
        };
        drop(waker);
    }

    /// Wakes everyone. What they wait for must have been written before.
    pub(crate) fn wake(&self) {
        // Pairs with the fence of `enter`: either the sleeper sees what was written, or it is seen here.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        let mut woken: [Option<Waker>; AT_ONCE] = [const { None }; AT_ONCE];
        // Who sleeps now is woken; who falls asleep meanwhile has seen what was written.
        let mut left = lock(&self.list).len();
        while left > 0 {
            let n = {
                let mut list = lock(&self.list);
                let n = left.min(AT_ONCE).min(list.len());
                // From the front: those who have slept longest, while newcomers are appended.
                for (slot, (_, waker)) in woken.iter_mut().zip(list.drain(..n)) {
                    *slot = Some(waker);
                }
                self.counted(list.len());
                n
            };
            if n == 0 {
                return;
            }
            left -= n;
            woken.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        }
    }

    /// Under the lock. A swap, not a store: a reader of the count must not see an older one after a newer.
    fn counted(&self, len: usize) {
        self.count.swap(len, Ordering::Relaxed);
    }
}

/// Somebody who may be among the sleepers until it is dropped.
struct Place<'a> {
    of: &'a Waiting,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.leave(self.ticket);
    }
}
