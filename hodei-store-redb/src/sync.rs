//! Locks and threads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use hodei_core::{Error, ErrorKind, Result};

/// Takes a lock that a panic elsewhere does not close: what it guards is only ever replaced as a whole or changed
/// without panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread of a name.
pub(crate) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let failed = |source| Error::new(ErrorKind::Io, "store.open").source_error(source);
    Builder::new().name(name.to_owned()).spawn(run).map_err(failed)
}

/// Threads that have to be over before the rest of the program goes on.
#[derive(Debug)]
pub(crate) struct Threads(pub(crate) Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        let own = std::thread::current().id();
        // A waker that one of them drops may hold the last clone of the store: nobody can wait for himself.
        for thread in self.0.drain(..).filter(|thread| thread.thread().id() != own) {
            // A thread that panicked is over too.
            drop(thread.join());
        }
    }
}
