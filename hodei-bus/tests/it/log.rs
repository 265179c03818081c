//! Events that come out of the change log: followed without a gap, tailed, and published in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_bus::{BatchOptions, BatchingPublisher, Bus, Follow, Replay, Tail, TailOptions};
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions};
use hodei_core::event::{Event, JobEvent, WorkerEvent};
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{Change, ChangeSink, Cursor, JobStore, MemoryStore, Scope, SubmitOptions};
use hodei_core::{ErrorKind, JobId, Name, Tenant, Timestamp};

use crate::odd::Odd;

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn jobs(n: usize) -> Vec<NewJob> {
    (0..n).map(|_| NewJob::new(JobSpec::command(["true"]).build().unwrap())).collect()
}

fn in_queue(queue: &'static str) -> NewJob {
    NewJob::new(JobSpec::command(["true"]).queue(Name::literal(queue)).build().unwrap())
}

/// Publishes what a store commits, as a node does.
#[derive(Debug)]
struct Herald(Bus);

impl ChangeSink for Herald {
    fn committed(&self, changes: &[Change]) {
        self.0.publish_changes(changes);
    }
}

fn of_job(event: Event) -> JobEvent {
    match event {
        Event::Job(event) => event,
        other => panic!("only jobs are published here: {other:?}"),
    }
}

async fn followed(follow: &mut Follow, n: usize) -> Vec<(JobId, u32)> {
    let mut events = Vec::new();
    while events.len() < n {
        let more = tokio::time::timeout(PATIENCE, follow.next(100)).await.expect("more comes").unwrap();
        assert!(!more.is_empty());
        events.extend(more.into_iter().map(of_job).map(|event| (event.job, event.version)));
    }
    events
}

async fn logged(store: &MemoryStore) -> Vec<(JobId, u32)> {
    let (mut logged, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.changes(&Scope::All, cursor, 1_000).await.unwrap();
        if page.changes.is_empty() {
            return logged;
        }
        logged.extend(page.changes.iter().map(|change| (change.job, change.version)));
        cursor = Some(page.next);
    }
}

/// Each job once per version, in their order.
fn check(events: &[(JobId, u32)], jobs: usize, versions: u32) {
    let mut last: HashMap<JobId, u32> = HashMap::new();
    for (job, version) in events {
        let before = last.insert(*job, *version).unwrap_or(0);
        assert_eq!(*version, before + 1, "of {job}");
    }
    assert_eq!(last.len(), jobs);
    assert!(last.values().all(|version| *version == versions));
}

async fn submit_and_cancel(store: &MemoryStore, batches: usize, batch: usize) {
    for _ in 0..batches {
        let jobs = jobs(batch);
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        store.submit(jobs, SubmitOptions::each()).await.unwrap();
        store.request_cancel(&Scope::All, ids).await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_follower_misses_and_repeats_nothing_however_slow_it_is() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Bus::new());
    let _feed = store.feed(Arc::new(Herald(bus.clone())));
    submit_and_cancel(&store, 3, 50).await;
    let mut follow = Follow::new(&bus, Arc::clone(&store) as Arc<dyn JobStore>, Scope::All, None);
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { submit_and_cancel(&store, 300, 50).await }
    });
    let mut events = followed(&mut follow, 1_000).await;
    // It stands still until the bus has dropped events, and once more later on.
    writer.await.unwrap();
    events.extend(followed(&mut follow, 9_000).await);
    submit_and_cancel(&store, 30, 50).await;
    events.extend(followed(&mut follow, 2 * 333 * 50 - events.len()).await);
    check(&events, 333 * 50, 2);
    let log = logged(&store).await;
    let differs = events.iter().zip(&log).position(|(event, change)| event != change);
    assert_eq!((differs, events.len()), (None, log.len()), "in the order of the log");
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_taken() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Bus::new());
    let _feed = store.feed(Arc::new(Herald(bus.clone())));
    let open =
        |after: Option<Cursor>| Follow::new(&bus, Arc::clone(&store) as Arc<dyn JobStore>, Scope::All, after);
    let mut follow = open(None);
    let (mut events, mut cursor) = (Vec::new(), None);
    for round in 0..20 {
        submit_and_cancel(&store, 7, 10).await;
        events.extend(followed(&mut follow, 90 + round).await);
        cursor = follow.cursor().cloned();
        drop(follow);
        follow = open(cursor.clone());
    }
    events.extend(followed(&mut follow, 2 * 20 * 70 - events.len()).await);
    check(&events, 20 * 70, 2);
    assert!(cursor.is_some());
}

