//! The whole engine: how soon a job runs, how fast jobs are dispatched, and what pipelines cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hodei_agent::{Agent, AgentHandle, Context};
use hodei_benches::report::{Goal, Report, Unit, percentile};
use hodei_benches::{BATCH, directory, preload, runtime};
use hodei_core::Name;
use hodei_core::gateway::{News, Offer, Report as Told, SessionState, WorkerGateway};
use hodei_core::job::{Finish, JobKind, JobSpec, JobSpecBuilder, NewJob, Output, Resources, Runs, State};
use hodei_core::pipeline::{Pipeline, PipelineLimits, Step};
use hodei_core::store::{JobStore, MemoryStore, Scope, Store, SubmitOptions};
use hodei_core::text::TextMap;
use hodei_sched::Orchestrator;
use hodei_store_redb::RedbStore;

use crate::{Sizes, elsewhere, floor};

/// Work that only says when it began.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Timed(usize);

impl JobKind for Timed {
    const KIND: &'static str = "timed";
}

/// When each job began, in nanoseconds since the clock was made; 0 when it has not.
#[derive(Debug)]
struct Clock {
    start: Instant,
    began: Vec<AtomicU64>,
}

impl Clock {
    fn new(n: usize) -> Arc<Self> {
        let began = std::iter::repeat_with(AtomicU64::default).take(n).collect();
        Arc::new(Self { start: Instant::now(), began })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn of(&self, n: usize) -> u64 {
        self.began[n].load(Ordering::Acquire)
    }
}

async fn mark(context: Context<Arc<Clock>>, Timed(n): Timed) {
    let clock = context.state();
    clock.began[n].store(clock.now(), Ordering::Release);
}

/// A node with an agent whose handler marks when it begins.
struct Node {
    hodei: Orchestrator,
    agent: AgentHandle,
}

impl Node {
    async fn start(store: Arc<dyn Store>, clock: &Arc<Clock>) -> Self {
        let hodei = Orchestrator::builder().shared_store(store).start().await.expect("the node starts");
        let agent = Agent::builder(hodei.gateway()).slots(512).state(Arc::clone(clock)).handler(mark);
        Self { agent: agent.start().await.expect("the agent starts"), hodei }
    }

    async fn end(self) {
        self.agent.shutdown().await;
        self.hodei.shutdown().await;
    }

