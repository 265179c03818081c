//! Which slot is in which shard.

use bytes::{Buf, BufMut, Bytes};

use super::super::Note;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Name, Slot};
use crate::time::Timestamp;

/// How many shards there may be: 64.
pub(super) const SHARDS_MAX: usize = 64;
/// How many stays of a slot are known, beside one in each shard: 16.
const STAYS_MAX: usize = 16;
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
}

/// A move under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relocation {
    pub(super) slot: Slot,
    pub(super) to: u16,
    /// Rises from move to move; the shards refuse what comes late.
    pub(super) number: u64,
    /// The source's time when everything was copied; from then on there is no way back.
    pub(super) switched: Option<Timestamp>,
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
        Self { version: 0, cluster, shards, homes, moves: Vec::new(), former: Vec::new() }
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
        let switching = self.moves.iter().find(|relocation| relocation.switched.is_some());
        switching.map(|relocation| relocation.slot)
    }

    /// Returns the stays of a slot that are over, in their order.
    pub(super) fn former_of(&self, slot: Slot) -> impl Iterator<Item = &Former> {
        self.former.iter().filter(move |former| former.slot == slot)
    }

    /// Notes that a slot begins to move. The number is the version that the map will have.
    pub(super) fn begin(&mut self, slot: Slot, to: u16) {
        self.moves.push(Relocation { slot, to, number: self.version + 1, switched: None });
    }

    pub(super) fn switch(&mut self, slot: Slot, at: Timestamp) {
        let of_slot = self.moves.iter_mut().find(|relocation| relocation.slot == slot);
        if let Some(relocation) = of_slot {
            relocation.switched = Some(at);
        }
    }

    /// Notes that a slot has arrived.
    pub(super) fn arrive(&mut self, slot: Slot) {
        let Some(relocation) = self.move_of(slot).copied() else { return };
        let from = self.homes[usize::from(slot.number())];
        let until = relocation.switched.unwrap_or(Timestamp::MAX);
        self.former.push(Former { slot, shard: from, until });
        self.forget_stays(slot);
        self.homes[usize::from(slot.number())] = relocation.to;
        self.give_up(slot);
    }

    /// Forgets the oldest stay of a slot that has very many, if it was in that shard again: that there are changes
    /// must stay known.
    fn forget_stays(&mut self, slot: Slot) {
        let stays: Vec<u16> = self.former_of(slot).map(|former| former.shard).collect();
        let again = |n: &usize| stays[n + 1..].contains(&stays[*n]);
        let Some(oldest) = (0..stays.len()).find(again).filter(|_| stays.len() > STAYS_MAX) else { return };
        let place = self.former.iter().enumerate().filter(|(_, former)| former.slot == slot).nth(oldest);
        if let Some((place, _)) = place {
            self.former.remove(place);
        }
    }

    pub(super) fn give_up(&mut self, slot: Slot) {
        self.moves.retain(|relocation| relocation.slot != slot);
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
            out.put_u8(relocation.switched.is_some().into());
            out.put_i64(relocation.switched.unwrap_or_default().as_micros());
        }
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
            let switched = bytes.try_get_u8().ok()? != 0;
            let at = time(&mut bytes)?;
            Some(Relocation { slot, to, number, switched: switched.then_some(at) })
        });
        let moves = moves.collect::<Option<Vec<Relocation>>>()?;
        let n = bytes.try_get_u32().ok()?;
        let former = (0..n).map(|_| {
            let (slot, shard, until) = (slot(&mut bytes)?, shard(&mut bytes)?, time(&mut bytes)?);
            Some(Former { slot, shard, until })
        });
        let former = former.collect::<Option<Vec<Former>>>()?;
        let whole = !bytes.has_remaining();
        whole.then_some(Self { version: note.version, cluster, shards, homes, moves, former })
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
        map.switch(slot(9), Timestamp::from_micros(5));
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
        map.arrive(slot(9));
        assert_eq!((map.shard_of(slot(9)), map.switching()), (2, None));
        let former: Vec<_> = map.former_of(slot(9)).map(|former| (former.shard, former.until)).collect();
        assert_eq!(former, [(0, Timestamp::from_micros(5))]);
        assert_eq!((map.moves.len(), map.move_of(slot(10)).unwrap().number), (1, 5));
    }
}
