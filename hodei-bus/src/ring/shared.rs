//! What publishers and subscribers of a ring share.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use hodei_core::bus::{Overflow, SubscriptionStats};

use super::totals::{BUDGETED, Totals};
use super::waiting::{AT_ONCE, Blocker, Ticket, Waiting};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Padded, lock};
use crate::sys::{Reader, Shelved, Taken, Turn, Writer};

/// The most events of a page, and the fewest.
const PAGE_MAX: usize = 256;
const PAGE_MIN: usize = 8;
/// How many pages are kept for reuse at most.
const SPARES: usize = 4;
/// How many gaps are remembered apart; older ones are told together.
const GAPS: usize = 64;

/// The state of a ring.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    /// How many events have been published. Written under the lock of `line`, after the events.
    head: Padded<AtomicU64>,
    /// Whoever publishes stands here. A lock, held for a batch: it makes the order.
    line: Padded<Turn<Line<T>>>,
    /// Where readers find the pages: page n at n modulo their number. Held for the copy of a pointer.
    shelf: Box<[Mutex<Option<Shelved<T>>>]>,
    /// Publishers that wait for room.
    pub(crate) room: Waiting,
    closed: AtomicBool,
    /// How many events were missed before they reached the ring: the sum of all gaps. Written under the lock of `line`.
    gaps: AtomicU64,
    pub(crate) totals: Totals,
    page: usize,
    capacity: u64,
}

/// What the publisher whose turn it is may change.
#[derive(Debug)]
struct Line<T> {
    writer: Writer<T>,
    head: u64,
    /// Up to where every gate was seen to be open.
    limit: u64,
    members: Vec<Arc<Member>>,
    spares: Vec<Shelved<T>>,
    /// Subscribers that have read everything. Under the lock of the publishers: whoever falls asleep here has seen what was
    /// published before, and is seen by whoever publishes next.
    sleepers: Vec<(Ticket, Waker)>,
    tickets: u64,
    gaps: VecDeque<Gap>,
}

/// Events that were missed before they reached the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The number of the event behind it.
    pub(crate) at: u64,
    /// How many were missed here and before.
    pub(crate) total: u64,
}

/// A subscriber, for those who may have to wait for it.
pub(crate) type Membership = Arc<Member>;

/// What others may know of a subscriber.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) overflow: Overflow,
    pub(crate) capacity: u64,
    start: u64,
    /// Up to where it has read.
    pub(crate) cursor: Padded<AtomicU64>,
    /// How many events of the ring it has missed.
    pub(crate) skipped: AtomicU64,
    /// How many others it was told of that it missed.
    pub(crate) gaps: AtomicU64,
    /// Nanoseconds that publishers have waited for it.
    blocked: AtomicU64,
}

/// How much of an offer was taken. Nothing without a reason means that the iterator had less than it said.
#[derive(Debug)]
pub(crate) struct Offered<B> {
    pub(crate) taken: usize,
    /// Why nothing was.
    pub(crate) short: Option<Short<B>>,
}

/// Why an offer was not taken.
#[derive(Debug)]
pub(crate) enum Short<B> {
    /// Publishers wait for this one.
    Wait(B),
    /// Somebody makes publishers fail at once.
    Fail,
    /// Somebody asks for the queues of events of which they are not known.
    Ask,
}

impl<B> Short<B> {
    pub(crate) fn map<C>(self, into: impl FnOnce(B) -> C) -> Short<C> {
        match self {
            Self::Wait(blocker) => Short::Wait(into(blocker)),
            Self::Fail => Short::Fail,
            Self::Ask => Short::Ask,
        }
    }
}

impl<B> Offered<B> {
    pub(crate) const fn taken(taken: usize) -> Self {
        Self { taken, short: None }
    }

    pub(crate) fn map<C>(self, into: impl FnOnce(B) -> C) -> Offered<C> {
        Offered { taken: self.taken, short: self.short.map(|short| short.map(into)) }
    }
}

/// A subscriber of the ring that publishers wait for.
impl Blocker for Arc<Member> {
    fn charge(&self, time: Duration) {
        self.blocked.fetch_add(nanos(time), Ordering::Relaxed);
    }
}

impl Member {
    pub(crate) fn gates(&self) -> bool {
        matches!(self.overflow, Overflow::Block | Overflow::Fail)
    }

    /// Says whether it let publishers go no further while it was at `cursor`.
    pub(crate) fn holds_up_from(&self, cursor: u64, head: u64) -> bool {
        self.gates() && cursor + self.capacity <= head
    }

    /// Says whether it holds up what is published like this.
    fn holds_up(&self, how: How, head: u64) -> bool {
        match how {
            How::Part | How::Whole => self.gates(),
            // Who was waited for in vain and has not read its gap yet is not waited for again.
            How::Relay(_) => self.overflow == Overflow::Block && self.limit() >= head,
            How::Force => false,
        }
    }

