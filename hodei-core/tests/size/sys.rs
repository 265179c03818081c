//! An allocator that counts the bytes that are alive.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe to implement; this one adds two counters to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

static ALIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// Does something, and returns how many bytes more are alive afterwards.
pub(crate) fn count<R>(make: impl FnOnce() -> R) -> (R, isize) {
    let before = ALIVE.load(Ordering::Relaxed);
    let made = make();
    (made, ALIVE.load(Ordering::Relaxed) - before)
}
