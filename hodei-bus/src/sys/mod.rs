//! The only unsafe code of the crate: a page of the ring, written once by one writer and read by many.

mod page;

pub(crate) use page::{Reader, Shelved, Writer};
