//! The bus: one ring for those who hear everything, a mailbox for each who hears some of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hodei_core::bus::{BusStats, EventBus, EventFilter, SubscribeOptions, Subscription};
use hodei_core::event::{Event, Keys};
use hodei_core::store::Change;
use hodei_core::{Error, ErrorKind, Result};

use crate::mailbox::{Mailbox, Taken};
use crate::ring::{self, How, Offered, Ring, Waiting};
use crate::subscriber::Subscriber;
use crate::topic::{Slot, Topics};

/// An event bus within one process. Cloning shares it.
///
/// Subscribers that hear everything read one shared ring; a subscriber with a filter, or with a capacity above that of the
/// ring, has a queue of its own, which publishers find by what an event is.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Shared>);

/// What the bus and its subscribers share.
#[derive(Debug)]
pub(crate) struct Shared {
    ring: Ring<Event>,
    /// How many mailboxes there are: without any, publishers lock the ring alone.
    boxes: AtomicUsize,
    /// A std mutex over all mailboxes, held for a batch: it keeps the order of each publisher.
    post: Mutex<Office>,
    /// Events taken out of mailboxes.
    taken: AtomicU64,
}

#[derive(Debug, Default)]
struct Office {
    topics: Topics,
    /// Which event of the batch under way goes to whom; kept for its memory.
    routes: Vec<(usize, Slot)>,
    /// Whom it wakes; kept for its memory.
    woken: Vec<Waker>,
    /// Who was full last.
    full: Option<Slot>,
    missed: u64,
    blocked: Duration,
}

/// Something that carries an event, and what filters look at.
pub(crate) trait Post: Sync {
    fn keys(&self) -> Keys<'_>;
    fn event(&self) -> Event;
}

impl Post for Event {
    fn keys(&self) -> Keys<'_> {
        self.keys()
    }

    fn event(&self) -> Event {
        self.clone()
    }
}

impl Post for Change {
    fn keys(&self) -> Keys<'_> {
        self.keys()
    }

    fn event(&self) -> Event {
        Event::from(self)
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus {
    /// How many events the ring of [`Bus::new`] holds.
    pub const CAPACITY: usize = 8_192;

    /// Makes a bus whose ring holds [`Bus::CAPACITY`] events.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// Makes a bus whose ring holds so many events, of 64 bytes each. Memory is taken as it is filled, and kept.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            ring: Ring::new(capacity),
            boxes: AtomicUsize::new(0),
            post: Mutex::default(),
            taken: AtomicU64::new(0),
        }))
    }

    /// Subscribes to everything, and reads events where they lie instead of copying them.
    #[must_use]
    pub fn firehose(&self, options: SubscribeOptions) -> ring::Subscriber<Event> {
        self.0.ring.subscribe(options)
    }

    /// Publishes one event, and waits for as long as blocking subscribers are full.
    ///
    /// # Errors
    ///
    /// `Full` when a subscriber that makes publishers fail is full.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: when dropped, the event was not published.
    pub async fn publish_one(&self, event: Event) -> Result<()> {
        let mut rest = vec![event];
        let (fails, waited) = self.0.room().until(|| self.0.attempt(&mut rest)).await;
        self.0.waited(waited);
        if fails { Err(full("bus.publish", rest.len())) } else { Ok(()) }
    }

    /// Publishes in order, and waits for blocking subscribers for as long as it takes; who makes publishers fail gets a gap.
    pub(crate) async fn relay<P: Post>(&self, posts: &[P]) {
        let mut done = 0;
        let attempt = || {
            while done < posts.len() {
                let rest = &posts[done..];
                let offered = self.0.offer(rest, How::Part, |n| rest[..n].iter().map(Post::event));
                if offered.fails {
                    self.0.force(rest);
                    return Some(());
                }
                if offered.taken == 0 {
                    return None;
                }
                done += offered.taken;
            }
            Some(())
        };
        let ((), waited) = self.0.room().until(attempt).await;
        self.0.waited(waited);
    }

    /// Wakes every subscriber, for something that is not on the bus.
    #[cfg(feature = "nats")]
    pub(crate) fn rouse(&self) {
        self.0.ring.shared().rouse();
        let mailboxes: Vec<Arc<Mailbox>> = self.0.post().topics.mailboxes().map(Arc::clone).collect();
        mailboxes.iter().for_each(|mailbox| mailbox.rouse());
    }

    /// Says whether some subscriber asks for a queue.
    pub(crate) fn filters_queues(&self) -> bool {
        self.0.boxes.load(Ordering::Acquire) != 0 && self.0.post().topics.filters_queues()
    }
}

