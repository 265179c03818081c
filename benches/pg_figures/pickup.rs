//! How soon a node begins what another one submits, both idle before.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_agent::{Agent, Context};
use hodei_benches::Node;
use hodei_benches::report::{Goal, Report, Unit};
use hodei_core::job::NewJob;
use hodei_sched::Orchestrator;
use tokio::sync::mpsc;

use crate::world::{self, Numbered, percentile};
use crate::{Sizes, world::SLOTS};

/// The pause before a submission is between these.
const GAPS: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(85)];
/// How long a job may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a handler was entered.
type Began = mpsc::UnboundedSender<(usize, Instant)>;

async fn say_when(context: Context<Began>, Numbered(n): Numbered) {
    let now = Instant::now();
    // Nobody hears it when the measurement is over.
    let _ = context.state().send((n, now));
}

/// A pause that nobody can guess.
fn gap() -> Duration {
    let width = (GAPS[1] - GAPS[0]).as_micros();
    let random = u128::from(RandomState::new().hash_one(0_u8)) % width;
    GAPS[0] + Duration::from_micros(u64::try_from(random).unwrap_or_default())
}

pub(crate) async fn figures(sizes: Sizes, report: &mut Report) -> Result<(), String> {
    let server = world::server()?;
    let database = world::database(&server)?;
    let (began, mut beginnings) = mpsc::unbounded_channel();
    let submits = Arc::new(world::open(database.url()).await?);
    let submits = Orchestrator::builder().shared_store(submits).start().await;
    let submits = submits.map_err(|error| error.to_string())?;
    let runs = Arc::new(world::open(database.url()).await?);
    let hodei = Orchestrator::builder().shared_store(runs).start().await;
    let hodei = hodei.map_err(|error| error.to_string())?;
    let agent = Agent::builder(hodei.gateway()).slots(SLOTS).state(began).handler(say_when);
    let runs = Node { agent: agent.start().await.map_err(|error| error.to_string())?, hodei };
    let (mut stored, mut entered, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..sizes.pickups {
        tokio::time::sleep(gap()).await;
        let job = NewJob::new(world::spec(n).build().map_err(|error| error.to_string())?);
        let asked = Instant::now();
        submits.submit(job).await.map_err(|error| error.to_string())?;
        let acknowledged = Instant::now();
        let first = tokio::time::timeout(PATIENCE, beginnings.recv()).await;
        let first = first.map_err(|_| format!("job {n} did not begin in {PATIENCE:?}"))?;
        let Some((which, at)) = first else { return Err("the agent is gone".to_owned()) };
        if which != n {
            return Err(format!("job {which} began where {n} was to"));
        }
        stored.push(acknowledged - asked);
        entered.push(at - asked);
        after.push(at.saturating_duration_since(acknowledged));
    }
    runs.end().await;
    submits.shutdown().await;
    report.group(&format!(
        "submitted on one idle node, begun on another, {} jobs at random gaps",
        sizes.pickups
    ));
    report.show(
        "from the call of submit to its acknowledgement, p50",
        percentile(&mut stored, 50),
        Unit::Millis,
    );
    report.show("from there to the handler's first line, p50", percentile(&mut after, 50), Unit::Millis);
    let whole = [50, 99].map(|percent| percentile(&mut entered, percent));
    report.judge("from the call to the handler's first line, p50", whole[0], Unit::Millis, Goal::AtMost(2.0));
    report.judge(
        "from the call to the handler's first line, p99",
        whole[1],
        Unit::Millis,
        Goal::AtMost(10.0),
    );
    Ok(())
}
