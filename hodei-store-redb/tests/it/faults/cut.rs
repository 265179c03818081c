//! What a power cut leaves of writes that were not synced.

use super::disk::{Event, Image, SECTOR, pieces};
use super::numbers::{Numbers, spread};

/// Which of the unsynced writes reached the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    /// None.
    Nothing,
    /// All.
    All,
    /// So many of the first.
    Prefix(usize),
    /// All but this one.
    AllBut(usize),
    /// So many of the first, and of the next whatever sectors a seed says.
    TornPrefix(usize, u64),
    /// Whatever writes a seed says.
    Some(u64),
    /// Each sector as it was after another of the writes to it, as if they had come in any order and been torn.
    Sectors(u64),
}

impl Kept {
    /// Chooses what is kept of so many writes.
    pub(crate) fn choose(numbers: &mut Numbers, writes: usize) -> Self {
        let (seed, at) = (numbers.next(), numbers.below(writes.max(1)));
        match numbers.below(10) {
            0 => Self::Nothing,
            1 => Self::All,
            2 => Self::Prefix(at),
            3 => Self::AllBut(at),
            4 | 5 => Self::TornPrefix(at, seed),
            6 | 7 => Self::Some(seed),
            _ => Self::Sectors(seed),
        }
    }

    /// Says whether a write that was kept makes a file longer whose change of length was not; else it is lost too.
    fn extends(self) -> bool {
        matches!(self, Self::Some(seed) | Self::Sectors(seed) if seed >> 63 == 1)
    }

    /// Says whether a piece of a write was kept; without a sector, whether a change of the length was.
    fn keeps(self, write: usize, sector: Option<usize>, writes: usize) -> bool {
        let drawn = |seed: u64, of: usize| spread(seed ^ spread(of as u64 + 1));
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Prefix(n) => write < n,
            Self::AllBut(n) => write != n,
            Self::TornPrefix(n, seed) => {
                write < n || write == n && drawn(seed, sector.unwrap_or(0)).is_multiple_of(2)
            }
            Self::Some(seed) => drawn(seed, write).is_multiple_of(2),
            Self::Sectors(seed) => {
                let drawn = drawn(seed, sector.map_or(usize::MAX - 1, |sector| sector));
                (write as u64) < drawn % (writes as u64 + 1)
            }
        }
    }
}

/// Brings onto an image what was kept of the writes that came after it.
pub(crate) fn keep(image: &mut Image, unsynced: &[Event], kept: Kept) {
    for (number, event) in unsynced.iter().enumerate() {
        match event {
            Event::Sync => {}
            Event::SetLen(len) => {
                if kept.keeps(number, None, unsynced.len()) {
                    image.set_len(*len);
                }
            }
            Event::Write { at, data } => {
                for (place, piece) in pieces(*at, data.len(), SECTOR) {
                    if kept.keeps(number, Some((at + place) / SECTOR), unsynced.len()) {
                        let end = at + place + piece;
                        if end > image.len() && kept.extends() {
                            image.set_len(end);
                        }
                        image.write(at + place, &data[place..place + piece]);
                    }
                }
            }
        }
    }
}

/// A disk that moves through its journal: what it has for certain, and what it was asked for since.
#[derive(Debug)]
pub(crate) struct Playback<'j> {
    synced: Image,
    journal: &'j [Event],
    /// How far the synced image has come.
    begin: usize,
    /// Whether the disk syncs when it says so. One that does not is how the checks are checked.
    honest: bool,
}

impl<'j> Playback<'j> {
    pub(crate) fn of(start: Image, journal: &'j [Event], honest: bool) -> Self {
        Self { synced: start, journal, begin: 0, honest }
    }

    /// Cuts the power when so much had been asked of the disk; later cuts come later in the journal.
    pub(crate) fn cut(&mut self, at: usize, numbers: &mut Numbers) -> (Image, Kept) {
        let is_sync = |event: &Event| matches!(event, Event::Sync);
        let last = self.journal[self.begin..at].iter().rposition(is_sync).filter(|_| self.honest);
        if let Some(last) = last {
            let end = self.begin + last + 1;
            keep(&mut self.synced, &self.journal[self.begin..end], Kept::All);
            self.begin = end;
        }
        let unsynced = &self.journal[self.begin..at];
        let kept = Kept::choose(numbers, unsynced.len());
        let mut image = self.synced.clone();
        keep(&mut image, unsynced, kept);
        (image, kept)
    }
}
