//! Jobs that are not ready yet.

use hodei_core::job::Priority;

use super::names::{NONE, Name};
use super::wheel::{Spot, Wheel};

/// A job that waits for its time.
#[derive(Debug)]
pub(super) struct Delayed<T> {
    pub(super) item: T,
    pub(super) name: Name,
    pub(super) lane: u32,
    pub(super) level: Priority,
}

#[derive(Debug)]
struct Node<T> {
    waits: Option<Delayed<T>>,
    spot: Spot,
    /// The how-many-eth it is, to tell apart those that are due at once; the next free node.
    order: u32,
}

const _: () = assert!(size_of::<Node<[usize; 3]>>() <= 64, "a delayed job fits into a cache line");

/// Jobs by when they are due.
#[derive(Debug)]
pub(super) struct Delays<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    wheel: Wheel,
    newest: u32,
    due: Vec<(i64, u32)>,
    fired: Vec<Delayed<T>>,
}

impl<T> Default for Delays<T> {
    fn default() -> Self {
        let (due, fired) = (Vec::new(), Vec::new());
        Self { nodes: Vec::new(), free: NONE, wheel: Wheel::default(), newest: 0, due, fired }
    }
}

impl<T> Delays<T> {
    /// Adds a job, and returns the number of its node.
    pub(super) fn insert(&mut self, item: T, name: Name, lane: u32, level: Priority, due: i64) -> u32 {
        self.newest = self.newest.wrapping_add(1);
        let waits = Some(Delayed { item, name, lane, level });
        let at = if self.free == NONE { u32::try_from(self.nodes.len()).unwrap_or(NONE) } else { self.free };
        let node = Node { waits, spot: self.wheel.insert(due, at), order: self.newest };
        match self.nodes.get_mut(at as usize) {
            Some(free) => {
                self.free = free.order;
                *free = node;
            }
            None => {
                assert!(at < 1 << 31, "fewer than 2^31 jobs");
                self.nodes.push(node);
            }
        }
        at
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, at: u32) -> Option<Delayed<T>> {
        let spot = self.nodes[at as usize].spot;
        let gone = self.vacate(at)?;
        if let Some(moved) = self.wheel.remove(spot) {
            self.nodes[moved as usize].spot = spot;
        }
        Some(gone)
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.nodes[at as usize].waits.as_ref().map(|waits| &waits.item)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.nodes[at as usize].waits.as_mut().map(|waits| &mut waits.item)
    }

    /// Whether [`Delays::advance`] may have anything to do; else time has passed.
    #[inline]
    pub(super) fn is_due(&mut self, now: i64) -> bool {
        self.wheel.is_due(now)
    }

    /// Takes out what is due, in the order of the times; of equal ones, as they came. The list is given back by
    /// [`Delays::done`].
    pub(super) fn advance(&mut self, now: i64) -> Vec<Delayed<T>> {
        let mut fired = std::mem::take(&mut self.fired);
        if self.wheel.len() == 0 {
            return fired;
        }
        let mut due = std::mem::take(&mut self.due);
        let nodes = &mut self.nodes;
        self.wheel.advance(now, &mut due, |at, spot| nodes[at as usize].spot = spot);
        // The counter may have wrapped in between.
        let age = |at: u32| self.newest.wrapping_sub(self.nodes[at as usize].order);
        due.sort_by_cached_key(|(due, at)| (*due, std::cmp::Reverse(age(*at))));
        fired.extend(due.drain(..).filter_map(|(_, at)| self.vacate(at)));
        self.due = due;
        fired
    }

    /// Takes the emptied list back.
    pub(super) fn done(&mut self, fired: Vec<Delayed<T>>) {
        self.fired = fired;
    }

    pub(super) fn next_due(&self) -> Option<i64> {
        self.wheel.next_due()
    }

    /// The name of the job of a node, if it has any.
    pub(super) fn name_at(&self, at: u32) -> Option<Name> {
        self.nodes.get(at as usize)?.waits.as_ref().map(|waits| waits.name)
    }

    /// Goes through the jobs with their nodes, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Delayed<T>)> {
        (0..).zip(&self.nodes).filter_map(|(at, node)| Some((at, node.waits.as_ref()?)))
    }

    fn vacate(&mut self, at: u32) -> Option<Delayed<T>> {
        let node = &mut self.nodes[at as usize];
        let gone = node.waits.take()?;
        node.order = std::mem::replace(&mut self.free, at);
        Some(gone)
    }
}
