//! Lines of jobs, first in, first out, from whose middle jobs may go.
//!
//! Jobs lie in blocks, one behind the other, so that going along a line reads memory in order. A job that goes leaves
//! a hole, and a block of holes is freed.

use super::names::{NONE, Name};

/// How many jobs a block has, as a power of two.
const BLOCK_BITS: u32 = 4;
const BLOCK: usize = 1 << BLOCK_BITS;
/// How many blocks lie side by side, as a power of two: whoever looks a job up by its number finds their few places in
/// the nearest cache.
const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;

/// A job in a line.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    /// Since when it is in the line, in microseconds.
    pub(super) since: i64,
    pub(super) name: Name,
}

const _: () = assert!(size_of::<Option<Entry<u64>>>() <= 24, "a job takes little of a cache line");
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

impl<T> Block<T> {
    /// Adds an entry behind the others, where there is room, and returns its place.
    #[inline]
    fn put(&mut self, entry: Entry<T>) -> u32 {
        let at = self.used;
        self.used += 1;
        self.live |= 1 << at;
        self.entries[at as usize % BLOCK] = Some(entry);
        at
    }
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
    blocks: Blocks<T>,
    free: u32,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { blocks: Blocks(Vec::new()), free: NONE }
    }
}

/// Blocks by number. They lie in chunks, so that growing moves none of them.
#[derive(Debug)]
struct Blocks<T>(Vec<Vec<Block<T>>>);

impl<T> Blocks<T> {
    /// Adds a block, and returns its number.
    fn push(&mut self, block: Block<T>) -> u32 {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let number = (self.0.len() - 1) * CHUNK;
        let chunk = self.0.last_mut().expect("one was just added");
        chunk.push(block);
        u32::try_from(number + chunk.len() - 1).expect("fewer than 2^27 blocks")
    }

    /// Lends a block, if there is one of that number.
    #[inline]
    fn get_mut(&mut self, number: u32) -> Option<&mut Block<T>> {
        self.0.get_mut((number >> CHUNK_BITS) as usize)?.get_mut(number as usize % CHUNK)
    }
}

impl<T> std::ops::Index<u32> for Blocks<T> {
    type Output = Block<T>;

    #[inline]
    fn index(&self, number: u32) -> &Block<T> {
        &self.0[(number >> CHUNK_BITS) as usize][number as usize % CHUNK]
    }
}

impl<T> std::ops::IndexMut<u32> for Blocks<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut Block<T> {
        &mut self.0[(number >> CHUNK_BITS) as usize][number as usize % CHUNK]
    }
}

impl<T> Lines<T> {
    /// Adds an entry at the end of a flow's line, and returns its number.
    #[inline]
    pub(super) fn push(&mut self, line: &mut Line, flow: u32, entry: Entry<T>) -> u32 {
        line.len += 1;
        // Mostly there is room, and the block is looked up once.
        if let Some(block) = self.blocks.get_mut(line.tail)
            && (block.used as usize) < BLOCK
        {
            return line.tail << BLOCK_BITS | block.put(entry);
        }
        self.extend(line, flow);
        line.tail << BLOCK_BITS | self.blocks[line.tail].put(entry)
    }

    /// Takes the first entry of a line.
    #[inline]
    pub(super) fn pop(&mut self, line: &mut Line) -> Option<Entry<T>> {
        if line.len == 0 {
            return None;
        }
        let block = &mut self.blocks[line.head];
        let entry = block.entries[block.live.trailing_zeros() as usize % BLOCK].take()?;
        block.live &= block.live - 1;
        line.len -= 1;
        if block.live == 0 {
            if line.head == line.tail {
                // The line keeps its last block: the next job comes soon.
                block.used = 0;
            } else {
                self.drop_block(line, line.head);
            }
        }
        Some(entry)
    }

    /// Takes an entry out of the line that it is in, which is found by the number of its flow; returns that too.
    #[inline]
    pub(super) fn take<'line>(
        &mut self,
        at: u32,
        line_of: impl FnOnce(u32) -> &'line mut Line,
    ) -> Option<(u32, Entry<T>)> {
        let (number, place) = split(at);
        // All that is needed of the block is read at once: it may be far away in memory.
        let block = self.blocks.get_mut(number)?;
        let flow = block.flow;
        let entry = block.entries[place].take()?;
        block.live &= !(1 << place);
        let line = line_of(flow);
        line.len -= 1;
        if block.live == 0 {
            if line.head == line.tail {
                // The line keeps its last block: the next job comes soon.
                block.used = 0;
            } else {
                self.drop_block(line, number);
            }
        }
        Some((flow, entry))
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
        (line.len > 0).then(|| first(&self.blocks[line.head]))
    }

    /// The first entry of a line.
    #[inline]
    pub(super) fn first(&self, line: &Line) -> Option<&Entry<T>> {
        self.get(self.first_at(line)?)
    }

    /// The name of the job at a place, if there is any job.
    #[inline]
    pub(super) fn name_at(&self, at: u32) -> Option<Name> {
        let (number, place) = split(at);
        let chunk = self.blocks.0.get((number >> CHUNK_BITS) as usize)?;
        chunk.get(number as usize % CHUNK)?.entries[place].as_ref().map(|entry| entry.name)
    }

    pub(super) fn get(&self, at: u32) -> Option<&Entry<T>> {
        let (block, place) = split(at);
        self.blocks[block].entries[place].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Entry<T>> {
        let (block, place) = split(at);
        self.blocks[block].entries[place].as_mut()
    }

    /// Goes through all entries with their numbers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<T>)> {
        let taken = |(_, block): &(u32, &Block<T>)| block.live != 0;
        let blocks = (0..).zip(self.blocks.0.iter().flatten()).filter(taken);
        blocks.flat_map(|(number, block)| {
            let numbered = (number << BLOCK_BITS..).zip(&block.entries);
            numbered.filter_map(|(at, entry)| Some((at, entry.as_ref()?)))
        })
    }

    /// Adds a block to a line.
    fn extend(&mut self, line: &mut Line, flow: u32) {
        let fresh = if self.free == NONE {
            let entries = std::array::from_fn(|_| None);
            self.blocks.push(Block { live: 0, used: 0, flow, next: NONE, prev: NONE, entries })
        } else {
            let fresh = self.free;
            self.free = self.blocks[fresh].next;
            fresh
        };
        assert!(fresh < 1 << (31 - BLOCK_BITS), "fewer than 2^31 jobs");
        let block = &mut self.blocks[fresh];
        (block.live, block.used, block.flow) = (0, 0, flow);
        (block.prev, block.next) = (line.tail, NONE);
        match line.tail {
            NONE => line.head = fresh,
            tail => self.blocks[tail].next = fresh,
        }
        line.tail = fresh;
    }

    /// Takes a block without entries out of its line.
    fn drop_block(&mut self, line: &mut Line, number: u32) {
        let free = self.free;
        let block = &mut self.blocks[number];
        let (prev, next) = (block.prev, block.next);
        block.next = free;
        self.free = number;
        match prev {
            NONE => line.head = next,
            prev => self.blocks[prev].next = next,
        }
        match next {
            NONE => line.tail = prev,
            next => self.blocks[next].prev = prev,
        }
    }
}

fn split(at: u32) -> (u32, usize) {
    (at >> BLOCK_BITS, at as usize % BLOCK)
}
