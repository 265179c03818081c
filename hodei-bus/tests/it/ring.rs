//! What the ring promises by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hodei_bus::ring::{Full, Missed, Ring, Subscriber};
use hodei_core::bus::{Overflow, SubscribeOptions};

fn options(overflow: Overflow, capacity: usize) -> SubscribeOptions {
    SubscribeOptions { overflow, capacity }
}

/// Takes what is there; a gap as a negative number.
fn heard(subscriber: &mut Subscriber<i64>) -> Vec<i64> {
    let mut heard = Vec::new();
    loop {
        match subscriber.try_recv_batch(usize::MAX).map(|batch| batch.map(|batch| batch.to_vec())) {
            Ok(Some(events)) => heard.extend(events),
            Ok(None) => return heard,
            Err(Missed::Lagged(missed)) => heard.push(-i64::try_from(missed).unwrap()),
            Err(Missed::Disconnected(_) | Missed::Closed) => {
                heard.push(i64::MIN);
                return heard;
            }
        }
    }
}

#[test]
fn a_ring_goes_round_many_times_at_every_capacity() {
    for capacity in [1, 2, 3, 7, 8, 9, 63, 64, 65, 1_000, 5_000] {
        let ring = Ring::new(capacity);
        let mut reader = ring.subscribe(options(Overflow::Block, capacity));
        let mut next = 0;
        for round in 0..50 {
            let batch = 1 + round % i64::try_from(capacity).unwrap();
            let events: Vec<i64> = (next..next + batch).collect();
            let taken = ring.try_publish_batch(&mut events.into_iter());
            assert_eq!(i64::try_from(taken), Ok(batch), "capacity {capacity}, round {round}");
            assert_eq!(heard(&mut reader), (next..next + batch).collect::<Vec<_>>());
            next += batch;
        }
    }
}

#[test]
fn exactly_the_capacity_fits() {
    for capacity in [1, 5, 8, 300] {
        let ring = Ring::new(1_024);
        let mut reader = ring.subscribe(options(Overflow::Block, capacity));
        let all: Vec<i64> = (0..i64::try_from(capacity).unwrap()).collect();
        for n in &all {
            ring.try_publish(*n).unwrap();
        }
        assert_eq!(ring.try_publish(-1), Err(Full(-1)));
        assert_eq!(reader.stats().depth, capacity as u64);
        assert_eq!(heard(&mut reader), all);
        ring.try_publish(1).unwrap();
    }
}

/// A ring of 64: each policy, far behind by more than the ring holds.
#[test]
fn who_is_overtaken_counts_exactly() {
    for (overflow, expected) in [
        (Overflow::DropOldest, vec![0, 1, -988, 990, 991, 992, 993, 994, 995, 996, 997, 998, 999]),
        // Its page was replaced, not overwritten: it reads it to the end.
        (Overflow::DropNewest, vec![0, 1, 2, 3, 4, 5, 6, 7, -992]),
    ] {
        let ring = Ring::new(64);
        let mut slow = ring.subscribe(options(overflow, 10));
        let mut fast = ring.subscribe(options(Overflow::Block, 64));
        ring.try_publish(0).unwrap();
        ring.try_publish(1).unwrap();
        let before = heard(&mut slow);
        heard(&mut fast);
        for n in 2..1_000 {
            ring.try_publish(n).unwrap();
            assert_eq!(heard(&mut fast), [n]);
        }
        let got: Vec<i64> = before.into_iter().chain(heard(&mut slow)).collect();
        assert_eq!(got, expected, "{overflow:?}");
        ring.try_publish(1_000).unwrap();
        assert_eq!(heard(&mut slow), [1_000]);
        let stats = slow.stats();
        assert_eq!(stats.delivered + stats.missed, 1_001, "{stats:?}");
    }
}

#[test]
fn who_is_cut_off_reads_what_is_there_first() {
    let ring = Ring::new(64);
    let mut slow = ring.subscribe(options(Overflow::Disconnect, 3));
    (0..10).for_each(|n| ring.try_publish(n).unwrap());
    assert_eq!(heard(&mut slow), [0, 1, 2, i64::MIN]);
    assert_eq!(slow.try_recv_batch(1).unwrap_err(), Missed::Disconnected(7));
    assert_eq!((slow.stats().delivered, slow.stats().missed, slow.stats().depth), (3, 7, 0));
    ring.try_publish(10).unwrap();
    assert_eq!(slow.try_recv_batch(1).unwrap_err(), Missed::Disconnected(8));
    assert_eq!((slow.stats().delivered, slow.stats().missed, slow.stats().depth), (3, 8, 0));
}

