//! Nodes that are addressed by number and never move.

/// No node.
pub(super) const NONE: u32 = u32::MAX;
/// How many nodes a chunk has, as a power of two: growing never copies what is there.
const CHUNK_BITS: u32 = 12;

/// Names what was pushed, until it is popped or removed. A handle that has outlived its job names nothing, even when
/// another job has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    slot: u32,
    generation: u32,
}

impl Handle {
    pub(super) fn slot(self) -> u32 {
        self.slot
    }
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the list of free nodes.
    Free,
    /// In the line of a flow.
    Ready,
    /// In the timer wheel.
    Delayed,
}

/// A job in the queue, with an item of up to 24 bytes: a cache line, and never two.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Node<T> {
    pub(super) item: Option<T>,
    /// Since when it is at its level, in microseconds; when it is due, while it is delayed.
    pub(super) since: i64,
    /// The next of its line; its place in the bucket of the wheel, while it is delayed; the next free node.
    pub(super) next: u32,
    /// The one before it in its line; its bucket, while it is delayed.
    pub(super) prev: u32,
    /// Its flow; which of those that are delayed it is, while it is delayed.
    pub(super) flow: u32,
    pub(super) lane: u32,
    generation: u32,
    pub(super) level: u8,
    pub(super) place: Place,
}

const _: () = assert!(size_of::<Node<[usize; 3]>>() == 64, "a node is a cache line");

/// Nodes in chunks.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Box<[Node<T>]>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a free node for an item.
    ///
    /// # Panics
    ///
    /// When 2³² − 1 nodes are taken.
    #[inline]
    pub(super) fn insert(&mut self, item: T, lane: u32, level: u8, since: i64) -> Handle {
        if self.free == NONE {
            self.grow();
        }
        let slot = self.free;
        let node = self.at(slot);
        let generation = node.generation;
        let free = node.next;
        node.item = Some(item);
        node.lane = lane;
        node.level = level;
        node.since = since;
        self.free = free;
        self.len += 1;
        Handle { slot, generation }
    }

    /// Frees a node and returns its item.
    #[inline]
    pub(super) fn take(&mut self, slot: u32) -> Option<T> {
        let free = self.free;
        let node = self.at(slot);
        let item = node.item.take();
        node.generation = node.generation.wrapping_add(1);
        node.place = Place::Free;
        node.next = free;
        self.free = slot;
        self.len -= 1;
        item
    }

    /// The node that a handle names, if it is still there.
    pub(super) fn find(&mut self, handle: Handle) -> Option<&mut Node<T>> {
        let (chunk, place) = split(handle.slot);
        let node = self.chunks.get_mut(chunk)?.get_mut(place)?;
        (node.generation == handle.generation && node.item.is_some()).then_some(node)
    }

    /// As [`Slab::find`], to look at.
    pub(super) fn look(&self, handle: Handle) -> Option<&Node<T>> {
        let (chunk, place) = split(handle.slot);
        let node = self.chunks.get(chunk)?.get(place)?;
        (node.generation == handle.generation && node.item.is_some()).then_some(node)
    }

    /// The node of a slot that was handed out.
    #[inline]
    pub(super) fn at(&mut self, slot: u32) -> &mut Node<T> {
        let (chunk, place) = split(slot);
        &mut self.chunks[chunk][place]
    }

    /// Goes through the nodes that are taken, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Handle, &Node<T>)> {
        let nodes = self.chunks.iter().flat_map(|chunk| chunk.iter());
        let entry = |(slot, node): (u32, _)| {
            let node: &Node<T> = node;
            (Handle { slot, generation: node.generation }, node)
        };
        (0..).zip(nodes).map(entry).filter(|(_, node)| node.item.is_some())
    }

    #[cold]
    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len() << CHUNK_BITS).expect("fewer than 2^32 nodes");
        let last = first + (1 << CHUNK_BITS) - 1;
        assert!(last < NONE, "fewer than 2^32 nodes");
        let node = |slot| Node {
            item: None,
            since: 0,
            next: if slot == last { NONE } else { slot + 1 },
            prev: NONE,
            flow: NONE,
            lane: NONE,
            generation: 0,
            level: 0,
            place: Place::Free,
        };
        self.chunks.push((first..=last).map(node).collect());
        self.free = first;
    }
}

#[inline]
fn split(slot: u32) -> (usize, usize) {
    ((slot >> CHUNK_BITS) as usize, (slot & ((1 << CHUNK_BITS) - 1)) as usize)
}