/// What the bus of a node tells is not in the order of the log, and may be told before it can be read there.
#[tokio::test]
async fn a_follower_goes_by_the_log_whatever_the_bus_tells() {
    let odd = Arc::new(Odd { held: 3.into(), ..Odd::default() });
    let bus = Bus::new();
    let store = Arc::clone(&odd) as Arc<dyn JobStore>;
    let mut follow = Follow::new(&bus, Arc::clone(&store), Scope::All, None).every(PATIENCE);
    submit_and_cancel(&odd.store, 1, 2).await;
    let log = logged(&odd.store).await;
    let page = store.changes(&Scope::All, None, 10).await.unwrap();
    assert!(page.changes.is_empty(), "it cannot be read yet");
    let page = odd.store.changes(&Scope::All, None, 10).await.unwrap();
    // The last version first, and then again.
    for change in page.changes.iter().rev().chain(&page.changes) {
        bus.publish_changes(std::slice::from_ref(change));
    }
    assert_eq!(followed(&mut follow, 4).await, log);
    // No sign of what comes next but the first.
    odd.held.store(5, std::sync::atomic::Ordering::Relaxed);
    bus.publish_changes(&page.changes[..1]);
    let later = tokio::spawn(async move { followed(&mut follow, 4).await });
    tokio::task::yield_now().await;
    submit_and_cancel(&odd.store, 1, 2).await;
    assert_eq!(later.await.unwrap(), logged(&odd.store).await[4..]);
}

#[tokio::test(start_paused = true)]
async fn what_the_bus_never_tells_is_followed_in_time_and_seldom_asked_for() {
    let (odd, bus) = (Arc::new(Odd::default()), Bus::new());
    let store = Arc::clone(&odd) as Arc<dyn JobStore>;
    let mut follow = Follow::new(&bus, store, Scope::All, None);
    let waiting = tokio::spawn(async move { (followed(&mut follow, 2).await, follow) });
    tokio::time::sleep(Duration::from_secs(50)).await;
    let reads = odd.reads.load(std::sync::atomic::Ordering::Relaxed);
    assert!((50..70).contains(&reads), "{reads}");
    submit_and_cancel(&odd.store, 1, 1).await;
    let (events, mut follow) = tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap();
    assert_eq!(events, logged(&odd.store).await);
    bus.try_publish(&[worker(7)]).unwrap();
    assert_eq!(follow.next(10).await.unwrap(), [worker(7)]);
    drop(bus);
    assert_eq!(follow.next(10).await.unwrap(), []);
}

