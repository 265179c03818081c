//! Which slot is in which shard.

use bytes::{Buf, BufMut, Bytes};

use super::super::Note;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Name, Slot};
use crate::time::Timestamp;

/// How many shards there may be: 64.
pub(super) const SHARDS_MAX: usize = 64;
/// How many stays that are over are remembered, of all slots: 4,096. Beyond, the oldest are forgotten, and changes from
/// before are in the order of the clocks.
const FORMER_MAX: usize = 4_096;
const SLOTS: usize = Slot::MAX.number() as usize + 1;
const MAGIC: &[u8; 8] = b"hodei-m1";

/// The map, as a version of its note has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardMap {
    /// The version of the note.
    pub(super) version: u64,
    /// Tells the shards of one store from those of another.
    pub(super) cluster: [u8; 16],
    /// How many shards there are.
    pub(super) shards: u16,
    /// The shard of each slot; of one that moves, the source.
    homes: Vec<u16>,
    /// The moves under way, at most one for a slot.
    pub(super) moves: Vec<Relocation>,
    /// Where slots were before, in the order in which they left: their old changes are still there.
    former: Vec<Former>,
    /// Until when stays may have been forgotten.
    pub(super) forgotten: Timestamp,
    /// How many slots have arrived in another shard so far.
    arrivals: u64,
}

/// A move under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relocation {
    pub(super) slot: Slot,
    pub(super) to: u16,
    /// Rises from move to move; the shards refuse what comes late.
    pub(super) number: u64,
    pub(super) step: Step,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The rows are on their way; the slot is in the source.
    Copying,
    /// Everything was copied by this time of the source; there is no way back, and the slot may be in neither shard.
    Switching(Timestamp),
    /// The slot stays in the source, and is to be opened there again.
    Staying,
    /// The slot has arrived, and this shard, which it left, still has its rows.
    Clearing(u16),
}

impl Relocation {
    /// Says whether the slot is already where it will be, and only the other shard is to be told.
    pub(super) const fn is_decided(&self) -> bool {
        matches!(self.step, Step::Staying | Step::Clearing(_))
    }
}

impl Step {
    const fn encode(self) -> (u8, Timestamp) {
        match self {
            Self::Copying => (0, Timestamp::EPOCH),
            Self::Switching(at) => (1, at),
            Self::Staying => (2, Timestamp::EPOCH),
            Self::Clearing(left) => (3, Timestamp::from_micros(left as i64)),
        }
    }

    fn decode(tag: u8, at: Timestamp) -> Option<Self> {
        match tag {
            0 => Some(Self::Copying),
            1 => Some(Self::Switching(at)),
            2 => Some(Self::Staying),
            3 => u16::try_from(at.as_micros()).ok().map(Self::Clearing),
            _ => None,
        }
    }
}

/// A stay of a slot in a shard that it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Former {
    slot: Slot,
    pub(super) shard: u16,
    /// No change of the slot was recorded there later, unless it came back.
    pub(super) until: Timestamp,
}

impl ShardMap {
    /// The note of the map in the home.
    pub(super) fn note_name() -> Name {
        Name::literal("hodei.shard.map")
    }

    /// Spreads the slots evenly over shards.
    pub(super) fn spread(cluster: [u8; 16], shards: u16) -> Self {
        let homes = (0..=Slot::MAX.number()).map(|slot| slot % shards).collect();
        let (moves, former, forgotten) = (Vec::new(), Vec::new(), Timestamp::from_micros(i64::MIN));
        Self { version: 0, cluster, shards, homes, moves, former, forgotten, arrivals: 0 }
    }

    /// Returns the shard of a slot; of one that moves, the source.
    pub(super) fn shard_of(&self, slot: Slot) -> usize {
        self.homes.get(usize::from(slot.number())).copied().unwrap_or(0).into()
    }

    pub(super) fn move_of(&self, slot: Slot) -> Option<&Relocation> {
        self.moves.iter().find(|relocation| relocation.slot == slot)
    }

    /// Returns a slot that is in neither shard just now.
    pub(super) fn switching(&self) -> Option<Slot> {
        let is_switching = |relocation: &&Relocation| matches!(relocation.step, Step::Switching(_));
        self.moves.iter().find(is_switching).map(|relocation| relocation.slot)
    }

    /// Whether whatever was read by this map is as it would be by a later one: no slot has left a shard since, or is
    /// about to.
    pub(super) fn reads_as(&self, later: &Self) -> bool {
        self.arrivals == later.arrivals && self.switching().or_else(|| later.switching()).is_none()
    }