impl Shared {
    /// Publishers that wait for a reader of the ring or of a mailbox.
    fn room(&self) -> &Waiting {
        &self.ring.shared().room
    }

    fn post(&self) -> MutexGuard<'_, Office> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings events to mailboxes and the ring, as many as there is room for. `events` hands over the first n.
    fn offer<P: Post, I: Iterator<Item = Event>>(
        &self,
        source: &[P],
        how: How,
        events: impl FnOnce(usize) -> I,
    ) -> Offered {
        // Acquire: whoever subscribed before is seen.
        if self.boxes.load(Ordering::Acquire) == 0 {
            return self.ring.shared().offer(source.len(), how, events);
        }
        let mut post = self.post();
        let (wanted, fails) = post.plan(source, how);
        if wanted < source.len() && (wanted == 0 || how == How::Whole) {
            return Offered { taken: 0, fails };
        }
        // The ring may take less; who it takes is known under its lock, before the events go there.
        let mut woken = std::mem::take(&mut post.woken);
        let offered = self.ring.shared().offer(wanted, how, |taken| {
            post.deliver(source, taken, &mut woken);
            events(taken)
        });
        // Under the lock of the mailboxes, but not under that of the ring.
        woken.drain(..).for_each(Waker::wake);
        post.woken = woken;
        offered
    }

    /// Publishes the front of `rest` as long as there is room; returns whether somebody makes publishers fail, once it is
    /// done.
    fn attempt(&self, rest: &mut Vec<Event>) -> Option<bool> {
        while !rest.is_empty() {
            let offered = self.offer_front(rest);
            if offered.fails {
                return Some(true);
            }
            if offered.taken == 0 {
                return None;
            }
        }
        Some(false)
    }

    fn offer_front(&self, rest: &mut Vec<Event>) -> Offered {
        // Mailboxes need copies before the ring takes the events; without any, nothing is copied.
        if self.boxes.load(Ordering::Acquire) == 0 {
            return self.ring.shared().offer(rest.len(), How::Part, |n| rest.drain(..n));
        }
        let all = rest.as_slice();
        let offered = self.offer(all, How::Part, |n| all[..n].iter().cloned());
        rest.drain(..offered.taken);
        offered
    }

    fn force<P: Post>(&self, source: &[P]) {
        self.offer(source, How::Force, |n| source[..n].iter().map(Post::event));
    }

    fn waited(&self, time: Option<Duration>) {
        let Some(time) = time else { return };
        let mut post = self.post();
        post.blocked += time;
        match post.full.take().and_then(|slot| post.topics.get_mut(slot)) {
            Some(topic) => topic.mailbox.blocked(time),
            None => self.ring.shared().waited(time),
        }
    }

    /// Counts what a subscriber took, and lets publishers go on.
    pub(crate) fn took(&self, taken: Taken) {
        self.taken.fetch_add(taken.events as u64, Ordering::Relaxed);
        if taken.freed {
            self.room().wake();
        }
    }

    /// Forgets a subscriber.
    pub(crate) fn part(&self, slot: Slot) {
        let topic = self.post().topics.remove(slot);
        if topic.is_some() {
            self.boxes.fetch_sub(1, Ordering::Release);
        }
        // Its events are dropped outside the lock; publishers that waited for it go on.
        drop(topic);
        self.room().wake();
    }
}

