//! What publishers and subscribers of a ring share.

use std::task::Waker;
use std::time::Duration;

use hodei_core::bus::{Overflow, SubscriptionStats};

use super::waiting::{AT_ONCE, Ticket, Waiting};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Padded, lock};
use crate::sys::{Reader, Shelved, Writer};

/// The most events of a page, and the fewest.
const PAGE_MAX: usize = 256;
const PAGE_MIN: usize = 8;
/// How many pages are kept for reuse at most.
const SPARES: usize = 4;

/// The state of a ring.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    /// How many events have been published. Written under the lock of `line`, after the events.
    head: Padded<AtomicU64>,
    /// Whoever publishes stands here. A mutex, held for a batch: it makes the order.
    line: Padded<Mutex<Line<T>>>,
    /// Where readers find the pages: page n at n modulo their number. Held for the copy of a pointer.
    shelf: Box<[Mutex<Option<Shelved<T>>>]>,
    /// Publishers that wait for room.
    pub(crate) room: Waiting,
    closed: AtomicBool,
    /// Nanoseconds that publishers have waited.
    pub(crate) blocked: AtomicU64,
    page: usize,
    capacity: u64,
}

/// What the publisher whose turn it is may change.
#[derive(Debug)]
struct Line<T> {
    writer: Writer<T>,
    head: u64,
    /// How many events were published, be they stored or not.
    published: u64,
    /// Up to where every gate was seen to be open.
    limit: u64,
    members: Vec<Arc<Member>>,
    spares: Vec<Shelved<T>>,
    /// Subscribers that have read everything. Under the lock of the publishers: whoever falls asleep here has seen what was
    /// published before, and is seen by whoever publishes next.
    sleepers: Vec<(Ticket, Waker)>,
    tickets: u64,
    /// What subscribers that are gone had taken and missed.
    gone: (u64, u64),
}

/// What others may know of a subscriber.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) overflow: Overflow,
    pub(crate) capacity: u64,
    start: u64,
    /// Up to where it has read, told now and then.
    pub(crate) cursor: Padded<AtomicU64>,
    /// How many events it was told that it missed.
    pub(crate) missed: AtomicU64,
    /// Nanoseconds that publishers have waited for it.
    blocked: AtomicU64,
}

/// How much of an offer was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) taken: usize,
    /// Whether it was cut short by somebody who makes publishers fail at once.
    pub(crate) fails: bool,
}

impl Member {
    pub(crate) fn gates(&self) -> bool {
        matches!(self.overflow, Overflow::Block | Overflow::Fail)
    }

    /// Up to where it lets publishers go.
    fn limit(&self) -> u64 {
        // Acquire: its reads of a page come before the writes of whoever fills the page again.
        self.cursor.load(Ordering::Acquire).saturating_add(self.capacity)
    }

    pub(crate) fn stats(&self, head: u64) -> SubscriptionStats {
        let missed = self.missed.load(Ordering::Relaxed);
        let cursor = self.cursor.load(Ordering::Relaxed);
        SubscriptionStats {
            delivered: (cursor - self.start).saturating_sub(missed),
            missed,
            depth: head.saturating_sub(cursor).min(self.capacity),
            blocked: Duration::from_nanos(self.blocked.load(Ordering::Relaxed)),
        }
    }
}

impl<T> Line<T> {
    /// Returns how many more events every gate lets through, at most `wanted`.
    fn room(&mut self, wanted: u64) -> u64 {
        if self.limit.saturating_sub(self.head) < wanted {
            self.measure();
        }
        self.limit.saturating_sub(self.head).min(wanted)
    }

    fn measure(&mut self) {
        let gates = self.members.iter().filter(|member| member.gates());
        self.limit = gates.map(|member| member.limit()).min().unwrap_or(u64::MAX);
    }

    /// Whoever lets publishers go no further.
    fn blockers(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|member| member.gates() && member.limit() <= self.head)
    }
}

