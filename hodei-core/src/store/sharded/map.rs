//! Which slot is in which shard.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use super::super::{Cursor, Note};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Name, Slot};
use crate::time::Timestamp;

/// How many shards there may be: 64.
pub(super) const SHARDS_MAX: usize = 64;
/// How many stays that are over are remembered, of all slots: 4,096. Beyond, the oldest are forgotten, and changes from
/// before are in the order of the clocks.
const FORMER_MAX: usize = 4_096;
const SLOTS: usize = Slot::MAX.number() as usize + 1;
const MAGIC: &[u8; 8] = b"hodei-m3";
/// Maps that did not note which shards are marked.
const SECOND: &[u8; 8] = b"hodei-m2";
/// Maps that did not note either where in the log of a shard a slot has arrived.
const FIRST: &[u8; 8] = b"hodei-m1";

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
    /// The places whose shards are known to be marked, a bit each: a store without a mark is none of them.
    marked: u64,
    /// How often the shard of a place was given up; absent where it never was. What bears the mark of before is not the shard
    /// any more.
    given_up: BTreeMap<usize, u32>,
}

/// A move under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relocation {
    pub(super) slot: Slot,
    pub(super) to: u16,
    /// Rises from move to move; the shards refuse what comes late.
    pub(super) number: u64,
    pub(super) step: Step,
}

/// How far a move has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The rows are on their way; the slot is in the source.
    Copying,
    /// Everything was copied by this time of the source, and will be seen in the target behind this place of its log;
    /// there is no way back, and the slot may be in neither shard.
    Switching(Timestamp, Option<Cursor>),
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
    fn encode(&self) -> (u8, Timestamp, Option<&Cursor>) {
        match self {
            Self::Copying => (0, Timestamp::EPOCH, None),
            Self::Switching(at, since) => (1, *at, since.as_ref()),
            Self::Staying => (2, Timestamp::EPOCH, None),
            Self::Clearing(left) => (3, Timestamp::from_micros(i64::from(*left)), None),
        }
    }

    fn decode(tag: u8, at: Timestamp, since: Option<Cursor>) -> Option<Self> {
        match tag {
            0 => Some(Self::Copying),
            1 => Some(Self::Switching(at, since)),
            2 => Some(Self::Staying),
            3 => u16::try_from(at.as_micros()).ok().map(Self::Clearing),
            _ => None,
        }
    }
}

/// A stay of a slot in a shard that it has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Former {
    slot: Slot,
    pub(super) shard: u16,
    /// No change of the slot was recorded there later, unless it came back.
    pub(super) until: Timestamp,
    /// Where the next stay begins in the log of its shard.
    next: Option<Cursor>,
}

