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
use std::sync::PoisonError;

/// Locks; what a panicking thread left behind is valid at every point of this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
