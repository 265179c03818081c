//! Places in lists over several shards.

use bytes::{Buf, BufMut, Bytes};

use super::super::{Cursor, Order};
use super::map::SHARDS_MAX;
use crate::error::{Error, Fault, Result};
use crate::id::JobId;
use crate::time::Timestamp;

/// A list of jobs, and a list of changes.
const JOBS: u8 = 0xa1;
const CHANGES: u8 = 0xa2;
/// The length of a cursor that is not there: from the beginning.
const ABSENT: u32 = u32::MAX;

/// The place of a job in a list.
pub(super) type Key = (Timestamp, JobId);

/// The cursors of the shards, one for each; absent where its list begins.
pub(super) type Starts = Vec<Option<Cursor>>;

/// Where a list of jobs goes on: behind a job, and no later than there in each shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) behind: Option<Key>,
    /// How many slots had arrived in another shard when the starts were taken.
    pub(super) arrivals: u64,
    pub(super) starts: Starts,
    /// Where the last page of each shard began of which a job was listed: no later than the last one listed of all.
    pub(super) listed: Starts,
}

impl Place {
    /// Says whether a job is still to be listed.
    pub(super) fn is_before(&self, key: Key, order: Order) -> bool {
        self.behind.is_none_or(|behind| match order {
            Order::OldestFirst => behind < key,
            Order::NewestFirst => behind > key,
        })
    }

    /// Returns the place for a list in which so many slots have arrived. A start may lie behind jobs that have come to
    /// the shard since and are not listed yet: then each is read again from where its last job was listed.
    pub(super) fn at(&self, arrivals: u64) -> Self {
        let mut place = self.clone();
        if arrivals != self.arrivals {
            place.arrivals = arrivals;
            place.starts.clone_from(&self.listed);
        }
        place
    }

    pub(super) fn encode(&self) -> Cursor {
        let mut out = vec![JOBS];
        out.put_u8(self.behind.is_some().into());
        if let Some((at, id)) = self.behind {
            out.put_i64(at.as_micros());
            out.put_slice(id.as_bytes());
        }
        out.put_u64(self.arrivals);
        put_starts(&mut out, &self.starts);
        put_starts(&mut out, &self.listed);
        Cursor::from_bytes(out)
    }

    fn start(shards: usize) -> Self {
        Self { starts: vec![None; shards], listed: vec![None; shards], ..Self::default() }
    }

    /// Reads a cursor for so many shards.
    pub(super) fn decode(cursor: Option<&Cursor>, shards: usize) -> Result<Self> {
        let Some(cursor) = cursor else { return Ok(Self::start(shards)) };
        Self::parse(cursor, shards).ok_or_else(foreign)
    }

    fn parse(cursor: &Cursor, shards: usize) -> Option<Self> {
        let mut bytes = Bytes::copy_from_slice(cursor.as_bytes());
        bytes.try_get_u8().ok().filter(|tag| *tag == JOBS)?;
        let behind = match bytes.try_get_u8().ok()? {
            0 => None,
            1 => {
                let at = Timestamp::from_micros(bytes.try_get_i64().ok()?);
                let mut id = [0; 16];
                bytes.try_copy_to_slice(&mut id).ok()?;
                Some((at, JobId::from_bytes(id)))
            }
            _ => return None,
        };
        let arrivals = bytes.try_get_u64().ok()?;
        let (starts, listed) = (take_starts(&mut bytes, shards)?, take_starts(&mut bytes, shards)?);
        (!bytes.has_remaining()).then_some(Self { behind, arrivals, starts, listed })
    }
}

/// Makes the cursor of a list of changes.
pub(super) fn of_changes(starts: &Starts) -> Cursor {
    let mut out = vec![CHANGES];
    put_starts(&mut out, starts);
    Cursor::from_bytes(out)
}

/// Reads the cursor of a list of changes for so many shards.
pub(super) fn changes_of(cursor: Option<&Cursor>, shards: usize) -> Result<Starts> {
    let Some(cursor) = cursor else { return Ok(vec![None; shards]) };
    let mut bytes = Bytes::copy_from_slice(cursor.as_bytes());
    let tag = bytes.try_get_u8().ok().filter(|tag| *tag == CHANGES);
    let starts = tag.and_then(|_| take_starts(&mut bytes, shards)).filter(|_| !bytes.has_remaining());
    starts.ok_or_else(foreign)
}

