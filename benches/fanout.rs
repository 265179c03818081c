//! Fan-out under the same load for every bus: events of 64 bytes, counted, summed, and in the order of each producer.
//!
//! The comparison with other crates, a workspace of its own, takes this file in by its path: it knows the ring and tokio.

use std::future::Future;
use std::time::Instant;

use hodei_bus::ring::{Ring, Subscriber};
use hodei_core::bus::SubscribeOptions;
use tokio::sync::{broadcast, mpsc};

/// How many events are sent together in the cells with batches.
pub(crate) const BATCH: usize = 1_000;
/// How many events a bounded bus holds.
pub(crate) const CAPACITY: usize = 8_192;

/// An event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    producer: u32,
    n: u64,
    fill: [u64; 6],
}

const _: () = assert!(size_of::<Event>() == 64);

/// Makes an event; its contents follow from its producer and number.
#[must_use]
pub(crate) fn event(producer: u32, n: u64) -> Event {
    Event { producer, n, fill: [n; 6] }
}

/// One row of the table: who sends, who hears, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Tasks that publish.
    pub(crate) producers: usize,
    /// Tasks that each hear everything.
    pub(crate) subscribers: usize,
    /// How many events are published together.
    pub(crate) batch: usize,
}

/// The eight cells.
pub(crate) const CELLS: [Cell; 8] = {
    const fn cell(producers: usize, subscribers: usize, batch: usize) -> Cell {
        Cell { producers, subscribers, batch }
    }
    [
        cell(1, 1, 1),
        cell(1, 4, 1),
        cell(2, 1, 1),
        cell(2, 4, 1),
        cell(1, 1, BATCH),
        cell(1, 4, BATCH),
        cell(2, 1, BATCH),
        cell(2, 4, BATCH),
    ]
};

impl Cell {
    /// Its name in the tables.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        format!("{} x {}{}", self.producers, self.subscribers, if self.batch > 1 { ", batches" } else { "" })
    }
}

/// What one subscriber has heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    next: [u64; 2],
    count: u64,
    sum: u64,
}

impl Heard {
    /// Takes an event in.
    ///
    /// # Panics
    ///
    /// When an event of its producer is missing before it, or comes twice.
    #[inline]
    pub(crate) fn hear(&mut self, event: &Event) {
        let next = &mut self.next[event.producer as usize];
        assert_eq!(event.n, *next, "of producer {}", event.producer);
        *next += 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(event.fill[0] ^ event.fill[5]).wrapping_add(event.fill[3]);
    }

    fn check(&self, producers: u64, each: u64) {
        assert_eq!((self.count, self.sum), (producers * each, producers * (each * (each - 1) / 2)));
    }
}

/// A sender of a bus.
pub(crate) trait Sender: Send + 'static {
    /// Sends the events with these numbers, all of them.
    fn send(&mut self, producer: u32, numbers: std::ops::Range<u64>) -> impl Future<Output = ()> + Send;
}

/// A receiver of a bus.
pub(crate) trait Receiver: Send + 'static {
    /// Waits for events and takes in one at least; with `many` as many as the bus hands over at once.
    fn hear(&mut self, many: bool, heard: &mut Heard) -> impl Future<Output = ()> + Send;
}

/// A bus.
pub(crate) trait Peer {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Its senders.
    type Tx: Sender;
    /// Its receivers.
    type Rx: Receiver;

    /// Makes one for a cell in which so many events are sent in all.
    fn open(cell: Cell, events: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>);
}

/// Runs a cell once and returns events per second, each counted once however many hear it.
///
/// # Panics
///
/// When an event is lost, repeated or out of order.
#[must_use]
pub(crate) fn run<P: Peer>(runtime: &tokio::runtime::Runtime, cell: Cell, events: usize) -> f64 {
    let each = events / cell.producers / cell.batch * cell.batch;
    let (senders, receivers) = P::open(cell, each * cell.producers);
    let (each, total) = (each as u64, (each * cell.producers) as u64);
    let start = Instant::now();
    runtime.block_on(async {
        let hearing: Vec<_> = receivers
            .into_iter()
            .map(|mut receiver| {
                tokio::spawn(async move {
                    let mut heard = Heard::default();
                    while heard.count < total {
                        receiver.hear(cell.batch > 1, &mut heard).await;
                    }
                    heard.check(cell.producers as u64, each);
                })
            })
            .collect();
        let sending: Vec<_> = (0_u32..)
            .zip(senders)
            .map(|(producer, mut sender)| {
                tokio::spawn(async move {
                    for from in (0..each).step_by(cell.batch) {
                        sender.send(producer, from..from + cell.batch as u64).await;
                    }
                    sender
                })
            })
            .collect();
        for task in sending {
            task.await.expect("it sends everything");
        }
        for task in hearing {
            task.await.expect("it hears everything");
        }
    });
    total as f64 / start.elapsed().as_secs_f64()
}

/// The ring.
#[derive(Debug)]
pub(crate) struct OurRing;

