//! The ring under model checkers, as it is shipped.
//!
//! `RUSTFLAGS="--cfg hodei_loom" cargo test --release --package hodei-bus --lib -- model` runs every interleaving that loom can
//! tell apart with at most two preemptions, with `--cfg hodei_shuttle` a thousand random schedules of larger rings.

use std::task::{Context, Poll, Wake, Waker};

use hodei_core::bus::{Overflow, SubscribeOptions};

use super::shared::How;
use super::{Missed, Ring, Subscriber};
use crate::sys::{REUSED, Turn};

#[cfg(hodei_loom)]
use loom::{sync::Condvar, sync::Mutex, thread};
#[cfg(hodei_shuttle)]
use shuttle::{sync::Condvar, sync::Mutex, thread};

#[cfg(hodei_loom)]
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

#[cfg(hodei_shuttle)]
fn check(model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(model, 1_000);
}

/// What a thread of the model sleeps on.
#[derive(Default)]
struct Signal {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Wake for Signal {
    fn wake(self: std::sync::Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

fn options(overflow: Overflow, capacity: usize) -> SubscribeOptions {
    SubscribeOptions { overflow, capacity }
}

/// Waits for events and takes those that lie together.
fn recv(subscriber: &mut Subscriber<u64>) -> Result<Vec<u64>, Missed> {
    let signal = std::sync::Arc::new(Signal::default());
    let waker = Waker::from(std::sync::Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        match subscriber.poll_ready(&mut context) {
            Poll::Ready(Ok(())) => {
                return Ok(subscriber
                    .try_recv_batch(usize::MAX)?
                    .map(|batch| batch.to_vec())
                    .unwrap_or_default());
            }
            Poll::Ready(Err(missed)) => return Err(missed),
            Poll::Pending => signal.wait(),
        }
    }
}

/// Publishes, waiting for room.
fn publish(ring: &Ring<u64>, event: u64) {
    let signal = std::sync::Arc::new(Signal::default());
    let waker = Waker::from(std::sync::Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    let mut publishing = std::pin::pin!(ring.publish(event));
    while publishing.as_mut().poll(&mut context).is_pending() {
        signal.wait();
    }
}

/// Three threads, more than one of which may have to wait: each has it alone, and gets it without being woken.
#[test]
fn a_turn_is_one_threads_alone() {
    check(|| {
        let turn = crate::sync::Arc::new(Turn::new(0));
        let others = [(); 2].map(|()| {
            let turn = crate::sync::Arc::clone(&turn);
            thread::spawn(move || *turn.take() += 1)
        });
        *turn.take() += 1;
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*turn.take(), 3);
    });
}

#[test]
fn no_wake_up_is_lost() {
    check(|| {
        let ring = Ring::new(2);
        let mut reader = ring.subscribe(options(Overflow::Block, 2));
        let publisher = thread::spawn(move || publish(&ring, 7));
        assert_eq!(recv(&mut reader), Ok(vec![7]));
        publisher.join().unwrap();
        assert_eq!(recv(&mut reader), Err(Missed::Closed));
    });
}

#[test]
fn a_publisher_that_waits_for_room_is_woken() {
    check(|| {
        let ring = Ring::new(1);
        let mut reader = ring.subscribe(options(Overflow::Block, 1));
        let publisher = thread::spawn(move || (0..2).for_each(|event| publish(&ring, event)));
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(recv(&mut reader).unwrap());
        }
        assert_eq!(heard, [0, 1]);
        publisher.join().unwrap();
    });
}

#[test]
fn two_publishers_and_two_readers_agree_on_one_order() {
    check(|| {
        let ring = Ring::new(2);
        let mut readers = [(); 2].map(|()| ring.subscribe(options(Overflow::Block, 2)));
        let publishers = [10, 20].map(|event| {
            let ring = ring.clone();
            thread::spawn(move || ring.try_publish(event).unwrap())
        });
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let heard = readers.each_mut().map(|reader| recv(reader).unwrap());
        assert_eq!(heard[0], heard[1]);
        assert_eq!(heard[0].iter().sum::<u64>(), 30);
    });
}

/// A page is filled again while a slow reader reads another one, or loses its own.
#[test]
fn a_reader_that_is_overtaken_counts_what_it_missed() {
    // Pages have eight slots and there are two places for them; a third page waits there to be filled again.
    const EVENTS: u64 = 27;
    let before = REUSED.load(std::sync::atomic::Ordering::Relaxed);
    check(|| {
        let ring = Ring::new(1);
        let mut reader = ring.subscribe(options(Overflow::DropOldest, 1));
        ring.shared().offer(7, How::Force, |_| 0..7);
        let publisher = thread::spawn(move || {
            ring.shared().offer(10, How::Force, |_| 7..17);
            ring.shared().offer(10, How::Force, |_| 17..EVENTS);
        });
        let (mut next, mut missed) = (0, 0);
        loop {
            match recv(&mut reader) {
                Ok(events) => events.into_iter().for_each(|event| {
                    assert_eq!(event, next + missed);
                    next += 1;
                }),
                Err(Missed::Lagged(n)) => missed += n,
                Err(Missed::Closed) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(next + missed, EVENTS);
        publisher.join().unwrap();
    });
    assert!(REUSED.load(std::sync::atomic::Ordering::Relaxed) > before, "no page was filled again");
}

/// Who gives up waiting leaves nobody asleep: the place goes to the other one.
#[test]
fn of_two_publishers_that_wait_one_gives_up() {
    check(|| {
        let ring = Ring::new(1);
        let mut reader = ring.subscribe(options(Overflow::Block, 1));
        ring.try_publish(0).unwrap();
        let patient = thread::spawn({
            let ring = ring.clone();
            move || publish(&ring, 1)
        });
        {
            let mut context = Context::from_waker(Waker::noop());
            let mut publishing = std::pin::pin!(ring.publish(2));
            let _ = publishing.as_mut().poll(&mut context);
        }
        drop(ring);
        let mut heard = Vec::new();
        while !heard.contains(&1) {
            heard.extend(recv(&mut reader).unwrap());
        }
        assert_eq!(heard[0], 0);
        patient.join().unwrap();
    });
}

/// A gap is told before what comes after it, and behind what came before.
#[test]
fn a_gap_is_told_where_it_is() {
    check(|| {
        let ring = Ring::new(4);
        let mut reader = ring.subscribe(options(Overflow::Block, 4));
        let publisher = thread::spawn(move || {
            ring.try_publish(1).unwrap();
            ring.shared().gap(5);
            ring.try_publish(2).unwrap();
        });
        let mut heard = Vec::new();
        loop {
            match recv(&mut reader) {
                Ok(events) => heard.extend(events),
                Err(Missed::Lagged(n)) => heard.push(100 + n),
                Err(_) => break,
            }
        }
        assert_eq!(heard, [1, 105, 2]);
        publisher.join().unwrap();
    });
}