/// Of a tenant pages may be empty long before the end.
#[tokio::test]
async fn a_tenant_is_followed_and_replayed_past_the_changes_of_others() {
    let (odd, bus) = (Arc::new(Odd { short: true, ..Odd::default() }), Bus::new());
    let other = |n| NewJob { tenant: Tenant::new(format!("other{n}")).unwrap(), ..jobs(1).remove(0) };
    let ours = jobs(2);
    let ids: Vec<JobId> = ours.iter().map(|job| job.id).collect();
    for (n, job) in ours.into_iter().enumerate() {
        odd.store.submit(vec![other(n), job, other(n + 10)], SubmitOptions::each()).await.unwrap();
    }
    let scope = Scope::Tenant(Tenant::default());
    let mut replay = Replay::from_start(Arc::clone(&odd) as Arc<dyn JobStore>, scope.clone());
    let mut replayed = Vec::new();
    loop {
        let events = replay.next(10).await.unwrap();
        if events.is_empty() {
            break;
        }
        replayed.extend(events.into_iter().map(|event| of_job(event).job));
    }
    assert_eq!(replayed, ids);
    let mut follow = Follow::new(&bus, Arc::clone(&odd) as Arc<dyn JobStore>, scope, None);
    assert_eq!(followed(&mut follow, 2).await, ids.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
}

/// Everybody is told, and goes on behind it.
#[tokio::test]
async fn a_tail_that_comes_too_late_tells_of_a_gap() {
    let (odd, bus) = (Arc::new(Odd::default()), Bus::new());
    let tail = Tail::start(bus.clone(), Arc::clone(&odd) as Arc<dyn JobStore>, TailOptions::default()).await;
    let tail = tail.unwrap();
    let filters = [EventFilter::all(), EventFilter::all().tenant(Tenant::default())];
    let mut heard = filters.map(|filter| bus.subscribe(filter, SubscribeOptions::default()));
    odd.store.submit(jobs(1), SubmitOptions::each()).await.unwrap();
    for subscription in &mut heard {
        assert!(matches!(subscription.recv(1).await[..], [Delivery::Event(_)]));
    }
    odd.expired.store(true, std::sync::atomic::Ordering::Relaxed);
    for subscription in &mut heard {
        assert_eq!(subscription.recv(10).await, [Delivery::Lagged { missed: 1 }]);
        assert_eq!(subscription.stats().missed, 1);
    }
    odd.store.submit(jobs(1), SubmitOptions::each()).await.unwrap();
    for subscription in &mut heard {
        assert!(matches!(subscription.recv(1).await[..], [Delivery::Event(_)]));
    }
    assert!(tail.cursor().is_some());
}

/// One subscriber that is never read and one that fails publishers: a healthy one hears everything all the same.
#[tokio::test(start_paused = true)]
async fn a_tail_waits_for_a_stuck_subscriber_so_long_and_no_longer() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Bus::new());
    let wait = Duration::from_secs(5);
    let options = TailOptions { wait, ..TailOptions::default() };
    let _tail = Tail::start(bus.clone(), Arc::clone(&store) as Arc<dyn JobStore>, options).await.unwrap();
    let all = EventFilter::all;
    let capacity = |overflow, capacity| SubscribeOptions { overflow, capacity };
    let mut fails = [all(), all().tenant(Tenant::default())]
        .map(|filter| bus.subscribe(filter, capacity(Overflow::Fail, 10)));
    let mut healthy = bus.subscribe(all(), capacity(Overflow::Block, 64));
    submit_and_cancel(&store, 1, 500).await;
    let mut count = 0;
    while count < 1_000 {
        let heard = healthy.recv(10).await;
        assert!(heard.iter().all(|delivery| matches!(delivery, Delivery::Event(_))), "nothing is missed");
        count += heard.len();
    }
    for fails in &mut fails {
        assert_eq!(fails.try_recv(100).pop(), Some(Delivery::Lagged { missed: 990 }));
    }
    // From here on nobody hears anything of the stuck one until the wait is over.
    let mut stuck = bus.subscribe(all(), capacity(Overflow::Block, 10));
    let start = tokio::time::Instant::now();
    submit_and_cancel(&store, 1, 500).await;
    let mut count = 0;
    while count < 1_000 {
        for delivery in healthy.recv(10).await {
            match delivery {
                Delivery::Event(_) => count += 1,
                Delivery::Lagged { missed } => count += missed,
                Delivery::Disconnected { .. } => panic!("it is not cut off"),
            }
        }
    }
    assert!((wait..2 * wait).contains(&start.elapsed()), "{:?}", start.elapsed());
    // Once is enough: who has not read its gap is not waited for again.
    let start = tokio::time::Instant::now();
    submit_and_cancel(&store, 1, 100).await;
    let mut count = 0;
    while count < 200 {
        let heard = healthy.recv(10).await;
        assert!(heard.iter().all(|delivery| matches!(delivery, Delivery::Event(_))), "nothing is missed");
        count += heard.len();
    }
    assert!(start.elapsed() < wait, "{:?}", start.elapsed());
    let mut heard = stuck.try_recv(100);
    assert_eq!((heard.len(), heard.pop()), (11, Some(Delivery::Lagged { missed: 1_190 })));
}