#[test]
fn a_publisher_fails_at_once_for_a_subscriber_that_asks_for_it() {
    let ring = Ring::new(64);
    let mut strict = ring.subscribe(options(Overflow::Fail, 2));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(ring.publish_batch([0, 1, 2, 3, 4])), Err(Full(2)));
    assert_eq!(runtime.block_on(ring.publish(9)), Err(Full(9)));
    assert_eq!(heard(&mut strict), [0, 1]);
}

#[test]
fn a_batch_in_hand_is_never_overwritten() {
    let ring = Ring::new(8);
    let mut reader = ring.subscribe(options(Overflow::DropOldest, 8));
    (0..8).for_each(|n| ring.try_publish(n).unwrap());
    let batch = reader.try_recv_batch(100).unwrap().unwrap();
    (8..1_000).for_each(|n| ring.try_publish(n).unwrap());
    assert_eq!(*batch, [0, 1, 2, 3, 4, 5, 6, 7]);
    batch.take(3);
    let rest = heard(&mut reader);
    assert_eq!(rest, [3, 4, 5, 6, 7, -984, 992, 993, 994, 995, 996, 997, 998, 999]);
}

#[tokio::test]
async fn an_iterator_that_panics_leaves_the_ring_whole() {
    let ring = Ring::new(64);
    let mut reader = ring.subscribe(options(Overflow::Block, 64));
    let mut other = ring.subscribe(options(Overflow::Block, 64));
    let sleeper = tokio::spawn(async move { (other.recv().await, other.recv().await) });
    tokio::task::yield_now().await;
    let torn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut events = vec![0, 1, 2].into_iter().map(|n| if n < 2 { n } else { panic!("as told") });
        ring.try_publish_batch(&mut events)
    }));
    assert!(torn.is_err());
    assert_eq!(sleeper.await.unwrap(), (Ok(0), Ok(1)));
    ring.try_publish(2).unwrap();
    assert_eq!(heard(&mut reader), [0, 1, 2]);
}