    /// Waits until all have begun and ended.
    async fn all(&self, n: usize) {
        while self.hodei.counts().await.expect("counts").of(State::Succeeded) < n as u64 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

fn spec(n: usize) -> JobSpecBuilder {
    JobSpec::of(&Timed(n)).expect("valid arguments")
}

pub(crate) fn idle_figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let files = directory();
    let runs = (sizes.pairs / 1_000).clamp(20, 2_000);
    report.group(&format!("from the call of submit to the handler's first line, idle node, {runs} jobs"));
    let [p50, p99] = percentiles(floor::wake_ups(runs));
    report.show("the machine wakes a thread, p50", p50, Unit::Micros);
    report.show("the machine wakes a thread, p99", p99, Unit::Micros);
    let synced = floor::synced_writes(files.path(), runs).map_err(|error| error.to_string())?;
    let [p50, p99] = percentiles(synced);
    report.show("the machine writes a page and syncs it, p50", p50, Unit::Micros);
    report.show("the machine writes a page and syncs it, p99", p99, Unit::Micros);
    let file = Some(files.path());
    let floors = [
        ("", None, false),
        (" and a synced page between", file, false),
        (" and two synced pages between", file, true),
    ];
    for (what, file, again) in floors {
        let times = runtime().block_on(floor::hops(runs, file, again)).map_err(|error| error.to_string())?;
        let [p50, p99] = percentiles(times);
        report.show(&format!("three bare tasks wake each other{what}, p50"), p50, Unit::Micros);
        report.show(&format!("three bare tasks wake each other{what}, p99"), p99, Unit::Micros);
    }
    let [p50, p99] = idle(Arc::new(MemoryStore::new()), runs);
    report.show("memory store, p50", p50, Unit::Micros);
    report.judge("memory store, p99", p99, Unit::Micros, Goal::AtMost(100.0));
    let store = RedbStore::open(files.path().join("idle.redb")).map_err(|error| error.to_string())?;
    let store: Arc<dyn Store> = Arc::new(store);
    let [p50, p99] = idle(Arc::clone(&store), runs);
    report.show("redb, p50", p50, Unit::Micros);
    report.judge("redb, p99", p99, Unit::Micros, Goal::AtMost(1_000.0));
    let commits = store.stats().commits as f64 / runs as f64;
    report.show("redb, commits for a job, its end among them", commits, Unit::Plain);
    elsewhere::starts(report);
    Ok(())
}

pub(crate) fn dispatch_figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let jobs = (sizes.pairs / 4).clamp(2_000, 300_000);
    report.group(&format!("dispatch of {jobs} jobs to an agent that does nothing, memory store"));
    let mut best = 0.0_f64;
    for _ in 0..sizes.rounds {
        best = best.max(runtime().block_on(dispatch(jobs))?);
    }
    report.judge("jobs", best, Unit::PerSecond, Goal::AtLeast(500_000.0));
    elsewhere::rates(report);
    Ok(())
}

pub(crate) fn percentiles(mut times: Vec<u64>) -> [f64; 2] {
    [50, 99].map(|percent| percentile(&mut times, percent).map_or(f64::NAN, |time| time as f64 / 1e3))
}

/// Submits jobs one by one, each when all is quiet.
fn idle(store: Arc<dyn Store>, runs: usize) -> [f64; 2] {
    runtime().block_on(async {
        let clock = Clock::new(runs);
        let node = Node::start(store, &clock).await;
        let mut times = Vec::with_capacity(runs);
        for n in 0..runs {
            let job = NewJob::new(spec(n).build().expect("a valid spec"));
            let before = clock.now();
            let job = node.hodei.submit(job).await.expect("submitted");
            let ended = node.hodei.wait(job).await.expect("it ends");
            assert_eq!(ended.state, State::Succeeded);
            times.push(clock.of(n).saturating_sub(before));
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        node.end().await;
        percentiles(times)
    })
}

/// What an agent says that runs so many no-ops at once, before its first call.
pub(crate) fn session(slots: u32) -> SessionState {
    let runs = vec![Runs::Handler(Name::literal("noop"))];
    let offer = Offer { runs, capacity: Resources::none(), slots, labels: TextMap::default() };
    SessionState {
        worker: Name::literal("nothing"),
        incarnation: 1,
        seq: 0,
        seen: 0,
        offer: Arc::new(offer),
        running: Vec::new(),
        reports: Vec::new(),
        draining: false,
    }
}

/// Has an agent take whatever it is given and report its end in the next call; returns jobs per second.
async fn dispatch(jobs: usize) -> Result<f64, String> {
    let store = Arc::new(MemoryStore::new());
    preload(&*store, jobs).await;
    let shared: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    let hodei = Orchestrator::builder().shared_store(shared).start().await.expect("the node starts");
    let gateway: Arc<dyn WorkerGateway> = hodei.gateway();
    let mut state = session(8_192);
    let start = Instant::now();
    let (mut taken, mut number) = (0, 0);
    while taken < jobs {
        state.seq += 1;
        // Nothing is lost on the way within a process, so what was said need not be kept.
        let reports = std::mem::take(&mut state.reports);
        let called = SessionState { reports, ..state.clone() };
        let told = gateway.sync(called).await.map_err(|error| error.to_string())?;
        if told.received != number {
            return Err(format!("of {number} reports {} were received", told.received));
        }
        state.seen = told.number;
        taken += told.assign.len();
        for assignment in told.assign {
            number += 1;
            let news = News::Ended(Box::new(Finish::succeeded(Output::none())));
            let (job, epoch) = (assignment.job.id, assignment.job.epoch);
            state.reports.push(Told { number, job, epoch, news });
        }
    }
    let took = start.elapsed();
    state.seq += 1;
    gateway.sync(state).await.map_err(|error| error.to_string())?;
    while store.counts(&Scope::All).await.map_err(|error| error.to_string())?.of(State::Succeeded)
        < jobs as u64
    {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    hodei.stop().await;
    Ok(jobs as f64 / took.as_secs_f64())
}

pub(crate) fn pipelines(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let files = directory();
    let wide = (sizes.preload / 10).max(100);
    report.group(&format!("pipelines: {wide} steps into one, one into {wide}, and a chain; memory store"));
    let (mut plain, mut fan_in, mut fan_out) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..sizes.rounds {
        plain = plain.min(runtime().block_on(jobs(wide)));
        fan_in = fan_in.min(
            runtime().block_on(steps(wide, |n, last| if n == last { (0..n).collect() } else { vec![] })),
        );
        fan_out = fan_out.min(runtime().block_on(steps(wide, |n, _| if n == 0 { vec![] } else { vec![0] })));
    }
    report.show("plain jobs", plain, Unit::Millis);
    report.show("into one", fan_in, Unit::Millis);
    report.judge("  as a multiple of plain jobs", fan_in / plain, Unit::Times, Goal::AtMost(2.0));
    report.show("out of one", fan_out, Unit::Millis);
    report.judge("  as a multiple of plain jobs", fan_out / plain, Unit::Times, Goal::AtMost(2.0));
    let edges = (sizes.pairs / 2_000).clamp(20, 500);
    let [_, p99] = chain(Arc::new(MemoryStore::new()), edges);
    report.judge(
        "from a step's beginning to the next one's, memory, p99",
        p99,
        Unit::Micros,
        Goal::AtMost(1e3),
    );
    let store = RedbStore::open(files.path().join("chain.redb")).map_err(|error| error.to_string())?;
    let [_, p99] = chain(Arc::new(store), edges);
    report.judge(
        "from a step's beginning to the next one's, redb, p99",
        p99,
        Unit::Micros,
        Goal::AtMost(2e3),
    );
    Ok(())
}

/// How long plain jobs take from their submission to the end of the last, in milliseconds.
async fn jobs(n: usize) -> f64 {
    let clock = Clock::new(n);
    let node = Node::start(Arc::new(MemoryStore::new()), &clock).await;
    let jobs: Vec<NewJob> = (0..n).map(|n| NewJob::new(spec(n).build().expect("a valid spec"))).collect();
    let start = Instant::now();
    for batch in jobs.chunks(BATCH) {
        node.hodei.submit_many(batch.to_vec(), SubmitOptions::each()).await.expect("submitted");
    }
    node.all(n).await;
    let took = start.elapsed();
    node.end().await;
    took.as_secs_f64() * 1e3
}

fn pipeline(n: usize, needs: impl Fn(usize, usize) -> Vec<usize>) -> Pipeline {
    let step = |n: usize, last: usize| {
        let step = Step::new(format!("s{n}"), spec(n));
        needs(n, last).into_iter().fold(step, |step, need| step.needs(format!("s{need}")))
    };
    let builder = (0..n).fold(Pipeline::builder("bench"), |pipeline, at| pipeline.step(step(at, n - 1)));
    builder.build_within(&PipelineLimits::default().steps(n).needs(n)).expect("a valid pipeline")
}

/// As [`jobs`], for the steps of a pipeline.
async fn steps(n: usize, needs: impl Fn(usize, usize) -> Vec<usize>) -> f64 {
    let clock = Clock::new(n);
    let node = Node::start(Arc::new(MemoryStore::new()), &clock).await;
    let pipeline = pipeline(n, needs);
    let start = Instant::now();
    node.hodei.submit_pipeline(&pipeline).await.expect("submitted");
    node.all(n).await;
    let took = start.elapsed();
    node.end().await;
    took.as_secs_f64() * 1e3
}

/// The times from the beginning of each step of a chain to that of the next.
fn chain(store: Arc<dyn Store>, n: usize) -> [f64; 2] {
    runtime().block_on(async {
        let clock = Clock::new(n);
        let node = Node::start(store, &clock).await;
        let pipeline = pipeline(n, |n, _| n.checked_sub(1).into_iter().collect());
        node.hodei.submit_pipeline(&pipeline).await.expect("submitted");
        node.all(n).await;
        node.end().await;
        percentiles((1..n).map(|n| clock.of(n).saturating_sub(clock.of(n - 1))).collect())
    })
}
