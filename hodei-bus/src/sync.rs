//! The primitives of the ring: those of the standard library, or those of a model checker.
//!
//! `RUSTFLAGS="--cfg hodei_loom"` and `RUSTFLAGS="--cfg hodei_shuttle"` run the shipped code of the ring under loom and shuttle; see
//! `ring/model.rs`.

#[cfg(hodei_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(hodei_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(hodei_shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(hodei_shuttle)]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(hodei_loom, hodei_shuttle)))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

use std::ops::Deref;
use std::sync::{PoisonError, TryLockError};

/// Locks; what a panicking thread left behind is valid at every point of this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often [`pause`] relaxes the processor.
const PAUSE: u32 = 64;

/// Locks a mutex that is held for moments only, by threads that want it again and again. Who finds it taken keeps away from it
/// for a while, so that the other gets through many holds of it without passing its cache line to and fro.
#[inline]
pub(crate) fn lock_often<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(left)) => left.into_inner(),
        Err(TryLockError::WouldBlock) => {
            pause();
            lock(mutex)
        }
    }
}

/// How many rounds somebody gives way: to loom every further one is as the first.
pub(crate) const fn rounds(wanted: u32) -> u32 {
    if cfg!(hodei_loom) { 1 } else { wanted }
}

/// Relaxes the processor for some microseconds, so that others get ahead.
#[cold]
pub(crate) fn pause() {
    (0..PAUSE).for_each(|_| std::hint::spin_loop());
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
