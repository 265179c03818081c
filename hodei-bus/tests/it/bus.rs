//! What the bus promises.

use std::sync::Arc;
use std::time::Duration;

use hodei_bus::{Bus, Replay};
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::{Event, EventKind, Progress};
use hodei_core::job::{Cause, Epoch, JobSpec, NewJob};
use hodei_core::store::{JobStore, MemoryStore, Scope, SubmitOptions};
use hodei_core::{ErrorKind, JobId, Tenant};

fn event(publisher: u64, n: u32) -> Event {
    let tenant = Tenant::default();
    let job = JobId::from_parts(publisher, tenant.slot(), 0);
    Event::Progress(Progress { job, tenant, epoch: Epoch::from_number(1), done: n, total: 0 })
}

fn events(range: std::ops::Range<u32>) -> Vec<Event> {
    range.map(|n| event(1, n)).collect()
}

/// Events as their numbers, a gap as a negative number of events, the cut as `i64::MIN`.
fn shown(deliveries: Vec<Delivery>) -> Vec<i64> {
    let show = |delivery| match delivery {
        Delivery::Event(Event::Progress(progress)) => i64::from(progress.done),
        Delivery::Event(_) => panic!("only progress is published here"),
        Delivery::Lagged { missed } => -i64::try_from(missed).expect("few are missed"),
        Delivery::Disconnected { .. } => i64::MIN,
    };
    deliveries.into_iter().map(show).collect()
}

fn subscribe(bus: &Bus, overflow: Overflow) -> Box<dyn Subscription> {
    bus.subscribe(EventFilter::all(), SubscribeOptions { overflow, capacity: 3 })
}

/// The two ways in which events reach a subscriber: over the ring, and into a mailbox.
fn ways() -> [EventFilter; 2] {
    [EventFilter::all(), EventFilter::all().tenant(Tenant::default())]
}

fn subscribe_to(bus: &Bus, filter: &EventFilter, overflow: Overflow) -> Box<dyn Subscription> {
    bus.subscribe(filter.clone(), SubscribeOptions { overflow, capacity: 3 })
}

#[test]
fn each_policy_says_what_was_missed_and_where() {
    for way in ways() {
        for (overflow, expected) in [
            (Overflow::Block, vec![0, 1, 2, -2]),
            (Overflow::Fail, vec![0, 1, 2, -2]),
            (Overflow::DropOldest, vec![-2, 2, 3, 4]),
            (Overflow::DropNewest, vec![0, 1, 2, -2]),
            (Overflow::Disconnect, vec![0, 1, 2, i64::MIN]),
        ] {
            let bus = Bus::new();
            let mut subscriber = subscribe_to(&bus, &way, overflow);
            bus.publish_or_gap(&events(0..5));
            assert_eq!(shown(subscriber.try_recv(10)), expected, "{overflow:?}");
            let stats = subscriber.stats();
            assert_eq!((stats.delivered, stats.missed, stats.depth), (3, 2, 0), "{overflow:?}, {way:?}");
            assert_eq!(bus.stats().missed, 2, "{overflow:?}, {way:?}");
        }
    }
}

#[test]
fn who_is_cut_off_is_told_of_everything_until_it_asks() {
    for way in ways() {
        let bus = Bus::new();
        let mut subscriber = subscribe_to(&bus, &way, Overflow::Disconnect);
        bus.publish_or_gap(&events(0..10));
        bus.try_publish(&events(10..12)).unwrap();
        let mut told = subscriber.try_recv(10);
        assert_eq!(told.pop(), Some(Delivery::Disconnected { missed: 9 }), "{way:?}");
        assert_eq!(shown(told), [0, 1, 2]);
        assert_eq!(subscriber.try_recv(10), []);
        let stats = subscriber.stats();
        assert_eq!((stats.delivered, stats.missed, stats.depth), (3, 9, 0), "{way:?}");
    }
}

#[test]
fn after_a_gap_it_goes_on() {
    for way in ways() {
        let bus = Bus::new();
        let mut subscriber = subscribe_to(&bus, &way, Overflow::DropNewest);
        bus.publish_or_gap(&events(0..5));
        assert_eq!(shown(subscriber.try_recv(2)), [0, 1]);
        bus.publish_or_gap(&events(5..7));
        assert_eq!(shown(subscriber.try_recv(10)), [2, -2, 5, 6]);
        assert_eq!(bus.stats().missed, 2);
    }
}

