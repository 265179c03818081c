//! The queue of one dispatcher.

use std::collections::HashMap;
use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Priority;

use super::slab::{Handle, NONE, Place, Slab};
use super::tree::{Standing, Tree};
use super::wheel::{Spot, Wheel};

/// A share of the service that lanes and other shares draw from together: a tenant, or a pipeline of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareId(u32);

/// The jobs of a share that ask for the same: they wait in one line at each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneId(u32);

/// What jobs ask for, as the caller numbers it. Classes that cannot be placed are held back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassId(pub u32);

/// A submission on its way to a queue: at most 32 bytes with an item of 16.
#[derive(Clone, Copy, Debug)]
pub struct Entry<T> {
    /// What waits.
    pub item: T,
    /// In which lane.
    pub lane: LaneId,
    /// How urgent it is.
    pub level: Priority,
}

const _: () = assert!(size_of::<Entry<hodei_core::JobId>>() <= 32, "an entry is at most half a cache line");

/// When jobs that wait rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ageing {
    /// After how long at a level a job rises to the next one.
    pub every: Duration,
    /// No job rises above this level.
    pub ceiling: Priority,
}

impl Ageing {
    /// How long a job of a level waits at most before it has reached the ceiling: from then on only jobs that are
    /// more urgent by birth, or that reached it before, come before it.
    #[must_use]
    pub fn bound(&self, level: Priority) -> Duration {
        self.every * u32::from(self.ceiling.level().saturating_sub(level.level()))
    }
}

/// What was popped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped<T> {
    /// The item.
    pub item: T,
    /// The level it had risen to.
    pub level: Priority,
    /// Its lane.
    pub lane: LaneId,
}

/// How many jobs rise in one call of [`ReadyQueue::advance`] at most; the rest rise in the next one.
const RISE_MAX: usize = 4_096;

/// A priority queue with fair shares, ageing, delays and removal, for one owner.
///
/// The order is strict by level. Within a level shares take turns by weight, and shares within a share likewise;
/// nobody who has work is ever more than one job behind the fluid ideal, as long as the same shares have work. A lane
/// is first in, first out. Every call costs the same however many jobs wait; popping costs the logarithm of how many
/// shares have work.
///
/// ```
/// use hodei_core::Timestamp;
/// use hodei_core::job::Priority;
/// use hodei_sched::queue::{ClassId, ReadyQueue};
///
/// let mut queue = ReadyQueue::new(None);
/// let tenant = queue.open_share(None, 1);
/// let lane = queue.open_lane(tenant, ClassId(0), 1);
/// let now = Timestamp::EPOCH;
/// queue.push("later", lane, Priority::MIN, now);
/// queue.push("first", lane, Priority::MAX, now);
/// assert_eq!(queue.pop().map(|popped| popped.item), Some("first"));
/// ```
#[derive(Debug)]
pub struct ReadyQueue<T> {
    slab: Slab<T>,
    tree: Tree,
    ageing: Option<Ageing>,
    /// When the head of each watched flow rises.
    ages: Wheel,
    /// When each delayed job is due.
    delays: Wheel,
    delayed: u32,
    fired: Vec<(i64, u32)>,
    /// The flows of each class that is held back.
    held: HashMap<u32, Vec<u32>>,
    /// How many are ready, at each level.
    depths: [usize; 64],
    now: i64,
}

impl<T> ReadyQueue<T> {
    /// Makes an empty queue. Without ageing a job may wait for ever behind more urgent ones.
    #[must_use]
    pub fn new(ageing: Option<Ageing>) -> Self {
        Self {
            slab: Slab::default(),
            tree: Tree::default(),
            ageing: ageing.filter(|ageing| !ageing.every.is_zero()),
            ages: Wheel::default(),
            delays: Wheel::default(),
            delayed: 0,
            fired: Vec::new(),
            held: HashMap::new(),
            depths: [0; 64],
            now: 0,
        }
    }

    /// Opens a share of the whole, or within another share. Weights from 1 to 65,536 count; others are as the nearest
    /// of these.
    ///
    /// # Panics
    ///
    /// When the parent was closed, or lies eight shares deep.
    pub fn open_share(&mut self, parent: Option<ShareId>, weight: u32) -> ShareId {
        ShareId(self.tree.open_share(parent.map_or(NONE, |share| share.0), weight))
    }

    /// Changes the weight of a share.
    pub fn reweigh(&mut self, share: ShareId, weight: u32) {
        self.tree.reweigh(share.0, weight);
    }

    /// Closes a share from which no lane and no share draws; `false` when some do.
    pub fn close_share(&mut self, share: ShareId) -> bool {
        self.tree.close_share(share.0)
    }

    /// Opens a lane within a share; lanes of a share take turns as shares do.
    ///
    /// # Panics
    ///
    /// When the share was closed.
    pub fn open_lane(&mut self, share: ShareId, class: ClassId, weight: u32) -> LaneId {
        LaneId(self.tree.open_lane(share.0, class.0, weight))
    }

