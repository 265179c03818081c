//! The order of events: per job that of its versions, without a gap, whoever commits (I13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_agent::{Agent, Context};
use hodei_bus::Bus;
use hodei_core::bus::{Delivery, EventBus, EventFilter, Overflow, SubscribeOptions, Subscription};
use hodei_core::event::{Event, JobEvent};
use hodei_core::gateway::{Offer, SessionState};
use hodei_core::job::{JobKind, JobSpec, NewJob, Resources, RetryPolicy, Runs, State};
use hodei_core::store::{
    Change, ChangeSink, Coordination, Fired, JobStore, MemoryStore, Policies, Schedule, Scope, Store,
    SubmitOptions,
};
use hodei_core::text::TextMap;
use hodei_core::{JobId, Name, OwnerId, Tenant, Timestamp};
use hodei_sched::Orchestrator;

/// How many callers submit side by side, how many batches each, and how many jobs a batch has.
const CALLERS: usize = 4;
const BATCHES: usize = 100;
const BATCH: usize = 5;
/// How long a test waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Work {
    fails: bool,
}

impl JobKind for Work {
    const KIND: &'static str = "work";
}

async fn work(_: Context<()>, work: Work) -> Result<(), &'static str> {
    if work.fails { Err("as it was told") } else { Ok(()) }
}

fn job(fails: bool) -> NewJob {
    let spec = JobSpec::of(&Work { fails }).expect("arguments").retry(RetryPolicy::attempts(1));
    NewJob::new(spec.build().expect("a valid spec"))
}

async fn node(store: &Arc<MemoryStore>, bus: &Arc<Bus>) -> Orchestrator {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let bus = Arc::clone(bus) as Arc<dyn EventBus>;
    Orchestrator::builder().shared_store(store).shared_bus(bus).start().await.expect("the node starts")
}

fn listen(bus: &Bus) -> Box<dyn Subscription> {
    // Room for everything that a test makes happen.
    bus.subscribe(EventFilter::all(), SubscribeOptions { overflow: Overflow::Block, capacity: 100_000 })
}

/// Takes in events until so many jobs have ended for good, and returns those of jobs in the order they came.
async fn heard(events: &mut dyn Subscription, ends: usize) -> Vec<JobEvent> {
    let mut heard = Vec::new();
    let mut ended = 0;
    while ended < ends {
        let deliveries = tokio::time::timeout(PATIENCE, events.recv(1_024)).await.expect("more is heard");
        for delivery in deliveries {
            match delivery {
                Delivery::Event(Event::Job(event)) => {
                    ended += usize::from(event.to.is_terminal());
                    heard.push(event);
                }
                Delivery::Event(_) => {}
                missed => panic!("there is room for everything: {missed:?}"),
            }
        }
    }
    heard
}

/// The jobs and versions of events.
fn steps(events: &[JobEvent]) -> Vec<(JobId, u32)> {
    events.iter().map(|event| (event.job, event.version)).collect()
}

/// The jobs and versions of the change log.
async fn logged(store: &MemoryStore) -> Vec<(JobId, u32)> {
    let mut logged = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.changes(&Scope::All, cursor, 1_000).await.expect("changes");
        if page.changes.is_empty() {
            return logged;
        }
        logged.extend(page.changes.iter().map(|change| (change.job, change.version)));
        cursor = Some(page.next);
    }
}

/// A sink that takes its time, so that commits queue up behind it.
#[derive(Debug)]
struct Slow;

