//! Lines of jobs, first in, first out, from whose middle jobs may go.
//!
//! Jobs lie in blocks, one behind the other, so that going along a line reads memory in order. A job that goes leaves
//! a hole, and a block of holes is freed.

use super::seats::NONE;

/// How many jobs a block has, as a power of two.
const BLOCK_BITS: u32 = 4;
const BLOCK: usize = 1 << BLOCK_BITS;

/// A job in a line.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    /// Since when it is in the line, in microseconds.
    pub(super) since: i64,
    pub(super) seat: u32,
}

const _: () = assert!(size_of::<Option<Entry<[usize; 3]>>>() <= 64, "a job fits into a cache line");

#[derive(Debug)]
struct Block<T> {
    /// Which entries are taken.
    live: u32,
    /// How many entries were ever taken.
    used: u32,
    /// Whose line it is.
    flow: u32,
    next: u32,
    prev: u32,
    entries: [Option<Entry<T>>; BLOCK],
}

/// A line: its first and its last block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    head: u32,
    tail: u32,
    len: u32,
}

impl Line {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

/// The blocks of all lines.
#[derive(Debug)]
pub(super) struct Lines<T> {
    /// A box each, so that growing moves none of them.
    #[expect(clippy::vec_box, reason = "a block is half a kilobyte: growing would copy them all")]
    blocks: Vec<Box<Block<T>>>,
    free: u32,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), free: NONE }
    }
}

impl<T> Lines<T> {
    /// Adds an entry at the end of a flow's line, and returns its number.
    #[inline]
    pub(super) fn push(&mut self, line: &mut Line, flow: u32, entry: Entry<T>) -> u32 {
        let full = line.tail == NONE || self.blocks[line.tail as usize].used as usize == BLOCK;
        if full {
            self.extend(line, flow);
        }
        let block = &mut *self.blocks[line.tail as usize];
        let at = block.used;
        block.used += 1;
        block.live |= 1 << at;
        block.entries[at as usize] = Some(entry);
        line.len += 1;
        line.tail << BLOCK_BITS | at
    }

    /// Takes the first entry of a line.
    #[inline]
    pub(super) fn pop(&mut self, line: &mut Line) -> Option<Entry<T>> {
        let first = self.first_at(line)?;
        self.take(line, first)
    }

    /// Takes an entry out of the line that it is in.
    #[inline]
    pub(super) fn take(&mut self, line: &mut Line, at: u32) -> Option<Entry<T>> {
        let (number, place) = split(at);
        let block = &mut *self.blocks[number];
        let entry = block.entries[place].take()?;
        block.live &= !(1 << place);
        line.len -= 1;
        if block.live == 0 {
            if line.head == line.tail {
                // The line keeps its last block: the next job comes soon.
                block.used = 0;
            } else {
                self.drop_block(line, at >> BLOCK_BITS);
            }
        }
        Some(entry)
    }

    /// Frees what an empty line still has.
    pub(super) fn free(&mut self, line: &mut Line) {
        debug_assert!(line.len == 0, "an empty line is freed");
        if line.head != NONE {
            self.drop_block(line, line.head);
        }
    }

    /// The number of the first entry of a line.
    #[inline]
    pub(super) fn first_at(&self, line: &Line) -> Option<u32> {
        let first = |block: &Block<T>| line.head << BLOCK_BITS | block.live.trailing_zeros();
        (line.len > 0).then(|| first(&self.blocks[line.head as usize]))
    }

    /// The first entry of a line.
    pub(super) fn first(&self, line: &Line) -> Option<&Entry<T>> {
        self.get(self.first_at(line)?)
    }

    /// Whose line an entry is in.
    pub(super) fn flow_of(&self, at: u32) -> u32 {
        self.blocks[split(at).0].flow
    }

    pub(super) fn get(&self, at: u32) -> Option<&Entry<T>> {
        let (block, place) = split(at);
        self.blocks[block].entries[place].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Entry<T>> {
        let (block, place) = split(at);
        self.blocks[block].entries[place].as_mut()
    }

    /// Goes through all entries with their flows, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<T>)> {
        let taken = |block: &Block<T>| block.live != 0;
        let blocks = self.blocks.iter().map(|block| &**block).filter(move |block| taken(block));
        blocks.flat_map(|block| block.entries.iter().flatten().map(|entry| (block.flow, entry)))
    }

    /// Adds a block to a line.
    fn extend(&mut self, line: &mut Line, flow: u32) {
        let fresh = if self.free == NONE {
            let entries = std::array::from_fn(|_| None);
            self.blocks.push(Box::new(Block { live: 0, used: 0, flow, next: NONE, prev: NONE, entries }));
            u32::try_from(self.blocks.len() - 1).expect("fewer than 2^27 blocks")
        } else {
            let fresh = self.free;
            self.free = self.blocks[fresh as usize].next;
            fresh
        };
        assert!(fresh < 1 << (31 - BLOCK_BITS), "fewer than 2^31 jobs");
        let block = &mut *self.blocks[fresh as usize];
        (block.live, block.used, block.flow) = (0, 0, flow);
        (block.prev, block.next) = (line.tail, NONE);
        match line.tail {
            NONE => line.head = fresh,
            tail => self.blocks[tail as usize].next = fresh,
        }
        line.tail = fresh;
    }

    /// Takes a block without entries out of its line.
    fn drop_block(&mut self, line: &mut Line, number: u32) {
        let free = self.free;
        let block = &mut *self.blocks[number as usize];
        let (prev, next) = (block.prev, block.next);
        block.next = free;
        self.free = number;
        match prev {
            NONE => line.head = next,
            prev => self.blocks[prev as usize].next = next,
        }
        match next {
            NONE => line.tail = prev,
            next => self.blocks[next as usize].prev = prev,
        }
    }
}

fn split(at: u32) -> (usize, usize) {
    ((at >> BLOCK_BITS) as usize, at as usize & (BLOCK - 1))
}
