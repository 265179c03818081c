//! The bus: one ring for those who hear everything, a mailbox for each who hears some of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::bus::{BusStats, EventBus, EventFilter, SubscribeOptions, Subscription, SubscriptionStats};
use hodei_core::event::{Event, Keys};
use hodei_core::store::Change;
use hodei_core::{Error, ErrorKind, Result};
use tokio::task::coop::consume_budget;

use crate::mailbox::{Mailbox, Taken};
use crate::ring::{self, Blocker, How, Offered, Queues, Ring, Short, Waiting, nanos};
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
    /// Events taken out of mailboxes, and missed by them.
    taken: AtomicU64,
    missed: AtomicU64,
    /// Nanoseconds that publishers have waited.
    blocked: AtomicU64,
}

#[derive(Debug, Default)]
struct Office {
    topics: Topics,
    /// Which event of the batch under way goes to whom; kept for its memory.
    routes: Vec<(usize, Slot)>,
    /// Whom it wakes; kept for its memory.
    woken: Vec<Waker>,
    /// How many events were looked at for mailboxes.
    brought: u64,
}

/// How many routes and wakers are kept for their memory at most.
const KEPT: usize = 1 << 16;

/// Whom publishers wait for.
#[derive(Debug)]
struct Slow {
    bus: Arc<Shared>,
    who: Who,
}

#[derive(Debug)]
enum Who {
    Reader(ring::Membership),
    Mailbox(Arc<Mailbox>),
}

impl Blocker for Slow {
    fn charge(&self, time: Duration) {
        self.bus.blocked.fetch_add(nanos(time), Ordering::Relaxed);
        match &self.who {
            Who::Reader(member) => member.charge(time),
            Who::Mailbox(mailbox) => mailbox.blocked(time),
        }
    }
}

/// What a subscriber of a bus is like, and what it has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// How it subscribed.
    pub options: SubscribeOptions,
    /// Whether it has a filter or a queue of its own.
    pub filtered: bool,
    /// What it has done so far.
    pub stats: SubscriptionStats,
}

/// How far something is on a bus: among the events of the ring, and among those of mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(feature = "nats")]
pub(crate) struct Mark {
    ring: u64,
    boxes: u64,
}

#[cfg(feature = "nats")]
impl Mark {
    /// Says whether it is no further than another.
    pub(crate) const fn is_within(&self, other: &Self) -> bool {
        self.ring <= other.ring && self.boxes <= other.boxes
    }
}

