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
    pub(super) starts: Starts,
}

impl Place {
    /// Says whether a job is still to be listed.
    pub(super) fn is_before(&self, key: Key, order: Order) -> bool {
        self.behind.is_none_or(|behind| match order {
            Order::OldestFirst => behind < key,
            Order::NewestFirst => behind > key,
        })
    }

    pub(super) fn encode(&self) -> Cursor {
        let mut out = vec![JOBS];
        out.put_u8(self.behind.is_some().into());
        if let Some((at, id)) = self.behind {
            out.put_i64(at.as_micros());
            out.put_slice(id.as_bytes());
        }
        put_starts(&mut out, &self.starts);
        Cursor::from_bytes(out)
    }

    /// Reads a cursor for so many shards.
    pub(super) fn decode(cursor: Option<&Cursor>, shards: usize) -> Result<Self> {
        let Some(cursor) = cursor else { return Ok(Self { behind: None, starts: vec![None; shards] }) };
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
        Some(Self { behind, starts: take_starts(bytes, shards)? })
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
    tag.and_then(|_| take_starts(bytes, shards)).ok_or_else(foreign)
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
fn take_starts(mut bytes: Bytes, shards: usize) -> Option<Starts> {
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
    (!bytes.has_remaining()).then_some(starts)
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
        Place { behind: Some((Timestamp::from_micros(-5), id)), starts: starts() }
    }

    #[test]
    fn cursors_come_back_from_their_bytes() {
        for place in [place(), Place { behind: None, starts: starts() }] {
            assert_eq!(Place::decode(Some(&place.encode()), 3).unwrap(), place);
            let wider = Place::decode(Some(&place.encode()), 5).unwrap();
            assert_eq!((wider.starts.len(), &wider.starts[..3], &wider.starts[3]), (5, &starts()[..], &None));
        }
        assert_eq!(changes_of(Some(&of_changes(&starts())), 3).unwrap(), starts());
        assert_eq!(changes_of(None, 2).unwrap(), [None, None]);
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
        refused(&Cursor::from_bytes(vec![JOBS, 0, 0xff, 0xff]), 3);
        refused(&Cursor::from_bytes(vec![JOBS, 2, 0, 1, 0, 0]), 3);
    }
}