impl Sender for Ring<Event> {
    async fn send(&mut self, producer: u32, numbers: std::ops::Range<u64>) {
        if numbers.end - numbers.start == 1 {
            self.publish(event(producer, numbers.start)).await.expect("nobody makes it fail");
        } else {
            let count = u32::try_from(numbers.end - numbers.start).expect("a batch is small");
            let events = (0..count).map(|n| event(producer, numbers.start + u64::from(n)));
            self.publish_batch(events).await.expect("nobody makes it fail");
        }
    }
}

impl Receiver for Subscriber<Event> {
    async fn hear(&mut self, many: bool, heard: &mut Heard) {
        if many {
            self.recv_batch(usize::MAX)
                .await
                .expect("nothing is missed")
                .iter()
                .for_each(|event| heard.hear(event));
        } else {
            heard.hear(&self.recv().await.expect("nothing is missed"));
        }
    }
}

impl Peer for OurRing {
    const NAME: &'static str = "hodei-bus ring";
    type Tx = Ring<Event>;
    type Rx = Subscriber<Event>;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let ring = Ring::new(CAPACITY);
        let options = SubscribeOptions { capacity: CAPACITY, ..SubscribeOptions::default() };
        let receivers = (0..cell.subscribers).map(|_| ring.subscribe(options)).collect();
        (vec![ring; cell.producers], receivers)
    }
}

/// tokio's broadcast with room for everything: it never loses then, and nobody ever waits for room.
#[derive(Debug)]
pub(crate) struct Broadcast;

impl Sender for broadcast::Sender<Event> {
    async fn send(&mut self, producer: u32, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let _ = Self::send(self, event(producer, n));
        }
    }
}

impl Receiver for broadcast::Receiver<Event> {
    async fn hear(&mut self, _: bool, heard: &mut Heard) {
        heard.hear(&self.recv().await.expect("nothing is missed"));
    }
}

impl Peer for Broadcast {
    const NAME: &'static str = "tokio broadcast, all fits";
    type Tx = broadcast::Sender<Event>;
    type Rx = broadcast::Receiver<Event>;

    fn open(cell: Cell, events: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (sender, _) = broadcast::channel(events);
        let receivers = (0..cell.subscribers).map(|_| sender.subscribe()).collect();
        (vec![sender; cell.producers], receivers)
    }
}

/// tokio's broadcast of bounded size, whose publishers yield while the slowest receiver is behind.
#[derive(Debug)]
pub(crate) struct BroadcastWaiting;

/// A sender that looks at the length before it sends.
#[derive(Debug)]
pub(crate) struct Waits(broadcast::Sender<Event>);

impl Sender for Waits {
    async fn send(&mut self, producer: u32, numbers: std::ops::Range<u64>) {
        for n in numbers {
            // Two producers may both find the last place free: one is kept in reserve.
            while self.0.len() >= CAPACITY - 2 {
                tokio::task::yield_now().await;
            }
            let _ = self.0.send(event(producer, n));
        }
    }
}

impl Peer for BroadcastWaiting {
    const NAME: &'static str = "tokio broadcast, 8 k";
    type Tx = Waits;
    type Rx = broadcast::Receiver<Event>;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (sender, _) = broadcast::channel(CAPACITY);
        let receivers = (0..cell.subscribers).map(|_| sender.subscribe()).collect();
        ((0..cell.producers).map(|_| Waits(sender.clone())).collect(), receivers)
    }
}

/// One bounded tokio channel per subscriber.
#[derive(Debug)]
pub(crate) struct Mpsc;

/// A sender into every channel.
#[derive(Debug)]
pub(crate) struct Each<S>(pub(crate) Vec<S>);

impl Sender for Each<mpsc::Sender<Event>> {
    async fn send(&mut self, producer: u32, numbers: std::ops::Range<u64>) {
        for n in numbers {
            for channel in &self.0 {
                channel.send(event(producer, n)).await.expect("it is heard");
            }
        }
    }
}

/// A receiver with its buffer.
#[derive(Debug)]
pub(crate) struct Buffered(mpsc::Receiver<Event>, Vec<Event>);

impl Receiver for Buffered {
    async fn hear(&mut self, many: bool, heard: &mut Heard) {
        if many {
            self.0.recv_many(&mut self.1, BATCH).await;
            self.1.drain(..).for_each(|event| heard.hear(&event));
        } else {
            heard.hear(&self.0.recv().await.expect("nothing is missed"));
        }
    }
}

impl Peer for Mpsc {
    const NAME: &'static str = "tokio mpsc each";
    type Tx = Each<mpsc::Sender<Event>>;
    type Rx = Buffered;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..cell.subscribers).map(|_| mpsc::channel(CAPACITY)).unzip();
        let buffered = receivers.into_iter().map(|channel| Buffered(channel, Vec::with_capacity(BATCH)));
        ((0..cell.producers).map(|_| Each(senders.clone())).collect(), buffered.collect())
    }
}