    /// Whether a slot has stayed in its shard until a later map, and is not about to leave it.
    pub(super) fn kept(&self, slot: Slot, later: &Self) -> bool {
        self.shard_of(slot) == later.shard_of(slot) && self.former_of(slot).eq(later.former_of(slot))
    }

    /// Returns the stays of a slot that are over, in their order; the one that it is leaving for good is over too.
    pub(super) fn former_of(&self, slot: Slot) -> impl Iterator<Item = Former> {
        let leaving = self.move_of(slot).and_then(|relocation| self.left_by(relocation));
        self.former.iter().filter(move |former| former.slot == slot).copied().chain(leaving)
    }

    /// Returns the stay that ends with a move, once there is no way back.
    fn left_by(&self, relocation: &Relocation) -> Option<Former> {
        let Step::Switching(until) = relocation.step else { return None };
        let shard = self.homes.get(usize::from(relocation.slot.number())).copied()?;
        Some(Former { slot: relocation.slot, shard, until })
    }

    /// Returns how many slots have arrived in another shard so far.
    pub(super) const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Notes that a slot begins to move, unless it does already or is there. The number is the version that the map
    /// will have.
    pub(super) fn begin(&mut self, slot: Slot, to: u16) {
        if self.move_of(slot).is_some() || self.shard_of(slot) == usize::from(to) {
            return;
        }
        self.moves.push(Relocation { slot, to, number: self.version + 1, step: Step::Copying });
    }

    /// Notes how far a move has come, unless another step or another move was noted meanwhile.
    pub(super) fn take_step(&mut self, known: &Relocation, step: Step) {
        let same = self.moves.iter_mut().find(|relocation| *relocation == known);
        if let Some(relocation) = same {
            relocation.step = step;
        }
    }

    /// Notes that a step is done: the slot has arrived, and is to be cleared from the shard that it left; or the move is
    /// over, for it stays or was cleared.
    pub(super) fn go_on(&mut self, known: &Relocation) {
        if self.move_of(known.slot) != Some(known) {
            return;
        }
        let Some(left) = self.left_by(known) else {
            self.moves.retain(|relocation| relocation != known);
            return;
        };
        self.take_step(known, Step::Clearing(left.shard));
        self.homes[usize::from(known.slot.number())] = known.to;
        self.arrivals += 1;
        self.former.push(left);
        self.forget_stay();
    }

    /// Forgets the oldest stay when there are very many, of those in a shard in which the slot is or was again: that
    /// there are changes must stay known.
    fn forget_stay(&mut self) {
        if self.former.len() <= FORMER_MAX {
            return;
        }
        let again = |n: &usize| {
            let stay = self.former[*n];
            let home = self.homes[usize::from(stay.slot.number())] == stay.shard;
            let same = |later: &Former| (later.slot, later.shard) == (stay.slot, stay.shard);
            home || self.former[n + 1..].iter().any(same)
        };
        if let Some(oldest) = (0..self.former.len()).find(again) {
            let stay = self.former.remove(oldest);
            self.forgotten = self.forgotten.max(stay.until);
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + 2 * SLOTS + 12 * self.former.len());
        out.put_slice(MAGIC);
        out.put_slice(&self.cluster);
        out.put_u16(self.shards);
        self.homes.iter().for_each(|shard| out.put_u16(*shard));
        put_len(&mut out, self.moves.len());
        for relocation in &self.moves {
            out.put_u16(relocation.slot.number());
            out.put_u16(relocation.to);
            out.put_u64(relocation.number);
            let (tag, at) = relocation.step.encode();
            out.put_u8(tag);
            out.put_i64(at.as_micros());
        }
        out.put_i64(self.forgotten.as_micros());
        out.put_u64(self.arrivals);
        put_len(&mut out, self.former.len());
        for former in &self.former {
            out.put_u16(former.slot.number());
            out.put_u16(former.shard);
            out.put_i64(former.until.as_micros());
        }
        out.into()
    }

