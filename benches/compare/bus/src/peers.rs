//! Channels for async tasks, each in its best lossless and cancel-safe use.

use std::ops::Range;

use crossfire::mpsc::Array;
use crossfire::{AsyncRx, MAsyncTx};

use crate::fanout::{BATCH, CAPACITY, Cell, Each, Event, Heard, Peer, Receiver, Sender, event};

#[derive(Debug)]
pub struct AsyncBroadcast;

impl Sender for async_broadcast::Sender<Event> {
    async fn send(&mut self, producer: u32, numbers: Range<u64>) {
        for n in numbers {
            self.broadcast_direct(event(producer, n)).await.expect("it is heard");
        }
    }
}

impl Receiver for async_broadcast::Receiver<Event> {
    async fn hear(&mut self, _: bool, heard: &mut Heard) {
        heard.hear(&self.recv_direct().await.expect("nothing is missed"));
    }
}

impl Peer for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";
    type Tx = async_broadcast::Sender<Event>;
    type Rx = async_broadcast::Receiver<Event>;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (sender, receiver) = async_broadcast::broadcast(CAPACITY);
        (vec![sender; cell.producers], vec![receiver; cell.subscribers])
    }
}

#[derive(Debug)]
pub struct Flume;

impl Sender for Each<flume::Sender<Event>> {
    async fn send(&mut self, producer: u32, numbers: Range<u64>) {
        for n in numbers {
            for channel in &self.0 {
                if let Err(flume::TrySendError::Full(event)) = channel.try_send(event(producer, n)) {
                    channel.send_async(event).await.expect("it is heard");
                }
            }
        }
    }
}

impl Receiver for flume::Receiver<Event> {
    async fn hear(&mut self, many: bool, heard: &mut Heard) {
        heard.hear(&self.recv_async().await.expect("nothing is missed"));
        if many {
            self.try_iter().take(BATCH).for_each(|event| heard.hear(&event));
        }
    }
}

impl Peer for Flume {
    const NAME: &'static str = "flume each";
    type Tx = Each<flume::Sender<Event>>;
    type Rx = flume::Receiver<Event>;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..cell.subscribers).map(|_| flume::bounded(CAPACITY)).unzip();
        ((0..cell.producers).map(|_| Each(senders.clone())).collect(), receivers)
    }
}

#[derive(Debug)]
pub struct Crossfire;

impl Sender for Each<MAsyncTx<Array<Event>>> {
    async fn send(&mut self, producer: u32, numbers: Range<u64>) {
        for n in numbers {
            for channel in &self.0 {
                channel.send(event(producer, n)).await.expect("it is heard");
            }
        }
    }
}

impl Receiver for AsyncRx<Array<Event>> {
    async fn hear(&mut self, many: bool, heard: &mut Heard) {
        heard.hear(&self.recv().await.expect("nothing is missed"));
        if many {
            for _ in 0..BATCH {
                let Ok(event) = self.try_recv() else { break };
                heard.hear(&event);
            }
        }
    }
}

impl Peer for Crossfire {
    const NAME: &'static str = "crossfire each";
    type Tx = Each<MAsyncTx<Array<Event>>>;
    type Rx = AsyncRx<Array<Event>>;

    fn open(cell: Cell, _: usize) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..cell.subscribers).map(|_| crossfire::mpsc::bounded_async(CAPACITY)).unzip();
        ((0..cell.producers).map(|_| Each(senders.clone())).collect(), receivers)
    }
}