/// Who asks for a queue while the tail waits in the middle of a page hears the rest of it.
#[tokio::test]
async fn a_queue_that_is_asked_for_meanwhile_is_looked_up() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Bus::new());
    let options = TailOptions { wait: PATIENCE, ..TailOptions::default() };
    let _tail = Tail::start(bus.clone(), Arc::clone(&store) as Arc<dyn JobStore>, options).await.unwrap();
    let options = SubscribeOptions { overflow: Overflow::Block, capacity: 10 };
    let mut slow = bus.subscribe(EventFilter::all(), options);
    let jobs: Vec<NewJob> = (0..30).map(|_| in_queue("urgent")).collect();
    store.submit(jobs, SubmitOptions::each()).await.unwrap();
    while slow.stats().depth < 10 {
        tokio::task::yield_now().await;
    }
    let mut urgent =
        bus.subscribe(EventFilter::all().queue(Name::literal("urgent")), SubscribeOptions::default());
    let (mut taken, mut heard) = (0, 0);
    while taken < 30 || heard < 20 {
        tokio::select! {
            events = slow.recv(3) => taken += events.len(),
            events = urgent.recv(3) => heard += events.len(),
        }
    }
    assert_eq!((taken, heard, urgent.try_recv(10).len()), (30, 20, 0));
}

/// Two nodes on one store: each has a tail, and each hears both.
#[tokio::test]
async fn tails_turn_the_buses_of_two_nodes_into_one() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Bus::new(), Bus::new());
    let tail = |bus: &Bus| {
        let store = Arc::clone(&store) as Arc<dyn JobStore>;
        Tail::start(bus.clone(), store, TailOptions::default())
    };
    let (tail_a, tail_b) = (tail(&a).await.unwrap(), tail(&b).await.unwrap());
    let _feed = store.feed(Arc::new(Through(tail_a.bus())));
    let options = SubscribeOptions { overflow: Overflow::Block, capacity: 64 };
    let mut heard = [&a, &b].map(|bus| bus.subscribe(EventFilter::all(), options));
    let mut urgent = b.subscribe(EventFilter::all().queue(Name::literal("urgent")), options);
    submit_and_cancel(&store, 5, 20).await;
    let wanted = in_queue("urgent");
    let id = wanted.id;
    store.submit(vec![in_queue("slow"), wanted], SubmitOptions::each()).await.unwrap();
    let log = logged(&store).await;
    for subscription in &mut heard {
        let mut events = Vec::new();
        while events.len() < log.len() {
            for delivery in tokio::time::timeout(PATIENCE, subscription.recv(100)).await.unwrap() {
                let Delivery::Event(event) = delivery else { panic!("nothing is missed: {delivery:?}") };
                let event = of_job(event);
                events.push((event.job, event.version));
            }
        }
        assert!(events == log, "in the order of the log");
    }
    let Delivery::Event(event) = urgent.recv(10).await.remove(0) else { panic!("an event") };
    assert_eq!(of_job(event).job, id);
    while tail_b.cursor() != Some(store.changes_end().await.unwrap()) {
        tokio::task::yield_now().await;
    }
}

#[derive(Debug)]
struct Through(hodei_bus::Tailed);

impl ChangeSink for Through {
    fn committed(&self, changes: &[Change]) {
        self.0.publish_changes(changes);
    }
}

#[tokio::test]
async fn filters_by_queue_and_pipeline_see_what_is_told_as_it_happens() {
    let (store, bus) = (MemoryStore::new(), Bus::new());
    let _feed = store.feed(Arc::new(Herald(bus.clone())));
    let options = SubscribeOptions::default;
    let mut urgent = bus.subscribe(EventFilter::all().queue(Name::literal("urgent")), options());
    let pipeline = hodei_core::pipeline::Pipeline::builder("p");
    let step = hodei_core::pipeline::Step::new("only", JobSpec::command(["true"]));
    let pipeline = pipeline.step(step).build().unwrap();
    let mut steps = bus.subscribe(EventFilter::all().pipeline(pipeline.id()), options());
    let wanted = in_queue("urgent");
    let (id, step) = (wanted.id, pipeline.jobs()[0].id);
    store.submit(vec![wanted, in_queue("other")], SubmitOptions::each()).await.unwrap();
    store.submit(pipeline.jobs().to_vec(), SubmitOptions::atomic()).await.unwrap();
    let jobs = |deliveries: Vec<Delivery>| -> Vec<JobId> {
        let event = |delivery| match delivery {
            Delivery::Event(event) => of_job(event).job,
            other => panic!("{other:?}"),
        };
        deliveries.into_iter().map(event).collect()
    };
    assert_eq!((jobs(urgent.try_recv(10)), jobs(steps.try_recv(10))), (vec![id], vec![step]));
}

fn worker(incarnation: u64) -> Event {
    let worker = Name::literal("w");
    Event::Worker(WorkerEvent { worker, incarnation, at: Timestamp::EPOCH, connected: true })
}

