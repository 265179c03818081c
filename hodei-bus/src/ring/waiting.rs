//! Publishers that sleep until there is room.

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, Padded, fence, lock, pause, rounds};

/// How many are woken between two holds of the lock.
pub(crate) const AT_ONCE: usize = 32;

/// How often somebody who was woken gives way before it goes on: each time some microseconds.
const GIVES_WAY: u32 = rounds(4);

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

    /// Tries until it succeeds, sleeping between. The time is charged to whoever kept it from success last, also when it is
    /// given up.
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as the attempts are.
    pub(crate) async fn until<R, B: Blocker>(&self, mut attempt: impl FnMut() -> Result<R, B>) -> R {
        let blocker = match attempt() {
            Ok(done) => return done,
            Err(blocker) => blocker,
        };
        let mut wait = Wait { since: Instant::now(), blocker };
        let place = Place { of: self, ticket: self.ticket() };
        let (mut looked, mut gives_way) = (false, 0);
        poll_fn(|context| {
            if gives_way > 0 {
                gives_way -= 1;
                pause();
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            place.of.enter(place.ticket, context.waker());
            match attempt() {
                Ok(done) => return Poll::Ready(done),
                Err(blocker) => wait.blocker = blocker,
            }
            // A reader that is busy says without a fence that it has read on, and may not have seen this sleeper: so it gives
            // way and looks once more each time before it sleeps.
            looked = !looked;
            if looked {
                context.waker().wake_by_ref();
            } else {
                // It is woken for one place: until it goes on, there are more, and it need not sleep again at once.
                gives_way = GIVES_WAY;
            }
            Poll::Pending
        })
        .await
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

    /// Says whether anybody is seen to sleep, without a fence: who falls asleep just now may not be seen.
    #[inline]
    pub(crate) fn is_entered(&self) -> bool {
        // Acquire: what a sleeper has seen before it entered is seen.
        self.count.load(Ordering::Acquire) != 0
    }

    /// Wakes everyone. What they wait for must have been written before.
    pub(crate) fn wake(&self) {
        // Pairs with the fence of `enter`: either the sleeper sees what was written, or it is seen here.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
    }

    /// As [`Waiting::wake`], for who has seen that somebody sleeps.
    #[cold]
    pub(crate) fn wake_all(&self) {
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
        self.count.swap(len, Ordering::Release);
    }
}

/// What keeps a publisher waiting.
pub(crate) trait Blocker {
    /// Notes that somebody has waited for it so long.
    fn charge(&self, time: Duration);
}

/// A wait that is charged to its cause when it is over, or given up.
struct Wait<B: Blocker> {
    since: Instant,
    blocker: B,
}

impl<B: Blocker> Drop for Wait<B> {
    fn drop(&mut self) {
        self.blocker.charge(self.since.elapsed());
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