/// A stay of a slot in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) shard: usize,
    /// Behind which place of the shard's log its changes are; the first stay of all began with the log.
    pub(super) since: Option<Cursor>,
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
        let given_up = BTreeMap::new();
        Self {
            version: 0,
            cluster,
            shards,
            homes,
            moves,
            former,
            forgotten,
            arrivals: 0,
            marked: 0,
            given_up,
        }
    }

    /// Whether the shard of a place is known to be marked.
    pub(super) const fn is_marked(&self, place: usize) -> bool {
        self.marked & bit(place) != 0
    }

    /// Notes that the shard of a place is marked.
    pub(super) const fn set_marked(&mut self, place: usize) {
        self.marked |= bit(place);
    }

    /// Notes that the shard of a place is given up: another one may be marked in its place.
    pub(super) fn give_up(&mut self, place: usize) {
        if self.is_marked(place) {
            self.marked &= !bit(place);
            let times = self.given_up.entry(place).or_default();
            *times = times.saturating_add(1);
        }
    }

    /// The mark of the shard of a place.
    pub(super) fn mark_of(&self, place: usize) -> Bytes {
        let mut mark = Vec::with_capacity(self.cluster.len() + 6);
        mark.put_slice(&self.cluster);
        mark.put_u16(number_of(place));
        if let Some(times) = self.given_up.get(&place) {
            mark.put_u32(*times);
        }
        mark.into()
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
        let is_switching = |relocation: &&Relocation| matches!(relocation.step, Step::Switching(..));
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
        self.former.iter().filter(move |former| former.slot == slot).cloned().chain(leaving)
    }

    /// Returns the stays of a slot in their order; the last one is where it is, or is about to be for good.
    pub(super) fn stays_of(&self, slot: Slot) -> Vec<Stay> {
        let (mut stays, mut since) = (Vec::new(), None);
        for former in self.former_of(slot) {
            stays.push(Stay { shard: former.shard.into(), since });
            since = former.next;
        }
        let to = self.move_of(slot).filter(|relocation| matches!(relocation.step, Step::Switching(..)));
        let shard = to.map_or_else(|| self.shard_of(slot), |relocation| relocation.to.into());
        stays.push(Stay { shard, since });
        stays
    }

    /// Returns the stay that ends with a move, once there is no way back.
    fn left_by(&self, relocation: &Relocation) -> Option<Former> {
        let Step::Switching(until, next) = relocation.step.clone() else { return None };
        let shard = self.homes.get(usize::from(relocation.slot.number())).copied()?;
        Some(Former { slot: relocation.slot, shard, until, next })
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
            let stay = &self.former[*n];
            let home = self.homes[usize::from(stay.slot.number())] == stay.shard;
            let same = |later: &Former| (later.slot, later.shard) == (stay.slot, stay.shard);
            home || self.former[n + 1..].iter().any(same)
        };
        if let Some(oldest) = (0..self.former.len()).find(again) {
            let stay = self.former.remove(oldest);
            self.forgotten = self.forgotten.max(stay.until);
            self.join_stays(oldest, stay);
        }
    }

    /// Has the next stay in the shard of one that was forgotten begin where that began: its changes are still there.
    fn join_stays(&mut self, place: usize, stay: Former) {
        let of_slot = |former: &Former| former.slot == stay.slot;
        // Whoever stood before it is followed by whoever followed it.
        let before = self.former[..place].iter().rposition(of_slot);
        let since = before.and_then(|before| std::mem::replace(&mut self.former[before].next, stay.next));
        let again = self.former[place..].iter().position(|f| of_slot(f) && f.shard == stay.shard);
        let behind = again.map_or(self.former.len(), |again| place + again);
        if let Some(leads) = self.former[..behind].iter().rposition(of_slot) {
            self.former[leads].next = since;
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
            let (tag, at, since) = relocation.step.encode();
            out.put_u8(tag);
            out.put_i64(at.as_micros());
            put_place(&mut out, since);
        }
        out.put_i64(self.forgotten.as_micros());
        out.put_u64(self.arrivals);
        put_len(&mut out, self.former.len());
        for former in &self.former {
            out.put_u16(former.slot.number());
            out.put_u16(former.shard);
            out.put_i64(former.until.as_micros());
            put_place(&mut out, former.next.as_ref());
        }
        out.put_u64(self.marked);
        put_len(&mut out, self.given_up.len());
        for (place, times) in &self.given_up {
            out.put_u16(number_of(*place));
            out.put_u32(*times);
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
        bytes.try_copy_to_slice(&mut head).ok().filter(|()| [MAGIC, SECOND, FIRST].contains(&&head))?;
        let is_first = head == *FIRST;
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
            let at = time(&mut bytes)?;
            let step = Step::decode(tag, at, take_place(&mut bytes, is_first)?)?;
            Some(Relocation { slot, to, number, step })
        });
        let moves = moves.collect::<Option<Vec<Relocation>>>()?;
        let forgotten = time(&mut bytes)?;
        let arrivals = bytes.try_get_u64().ok()?;
        let n = bytes.try_get_u32().ok()?;
        let former = (0..n).map(|_| {
            let (slot, shard, until) = (slot(&mut bytes)?, shard(&mut bytes)?, time(&mut bytes)?);
            Some(Former { slot, shard, until, next: take_place(&mut bytes, is_first)? })
        });
        let former = former.collect::<Option<Vec<Former>>>()?;
        let (mut marked, mut given_up) = (0, BTreeMap::new());
        if head == *MAGIC {
            marked = bytes.try_get_u64().ok()?;
            for _ in 0..bytes.try_get_u32().ok()? {
                given_up.insert(bytes.try_get_u16().ok()?.into(), bytes.try_get_u32().ok()?);
            }
        }
        let version = note.version;
        let map =
            Self { version, cluster, shards, homes, moves, former, forgotten, arrivals, marked, given_up };
        (!bytes.has_remaining()).then_some(map)
    }
}

