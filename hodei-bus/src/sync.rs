//! The primitives of the ring: those of the standard library, or those of a model checker.
//!
//! `RUSTFLAGS="--cfg hodei_loom"` and `RUSTFLAGS="--cfg hodei_shuttle"` run the shipped code of the ring under loom and shuttle; see
//! `ring/model.rs`.

#[cfg(hodei_loom)]
use loom::sync::Condvar;
#[cfg(hodei_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(hodei_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(hodei_shuttle)]
use shuttle::sync::Condvar;
#[cfg(hodei_shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(hodei_shuttle)]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
use std::sync::Condvar;
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

use std::ops::Deref;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize as Unmodelled;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Locks; what a panicking thread left behind is valid at every point of this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many rounds somebody gives way: to loom every further one is as the first.
pub(crate) const fn rounds(wanted: u32) -> u32 {
    if cfg!(hodei_loom) { 1 } else { wanted }
}

/// How long a [`pause`] takes: some hundred times what a publisher needs for an event.
const PAUSE: Duration = Duration::from_micros(3);

/// Relaxes the processor for some microseconds, so that others get ahead. By the clock: what a spin takes differs by ten times
/// between processors.
#[cold]
pub(crate) fn pause() {
    let since = Instant::now();
    while !cfg!(any(hodei_loom, hodei_shuttle)) && since.elapsed() < PAUSE {
        (0..8).for_each(|_| std::hint::spin_loop());
    }
}

/// Where threads sleep that look for something again and again. They are woken without a fence: who begins to sleep in the very
/// moment that something comes may not be seen, and finds it after its nap.
#[derive(Debug, Default)]
pub(crate) struct Doze {
    /// Not of the models, where everybody sees it at once: naps never end there, so nobody may be overlooked.
    sleeping: Unmodelled,
    gate: Mutex<()>,
    roused: Condvar,
}

impl Doze {
    /// Looks until there is something: whenever it is roused, and after each `nap` at the latest.
    pub(crate) fn until<R>(&self, nap: Duration, mut look: impl FnMut() -> Option<R>) -> R {
        let mut gate = lock(&self.gate);
        self.sleeping.fetch_add(1, SeqCst);
        loop {
            if let Some(found) = look() {
                self.sleeping.fetch_sub(1, SeqCst);
                return found;
            }
            gate = self.roused.wait_timeout(gate, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets one look that is seen to sleep.
    #[inline]
    pub(crate) fn rouse(&self) {
        if self.sleeping.load(Relaxed) != 0 {
            self.rouse_one();
        }
    }

    #[cold]
    fn rouse_one(&self) {
        // Not between a look that finds nothing and the sleep.
        drop(lock(&self.gate));
        self.roused.notify_one();
    }

    /// Returns how many sleep.
    #[cfg(all(test, not(any(hodei_loom, hodei_shuttle))))]
    pub(crate) fn sleeping(&self) -> usize {
        self.sleeping.load(SeqCst)
    }
}

/// A value alone on its cache lines: two of 64 bytes, which processors fetch in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
