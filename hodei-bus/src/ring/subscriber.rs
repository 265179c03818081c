//! Reading a ring.

use std::future::poll_fn;
use std::ops::Deref;
use std::task::{Context, Poll, ready};

use hodei_core::bus::{Overflow, SubscribeOptions, SubscriptionStats};
use tokio::task::coop::poll_proceed;

use super::shared::{Joined, Member, Seat, Shared};
use super::waiting::Ticket;
use crate::sync::{Arc, Ordering, pause, rounds};
use crate::sys::Reader;

/// From how many events between two looks that find nothing on a subscriber counts as busy.
const BUSY: u64 = 8;
/// How often one that was busy gives way to other tasks and looks again before it sleeps.
const PATIENCE: u32 = rounds(8);
/// Fewer events than this at a look say that it is close behind busy publishers.
const FEW: usize = 128;
/// From how many events on it need not pause before it looks again: others that had their turn have paused for it.
const MANY: u64 = 256;

/// Why a subscriber gets no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// So many events were missed here; it goes on behind them.
    Lagged(u64),
    /// It was too slow and was cut off after so many missed events; nothing follows.
    Disconnected(u64),
    /// Every [`Ring`](super::Ring) handle is gone and everything has been read.
    Closed,
}

/// One reader of a ring. Dropping it lets publishers go on without it.
#[derive(Debug)]
pub struct Subscriber<T: Send + Sync> {
    ring: Arc<Shared<T>>,
    member: Arc<Member>,
    reader: Reader<T>,
    /// The number of the next event.
    pos: u64,
    /// Where it was when it woke publishers last.
    told: u64,
    /// Where it stops, and why.
    stop: Option<Stop>,
    /// How many events it has taken, and how many of them were counted for all to see.
    taken: u64,
    counted: u64,
    /// The sum of the gaps that it was told of.
    gaps: u64,
    ticket: Ticket,
    asleep: bool,
    /// Where it was when it found nothing last.
    empty_at: u64,
    /// How often it still looks again before it sleeps.
    patience: u32,
    /// How many events its last look found; [`FEW`] stands for more as well.
    found: usize,
}

/// It reads up to here, and is told something.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    /// It was too slow, and goes on at a later event.
    Skip { to: u64 },
    /// It was too slow, and nothing follows.
    End,
    /// Others were missed here, which were never in the ring: up to this sum.
    Gap { total: u64 },
}

/// Events lent where they lie, oldest first. Those that were looked at by [`Batch::take`], or all when it was not called,
/// count as read once it is dropped.
#[derive(Debug)]
pub struct Batch<'a, T: Send + Sync> {
    of: &'a mut Subscriber<T>,
    len: usize,
}

/// What a look at the ring found.
enum Look {
    Ready,
    Empty,
    Missed(Missed),
}

impl<T: Send + Sync> Subscriber<T> {
    pub(crate) fn new(ring: Arc<Shared<T>>, options: &SubscribeOptions) -> Self {
        let Joined { member, ticket, reader, gaps } = ring.join(options.overflow, options.capacity);
        let pos = member.cursor.load(Ordering::Relaxed);
        Self {
            ring,
            member,
            reader,
            pos,
            told: pos,
            stop: None,
            taken: 0,
            counted: 0,
            gaps,
            ticket,
            asleep: false,
            empty_at: pos,
            patience: 0,
            found: FEW,
        }
    }