fn incarnations(deliveries: Vec<Delivery>) -> Vec<u64> {
    let number = |delivery| match delivery {
        Delivery::Event(Event::Worker(event)) => event.incarnation,
        other => panic!("{other:?}"),
    };
    deliveries.into_iter().map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_published_when_it_is_full_when_it_is_time_and_when_it_is_dropped() {
    let bus = Arc::new(Bus::new());
    let mut heard = bus.subscribe(EventFilter::all(), SubscribeOptions::default());
    let options = BatchOptions { size: 3, ..BatchOptions::default() };
    let publisher = BatchingPublisher::new(Arc::clone(&bus) as Arc<dyn EventBus>, options);
    for n in 0..4 {
        publisher.push(worker(n)).await.unwrap();
    }
    assert_eq!(incarnations(heard.try_recv(10)), [0, 1, 2]);
    assert_eq!(incarnations(heard.recv(10).await), [3]);
    publisher.push(worker(4)).await.unwrap();
    publisher.push(worker(5)).await.unwrap();
    drop(publisher);
    assert_eq!(incarnations(heard.try_recv(10)), [4, 5]);
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_cannot_publish_it_holds_on_to() {
    let bus = Arc::new(Bus::new());
    let options = SubscribeOptions { overflow: Overflow::Block, capacity: 2 };
    let mut heard = bus.subscribe(EventFilter::all().tenant(Tenant::default()), SubscribeOptions::default());
    let mut full = bus.subscribe(EventFilter::all(), options);
    let options = BatchOptions { size: 2, ..BatchOptions::default() };
    let publisher = BatchingPublisher::new(Arc::clone(&bus) as Arc<dyn EventBus>, options);
    let mut accepted = Vec::new();
    for n in 0..8 {
        match publisher.push(worker(n)).await {
            Ok(()) => accepted.push(n),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        }
    }
    assert!(accepted.len() <= 6, "{accepted:?}");
    let mut numbers = Vec::new();
    while numbers.len() < accepted.len() {
        let taken = incarnations(full.recv(10).await);
        numbers.extend(taken);
        let _ = tokio::time::timeout(Duration::from_secs(1), publisher.flush()).await;
    }
    assert_eq!(numbers, accepted);
    assert_eq!(heard.try_recv(10), []);
}

/// The timer finds a subscriber full, and nothing is pushed any more.
#[tokio::test(start_paused = true)]
async fn a_batch_that_was_refused_is_tried_again() {
    let bus = Arc::new(Bus::new());
    let options = SubscribeOptions { overflow: Overflow::Fail, capacity: 1 };
    let mut heard = bus.subscribe(EventFilter::all(), options);
    bus.try_publish(&[worker(0)]).unwrap();
    let publisher = BatchingPublisher::new(Arc::clone(&bus) as Arc<dyn EventBus>, BatchOptions::default());
    publisher.push(worker(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(incarnations(heard.try_recv(10)), [0]);
    let later = tokio::time::timeout(Duration::from_secs(1), heard.recv(10)).await;
    assert_eq!(incarnations(later.expect("it comes")), [1]);
}

/// However many wait for their turn, each waits as long as it was told to.
#[tokio::test(start_paused = true)]
async fn publishers_of_a_batch_share_one_wait() {
    let bus = Arc::new(Bus::new());
    let stuck =
        bus.subscribe(EventFilter::all(), SubscribeOptions { overflow: Overflow::Block, capacity: 1 });
    let wait = Duration::from_secs(10);
    let options = BatchOptions { size: 2, wait, ..BatchOptions::default() };
    let publisher = Arc::new(BatchingPublisher::new(Arc::clone(&bus) as Arc<dyn EventBus>, options));
    for n in 0..2 {
        publisher.push(worker(n)).await.unwrap();
    }
    let start = tokio::time::Instant::now();
    let pushers: Vec<_> = (2..10)
        .map(|n| {
            let publisher = Arc::clone(&publisher);
            tokio::spawn(async move { publisher.push(worker(n)).await })
        })
        .collect();
    let mut refused = 0;
    for pusher in pushers {
        refused += usize::from(pusher.await.unwrap().is_err());
    }
    assert!(refused >= 6 && start.elapsed() < wait * 3, "{refused} after {:?}", start.elapsed());
    drop(stuck);
}
