//! Events that come out of the change log: followed without a gap, tailed, and published in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_bus::{BatchOptions, BatchingPublisher, Bus, Follow, Tail, TailOptions};
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions};
use hodei_core::event::{Event, JobEvent, WorkerEvent};
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{Change, ChangeSink, Cursor, JobStore, MemoryStore, Scope, SubmitOptions};
use hodei_core::{ErrorKind, JobId, Name, Tenant, Timestamp};

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
        cursor = follow.cursor().await.unwrap();
        drop(follow);
        follow = open(cursor.clone());
    }
    events.extend(followed(&mut follow, 2 * 20 * 70 - events.len()).await);
    check(&events, 20 * 70, 2);
    assert!(cursor.is_some());
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
    let mut refused = 0;
    for n in 0..8 {
        if let Err(error) = publisher.push(worker(n)).await {
            assert_eq!(error.kind(), ErrorKind::Timeout);
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
    let mut numbers = Vec::new();
    while numbers.len() < 8 - refused {
        let taken = incarnations(full.recv(10).await);
        numbers.extend(taken);
        let _ = tokio::time::timeout(Duration::from_secs(1), publisher.flush()).await;
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(heard.try_recv(10), []);
}
