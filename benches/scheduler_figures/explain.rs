//! How soon somebody is told why a job does not run.

use std::sync::Arc;
use std::time::Instant;

use hodei_benches::report::{Goal, Report, Unit};
use hodei_benches::{BATCH, Noop, directory, runtime};
use hodei_core::gateway::WorkerGateway;
use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{Limit, MemoryStore, Store, SubmitOptions};
use hodei_core::{Name, Tenant};
use hodei_sched::{Explanation, Orchestrator};
use hodei_store_redb::RedbStore;

use crate::engine::{percentiles, session};
use crate::{Sizes, queue::Draw};

/// How many jobs the worker runs, none of which ends.
const SLOTS: u32 = 512;

/// How many limits of keys a tenant has.
const KEYS: usize = 10_000;

/// Over how many lanes the jobs lie: of so many queues of so many tenants.
const LANES: [(usize, usize); 2] = [(1, 1), (10, 100)];

pub(crate) fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let (queued, asked) = (sizes.preload, (sizes.pairs / 200).clamp(20, 5_000));
    report.group(&format!("why a job waits, {queued} jobs queued, all slots taken, {asked} asked for"));
    for lanes in LANES {
        let n = lanes.0 * lanes.1;
        let times = runtime().block_on(explain(Arc::new(MemoryStore::new()), lanes, queued, asked))?;
        show(&format!("memory store, {n} lanes"), times, report);
        let files = directory();
        let store = RedbStore::open(files.path().join("explain.redb")).map_err(|error| error.to_string())?;
        let times = runtime().block_on(explain(Arc::new(store), lanes, queued, asked))?;
        show(&format!("redb, {n} lanes"), times, report);
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let times = runtime().block_on(among_limits(Arc::clone(&store), queued, asked))?;
    show(&format!("memory store, 1 lane, {KEYS} limits of the tenant"), times, report);
    let files = directory();
    let store = RedbStore::open(files.path().join("limits.redb")).map_err(|error| error.to_string())?;
    let times = runtime().block_on(among_limits(Arc::new(store), queued, asked))?;
    show(&format!("redb, 1 lane, {KEYS} limits of the tenant"), times, report);
    Ok(())
}

/// As [`explain`] in one lane, where the tenant has many limits.
async fn among_limits(store: Arc<dyn Store>, queued: usize, asked: usize) -> Result<Vec<u64>, String> {
    let tenant = Tenant::new("tenant-0").map_err(|error| error.to_string())?;
    for n in 0..KEYS {
        let key = Name::new(format!("key-{n}")).map_err(|error| error.to_string())?;
        let limit = Limit::key(tenant.clone(), key, 1);
        store.set_limit(limit).await.map_err(|error| error.to_string())?;
    }
    explain(store, LANES[0], queued, asked).await
}

fn show(what: &str, times: Vec<u64>, report: &mut Report) {
    let [p50, p99] = percentiles(times);
    report.show(&format!("{what}, p50"), p50, Unit::Micros);
    report.judge(&format!("{what}, p99"), p99, Unit::Micros, Goal::AtMost(1e3));
}

/// Makes jobs that lie in lanes in turn.
fn jobs_in((tenants, queues): (usize, usize), n: usize) -> Vec<NewJob> {
    let tenants: Vec<Tenant> =
        (0..tenants).map(|n| Tenant::new(format!("tenant-{n}")).expect("a name")).collect();
    let spec = |n: usize| {
        let spec = JobSpec::of(&Noop {}).expect("valid arguments").queue(format!("queue-{n}"));
        Arc::new(spec.build().expect("a valid spec"))
    };
    let specs: Vec<Arc<JobSpec>> = (0..queues).map(spec).collect();
    let job = |n: usize| {
        let (tenant, spec) = (&tenants[n / queues % tenants.len()], &specs[n % queues]);
        NewJob::of(tenant.clone(), Arc::clone(spec))
    };
    (0..n).map(job).collect()
}

/// Asks why jobs wait that are drawn from all; returns how long each answer took, in nanoseconds.
async fn explain(
    store: Arc<dyn Store>,
    lanes: (usize, usize),
    queued: usize,
    asked: usize,
) -> Result<Vec<u64>, String> {
    let queue = jobs_in(lanes, queued);
    for batch in queue.chunks(BATCH) {
        store.submit(batch.to_vec(), SubmitOptions::each()).await.map_err(|error| error.to_string())?;
    }
    let hodei =
        Orchestrator::builder().shared_store(store).start().await.map_err(|error| error.to_string())?;
    let gateway: Arc<dyn WorkerGateway> = hodei.gateway();
    let mut state = session(SLOTS);
    let mut taken = 0;
    while taken < SLOTS as usize {
        state.seq += 1;
        let told = gateway.sync(state.clone()).await.map_err(|error| error.to_string())?;
        state.seen = told.number;
        taken += told.assign.len();
    }
    let (mut draw, mut times) = (Draw(19), Vec::with_capacity(asked));
    while times.len() < asked {
        let job = &queue[usize::try_from(draw.next() % queue.len() as u64).unwrap_or(0)];
        let start = Instant::now();
        let why = hodei.explain(job.id).await.map_err(|error| error.to_string())?;
        let took = start.elapsed();
        match why {
            Explanation::Busy { .. } => times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
            // One of those that have a slot.
            Explanation::Leased(_) => {}
            why => return Err(format!("a job that waits for a slot is explained so: {why}")),
        }
    }
    hodei.stop().await;
    Ok(times)
}
