//! What the lock-free parts are made of: the real things, or the models of loom and shuttle.
//!
//! ```text
//! RUSTFLAGS="--cfg hodei_loom" cargo test -p hodei-sched --lib --release queue::explored
//! RUSTFLAGS="--cfg hodei_shuttle" cargo test -p hodei-sched --lib --release queue::explored
//! ```

#[cfg(not(any(hodei_loom, hodei_shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    pub(crate) use crossbeam_queue::SegQueue;
    pub(crate) use futures_util::task::AtomicWaker;
}

#[cfg(hodei_loom)]
mod real {
    use std::task::Waker;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// Loom's waker, called as the real one is.
    #[derive(Debug)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }
}

#[cfg(hodei_shuttle)]
mod real {
    use std::task::Waker;

    pub(crate) use shuttle::sync::Mutex;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// A waker behind a lock: shuttle has none of its own.
    #[derive(Debug)]
    pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(None))
        }

        pub(crate) fn register(&self, waker: &Waker) {
            *self.0.lock().expect("nobody panics with it") = Some(waker.clone());
        }

        pub(crate) fn wake(&self) {
            let waker = self.0.lock().expect("nobody panics with it").take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[cfg(any(hodei_loom, hodei_shuttle))]
mod model {
    use std::collections::VecDeque;

    use super::Mutex;

    /// What crossbeam's queue promises, for the explorers: they cannot look into the real one.
    #[derive(Debug)]
    pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, item: T) {
            self.0.lock().expect("nobody panics with it").push_back(item);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().expect("nobody panics with it").pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.lock().expect("nobody panics with it").len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }
}

#[cfg(any(hodei_loom, hodei_shuttle))]
pub(crate) use model::SegQueue;
pub(crate) use real::*;
