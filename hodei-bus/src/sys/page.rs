//! A page: an array that one [`Writer`] fills from the front and any number of [`Reader`]s follow.
//!
//! The whole of its safety is the published length. Slots below it are initialised and never written again while the page
//! is shared; slots from it on belong to the writer alone. A page is used again only by whoever holds its last reference.
#![expect(
    unsafe_code,
    reason = "slots are written while others of the same array are read; `cargo bench --bench bus` shows what it pays"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::{MaybeUninit, needs_drop};

use crate::sync::{Arc, AtomicUsize, Ordering, Padded};

/// The slots and how many of them are published.
struct Page<T> {
    /// The number of the first slot in the sequence of the ring.
    base: u64,
    /// How many slots from the front are published. Written by the writer only.
    len: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Tells loom of each access to a slot, which it cannot see: slices of slots are lent as they are.
    #[cfg(hodei_loom)]
    witness: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: a page is shared by one writer, which moves values in, and readers, which see them through `&T` and may be the
// last to drop them. The writer and the readers never touch the same slot: see `Writer::extend` and `Reader::window`.
unsafe impl<T: Send + Sync> Sync for Page<T> {}

impl<T> Page<T> {
    fn new(base: u64, size: usize) -> Self {
        Self {
            base,
            len: Padded(AtomicUsize::new(0)),
            slots: (0..size).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
            #[cfg(hodei_loom)]
            witness: (0..size).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    /// Drops what is published. Needs the page for itself.
    fn clear(&mut self) {
        // Relaxed: `&mut` has been synchronised with whoever published.
        let len = self.len.load(Ordering::Relaxed);
        // First the length: a value whose drop panics leaves the rest behind, and nothing is dropped twice.
        self.len.store(0, Ordering::Relaxed);
        if needs_drop::<T>() {
            for slot in &mut self.slots[..len] {
                // SAFETY: slots below the published length are initialised, and the length no longer covers them.
                unsafe { slot.get_mut().assume_init_drop() };
            }
        }
    }
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The one who fills a page.
pub(crate) struct Writer<T> {
    page: Arc<Page<T>>,
    /// How many slots are initialised: those published, and those that will be.
    filled: usize,
}

impl<T> Writer<T> {
    /// Makes a page whose first slot has this number.
    pub(crate) fn new(base: u64, size: usize) -> Self {
        Self { page: Arc::new(Page::new(base, size)), filled: 0 }
    }

    /// Empties a page that nobody else holds and fills it anew; else gives it back.
    pub(crate) fn reuse(mut spare: Shelved<T>, base: u64) -> Result<Self, Shelved<T>> {
        let Some(page) = Arc::get_mut(&mut spare.0) else { return Err(spare) };
        page.clear();
        page.base = base;
        #[cfg(all(test, any(hodei_loom, hodei_shuttle)))]
        REUSED.fetch_add(1, Ordering::Relaxed);
        Ok(Self { page: spare.0, filled: 0 })
    }

    /// Moves values into the slots that are left and publishes them; the rest stays in the iterator.
    ///
    /// A panic of the iterator publishes what it gave before.
    #[inline]
    pub(crate) fn extend(&mut self, values: &mut impl Iterator<Item = T>) -> usize {
        let Self { page, filled } = self;
        let before = *filled;
        let publish = Publish { len: &page.len, filled };
        for (index, slot) in page.slots.iter().enumerate().skip(before) {
            let Some(value) = values.next() else { break };
            #[cfg(hodei_loom)]
            page.witness[index].with_mut(|_| ());
            // SAFETY: slots from `filled` on are published to nobody, and there is one writer to a page: it is made with
            // the page, or from the only reference to it, and is not cloned.
            unsafe { (*slot.get()).write(value) };
            *publish.filled = index + 1;
        }
        drop(publish);
        *filled - before
    }

    /// Moves a value into the next slot and publishes it.
    ///
    /// # Panics
    ///
    /// When no slot is left.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        let slot = &self.page.slots[self.filled];
        #[cfg(hodei_loom)]
        self.page.witness[self.filled].with_mut(|_| ());
        // SAFETY: as in `extend`.
        unsafe { (*slot.get()).write(value) };
        self.filled += 1;
        // Release: whoever sees the length sees the values below it.
        self.page.len.store(self.filled, Ordering::Release);
    }

    /// Says whether no slot is left.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.page.slots.len()
    }

    /// Returns the number of the next slot in the sequence of the ring.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.page.base + self.filled as u64
    }