    /// Waits for events and lends up to `max` of those that lie together, at least one.
    ///
    /// # Errors
    ///
    /// What became of events that it does not get.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: events count as read when the batch is dropped.
    ///
    /// # Performance
    ///
    /// Nothing is copied or allocated; a batch ends with a page of the ring, 256 events at most.
    pub async fn recv_batch(&mut self, max: usize) -> Result<Batch<'_, T>, Missed> {
        poll_fn(|context| self.poll_ready(context)).await?;
        Ok(self.batch(max))
    }

    /// Lends what is there, as [`Subscriber::recv_batch`]; nothing when there is nothing.
    ///
    /// # Errors
    ///
    /// As [`Subscriber::recv_batch`].
    pub fn try_recv_batch(&mut self, max: usize) -> Result<Option<Batch<'_, T>>, Missed> {
        match self.look() {
            Look::Ready => Ok(Some(self.batch(max))),
            Look::Empty => {
                self.tell();
                Ok(None)
            }
            Look::Missed(missed) => Err(missed),
        }
    }

    /// Waits for the next event and copies it.
    ///
    /// # Errors
    ///
    /// As [`Subscriber::recv_batch`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is taken before it returns.
    pub async fn recv(&mut self) -> Result<T, Missed>
    where
        T: Clone,
    {
        if self.available() == 0 {
            poll_fn(|context| self.poll_ready(context)).await?;
        }
        let event = self.reader.window()[0].clone();
        self.advance(1);
        Ok(event)
    }

    /// Waits until there is something to take; then [`Subscriber::try_recv_batch`] returns it.
    ///
    /// # Errors
    ///
    /// As [`Subscriber::recv_batch`].
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Missed>> {
        // Who always finds events lets other tasks run as well.
        let turn = ready!(poll_proceed(context));
        self.keep_away();
        let mut look = self.look();
        if matches!(look, Look::Empty) && self.waits_awake() {
            look = self.look();
            if matches!(look, Look::Empty) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if matches!(look, Look::Empty) {
            self.tell();
            // Whoever is woken is taken off the list. Who finds something before stays on it: one wake-up too many costs less
            // than a lock for each that was needed.
            self.ring.sleep(self.ticket, context.waker());
            self.asleep = true;
            look = self.look();
        }
        if !matches!(look, Look::Empty) {
            turn.made_progress();
        }
        match look {
            Look::Empty => Poll::Pending,
            Look::Ready => Poll::Ready(Ok(())),
            Look::Missed(missed) => Poll::Ready(Err(missed)),
        }
    }

    /// Returns what it has done.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.member.stats(self.ring.head())
    }

    /// Lets busy publishers get ahead, and says whether to look again instead of falling asleep: to sleep would cost them a
    /// wake-up for every few events, and to look at once the cache line that they write to. One that has seen too little of
    /// late is to sleep.
    fn waits_awake(&mut self) -> bool {
        let found = self.pos - std::mem::replace(&mut self.empty_at, self.pos);
        self.patience = if found >= BUSY { PATIENCE } else { self.patience.saturating_sub(1) };
        if self.patience == 0 {
            return false;
        }
        self.tell();
        if found < MANY {
            pause();
        }
        true
    }

    /// Keeps at a distance from busy publishers before it looks again. Who follows on their heels finds one or two events at each
    /// look, and takes the cache lines from them that they write to: both get slower together, and stay so.
    pub(crate) fn keep_away(&mut self) {
        if self.available() == 0 && self.found < FEW && self.pos - self.empty_at >= BUSY {
            pause();
            self.found = FEW;
        }
    }

    #[inline]
    fn batch(&mut self, max: usize) -> Batch<'_, T> {
        let len = self.available().min(max.max(1));
        Batch { of: self, len }
    }

    /// How many events lie ready to be read, without a look at anything shared.
    #[inline]
    fn available(&self) -> usize {
        let ready = self.reader.ready();
        match self.stop {
            None => ready,
            Some(stop) => ready.min(usize::try_from(stop.at - self.pos).unwrap_or(usize::MAX)),
        }
    }

    #[inline]
    fn advance(&mut self, by: usize) {
        self.reader.advance(by);
        let before = self.pos;
        self.pos += by as u64;
        self.taken += by as u64;
        // Release: the reads come before whatever is written over what was read.
        self.member.cursor.store(self.pos, Ordering::Release);
        if self.pos - self.told >= self.member.capacity / 4 {
            self.tell();
        } else if self.ring.room.is_entered() && self.member.holds_up_from(before, self.ring.head()) {
            // It was full: somebody may wait for it, and not for another one.
            self.ring.room.wake_all();
        }
    }

    /// Wakes publishers that wait for what it has read, and counts it.
    fn tell(&mut self) {
        if self.told == self.pos {
            return;
        }
        self.told = self.pos;
        self.count();
        if self.member.gates() {
            self.ring.room.wake();
        }
    }

    fn count(&mut self) {
        self.ring.totals.taken(self.ticket.0, self.taken - self.counted);
        self.counted = self.taken;
    }

    /// Looks for events, falls behind if it must, and crosses pages.
    fn look(&mut self) -> Look {
        loop {
            if self.available() > 0 {
                return Look::Ready;
            }
            if let Some(stop) = self.stop.filter(|stop| stop.at == self.pos) {
                return Look::Missed(self.pass(stop));
            }
            // Before the pages: what was published before the end is seen after it.
            let closed = self.ring.is_closed();
            let mut head = self.reader.refresh();
            if self.reader.is_complete() {
                head = head.max(self.ring.head());
            }
            // After the pages: the gaps before what was found there are seen.
            if self.stop.is_none() && self.find_stop(head) {
                continue;
            }
            if self.available() > 0 {
                // The end of a page says nothing of how far publishers are.
                self.found = if self.reader.is_complete() { FEW } else { self.available() };
                return Look::Ready;
            }
            if self.reader.is_complete() {
                match self.ring.seat(self.pos) {
                    Seat::Found(reader) => {
                        self.reader = reader;
                        continue;
                    }
                    Seat::Gone => match self.stop {
                        Some(stop) => return Look::Missed(self.pass(stop)),
                        // The ring went round meanwhile: the next look finds it far behind.
                        None => continue,
                    },
                    Seat::NotYet => {}
                }
            }
            return if closed { Look::Missed(Missed::Closed) } else { Look::Empty };
        }
    }

    /// Finds out whether it has fallen behind by more than it may hold, or whether a gap was told. Says whether it is to look
    /// once more.
    fn find_stop(&mut self, head: u64) -> bool {
        let Member { capacity, overflow, .. } = *self.member;
        if self.ring.gaps() != self.gaps {
            let gap = self.ring.gap_behind(self.gaps);
            self.stop =
                gap.map(|gap| Stop { at: gap.at.max(self.pos), then: Then::Gap { total: gap.total } });
            return true;
        }
        if head.saturating_sub(self.pos) <= capacity {
            return false;
        }
        let to = match overflow {
            // It goes on at the oldest that it may hold: at once.
            Overflow::DropOldest => {
                self.stop = Some(Stop { at: self.pos, then: Then::Skip { to: head - capacity } });
                return true;
            }
            Overflow::Disconnect => Then::End,
            Overflow::Block | Overflow::Fail | Overflow::DropNewest => Then::Skip { to: head },
        };
        self.stop = Some(Stop { at: self.pos + capacity, then: to });
        true
    }

    /// Tells what was missed at a stop, and goes on behind it.
    fn pass(&mut self, stop: Stop) -> Missed {
        match stop.then {
            Then::Skip { mut to } => {
                self.stop = None;
                loop {
                    if let Some(missed) = self.jump(to) {
                        return Missed::Lagged(missed);
                    }
                    // The ring has gone round since: only what it holds now can be had.
                    let head = self.ring.head();
                    let keeps =
                        if self.member.overflow == Overflow::DropOldest { self.member.capacity } else { 0 };
                    to = (head - keeps).max(to);
                }
            }
            Then::End => {
                // It stays where it is, and says so again when it is asked again.
                self.stop = Some(Stop { at: self.pos, then: Then::End });
                let head = self.ring.head();
                let missed = head - self.pos;
                self.ring.totals.missed(missed - self.member.skipped.swap(missed, Ordering::Relaxed));
                // Nothing waits for it any more.
                self.member.cursor.store(head, Ordering::Release);
                Missed::Disconnected(missed)
            }
            Then::Gap { total } => {
                self.stop = None;
                let missed = total - self.gaps;
                self.gaps = total;
                self.member.gaps.fetch_add(missed, Ordering::Relaxed);
                self.ring.totals.missed(missed);
                Missed::Lagged(missed)
            }
        }
    }

    /// Goes to an event and returns how many lie between; nothing when that event is gone.
    fn jump(&mut self, to: u64) -> Option<u64> {
        self.reader = match self.ring.seat(to) {
            Seat::Found(reader) => reader,
            Seat::Gone => return None,
            // The page that begins there is not open: the end of the one before is the same place.
            Seat::NotYet => match self.ring.seat(to - 1) {
                Seat::Found(mut reader) => {
                    reader.refresh();
                    reader.advance(1);
                    reader
                }
                Seat::Gone | Seat::NotYet => return None,
            },
        };
        let missed = to - self.pos;
        self.pos = to;
        self.member.skipped.fetch_add(missed, Ordering::Relaxed);
        self.ring.totals.missed(missed);
        self.member.cursor.store(to, Ordering::Release);
        self.tell();
        Some(missed)
    }
}

impl<T: Send + Sync> Drop for Subscriber<T> {
    fn drop(&mut self) {
        if self.asleep {
            self.ring.stay_awake(self.ticket);
        }
        self.count();
        self.ring.part(&self.member);
    }
}

impl<T: Send + Sync> Batch<'_, T> {
    /// Counts only the first `n` events as read; the rest is lent again.
    pub fn take(mut self, n: usize) {
        self.len = self.len.min(n);
    }
}

impl<T: Send + Sync> Deref for Batch<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.of.reader.window()[..self.len]
    }
}

impl<T: Send + Sync> Drop for Batch<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.of.advance(self.len);
    }
}
