//! The queue of one dispatcher.

use std::time::Duration;

use hodei_core::Timestamp;
use hodei_core::job::Priority;

use super::delays::Delays;
use super::held::Held;
use super::lines::{self, Lines};
use super::names::{Handle, NONE, Name, Names, Place};
use super::tree::{Standing, Tree};
use super::wheel::Wheel;

/// A share of the service that lanes and other shares draw from together: a tenant, or a pipeline of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShareId(u32);

/// The jobs of a share that ask for the same: they wait in one line at each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneId(u32);

/// What jobs ask for, as the caller numbers it, from 0 on: a queue keeps a few bits for each number below the greatest one
/// that it held back. Classes that cannot be placed are held back together.
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
        self.every.saturating_mul(u32::from(self.ceiling.level().saturating_sub(level.level())))
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

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next<'q, T> {
    /// The item.
    pub item: &'q T,
    /// What it asks for.
    pub class: ClassId,
    /// The level it has risen to.
    pub level: Priority,
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
    names: Names,
    lines: Lines<T>,
    tree: Tree,
    ageing: Option<Ageing>,
    /// When the head of each watched flow rises.
    ages: Wheel,
    aged: Vec<(i64, u32)>,
    delays: Delays<T>,
    held: Held,
    now: i64,
}