/// Counts itself while it lives.
#[derive(Clone, Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn every_event_is_dropped_once_and_few_are_kept() {
    let alive = Arc::new(AtomicUsize::new(0));
    let ring = Ring::new(100);
    let mut reader = ring.subscribe(options(Overflow::DropOldest, 100));
    let stuck = ring.subscribe(options(Overflow::DropOldest, 100));
    for _ in 0..10_000 {
        assert!(ring.try_publish(Counted::new(&alive)).is_ok());
        let _ = reader.try_recv_batch(10);
    }
    let kept = alive.load(Ordering::Relaxed);
    assert!((100..300).contains(&kept), "{kept}");
    drop((ring, reader, stuck));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_so_long_and_no_longer() {
    let ring = Ring::new(64);
    let mut reader = ring.subscribe(options(Overflow::Block, 1));
    ring.publish_timeout(0, Duration::from_secs(1)).await.unwrap();
    assert_eq!(ring.publish_timeout(1, Duration::from_secs(1)).await, Err(Full(1)));
    let waiting = tokio::spawn({
        let ring = ring.clone();
        async move { ring.publish_timeout(2, Duration::from_secs(1)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(reader.recv().await, Ok(0));
    assert_eq!((waiting.await.unwrap(), reader.recv().await), (Ok(()), Ok(2)));
}

#[tokio::test]
async fn what_was_published_is_read_before_the_end() {
    let ring = Ring::new(64);
    let mut reader = ring.subscribe(options(Overflow::Block, 64));
    ring.publish_batch([0, 1, 2]).await.unwrap();
    drop(ring);
    assert_eq!((reader.recv().await, reader.recv().await, reader.recv().await), (Ok(0), Ok(1), Ok(2)));
    assert_eq!(reader.recv().await, Err(Missed::Closed));
}

/// Publishers, readers of every policy, some that come and go and some that give up waiting: each sees each publisher's
/// events in order and once, and what it has heard and missed is everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stress() {
    const PUBLISHERS: u64 = 3;
    const EACH: u64 = 20_000;
    let ring: Ring<(u64, u64)> = Ring::new(256);
    let policies = [Overflow::Block, Overflow::Block, Overflow::DropOldest, Overflow::DropNewest];
    let readers: Vec<_> = policies
        .into_iter()
        .enumerate()
        .map(|(index, overflow)| tokio::spawn(read(ring.subscribe(options(overflow, 100)), overflow, index)))
        .collect();
    let visitor = tokio::spawn({
        let ring = ring.clone();
        async move {
            for round in 0..300 {
                let overflow = [Overflow::Block, Overflow::DropOldest, Overflow::Disconnect][round % 3];
                let mut visitor = ring.subscribe(options(overflow, 1 + round % 40));
                for _ in 0..round % 5 {
                    let _ = tokio::time::timeout(Duration::from_micros(50), visitor.recv_batch(7)).await;
                }
            }
        }
    });
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let ring = ring.clone();
            tokio::spawn(async move {
                let mut n = 0;
                while n < EACH {
                    let batch = (n % 37 + 1).min(EACH - n);
                    let events: Vec<_> = (n..n + batch).map(|n| (publisher, n)).collect();
                    ring.publish_batch(events).await.unwrap();
                    n += batch;
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    visitor.await.unwrap();
    drop(ring);
    for reader in readers {
        let (count, sum, missed, overflow) = reader.await.unwrap();
        assert_eq!(count + missed, PUBLISHERS * EACH, "{overflow:?}");
        if overflow == Overflow::Block {
            assert_eq!((missed, sum), (0, PUBLISHERS * (EACH * (EACH - 1) / 2)));
        }
    }
}

async fn read(
    mut reader: Subscriber<(u64, u64)>,
    overflow: Overflow,
    index: usize,
) -> (u64, u64, u64, Overflow) {
    let (mut count, mut sum, mut missed, mut next) = (0, 0, 0, [0; 3]);
    loop {
        // Now and then it gives up, at whatever point that is.
        let patience = Duration::from_micros(if index.is_multiple_of(2) { 20 } else { 1_000_000 });
        let Ok(batch) = tokio::time::timeout(patience, reader.recv_batch(11)).await else { continue };
        match batch {
            Ok(batch) => {
                for (publisher, n) in batch.iter() {
                    let expected = &mut next[usize::try_from(*publisher).unwrap()];
                    assert!(*n >= *expected, "{n} after {expected}");
                    *expected = n + 1;
                    count += 1;
                    sum += n;
                }
            }
            Err(Missed::Lagged(n)) => missed += n,
            Err(Missed::Closed) => return (count, sum, missed, overflow),
            Err(Missed::Disconnected(_)) => panic!("nobody is cut off here"),
        }
    }
}

/// Says that it has more than it has.
struct Boasts(u32);

impl Iterator for Boasts {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.0 = self.0.checked_sub(1)?;
        Some(i64::from(self.0))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (100, Some(100))
    }
}

impl ExactSizeIterator for Boasts {}

#[tokio::test]
async fn an_iterator_that_ends_before_its_length_ends_the_batch() {
    let ring = Ring::new(64);
    assert_eq!(ring.try_publish_batch(&mut Boasts(3)), 3, "nobody reads");
    let mut reader = ring.subscribe(options(Overflow::DropOldest, 64));
    assert_eq!(ring.try_publish_batch(&mut Boasts(3)), 3);
    assert_eq!(ring.publish_batch(Boasts(2)).await, Ok(2));
    assert_eq!(heard(&mut reader), [2, 1, 0, 1, 0]);
}

#[test]
fn who_has_read_one_event_has_room_for_one() {
    for overflow in [Overflow::Block, Overflow::Fail] {
        let ring = Ring::new(1_024);
        let mut reader = ring.subscribe(options(overflow, 1_024));
        (0..1_024).for_each(|n| ring.try_publish(n).unwrap());
        for n in 1_024..3_000 {
            assert_eq!(ring.try_publish(-1), Err(Full(-1)));
            assert_eq!(reader.try_recv_batch(1).unwrap().as_deref(), Some(&[n - 1_024][..]));
            ring.try_publish(n).unwrap();
        }
    }
}

#[tokio::test]
async fn a_publisher_that_always_finds_room_lets_others_run() {
    for readers in 0..2 {
        let ring = Ring::new(64);
        let _readers: Vec<_> =
            (0..readers).map(|_| ring.subscribe(options(Overflow::DropOldest, 64))).collect();
        let other = tokio::spawn(async {});
        while !other.is_finished() {
            ring.publish(0).await.unwrap();
        }
        other.await.unwrap();
    }
}
