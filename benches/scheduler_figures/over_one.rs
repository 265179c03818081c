//! Several dispatchers over one store: what they claim beside each other, and that no worker has more than it offers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_benches::report::{Goal, Report, Unit};
use hodei_benches::{BATCH, Noop, runtime};
use hodei_core::gateway::{News, Offer, Report as Told, RunningJob, WorkerGateway};
use hodei_core::job::{Finish, JobSpec, NewJob, Output, Resources, State};
use hodei_core::store::{JobStore, MemoryStore, Scope, Store, SubmitOptions};
use hodei_core::{JobId, Name, Tenant};
use hodei_sched::Orchestrator;

use crate::Sizes;
use crate::engine::session;

/// What a job takes of a worker, and what a worker has: of its CPU less than of its slots.
const JOB: u64 = 100;
const SLOTS: u32 = 4_096;
const CPU: u64 = JOB * 2_048;
/// So many workers are connected, by turns to each node.
const WORKERS: usize = 8;
/// A worker ends so many of its jobs at a call.
const ENDS: usize = 512;

/// Over how many lanes the jobs lie, each that of a tenant.
const LANES: [usize; 2] = [1, 100];

/// How many nodes there are, and of how many dispatchers each.
const WAYS: [(&str, usize, usize); 3] =
    [("one dispatcher", 1, 1), ("a node of two", 1, 2), ("two nodes of one", 2, 1)];

pub(crate) fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let jobs = (sizes.pairs / 8).clamp(2_000, 200_000);
    report.group(&format!("{jobs} jobs to {WORKERS} workers that do nothing, over one memory store"));
    for lanes in LANES {
        for (name, nodes, dispatchers) in WAYS {
            let (mut best, mut worst) = (0.0_f64, 0.0_f64);
            for _ in 0..sizes.rounds {
                let ran = runtime().block_on(run(jobs, lanes, nodes, dispatchers))?;
                best = best.max(jobs as f64 / ran.took.as_secs_f64());
                worst = worst.max((ran.asked - ran.came) as f64 / ran.asked.max(1) as f64);
            }
            report.show(&format!("{name}, {lanes} lanes"), best, Unit::PerSecond);
            report.judge("  asked of the store in vain, at worst", worst, Unit::Percent, Goal::AtMost(0.02));
        }
    }
    Ok(())
}

/// How a run went.
struct Ran {
    took: Duration,
    /// For how many jobs the store was asked, and how many it gave.
    asked: u64,
    came: u64,
}

fn jobs_in(lanes: usize, n: usize) -> Vec<NewJob> {
    let spec = JobSpec::of(&Noop {}).expect("valid arguments");
    let spec = Arc::new(spec.resources(Resources::none().cpu_millis(JOB)).build().expect("a valid spec"));
    let tenants: Vec<Tenant> =
        (0..lanes).map(|n| Tenant::new(format!("tenant-{n}")).expect("a name")).collect();
    (0..n).map(|n| NewJob::of(tenants[n % lanes].clone(), Arc::clone(&spec))).collect()
}

async fn run(jobs: usize, lanes: usize, nodes: usize, dispatchers: usize) -> Result<Ran, String> {
    let store = Arc::new(MemoryStore::new());
    for batch in jobs_in(lanes, jobs).chunks(BATCH) {
        store.submit(batch.to_vec(), SubmitOptions::each()).await.map_err(|error| error.to_string())?;
    }
    let mut running = Vec::new();
    for n in 0..nodes {
        let shared: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        let name = Name::new(format!("node-{n}")).map_err(|error| error.to_string())?;
        let builder =
            Orchestrator::builder().shared_store(shared).node(name.as_str()).dispatchers(dispatchers);
        running.push(builder.start().await.map_err(|error| error.to_string())?);
    }
    let start = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| tokio::spawn(work(n, running[n % nodes].gateway(), Arc::clone(&store), jobs as u64)))
        .collect();
    for worker in workers {
        worker.await.map_err(|error| error.to_string())??;
    }
    let took = start.elapsed();
    let mut ran = Ran { took, asked: 0, came: 0 };
    for node in running {
        let claims = node.snapshot().await.map_err(|error| error.to_string())?.claims;
        (ran.asked, ran.came) = (ran.asked + claims.asked, ran.came + claims.came);
        node.stop().await;
    }
    if ran.came < jobs as u64 {
        return Err(format!("of {jobs} jobs {} were claimed", ran.came));
    }
    Ok(ran)
}

/// A worker that ends some of what it has with each call, until all jobs have ended. It holds what it is given to what it
/// offers.
async fn work(
    n: usize,
    gateway: Arc<dyn WorkerGateway>,
    store: Arc<MemoryStore>,
    jobs: u64,
) -> Result<(), String> {
    let mut state = session(SLOTS);
    let offer = Offer { capacity: Resources::none().cpu_millis(CPU), ..(*state.offer).clone() };
    state.worker = Name::new(format!("worker-{n}")).map_err(|error| error.to_string())?;
    state.offer = Arc::new(offer);
    let (mut has, mut number) = (HashMap::<JobId, Told>::new(), 0);
    loop {
        state.seq += 1;
        let mut call = std::pin::pin!(gateway.sync(state.clone()));
        // A call without news is answered after seconds; all may have ended by then.
        let told = loop {
            if let Ok(told) = tokio::time::timeout(Duration::from_millis(5), &mut call).await {
                break told;
            }
            let counts = store.counts(&Scope::All).await.map_err(|error| error.to_string())?;
            if counts.of(State::Succeeded) >= jobs {
                return Ok(());
            }
        };
        let told = told.map_err(|error| error.to_string())?;
        state.seen = told.number;
        state.reports.retain(|report| report.number > told.received);
        for assignment in told.assign {
            let (job, epoch) = (assignment.job.id, assignment.job.epoch);
            let news = News::Ended(Box::new(Finish::succeeded(Output::none())));
            if has.insert(job, Told { number: 0, job, epoch, news }).is_some() {
                return Err(format!("job {job} was given twice to worker {n}"));
            }
        }
        if has.len() > SLOTS as usize || has.len() as u64 * JOB > CPU {
            return Err(format!("worker {n} has {} jobs, which is more than it offers", has.len()));
        }
        let ends: Vec<JobId> = has.keys().take(ENDS).copied().collect();
        for report in ends.iter().filter_map(|job| has.remove(job)) {
            number += 1;
            state.reports.push(Told { number, ..report });
        }
        state.running = running(&has);
    }
}

fn running(has: &HashMap<JobId, Told>) -> Vec<RunningJob> {
    let run = |told: &Told| RunningJob {
        job: told.job,
        epoch: told.epoch,
        progress: None,
        tenant: Tenant::default(),
        queue: Name::literal("default"),
        resources: Resources::none(),
        beside: None,
    };
    has.values().map(run).collect()
}