    /// Begins to read behind what is filled.
    pub(crate) fn end(&self) -> Reader<T> {
        Reader { page: Arc::clone(&self.page), at: self.filled, end: self.filled }
    }

    /// Returns another reference to the page, for readers to find.
    pub(crate) fn shelve(&self) -> Shelved<T> {
        Shelved(Arc::clone(&self.page))
    }
}

/// How many pages were filled again: that the models do it is asserted there.
#[cfg(all(test, any(hodei_loom, hodei_shuttle)))]
pub(crate) static REUSED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Publishes what a writer has filled, also when it unwinds.
struct Publish<'a> {
    len: &'a AtomicUsize,
    filled: &'a mut usize,
}

impl Drop for Publish<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: whoever sees the length sees the values below it.
        self.len.store(*self.filled, Ordering::Release);
    }
}

/// A page where readers find it.
pub(crate) struct Shelved<T>(Arc<Page<T>>);

impl<T> Shelved<T> {
    /// Returns the number of its first slot.
    pub(crate) fn base(&self) -> u64 {
        self.0.base
    }
}

/// A place in a page, and how much of the page is known to be published.
pub(crate) struct Reader<T> {
    page: Arc<Page<T>>,
    /// The next slot to be read.
    at: usize,
    /// At least so many slots are published; `at <= end`.
    end: usize,
}

impl<T> Reader<T> {
    /// Begins to read a page at a slot, of which nothing is known yet.
    pub(crate) fn new(page: &Shelved<T>, at: usize) -> Self {
        Self { page: Arc::clone(&page.0), at, end: at }
    }

    /// Returns the values between the place and what is known to be published.
    #[inline]
    pub(crate) fn window(&self) -> &[T] {
        #[cfg(hodei_loom)]
        self.page.witness[self.at..self.end].iter().for_each(|cell| cell.with(|_| ()));
        let slots = &self.page.slots[self.at..self.end];
        // SAFETY: `end` is no more than a length that was loaded with Acquire in `refresh`, or `at`: the slots are
        // initialised, seen, and not written again while `self.page` keeps the page. `UnsafeCell` and `MaybeUninit` are
        // transparent.
        unsafe { std::slice::from_raw_parts(slots.as_ptr().cast::<T>(), slots.len()) }
    }

    /// Learns how much is published now, and returns the number of the slot behind it.
    #[inline]
    pub(crate) fn refresh(&mut self) -> u64 {
        // Acquire: pairs with the Release of the writer.
        let len = self.page.len.load(Ordering::Acquire);
        self.end = len.max(self.at);
        self.page.base + len as u64
    }

    /// Returns how many values the window has.
    #[inline]
    pub(crate) fn ready(&self) -> usize {
        self.end - self.at
    }

    /// Goes on behind values of the window.
    #[inline]
    pub(crate) fn advance(&mut self, by: usize) {
        assert!(by <= self.ready(), "nobody reads ahead of the writer");
        self.at += by;
    }

    /// Says whether the whole page is known to be published.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.end == self.page.slots.len()
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("base", &self.page.base).field("filled", &self.filled).finish()
    }
}

impl<T> fmt::Debug for Shelved<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shelved").field(&self.0.base).finish()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("base", &self.page.base)
            .field("at", &self.at)
            .field("end", &self.end)
            .finish()
    }
}