    pub(super) fn decode(note: &Note) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "sharded.map").with("version", note.version);
        Self::parse(note).ok_or_else(corrupt)
    }

    fn parse(note: &Note) -> Option<Self> {
        let mut bytes = note.value.clone();
        let mut head = [0; MAGIC.len()];
        bytes.try_copy_to_slice(&mut head).ok().filter(|()| head == *MAGIC)?;
        let mut cluster = [0; 16];
        bytes.try_copy_to_slice(&mut cluster).ok()?;
        let shards = bytes.try_get_u16().ok().filter(|n| (1..=SHARDS_MAX).contains(&usize::from(*n)))?;
        let shard = |bytes: &mut Bytes| bytes.try_get_u16().ok().filter(|shard| *shard < shards);
        let slot = |bytes: &mut Bytes| bytes.try_get_u16().ok().and_then(Slot::new);
        let time = |bytes: &mut Bytes| bytes.try_get_i64().ok().map(Timestamp::from_micros);
        let homes = (0..SLOTS).map(|_| shard(&mut bytes)).collect::<Option<Vec<u16>>>()?;
        let n = bytes.try_get_u32().ok()?;
        let moves = (0..n).map(|_| {
            let (slot, to) = (slot(&mut bytes)?, shard(&mut bytes)?);
            let number = bytes.try_get_u64().ok()?;
            let tag = bytes.try_get_u8().ok()?;
            let step = Step::decode(tag, time(&mut bytes)?)?;
            Some(Relocation { slot, to, number, step })
        });
        let moves = moves.collect::<Option<Vec<Relocation>>>()?;
        let forgotten = time(&mut bytes)?;
        let arrivals = bytes.try_get_u64().ok()?;
        let n = bytes.try_get_u32().ok()?;
        let former = (0..n).map(|_| {
            let (slot, shard, until) = (slot(&mut bytes)?, shard(&mut bytes)?, time(&mut bytes)?);
            Some(Former { slot, shard, until })
        });
        let former = former.collect::<Option<Vec<Former>>>()?;
        let (version, whole) = (note.version, !bytes.has_remaining());
        whole.then_some(Self { version, cluster, shards, homes, moves, former, forgotten, arrivals })
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    fn map() -> ShardMap {
        let mut map = ShardMap::spread([7; 16], 3);
        map.version = 4;
        map.begin(slot(9), 2);
        map.begin(slot(10), 0);
        let copying = *map.move_of(slot(9)).unwrap();
        map.take_step(&copying, Step::Switching(Timestamp::from_micros(5)));
        map.take_step(&copying, Step::Staying);
        map
    }

    #[test]
    fn a_map_comes_back_from_its_bytes_and_from_nothing_else() {
        let map = map();
        let bytes = map.encode();
        let of = |value: Bytes| ShardMap::decode(&Note { version: 4, value });
        assert_eq!(of(bytes.clone()).unwrap(), map);
        for cut in 0..bytes.len() {
            assert_eq!(of(bytes.slice(..cut)).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(of(longer.into()).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_slot_that_has_arrived_is_there_and_was_elsewhere() {
        let mut map = map();
        assert_eq!((map.shard_of(slot(9)), map.switching()), (0, Some(slot(9))));
        let switching = *map.move_of(slot(9)).unwrap();
        map.go_on(&switching);
        assert_eq!((map.shard_of(slot(9)), map.switching()), (2, None));
        let clearing = *map.move_of(slot(9)).unwrap();
        assert_eq!((clearing.step, clearing.is_decided()), (Step::Clearing(0), true));
        let note = Note { version: map.version, value: map.encode() };
        assert_eq!(ShardMap::decode(&note).unwrap(), map);
        map.go_on(&clearing);
        let former: Vec<_> = map.former_of(slot(9)).map(|former| (former.shard, former.until)).collect();
        assert_eq!(former, [(0, Timestamp::from_micros(5))]);
        assert_eq!((map.moves.len(), map.move_of(slot(10)).unwrap().number), (1, 5));
    }

    #[test]
    fn a_slot_that_moves_or_is_there_begins_no_other_move() {
        let mut map = map();
        let before = map.clone();
        map.begin(slot(9), 1);
        map.begin(slot(10), 0);
        map.begin(slot(11), 2);
        assert_eq!(map, before, "the first two are on their way, the third is home");
        map.begin(slot(11), 1);
        assert_eq!(map.moves.len(), 3);
    }

    #[test]
    fn very_old_stays_are_forgotten_and_the_shards_are_not() {
        let mut map = ShardMap::spread([7; 16], 3);
        let stays = i64::try_from(FORMER_MAX).unwrap() + 10;
        for n in 0..stays {
            map.version += 1;
            let to = if n == 0 { 1 } else { u16::try_from(1 + n % 2).unwrap() };
            map.begin(slot(0), to);
            let copying = map.moves[0];
            map.take_step(&copying, Step::Switching(Timestamp::from_micros(n)));
            for _ in 0..2 {
                let known = map.moves[0];
                map.go_on(&known);
            }
        }
        assert_eq!((map.former.len(), map.moves.len()), (FORMER_MAX, 0));
        assert_eq!(
            map.forgotten,
            Timestamp::from_micros(10),
            "the first, in a shard of its own, stays known"
        );
        assert_eq!(map.former_of(slot(0)).next().unwrap().shard, 0);
        let note = Note { version: map.version, value: map.encode() };
        assert_eq!(ShardMap::decode(&note).unwrap(), map);
    }
}