impl Office {
    /// Finds out who wants what, and how many events from the front everybody has room for.
    fn plan<P: Post>(&mut self, source: &[P], how: How) -> (usize, bool) {
        self.routes.clear();
        let Self { topics, routes, .. } = self;
        for (index, post) in source.iter().enumerate() {
            topics.wanting(&post.keys(), |slot| routes.push((index, slot)));
        }
        if how == How::Force {
            return (source.len(), false);
        }
        let (mut fitting, mut fails) = (source.len(), false);
        for (index, slot) in &self.routes {
            let Some(topic) = self.topics.get_mut(*slot) else { continue };
            topic.planned += 1;
            if topic.planned > topic.mailbox.room() {
                (fitting, fails) = (*index, topic.mailbox.makes_fail());
                self.full = Some(*slot);
                break;
            }
        }
        for (_, slot) in &self.routes {
            self.topics.get_mut(*slot).into_iter().for_each(|topic| topic.planned = 0);
        }
        (fitting, fails)
    }

    /// Brings the first `n` events to those who want them.
    fn deliver<P: Post>(&mut self, source: &[P], n: usize, woken: &mut Vec<Waker>) {
        for (index, slot) in self.routes.iter().take_while(|(index, _)| *index < n) {
            if let Some(topic) = self.topics.get_mut(*slot) {
                let (missed, waker) = topic.mailbox.push(source[*index].event());
                self.missed += missed;
                woken.extend(waker);
            }
        }
    }
}

fn full(op: &'static str, unpublished: usize) -> Error {
    Error::new(ErrorKind::Full, op).with("unpublished", unpublished)
}

#[async_trait]
impl EventBus for Bus {
    async fn publish(&self, mut events: Vec<Event>, wait: Duration) -> Result<()> {
        self.publish_from(&mut events, wait).await
    }

    async fn publish_from(&self, events: &mut Vec<Event>, wait: Duration) -> Result<()> {
        let mut fails = self.0.attempt(events);
        if fails.is_none() {
            let since = Instant::now();
            let room = self.0.room().until(|| self.0.attempt(events));
            fails = tokio::time::timeout(wait, room).await.ok().map(|(fails, _)| fails);
            self.0.waited(Some(since.elapsed()));
        }
        match fails {
            Some(false) => Ok(()),
            Some(true) => Err(full("bus.publish", events.len())),
            None => Err(Error::new(ErrorKind::Timeout, "bus.publish").with("unpublished", events.len())),
        }
    }

    fn try_publish(&self, events: &[Event]) -> Result<()> {
        let offered = self.0.offer(events, How::Whole, |n| events[..n].iter().cloned());
        if offered.taken == events.len() { Ok(()) } else { Err(full("bus.try_publish", events.len())) }
    }

    fn publish_or_gap(&self, events: &[Event]) {
        self.0.force(events);
    }

    fn publish_changes(&self, changes: &[Change]) {
        self.0.force(changes);
    }

    fn subscribe(&self, filter: EventFilter, options: SubscribeOptions) -> Box<dyn Subscription> {
        if filter.is_all() && options.capacity as u64 <= self.0.ring.shared().capacity() {
            return Box::new(Subscriber::on_ring(self.firehose(options)));
        }
        let mailbox = Mailbox::new(options.overflow, options.capacity);
        let mut post = self.0.post();
        let slot = post.topics.insert(filter, Arc::clone(&mailbox));
        // Under the lock: whoever publishes next either sees it or has published before.
        self.0.boxes.fetch_add(1, Ordering::Release);
        drop(post);
        Box::new(Subscriber::with_mailbox(slot, mailbox, Arc::downgrade(&self.0)))
    }

    /// # Performance
    ///
    /// O(subscribers that hear everything).
    fn stats(&self) -> BusStats {
        let post = self.0.post();
        let (published, delivered, missed, subscribers) = self.0.ring.shared().totals();
        BusStats {
            published,
            delivered: delivered + self.0.taken.load(Ordering::Relaxed),
            missed: missed + post.missed,
            subscribers: subscribers + post.topics.len() as u64,
            blocked: post.blocked,
        }
    }
}