impl ChangeSink for Slow {
    fn committed(&self, _: &[Change]) {
        (0..20).for_each(|_| std::thread::yield_now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscriber_sees_each_job_in_the_order_of_its_versions() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Arc::new(Bus::new()));
    let mut events = listen(&bus);
    let _slow = store.feed(Arc::new(Slow));
    let hodei = node(&store, &bus).await;
    let agent = Agent::builder(hodei.gateway()).slots(64).handler(work).start().await.unwrap();
    let callers = (0..CALLERS).map(|caller| {
        let hodei = hodei.clone();
        tokio::spawn(async move {
            for batch in 0..BATCHES {
                let jobs: Vec<NewJob> = (0..BATCH).map(|n| job((caller + batch + n) % 7 == 0)).collect();
                let last = jobs[BATCH - 1].id;
                hodei.submit_many(jobs, SubmitOptions::each()).await.unwrap();
                // It may be pending, leased, running or over: each way another one commits.
                hodei.cancel(last).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let heard = heard(&mut *events, CALLERS * BATCHES * BATCH).await;
    let mut by_job: BTreeMap<JobId, Vec<&JobEvent>> = BTreeMap::new();
    heard.iter().for_each(|event| by_job.entry(event.job).or_default().push(event));
    assert_eq!(by_job.len(), CALLERS * BATCHES * BATCH);
    for (job, events) in &by_job {
        let versions: Vec<u32> = events.iter().map(|event| event.version).collect();
        let expected: Vec<u32> = (1..).take(versions.len()).collect();
        assert_eq!(versions, expected, "of {job}");
        assert!(events.windows(2).all(|pair| pair[1].from == Some(pair[0].to)), "{events:?}");
    }
    assert_eq!(steps(&heard), logged(&store).await, "in the order of the change log, all jobs together");
    agent.shutdown().await;
    hodei.shutdown().await;
}

#[tokio::test]
async fn what_others_commit_on_the_store_is_published_too() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Arc::new(Bus::new()));
    let mut events = listen(&bus);
    let hodei = node(&store, &bus).await;
    let direct = job(false);
    store.submit(vec![direct.clone()], SubmitOptions::each()).await.unwrap();
    let (tenant, name) = (Tenant::default(), Name::literal("daily"));
    let spec = Arc::clone(&direct.spec);
    let daily = Schedule {
        tenant: tenant.clone(),
        name: name.clone(),
        rule: "@daily".into(),
        spec,
        last_fired: None,
    };
    store.set_schedule(daily).await.unwrap();
    let leader = store.register(&OwnerId::new("leader").unwrap(), PATIENCE).await.unwrap();
    let term = store.take_term(&Name::literal("cron"), &leader, PATIENCE).await.unwrap().unwrap();
    let fired = store.fire(&term, &tenant, &name, Timestamp::EPOCH).await.unwrap();
    let Fired::New(fired) = fired else { panic!("it fires: {fired:?}") };
    let waiting = tokio::spawn({
        let hodei = hodei.clone();
        async move { hodei.wait(fired).await.unwrap().state }
    });
    store.request_cancel(&Scope::All, vec![direct.id, fired]).await.unwrap();
    let heard = heard(&mut *events, 2).await;
    assert_eq!(steps(&heard), [(direct.id, 1), (fired, 1), (direct.id, 2), (fired, 2)]);
    assert_eq!(waiting.await.unwrap(), State::Cancelled);
    hodei.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_gone_publishes_nothing_more() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Arc::new(Bus::new()));
    let hodei = node(&store, &bus).await;
    hodei.submit(job(false)).await.unwrap();
    let before = bus.stats().published;
    assert_eq!(before, 1);
    hodei.shutdown().await;
    drop(hodei);
    // The maintenance of the node is told to end; once it has, nobody holds the feed.
    while Arc::strong_count(&bus) > 1 {
        tokio::task::yield_now().await;
    }
    store.submit(vec![job(false)], SubmitOptions::each()).await.unwrap();
    assert_eq!(bus.stats().published, before);
}

#[tokio::test]
async fn a_worker_comes_and_goes_in_each_of_its_lives() {
    let (store, bus) = (Arc::new(MemoryStore::new()), Arc::new(Bus::new()));
    let mut events = listen(&bus);
    let hodei = node(&store, &bus).await;
    let offer = Offer {
        runs: vec![Runs::Command],
        capacity: Resources::none(),
        slots: 1,
        labels: TextMap::default(),
    };
    let offer = Arc::new(offer);
    let mut seen = Vec::new();
    for incarnation in [7, 8] {
        let state = SessionState {
            worker: Name::literal("w"),
            incarnation,
            seq: 1,
            seen: 0,
            offer: Arc::clone(&offer),
            running: Vec::new(),
            reports: Vec::new(),
            draining: false,
        };
        let gateway = hodei.gateway();
        let call = tokio::spawn(async move { gateway.sync(state).await });
        while seen.last() != Some(&(incarnation, true)) {
            for delivery in tokio::time::timeout(PATIENCE, events.recv(10)).await.unwrap() {
                let Delivery::Event(Event::Worker(event)) = delivery else { panic!("{delivery:?}") };
                seen.push((event.incarnation, event.connected));
            }
        }
        call.abort();
    }
    assert_eq!(seen, [(7, true), (7, false), (8, true)]);
    hodei.shutdown().await;
}
