//! Whose turn it is: a lock that is given back with a plain store.
//!
//! A mutex is taken and given back with a read-modify-write each, and each waits until everything written before has left the
//! processor: half of what it costs to publish a single event. Here only the taking is one. What it pays is in
//! `benches/compare/bus`, in the cells of single events.
//!
//! The price: whoever gives back may not see somebody who begins to wait in that very moment. So those who wait look again
//! after [`NAP`] at the latest, and a missed wake-up costs no more than that.
#![expect(
    unsafe_code,
    reason = "the value is lent to whoever has the turn; `benches/compare/bus` shows what it pays"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::sync::{AtomicBool, Doze, Ordering, pause, rounds};

/// How often somebody who finds the turn taken keeps away from it for some microseconds before it sleeps.
const SPINS: u32 = rounds(8);
/// The longest that somebody sleeps without looking.
const NAP: Duration = Duration::from_micros(200);

/// A value for one thread at a time, which holds it for moments only.
pub(crate) struct Turn<T> {
    taken: AtomicBool,
    /// Those who sleep until it is given back.
    doze: Doze,
    value: UnsafeCell<T>,
    /// Tells loom of each turn.
    #[cfg(hodei_loom)]
    witness: loom::cell::UnsafeCell<()>,
}

// SAFETY: the value is reached through a `Taken` only, of which there is one at a time: see `Turn::try_take`.
unsafe impl<T: Send> Sync for Turn<T> {}

/// The turn, until it is dropped.
pub(crate) struct Taken<'a, T> {
    of: &'a Turn<T>,
    /// As of a `&mut T`: it may be sent or shared where that may.
    _lent: PhantomData<&'a mut T>,
}

impl<T> Turn<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            doze: Doze::default(),
            value: UnsafeCell::new(value),
            #[cfg(hodei_loom)]
            witness: loom::cell::UnsafeCell::new(()),
        }
    }

    /// Takes the turn; waits while somebody else has it.
    #[inline]
    pub(crate) fn take(&self) -> Taken<'_, T> {
        self.try_take().unwrap_or_else(|| self.wait())
    }

    #[inline]
    fn try_take(&self) -> Option<Taken<'_, T>> {
        // Acquire: pairs with the Release of whoever gave it back. Of all who try, one finds it free.
        self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Taken { of: self, _lent: PhantomData })
    }

    /// Waits for the turn. First at a distance, so that whoever has it gets through many turns without passing the cache line
    /// to and fro; then asleep, as it may be held by a thread that is not running.
    #[cold]
    fn wait(&self) -> Taken<'_, T> {
        for _ in 0..SPINS {
            pause();
            if let Some(taken) = self.try_take() {
                return taken;
            }
        }
        self.doze.until(NAP, || self.try_take())
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        #[cfg(hodei_loom)]
        self.of.witness.with(|_| ());
        // SAFETY: there is one `Taken` of a turn at a time, and it is borrowed.
        unsafe { &*self.of.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        #[cfg(hodei_loom)]
        self.of.witness.with_mut(|_| ());
        // SAFETY: there is one `Taken` of a turn at a time, and it is borrowed for this alone.
        unsafe { &mut *self.of.value.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: whoever takes it next sees what was done here.
        self.of.taken.store(false, Ordering::Release);
        self.of.doze.rouse();
    }
}

impl<T> fmt::Debug for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(hodei_loom, hodei_shuttle))))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_turn_is_one_threads_alone() {
        const EACH: u64 = 20_000;
        let turn = Turn::new((0_u64, 0_u64));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut sums = turn.take();
                        sums.0 += 1;
                        std::hint::black_box(&mut *sums);
                        sums.1 += 1;
                        assert_eq!(sums.0, sums.1);
                    }
                });
            }
        });
        assert_eq!(*turn.take(), (4 * EACH, 4 * EACH));
    }

    /// Who has it is not running for long: those who wait are asleep, and are woken one after the other.
    #[test]
    fn who_sleeps_for_a_turn_gets_it() {
        let turn = Turn::new(0_u64);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let mut first = turn.take();
            for _ in 0..3 {
                let (turn, tell) = (&turn, tell.clone());
                scope.spawn(move || {
                    *turn.take() += 1;
                    tell.send(()).unwrap();
                });
            }
            while turn.doze.sleeping() < 3 {
                thread::yield_now();
            }
            assert!(told.try_recv().is_err());
            *first += 10;
            drop(first);
            (0..3).for_each(|_| told.recv().unwrap());
        });
        assert_eq!(*turn.take(), 13);
        assert_eq!(turn.doze.sleeping(), 0);
    }

    #[test]
    fn who_panics_gives_its_turn_back() {
        let turn = Turn::new(1);
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut taken = turn.take();
            *taken += 1;
            panic!("with its turn");
        }));
        assert!(panics.is_err());
        assert_eq!(*turn.take(), 2);
    }
}