/// How far a relay came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) done: usize,
    /// Somebody asks for queues, which are not known of the next events.
    pub(crate) asks: bool,
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
            missed: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
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
        if self.0.ring.shared().gives_way() {
            consume_budget().await;
        }
        let mut event = Some(event);
        let attempt = || match self.0.offer_one(&mut event) {
            Some(Short::Wait(slow)) => Err(slow),
            Some(Short::Fail | Short::Ask) | None => Ok(()),
        };
        self.0.room().until(attempt).await;
        if event.is_some() { Err(full("bus.publish", 1)) } else { Ok(()) }
    }

    /// Lists the subscribers that there are now, those that hear everything first.
    ///
    /// # Performance
    ///
    /// O(subscribers). Publishers wait while the list is copied.
    #[must_use]
    pub fn subscribers(&self) -> Vec<Listed> {
        let readers = self.0.ring.shared().members().into_iter().map(|(member, stats)| {
            let capacity = usize::try_from(member.capacity).unwrap_or(usize::MAX);
            let options = SubscribeOptions { overflow: member.overflow, capacity };
            Listed { options, filtered: false, stats }
        });
        let mailboxes: Vec<Arc<Mailbox>> = self.0.post().topics.mailboxes().map(Arc::clone).collect();
        let boxed = mailboxes.iter().map(|mailbox| Listed {
            options: mailbox.options(),
            filtered: true,
            stats: mailbox.stats(),
        });
        readers.chain(boxed).collect()
    }

    /// Publishes in order and waits for blocking subscribers, no longer than `wait` altogether: then they get a gap, as those
    /// who make publishers fail get at once. Stops before events whose queue is not known when somebody asks for it.
    pub(crate) async fn relay<P: Post>(&self, posts: &[P], queues: Queues, wait: Duration) -> Relayed {
        let mut relayed = Relayed { done: 0, asks: false };
        let attempt = || {
            while relayed.done < posts.len() {
                let rest = &posts[relayed.done..];
                let offered = self.0.offer(rest, How::Relay(queues), |n| rest[..n].iter().map(Post::event));
                relayed.done += offered.taken;
                match offered.short {
                    Some(Short::Wait(slow)) => return Err(slow),
                    Some(Short::Ask) => {
                        relayed.asks = true;
                        break;
                    }
                    Some(Short::Fail) | None => {}
                }
            }
            Ok(())
        };
        let in_time = tokio::time::timeout(wait, self.0.room().until(attempt)).await;
        if in_time.is_err() {
            self.0.force(&posts[relayed.done..]);
            relayed.done = posts.len();
        }
        relayed
    }

    /// Tells every subscriber that so many events were missed here, before they reached this bus.
    pub(crate) fn gap(&self, missed: u64) {
        if missed == 0 {
            return;
        }
        self.0.ring.shared().gap(missed);
        let (number, mailboxes) = {
            let post = self.0.post();
            (post.brought, post.topics.mailboxes().map(Arc::clone).collect::<Vec<_>>())
        };
        self.0.missed.fetch_add(missed * mailboxes.len() as u64, Ordering::Relaxed);
        // Outside the lock: a waker may run the task, or drop it.
        mailboxes.iter().filter_map(|mailbox| mailbox.gap(number, missed)).for_each(Waker::wake);
    }

    /// Returns up to where events are published.
    #[cfg(feature = "nats")]
    pub(crate) fn mark(&self) -> Mark {
        Mark { boxes: self.0.post().brought, ring: self.0.ring.shared().head() }
    }

    /// Returns up to where every subscriber has taken them.
    #[cfg(feature = "nats")]
    pub(crate) fn taken(&self) -> Mark {
        let ring = self.0.ring.shared().taken();
        let post = self.0.post();
        let oldest = post.topics.mailboxes().filter_map(|mailbox| mailbox.oldest());
        Mark { boxes: oldest.min().unwrap_or(u64::MAX), ring }
    }
}

impl Shared {
    /// Publishers that wait for a reader of the ring or of a mailbox.
    fn room(&self) -> &Waiting {
        &self.ring.shared().room
    }

    /// Says whether nobody has a mailbox. Acquire: whoever subscribed before is seen.
    fn no_boxes(&self) -> bool {
        self.boxes.load(Ordering::Acquire) == 0
    }

    fn slow_reader(self: &Arc<Self>, member: ring::Membership) -> Slow {
        Slow { bus: Arc::clone(self), who: Who::Reader(member) }
    }

    fn post(&self) -> MutexGuard<'_, Office> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings events to mailboxes and the ring, as many as there is room for. `events` hands over the first n.
    fn offer<P: Post, I: Iterator<Item = Event>>(
        self: &Arc<Self>,
        source: &[P],
        how: How,
        events: impl FnOnce(usize) -> I,
    ) -> Offered<Slow> {
        let slow = |member| self.slow_reader(member);
        if self.no_boxes() {
            return self.ring.shared().offer(source.len(), how, events).map(slow);
        }
        let mut post = self.post();
        let (wanted, short) = post.plan(source, how);
        if wanted < source.len() && (wanted == 0 || how == How::Whole) {
            let slow = |mailbox| Slow { bus: Arc::clone(self), who: Who::Mailbox(mailbox) };
            return Offered { taken: 0, short }.map(slow);
        }
        // The ring may take less; who it takes is known under its lock, before the events go there.
        let mut woken = std::mem::take(&mut post.woken);
        let offered = self.ring.shared().offer(wanted, how, |taken| {
            self.missed.fetch_add(post.deliver(source, taken, &mut woken), Ordering::Relaxed);
            events(taken)
        });
        post.routes.shrink_to(KEPT);
        drop(post);
        // Outside the locks: a waker may run the task, or drop it, and that may come back here.
        if !woken.is_empty() {
            woken.drain(..).for_each(Waker::wake);
            woken.shrink_to(KEPT);
        }
        let mut post = self.post();
        if post.woken.capacity() < woken.capacity() {
            post.woken = woken;
        }
        drop(post);
        offered.map(slow)
    }

    /// Publishes one event if there is room for it, and takes it out; else says why not.
    fn offer_one(self: &Arc<Self>, event: &mut Option<Event>) -> Option<Short<Slow>> {
        if self.no_boxes() {
            let short = self.ring.shared().offer_one(event);
            return short.map(|short| short.map(|member| self.slow_reader(member)));
        }
        let one = event.as_slice();
        let short = self.offer(one, How::Part, |n| one[..n].iter().cloned()).short;
        if short.is_none() {
            *event = None;
        }
        short
    }