    /// Up to where it lets publishers go.
    fn limit(&self) -> u64 {
        // Acquire: its reads of a page come before the writes of whoever fills the page again.
        self.cursor.load(Ordering::Acquire).saturating_add(self.capacity)
    }

    pub(crate) fn stats(&self, head: u64) -> SubscriptionStats {
        let skipped = self.skipped.load(Ordering::Relaxed);
        let cursor = self.cursor.load(Ordering::Relaxed);
        SubscriptionStats {
            delivered: (cursor - self.start).saturating_sub(skipped),
            missed: skipped + self.gaps.load(Ordering::Relaxed),
            depth: head.saturating_sub(cursor).min(self.capacity),
            blocked: Duration::from_nanos(self.blocked.load(Ordering::Relaxed)),
        }
    }
}

impl<T> Line<T> {
    /// Returns how many more events every gate lets through, at most `wanted`.
    #[inline]
    fn room(&mut self, wanted: u64, how: How) -> u64 {
        if self.limit.saturating_sub(self.head) >= wanted || how == How::Force {
            return wanted;
        }
        self.measure();
        let limit = if matches!(how, How::Relay(_)) { self.limit_of(how) } else { self.limit };
        limit.saturating_sub(self.head).min(wanted)
    }

    fn measure(&mut self) {
        self.limit = self.limit_of(How::Part);
    }

    fn limit_of(&self, how: How) -> u64 {
        let gates = self.members.iter().filter(|member| member.holds_up(how, self.head));
        gates.map(|member| member.limit()).min().unwrap_or(u64::MAX)
    }

    /// Finds out who keeps so many events from being published: somebody who makes publishers fail before anybody else.
    #[cold]
    fn short(&self, wanted: u64, how: How) -> Option<Short<Arc<Member>>> {
        let shut = |member: &&Arc<Member>| {
            member.holds_up(how, self.head) && member.limit() < self.head.saturating_add(wanted)
        };
        let mut shut = self.members.iter().filter(shut).peekable();
        let first = shut.peek().map(|member| Arc::clone(member));
        if shut.any(|member| member.overflow == Overflow::Fail) {
            return Some(Short::Fail);
        }
        first.map(Short::Wait)
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
            limit: u64::MAX,
            members: Vec::new(),
            spares: Vec::new(),
            sleepers: Vec::new(),
            tickets: 0,
            gaps: VecDeque::new(),
        };
        Self {
            head: Padded(AtomicU64::new(0)),
            line: Padded(Turn::new(line)),
            shelf,
            room: Waiting::default(),
            closed: AtomicBool::new(false),
            gaps: AtomicU64::new(0),
            totals: Totals::default(),
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
        self.wake(self.line.take());
    }

    /// Publishes as many of `wanted` events as there is room for, from an iterator that is made when that is known. An
    /// offer of which nothing is taken says why.
    pub(crate) fn offer<I: Iterator<Item = T>>(
        &self,
        wanted: usize,
        how: How,
        events: impl FnOnce(usize) -> I,
    ) -> Offered<Arc<Member>> {
        let mut line = self.line.take();
        let room = loop {
            let room = count(line.room(wanted as u64, how));
            if room == wanted || room > 0 && how != How::Whole {
                break room;
            }
            let needed = if how == How::Whole { wanted as u64 } else { 1 };
            // Else somebody has just read on.
            if let Some(short) = line.short(needed, how) {
                return Offered { taken: 0, short: Some(short) };
            }
        };
        if line.members.is_empty() {
            // Nobody reads: the events need not be stored.
            let dropped = events(room).take(room).map(drop).count();
            self.totals.unheard(dropped as u64);
            return Offered::taken(dropped);
        }
        // Before the lock in the order of drops: after an unwinding iterator it takes the lock once more.
        let mut alarm = Alarm { shared: self, unwinds: true };
        let mut line = line;
        let taken = self.write(&mut line, room, &mut events(room));
        alarm.unwinds = false;
        if !line.sleepers.is_empty() {
            self.wake(line);
        }
        Offered::taken(taken)
    }

    /// Publishes one event if there is room for it, and takes it out; else says why not.
    #[inline]
    pub(crate) fn offer_one(&self, event: &mut Option<T>) -> Option<Short<Arc<Member>>> {
        let mut line = self.line.take();
        while line.limit <= line.head {
            line.measure();
            if line.limit <= line.head
                && let Some(short) = line.short(1, How::Part)
            {
                return Some(short);
            }
        }
        if line.members.is_empty() {
            self.totals.unheard(1);
            drop(line);
            *event = None;
            return None;
        }
        if line.writer.is_full() {
            self.turn(&mut line);
        }
        if let Some(event) = event.take() {
            line.writer.push(event);
        }
        self.advance(&mut line);
        if !line.sleepers.is_empty() {
            self.wake(line);
        }
        None
    }

