//! Reading a ring.

use std::future::poll_fn;
use std::ops::Deref;
use std::task::{Context, Poll};

use hodei_core::bus::{Overflow, SubscribeOptions, SubscriptionStats};

use super::shared::{Member, Seat, Shared};
use super::waiting::Ticket;
use crate::sync::{Arc, Ordering};
use crate::sys::Reader;

/// From how many events between two sleeps on a subscriber counts as busy.
const BUSY: u64 = 8;
/// How often a busy subscriber relaxes the processor before it sleeps: some microseconds.
const PAUSE: u32 = 64;

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
    /// The position that publishers know of.
    told: u64,
    /// Where it stops because it was too slow.
    cut: Option<Cut>,
    ticket: Ticket,
    asleep: bool,
    /// Where it was when it fell asleep last.
    slept_at: u64,
}

/// The events kept for a subscriber that was too slow end here.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: u64,
    /// Where it goes on; nowhere when it is disconnected.
    resume: Option<u64>,
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
        let (member, ticket, reader) = ring.join(options.overflow, options.capacity);
        let pos = member.cursor.load(Ordering::Relaxed);
        Self { ring, member, reader, pos, told: pos, cut: None, ticket, asleep: false, slept_at: pos }
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
        let mut look = self.look();
        if matches!(look, Look::Empty) && self.pos - self.slept_at >= BUSY {
            // It keeps up with busy publishers: let them get ahead, without a look at what they write to. To sleep would cost
            // them a wake-up for every few events.
            self.tell();
            (0..PAUSE).for_each(|_| std::hint::spin_loop());
            look = self.look();
        }
        if matches!(look, Look::Empty) {
            self.tell();
            // Whoever is woken is taken off the list. Who finds something before stays on it: one wake-up too many costs less
            // than a lock for each that was needed.
            self.ring.sleep(self.ticket, context.waker());
            self.asleep = true;
            self.slept_at = self.pos;
            look = self.look();
        }
        match look {
            Look::Empty => Poll::Pending,
            Look::Ready => Poll::Ready(Ok(())),
            Look::Missed(missed) => Poll::Ready(Err(missed)),
        }
    }

    /// Returns what it has done. What it has taken is told in steps of a quarter of its capacity, and when it has taken
    /// everything.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.member.stats(self.ring.head())
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
        match self.cut {
            None => ready,
            Some(cut) => ready.min(usize::try_from(cut.at - self.pos).unwrap_or(usize::MAX)),
        }
    }

    #[inline]
    fn advance(&mut self, by: usize) {
        self.reader.advance(by);
        self.pos += by as u64;
        // In steps: each one lets publishers that wait run for a while.
        if self.pos - self.told >= (self.member.capacity / 4).max(1) {
            self.tell();
        }
    }

    /// Tells publishers how far it has read.
    fn tell(&mut self) {
        if self.told == self.pos {
            return;
        }
        self.told = self.pos;
        // Release: the reads come before whatever is written over what was read.
        self.member.cursor.store(self.pos, Ordering::Release);
        if self.member.gates() {
            self.ring.room.wake();
        }
    }

    /// Looks for events, falls behind if it must, and crosses pages.
    fn look(&mut self) -> Look {
        loop {
            if self.available() > 0 {
                return Look::Ready;
            }
            if let Some(cut) = self.cut.filter(|cut| cut.at == self.pos) {
                return Look::Missed(self.resume(cut));
            }
            // Before the pages: what was published before the end is seen after it.
            let closed = self.ring.is_closed();
            let mut head = self.reader.refresh();
            if self.reader.is_complete() {
                head = head.max(self.ring.head());
            }
            if self.cut.is_none() && head.saturating_sub(self.pos) > self.member.capacity {
                if let Some(missed) = self.fall_behind(head) {
                    return Look::Missed(missed);
                }
                continue;
            }
            if self.available() > 0 {
                return Look::Ready;
            }
            if self.reader.is_complete() {
                match self.ring.seat(self.pos) {
                    Seat::Found(reader) => {
                        self.reader = reader;
                        continue;
                    }
                    Seat::Gone => match self.cut {
                        Some(cut) => return Look::Missed(self.resume(cut)),
                        // The ring went round meanwhile: the next look finds it far behind.
                        None => continue,
                    },
                    Seat::NotYet => {}
                }
            }
            return if closed { Look::Missed(Missed::Closed) } else { Look::Empty };
        }
    }

    /// More waits than it may hold: skips the oldest, or decides to stop before the
    /// newest.
    fn fall_behind(&mut self, head: u64) -> Option<Missed> {
        let capacity = self.member.capacity;
        match self.member.overflow {
            Overflow::DropOldest => return self.jump(head - capacity).map(Missed::Lagged),
            Overflow::Disconnect => self.cut = Some(Cut { at: self.pos + capacity, resume: None }),
            Overflow::Block | Overflow::Fail | Overflow::DropNewest => {
                self.cut = Some(Cut { at: self.pos + capacity, resume: Some(head) });
            }
        }
        None
    }

    /// Goes on after a cut.
    fn resume(&mut self, cut: Cut) -> Missed {
        let Some(resume) = cut.resume else {
            // It stays where it is, and says so again when it is asked again.
            self.cut = Some(Cut { at: self.pos, resume: None });
            let missed = self.ring.head() - self.pos;
            self.member.missed.store(missed, Ordering::Relaxed);
            return Missed::Disconnected(missed);
        };
        self.cut = None;
        let mut to = resume;
        loop {
            if let Some(missed) = self.jump(to) {
                return Missed::Lagged(missed);
            }
            // The ring has gone round since: only what it holds now can be had.
            to = self.ring.head();
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
        self.member.missed.fetch_add(missed, Ordering::Relaxed);
        self.tell();
        Some(missed)
    }
}

impl<T: Send + Sync> Drop for Subscriber<T> {
    fn drop(&mut self) {
        if self.asleep {
            self.ring.stay_awake(self.ticket);
        }
        // Counted by whoever removes it.
        self.member.cursor.store(self.pos, Ordering::Release);
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