    /// Closes a lane in which nothing waits; `false` when something does.
    pub fn close_lane(&mut self, lane: LaneId) -> bool {
        self.tree.close_lane(lane.0)
    }

    /// Adds a job behind those of its lane and level.
    pub fn push(&mut self, item: T, lane: LaneId, level: Priority, now: Timestamp) -> Handle {
        self.now = self.now.max(now.as_micros());
        let handle = self.slab.insert(item, lane.0, level.level(), self.now);
        self.tree.job_came(lane.0);
        self.enter(handle.slot(), lane.0, level.level());
        handle
    }

    /// Adds a submission.
    pub fn push_entry(&mut self, entry: Entry<T>, now: Timestamp) -> Handle {
        self.push(entry.item, entry.lane, entry.level, now)
    }

    /// Adds a job that is ready once [`ReadyQueue::advance`] has reached a time. Its age counts from then.
    pub fn push_delayed(&mut self, item: T, lane: LaneId, level: Priority, due: Timestamp) -> Handle {
        let due = due.as_micros();
        let handle = self.slab.insert(item, lane.0, level.level(), due);
        self.tree.job_came(lane.0);
        let spot = self.delays.insert(due, handle.slot());
        self.delayed = self.delayed.wrapping_add(1);
        let node = self.slab.at(handle.slot());
        node.place = Place::Delayed;
        node.flow = self.delayed;
        (node.prev, node.next) = (spot.bucket, spot.index);
        handle
    }