fn put_starts(out: &mut Vec<u8>, starts: &Starts) {
    out.put_u16(u16::try_from(starts.len()).unwrap_or(u16::MAX));
    for start in starts {
        let bytes = start.as_ref().map(Cursor::as_bytes);
        let len = bytes.and_then(|bytes| u32::try_from(bytes.len()).ok()).unwrap_or(ABSENT);
        out.put_u32(len);
        out.put_slice(bytes.unwrap_or_default());
    }
}

/// Reads the cursors of the shards; in those that came since, the list begins.
fn take_starts(bytes: &mut Bytes, shards: usize) -> Option<Starts> {
    let n = usize::from(bytes.try_get_u16().ok()?);
    if n == 0 || n > shards.min(SHARDS_MAX) {
        return None;
    }
    let mut starts = Vec::with_capacity(shards);
    for _ in 0..n {
        let len = bytes.try_get_u32().ok()?;
        let start = match usize::try_from(len).ok()? {
            _ if len == ABSENT => None,
            len if len > bytes.remaining() => return None,
            len => Some(Cursor::from_bytes(bytes.split_to(len))),
        };
        starts.push(start);
    }
    starts.resize(shards, None);
    Some(starts)
}

fn foreign() -> Error {
    Error::invalid("store.cursor", vec![Fault::new("cursor", "not_of_this_list")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::id::Slot;

    fn starts() -> Starts {
        vec![Some(Cursor::from_bytes(vec![1, 2, 3])), None, Some(Cursor::from_bytes(Vec::new()))]
    }

    fn place() -> Place {
        let id = JobId::from_parts(7, Slot::new(3).unwrap(), 9);
        Place {
            behind: Some((Timestamp::from_micros(-5), id)),
            arrivals: 3,
            starts: starts(),
            listed: vec![None, None, Some(Cursor::from_bytes(vec![1]))],
        }
    }

    #[test]
    fn cursors_come_back_from_their_bytes() {
        for place in [place(), Place { behind: None, ..place() }] {
            assert_eq!(Place::decode(Some(&place.encode()), 3).unwrap(), place);
            let wider = Place::decode(Some(&place.encode()), 5).unwrap();
            assert_eq!((wider.starts.len(), &wider.starts[..3], &wider.starts[3]), (5, &starts()[..], &None));
        }
        assert_eq!(changes_of(Some(&of_changes(&starts())), 3).unwrap(), starts());
        assert_eq!(changes_of(None, 2).unwrap(), [None, None]);
    }

    #[test]
    fn the_starts_count_until_a_slot_arrives() {
        assert_eq!(place().at(3), place());
        let moved = place().at(4);
        assert_eq!((moved.behind, moved.arrivals), (place().behind, 4));
        assert_eq!((moved.starts, moved.listed), (place().listed, place().listed));
    }

    #[test]
    fn what_is_forged_cut_or_of_another_list_is_invalid() {
        let (jobs, changes) = (place().encode(), of_changes(&starts()));
        let refused = |cursor: &Cursor, shards| {
            let a = Place::decode(Some(cursor), shards).unwrap_err();
            let b = changes_of(Some(cursor), shards).unwrap_err();
            for error in [a, b] {
                assert_eq!((error.kind(), error.faults()[0].code), (ErrorKind::Invalid, "not_of_this_list"));
            }
        };
        assert!(changes_of(Some(&jobs), 3).is_err() && Place::decode(Some(&changes), 3).is_err());
        for whole in [&jobs, &changes] {
            refused(whole, 2);
            for cut in 0..whole.as_bytes().len() {
                refused(&Cursor::from_bytes(whole.as_bytes()[..cut].to_vec()), 3);
            }
            refused(&Cursor::from_bytes([whole.as_bytes(), &[0]].concat()), 3);
        }
        let after = |head: &[u8], tail: &[u8]| Cursor::from_bytes([head, &[0; 8], tail].concat());
        refused(&after(&[JOBS, 0], &[0xff, 0xff]), 3);
        refused(&after(&[JOBS, 2], &[0, 1, 0, 0]), 3);
    }
}
