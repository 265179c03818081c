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
/// The length that says that a change stands there instead of a cursor.
const HEAD: u32 = u32::MAX - 1;

/// The place of a job in a list.
pub(super) type Key = (Timestamp, JobId);

/// The cursors of the shards, one for each; absent where its list begins.
pub(super) type Starts = Vec<Option<Cursor>>;

/// Where a shard's log is read on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Start {
    /// At the oldest change that is kept.
    #[default]
    Oldest,
    /// At this version of this job, which was the oldest change when the list began.
    Head(JobId, u32),
    /// Behind what a cursor names.
    Behind(Cursor),
}

impl Start {
    /// Returns the cursor, or none where the log is read from the oldest change that is kept.
    pub(super) const fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::Oldest | Self::Head(..) => None,
            Self::Behind(cursor) => Some(cursor),
        }
    }
}

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
pub(super) fn of_changes(starts: &[Start]) -> Cursor {
    let mut out = vec![CHANGES];
    put_count(&mut out, starts.len());
    for start in starts {
        match start {
            Start::Head(job, version) => {
                out.put_u32(HEAD);
                out.put_slice(job.as_bytes());
                out.put_u32(*version);
            }
            Start::Oldest | Start::Behind(_) => put_start(&mut out, start.cursor()),
        }
    }
    Cursor::from_bytes(out)
}

/// Reads the cursor of a list of changes for so many shards.
pub(super) fn changes_of(cursor: Option<&Cursor>, shards: usize) -> Result<Vec<Start>> {
    let Some(cursor) = cursor else { return Ok(vec![Start::Oldest; shards]) };
    let mut bytes = Bytes::copy_from_slice(cursor.as_bytes());
    let tag = bytes.try_get_u8().ok().filter(|tag| *tag == CHANGES);
    let starts = tag.and_then(|_| take_each(&mut bytes, shards, take_change));
    starts.filter(|_| !bytes.has_remaining()).ok_or_else(foreign)
}

fn take_change(bytes: &mut Bytes, len: u32) -> Option<Start> {
    if len != HEAD {
        return Some(take_start(bytes, len)?.map_or(Start::Oldest, Start::Behind));
    }
    let mut id = [0; 16];
    bytes.try_copy_to_slice(&mut id).ok()?;
    Some(Start::Head(JobId::from_bytes(id), bytes.try_get_u32().ok()?))
}

fn put_starts(out: &mut Vec<u8>, starts: &Starts) {
    put_count(out, starts.len());
    starts.iter().for_each(|start| put_start(out, start.as_ref()));
}

fn put_count(out: &mut Vec<u8>, shards: usize) {
    out.put_u16(u16::try_from(shards).unwrap_or(u16::MAX));
}

fn put_start(out: &mut Vec<u8>, start: Option<&Cursor>) {
    let bytes = start.map(Cursor::as_bytes);
    let len = bytes.and_then(|bytes| u32::try_from(bytes.len()).ok()).unwrap_or(ABSENT);
    out.put_u32(len);
    out.put_slice(bytes.unwrap_or_default());
}

fn take_starts(bytes: &mut Bytes, shards: usize) -> Option<Starts> {
    take_each(bytes, shards, take_start)
}

/// Reads what there is of each shard, behind its length; of those that came since nothing: there the list begins.
fn take_each<T: Default>(
    bytes: &mut Bytes,
    shards: usize,
    take: impl Fn(&mut Bytes, u32) -> Option<T>,
) -> Option<Vec<T>> {
    let n = usize::from(bytes.try_get_u16().ok()?);
    if n == 0 || n > shards.min(SHARDS_MAX) {
        return None;
    }
    let mut starts = Vec::with_capacity(shards);
    for _ in 0..n {
        let len = bytes.try_get_u32().ok()?;
        starts.push(take(bytes, len)?);
    }
    starts.resize_with(shards, T::default);
    Some(starts)
}

#[expect(clippy::option_option, reason = "the outer one says that the bytes are of no cursor")]
fn take_start(bytes: &mut Bytes, len: u32) -> Option<Option<Cursor>> {
    match usize::try_from(len).ok()? {
        _ if len == ABSENT => Some(None),
        len if len > bytes.remaining() => None,
        len => Some(Some(Cursor::from_bytes(bytes.split_to(len)))),
    }
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

    fn logs() -> Vec<Start> {
        let mut logs: Vec<Start> =
            starts().into_iter().map(|start| start.map_or(Start::Oldest, Start::Behind)).collect();
        logs[2] = Start::Head(JobId::from_parts(7, Slot::new(3).unwrap(), 9), 4);
        logs
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
        assert_eq!(changes_of(Some(&of_changes(&logs())), 3).unwrap(), logs());
        assert_eq!(changes_of(None, 2).unwrap(), [Start::Oldest, Start::Oldest]);
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
        let (jobs, changes) = (place().encode(), of_changes(&logs()));
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