/// The number of a place as it is written, of which there are 64.
fn number_of(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

const fn bit(place: usize) -> u64 {
    if place < SHARDS_MAX { 1 << place } else { 0 }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Writes a place in a log behind its length and one more; zero where there is none.
fn put_place(out: &mut Vec<u8>, place: Option<&Cursor>) {
    match place.and_then(|place| Some((u16::try_from(place.as_bytes().len()).ok()?.checked_add(1)?, place))) {
        Some((len, place)) => {
            out.put_u16(len);
            out.put_slice(place.as_bytes());
        }
        None => out.put_u16(0),
    }
}

/// Reads a place in a log; the first maps had none.
#[expect(clippy::option_option, reason = "the outer one says that the bytes are of no map")]
fn take_place(bytes: &mut Bytes, is_first: bool) -> Option<Option<Cursor>> {
    if is_first {
        return Some(None);
    }
    match bytes.try_get_u16().ok()?.checked_sub(1).map(usize::from) {
        None => Some(None),
        Some(len) if len > bytes.remaining() => None,
        Some(len) => Some(Some(Cursor::from_bytes(bytes.split_to(len)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    fn place(n: i64) -> Cursor {
        Cursor::from_bytes(n.to_be_bytes().to_vec())
    }

    fn map() -> ShardMap {
        let mut map = ShardMap::spread([7; 16], 3);
        map.version = 4;
        map.set_marked(0);
        map.set_marked(63);
        map.set_marked(2);
        map.give_up(2);
        map.begin(slot(9), 2);
        map.begin(slot(10), 0);
        let copying = map.move_of(slot(9)).unwrap().clone();
        map.take_step(&copying, Step::Switching(Timestamp::from_micros(5), None));
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
    fn what_is_given_up_is_not_the_shard_of_its_place_any_more() {
        let mut map = ShardMap::spread([7; 16], 3);
        let first = map.mark_of(2);
        map.give_up(2);
        assert_eq!(map.mark_of(2), first, "nobody has borne it");
        let mut marks = vec![first, map.mark_of(1)];
        for _ in 0..3 {
            map.set_marked(2);
            map.give_up(2);
            assert!(!map.is_marked(2) && !marks.contains(&map.mark_of(2)));
            marks.push(map.mark_of(2));
        }
    }

    #[test]
    fn a_slot_that_has_arrived_is_there_and_was_elsewhere() {
        let mut map = map();
        assert_eq!((map.shard_of(slot(9)), map.switching()), (0, Some(slot(9))));
        let switching = map.move_of(slot(9)).unwrap().clone();
        map.go_on(&switching);
        assert_eq!((map.shard_of(slot(9)), map.switching()), (2, None));
        let clearing = map.move_of(slot(9)).unwrap().clone();
        assert_eq!((clearing.step.clone(), clearing.is_decided()), (Step::Clearing(0), true));
        let note = Note { version: map.version, value: map.encode() };
        assert_eq!(ShardMap::decode(&note).unwrap(), map);
        map.go_on(&clearing);
        let former: Vec<_> = map.former_of(slot(9)).map(|former| (former.shard, former.until)).collect();
        assert_eq!(former, [(0, Timestamp::from_micros(5))]);
        assert_eq!((map.moves.len(), map.move_of(slot(10)).unwrap().number), (1, 5));
    }

    #[test]
    fn a_slot_has_its_stays_in_order_from_the_switch_on() {
        let mut map = ShardMap::spread([7; 16], 3);
        let stay = |shard, since| Stay { shard, since };
        map.begin(slot(9), 2);
        assert_eq!(map.stays_of(slot(9)), [stay(0, None)]);
        let copying = map.moves[0].clone();
        map.take_step(&copying, Step::Switching(Timestamp::from_micros(5), Some(place(1))));
        for _ in 0..2 {
            assert_eq!(map.stays_of(slot(9)), [stay(0, None), stay(2, Some(place(1)))]);
            let note = Note { version: map.version, value: map.encode() };
            assert_eq!(ShardMap::decode(&note).unwrap(), map);
            let known = map.moves[0].clone();
            map.go_on(&known);
        }
        assert_eq!(map.stays_of(slot(10)), [stay(1, None)]);
    }

    #[test]
    fn maps_of_before_are_read() {
        let mut map = ShardMap::spread([7; 16], 3);
        map.begin(slot(9), 2);
        let copying = map.moves[0].clone();
        map.take_step(&copying, Step::Switching(Timestamp::from_micros(5), None));
        for _ in 0..2 {
            let known = map.moves[0].clone();
            map.go_on(&known);
        }
        let today = map.encode();
        let second = [&SECOND[..], &today[MAGIC.len()..today.len() - 12]].concat();
        assert_eq!(ShardMap::decode(&Note { version: 0, value: second.clone().into() }).unwrap(), map);
        let first = [&FIRST[..], &second[MAGIC.len()..second.len() - 2]].concat();
        assert_eq!(ShardMap::decode(&Note { version: 0, value: first.into() }).unwrap(), map);
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
        let stays_made = i64::try_from(FORMER_MAX).unwrap() + 10;
        for n in 0..stays_made {
            map.version += 1;
            let to = if n == 0 { 1 } else { u16::try_from(1 + n % 2).unwrap() };
            map.begin(slot(0), to);
            let copying = map.moves[0].clone();
            map.take_step(&copying, Step::Switching(Timestamp::from_micros(n), Some(place(n))));
            for _ in 0..2 {
                let known = map.moves[0].clone();
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
        // What was recorded in stays that are forgotten is part of the next ones.
        let stays = map.stays_of(slot(0));
        let first = |shard| stays.iter().find(|stay| stay.shard == shard).unwrap().since.clone();
        assert_eq!([first(0), first(1), first(2)], [None, Some(place(0)), Some(place(1))]);
        assert_eq!(stays.last().unwrap().since, Some(place(stays_made - 1)));
        let note = Note { version: map.version, value: map.encode() };
        assert_eq!(ShardMap::decode(&note).unwrap(), map);
    }
}