impl<T> ReadyQueue<T> {
    /// Makes an empty queue. Without ageing a job may wait for ever behind more urgent ones.
    #[must_use]
    pub fn new(ageing: Option<Ageing>) -> Self {
        Self {
            names: Names::default(),
            lines: Lines::default(),
            tree: Tree::default(),
            ageing: ageing.filter(|ageing| !ageing.every.is_zero()),
            ages: Wheel::default(),
            aged: Vec::new(),
            delays: Delays::default(),
            held: Held::default(),
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
        let (lines, held) = (&mut self.lines, &mut self.held);
        self.tree.close_lane(lane.0, |number, flow| {
            lines.free(&mut flow.line);
            if std::mem::take(&mut flow.aside) {
                held.forget(number, flow.level);
            }
        })
    }

    /// Adds a job behind those of its lane and level.
    #[inline]
    pub fn push(&mut self, item: T, lane: LaneId, level: Priority, now: Timestamp) -> Handle {
        self.now = self.now.max(now.as_micros());
        let name = self.names.give();
        let at = self.enter(item, name, lane.0, level);
        Handle::new(name, Place::Ready(at))
    }

    /// Adds a submission.
    pub fn push_entry(&mut self, entry: Entry<T>, now: Timestamp) -> Handle {
        self.push(entry.item, entry.lane, entry.level, now)
    }

    /// Adds a job that is ready once [`ReadyQueue::advance`] has reached a time. Its age counts from then.
    pub fn push_delayed(&mut self, item: T, lane: LaneId, level: Priority, due: Timestamp) -> Handle {
        let name = self.names.give();
        self.tree.delay(lane.0);
        let at = self.delays.insert(item, name, lane.0, level, due.as_micros());
        Handle::new(name, Place::Delayed(at))
    }

    /// Takes a job out wherever it is; nothing when it has gone already.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        match self.find(handle)? {
            Place::Ready(at) => {
                let entry = self.take(at)?;
                self.names.retire(entry.name);
                Some(entry.item)
            }
            Place::Delayed(at) => {
                let delayed = self.delays.remove(at)?;
                self.tree.undelay(delayed.lane);
                self.names.retire(delayed.name);
                Some(delayed.item)
            }
        }
    }

    /// Lends a job that is still there.
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&T> {
        match self.find(handle)? {
            Place::Ready(at) => self.lines.get(at).map(|entry| &entry.item),
            Place::Delayed(at) => self.delays.get(at),
        }
    }

    /// As [`ReadyQueue::get`], to change it.
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        match self.find(handle)? {
            Place::Ready(at) => self.lines.get_mut(at).map(|entry| &mut entry.item),
            Place::Delayed(at) => self.delays.get_mut(at),
        }
    }

    /// Lends the next job; nothing when nothing is ready whose class is not held back. [`ReadyQueue::pop`] takes that
    /// job, unless something else is called before.
    #[must_use]
    pub fn peek(&mut self) -> Option<Next<'_, T>> {
        let flow = self.select()?;
        let flow = self.tree.flow(flow);
        let entry = self.lines.first(&flow.line)?;
        Some(Next { item: &entry.item, class: ClassId(flow.class), level: flow.level })
    }

    /// Takes the next job.
    #[inline]
    pub fn pop(&mut self) -> Option<Popped<T>> {
        let number = self.select()?;
        let flow = self.tree.flow(number);
        let (lane, level) = (LaneId(flow.lane), flow.level);
        let entry = self.lines.pop(&mut flow.line)?;
        let more = !flow.line.is_empty();
        self.tree.served(number, 1, more);
        self.names.retire(entry.name);
        Some(Popped { item: entry.item, level, lane })
    }

    /// Takes up to `n` jobs in order, and returns how many there were.
    ///
    /// # Performance
    ///
    /// Jobs that nobody else takes turns with come out in one go.
    pub fn pop_batch(&mut self, n: usize, out: &mut Vec<Popped<T>>) -> usize {
        let before = out.len();
        out.reserve(n.min(self.len()));
        while out.len() - before < n
            && let Some(number) = self.select()
        {
            let most = if self.tree.is_alone(number) { n - (out.len() - before) } else { 1 };
            let flow = self.tree.flow(number);
            let (lane, level, first) = (LaneId(flow.lane), flow.level, out.len());
            while out.len() - first < most
                && let Some(entry) = self.lines.pop(&mut flow.line)
            {
                self.names.retire(entry.name);
                out.push(Popped { item: entry.item, level, lane });
            }
            let more = !flow.line.is_empty();
            self.tree.served(number, out.len() - first, more);
        }
        out.len() - before
    }

    /// Holds a class back: its jobs keep their places and age, and take no turns until [`ReadyQueue::let_go`].
    pub fn hold(&mut self, class: ClassId) {
        // Whatever is ready of it, or has yet to come back, is not above this.
        let top = self.tree.top().max(self.held.loosened()).unwrap_or(0);
        self.held.hold(class.0, u8::try_from(top).unwrap_or(u8::MAX));
    }

    /// Lets a class take turns again.
    ///
    /// # Performance
    ///
    /// Costs the same however many of its jobs wait: they come back level by level, when it is their level's turn.
    pub fn let_go(&mut self, class: ClassId) {
        self.held.let_go(class.0);
    }

    /// Goes through the classes that are held back, in order; none of a class's ready jobs is above the level beside it.
    pub fn held(&self) -> impl Iterator<Item = (ClassId, Priority)> + '_ {
        self.held.iter().map(|(class, level)| (ClassId(class), level))
    }

    /// Lets time pass: what is due becomes ready, in the order in which it was, and what is old enough rises.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now.as_micros());
        if self.delays.is_due(self.now) {
            let mut fired = self.delays.advance(self.now);
            for delayed in fired.drain(..) {
                self.tree.undelay(delayed.lane);
                self.move_in(delayed.item, delayed.name, delayed.lane, delayed.level);
            }
            self.delays.done(fired);
        }
        if self.ages.is_due(self.now) {
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
        self.names.len()
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
    ///
    /// # Performance
    ///
    /// Goes through all lanes.
    #[must_use]
    pub fn depth(&self, level: Priority) -> usize {
        self.tree.depth(level)
    }

    /// The handles of the jobs for which `wanted` says so, in no order.
    pub fn find_all(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<Handle> {
        let ready = self.lines.iter().map(|(at, entry)| (&entry.item, entry.name, Place::Ready(at)));
        let delayed = self.delays.iter().map(|(at, waits)| (&waits.item, waits.name, Place::Delayed(at)));
        let all = ready.chain(delayed).filter(|(item, ..)| wanted(item));
        all.map(|(_, name, place)| Handle::new(name, place)).collect()
    }

    #[inline]
    fn select(&mut self) -> Option<u32> {
        if self.held.is_empty() { self.tree.select() } else { self.select_beside() }
    }

    /// Whose turn it is beside those that are held back.
    fn select_beside(&mut self) -> Option<u32> {
        loop {
            while let Some(level) = self.held.loosened().filter(|level| Some(*level) >= self.tree.top()) {
                let tree = &mut self.tree;
                self.held.come_back(level, |flow| tree.come_back(flow));
            }
            let number = self.tree.select()?;
            let flow = self.tree.flow(number);
            if !self.held.has(flow.class) {
                return Some(number);
            }
            if !std::mem::replace(&mut flow.aside, true) {
                self.held.set_aside(number, flow.class, flow.level);
            }
            self.tree.deactivate(number, Standing::Parked);
        }
    }

    /// Where a job is: mostly where it was when its handle was made.
    #[inline]
    fn find(&self, handle: Handle) -> Option<Place> {
        let there = |place: Place| {
            let name = match place {
                Place::Ready(at) => self.lines.name_at(at),
                Place::Delayed(at) => self.delays.name_at(at),
            };
            name.is_some_and(|name| handle.names(name))
        };
        if there(handle.place()) {
            return Some(handle.place());
        }
        self.names.moved_to(handle).map(Place::Ready).filter(|place| there(*place))
    }

    /// Puts a job that was elsewhere at the end of the line of its lane at a level.
    fn move_in(&mut self, item: T, mut name: Name, lane: u32, level: Priority) {
        name.moves();
        let at = self.enter(item, name, lane, level);
        self.names.moved(name, at);
    }

    /// Puts a job at the end of the line of its lane at a level, and returns its place.
    #[inline]
    fn enter(&mut self, item: T, name: Name, lane: u32, level: Priority) -> u32 {
        let number = self.tree.flow_at(lane, level);
        let flow = self.tree.flow(number);
        let first = flow.line.is_empty();
        let at = self.lines.push(&mut flow.line, number, lines::Entry { item, since: self.now, name });
        if first {
            self.held.came(flow.class, level);
            self.tree.activate(number);
            self.watch(number);
        }
        at
    }

    /// Takes an entry out of the line that it is in.
    #[inline]
    fn take(&mut self, at: u32) -> Option<lines::Entry<T>> {
        let tree = &mut self.tree;
        let (number, entry) = self.lines.take(at, |flow| &mut tree.flow(flow).line)?;
        let flow = self.tree.flow(number);
        if flow.line.is_empty() {
            match flow.standing {
                Standing::Active => self.tree.deactivate(number, Standing::Empty),
                Standing::Empty | Standing::Parked => flow.standing = Standing::Empty,
            }
        }
        Some(entry)
    }

    /// Has the wheel of ages come back to a flow when its head is old enough.
    fn watch(&mut self, flow: u32) {
        let Some(ageing) = self.ageing else { return };
        let watched = self.tree.flow(flow);
        if watched.watched || watched.level >= ageing.ceiling {
            return;
        }
        let Some(since) = self.lines.first(&watched.line).map(|first| first.since) else { return };
        watched.watched = true;
        self.ages.insert(since.saturating_add(micros(ageing.every)), flow);
    }

    fn rise(&mut self) {
        let Some(ageing) = self.ageing else { return };
        let mut aged = std::mem::take(&mut self.aged);
        self.ages.advance(self.now, &mut aged, |_, _| {});
        aged.sort_unstable();
        let old = self.now.saturating_sub(micros(ageing.every));
        let mut left = RISE_MAX;
        for (_, number) in aged.drain(..) {
            self.tree.unwatch(number);
            let flow = *self.tree.flow(number);
            let Ok(above) = Priority::new(flow.level.level() + 1) else { continue };
            if flow.lane == NONE {
                continue;
            }
            while left > 0
                && let Some(at) = self.lines.first_at(&self.tree.flow(number).line)
                && self.lines.get(at).is_some_and(|first| first.since <= old)
                && let Some(entry) = self.take(at)
            {
                self.move_in(entry.item, entry.name, flow.lane, above);
                left -= 1;
            }
            self.watch(number);
        }
        self.aged = aged;
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