    /// Takes a job out wherever it is; nothing when it has gone already.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let node = self.slab.find(handle)?;
        let (lane, place) = (node.lane, node.place);
        match place {
            Place::Ready => self.unlink(handle.slot()),
            Place::Delayed => {
                let spot = Spot { bucket: node.prev, index: node.next };
                if let Some(moved) = self.delays.remove(spot) {
                    self.slab.at(moved).next = spot.index;
                }
            }
            Place::Free => return None,
        }
        self.tree.job_went(lane);
        self.slab.take(handle.slot())
    }

    /// Lends a job that is still there.
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        self.slab.look(handle)?.item.as_ref()
    }

    /// As [`ReadyQueue::get`], to change it.
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        self.slab.find(handle)?.item.as_mut()
    }

    /// Says which class is next, and at which level; nothing when nothing is ready whose class is not held back.
    /// [`ReadyQueue::pop`] takes that job, unless something else is called before.
    #[must_use]
    pub fn peek(&mut self) -> Option<(ClassId, Priority)> {
        let flow = self.select()?;
        let flow = *self.tree.flow(flow);
        Some((ClassId(flow.class), level(flow.level)))
    }

    /// Takes the next job.
    pub fn pop(&mut self) -> Option<Popped<T>> {
        let flow = self.select()?;
        self.tree.served(flow);
        let at = *self.tree.flow(flow);
        let node = self.slab.at(at.head);
        let next = node.next;
        self.depths[usize::from(at.level)] -= 1;
        self.tree.job_went(at.lane);
        let line = self.tree.flow(flow);
        line.head = next;
        line.len -= 1;
        if next == NONE {
            line.tail = NONE;
            self.tree.deactivate(flow, Standing::Empty);
        } else {
            self.slab.at(next).prev = NONE;
        }
        let item = self.slab.take(at.head)?;
        Some(Popped { item, level: level(at.level), lane: LaneId(at.lane) })
    }

    /// Takes up to `n` jobs in order, and returns how many there were.
    pub fn pop_batch(&mut self, n: usize, out: &mut Vec<Popped<T>>) -> usize {
        let before = out.len();
        out.extend(std::iter::from_fn(|| self.pop()).take(n));
        out.len() - before
    }

    /// Holds a class back: its jobs keep their places and age, and take no turns until [`ReadyQueue::let_go`].
    pub fn hold(&mut self, class: ClassId) {
        self.held.entry(class.0).or_default();
    }

    /// Lets a class take turns again.
    pub fn let_go(&mut self, class: ClassId) {
        for flow in self.held.remove(&class.0).unwrap_or_default() {
            if self.tree.flow(flow).standing == Standing::Parked {
                self.tree.activate(flow);
            }
        }
    }

    /// Goes through the classes that are held back.
    pub fn held(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.held.keys().map(|class| ClassId(*class))
    }

    /// Lets time pass: what is due becomes ready, in the order in which it was, and what is old enough rises.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now.as_micros());
        if self.delays.len() > 0 {
            self.fire();
        }
        if self.ages.len() > 0 {
            self.rise();
        }
    }

    /// When to call [`ReadyQueue::advance`] again at the latest.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = [self.delays.next_due(), self.ages.next_due()];
        due.into_iter().flatten().min().map(Timestamp::from_micros)
    }

    /// How many jobs are there, those that are delayed or held back too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no job is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many jobs of a lane are there.
    #[must_use]
    pub fn len_of(&self, lane: LaneId) -> usize {
        self.tree.jobs_of(lane.0) as usize
    }

    /// How many jobs are ready at a level, those that are held back too.
    #[must_use]
    pub fn depth(&self, level: Priority) -> usize {
        self.depths[usize::from(level.level())]
    }

    /// Goes through the jobs that are there, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&T, LaneId)> {
        self.slab.entries().filter_map(|(_, node)| Some((node.item.as_ref()?, LaneId(node.lane))))
    }

    /// The handle of each job for which `wanted` says so, in no order.
    pub fn find_all(&self, mut wanted: impl FnMut(&T, LaneId) -> bool) -> Vec<Handle> {
        let found = self.slab.entries().filter_map(|(handle, node)| {
            node.item.as_ref().filter(|item| wanted(item, LaneId(node.lane))).map(|_| handle)
        });
        found.collect()
    }

    #[inline]
    fn select(&mut self) -> Option<u32> {
        loop {
            let flow = self.tree.select()?;
            if self.held.is_empty() {
                return Some(flow);
            }
            let class = self.tree.flow(flow).class;
            let Some(parked) = self.held.get_mut(&class) else { return Some(flow) };
            parked.push(flow);
            self.tree.deactivate(flow, Standing::Parked);
        }
    }

    /// Puts a node at the end of the line of its lane at a level.
    fn enter(&mut self, slot: u32, lane: u32, level: u8) {
        let flow = self.tree.flow_at(lane, level);
        let line = self.tree.flow(flow);
        let tail = std::mem::replace(&mut line.tail, slot);
        line.len += 1;
        let first = tail == NONE;
        if first {
            line.head = slot;
        }
        let node = self.slab.at(slot);
        node.place = Place::Ready;
        node.flow = flow;
        node.level = level;
        (node.prev, node.next) = (tail, NONE);
        self.depths[usize::from(level)] += 1;
        if first {
            self.tree.activate(flow);
            self.watch(flow);
        } else {
            self.slab.at(tail).next = slot;
        }
    }

    /// Takes a node out of its line.
    fn unlink(&mut self, slot: u32) {
        let node = self.slab.at(slot);
        let (prev, next, flow, level) = (node.prev, node.next, node.flow, node.level);
        if prev != NONE {
            self.slab.at(prev).next = next;
        }
        if next != NONE {
            self.slab.at(next).prev = prev;
        }
        self.depths[usize::from(level)] -= 1;
        let line = self.tree.flow(flow);
        if prev == NONE {
            line.head = next;
        }
        if next == NONE {
            line.tail = prev;
        }
        line.len -= 1;
        if line.len == 0 {
            match line.standing {
                Standing::Active => self.tree.deactivate(flow, Standing::Empty),
                Standing::Empty | Standing::Parked => line.standing = Standing::Empty,
            }
        }
    }

    /// Has the wheel of ages come back to a flow when its head is old enough.
    fn watch(&mut self, flow: u32) {
        let Some(ageing) = self.ageing else { return };
        let line = *self.tree.flow(flow);
        if line.watched || line.head == NONE || line.level >= ageing.ceiling.level() {
            return;
        }
        let since = self.slab.at(line.head).since;
        self.ages.insert(since.saturating_add(micros(ageing.every)), flow);
        self.tree.flow(flow).watched = true;
    }

    fn fire(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        let slab = &mut self.slab;
        self.delays.advance(self.now, &mut fired, |slot, spot| {
            let node = slab.at(slot);
            (node.prev, node.next) = (spot.bucket, spot.index);
        });
        // In the order of their times; of equal ones, as they came. The counter may have wrapped in between.
        let newest = self.delayed;
        fired.sort_by_cached_key(|(due, slot)| {
            (*due, std::cmp::Reverse(newest.wrapping_sub(self.slab.at(*slot).flow)))
        });
        for (_, slot) in fired.drain(..) {
            let now = self.now;
            let node = self.slab.at(slot);
            node.since = now;
            let (lane, level) = (node.lane, node.level);
            self.enter(slot, lane, level);
        }
        self.fired = fired;
    }

    fn rise(&mut self) {
        let Some(ageing) = self.ageing else { return };
        let mut fired = std::mem::take(&mut self.fired);
        self.ages.advance(self.now, &mut fired, |_, _| {});
        fired.sort_unstable();
        let old = self.now.saturating_sub(micros(ageing.every));
        let mut left = RISE_MAX;
        for (_, flow) in fired.drain(..) {
            self.tree.unwatch(flow);
            while left > 0 {
                let line = *self.tree.flow(flow);
                if line.lane == NONE || line.head == NONE || self.slab.at(line.head).since > old {
                    break;
                }
                self.unlink(line.head);
                self.slab.at(line.head).since = self.now;
                self.enter(line.head, line.lane, line.level + 1);
                left -= 1;
            }
            if self.tree.flow(flow).lane != NONE {
                self.watch(flow);
            }
        }
        self.fired = fired;
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn level(level: u8) -> Priority {
    Priority::new(level).unwrap_or(Priority::MAX)
}
