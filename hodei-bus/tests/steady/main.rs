//! Nothing is allocated for an event once the buffers have grown. One test, since the whole process is counted.

mod sys;

use std::task::{Context, Poll, Waker};

use hodei_bus::Bus;
use hodei_bus::ring::Ring;
use hodei_core::bus::{EventBus, EventFilter, Overflow, SubscribeOptions};
use hodei_core::event::{Event, Progress};
use hodei_core::job::Epoch;
use hodei_core::{JobId, Tenant};

const EVENTS: u64 = 20_000;

fn progress() -> Event {
    let tenant = Tenant::default();
    let job = JobId::from_parts(1, tenant.slot(), 0);
    Event::Progress(Progress { job, tenant, epoch: Epoch::from_number(1), done: 0, total: 0 })
}

/// The second time: the first makes the buffers grow.
fn second(mut work: impl FnMut()) -> u64 {
    work();
    sys::count(work)
}

fn through_the_ring(overflow: Overflow) -> u64 {
    let ring: Ring<[u64; 8]> = Ring::new(1_024);
    let mut readers = [(); 3].map(|()| ring.subscribe(SubscribeOptions { overflow, capacity: 1_024 }));
    let mut context = Context::from_waker(Waker::noop());
    second(|| {
        for n in 0..EVENTS {
            ring.try_publish([n; 8]).expect("room");
            let batch = usize::try_from(n % 100).expect("a small number");
            assert_eq!(ring.try_publish_batch(&mut (0..batch).map(|n| [n as u64; 8])), batch);
            for reader in &mut readers {
                while let Ok(Some(batch)) = reader.try_recv_batch(64) {
                    assert!(!batch.is_empty());
                }
                // Falls asleep, and is woken by what comes next.
                assert!(reader.poll_ready(&mut context).is_pending());
            }
        }
    })
}

fn through_the_bus(filter: EventFilter) -> u64 {
    let bus = Bus::new();
    let mut heard = bus.subscribe(filter, SubscribeOptions::default());
    let mut context = Context::from_waker(Waker::noop());
    let events = [progress(), progress(), progress()];
    let mut into = Vec::new();
    second(|| {
        for _ in 0..EVENTS / 3 {
            assert!(heard.poll_recv(&mut context, &mut into, 100).is_pending());
            bus.try_publish(&events).expect("room");
            bus.publish_or_gap(&events);
            assert_eq!(heard.poll_recv(&mut context, &mut into, 100), Poll::Ready(6));
            into.clear();
        }
    })
}

fn one_by_one(filter: EventFilter) -> u64 {
    let bus = Bus::new();
    let mut heard = bus.subscribe(filter, SubscribeOptions::default());
    let mut context = Context::from_waker(Waker::noop());
    let event = progress();
    let mut into = Vec::new();
    second(|| {
        for _ in 0..EVENTS {
            let mut publishing = std::pin::pin!(bus.publish_one(event.clone()));
            assert!(publishing.as_mut().poll(&mut context).is_ready());
            assert_eq!(heard.poll_recv(&mut context, &mut into, 100), Poll::Ready(1));
            into.clear();
        }
    })
}

#[test]
fn nothing_is_allocated_for_an_event() {
    let found = [
        through_the_ring(Overflow::Block),
        through_the_ring(Overflow::DropOldest),
        through_the_bus(EventFilter::all()),
        through_the_bus(EventFilter::all().job(progress().job().unwrap())),
        one_by_one(EventFilter::all()),
        one_by_one(EventFilter::all().job(progress().job().unwrap())),
    ];
    assert_eq!(found, [0; 6]);
}
