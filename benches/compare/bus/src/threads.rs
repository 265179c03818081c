//! What threads that spin reach: the limit of the machine, without tasks and wake-ups.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use disruptor::{BusySpin, Sequence};

use crate::Size;
use crate::fanout::{BATCH, CAPACITY, Cell, Event, Heard, event};

fn best(size: Size, round: impl Fn(usize) -> f64) -> f64 {
    (0..size.rounds).map(|_| round(size.events)).fold(0.0, f64::max)
}

/// The ring of one producer and one consumer.
pub fn rtrb(batch: usize, size: Size) -> f64 {
    best(size, |events| {
        let events = events / batch * batch;
        let (mut producer, mut consumer) = rtrb::RingBuffer::new(CAPACITY);
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut n = 0;
                while n < events as u64 {
                    if batch == 1 {
                        if producer.push(event(0, n)).is_ok() {
                            n += 1;
                        } else {
                            std::hint::spin_loop();
                        }
                    } else if let Ok(chunk) = producer.write_chunk_uninit(batch) {
                        n += chunk.fill_from_iter((n..).map(|n| event(0, n))) as u64;
                    } else {
                        thread::yield_now();
                    }
                }
            });
            let mut heard = Heard::default();
            for _ in 0..events / batch {
                for event in taken(&mut consumer, batch) {
                    heard.hear(&event);
                }
            }
        });
        events as f64 / start.elapsed().as_secs_f64()
    })
}

fn taken(consumer: &mut rtrb::Consumer<Event>, batch: usize) -> impl Iterator<Item = Event> + '_ {
    loop {
        let ready = consumer.slots();
        if ready >= batch {
            break;
        }
        std::hint::spin_loop();
    }
    consumer.read_chunk(batch).expect("they are there").into_iter()
}

/// Threads that each have a queue per consumer.
pub fn crossbeam(cell: Cell, size: Size) -> f64 {
    best(size, |events| {
        let each = (events / cell.producers / BATCH * BATCH) as u64;
        let queues: Vec<_> = (0..cell.subscribers).map(|_| Arc::new(ArrayQueue::new(CAPACITY))).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            for producer in 0..u32::try_from(cell.producers).expect("few") {
                let queues = queues.clone();
                scope.spawn(move || {
                    for n in 0..each {
                        for queue in &queues {
                            let mut next = event(producer, n);
                            while let Err(event) = queue.push(next) {
                                next = event;
                                thread::yield_now();
                            }
                        }
                    }
                });
            }
            for queue in &queues {
                let queue = Arc::clone(queue);
                scope.spawn(move || {
                    let mut heard = Heard::default();
                    for _ in 0..each * cell.producers as u64 {
                        let event = loop {
                            if let Some(event) = queue.pop() {
                                break event;
                            }
                            thread::yield_now();
                        };
                        heard.hear(&event);
                    }
                });
            }
        });
        each as f64 * cell.producers as f64 / start.elapsed().as_secs_f64()
    })
}

macro_rules! consumers {
    ($builder:expr, $heard:expr, 1) => {
        $builder.handle_events_with($heard())
    };
    ($builder:expr, $heard:expr, 4) => {
        $builder
            .handle_events_with($heard())
            .handle_events_with($heard())
            .handle_events_with($heard())
            .handle_events_with($heard())
    };
}

/// The crate of that name: its handlers run on threads of its own.
pub fn disruptor(cell: Cell, size: Size) -> f64 {
    best(size, |events| {
        let each = (events / cell.producers / BATCH * BATCH) as u64;
        let heard = || {
            let mut heard = Heard::default();
            move |event: &Event, _: Sequence, _: bool| heard.hear(event)
        };
        let start = Instant::now();
        // Dropping the last producer waits until everything has been handled.
        match (cell.producers, cell.subscribers) {
            (1, 1) => {
                let builder = disruptor::build_single_producer(CAPACITY, Event::default, BusySpin);
                produce(&mut consumers!(builder, heard, 1).build(), 0, each, cell.batch);
            }
            (1, _) => {
                let builder = disruptor::build_single_producer(CAPACITY, Event::default, BusySpin);
                produce(&mut consumers!(builder, heard, 4).build(), 0, each, cell.batch);
            }
            (_, 1) => {
                let builder = disruptor::build_multi_producer(CAPACITY, Event::default, BusySpin);
                two(consumers!(builder, heard, 1).build(), each, cell.batch);
            }
            _ => {
                let builder = disruptor::build_multi_producer(CAPACITY, Event::default, BusySpin);
                two(consumers!(builder, heard, 4).build(), each, cell.batch);
            }
        }
        each as f64 * cell.producers as f64 / start.elapsed().as_secs_f64()
    })
}

fn two(producer: impl disruptor::Producer<Event> + Clone + Send, each: u64, batch: usize) {
    thread::scope(|scope| {
        let mut second = producer.clone();
        let mut first = producer;
        scope.spawn(move || produce(&mut first, 0, each, batch));
        produce(&mut second, 1, each, batch);
    });
}

fn produce(producer: &mut impl disruptor::Producer<Event>, number: u32, each: u64, batch: usize) {
    for from in (0..each).step_by(batch) {
        if batch == 1 {
            producer.publish(|slot| *slot = event(number, from));
        } else {
            producer.batch_publish(batch, |slots| {
                for (slot, n) in slots.zip(from..) {
                    *slot = event(number, n);
                }
            });
        }
    }
}