    /// Publishes the front of `rest` as long as there is room; returns whether somebody makes publishers fail, once it is
    /// done.
    fn attempt(self: &Arc<Self>, rest: &mut Vec<Event>) -> Result<bool, Slow> {
        while !rest.is_empty() {
            match self.offer_front(rest).short {
                Some(Short::Wait(slow)) => return Err(slow),
                Some(Short::Fail | Short::Ask) => return Ok(true),
                None => {}
            }
        }
        Ok(false)
    }

    fn offer_front(self: &Arc<Self>, rest: &mut Vec<Event>) -> Offered<Slow> {
        // Mailboxes need copies before the ring takes the events; without any, nothing is copied.
        if self.no_boxes() {
            let offered = self.ring.shared().offer(rest.len(), How::Part, |n| rest.drain(..n));
            return offered.map(|member| self.slow_reader(member));
        }
        let all = rest.as_slice();
        let offered = self.offer(all, How::Part, |n| all[..n].iter().cloned());
        rest.drain(..offered.taken);
        offered
    }

    fn force<P: Post>(self: &Arc<Self>, source: &[P]) {
        self.offer(source, How::Force, |n| source[..n].iter().map(Post::event));
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
    /// Finds out who wants what, how many events from the front everybody has room for, and who has none for more.
    fn plan<P: Post>(&mut self, source: &[P], how: How) -> (usize, Option<Short<Arc<Mailbox>>>) {
        self.routes.clear();
        let Self { topics, routes, .. } = self;
        for (index, post) in source.iter().enumerate() {
            topics.wanting(&post.keys(), |slot| routes.push((index, slot)));
        }
        match how {
            How::Force => return (source.len(), None),
            How::Relay(Queues::Unknown) if self.topics.filters_queues() => return (0, Some(Short::Ask)),
            How::Relay(_) | How::Part | How::Whole => {}
        }
        let (mut fitting, mut short) = (source.len(), None);
        for (index, slot) in &self.routes {
            let Some(topic) = self.topics.get_mut(*slot) else { continue };
            topic.planned += 1;
            if topic.mailbox.holds_up(how) && topic.planned > topic.mailbox.room() {
                let fails = topic.mailbox.makes_fail();
                short = Some(if fails { Short::Fail } else { Short::Wait(Arc::clone(&topic.mailbox)) });
                fitting = *index;
                break;
            }
        }
        for (_, slot) in &self.routes {
            self.topics.get_mut(*slot).into_iter().for_each(|topic| topic.planned = 0);
        }
        (fitting, short)
    }

    /// Brings the first `n` events to those who want them, and returns how many were missed.
    fn deliver<P: Post>(&mut self, source: &[P], n: usize, woken: &mut Vec<Waker>) -> u64 {
        let mut all_missed = 0;
        for (index, slot) in self.routes.iter().take_while(|(index, _)| *index < n) {
            if let Some(topic) = self.topics.get_mut(*slot) {
                let (missed, waker) =
                    topic.mailbox.push(self.brought + *index as u64, source[*index].event());
                all_missed += missed;
                woken.extend(waker);
            }
        }
        self.brought += n as u64;
        all_missed
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
        consume_budget().await;
        let published = match self.0.attempt(events) {
            Ok(fails) => Ok(fails),
            Err(_) => tokio::time::timeout(wait, self.0.room().until(|| self.0.attempt(events))).await,
        };
        match published {
            Ok(false) => Ok(()),
            Ok(true) => Err(full("bus.publish", events.len())),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "bus.publish").with("unpublished", events.len())),
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
    /// O(1), and no publisher waits for it.
    fn stats(&self) -> BusStats {
        let sums = {
            let ring = self.0.ring.shared();
            ring.totals.sums(ring.head())
        };
        BusStats {
            published: sums.published,
            delivered: sums.taken + self.0.taken.load(Ordering::Relaxed),
            missed: sums.missed + self.0.missed.load(Ordering::Relaxed),
            subscribers: sums.subscribers + self.0.boxes.load(Ordering::Relaxed) as u64,
            blocked: Duration::from_nanos(self.0.blocked.load(Ordering::Relaxed)),
        }
    }
}