    /// Says whether a publisher that always finds room is to take from the budget of its task, so that other tasks run now and
    /// then. Only before something is published, so that who is dropped meanwhile has published nothing.
    #[inline]
    pub(crate) fn gives_way(&self) -> bool {
        self.totals.published(self.head.load(Ordering::Relaxed)).is_multiple_of(BUDGETED)
    }

    /// Brings the head up to the writer.
    #[inline]
    fn advance(&self, line: &mut Line<T>) {
        let head = line.writer.head();
        line.head = head;
        // Release: whoever sees it sees the events and the page before it.
        self.head.store(head, Ordering::Release);
    }

    /// Tells every subscriber that so many events were missed here, before they could be published.
    pub(crate) fn gap(&self, missed: u64) {
        let mut line = self.line.take();
        let total = self.gaps.load(Ordering::Relaxed) + missed;
        let at = line.head;
        match line.gaps.back_mut() {
            Some(last) if last.at == at => last.total = total,
            _ => line.gaps.push_back(Gap { at, total }),
        }
        if line.gaps.len() > GAPS {
            line.gaps.pop_front();
        }
        // Release, and before the events that follow: who sees one of those sees this.
        self.gaps.store(total, Ordering::Release);
        self.wake(line);
    }

    /// Returns how many events were missed in all gaps.
    #[inline]
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Acquire)
    }

    /// Returns the first gap behind those that made up a sum.
    pub(crate) fn gap_behind(&self, known: u64) -> Option<Gap> {
        self.line.take().gaps.iter().find(|gap| gap.total > known).copied()
    }

    /// Puts a subscriber down to be woken, or its newer waker. It must look once more before it sleeps.
    pub(crate) fn sleep(&self, ticket: Ticket, waker: &Waker) {
        let mut line = self.line.take();
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

    /// Wakes whoever sleeps.
    fn rouse(&self) {
        self.wake(self.line.take());
    }

    /// Takes a sleeper off, if it is still there.
    pub(crate) fn stay_awake(&self, ticket: Ticket) {
        let mut line = self.line.take();
        let place = line.sleepers.iter().position(|(known, _)| *known == ticket);
        let waker = place.map(|place| line.sleepers.swap_remove(place));
        drop(line);
        drop(waker);
    }

    /// Wakes whoever sleeps. No waker is called under the lock.
    #[cold]
    fn wake<'a>(&'a self, mut line: Taken<'a, Line<T>>) {
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
            line = self.line.take();
        }
    }

    /// Writes events, page by page, and returns how many there were.
    fn write(&self, line: &mut Line<T>, wanted: usize, events: &mut impl Iterator<Item = T>) -> usize {
        let mut left = wanted;
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
        wanted - left
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
    pub(crate) fn join(&self, overflow: Overflow, capacity: usize) -> Joined<T> {
        let mut line = self.line.take();
        line.tickets += 1;
        let start = line.head;
        let member = Arc::new(Member {
            overflow,
            capacity: (capacity as u64).clamp(1, self.capacity),
            start,
            cursor: Padded(AtomicU64::new(start)),
            skipped: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
        });
        line.members.push(Arc::clone(&member));
        self.totals.joined();
        line.measure();
        let gaps = self.gaps.load(Ordering::Relaxed);
        Joined { member, ticket: Ticket(line.tickets), reader: line.writer.end(), gaps }
    }

    /// Lets publishers forget a subscriber.
    pub(crate) fn part(&self, member: &Arc<Member>) {
        {
            let mut line = self.line.take();
            if let Some(place) = line.members.iter().position(|known| Arc::ptr_eq(known, member)) {
                line.members.swap_remove(place);
                self.totals.parted();
            }
            line.measure();
        }
        self.room.wake();
    }

    /// Returns up to where every subscriber has read.
    #[cfg(feature = "nats")]
    pub(crate) fn taken(&self) -> u64 {
        let line = self.line.take();
        let cursors = line.members.iter().map(|member| member.cursor.load(Ordering::Acquire));
        cursors.min().unwrap_or(u64::MAX)
    }

    /// Returns what is known of every subscriber.
    pub(crate) fn members(&self) -> Vec<(Arc<Member>, SubscriptionStats)> {
        let members = self.line.take().members.clone();
        let head = self.head();
        members.into_iter().map(|member| (Arc::clone(&member), member.stats(head))).collect()
    }
}

/// What a new subscriber gets.
pub(crate) struct Joined<T> {
    pub(crate) member: Arc<Member>,
    pub(crate) ticket: Ticket,
    pub(crate) reader: Reader<T>,
    /// The sum of the gaps before it came.
    pub(crate) gaps: u64,
}

/// Whether events know the queues of their jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    Known,
    Unknown,
}

/// How an offer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As much as there is room for.
    Part,
    /// All of it or nothing.
    Whole,
    /// As much as there is room for; those who make publishers fail get a gap instead.
    Relay(Queues),
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
        self.shared.advance(self.line);
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

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A number of events that are in memory.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
