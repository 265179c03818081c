//! A disk in memory that remembers what was asked of it.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use hodei_store_redb::testkit::StorageBackend;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;
const PAGE: usize = 4_096;

type Page = [u8; PAGE];

static ZEROS: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE]));

/// The bytes of a disk. Cloning shares the pages until one of them is written to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    len: usize,
    pages: Vec<Arc<Page>>,
}

impl Image {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Cuts off, or adds zeros.
    pub(crate) fn set_len(&mut self, len: usize) {
        if len < self.len && !len.is_multiple_of(PAGE) {
            Arc::make_mut(&mut self.pages[len / PAGE])[len % PAGE..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE), Arc::clone(&ZEROS));
        self.len = len;
    }

    /// Writes what lies within the length.
    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        let data = &data[..data.len().min(self.len.saturating_sub(at))];
        for (place, piece) in pieces(at, data.len(), PAGE) {
            let page = Arc::make_mut(&mut self.pages[(at + place) / PAGE]);
            page[(at + place) % PAGE..][..piece].copy_from_slice(&data[place..place + piece]);
        }
    }

    /// Reads; false where some of it lies beyond the length.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) -> bool {
        if at.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        for (place, piece) in pieces(at, out.len(), PAGE) {
            let page = &self.pages[(at + place) / PAGE];
            out[place..place + piece].copy_from_slice(&page[(at + place) % PAGE..][..piece]);
        }
        true
    }

    /// Returns where sectors lie that say something: most of a small file are zeros.
    pub(crate) fn sectors(&self) -> Vec<usize> {
        let says = |at: &usize| self.pages[at / PAGE][at % PAGE..][..SECTOR].iter().any(|byte| *byte != 0);
        (0..self.len / SECTOR).map(|n| n * SECTOR).filter(says).collect()
    }
}

/// Parts a span of bytes at the multiples of a size: (offset within the span, length) of each piece.
pub(crate) fn pieces(at: usize, len: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut place = 0;
    std::iter::from_fn(move || {
        let piece = (size - (at + place) % size).min(len - place);
        let found = (place, piece);
        place += piece;
        (piece > 0).then_some(found)
    })
}

/// What was asked of a disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write { at: usize, data: Vec<u8> },
    SetLen(usize),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    journal: Vec<Event>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { image, journal: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Returns what is on it now, be it synced or not.
    pub(crate) fn image(&self) -> Image {
        self.lock().image.clone()
    }

    /// Returns how often it was asked for something.
    pub(crate) fn asked(&self) -> usize {
        self.lock().journal.len()
    }

    /// Takes what was asked of it.
    pub(crate) fn journal(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().journal)
    }
}

pub(crate) fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.lock().image.read(place(offset), out) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.image.set_len(place(len));
        state.journal.push(Event::SetLen(place(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.lock().journal.push(Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut state, at) = (self.lock(), place(offset));
        let end = at + data.len();
        if end > state.image.len() {
            state.image.set_len(end);
            state.journal.push(Event::SetLen(end));
        }
        state.image.write(at, data);
        state.journal.push(Event::Write { at, data: data.to_vec() });
        Ok(())
    }
}