impl<T> Shared<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let page = (capacity / 8).next_power_of_two().clamp(PAGE_MIN, PAGE_MAX);
        // One page more than the capacity fills: the first of those may be read when the last is written.
        let pages = capacity.div_ceil(page) + 1;
        let writer = Writer::new(0, page);
        let shelf: Box<[_]> = (0..pages).map(|_| Mutex::new(None)).collect();
        *lock(&shelf[0]) = Some(writer.shelve());
        let line = Line {
            writer,
            head: 0,
            published: 0,
            limit: u64::MAX,
            members: Vec::new(),
            spares: Vec::new(),
            sleepers: Vec::new(),
            tickets: 0,
            gone: (0, 0),
        };
        Self {
            head: Padded(AtomicU64::new(0)),
            line: Padded(Mutex::new(line)),
            shelf,
            room: Waiting::default(),
            closed: AtomicBool::new(false),
            blocked: AtomicU64::new(0),
            page,
            capacity: capacity as u64,
        }
    }

    /// Returns how many events have been published.
    pub(crate) fn head(&self) -> u64 {
        // Acquire: the pages up to there are seen.
        self.head.load(Ordering::Acquire)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// No event will come any more; whoever sleeps learns it.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake(lock(&self.line));
    }

    /// Publishes as many of `wanted` events as there is room for, from an iterator that is made when that is known.
    /// `force` makes room at the cost of those who are slow; `whole` takes all of them or none.
    pub(crate) fn offer<I: Iterator<Item = T>>(
        &self,
        wanted: usize,
        how: How,
        events: impl FnOnce(usize) -> I,
    ) -> Offered {
        let mut line = lock(&self.line);
        let room = if how == How::Force { wanted } else { count(line.room(wanted as u64)) };
        if room < wanted && (room == 0 || how == How::Whole) {
            let fails = line.blockers().any(|member| member.overflow == Overflow::Fail);
            return Offered { taken: 0, fails };
        }
        line.published += room as u64;
        if line.members.is_empty() {
            // Nobody reads: the events need not be stored.
            drop(line);
            events(room).take(room).for_each(drop);
            return Offered { taken: room, fails: false };
        }
        // Before the lock in the order of drops: after an unwinding iterator it takes the lock once more.
        let mut alarm = Alarm { shared: self, unwinds: true };
        let mut line = line;
        self.write(&mut line, room, &mut events(room));
        alarm.unwinds = false;
        if !line.sleepers.is_empty() {
            self.wake(line);
        }
        Offered { taken: room, fails: false }
    }

    /// Puts a subscriber down to be woken, or its newer waker. It must look once more before it sleeps.
    pub(crate) fn sleep(&self, ticket: Ticket, waker: &Waker) {
        let mut line = lock(&self.line);
        let place = line.sleepers.iter().position(|(known, _)| *known == ticket);
        let old = match place.map(|place| &mut line.sleepers[place].1) {
            Some(known) if known.will_wake(waker) => None,
            Some(known) => Some(std::mem::replace(known, waker.clone())),
            None => {
                line.sleepers.push((ticket, waker.clone()));
                None
            }
        };
        drop(line);
        // Outside: with the last waker of a task goes the task, and it may hold a subscriber.
        drop(old);
    }

    /// Wakes whoever sleeps, for no event of the ring.
    pub(crate) fn rouse(&self) {
        self.wake(lock(&self.line));
    }

    /// Takes a sleeper off, if it is still there.
    pub(crate) fn stay_awake(&self, ticket: Ticket) {
        let mut line = lock(&self.line);
        let place = line.sleepers.iter().position(|(known, _)| *known == ticket);
        let waker = place.map(|place| line.sleepers.swap_remove(place));
        drop(line);
        drop(waker);
    }

    /// Wakes whoever sleeps. No waker is called under the lock.
    #[cold]
    fn wake<'a>(&'a self, mut line: MutexGuard<'a, Line<T>>) {
        let mut woken: [Option<Waker>; AT_ONCE] = [const { None }; AT_ONCE];
        // Who falls asleep meanwhile has seen what was published.
        let mut left = line.sleepers.len();
        while left > 0 {
            let n = left.min(AT_ONCE).min(line.sleepers.len());
            for (slot, (_, waker)) in woken.iter_mut().zip(line.sleepers.drain(..n)) {
                *slot = Some(waker);
            }
            drop(line);
            woken.iter_mut().filter_map(Option::take).for_each(Waker::wake);
            left = if n == 0 { 0 } else { left - n };
            if left == 0 {
                return;
            }
            line = lock(&self.line);
        }
    }

    /// Writes events, page by page.
    fn write(&self, line: &mut Line<T>, mut left: usize, events: &mut impl Iterator<Item = T>) {
        while left > 0 {
            if line.writer.is_full() {
                self.turn(line);
            }
            let counted = Counted { shared: self, line };
            let written = counted.line.writer.extend(&mut events.take(left));
            if written == 0 {
                break;
            }
            left -= written;
        }
    }

    /// Opens the next page, in one that nobody reads any more if there is any.
    fn turn(&self, line: &mut Line<T>) {
        let base = line.head;
        let mut writer = None;
        for _ in 0..line.spares.len() {
            match Writer::reuse(line.spares.remove(0), base) {
                Ok(found) => {
                    writer = Some(found);
                    break;
                }
                Err(read) => line.spares.push(read),
            }
        }
        line.writer = writer.unwrap_or_else(|| Writer::new(base, self.page));
        let old = lock(&self.shelf[self.place(base)]).replace(line.writer.shelve());
        line.spares.extend(old);
        if line.spares.len() > SPARES {
            // Somebody still reads it, and drops it in the end.
            line.spares.remove(0);
        }
    }

    fn place(&self, seq: u64) -> usize {
        count(seq / self.page as u64) % self.shelf.len()
    }

    /// Finds the place of an event, or of the next one to be published.
    pub(crate) fn seat(&self, seq: u64) -> Seat<T> {
        let within = count(seq) % self.page;
        let base = seq - within as u64;
        match &*lock(&self.shelf[self.place(base)]) {
            Some(page) if page.base() == base => return Seat::Found(Reader::new(page, within)),
            Some(page) if page.base() > base => return Seat::Gone,
            Some(_) | None => {}
        }
        Seat::NotYet
    }

    /// Subscribes from the next event on.
    pub(crate) fn join(&self, overflow: Overflow, capacity: usize) -> (Arc<Member>, Ticket, Reader<T>) {
        let mut line = lock(&self.line);
        line.tickets += 1;
        let start = line.head;
        let member = Arc::new(Member {
            overflow,
            capacity: (capacity as u64).clamp(1, self.capacity),
            start,
            cursor: Padded(AtomicU64::new(start)),
            missed: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
        });
        line.members.push(Arc::clone(&member));
        line.measure();
        (member, Ticket(line.tickets), line.writer.end())
    }

    /// Lets publishers forget a subscriber.
    pub(crate) fn part(&self, member: &Arc<Member>) {
        {
            let mut line = lock(&self.line);
            let stats = member.stats(line.head);
            if let Some(place) = line.members.iter().position(|known| Arc::ptr_eq(known, member)) {
                line.members.swap_remove(place);
                line.gone = (line.gone.0 + stats.delivered, line.gone.1 + stats.missed);
            }
            line.measure();
        }
        self.room.wake();
    }

    /// Notes that a publisher has waited, and for whom.
    pub(crate) fn waited(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.blocked.fetch_add(nanos, Ordering::Relaxed);
        let line = lock(&self.line);
        // Whoever lets publishers go least far was waited for, and most likely still is.
        if let Some(slowest) =
            line.members.iter().filter(|member| member.gates()).min_by_key(|member| member.limit())
        {
            slowest.blocked.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Returns the events published, taken and missed, and the subscribers.
    pub(crate) fn totals(&self) -> (u64, u64, u64, u64) {
        let line = lock(&self.line);
        let all = line.members.iter().map(|member| member.stats(line.head));
        let (taken, missed) =
            all.fold(line.gone, |sum, stats| (sum.0 + stats.delivered, sum.1 + stats.missed));
        (line.published, taken, missed, line.members.len() as u64)
    }
}

/// How an offer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As much as there is room for.
    Part,
    /// All of it or nothing.
    Whole,
    /// All of it, whatever becomes of those who are slow.
    Force,
}

/// Where an event lies.
#[derive(Debug)]
pub(crate) enum Seat<T> {
    /// Here.
    Found(Reader<T>),
    /// Its page is not open yet.
    NotYet,
    /// Its page was filled again.
    Gone,
}

/// Keeps `head` in step with the writer, also when the iterator of the events unwinds.
struct Counted<'a, T> {
    shared: &'a Shared<T>,
    line: &'a mut Line<T>,
}

impl<T> Drop for Counted<'_, T> {
    fn drop(&mut self) {
        self.line.head = self.line.writer.head();
        // Release: whoever sees it sees the events and the page before it.
        self.shared.head.store(self.line.head, Ordering::Release);
    }
}

/// Wakes those who sleep when an iterator unwinds: what it gave before is published.
struct Alarm<'a, T> {
    shared: &'a Shared<T>,
    unwinds: bool,
}

impl<T> Drop for Alarm<'_, T> {
    fn drop(&mut self) {
        if self.unwinds {
            self.shared.rouse();
        }
    }
}

/// A number of events that are in memory.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