#[tokio::test]
async fn try_publish_is_all_or_nothing() {
    for way in ways() {
        for overflow in [Overflow::Block, Overflow::Fail] {
            let bus = Bus::new();
            let mut subscriber = subscribe_to(&bus, &way, overflow);
            bus.try_publish(&events(0..2)).unwrap();
            assert_eq!(bus.try_publish(&events(2..4)).unwrap_err().kind(), ErrorKind::Full);
            assert_eq!(shown(subscriber.try_recv(10)), [0, 1]);
        }
        let bus = Bus::new();
        let mut subscriber = subscribe_to(&bus, &way, Overflow::Fail);
        let error = bus.publish(events(0..5), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!((error.kind(), error.context("unpublished")), (ErrorKind::Full, Some("2")));
        assert_eq!(bus.publish_one(event(1, 9)).await.unwrap_err().kind(), ErrorKind::Full);
        // Whoever has read one event has room for one.
        assert_eq!(shown(subscriber.try_recv(1)), [0]);
        bus.publish_one(event(1, 9)).await.unwrap();
        assert_eq!(shown(subscriber.try_recv(9)), [1, 2, 9]);
    }
}

/// Takes one event and then waits for what a blocked publisher must do first.
#[tokio::test]
async fn a_place_that_is_free_is_enough_for_a_publisher_that_waits() {
    for way in ways() {
        let bus = Bus::new();
        let options = SubscribeOptions { overflow: Overflow::Block, capacity: 1_000 };
        let mut subscriber = bus.subscribe(way, options);
        bus.try_publish(&events(0..1_000)).unwrap();
        let publisher = tokio::spawn({
            let bus = bus.clone();
            async move { bus.publish_one(event(1, 1_000)).await }
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shown(subscriber.try_recv(1)), [0]);
        tokio::time::timeout(Duration::from_secs(60), publisher)
            .await
            .expect("it is woken")
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn who_is_waited_for_can_be_found() {
    for way in ways() {
        let bus = Bus::new();
        let stuck = subscribe_to(&bus, &way, Overflow::Block);
        let quick = bus.subscribe(EventFilter::all(), SubscribeOptions::default());
        let wait = Duration::from_millis(20);
        assert!(bus.publish(events(0..5), wait).await.is_err());
        assert!(tokio::time::timeout(wait, bus.publish_one(event(1, 5))).await.is_err());
        assert!(stuck.stats().blocked >= wait * 2, "{:?}", stuck.stats());
        assert_eq!(quick.stats().blocked, Duration::ZERO);
        assert!(bus.stats().blocked >= wait * 2);
        let slowest = bus.subscribers().into_iter().max_by_key(|listed| listed.stats.blocked).unwrap();
        assert_eq!((slowest.options.capacity, slowest.stats), (3, stuck.stats()));
        assert_eq!(slowest.filtered, !way.is_all());
    }
}

#[tokio::test]
async fn a_reader_that_always_finds_events_lets_others_run() {
    for way in ways() {
        let bus = Bus::new();
        let mut subscriber =
            bus.subscribe(way, SubscribeOptions { capacity: 4_000, ..SubscribeOptions::default() });
        bus.try_publish(&events(0..4_000)).unwrap();
        let other = tokio::spawn(async {});
        let mut taken = 0;
        while !other.is_finished() {
            taken += subscriber.recv(1).await.len();
            assert!(taken < 4_000);
        }
    }
}

/// Runs its task when it is woken, as some executors do, or drops it.
struct Drops(std::sync::Mutex<Option<Box<dyn Subscription>>>);

impl std::task::Wake for Drops {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn a_waker_may_use_the_bus() {
    for way in ways() {
        let (bus, (done, is_done)) = (Bus::new(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let mut subscriber = bus.subscribe(way, SubscribeOptions::default());
            let task = Arc::new(Drops(std::sync::Mutex::new(None)));
            let waker = std::task::Waker::from(Arc::clone(&task));
            let mut context = std::task::Context::from_waker(&waker);
            assert!(subscriber.poll_recv(&mut context, &mut Vec::new(), 1).is_pending());
            *task.0.lock().unwrap() = Some(subscriber);
            bus.publish_or_gap(&events(0..1));
            done.send(bus.stats().subscribers).unwrap();
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_a_blocking_subscriber_so_long_and_no_longer() {
    let bus = Bus::new();
    let mut subscriber = subscribe(&bus, Overflow::Block);
    let error = bus.publish(events(0..5), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("unpublished")), (ErrorKind::Timeout, Some("2")));
    assert_eq!(shown(subscriber.try_recv(10)), [0, 1, 2]);
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish(events(5..105), Duration::from_secs(1)).await }
    });
    let mut heard = Vec::new();
    while heard.len() < 100 {
        heard.extend(shown(subscriber.recv(10).await));
    }
    assert_eq!(heard, (5..105).collect::<Vec<i64>>());
    publisher.await.unwrap().unwrap();
}

#[test]
fn filters_are_by_kind_tenant_and_job() {
    let bus = Bus::new();
    let tenant = Tenant::default();
    let job = JobId::from_parts(2, tenant.slot(), 0);
    let other = Tenant::new("other").unwrap();
    let cases = [
        (EventFilter::all().kind(EventKind::Progress), 2),
        (EventFilter::all().kind(EventKind::Failed), 0),
        (EventFilter::all().job(job), 1),
        (EventFilter::all().tenant(tenant), 2),
        (EventFilter::all().tenant(other), 0),
    ];
    let mut subscribers: Vec<_> = cases
        .into_iter()
        .map(|(filter, n)| (bus.subscribe(filter, SubscribeOptions::default()), n))
        .collect();
    bus.publish_or_gap(&[event(1, 0), event(2, 0)]);
    for (subscriber, n) in &mut subscribers {
        assert_eq!(subscriber.try_recv(10).len(), *n);
    }
}

#[test]
fn a_dropped_subscriber_is_gone() {
    let bus = Bus::new();
    let subscribers: Vec<_> = (0..100).map(|_| subscribe(&bus, Overflow::Block)).collect();
    assert_eq!(bus.stats().subscribers, 100);
    drop(subscribers);
    assert_eq!(bus.stats().subscribers, 0);
    bus.try_publish(&events(0..100)).unwrap();
}

/// What was published counts whether or not somebody was there to hear it.
#[tokio::test]
async fn what_is_published_is_counted_once_however_many_hear_it() {
    let bus = Bus::new();
    bus.try_publish(&events(0..3)).unwrap();
    bus.publish_one(event(1, 3)).await.unwrap();
    assert_eq!((bus.stats().published, bus.stats().delivered), (4, 0));
    let subscribers = ways().map(|way| subscribe_to(&bus, &way, Overflow::Block));
    bus.publish_one(event(1, 4)).await.unwrap();
    bus.try_publish(&events(5..7)).unwrap();
    for mut subscriber in subscribers {
        assert_eq!(shown(subscriber.try_recv(10)), [4, 5, 6]);
    }
    bus.publish_one(event(1, 7)).await.unwrap();
    assert_eq!((bus.stats().published, bus.stats().delivered), (8, 6));
}

#[tokio::test]
async fn a_subscriber_of_a_bus_that_is_gone_learns_it() {
    let bus = Bus::new();
    let mut subscriber = subscribe(&bus, Overflow::Block);
    drop(bus);
    assert_eq!(subscriber.recv(10).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_publishers_and_subscribers_keep_each_publishers_order() {
    const EACH: u32 = 5_000;
    let bus = Bus::new();
    let subscribers: Vec<_> =
        (0..4).map(|_| bus.subscribe(EventFilter::all(), SubscribeOptions::default())).collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            tokio::spawn(async move {
                let mut next = [0_u32; 3];
                let mut total = 0;
                while total < 3 * EACH {
                    for delivery in subscriber.recv(100).await {
                        let Delivery::Event(Event::Progress(progress)) = delivery else {
                            panic!("{delivery:?}")
                        };
                        let publisher = (0..3).find(|p| event(*p, 0).job() == Some(progress.job)).unwrap();
                        let expected = &mut next[usize::try_from(publisher).expect("small")];
                        assert_eq!(progress.done, *expected);
                        *expected += 1;
                        total += 1;
                    }
                }
            })
        })
        .collect();
    for publisher in 0..3 {
        let bus = bus.clone();
        tokio::spawn(async move {
            for n in (0..EACH).step_by(50) {
                let batch = (n..n + 50).map(|n| event(publisher, n)).collect();
                bus.publish(batch, Duration::from_secs(60)).await.unwrap();
            }
        });
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let stats = bus.stats();
    assert_eq!((stats.published, stats.delivered, stats.missed), (15_000, 60_000, 0));
}

#[tokio::test]
async fn what_was_missed_is_read_back_from_the_store() {
    let store = Arc::new(MemoryStore::new());
    let jobs: Vec<NewJob> =
        (0..5).map(|_| NewJob::new(JobSpec::command(["true"]).build().unwrap())).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.submit(jobs, SubmitOptions::each()).await.unwrap();
    let mut replay = Replay::from_start(store, Scope::All);
    let mut read = replay.next(3).await.unwrap();
    read.extend(replay.next(3).await.unwrap());
    assert!(replay.next(3).await.unwrap().is_empty());
    let causes = read.iter().map(|event| match event {
        Event::Job(event) => (event.job, event.cause),
        other => panic!("{other:?}"),
    });
    assert_eq!(causes.collect::<Vec<_>>(), ids.iter().map(|id| (*id, Cause::Submitted)).collect::<Vec<_>>());
}
