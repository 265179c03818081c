//! What a snapshot that stays open and readers that take long do to a steady load: nothing that was settled can be cleared
//! away as long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_benches::Node;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::{NewJob, State};
use hodei_core::store::SubmitOptions;
use hodei_sched::Orchestrator;
use hodei_test_servers::{Database, Postgres};

use crate::Sizes;
use crate::world::{self, Numbered, SLOTS, percentile};

/// How many jobs are submitted in a second, and how often some are.
const RATE: usize = 800;
const EVERY: Duration = Duration::from_millis(10);
/// How many jobs come at once.
const TOGETHER: usize = RATE / 100;
const READERS: usize = 3;
/// By when the snapshot and all readers have begun.
const BEGUN: Duration = Duration::from_secs(60);
/// How long a transaction of a reader takes.
const READ: Duration = Duration::from_secs(10);

/// When jobs were submitted, and how long each waited.
#[derive(Debug)]
struct Waits {
    start: Instant,
    waited: Mutex<Vec<Duration>>,
}

/// Its number is when it was submitted, in microseconds since the start.
async fn note(context: Context<Arc<Waits>>, Numbered(submitted): Numbered) {
    let waits = context.state();
    let waited = waits.start.elapsed().saturating_sub(Duration::from_micros(submitted as u64));
    waits.waited.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
}

/// What a steady load came to.
struct Served {
    /// Jobs settled in a second.
    rate: f64,
    p50: f64,
    p99: f64,
}

/// Submits at a steady rate for a while; returns how many were settled by then.
async fn serve(database: &Database, time: Duration) -> Result<Served, String> {
    let waits = Arc::new(Waits { start: Instant::now(), waited: Mutex::default() });
    let store = Arc::new(world::open(database.url()).await?);
    let hodei = Orchestrator::builder().shared_store(store).start().await;
    let hodei = hodei.map_err(|error| error.to_string())?;
    let agent = Agent::builder(hodei.gateway()).slots(SLOTS).state(Arc::clone(&waits)).handler(note);
    let node = Node { agent: agent.start().await.map_err(|error| error.to_string())?, hodei };
    let start = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    let mut submitted = 0;
    while start.elapsed() < time {
        ticks.tick().await;
        let at = usize::try_from(waits.start.elapsed().as_micros()).unwrap_or_default();
        let job = || world::spec(at).build().map(NewJob::new);
        let jobs: Result<Vec<NewJob>, _> = (0..TOGETHER).map(|_| job()).collect();
        let jobs = jobs.map_err(|error| error.to_string())?;
        let taken = node.hodei.submit_many(jobs, SubmitOptions::each()).await;
        submitted += taken.map_err(|error| error.to_string())?.len();
    }
    let took = start.elapsed();
    let settled = node.hodei.counts().await.map_err(|error| error.to_string())?.of(State::Succeeded);
    node.succeeded(submitted).await;
    node.end().await;
    let mut waited = std::mem::take(&mut *waits.waited.lock().unwrap_or_else(PoisonError::into_inner));
    if waited.len() != submitted {
        return Err(format!("{submitted} jobs were submitted, {} began", waited.len()));
    }
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut waited, percent));
    Ok(Served { rate: settled as f64 / took.as_secs_f64(), p50, p99 })
}

/// Keeps a snapshot open for so long.
fn pin(server: &Postgres, database: &str, time: Duration) -> Result<(), String> {
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hodei.job; SELECT pg_sleep({}); COMMIT",
        time.as_secs_f64()
    );
    server.sql(database, &sql).map(drop).map_err(|error| error.to_string())
}

/// Reads the big tables in one long transaction after the other.
fn read(server: &Postgres, database: &str, time: Duration, over: &AtomicBool) -> Result<(), String> {
    let pause = READ.min(time / 4).as_secs_f64() / 2.0;
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(length(body)) FROM hodei.job; SELECT pg_sleep({pause});
         SELECT count(*) FROM hodei.done; SELECT pg_sleep({pause}); SELECT sum(n) FROM hodei.change; COMMIT"
    );
    while !over.load(Ordering::Relaxed) {
        server.sql(database, &sql).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Serves the load while a snapshot stays open and readers read.
async fn serve_pinned(server: &Arc<Postgres>, time: Duration) -> Result<Served, String> {
    let database = world::database(server)?;
    // The tables are there before anybody reads them.
    world::open(database.url()).await?.close().await;
    let over = Arc::new(AtomicBool::new(false));
    let mut beside = Vec::new();
    for reader in 0..=READERS {
        let (server, name, over) = (Arc::clone(server), database.name().to_owned(), Arc::clone(&over));
        beside.push(tokio::task::spawn_blocking(move || match reader {
            0 => pin(&server, &name, time),
            _ => read(&server, &name, time, &over),
        }));
    }
    let pinned =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND query LIKE '%pg_sleep%'";
    let all_hold = || -> Result<bool, String> {
        let count = server.sql("postgres", pinned).map_err(|error| error.to_string())?;
        Ok(count.parse::<usize>().map_err(|_| format!("`{count}` is no count"))? > READERS)
    };
    let end = Instant::now() + BEGUN;
    while !all_hold()? {
        if Instant::now() > end {
            return Err("the snapshot and the readers are never there together".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let served = serve(&database, time).await?;
    over.store(true, Ordering::Relaxed);
    for reader in beside {
        reader.await.map_err(|error| error.to_string())??;
    }
    Ok(served)
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = Arc::new(world::server()?);
    let clean = serve(&world::database(&server)?, sizes.clean).await?;
    let pinned = serve_pinned(&server, sizes.pinned).await?;
    report.group(&format!("{RATE} jobs a second submitted to one node, begun and settled there"));
    let show = |how: &str, served: &Served| {
        report.show(&format!("settled, {how}"), served.rate, Unit::PerSecond);
        report.show("  from submission to the handler's first line, p50", served.p50, Unit::Millis);
        report.show("  from submission to the handler's first line, p99", served.p99, Unit::Millis);
    };
    show(&format!("{} s with nobody else on the server", sizes.clean.as_secs()), &clean);
    show(&format!("{} s beside an old snapshot and {READERS} long readers", sizes.pinned.as_secs()), &pinned);
    report.judge("  as a share of nobody else", pinned.rate / clean.rate, Unit::Percent, Goal::AtLeast(0.97));
    Ok(())
}
