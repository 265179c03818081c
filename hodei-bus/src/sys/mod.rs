//! The only unsafe code of the crate: a page of the ring, written once by one writer and read by many, and the lock of those
//! who write.

mod page;
mod turn;

#[cfg(all(test, any(hodei_loom, hodei_shuttle)))]
pub(crate) use page::REUSED;
pub(crate) use page::{Reader, Shelved, Writer};
pub(crate) use turn::{Taken, Turn};
